/**
 * What stands in the key-transparency log, and what it commits to (PROTOCOL 7).
 *
 *   entry (public, 73 bytes)  type u8 ‖ index 32 ‖ version u32 ‖ commitment 32 ‖ day u32, days since 1970
 *   index                     first 32 bytes of VRF(username), so the log holds no names
 *   commitment                HMAC-SHA-256(label, opening 32 ‖ username ‖ version u32 ‖ statement)   (name behind its length)
 *   statement (shown by Resolve only), signed by IK:
 *     label ‖ origin ‖ username ‖ IK 32 ‖ version u32 ‖ history 32 ‖ deleted u8
 *     ‖ [count u8 ‖ (length u16 ‖ certificate)…  ‖ count u8 ‖ (length u16 ‖ revocation)…]   (unless deleted) ‖ signature 64
 *   history                   32 zero bytes for version 0, then SHA-256(label ‖ previous history ‖ previous commitment)
 *
 * The version is signed, so the server cannot enter an old statement anew. The history is signed, so the newest statement
 * vouches for every earlier entry of its index: one that the identity key did not make breaks the chain, for everyone.
 * Entry 0 is the log's start: its index is the VRF public key and its commitment names the log, so that nobody can be
 * given another VRF key, and with it other indexes, inside the same log.
 */
import { concat, encodeHex, encodeUtf8, equal, readU16, readU32, u16, u32 } from '@quicprochat/crypto';
import type { CryptoProvider } from '@quicprochat/crypto';
import { CERTIFICATE_BYTES_MAX, parseDeviceCertificate, verifyDeviceCertificate } from '../device-certificate.ts';
import type { VerifiedDeviceCertificate } from '../device-certificate.ts';
import { Misuse } from '../errors.ts';
import { IDENTITY_KEY_BYTES } from '../identity.ts';
import { Label } from '../labels.ts';
import { parseRevocation, REVOCATION_BYTES_MAX, verifyRevocation } from '../revocation.ts';
import type { VerifiedRevocation } from '../revocation.ts';
import { exactly, lengthPrefixedText, parseStatement, signStatement, verifyStatement } from '../statement.ts';
import type { FieldReader, Unverified, Verified } from '../statement.ts';
import { isUsername } from '../username.ts';
import type { LogKey } from './checkpoint.ts';
import { VRF_PUBLIC_KEY_BYTES, vrfProve, vrfVerify } from './vrf.ts';

export const LOG_ENTRY_BYTES = 73;
export const LOG_INDEX_BYTES = 32;
export const COMMITMENT_BYTES = 32;
export const OPENING_BYTES = 32;
export const HISTORY_BYTES = 32;
/** Longest encoded statement; it must fit into an answer to Resolve beside the same certificates. */
export const ACCOUNT_STATEMENT_BYTES_MAX = 28 * 1_024;
/** Most device certificates in a statement. */
export const STATEMENT_CERTIFICATES_MAX = 16;

// Entries

const ENTRY_TYPE = { start: 0, keys: 1, deleted: 2 } as const;
export type LogEntryKind = keyof typeof ENTRY_TYPE;
const ENTRY_KINDS = ['start', 'keys', 'deleted'] as const satisfies readonly LogEntryKind[];

export interface LogEntry {
  /** `start`: entry 0, `keys`: an account's keys, `deleted`: the last entry of an account. */
  readonly kind: LogEntryKind;
  /** 32 bytes. */
  readonly index: Uint8Array;
  /** Counts 0, 1, 2 … per index. */
  readonly version: number;
  /** 32 bytes. */
  readonly commitment: Uint8Array;
  /** Days since 1970. */
  readonly day: number;
}

/** 73 bytes. @throws Misuse when a field is out of range. */
export function encodeLogEntry(entry: LogEntry): Uint8Array {
  return concat(
    new Uint8Array([ENTRY_TYPE[entry.kind]]),
    exactly(entry.index, LOG_INDEX_BYTES, 'a log index'),
    counter(entry.version),
    exactly(entry.commitment, COMMITMENT_BYTES, 'a commitment'),
    counter(entry.day),
  );
}

/** The entry, or undefined when these are not 73 bytes of a known type. Copies. */
export function decodeLogEntry(bytes: Uint8Array): LogEntry | undefined {
  const kind = ENTRY_KINDS[bytes[0] ?? -1];
  if (bytes.length !== LOG_ENTRY_BYTES || kind === undefined) return undefined;
  return {
    kind,
    index: bytes.slice(1, 33),
    version: readU32(bytes, 33),
    commitment: bytes.slice(37, 69),
    day: readU32(bytes, 69),
  };
}

/** A log as a client pins it at first contact. */
export interface PinnedLog extends LogKey {
  /** The VRF public key, 32 bytes; stands in entry 0. */
  readonly vrfKey: Uint8Array;
  /** The server's origin, which statements and certificates name. */
  readonly serverOrigin: string;
}

/** Entry 0 of a log. */
export function logStart(
  crypto: CryptoProvider,
  log: { readonly origin: string; readonly vrfKey: Uint8Array },
  day: number,
): LogEntry {
  const index = exactly(log.vrfKey, VRF_PUBLIC_KEY_BYTES, 'a VRF public key');
  return { kind: 'start', index, version: 0, commitment: startCommitment(crypto, log.origin), day };
}

/** Whether this is how the pinned log has to begin. */
export function isLogStart(crypto: CryptoProvider, log: PinnedLog, entry: LogEntry): boolean {
  return (
    entry.kind === 'start' &&
    entry.version === 0 &&
    equal(entry.index, log.vrfKey) &&
    equal(entry.commitment, startCommitment(crypto, log.origin))
  );
}

function startCommitment(crypto: CryptoProvider, logOrigin: string): Uint8Array {
  return crypto.hash('sha256', concat(Label.keyTransparencyStart, encodeUtf8(logOrigin)));
}

// Index, commitment, history

/** The index of a name and the proof of it, with the server's VRF key. @throws Misuse before `vrfReady` */
export function proveLogIndex(
  crypto: CryptoProvider,
  vrfPrivateKey: Uint8Array,
  username: string,
): { readonly index: Uint8Array; readonly proof: Uint8Array } {
  const { output, proof } = vrfProve(crypto, vrfPrivateKey, encodeUtf8(username));
  return { index: output.slice(0, LOG_INDEX_BYTES), proof };
}

/** The index of a name, or undefined when the proof does not hold. @throws Misuse before `vrfReady` */
export function verifyLogIndex(
  crypto: CryptoProvider,
  vrfKey: Uint8Array,
  username: string,
  proof: Uint8Array,
): Uint8Array | undefined {
  return vrfVerify(crypto, vrfKey, encodeUtf8(username), proof)?.slice(0, LOG_INDEX_BYTES);
}

export interface CommitmentTerms {
  /** 32 random bytes, drawn by the server for each entry and shown by Resolve. */
  readonly opening: Uint8Array;
  readonly username: string;
  readonly version: number;
  /** The signed statement's bytes. */
  readonly statement: Uint8Array;
}

/** 32 bytes. @throws Misuse when a field is out of range. */
export function computeCommitment(crypto: CryptoProvider, terms: CommitmentTerms): Uint8Array {
  return crypto.hmac(
    'sha256',
    Label.keyTransparencyCommitment,
    concat(
      exactly(terms.opening, OPENING_BYTES, 'an opening'),
      lengthPrefixedText(terms.username),
      counter(terms.version),
      terms.statement,
    ),
  );
}

/** `history` of version 0. */
export const HISTORY_START: Uint8Array = new Uint8Array(HISTORY_BYTES);

/** `history` of the version after the one that had `history` and was committed to as `commitment`. */
export function nextHistory(crypto: CryptoProvider, history: Uint8Array, commitment: Uint8Array): Uint8Array {
  return crypto.hash(
    'sha256',
    concat(
      Label.keyTransparencyHistory,
      exactly(history, HISTORY_BYTES, 'a history'),
      exactly(commitment, COMMITMENT_BYTES, 'a commitment'),
    ),
  );
}

// Statements

interface StatementHead {
  /** The server's origin. */
  readonly origin: string;
  readonly username: string;
  /** Ed25519, 32 bytes; signs this statement. */
  readonly identityKey: Uint8Array;
  readonly version: number;
  /** 32 bytes, see the top of this file. */
  readonly history: Uint8Array;
}

/** An account's keys as its identity key states them. */
export interface KeysStatement extends StatementHead {
  readonly kind: 'keys';
  /** Certificates of all current devices, at most 16, each of another device. */
  readonly certificates: readonly Uint8Array[];
  /** Signed revocations of former devices; those whose certificates have long expired may be left out. */
  readonly revocations: readonly Uint8Array[];
}

/** The account is gone, for good. */
export interface DeletedStatement extends StatementHead {
  readonly kind: 'deleted';
}

export type AccountStatement = KeysStatement | DeletedStatement;
export type UnverifiedAccountStatement = Unverified<AccountStatement>;
export type VerifiedAccountStatement = Verified<AccountStatement>;

/** Signs a statement with the identity's private key. @throws Misuse when a part is out of range. */
export function signAccountStatement(
  crypto: CryptoProvider,
  identityPrivateKey: Uint8Array,
  statement: AccountStatement,
): Uint8Array {
  const bytes = signStatement(
    crypto,
    identityPrivateKey,
    concat(
      Label.keyTransparencyStatement,
      lengthPrefixedText(statement.origin),
      lengthPrefixedText(statement.username),
      exactly(statement.identityKey, IDENTITY_KEY_BYTES, 'an identity key'),
      counter(statement.version),
      exactly(statement.history, HISTORY_BYTES, 'a history'),
      statement.kind === 'deleted'
        ? new Uint8Array([1])
        : concat(
            new Uint8Array([0]),
            encodeList(statement.certificates, STATEMENT_CERTIFICATES_MAX, CERTIFICATE_BYTES_MAX),
            encodeList(statement.revocations, 255, REVOCATION_BYTES_MAX),
          ),
    ),
  );
  if (bytes.length > ACCOUNT_STATEMENT_BYTES_MAX) {
    throw new Misuse(`an account statement has at most ${ACCOUNT_STATEMENT_BYTES_MAX} bytes`);
  }
  return bytes;
}

/** The layout read, nothing checked; undefined when it is no account statement. */
export function parseAccountStatement(bytes: Uint8Array): UnverifiedAccountStatement | undefined {
  return parseStatement(
    bytes,
    Label.keyTransparencyStatement,
    ACCOUNT_STATEMENT_BYTES_MAX,
    (reader): AccountStatement => {
      const head: StatementHead = {
        origin: reader.text(),
        username: reader.text(),
        identityKey: reader.take(IDENTITY_KEY_BYTES),
        version: readU32(reader.take(4)),
        history: reader.take(HISTORY_BYTES),
      };
      if (reader.flag()) return { ...head, kind: 'deleted' };
      return { ...head, kind: 'keys', certificates: readList(reader), revocations: readList(reader) };
    },
  );
}

/** What the verifier already knows. Everything given must match. */
export interface AccountStatementExpectation {
  readonly origin: string;
  readonly username: string;
  readonly version: number;
  /** The identity key pinned for the name; left out at first contact. */
  readonly identityKey?: Uint8Array;
  /** What the log's earlier entries of the index amount to, where they are known (the server, a mirror). */
  readonly history?: Uint8Array;
}

export type AccountStatementOutcome =
  | {
      readonly kind: 'verified';
      readonly statement: VerifiedAccountStatement;
      /** The statement's certificates, verified under its identity key; none when deleted. Expiry is not checked. */
      readonly certificates: readonly VerifiedDeviceCertificate[];
      readonly revocations: readonly VerifiedRevocation[];
    }
  | { readonly kind: 'invalid'; readonly reason: string };

/** Checks the signature, the expectations, every certificate and revocation. The same answer for ever: no clock. */
export function verifyAccountStatement(
  crypto: CryptoProvider,
  untrusted: UnverifiedAccountStatement,
  expected: AccountStatementExpectation,
): AccountStatementOutcome {
  const { claims } = untrusted;
  const invalid = (reason: string): AccountStatementOutcome => ({ kind: 'invalid', reason });
  if (claims.origin !== expected.origin) return invalid('the statement is for another server');
  if (!isUsername(claims.username) || claims.username !== expected.username) {
    return invalid('the statement is for another account');
  }
  if (claims.version !== expected.version) return invalid('the statement is of another version');
  if (expected.identityKey !== undefined && !equal(claims.identityKey, expected.identityKey)) {
    return invalid('the statement is by another identity key');
  }
  const history = claims.version === 0 ? HISTORY_START : expected.history;
  if (history !== undefined && !equal(claims.history, history)) {
    return invalid('the statement does not continue the entries before it');
  }
  const outcome = verifyStatement(crypto, claims.identityKey, untrusted);
  if (outcome.kind === 'invalid') return outcome;
  const { statement } = outcome;
  if (statement.kind === 'deleted') return { kind: 'verified', statement, certificates: [], revocations: [] };
  if (statement.certificates.length > STATEMENT_CERTIFICATES_MAX)
    return invalid('the statement names too many devices');

  const { origin, username, identityKey } = statement;
  const certificates: VerifiedDeviceCertificate[] = [];
  const deviceIds = new Set<string>();
  for (const bytes of statement.certificates) {
    const parsed = parseDeviceCertificate(bytes);
    if (parsed === undefined) return invalid('a certificate in the statement cannot be read');
    const certificate = verifyDeviceCertificate(crypto, parsed, { origin, username, identityKey });
    if (certificate.kind === 'invalid') return certificate;
    deviceIds.add(encodeHex(certificate.statement.deviceId));
    certificates.push(certificate.statement);
  }
  if (deviceIds.size !== certificates.length) return invalid('the statement names a device twice');

  const revocations: VerifiedRevocation[] = [];
  for (const bytes of statement.revocations) {
    const parsed = parseRevocation(bytes);
    if (parsed === undefined) return invalid('a revocation in the statement cannot be read');
    // Listing it, the identity key vouches for the device key even where that key signed for itself.
    const { deviceKey } = parsed.claims;
    const revocation = verifyRevocation(crypto, parsed, { origin, identityKey, deviceKey });
    if (revocation.kind === 'invalid') return revocation;
    if (deviceIds.has(encodeHex(revocation.statement.address.deviceId))) {
      return invalid('the statement names a revoked device among the current ones');
    }
    revocations.push(revocation.statement);
  }
  return { kind: 'verified', statement, certificates, revocations };
}

function encodeList(items: readonly Uint8Array[], countMax: number, bytesMax: number): Uint8Array {
  if (items.length > countMax) throw new Misuse(`a list in an account statement has at most ${countMax} elements`);
  if (items.some((item) => item.length > bytesMax)) throw new Misuse(`an element has at most ${bytesMax} bytes`);
  return concat(new Uint8Array([items.length]), ...items.flatMap((item) => [u16(item.length), item]));
}

function readList(reader: FieldReader): Uint8Array[] {
  return Array.from({ length: reader.u8() }, () => reader.take(readU16(reader.take(2))));
}

function counter(value: number): Uint8Array {
  if (!Number.isInteger(value) || value < 0 || value > 0xffff_ffff)
    throw new Misuse('a u32 of an entry is out of range');
  return u32(value);
}
