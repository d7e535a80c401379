/**
 * Groups' rows in a SQL table, over any synchronous driver (node:sqlite, better-sqlite3, a SQLite of WebAssembly, …):
 *
 *   diffRows → [transaction of the caller: apply] → table → restoreGroup
 *
 * Transactions are the caller's, so that the rows of a step and what belongs with it (an outbox, a message) are written
 * together. The rows hold secrets: the database should be encrypted, and durable before a message leaves.
 */
import { EMPTY } from '@quicprochat/crypto';
import { MlsStateError, MlsUsageError } from './errors.ts';
import type { Row, RowStore } from './types.ts';

/** A prepared statement with `?` parameters; `get` gives a row as an object by column name, or undefined (or null). */
export interface SqlStatement {
  run(...parameters: (Uint8Array | string)[]): unknown;
  get(...parameters: (Uint8Array | string)[]): unknown;
  all(...parameters: (Uint8Array | string)[]): unknown[];
}

/** What is needed of a driver: node:sqlite and better-sqlite3 have it as it is. */
export interface SqlDatabase {
  prepare(sql: string): SqlStatement;
}

/** One table with the rows of all groups. */
export interface SqlRows {
  /** The rows of one group. */
  group(groupId: Uint8Array): RowStore;
  /** Ids of all groups with rows. */
  groupIds(): Uint8Array[];
  /** Drops a group's rows. */
  remove(groupId: Uint8Array): void;
}

/**
 * Makes the table when it is missing, and prepares what is needed.
 * @param table its name: letters, digits and underscores
 */
export function sqlRows(database: SqlDatabase, table = 'mls_rows'): SqlRows {
  if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(table)) throw new MlsUsageError('not a table name');
  database
    .prepare(
      `CREATE TABLE IF NOT EXISTS ${table} (
         group_id BLOB NOT NULL, key TEXT NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY (group_id, key)
       ) WITHOUT ROWID`,
    )
    .run();
  const get = database.prepare(`SELECT bytes FROM ${table} WHERE group_id = ? AND key = ?`);
  const list = database.prepare(`SELECT key, bytes FROM ${table} WHERE group_id = ? AND key >= ? AND key < ?`);
  const set = database.prepare(
    `INSERT INTO ${table} (group_id, key, bytes) VALUES (?, ?, ?)
     ON CONFLICT (group_id, key) DO UPDATE SET bytes = excluded.bytes`,
  );
  const drop = database.prepare(`DELETE FROM ${table} WHERE group_id = ? AND key = ?`);
  const dropPrefix = database.prepare(`DELETE FROM ${table} WHERE group_id = ? AND key >= ? AND key < ?`);
  const dropGroup = database.prepare(`DELETE FROM ${table} WHERE group_id = ?`);
  const groups = database.prepare(`SELECT DISTINCT group_id FROM ${table}`);

  return {
    group: (groupId) => ({
      get(key) {
        const row = get.get(groupId, key);
        return row === undefined || row === null ? undefined : bytesOf(row, 'bytes');
      },
      *list(prefix): Generator<Row> {
        for (const row of list.all(groupId, prefix, afterPrefix(prefix))) {
          yield { key: textOf(row, 'key'), bytes: bytesOf(row, 'bytes') };
        }
      },
      apply(changes) {
        for (const change of changes) {
          if (change.kind === 'set') set.run(groupId, change.key, change.bytes);
          else if (change.kind === 'delete') drop.run(groupId, change.key);
          else dropPrefix.run(groupId, change.prefix, afterPrefix(change.prefix));
        }
      },
    }),
    groupIds: () => groups.all().map((row) => bytesOf(row, 'group_id')),
    remove: (groupId) => void dropGroup.run(groupId),
  };
}

/** The first string after all that begin with this; keys are ASCII. */
function afterPrefix(prefix: string): string {
  return prefix.slice(0, -1) + String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1);
}

function columnOf(row: unknown, column: string): unknown {
  return typeof row === 'object' && row !== null ? (row as Readonly<Record<string, unknown>>)[column] : undefined;
}

/** A plain array: a driver's own kind may share its memory when it is sliced. */
function bytesOf(row: unknown, column: string): Uint8Array {
  const value = columnOf(row, column);
  if (!(value instanceof Uint8Array)) throw new MlsStateError(`column ${column} has no bytes`);
  return value.length === 0 ? EMPTY : new Uint8Array(value);
}

function textOf(row: unknown, column: string): string {
  const value = columnOf(row, column);
  if (typeof value !== 'string') throw new MlsStateError(`column ${column} has no text`);
  return value;
}
