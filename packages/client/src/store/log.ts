/**
 * Our copy of the server's key-transparency log, and what was found in it (PROTOCOL section 7). Entries only ever grow at
 * the end; a head is stored together with the entries that add up to it.
 */
import { LOG_ENTRY_BYTES } from '@quicprochat/core';
import type { Driver, SqlRow } from './driver.ts';
import { damaged } from './local-state-error.ts';
import { bytesOf, columns, numberOf, optional, textOf } from './sql.ts';

/** A run is read as a whole. */
const RUN_ENTRIES_MAX = 4_096;

interface StoredLogHead {
  /** The signed note. */
  readonly checkpoint: Uint8Array;
  /** Number of entries. */
  readonly size: number;
  /** When the server was last asked for a newer one and had nothing to hide. */
  readonly followedAtMs: number;
}

interface WitnessedCheckpoint {
  readonly checkpoint: Uint8Array;
  /** The conversation whose commit carried it; empty for the head of a copy that was damaged. */
  readonly channelId: Uint8Array;
  readonly seenAtMs: number;
}

interface LogAccount {
  readonly identityKey: Uint8Array;
  /** 32 bytes. */
  readonly index: Uint8Array;
  readonly version: number;
  readonly checkedAtMs: number;
}

/** An entry of our own account. */
interface OwnLogEntry {
  readonly version: number;
  /** SHA-256 of the statement this device signed for it; undefined when another device did. */
  readonly statementHash: Uint8Array | undefined;
  /** As seen in the log, and the size from which on it has to be there; undefined until it was seen. */
  readonly seen: { readonly commitment: Uint8Array; readonly dueAtSize: number } | undefined;
}

export interface StoredFinding {
  /** What makes it the same finding when it is found again. */
  readonly key: string;
  readonly kind: string;
  /** One sentence. */
  readonly summary: string;
  /** Whom it is about; undefined: the log as a whole. */
  readonly identityKey: Uint8Array | undefined;
  /** The conversation that brought it to light. */
  readonly channelId: Uint8Array | undefined;
  /** JSON. */
  readonly evidence: string;
  readonly foundAtMs: number;
  /** When the user said to go on in spite of it. */
  readonly settledAtMs: number | undefined;
}

export interface LogStore {
  head(): StoredLogHead | undefined;
  /** Appends encoded entries from `from` on; `checkpoint` is what all entries then add up to. */
  advance(from: number, entries: Uint8Array, head: StoredLogHead): void;
  followed(atMs: number): void;
  /** Drops head, entries and what others were shown, so that the copy begins anew. */
  forgetCopy(): void;
  /** At most `limit` entries from `position` on, 73 bytes each. @throws LocalStateError `profile-damaged` at a gap */
  entries(position: number, limit: number): readonly Uint8Array[];
  witnessed(): readonly WitnessedCheckpoint[];
  /** Keeps the first that brought it. */
  addWitnessed(witnessed: WitnessedCheckpoint): void;
  removeWitnessed(checkpoint: Uint8Array): void;
  account(identityKey: Uint8Array): LogAccount | undefined;
  accountAt(index: Uint8Array): LogAccount | undefined;
  saveAccount(account: LogAccount): void;
  accounts(): readonly LogAccount[];
  /** In order of version. */
  ownEntries(): readonly OwnLogEntry[];
  saveOwnEntry(entry: OwnLogEntry): void;
  /** Oldest first. */
  findings(): readonly StoredFinding[];
  /** @returns false when it is known already */
  addFinding(finding: StoredFinding): boolean;
  /** What the user had accepted has been found again. @returns false when it is open anyway, or not known */
  reopenFinding(key: string, evidence: string, foundAtMs: number): boolean;
  settleFindings(atMs: number): void;
}

const HEAD = columns<StoredLogHead>({
  id: () => 1,
  checkpoint: (head) => head.checkpoint,
  size: (head) => head.size,
  followed_at: (head) => head.followedAtMs,
});

const ACCOUNT = columns<LogAccount>({
  identity_key: (account) => account.identityKey,
  log_index: (account) => account.index,
  version: (account) => account.version,
  checked_at: (account) => account.checkedAtMs,
});

const OWN = columns<OwnLogEntry>({
  version: (entry) => entry.version,
  statement_hash: (entry) => entry.statementHash,
  commitment: (entry) => entry.seen?.commitment,
  due_at_size: (entry) => entry.seen?.dueAtSize,
});

const FINDING = columns<StoredFinding>({
  key: (finding) => finding.key,
  kind: (finding) => finding.kind,
  summary: (finding) => finding.summary,
  identity_key: (finding) => finding.identityKey,
  channel_id: (finding) => finding.channelId,
  evidence: (finding) => finding.evidence,
  found_at: (finding) => finding.foundAtMs,
  settled_at: (finding) => finding.settledAtMs,
});

export function logStore(driver: Driver): LogStore {
  const head = driver.prepare('SELECT * FROM log_head');
  const saveHead = driver.prepare(HEAD.upsert('log_head', ['id']));
  const followed = driver.prepare('UPDATE log_head SET followed_at = ?');
  const forget = ['log_head', 'log_entries', 'log_witnessed'].map((table) => driver.prepare(`DELETE FROM ${table}`));
  const addEntries = driver.prepare('INSERT INTO log_entries (position, entries) VALUES (?, ?)');
  const runAt = driver.prepare('SELECT * FROM log_entries WHERE position <= ? ORDER BY position DESC LIMIT 1');
  const witnessed = driver.prepare('SELECT * FROM log_witnessed ORDER BY seen_at');
  const addWitnessed = driver.prepare(
    'INSERT INTO log_witnessed (checkpoint, channel_id, seen_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING',
  );
  const removeWitnessed = driver.prepare('DELETE FROM log_witnessed WHERE checkpoint = ?');
  const account = driver.prepare('SELECT * FROM log_accounts WHERE identity_key = ?');
  const accountAt = driver.prepare('SELECT * FROM log_accounts WHERE log_index = ?');
  const accounts = driver.prepare('SELECT * FROM log_accounts');
  const saveAccount = driver.prepare(ACCOUNT.upsert('log_accounts', ['identity_key']));
  const ownEntries = driver.prepare('SELECT * FROM log_own_entries ORDER BY version');
  const saveOwnEntry = driver.prepare(OWN.upsert('log_own_entries', ['version']));
  const findings = driver.prepare('SELECT * FROM log_findings ORDER BY id');
  const addFinding = driver.prepare(`${FINDING.insert('log_findings')} ON CONFLICT DO NOTHING`);
  const reopen = driver.prepare(
    'UPDATE log_findings SET settled_at = NULL, evidence = ?, found_at = ? WHERE key = ? AND settled_at IS NOT NULL',
  );
  const settle = driver.prepare('UPDATE log_findings SET settled_at = ? WHERE settled_at IS NULL');

  return {
    head() {
      const row = head.get();
      return (
        row && {
          checkpoint: bytesOf(row, 'checkpoint'),
          size: numberOf(row, 'size'),
          followedAtMs: numberOf(row, 'followed_at'),
        }
      );
    },
    advance(from, entries, next) {
      const run = RUN_ENTRIES_MAX * LOG_ENTRY_BYTES;
      for (let at = 0; at < entries.length; at += run) {
        addEntries.run(from + at / LOG_ENTRY_BYTES, entries.slice(at, at + run));
      }
      saveHead.run(...HEAD.values(next));
    },
    followed(atMs) {
      followed.run(atMs);
    },
    forgetCopy() {
      for (const table of forget) table.run();
    },
    entries(position, limit) {
      const found: Uint8Array[] = [];
      while (found.length < limit) {
        const row = runAt.get(position + found.length);
        if (row === undefined) break;
        const bytes = bytesOf(row, 'entries');
        const first = (position + found.length - numberOf(row, 'position')) * LOG_ENTRY_BYTES;
        if (first >= bytes.length) break;
        for (let at = first; at < bytes.length && found.length < limit; at += LOG_ENTRY_BYTES) {
          found.push(bytes.subarray(at, at + LOG_ENTRY_BYTES));
        }
      }
      if (found.length === 0) throw damaged('The copy of the key-transparency log in this profile has a gap.');
      return found;
    },
    witnessed: () =>
      witnessed.all().map((row) => ({
        checkpoint: bytesOf(row, 'checkpoint'),
        channelId: bytesOf(row, 'channel_id'),
        seenAtMs: numberOf(row, 'seen_at'),
      })),
    addWitnessed({ checkpoint, channelId, seenAtMs }) {
      addWitnessed.run(checkpoint, channelId, seenAtMs);
    },
    removeWitnessed(checkpoint) {
      removeWitnessed.run(checkpoint);
    },
    account(identityKey) {
      const row = account.get(identityKey);
      return row && accountOf(row);
    },
    accountAt(index) {
      const row = accountAt.get(index);
      return row && accountOf(row);
    },
    saveAccount(record) {
      saveAccount.run(...ACCOUNT.values(record));
    },
    accounts: () => accounts.all().map(accountOf),
    ownEntries: () => ownEntries.all().map(ownEntryOf),
    saveOwnEntry(entry) {
      saveOwnEntry.run(...OWN.values(entry));
    },
    findings: () => findings.all().map(findingOf),
    addFinding: (finding) => addFinding.run(...FINDING.values(finding)).changes === 1,
    reopenFinding: (key, evidence, foundAtMs) => reopen.run(evidence, foundAtMs, key).changes === 1,
    settleFindings(atMs) {
      settle.run(atMs);
    },
  };
}

function accountOf(row: SqlRow): LogAccount {
  return {
    identityKey: bytesOf(row, 'identity_key'),
    index: bytesOf(row, 'log_index'),
    version: numberOf(row, 'version'),
    checkedAtMs: numberOf(row, 'checked_at'),
  };
}

function ownEntryOf(row: SqlRow): OwnLogEntry {
  const commitment = optional(bytesOf, row, 'commitment');
  const dueAtSize = optional(numberOf, row, 'due_at_size');
  return {
    version: numberOf(row, 'version'),
    statementHash: optional(bytesOf, row, 'statement_hash'),
    seen: commitment === undefined || dueAtSize === undefined ? undefined : { commitment, dueAtSize },
  };
}

function findingOf(row: SqlRow): StoredFinding {
  return {
    key: textOf(row, 'key'),
    kind: textOf(row, 'kind'),
    summary: textOf(row, 'summary'),
    identityKey: optional(bytesOf, row, 'identity_key'),
    channelId: optional(bytesOf, row, 'channel_id'),
    evidence: textOf(row, 'evidence'),
    foundAtMs: numberOf(row, 'found_at'),
    settledAtMs: optional(numberOf, row, 'settled_at'),
  };
}
