/**
 * A log as a server keeps it, in memory: one table of hashes by position, one of entries, one of what Resolve shows.
 * For tests, which also play the attacker with it: `fork` is a second view under the same keys, and `entries` can be
 * handed out changed. How little it takes is also the answer to what a server's store has to provide.
 */
import { SignatureSchemeId } from '@quicprochat/crypto';
import type { CryptoProvider, KeyPair } from '@quicprochat/crypto';
import { CERTIFICATE_LIFETIME_SECS, signDeviceCertificate } from '../../device-certificate.ts';
import { generateSigningKey } from '../../identity.ts';
import { signRevocation } from '../../revocation.ts';
import { logOriginOf, openCheckpoint, signCheckpoint } from '../checkpoint.ts';
import type { Checkpoint } from '../checkpoint.ts';
import {
  computeCommitment,
  encodeLogEntry,
  HISTORY_START,
  logStart,
  nextHistory,
  proveLogIndex,
  signAccountStatement,
} from '../entry.ts';
import type { LogEntry, PinnedLog } from '../entry.ts';
import {
  appendLeaves,
  assembleProof,
  EMPTY_FRONTIER,
  leafHash,
  planConsistencyProof,
  planInclusionProof,
  planRoot,
  rootHash,
} from '../merkle.ts';
import type { Frontier, ProofPlan } from '../merkle.ts';
import type { KeyTransparencyProofFields } from '../proof.ts';
import { generateVrfKeyPair, vrfReady } from '../vrf.ts';

await vrfReady();

export const SERVER_ORIGIN = 'chat.example.org';
export const DAY = 20_000;
const NOW_SECS = DAY * 86_400;

interface Row {
  readonly username: string;
  readonly opening: Uint8Array;
  readonly statement: Uint8Array;
  readonly vrfProof: Uint8Array;
  readonly entry: LogEntry;
  readonly position: number;
}

export class MemoryLog {
  readonly crypto: CryptoProvider;
  readonly entries: Uint8Array[] = [];
  readonly pinned: PinnedLog;
  readonly #checkpointKey: KeyPair;
  readonly #vrfKey: KeyPair;
  readonly #hashes: Uint8Array[] = [];
  readonly #rows: Row[] = [];
  #frontier: Frontier = EMPTY_FRONTIER;

  constructor(crypto: CryptoProvider, of?: MemoryLog) {
    this.crypto = crypto;
    this.#vrfKey = of === undefined ? generateVrfKeyPair(crypto) : of.#vrfKey;
    this.#checkpointKey =
      of === undefined
        ? crypto.signature(SignatureSchemeId.Ed25519).deriveKeyPair(crypto.random(32))
        : of.#checkpointKey;
    this.pinned = {
      origin: logOriginOf(SERVER_ORIGIN),
      key: this.#checkpointKey.publicKey,
      vrfKey: this.#vrfKey.publicKey,
      serverOrigin: SERVER_ORIGIN,
    };
    if (of === undefined) {
      this.appendEntry(logStart(crypto, this.pinned, DAY));
    } else {
      for (const entry of of.entries) this.appendBytes(entry);
      this.#rows.push(...of.#rows);
    }
  }

  /** A second view under the same keys, equal so far. */
  fork(): MemoryLog {
    return new MemoryLog(this.crypto, this);
  }

  /** The log with an entry left out, as if it had never been. */
  without(position: number): MemoryLog {
    const other = this.fork();
    const kept = other.entries.filter((_, i) => i !== position);
    other.entries.length = 0;
    other.#hashes.length = 0;
    other.#frontier = EMPTY_FRONTIER;
    for (const entry of kept) other.appendBytes(entry);
    return other;
  }

  get size(): number {
    return this.#frontier.size;
  }

  appendBytes(entry: Uint8Array): number {
    const appended = appendLeaves(this.crypto, this.#frontier, [leafHash(this.crypto, entry)]);
    this.#frontier = appended.frontier;
    this.#hashes.push(...appended.hashes);
    return this.entries.push(entry) - 1;
  }

  appendEntry(entry: LogEntry): number {
    return this.appendBytes(encodeLogEntry(entry));
  }

  /** Enters a statement; the position of its entry. */
  publish(username: string, kind: 'keys' | 'deleted', version: number, statement: Uint8Array): number {
    const { index, proof } = proveLogIndex(this.crypto, this.#vrfKey.privateKey, username);
    const opening = this.crypto.random(32);
    const commitment = computeCommitment(this.crypto, { opening, username, version, statement });
    const entry: LogEntry = { kind, index, version, commitment, day: DAY };
    const position = this.appendEntry(entry);
    this.#rows.push({ username, opening, statement, vrfProof: proof, entry, position });
    return position;
  }

  indexOf(username: string): Uint8Array {
    return proveLogIndex(this.crypto, this.#vrfKey.privateKey, username).index;
  }

  checkpointBytes(size = this.size): Uint8Array {
    const root = size === this.size ? rootHash(this.crypto, this.#frontier) : this.#assemble(planRoot(size))[0]!;
    return signCheckpoint(this.crypto, this.#checkpointKey.privateKey, { origin: this.pinned.origin, size, root });
  }

  checkpoint(size = this.size): Checkpoint {
    const outcome = openCheckpoint(this.crypto, this.checkpointBytes(size), this.pinned);
    if (outcome.kind === 'invalid') throw new Error(outcome.reason);
    return outcome.checkpoint;
  }

  /** Resolve: the newest version of a name, or the one asked for, under the checkpoint of the size asked for. */
  resolve(username: string, version?: number, size = this.size): KeyTransparencyProofFields {
    const row = this.#rows.findLast(
      (one) => one.username === username && (version === undefined || one.entry.version === version),
    );
    if (row === undefined) throw new Error('no such account in this test');
    return {
      vrfProof: row.vrfProof,
      entryIndex: BigInt(row.position),
      version: row.entry.version,
      opening: row.opening,
      statement: row.statement,
      inclusion: this.#assemble(planInclusionProof(row.position, size)),
      checkpoint: this.checkpointBytes(size),
      day: row.entry.day,
    };
  }

  consistency(first: number, second: number): Uint8Array[] {
    return this.#assemble(planConsistencyProof(first, second));
  }

  #assemble(plan: ProofPlan): Uint8Array[] {
    return assembleProof(
      this.crypto,
      plan,
      plan.positions.map((position) => this.#hashes[position]!),
    );
  }
}

/** A person with one device, who states her keys as often as asked. */
export class Person {
  readonly crypto: CryptoProvider;
  readonly username: string;
  readonly identity: KeyPair;
  readonly made: { version: number; commitment: Uint8Array; dueAtSize: number }[] = [];
  #history: Uint8Array = HISTORY_START;

  constructor(crypto: CryptoProvider, username: string) {
    this.crypto = crypto;
    this.username = username;
    this.identity = generateSigningKey(crypto);
  }

  certificate(deviceId = this.crypto.random(16)): Uint8Array {
    return signDeviceCertificate(this.crypto, this.identity.privateKey, {
      origin: SERVER_ORIGIN,
      username: this.username,
      identityKey: this.identity.publicKey,
      deviceId,
      deviceKey: generateSigningKey(this.crypto).publicKey,
      manager: true,
      serial: 1n,
      notBeforeSecs: NOW_SECS,
      notAfterSecs: NOW_SECS + CERTIFICATE_LIFETIME_SECS,
    });
  }

  /** Of a former device of hers. */
  revocation(signer: 'identity' | 'device', deviceId = this.crypto.random(16)): Uint8Array {
    const device = generateSigningKey(this.crypto);
    return signRevocation(this.crypto, signer === 'identity' ? this.identity.privateKey : device.privateKey, {
      origin: SERVER_ORIGIN,
      address: { identityKey: this.identity.publicKey, deviceId },
      deviceKey: device.publicKey,
      signer,
      revokedAtSecs: NOW_SECS,
    });
  }

  /** Her next statement, signed. */
  sign(kind: 'keys' | 'deleted' = 'keys', version = this.made.length, history = this.#history): Uint8Array {
    const head = {
      origin: SERVER_ORIGIN,
      username: this.username,
      identityKey: this.identity.publicKey,
      version,
      history,
    };
    const statement =
      kind === 'deleted'
        ? ({ ...head, kind } as const)
        : ({ ...head, kind, certificates: [this.certificate()], revocations: [] } as const);
    return signAccountStatement(this.crypto, this.identity.privateKey, statement);
  }

  /** Signs her next statement and has the log enter it; the position. */
  publish(log: MemoryLog, kind: 'keys' | 'deleted' = 'keys'): number {
    const version = this.made.length;
    const statement = this.sign(kind);
    const position = log.publish(this.username, kind, version, statement);
    const { opening } = log.resolve(this.username, version);
    const commitment = computeCommitment(this.crypto, { opening, username: this.username, version, statement });
    this.made.push({ version, commitment, dueAtSize: log.size });
    this.#history = nextHistory(this.crypto, this.#history, commitment);
    return position;
  }
}
