/**
 * The port to SQLite (DESIGN section 6): the store above it is the same on Node (sqlite.node.ts) and in a browser's worker.
 * Everything is synchronous, so no await lies between reading a ratchet and writing its successor.
 */

/** What a column holds. Integers come back as bigint whatever their size; see sql.ts. Blobs are copies. */
export type SqlValue = null | number | bigint | string | Uint8Array;
export type SqlRow = Readonly<Record<string, SqlValue>>;

export interface Statement {
  /** Returns how many rows changed and the last rowid inserted. */
  run(...values: readonly SqlValue[]): { readonly changes: number; readonly lastInsertRowid: bigint };
  get(...values: readonly SqlValue[]): SqlRow | undefined;
  all(...values: readonly SqlValue[]): readonly SqlRow[];
}

/** Every method throws `LocalStateError` when the file is locked, damaged or cannot be written, and `Internal` otherwise. */
export interface Driver {
  /** Runs statements without values or results. */
  exec(sql: string): void;
  prepare(sql: string): Statement;
  /**
   * Runs `body` in one transaction: on disk when this returns, without effect when it throws. Nested calls are savepoints
   * of the outer one. `body` may not be async: one that returns a promise does not compile, and is rolled back.
   */
  transaction<T>(body: () => Synchronous<T>): T;
  /** Idempotent. */
  close(): void;
}

export type Synchronous<T> = T extends PromiseLike<unknown> ? never : T;
