/**
 * Opening the store's SQLite file, and SQLite's failures in the words of `StoreError` (DESIGN section 6).
 *
 * Every connection (writer, reader, checkpointer) comes through `openDatabase`. The writer's thread opens first: it takes
 * the lock, creates or migrates, and only then may the others open.
 */
import type BetterSqlite3 from 'better-sqlite3';
import { chmodSync, closeSync, existsSync, openSync } from 'node:fs';
import { createRequire } from 'node:module';
import { MIGRATIONS } from './sqlite-schema.node.ts';
import { StoreError, type StoreErrorKind } from './store.ts';

// The package's own types are out of reach of its `exports`; those of better-sqlite3, whose API it has, describe it.
const require = createRequire(import.meta.url);
const SQLite = require('better-sqlite3-multiple-ciphers') as typeof BetterSqlite3;

export type Database = BetterSqlite3.Database & { key?(key: Buffer): number };

/** How long a connection waits for another's lock: a checkpoint or a migration, never a peer process. */
const BUSY_TIMEOUT_MS = 5_000;

export interface DatabaseFile {
  readonly path: string;
  /** Raw SQLCipher key, 32 bytes; undefined = not encrypted. */
  readonly key: Uint8Array | undefined;
}

/** @throws StoreError `wrong_key`, `corrupt`, `io`. */
export function openDatabase(file: DatabaseFile, options: { cacheKiB: number; readonly?: boolean }): Database {
  const readonly = options.readonly ?? false;
  let db: Database;
  try {
    db = new SQLite(file.path, { timeout: BUSY_TIMEOUT_MS, readonly });
  } catch (error) {
    throw translated(error);
  }
  try {
    if (file.key !== undefined) unlock(db, file.key);
    // The first read of the file: a wrong key shows here.
    db.prepare('SELECT count(*) FROM sqlite_schema').get();
    if (!readonly) db.pragma('journal_mode = WAL');
    db.pragma('synchronous = FULL');
    db.pragma('wal_autocheckpoint = 0');
    // Temporary tables would otherwise be unencrypted files.
    db.pragma('temp_store = MEMORY');
    db.pragma('trusted_schema = OFF');
    db.pragma(`cache_size = -${options.cacheKiB}`);
    return db;
  } catch (error) {
    db.close();
    throw isSqliteError(error) && error.code === 'SQLITE_NOTADB' ? wrongKey(file, error) : translated(error);
  }
}

function unlock(db: Database, key: Uint8Array): void {
  db.pragma("cipher = 'sqlcipher'");
  db.pragma('legacy = 4');
  const literal = Buffer.alloc(67);
  literal.write("x'", 0, 'latin1');
  for (const [index, byte] of key.entries()) literal.write(byte.toString(16).padStart(2, '0'), 2 + 2 * index, 'latin1');
  literal.write("'", 66, 'latin1');
  try {
    db.key!(literal);
  } finally {
    literal.fill(0);
  }
}

function wrongKey(file: DatabaseFile, cause: unknown): StoreError {
  return new StoreError(
    'wrong_key',
    file.key === undefined
      ? 'The server database is encrypted or is not a database: set the store key, or name another data directory.'
      : 'The store key does not open the server database: set the key it was created with, or restore a backup if the file is damaged.',
    { cause },
  );
}

/** Creates the file with mode 0600 if it is missing; SQLite gives its -wal and -shm the same mode. */
export function createPrivateFile(path: string): void {
  if (existsSync(path)) return;
  try {
    closeSync(openSync(path, 'a', 0o600));
    chmodSync(path, 0o600);
  } catch (error) {
    throw new StoreError(
      'io',
      'The server database could not be created: check the data directory and its permissions.',
      {
        cause: error,
      },
    );
  }
}

/**
 * Holds the store against a second process for as long as the connection returned stays open: an exclusive transaction
 * on a file beside the database. The operating system lets go of it when the process dies. (`locking_mode=EXCLUSIVE` on
 * the database itself would lock out our own readers.)
 * @throws StoreError `in_use`
 */
export function lockStore(path: string): Database {
  const lockPath = `${path}.lock`;
  createPrivateFile(lockPath);
  let lock: Database | undefined;
  try {
    lock = new SQLite(lockPath, { timeout: 0 });
    lock.pragma('journal_mode = MEMORY');
    lock.exec('BEGIN EXCLUSIVE');
    return lock;
  } catch (error) {
    lock?.close();
    if (isSqliteError(error) && error.code.startsWith('SQLITE_BUSY')) {
      throw new StoreError(
        'in_use',
        'Another server process has this data directory open: stop it, or name another data directory.',
        { cause: error },
      );
    }
    throw translated(error);
  }
}

/**
 * Brings the schema up to date, each migration in one transaction; answers the version.
 * @throws StoreError `newer_schema`
 */
export function migrate(db: Database): number {
  const known = MIGRATIONS.length;
  const present = Number(db.pragma('user_version', { simple: true }));
  if (present > known) {
    throw new StoreError(
      'newer_schema',
      `The server database has schema ${present}, this version knows ${known}: start a newer qpc-server, or restore a backup.`,
    );
  }
  for (let version = present + 1; version <= known; version++) {
    db.exec('BEGIN IMMEDIATE');
    try {
      db.exec(MIGRATIONS[version - 1]!);
      db.pragma(`user_version = ${version}`);
      db.exec('COMMIT');
    } catch (error) {
      if (db.inTransaction) db.exec('ROLLBACK');
      throw translated(error);
    }
  }
  return known;
}

/** Pages in the WAL, and how many of them have been moved into the database file. */
export function walState(db: Database): { readonly pages: number; readonly moved: number } {
  const [state] = db.pragma('wal_checkpoint(NOOP)') as [{ readonly log: number; readonly checkpointed: number }];
  return { pages: state.log, moved: state.checkpointed };
}

/** Does what it can: a checkpoint that finds the file busy leaves the rest to the next. */
export function checkpoint(db: Database, mode: 'PASSIVE' | 'RESTART'): void {
  db.pragma(`wal_checkpoint(${mode})`);
}

const MESSAGES: Partial<Record<StoreErrorKind, string>> = {
  disk_full: 'The disk is full: free some space in the data directory. Nothing of this request was kept.',
  corrupt: 'The server database is damaged: stop the server and restore a backup.',
  unavailable: 'The store is busy: try again.',
  io: 'The server database could not be read or written: check the disk and the permissions of the data directory.',
  misuse: 'The store refused a malformed value.',
  internal: 'The store failed on an operation.',
};

/** For what SQLite reads without complaint, and cannot be. */
export function damaged(): StoreError {
  return new StoreError('corrupt', MESSAGES.corrupt!);
}

/** SQLite's message may quote schema but never values; ours replaces it all the same. */
export function translated(error: unknown): StoreError {
  if (error instanceof StoreError) return error;
  const kind = kindOf(error);
  return new StoreError(kind, MESSAGES[kind]!, { cause: error });
}

function kindOf(error: unknown): StoreErrorKind {
  if (!isSqliteError(error)) return 'internal';
  const { code } = error;
  if (code === 'SQLITE_FULL') return 'disk_full';
  if (code.startsWith('SQLITE_CORRUPT') || code === 'SQLITE_NOTADB') return 'corrupt';
  if (code.startsWith('SQLITE_BUSY') || code.startsWith('SQLITE_LOCKED')) return 'unavailable';
  if (/^SQLITE_CONSTRAINT_(?:CHECK|DATATYPE|NOTNULL)$/.test(code)) return 'misuse';
  if (/^SQLITE_(?:IOERR|CANTOPEN|READONLY|PERM)/.test(code)) return 'io';
  return 'internal';
}

function isSqliteError(error: unknown): error is Error & { code: string } {
  return error instanceof SQLite.SqliteError;
}
