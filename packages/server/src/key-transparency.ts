/**
 * The server's key-transparency log (PROTOCOL 7; docs/key-transparency.md): it turns accepted account statements into
 * entries, appends them in batches under a signed checkpoint, and proves what it has.
 *
 *   handler ─ checked statement ─▶ enter ─ StatedEntry ─▶ store, with the account's change ─▶ accepted
 *   accepted ─ at most once a second, at once when somebody waits ─▶ queue → hashes, checkpoint → store, one transaction
 *   Resolve ─▶ resolve: waits for the account's entry, then proves it under the newest checkpoint
 *
 * The head here changes only after its transaction is on disk, so no checkpoint that was handed out can be lost by a
 * crash. It is the one authority on what is newest: a reader's snapshot may already be ahead of it.
 */
import {
  appendLeaves,
  assembleProof,
  computeCommitment,
  decodeLogEntry,
  EMPTY_FRONTIER,
  encodeLogEntry,
  frontierPositions,
  isLogStart,
  leafHash,
  logOriginOf,
  logStart,
  nodeCount,
  openCheckpoint,
  OPENING_BYTES,
  planConsistencyProof,
  planInclusionProof,
  proveLogIndex,
  rootHash,
  signCheckpoint,
  vrfReady,
} from '@quicprochat/core';
import type { Frontier, PinnedLog, ProofPlan, VerifiedAccountStatement } from '@quicprochat/core';
import { equal, SignatureSchemeId } from '@quicprochat/crypto';
import type { CryptoProvider, KeyPair } from '@quicprochat/crypto';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { KeyTransparencyProofSchema } from '@quicprochat/proto';
import type { Log, ServerClock } from './context.ts';
import { StartupError } from './startup-error.ts';
import { StoreError } from './store/store.ts';
import type { AcceptedStatement, AppendToLog, StatedAccount, StatedEntry, Store } from './store/store.ts';

/** The log's two secrets. Losing either ends it. */
export interface LogSecrets {
  /** Ed25519, 32 bytes. */
  readonly checkpointPrivateKey: Uint8Array;
  readonly vrf: KeyPair;
}

export interface KeyTransparencyParts {
  readonly crypto: CryptoProvider;
  readonly store: Store;
  readonly clock: ServerClock;
  readonly log: Log;
  /** The server's. */
  readonly origin: string;
  readonly secrets: LogSecrets;
}

/** An account with the proof of its newest entry; none where no statement was ever made. */
export interface ResolvedAccount extends StatedAccount {
  readonly proof: MessageInitShape<typeof KeyTransparencyProofSchema> | undefined;
}

const BATCH_EVERY_MS = 1_000;
const BATCH_ENTRIES_MAX = 500;
/** A quarter of a megabyte. */
const RECENT_ENTRIES = 1_000;
const DAY_MS = 86_400_000;
/** An account that changes again and again while it is resolved. */
const RESOLVE_ROUNDS_MAX = 5;

interface Head {
  readonly size: number;
  /** A signed note. */
  readonly checkpoint: Uint8Array;
}

export class KeyTransparency {
  /** What clients pin. */
  readonly pinned: PinnedLog;
  readonly #parts: KeyTransparencyParts;
  #head: Head;
  #frontier: Frontier;
  /** The newest entries, as many as are kept. */
  #recent: readonly Uint8Array[] = [];
  #timer: unknown;
  #appendedAt = -Infinity;
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;
  #closed = false;
  #isFailing = false;

  private constructor(parts: KeyTransparencyParts, pinned: PinnedLog, head: Head, frontier: Frontier) {
    this.#parts = parts;
    this.pinned = pinned;
    this.#head = head;
    this.#frontier = frontier;
  }

  /** Begins the log, or goes on with it. @throws StartupError when the database and the secrets do not fit together. */
  static async open(parts: KeyTransparencyParts): Promise<KeyTransparency> {
    const { crypto, store, origin, secrets } = parts;
    const key = crypto.signature(SignatureSchemeId.Ed25519).publicKey(secrets.checkpointPrivateKey);
    const vrfKey = secrets.vrf.publicKey;
    const pinned: PinnedLog = { origin: logOriginOf(origin), key, vrfKey, serverOrigin: origin };
    const present = await store.readLogHead();
    if (present === undefined) {
      const opened = new KeyTransparency(parts, pinned, { size: 0, checkpoint: new Uint8Array(0) }, EMPTY_FRONTIER);
      await opened.#append([], encodeLogEntry(logStart(crypto, pinned, opened.#today())));
      return opened;
    }
    const checkpoint = openCheckpoint(crypto, present.checkpoint, pinned);
    if (checkpoint.kind === 'invalid') throw notOurs(`its newest checkpoint is refused: ${checkpoint.reason}`);
    const start = decodeLogEntry(present.start);
    if (start === undefined || !isLogStart(crypto, pinned, start)) throw notOurs('it was begun with another VRF key');
    const peaks = await store.readLogHashes(frontierPositions(present.size));
    const frontier: Frontier = { size: present.size, peaks };
    const fits =
      checkpoint.checkpoint.size === present.size && equal(rootHash(crypto, frontier), checkpoint.checkpoint.root);
    if (!fits) throw notOurs('its hashes do not add up to its newest checkpoint');
    const opened = new KeyTransparency(parts, pinned, { size: present.size, checkpoint: present.checkpoint }, frontier);
    // What was accepted before a crash.
    opened.accepted();
    return opened;
  }

  /** The newest checkpoint, a signed note. */
  get checkpoint(): Uint8Array {
    return this.#head.checkpoint;
  }

  get size(): number {
    return this.#head.size;
  }

  /** Accepted entries wait because the store takes no batch. */
  get isFailing(): boolean {
    return this.#isFailing;
  }

  /** The entry that a checked statement becomes. `previous` is the account's newest, whose name has the same index. */
  async enter(
    statement: VerifiedAccountStatement,
    previous: AcceptedStatement | undefined,
    revocationsBefore: number,
  ): Promise<StatedEntry> {
    const { crypto, secrets } = this.#parts;
    const { username, version, history, bytes, kind } = statement;
    if (previous === undefined) await vrfReady();
    const index = previous === undefined ? undefined : decodeLogEntry(previous.entry)?.index;
    const proven =
      previous !== undefined && index !== undefined
        ? { index, proof: previous.vrfProof }
        : proveLogIndex(crypto, secrets.vrf.privateKey, username);
    const opening = crypto.random(OPENING_BYTES);
    const commitment = computeCommitment(crypto, { opening, username, version, statement: bytes });
    const entry = encodeLogEntry({ kind, index: proven.index, version, commitment, day: this.#today() });
    return { entry, version, history, opening, statement: bytes, vrfProof: proven.proof, revocationsBefore };
  }

  /** A statement is on disk: its entry goes into the next batch. */
  accepted(): void {
    if (this.#timer !== undefined || this.#closed) return;
    const { clock, log } = this.#parts;
    const waitMs = Math.max(0, this.#appendedAt + BATCH_EVERY_MS - clock.now());
    this.#timer = clock.setTimer(() => {
      this.#timer = undefined;
      this.flush().then(
        () => {
          this.#isFailing = false;
        },
        (error: unknown) => {
          const say = this.#isFailing ? 'debug' : 'warn';
          log[say]({ err: error }, 'the key-transparency log cannot be appended to; trying again every second');
          this.#isFailing = true;
          this.accepted();
        },
      );
    }, waitMs);
  }

  /** Resolves when everything accepted before the call is in the log. */
  flush(): Promise<void> {
    // One that has not begun reads the queue after this.
    if (this.#next !== undefined) return this.#next;
    if (this.#running === undefined) return this.#run();
    // What runs may have read the queue before the caller's entry was in it.
    this.#next = this.#running
      .catch(() => {})
      .then(() => {
        this.#next = undefined;
        return this.#run();
      });
    return this.#next;
  }

  /** The account, its newest statement proven under the newest checkpoint; undefined when there is none. */
  async resolve(
    of: { readonly username: string } | { readonly identityKey: Uint8Array },
  ): Promise<ResolvedAccount | undefined> {
    const { store } = this.#parts;
    for (let round = 0; round < RESOLVE_ROUNDS_MAX; round++) {
      // Taken first: the row read after it is at least as new as anything this head has of the account.
      const head = this.#head;
      const found = await store.findStatedAccount(of);
      if (found === undefined) return undefined;
      const { stated } = found;
      if (stated === undefined) return { ...found, proof: undefined };
      const { position, version, opening, statement, vrfProof } = stated;
      if (position !== undefined && position < head.size) {
        const inclusion = await this.#prove(planInclusionProof(position, head.size));
        const { day } = decodeLogEntry(stated.entry)!;
        const { checkpoint } = head;
        const entryIndex = BigInt(position);
        return { ...found, proof: { vrfProof, entryIndex, version, opening, statement, inclusion, checkpoint, day } };
      }
      await this.flush();
    }
    throw new StoreError('unavailable', 'The account changes all the time: try again.');
  }

  /**
   * Entries from `start` to, not including, `end`, which is at most the size. Those of late come from memory, where
   * nearly everyone who follows the log finds what is new.
   */
  async readEntries(start: number, end: number): Promise<Uint8Array[]> {
    const inMemory = this.#head.size - this.#recent.length;
    if (start >= inMemory) return this.#recent.slice(start - inMemory, end - inMemory);
    const entries = await this.#parts.store.readLogEntries({ start, limit: end - start });
    if (entries.length < end - start) throw new StoreError('corrupt', 'The log in the database lacks entries.');
    return entries;
  }

  /** 1 ≤ first ≤ second ≤ size. */
  proveConsistency(first: number, second: number): Promise<Uint8Array[]> {
    return this.#prove(planConsistencyProof(first, second));
  }

  /** Appends what waits, and nothing after that. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#parts.clock.clearTimer(this.#timer);
    try {
      await this.flush();
    } catch (error) {
      this.#parts.log.warn({ err: error }, 'the key-transparency log is appended to at the next start');
    }
  }

  async #prove(plan: ProofPlan): Promise<Uint8Array[]> {
    const { crypto, store } = this.#parts;
    const hashes = await store.readLogHashes(plan.positions);
    if (hashes.length < plan.positions.length) throw new StoreError('corrupt', 'The log in the database lacks hashes.');
    return assembleProof(crypto, plan, hashes);
  }

  #run(): Promise<void> {
    const run = this.#appendQueue().finally(() => {
      this.#running = undefined;
      this.#appendedAt = this.#parts.clock.now();
    });
    this.#running = run;
    return run;
  }

  async #appendQueue(): Promise<void> {
    for (;;) {
      const queue = await this.#parts.store.readLogQueue(BATCH_ENTRIES_MAX);
      if (queue.length > 0) await this.#append(queue);
      if (queue.length < BATCH_ENTRIES_MAX) return;
    }
  }

  async #append(queued: readonly Uint8Array[], start?: Uint8Array): Promise<void> {
    const { crypto, store, secrets } = this.#parts;
    const { size } = this.#head;
    const leaves = (start === undefined ? queued : [start, ...queued]).map((entry) => leafHash(crypto, entry));
    const { frontier, hashes } = appendLeaves(crypto, this.#frontier, leaves);
    const { origin } = this.pinned;
    const root = rootHash(crypto, frontier);
    const checkpoint = signCheckpoint(crypto, secrets.checkpointPrivateKey, { origin, size: frontier.size, root });
    const batch: AppendToLog = { size, start, queued: queued.length, hashesFrom: nodeCount(size), hashes, checkpoint };
    const outcome = await store.appendToLog(batch);
    if (outcome.kind === 'conflict')
      throw new StoreError('internal', 'The log has changed behind the server: restart it.');
    this.#head = { size: frontier.size, checkpoint };
    this.#frontier = frontier;
    const copies = queued.map((entry) => entry.slice());
    this.#recent = [...this.#recent, ...copies].slice(-RECENT_ENTRIES);
  }

  #today(): number {
    return Math.floor(this.#parts.clock.wallMs() / DAY_MS);
  }
}

function notOurs(reason: string): StartupError {
  return new StartupError(
    'data',
    `the key-transparency log in the database does not fit this server: ${reason}`,
    'Restore database and secrets from one and the same backup; clients take anything else for a lie.',
  );
}
