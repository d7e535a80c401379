/**
 * A client's own copy of the log (PROTOCOL 7): it recomputes the root from the public entries and so needs to believe
 * nothing but the log's signature, and that only as evidence.
 *
 *   head (GetTreeHead, signed) ─ mirror.update(head) ─▶ MirrorUpdate ◀─ append(page) … (AuditKeyTransparency)
 *     complete: root recomputed = head's root, and that of every checkpoint seen before; then, and only then, the mirror
 *     moves to the new head
 *   checkpoint of a contact (authenticated_data of a commit), of a Resolve ─ mirror.witness(checkpoint) ─▶ consistent?
 *   resolved account ─ mirror.checkResolved ─▶ newest version, nothing twice, every entry vouched for by its identity key
 *
 * What does not fit is a Finding: a value that carries the signed notes and entries that show it, to be kept and shown.
 * Findings about the whole log leave the mirror where it was; findings about one index are recorded with the entries,
 * which the log did sign. Entries of 73 bytes are kept as they are, and twice 32 bytes of hashes each in memory.
 */
import { equal } from '@quicprochat/crypto';
import type { CryptoProvider } from '@quicprochat/crypto';
import { Misuse } from '../errors.ts';
import { openCheckpoint } from './checkpoint.ts';
import type { Checkpoint } from './checkpoint.ts';
import { decodeLogEntry, HISTORY_START, isLogStart, LOG_ENTRY_BYTES, nextHistory } from './entry.ts';
import type { LogEntry, PinnedLog } from './entry.ts';
import {
  appendLeaves,
  assembleProof,
  EMPTY_FRONTIER,
  leafHash,
  planRoot,
  rootHash,
  TREE_HASH_BYTES,
} from './merkle.ts';
import type { Frontier } from './merkle.ts';
import type { ResolvedAccount } from './proof.ts';

/** Most entries a client mirrors: 73 MB. A larger log needs another way to prove what is newest. */
export const MIRROR_ENTRIES_MAX = 1_000_000;
/** Most checkpoints beyond the mirror that are remembered until it gets there. */
const WITNESSED_MAX = 32;
/** Most findings that are listed; every index that has one is marked all the same. */
const FINDINGS_MAX = 1_000;

/** What a lying or broken log was caught at. Byte strings named after checkpoints are signed notes, evidence as it is. */
export type Finding =
  /** Two checkpoints of the log contradict each other: it shows different people different logs. */
  | { readonly kind: 'split-view'; readonly mine: Uint8Array; readonly other: Uint8Array; readonly myRoot: Uint8Array }
  /** The log offers less than it had offered to this client before. */
  | { readonly kind: 'rollback'; readonly known: Uint8Array; readonly offered: Uint8Array }
  /** The log offers less as its newest than it had shown to somebody else. */
  | { readonly kind: 'stale-head'; readonly witnessed: Uint8Array; readonly offered: Uint8Array }
  /** The entries handed out do not add up to the checkpoint: one is changed, omitted or put in. */
  | { readonly kind: 'root-mismatch'; readonly head: Uint8Array; readonly computedRoot: Uint8Array }
  /** The log does not begin with its own start: another VRF key or another log's entries. */
  | { readonly kind: 'foreign-log'; readonly entry: Uint8Array }
  | { readonly kind: 'malformed-entry'; readonly position: number; readonly entry: Uint8Array }
  | IndexFinding
  /** Resolve gave an entry although the log it showed already had a newer one, at `newest`. */
  | {
      readonly kind: 'stale-resolve';
      readonly index: Uint8Array;
      readonly resolved: number;
      readonly newest: number;
      readonly head: Uint8Array;
    }
  /** The identity key's statement does not vouch for the entries before it: the log made one of them up. */
  | {
      readonly kind: 'unvouched-history';
      readonly index: Uint8Array;
      readonly position: number;
      readonly statement: Uint8Array;
    }
  /** My own index has an entry that I did not make. */
  | { readonly kind: 'unexpected-own-entry'; readonly position: number; readonly entry: LogEntry }
  /** An entry of mine is not where it has to be by now. */
  | { readonly kind: 'own-entry-missing'; readonly version: number; readonly head: Uint8Array };

/** An index whose entries do not count 0, 1, 2 … and end with deletion. */
export interface IndexFinding {
  readonly kind: 'version-twice' | 'version-skipped' | 'after-deletion' | 'second-start';
  readonly position: number;
  readonly entry: LogEntry;
  /** Position of the index's entry before it, if there is one. */
  readonly before: number | undefined;
}

/** What to store; `LogMirror.restore` takes it back. */
export interface MirrorState {
  /** The checkpoint the entries add up to; empty before the first. */
  readonly head: Uint8Array;
  /** Checkpoints seen beyond it, at most 32. */
  readonly witnessed: readonly Uint8Array[];
  /** 73 bytes each. They only ever grow at the end: a store may keep `entriesSince` as rows and join them. */
  readonly entries: Uint8Array;
}

export type WitnessOutcome =
  | { readonly kind: 'consistent' }
  /** It is beyond what is mirrored; it is remembered, and the next update has to reach it. */
  | { readonly kind: 'behind'; readonly size: number }
  | { readonly kind: 'finding'; readonly finding: Finding };

export type UpdateStart =
  /** Nothing new. */
  | { readonly kind: 'current' }
  /** Fetch entries from position `update.next` on and append them. */
  | { readonly kind: 'behind'; readonly update: MirrorUpdate }
  | { readonly kind: 'finding'; readonly finding: Finding }
  /** More entries than a client mirrors. */
  | { readonly kind: 'too-large'; readonly size: number };

export type AppendOutcome =
  /** Go on from this position. */
  | { readonly kind: 'more'; readonly next: number }
  /** The mirror has moved to the head; `findings` are the new ones about single indexes. */
  | { readonly kind: 'complete'; readonly findings: readonly IndexFinding[] }
  /** The mirror is where it was. */
  | { readonly kind: 'finding'; readonly finding: Finding };

export type ResolvedCheck =
  /** The newest entry of its index under a head the mirror agrees with, and all before it are vouched for. */
  | { readonly kind: 'current' }
  /** The mirror has to reach this size before it can tell. */
  | { readonly kind: 'behind'; readonly size: number }
  /** The log has meanwhile got a newer entry: resolve again. */
  | { readonly kind: 'superseded' }
  | { readonly kind: 'finding'; readonly finding: Finding };

/** An entry of one's own account, as known from making it or from an earlier check. */
export interface OwnEntry {
  readonly version: number;
  readonly commitment: Uint8Array;
  /** Size of the log from which on the entry has to be there: that of the checkpoint it was proven under. */
  readonly dueAtSize: number;
}

export class LogMirror {
  readonly #crypto: CryptoProvider;
  readonly #log: PinnedLog;
  readonly #entries: ByteList;
  readonly #hashes: ByteList;
  readonly #indexes: Map<string, IndexRecord>;
  readonly #indexFindings: IndexFinding[] = [];
  #frontier: Frontier = EMPTY_FRONTIER;
  #head: Checkpoint | undefined;
  /** All beyond the head, by size. */
  #witnessed: readonly Checkpoint[] = [];

  /** An empty mirror of a log. */
  constructor(crypto: CryptoProvider, log: PinnedLog) {
    this.#crypto = crypto;
    this.#log = log;
    this.#entries = new ByteList(LOG_ENTRY_BYTES);
    this.#hashes = new ByteList(TREE_HASH_BYTES);
    this.#indexes = new Map();
  }

  /** The mirror as it was, every hash recomputed; undefined when the state is damaged or of another log. */
  static restore(crypto: CryptoProvider, log: PinnedLog, state: MirrorState): LogMirror | undefined {
    const mirror = new LogMirror(crypto, log);
    if (state.head.length > 0) {
      const head = openCheckpoint(crypto, state.head, log);
      if (head.kind === 'invalid' || state.entries.length !== head.checkpoint.size * LOG_ENTRY_BYTES) return undefined;
      const start = mirror.update(head.checkpoint);
      if (start.kind === 'behind') {
        const pages = Array.from({ length: head.checkpoint.size }, (_, i) =>
          state.entries.subarray(i * LOG_ENTRY_BYTES, (i + 1) * LOG_ENTRY_BYTES),
        );
        if (start.update.append(pages).kind !== 'complete') return undefined;
      } else if (start.kind !== 'current') {
        return undefined;
      }
    } else if (state.entries.length > 0) {
      return undefined;
    }
    for (const bytes of state.witnessed) {
      const witnessed = openCheckpoint(crypto, bytes, log);
      if (witnessed.kind === 'invalid' || mirror.witness(witnessed.checkpoint).kind === 'finding') return undefined;
    }
    return mirror;
  }

  /** What to store after an update or a `behind` from `witness`. */
  state(): MirrorState {
    return {
      head: this.#head?.bytes ?? new Uint8Array(0),
      witnessed: this.#witnessed.map((one) => one.bytes),
      entries: this.entriesSince(0),
    };
  }

  /** Encoded entries from a position on. */
  entriesSince(position: number): Uint8Array {
    return this.#entries.slice(Math.min(position, this.size), this.size);
  }

  /** Number of entries. */
  get size(): number {
    return this.#frontier.size;
  }

  /** The checkpoint that the entries add up to; its bytes are what goes into a commit's authenticated_data. */
  get head(): Checkpoint | undefined {
    return this.#head;
  }

  /** What was found about single indexes so far, the first 1,000. */
  get indexFindings(): readonly IndexFinding[] {
    return this.#indexFindings;
  }

  entryAt(position: number): LogEntry | undefined {
    return position < this.size ? decodeLogEntry(this.#entries.at(position)) : undefined;
  }

  /** The newest entry of an index. */
  latest(index: Uint8Array): { readonly position: number; readonly entry: LogEntry } | undefined {
    return this.entriesOf(index).at(-1);
  }

  /** All entries of an index, oldest first. */
  entriesOf(index: Uint8Array): { readonly position: number; readonly entry: LogEntry }[] {
    const positions = this.#indexes.get(keyOf(index))?.positions ?? [];
    return positions.map((position) => ({ position, entry: this.entryAt(position)! }));
  }

  /** The root of the log as it was at a size that is mirrored. */
  rootAt(size: number): Uint8Array {
    if (size > this.size) throw new Misuse('the mirror does not reach that far');
    return this.#rootFrom(size, (position) => this.#hashes.at(position));
  }

  #rootFrom(size: number, hashAt: (position: number) => Uint8Array): Uint8Array {
    if (size === 0) return rootHash(this.#crypto, EMPTY_FRONTIER);
    const plan = planRoot(size);
    return assembleProof(this.#crypto, plan, plan.positions.map(hashAt))[0]!;
  }

  /** Compares a checkpoint from anywhere (a contact's commit, a Resolve) with one's own view. */
  witness(checkpoint: Checkpoint): WitnessOutcome {
    this.#mustBeOfThisLog(checkpoint);
    if (checkpoint.size <= this.size) {
      const myRoot = this.rootAt(checkpoint.size);
      if (equal(myRoot, checkpoint.root)) return { kind: 'consistent' };
      const finding: Finding =
        this.#head === undefined
          ? { kind: 'root-mismatch', head: checkpoint.bytes, computedRoot: myRoot }
          : { kind: 'split-view', mine: this.#head.bytes, other: checkpoint.bytes, myRoot };
      return { kind: 'finding', finding };
    }
    const same = this.#witnessed.find((one) => one.size === checkpoint.size);
    if (same !== undefined && !equal(same.root, checkpoint.root)) {
      const finding = { kind: 'split-view', mine: same.bytes, other: checkpoint.bytes, myRoot: same.root } as const;
      return { kind: 'finding', finding };
    }
    if (same === undefined) {
      const all = [...this.#witnessed, checkpoint].toSorted((a, b) => a.size - b.size);
      // The smallest come due first and the largest says how far there is to go: one in between is left out.
      this.#witnessed = all.length > WITNESSED_MAX ? all.toSpliced(-2, 1) : all;
    }
    return { kind: 'behind', size: checkpoint.size };
  }

  /**
   * Begins to move to a head that the server gives as its newest. To be asked for after the last `witness`: a head that
   * was on its way while a larger one was witnessed looks stale, so ask once more before that is shown to anyone.
   */
  update(head: Checkpoint): UpdateStart {
    const finding = (value: Finding): UpdateStart => ({ kind: 'finding', finding: value });
    this.#mustBeOfThisLog(head);
    const known = this.#head;
    if (known !== undefined && head.size < known.size) {
      return finding({ kind: 'rollback', known: known.bytes, offered: head.bytes });
    }
    const farthest = this.#witnessed.at(-1);
    if (farthest !== undefined && head.size < farthest.size) {
      return finding({ kind: 'stale-head', witnessed: farthest.bytes, offered: head.bytes });
    }
    if (head.size > MIRROR_ENTRIES_MAX) return { kind: 'too-large', size: head.size };
    if (head.size === this.size) {
      const outcome = this.witness(head);
      if (outcome.kind === 'finding') return outcome;
      this.#head = head;
      return { kind: 'current' };
    }
    const base: MirrorBase = {
      crypto: this.#crypto,
      log: this.#log,
      frontier: this.#frontier,
      record: (index) => this.#indexes.get(index),
    };
    return { kind: 'behind', update: new MirrorUpdate(base, head, (staged) => this.#complete(head, staged)) };
  }

  #complete(head: Checkpoint, staged: Staged): Finding | undefined {
    if (this.size !== staged.from) throw new Misuse('another update of this mirror was completed first');
    // No head is taken that is smaller than what was witnessed, so every one of them is due now.
    const known = this.#hashes.length;
    for (const seen of this.#witnessed) {
      const myRoot = this.#rootFrom(seen.size, (at) =>
        at < known ? this.#hashes.at(at) : staged.hashes.at(at - known),
      );
      if (!equal(myRoot, seen.root)) return { kind: 'split-view', mine: head.bytes, other: seen.bytes, myRoot };
    }
    this.#witnessed = [];
    this.#entries.append(staged.entries);
    this.#hashes.append(staged.hashes);
    this.#frontier = staged.frontier;
    for (const [index, record] of staged.records) this.#indexes.set(index, record);
    this.#indexFindings.push(...staged.findings.slice(0, FINDINGS_MAX - this.#indexFindings.length));
    this.#head = head;
    return undefined;
  }

  #mustBeOfThisLog(checkpoint: Checkpoint): void {
    if (checkpoint.origin !== this.#log.origin) throw new Misuse('the checkpoint is of another log');
  }

  /**
   * Whether a resolved account is what the log has now. `sizeWhenAsked` is the mirror's size when Resolve was sent: an
   * answer from an older log is stale.
   */
  checkResolved(account: ResolvedAccount, sizeWhenAsked: number): ResolvedCheck {
    const finding = (value: Finding): ResolvedCheck => ({ kind: 'finding', finding: value });
    const { checkpoint, index, position, statement } = account;
    const head = this.#head;
    if (head !== undefined && checkpoint.size < Math.min(sizeWhenAsked, head.size)) {
      return finding({ kind: 'stale-head', witnessed: head.bytes, offered: checkpoint.bytes });
    }
    const witnessed = this.witness(checkpoint);
    if (witnessed.kind !== 'consistent') return witnessed;

    const broken = this.#indexes.get(keyOf(index))?.broken;
    if (broken !== undefined) return finding(broken);
    const entries = this.entriesOf(index);
    const shown = entries.filter((one) => one.position < checkpoint.size);
    const newest = shown.at(-1);
    if (newest === undefined || newest.position !== position) {
      return finding({
        kind: 'stale-resolve',
        index,
        resolved: position,
        newest: newest?.position ?? position,
        head: checkpoint.bytes,
      });
    }
    let history = HISTORY_START;
    for (const { entry } of shown.slice(0, -1)) history = nextHistory(this.#crypto, history, entry.commitment);
    if (!equal(statement.history, history)) {
      return finding({ kind: 'unvouched-history', index, position, statement: statement.bytes });
    }
    return entries.length > shown.length ? { kind: 'superseded' } : { kind: 'current' };
  }

  /**
   * Compares one's own index with the entries one made: every one of them, by whichever device. A device that has not
   * made them all resolves itself instead: `checkResolved` then checks the identity key's word for the whole history.
   * At most 1,000 findings.
   */
  checkOwn(index: Uint8Array, made: readonly OwnEntry[]): Finding[] {
    const findings: Finding[] = [];
    const present = this.entriesOf(index);
    for (const { position, entry } of present) {
      const known = made.some((one) => one.version === entry.version && equal(one.commitment, entry.commitment));
      if (!known) findings.push({ kind: 'unexpected-own-entry', position, entry });
    }
    for (const one of made) {
      const there = present.some(
        ({ entry }) => entry.version === one.version && equal(entry.commitment, one.commitment),
      );
      if (!there && this.#head !== undefined && this.size >= one.dueAtSize) {
        findings.push({ kind: 'own-entry-missing', version: one.version, head: this.#head.bytes });
      }
    }
    return findings.slice(0, FINDINGS_MAX);
  }
}

interface IndexRecord {
  positions: number[];
  nextVersion: number;
  deleted: boolean;
  /** The first thing found wrong with it. */
  broken: IndexFinding | undefined;
}

/** A map's key for an index. */
function keyOf(index: Uint8Array): string {
  return String.fromCharCode(...index);
}

interface MirrorBase {
  readonly crypto: CryptoProvider;
  readonly log: PinnedLog;
  readonly frontier: Frontier;
  readonly record: (key: string) => Readonly<IndexRecord> | undefined;
}

interface Staged {
  readonly from: number;
  readonly frontier: Frontier;
  readonly entries: ByteList;
  readonly hashes: ByteList;
  readonly records: ReadonlyMap<string, IndexRecord>;
  readonly findings: readonly IndexFinding[];
}

/** Entries on their way into a mirror. Dropping it drops them. */
export class MirrorUpdate {
  readonly #base: MirrorBase;
  readonly #head: Checkpoint;
  readonly #complete: (staged: Staged) => Finding | undefined;
  readonly #entries = new ByteList(LOG_ENTRY_BYTES);
  readonly #hashes = new ByteList(TREE_HASH_BYTES);
  readonly #records = new Map<string, IndexRecord>();
  readonly #findings: IndexFinding[] = [];
  #frontier: Frontier;
  #over = false;

  constructor(base: MirrorBase, head: Checkpoint, complete: (staged: Staged) => Finding | undefined) {
    this.#base = base;
    this.#head = head;
    this.#complete = complete;
    this.#frontier = base.frontier;
  }

  /** Position of the next entry to append. */
  get next(): number {
    return this.#frontier.size;
  }

  /**
   * Appends a page of encoded entries from `next` on. What lies beyond the head is left aside: the log may have grown
   * since. A page without entries does not get on; the caller gives up after it. @throws Misuse after the last outcome.
   */
  append(page: readonly Uint8Array[]): AppendOutcome {
    if (this.#over) throw new Misuse('this update is over');
    const { crypto } = this.#base;
    const leaves: Uint8Array[] = [];
    for (const encoded of page.slice(0, this.#head.size - this.next)) {
      const position = this.next + leaves.length;
      const entry = decodeLogEntry(encoded);
      if (entry === undefined) return this.#end({ kind: 'malformed-entry', position, entry: encoded.slice(0, 1_024) });
      if (position === 0 && !isLogStart(crypto, this.#base.log, entry)) {
        return this.#end({ kind: 'foreign-log', entry: encoded.slice() });
      }
      this.#entries.push(encoded);
      leaves.push(leafHash(crypto, encoded));
      this.#record(position, entry);
    }
    const appended = appendLeaves(crypto, this.#frontier, leaves);
    this.#frontier = appended.frontier;
    for (const hash of appended.hashes) this.#hashes.push(hash);
    if (this.next < this.#head.size) return { kind: 'more', next: this.next };

    const computedRoot = rootHash(crypto, this.#frontier);
    if (!equal(computedRoot, this.#head.root)) {
      return this.#end({ kind: 'root-mismatch', head: this.#head.bytes, computedRoot });
    }
    const finding = this.#complete({
      from: this.#base.frontier.size,
      frontier: this.#frontier,
      entries: this.#entries,
      hashes: this.#hashes,
      records: this.#records,
      findings: this.#findings,
    });
    if (finding !== undefined) return this.#end(finding);
    this.#over = true;
    return { kind: 'complete', findings: this.#findings };
  }

  #end(finding: Finding): AppendOutcome {
    this.#over = true;
    return { kind: 'finding', finding };
  }

  #record(position: number, entry: LogEntry): void {
    const key = keyOf(entry.index);
    let record = this.#records.get(key);
    if (record === undefined) {
      const known = this.#base.record(key);
      record = {
        positions: [...(known?.positions ?? [])],
        nextVersion: known?.nextVersion ?? 0,
        deleted: known?.deleted ?? false,
        broken: known?.broken,
      };
      this.#records.set(key, record);
    }
    const wrong = whatIsWrong(record, position, entry);
    if (wrong !== undefined) {
      const finding: IndexFinding = { kind: wrong, position, entry, before: record.positions.at(-1) };
      record.broken ??= finding;
      if (this.#findings.length < FINDINGS_MAX) this.#findings.push(finding);
    }
    // Nearly every index has one entry, and an array that was pushed to has room for seventeen.
    if (record.positions.length === 0) record.positions = [position];
    else record.positions.push(position);
    record.nextVersion = Math.max(record.nextVersion, entry.version + 1);
    record.deleted ||= entry.kind === 'deleted';
  }
}

/** The rules of an index: versions 0, 1, 2 …, nothing after deletion, and one start of the log. */
function whatIsWrong(
  known: Readonly<IndexRecord>,
  position: number,
  entry: LogEntry,
): IndexFinding['kind'] | undefined {
  if (entry.kind === 'start' && position > 0) return 'second-start';
  if (known.deleted) return 'after-deletion';
  if (entry.version < known.nextVersion) return 'version-twice';
  return entry.version > known.nextVersion ? 'version-skipped' : undefined;
}

/** A finding in one sentence, without user data, fit for a log and for the user. */
export function describeFinding(finding: Finding): string {
  switch (finding.kind) {
    case 'split-view':
      return 'The log shows different entries to different people: two checkpoints that it signed contradict each other.';
    case 'rollback':
      return 'The log offers fewer entries than it had before, as after an old backup was put back.';
    case 'stale-head':
      return 'The log withholds entries that it has already shown to others.';
    case 'root-mismatch':
      return 'The entries handed out do not add up to the checkpoint that the log signed.';
    case 'foreign-log':
      return 'The entries handed out are not those of the log that is pinned for this server.';
    case 'malformed-entry':
      return `Entry ${finding.position} of the log cannot be read.`;
    case 'version-twice':
      return `Entry ${finding.position} of the log repeats a version of the same account.`;
    case 'version-skipped':
      return `Entry ${finding.position} of the log skips a version of its account.`;
    case 'after-deletion':
      return `Entry ${finding.position} of the log revives an account that was deleted.`;
    case 'second-start':
      return `Entry ${finding.position} of the log begins it a second time.`;
    case 'stale-resolve':
      return `The server gave entry ${finding.resolved} for an account although entry ${finding.newest} is newer.`;
    case 'unvouched-history':
      return `Before entry ${finding.position}, the log has an entry that the account's identity key does not vouch for.`;
    case 'unexpected-own-entry':
      return `Entry ${finding.position} of the log is about this account, but was not made by it.`;
    case 'own-entry-missing':
      return `Version ${finding.version} of this account's entries is missing from the log.`;
  }
}

/** Byte strings of one length in one growing array. */
class ByteList {
  readonly #width: number;
  #bytes = new Uint8Array(0);
  #length = 0;

  constructor(width: number) {
    this.#width = width;
  }

  get length(): number {
    return this.#length;
  }

  push(item: Uint8Array): void {
    this.#reserve(1);
    this.#bytes.set(item, this.#length++ * this.#width);
  }

  append(other: ByteList): void {
    this.#reserve(other.#length);
    this.#bytes.set(other.#bytes.subarray(0, other.#length * this.#width), this.#length * this.#width);
    this.#length += other.#length;
  }

  #reserve(items: number): void {
    const needed = (this.#length + items) * this.#width;
    if (needed <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(needed, Math.ceil(this.#bytes.length * 1.5)));
    grown.set(this.#bytes.subarray(0, this.#length * this.#width));
    this.#bytes = grown;
  }

  at(index: number): Uint8Array {
    return this.slice(index, index + 1);
  }

  slice(from: number, to: number): Uint8Array {
    return this.#bytes.slice(from * this.#width, to * this.#width);
  }
}
