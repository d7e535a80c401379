/**
 * Reads fixed layouts front to back. Running past the end or a malformed field makes `complete` false for good and gives
 * empty values; nothing throws, and nothing is allocated beyond what is there.
 */
import { EMPTY, readU16, readU32, readU64 } from '@quicprochat/crypto';

export class ByteReader {
  readonly #bytes: Uint8Array;
  #at = 0;
  #failed = false;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get remaining(): number {
    return this.#failed ? 0 : this.#bytes.length - this.#at;
  }

  /** Everything was read, nothing was missing and nothing malformed. */
  get complete(): boolean {
    return !this.#failed && this.#at === this.#bytes.length;
  }

  fail(): void {
    this.#failed = true;
  }

  /** A copy of the next `length` bytes. */
  take(length: number): Uint8Array {
    return this.#view(length).slice();
  }

  /** All that is left, a copy. */
  rest(): Uint8Array {
    return this.take(this.remaining);
  }

  u8(): number {
    return this.#view(1)[0] ?? 0;
  }

  u16(): number {
    const view = this.#view(2);
    return view.length === 2 ? readU16(view) : 0;
  }

  u32(): number {
    const view = this.#view(4);
    return view.length === 4 ? readU32(view) : 0;
  }

  u64(): bigint {
    const view = this.#view(8);
    return view.length === 8 ? readU64(view) : 0n;
  }

  /** A count of seconds or milliseconds; more than 2^53 is malformed. */
  time(): number {
    const value = this.u64();
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) this.fail();
    return Number(value);
  }

  /** A QUIC-style variable-length integer in its shortest form (RFC 9420 section 2.1.2). */
  varint(): number {
    const first = this.u8();
    const prefix = first >> 6;
    if (prefix === 3) this.fail();
    let value = first & 0x3f;
    for (let i = 1; i < 1 << prefix; i++) value = value * 256 + this.u8();
    if ((prefix === 1 && value < 64) || (prefix === 2 && value < 16384)) this.fail();
    return value;
  }

  #view(length: number): Uint8Array {
    if (length > this.remaining) this.#failed = true;
    if (this.#failed) return EMPTY;
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }
}
