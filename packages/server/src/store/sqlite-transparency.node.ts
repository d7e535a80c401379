/**
 * The key-transparency log in SQLite (PROTOCOL section 7): part of the store's reads and writes.
 *
 *   statement accepted ─ with the account's change ─▶ kt_account (position NULL) and kt_queue
 *   batch ─ one transaction ─▶ kt_entry, kt_hash, kt_head; positions into kt_account; kt_queue emptied
 *
 * What the bytes mean is the business of `key-transparency.ts`; here they are only kept in order.
 */
import type { Database } from './sqlite-database.node.ts';
import type { AcceptedStatement, AppendToLog, LogHead, StatedEntry } from './store.ts';

export function createTransparencyReads(db: Database) {
  const raw = <P extends unknown[], R>(sql: string) => db.prepare<P, R>(sql).raw();
  const pluck = <P extends unknown[], R>(sql: string) => db.prepare<P, R>(sql).pluck();

  const head = raw<[], readonly [number, Uint8Array, Uint8Array]>(
    'SELECT h.size, h.checkpoint, e.entry FROM kt_head h JOIN kt_entry e ON e.position = 0',
  );
  const queue = pluck<[number], Uint8Array>('SELECT entry FROM kt_queue ORDER BY id LIMIT ?');
  const hashAt = pluck<[number], Uint8Array>('SELECT hash FROM kt_hash WHERE position = ?');
  const entriesFrom = pluck<[number, number], Uint8Array>(
    'SELECT entry FROM kt_entry WHERE position >= ? ORDER BY position LIMIT ?',
  );
  const newest = raw<
    [number],
    readonly [number | null, number, Uint8Array, Uint8Array, Uint8Array, Uint8Array, Uint8Array]
  >('SELECT position, version, entry, history, opening, statement, vrf_proof FROM kt_account WHERE account = ?');

  function statedOf(account: number): AcceptedStatement | undefined {
    const row = newest.get(account);
    if (row === undefined) return undefined;
    const [position, version, entry, history, opening, statement, vrfProof] = row;
    return { position: position ?? undefined, version, entry, history, opening, statement, vrfProof };
  }

  const calls = {
    readLogHead: (): LogHead | undefined => {
      const row = head.get();
      return row === undefined ? undefined : { size: row[0], checkpoint: row[1], start: row[2] };
    },

    readLogQueue: (limit: number): readonly Uint8Array[] => queue.all(limit),

    readLogHashes: (positions: readonly number[]): Uint8Array[] =>
      positions.flatMap((position) => hashAt.get(position) ?? []),

    readLogEntries: (page: { start: number; limit: number }): Uint8Array[] => entriesFrom.all(page.start, page.limit),
  };

  return { statedOf, calls };
}

export function createTransparencyWrites(db: Database, reads: ReturnType<typeof createTransparencyReads>) {
  const run = <P extends unknown[]>(sql: string) => db.prepare<P>(sql);
  const raw = <P extends unknown[], R>(sql: string) => db.prepare<P, R>(sql).raw();
  const pluck = <P extends unknown[], R>(sql: string) => db.prepare<P, R>(sql).pluck();

  const newestVersion = pluck<[number], number>('SELECT version FROM kt_account WHERE account = ?');
  const revocationCount = pluck<[number], number>('SELECT count(*) FROM revocation WHERE account = ?');
  const putNewest = run<[number, number, Uint8Array, Uint8Array, Uint8Array, Uint8Array, Uint8Array]>(
    `INSERT INTO kt_account (account, version, entry, history, opening, statement, vrf_proof) VALUES (?, ?, ?, ?, ?, ?, ?)
     ON CONFLICT DO UPDATE SET position = NULL, version = excluded.version, entry = excluded.entry,
       history = excluded.history, opening = excluded.opening, statement = excluded.statement`,
  );
  const deleteNewest = run<[number]>('DELETE FROM kt_account WHERE account = ?');
  const insertQueued = run<[number, number, Uint8Array]>(
    'INSERT INTO kt_queue (account, version, entry) VALUES (?, ?, ?)',
  );
  const oldestQueued = raw<[number], readonly [number, number, number, Uint8Array]>(
    'SELECT id, account, version, entry FROM kt_queue ORDER BY id LIMIT ?',
  );
  const dequeue = run<[number]>('DELETE FROM kt_queue WHERE id <= ?');
  const insertEntry = run<[number, Uint8Array]>('INSERT INTO kt_entry (position, entry) VALUES (?, ?)');
  const insertHash = run<[number, Uint8Array]>('INSERT INTO kt_hash (position, hash) VALUES (?, ?)');
  const setPosition = run<[number, number, number]>(
    'UPDATE kt_account SET position = ? WHERE account = ? AND version = ?',
  );
  const putHead = run<[number, Uint8Array]>(
    `INSERT INTO kt_head (id, size, checkpoint) VALUES (1, ?, ?)
     ON CONFLICT DO UPDATE SET size = excluded.size, checkpoint = excluded.checkpoint`,
  );

  /** What opens an entry is not left in the file's free space: without it nobody can tell whose the entry was. */
  function erasing(change: () => void): void {
    db.pragma('secure_delete = ON');
    try {
      change();
    } finally {
      db.pragma('secure_delete = OFF');
    }
  }

  return {
    /** Whether the account is no longer what the statement was checked against. */
    isStale(account: number, stated: StatedEntry | undefined): boolean {
      if (stated === undefined) return false;
      const newest = newestVersion.get(account) ?? -1;
      return newest !== stated.version - 1 || revocationCount.get(account)! !== stated.revocationsBefore;
    },

    /** Keeps the statement for Resolve and its entry for the next batch. */
    state(account: number, stated: StatedEntry | undefined): void {
      if (stated === undefined) return;
      const { version, entry, history, opening, statement, vrfProof } = stated;
      erasing(() => putNewest.run(account, version, entry, history, opening, statement, vrfProof));
      insertQueued.run(account, version, entry);
    },

    /** Keeps the entry of the account's end; what opened it and those before is erased. */
    stateEnd(account: number, stated: StatedEntry | undefined): void {
      erasing(() => deleteNewest.run(account));
      if (stated !== undefined) insertQueued.run(account, stated.version, stated.entry);
    },

    appendToLog(batch: AppendToLog): { kind: 'appended' } | { kind: 'conflict' } {
      const present = reads.calls.readLogHead()?.size ?? 0;
      const queued = oldestQueued.all(batch.queued);
      if (present !== batch.size || queued.length !== batch.queued) return { kind: 'conflict' };
      let size = present;
      if (batch.start !== undefined) insertEntry.run(size++, batch.start);
      // A position makes its row longer, so the row moves and leaves its bytes behind.
      erasing(() => {
        for (const [, account, version, entry] of queued) {
          insertEntry.run(size, entry);
          setPosition.run(size, account, version);
          size++;
        }
      });
      for (const [i, hash] of batch.hashes.entries()) insertHash.run(batch.hashesFrom + i, hash);
      const last = queued.at(-1);
      if (last !== undefined) dequeue.run(last[0]);
      putHead.run(size, batch.checkpoint);
      return { kind: 'appended' };
    },
  };
}
