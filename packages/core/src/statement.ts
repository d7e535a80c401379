/**
 * Fixed-layout statements (PROTOCOL, introduction): label ‖ fields ‖ Ed25519 signature over all before it. They travel
 * as `bytes` and are never re-encoded. Reading one takes two steps that the types keep apart:
 *
 *   bytes ── parse (layout and bounds only) ──▶ Unverified<Claims> ── verify (key, expectations) ──▶ Verified<Claims>
 *
 * Integers are big-endian; text is UTF-8 behind one length byte; everything else has a fixed length.
 */
import { concat, decodeUtf8, encodeUtf8, equal, readU16, readU64, SignatureSchemeId } from '@quicprochat/crypto';
import type { CryptoProvider } from '@quicprochat/crypto';
import { Misuse } from './errors.ts';

export const SIGNATURE_BYTES = 64;

declare const verified: unique symbol;

/** What a statement says, before anyone has checked that it was said by whom it names. */
export interface Unverified<Claims> {
  readonly kind: 'unverified';
  readonly claims: Claims;
  /** The whole statement as received, signature included. */
  readonly bytes: Uint8Array;
}

/** Claims whose signature and expectations have been checked; made by `verify` functions only. */
export type Verified<Claims> = Claims & { readonly bytes: Uint8Array; readonly [verified]: true };

export type VerifyOutcome<Claims> =
  | { readonly kind: 'verified'; readonly statement: Verified<Claims> }
  /** `reason` is one clause without user data, fit for a log and for the user. */
  | { readonly kind: 'invalid'; readonly reason: string };

/** Signs `body` (label first) and returns body ‖ signature. */
export function signStatement(crypto: CryptoProvider, privateKey: Uint8Array, body: Uint8Array): Uint8Array {
  return concat(body, crypto.signature(SignatureSchemeId.Ed25519).sign(privateKey, body));
}

/**
 * Checks the signature at the end of a statement and brands its claims.
 * @param signed what the signature is over, label first; default: all bytes before it
 */
export function verifyStatement<Claims>(
  crypto: CryptoProvider,
  publicKey: Uint8Array,
  { bytes, claims }: Unverified<Claims>,
  signed: Uint8Array = bytes.subarray(0, bytes.length - SIGNATURE_BYTES),
): VerifyOutcome<Claims> {
  const authentic = crypto
    .signature(SignatureSchemeId.Ed25519)
    .verify(publicKey, signed, bytes.subarray(bytes.length - SIGNATURE_BYTES));
  if (!authentic) return { kind: 'invalid', reason: 'the signature does not verify' };
  return { kind: 'verified', statement: { ...claims, bytes } as Verified<Claims> };
}

/**
 * Reads a statement's layout. Copies the input, so that nobody can change the bytes between parsing and verifying.
 * Undefined when the label, the lengths or the end do not fit.
 */
export function parseStatement<Claims>(
  bytes: Uint8Array,
  label: Uint8Array,
  bytesMax: number,
  readFields: (reader: FieldReader) => Claims,
): Unverified<Claims> | undefined {
  if (bytes.length > bytesMax || bytes.length < label.length + SIGNATURE_BYTES) return undefined;
  const copy = bytes.slice();
  if (!equal(copy.subarray(0, label.length), label)) return undefined;
  const reader = new FieldReader(copy.subarray(label.length, copy.length - SIGNATURE_BYTES));
  const claims = readFields(reader);
  return reader.complete ? { kind: 'unverified', claims, bytes: copy } : undefined;
}

/** Reads fields front to back. Running out of bytes makes `complete` false for good; nothing throws. */
export class FieldReader {
  readonly #bytes: Uint8Array;
  #at = 0;
  #failed = false;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  /** Everything was read, nothing was missing and nothing malformed. */
  get complete(): boolean {
    return !this.#failed && this.#at === this.#bytes.length;
  }

  /** Bytes read so far. */
  get position(): number {
    return this.#at;
  }

  /** What was read is out of its range: malformed. */
  refuse(): void {
    this.#failed = true;
  }

  take(length: number): Uint8Array {
    const end = this.#at + length;
    if (this.#failed || end > this.#bytes.length) {
      this.#failed = true;
      return new Uint8Array(length);
    }
    const out = this.#bytes.slice(this.#at, end);
    this.#at = end;
    return out;
  }

  u8(): number {
    return this.take(1)[0]!;
  }

  u16(): number {
    return readU16(this.take(2));
  }

  u64(): bigint {
    return readU64(this.take(8));
  }

  /** A u64 that counts seconds or milliseconds; more than 2^53 is malformed. */
  time(): number {
    const value = this.u64();
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) this.#failed = true;
    return Number(value);
  }

  flag(): boolean {
    const value = this.u8();
    if (value > 1) this.#failed = true;
    return value === 1;
  }

  text(): string {
    const text = decodeUtf8(this.take(this.u8()));
    if (text === undefined) this.#failed = true;
    return text ?? '';
  }

  /** Bytes behind one length byte. */
  short(): Uint8Array {
    return this.take(this.u8());
  }
}

/** Text behind its length byte. @throws Misuse above 255 bytes. */
export function lengthPrefixedText(text: string): Uint8Array {
  return lengthPrefixed(encodeUtf8(text));
}

/** Bytes behind their length byte. @throws Misuse above 255 bytes. */
export function lengthPrefixed(bytes: Uint8Array): Uint8Array {
  if (bytes.length > 255) throw new Misuse('a field of a signed statement is longer than 255 bytes');
  return concat(new Uint8Array([bytes.length]), bytes);
}

/** @throws Misuse unless `bytes` has exactly `length` bytes: our own code builds statements from checked values. */
export function exactly(bytes: Uint8Array, length: number, what: string): Uint8Array {
  if (bytes.length !== length) throw new Misuse(`${what} must have ${length} bytes, not ${bytes.length}`);
  return bytes;
}
