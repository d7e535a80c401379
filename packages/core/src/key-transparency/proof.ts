/**
 * What Resolve answers, verified (PROTOCOL 7). The server shows username, opening, statement and VRF proof; the log's
 * public entry is recomputed from them and must be included under a signed checkpoint:
 *
 *   username ─ VRF proof ─▶ index ┐
 *   opening, username, version,   ├─▶ entry ─ leaf hash, inclusion proof ─▶ root = checkpoint's ◀─ log's signature
 *   statement ─▶ commitment ──────┘
 *   statement ◀─ signature of the identity key, device certificates
 *
 * So a wrong opening, day or position shows as a failing inclusion. That the entry is the newest of its index no such
 * proof can say: `LogMirror.checkResolved` does.
 */
import type { CryptoProvider } from '@quicprochat/crypto';
import type { VerifiedDeviceCertificate } from '../device-certificate.ts';
import type { VerifiedRevocation } from '../revocation.ts';
import { openCheckpoint } from './checkpoint.ts';
import type { Checkpoint } from './checkpoint.ts';
import {
  computeCommitment,
  encodeLogEntry,
  OPENING_BYTES,
  parseAccountStatement,
  verifyAccountStatement,
  verifyLogIndex,
} from './entry.ts';
import type { LogEntry, PinnedLog, VerifiedAccountStatement } from './entry.ts';
import { leafHash, verifyInclusion } from './merkle.ts';

/** The fields of the protobuf message KeyTransparencyProof, which can be given as it is. Nothing in it is believed. */
export interface KeyTransparencyProofFields {
  /** 80 bytes. */
  readonly vrfProof: Uint8Array;
  /** Position of the entry in the log. */
  readonly entryIndex: bigint;
  readonly version: number;
  /** 32 bytes. */
  readonly opening: Uint8Array;
  /** The account statement, signed. */
  readonly statement: Uint8Array;
  readonly inclusion: readonly Uint8Array[];
  /** A signed note. */
  readonly checkpoint: Uint8Array;
  /** Days since 1970. */
  readonly day: number;
}

declare const verified: unique symbol;

/** An account as the log has it under `checkpoint`. Made by `verifyResolve` only. */
export interface ResolvedAccount {
  readonly [verified]: true;
  readonly username: string;
  readonly index: Uint8Array;
  readonly version: number;
  /** Position in the log; below `checkpoint.size`. */
  readonly position: number;
  readonly entry: LogEntry;
  readonly statement: VerifiedAccountStatement;
  /** Verified under the statement's identity key; expiry is for the caller to check. None when deleted. */
  readonly certificates: readonly VerifiedDeviceCertificate[];
  /** Of devices that are not among the certificates. */
  readonly revocations: readonly VerifiedRevocation[];
  readonly checkpoint: Checkpoint;
}

export type ResolveRefusal = 'malformed' | 'checkpoint' | 'vrf' | 'statement' | 'inclusion';

export type ResolveOutcome =
  | { readonly kind: 'verified'; readonly account: ResolvedAccount }
  /** `reason` says which check failed, `detail` is one clause without user data. */
  | { readonly kind: 'refused'; readonly reason: ResolveRefusal; readonly detail: string };

/**
 * Verifies that the log maps `username` to the statement shown. `identityKey` is the one pinned for the name, if any.
 * @throws Misuse before `vrfReady`
 */
export function verifyResolve(
  crypto: CryptoProvider,
  log: PinnedLog,
  username: string,
  fields: KeyTransparencyProofFields,
  identityKey?: Uint8Array,
): ResolveOutcome {
  const refused = (reason: ResolveRefusal, detail: string): ResolveOutcome => ({ kind: 'refused', reason, detail });
  const { opening, version, day } = fields;
  const position = Number(fields.entryIndex);
  if (!Number.isSafeInteger(position) || opening.length !== OPENING_BYTES || !isU32(version) || !isU32(day)) {
    return refused('malformed', 'a field of the proof is out of range');
  }

  const head = openCheckpoint(crypto, fields.checkpoint, log);
  if (head.kind === 'invalid') return refused('checkpoint', head.reason);

  const index = verifyLogIndex(crypto, log.vrfKey, username, fields.vrfProof);
  if (index === undefined) return refused('vrf', 'the index is not that of the name');

  const parsed = parseAccountStatement(fields.statement);
  if (parsed === undefined) return refused('statement', 'the statement cannot be read');
  const stated = verifyAccountStatement(crypto, parsed, {
    origin: log.serverOrigin,
    username,
    version,
    ...(identityKey === undefined ? {} : { identityKey }),
  });
  if (stated.kind === 'invalid') return refused('statement', stated.reason);
  const { statement, certificates, revocations } = stated;

  const commitment = computeCommitment(crypto, { opening, username, version, statement: statement.bytes });
  const entry: LogEntry = { kind: statement.kind, index, version, commitment, day };
  const { checkpoint } = head;
  const claim = {
    leafHash: leafHash(crypto, encodeLogEntry(entry)),
    index: position,
    size: checkpoint.size,
    root: checkpoint.root,
  };
  if (!verifyInclusion(crypto, claim, fields.inclusion)) return refused('inclusion', 'the entry is not in the log');

  const account = { username, index, version, position, entry, statement, certificates, revocations, checkpoint };
  return { kind: 'verified', account: account as unknown as ResolvedAccount };
}

function isU32(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= 0xffff_ffff;
}
