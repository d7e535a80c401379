/**
 * The driver port on better-sqlite3-multiple-ciphers: SQLCipher format, raw key, WAL, synchronous=FULL (a rolled-back
 * ratchet would reuse keys). The database is locked by SQLite itself: EXCLUSIVE locking and a write transaction at once,
 * so that a second process is refused when it opens, not when it writes.
 */
import { createRequire } from 'node:module';
import { Internal, Misuse } from '@quicprochat/core';
import type BetterSqlite3 from 'better-sqlite3';
import type { Driver, SqlRow, SqlValue, Statement, Synchronous } from './driver.ts';
import { damaged, LocalStateError } from './local-state-error.ts';
import { openStore, type Store } from './store.ts';

// The package's own types are out of reach of its `exports`; those of better-sqlite3, whose API it has, describe it.
const Database = createRequire(import.meta.url)('better-sqlite3-multiple-ciphers') as typeof BetterSqlite3;
type Database = BetterSqlite3.Database & { key?(key: Buffer): number; rekey?(key: Buffer): number };

export interface SqliteOptions {
  /** 32 bytes. */
  readonly key: Uint8Array;
}

/**
 * Opens an encrypted database file, which exists with the right mode (it may be empty), and takes it for this process.
 * @throws LocalStateError `profile-in-use`, `profile-damaged` (also for a wrong key), `profile-unwritable`
 */
export function openSqlite(path: string, { key }: SqliteOptions): Driver {
  return driverOf(
    openDatabase(path, key, (database) => {
      database.pragma('locking_mode=EXCLUSIVE');
      database.pragma('journal_mode=WAL');
      database.pragma('synchronous=FULL');
      // A checkpoint writes each page once, however often it changed: rarer ones write less.
      database.pragma('wal_autocheckpoint=4000');
      configure(database);
      // Takes the lock, and keeps it. A wrong key or a damaged first page has shown above.
      database.exec('BEGIN IMMEDIATE; COMMIT');
    }),
  );
}

/**
 * Encrypts a closed database file anew. Not atomic: work on a copy.
 * @throws LocalStateError as `openSqlite`
 */
export function rekeySqlite(path: string, key: Uint8Array, newKey: Uint8Array): void {
  const database = openDatabase(path, key, (opened) => {
    opened.pragma('journal_mode=DELETE');
    opened.pragma('synchronous=FULL');
    withKeyText(newKey, (text) => opened.rekey?.(text));
    opened.prepare('SELECT count(*) FROM sqlite_schema').get();
  });
  database.close();
}

/** A database that keeps nothing, for tests and for `:memory:` profiles. */
export function openMemorySqlite(): Driver {
  const database: Database = guard(() => new Database(':memory:'));
  configure(database);
  return driverOf(database);
}

/** A store that keeps nothing. */
export function openMemoryStore(): Store {
  return openStore(openMemorySqlite());
}

function openDatabase(path: string, key: Uint8Array, prepare: (database: Database) => void): Database {
  const database: Database = guard(() => new Database(path, { timeout: 0, fileMustExist: true }));
  try {
    guard(() => {
      database.pragma(`cipher='sqlcipher'`);
      database.pragma('legacy=4');
      withKeyText(key, (text) => database.key?.(text));
      prepare(database);
      database.prepare('SELECT count(*) FROM sqlite_schema').get();
    });
  } catch (error) {
    database.close();
    throw error;
  }
  return database;
}

/** SQLCipher's way to write a raw key, x'…64 hex…', in memory that is wiped. */
function withKeyText(key: Uint8Array, use: (text: Buffer) => void): void {
  const digits = '0123456789abcdef';
  const text = Buffer.alloc(3 + 2 * key.length, "'");
  text[0] = 0x78; // x
  key.forEach((byte, i) => {
    text[2 + 2 * i] = digits.charCodeAt(byte >> 4);
    text[3 + 2 * i] = digits.charCodeAt(byte & 15);
  });
  try {
    use(text);
  } finally {
    text.fill(0);
  }
}

function configure(database: Database): void {
  database.pragma('foreign_keys=ON');
  database.pragma('secure_delete=ON');
  database.pragma('temp_store=MEMORY');
  database.pragma('trusted_schema=OFF');
  database.defaultSafeIntegers(true);
}

function driverOf(database: Database): Driver {
  const begin = database.prepare('BEGIN IMMEDIATE');
  const commit = database.prepare('COMMIT');
  let depth = 0;

  function transaction<T>(body: () => Synchronous<T>): T {
    const outer = depth === 0;
    const savepoint = `level_${depth}`;
    guard(() => (outer ? begin.run() : database.exec(`SAVEPOINT ${savepoint}`)));
    depth++;
    try {
      const result: T = body();
      if (isThenable(result)) throw new Misuse('a transaction body must not be async');
      guard(() => (outer ? commit.run() : database.exec(`RELEASE ${savepoint}`)));
      return result;
    } catch (error) {
      // SQLite may have rolled back by itself (disk full, I/O error).
      if (database.open && database.inTransaction) {
        guard(() => database.exec(outer ? 'ROLLBACK' : `ROLLBACK TO ${savepoint}; RELEASE ${savepoint}`));
      }
      throw error;
    } finally {
      depth--;
    }
  }

  return {
    exec(sql) {
      guard(() => database.exec(sql));
    },
    prepare: (sql) => statementOf(guard(() => database.prepare<SqlValue[], SqlRow>(sql))),
    transaction,
    close() {
      if (database.open) guard(() => database.close());
    },
  };
}

function statementOf(statement: BetterSqlite3.Statement<SqlValue[], SqlRow>): Statement {
  return {
    run(...values) {
      const { changes, lastInsertRowid } = guard(() => statement.run(...values));
      return { changes, lastInsertRowid: BigInt(lastInsertRowid) };
    },
    get(...values) {
      const row = guard(() => statement.get(...values));
      return row && withPlainBytes(row);
    },
    all: (...values) => guard(() => statement.all(...values)).map(withPlainBytes),
  };
}

/** Buffer is a Uint8Array whose slice() does not copy: no portable code may meet one. */
function withPlainBytes(row: SqlRow): SqlRow {
  const out: Record<string, SqlValue> = {};
  for (const [column, value] of Object.entries(row)) {
    out[column] =
      value instanceof Uint8Array ? new Uint8Array(value.buffer, value.byteOffset, value.byteLength) : value;
  }
  return out;
}

/** Runs a database call; what SQLite reports becomes an error of ours. */
function guard<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw translated(error);
  }
}

function translated(error: unknown): unknown {
  if (!(error instanceof Database.SqliteError)) {
    return new Internal("The profile's database was used wrongly.", '', { cause: error });
  }
  const code = error.code.replace(/^SQLITE_/, '');
  switch (code.split('_')[0]) {
    case 'BUSY':
    case 'LOCKED':
      return new LocalStateError(
        'profile-in-use',
        'This profile is in use by another process.',
        'Close the other program, or choose another profile with --state.',
        { cause: error },
      );
    case 'NOTADB':
    case 'CORRUPT':
      return damaged("The profile's database is damaged or does not belong to its key.", error);
    case 'FULL':
      return unwritable('the disk is full', error);
    case 'READONLY':
    case 'PERM':
      return unwritable('it is read-only', error);
    case 'CANTOPEN':
      return unwritable('it cannot be opened', error);
    case 'IOERR':
      return unwritable(`the disk reports an error (${code})`, error);
    default:
      // Constraint, misuse, syntax: ours. SQLite's own message names columns, never values.
      return new Internal(`The profile's database refused an operation (${code}).`, '', { cause: error });
  }
}

function unwritable(reason: string, cause: unknown): LocalStateError {
  return new LocalStateError(
    'profile-unwritable',
    `The profile's database cannot be written: ${reason}.`,
    'Free some space or repair the permissions of the profile folder, then try again; nothing that was stored is lost.',
    { cause },
  );
}

function isThenable(value: unknown): boolean {
  return typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function';
}
