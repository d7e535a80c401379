/** Looks into a database that no server has open: is it whole, and what is in it? Changes nothing. */
import { type DatabaseFile, openDatabase, translated } from './sqlite-database.node.ts';
import { MIGRATIONS } from './sqlite-schema.node.ts';
import { StoreError } from './store.ts';

/** The schema this version writes; older ones it brings up to date. */
export const SCHEMA_VERSION = MIGRATIONS.length;

export interface DatabaseReport {
  readonly schemaVersion: number;
  /** Undefined before the first start has settled it. */
  readonly origin: string | undefined;
  /** Whether clients were given a certificate that the server made for itself. */
  readonly ownCertificate: boolean;
  readonly accounts: number;
  /** Of the key-transparency log. */
  readonly logEntries: number;
  readonly blobs: readonly { readonly hash: Uint8Array; readonly sizeBytes: number }[];
}

const CACHE_KIB = 16 * 1024;
// The first versions with blobs, and with the log.
const BLOBS_SINCE = 6;
const LOG_SINCE = 9;

/**
 * @param depth `full` also compares indexes with their tables
 * @throws StoreError `corrupt`, `wrong_key`, `newer_schema`, `io`
 */
export function inspectDatabase(file: DatabaseFile, depth: 'quick' | 'full'): DatabaseReport {
  const db = openDatabase(file, { cacheKiB: CACHE_KIB, readonly: true });
  try {
    const faults = db.pragma(depth === 'quick' ? 'quick_check(1)' : 'integrity_check(1)', { simple: true });
    if (faults !== 'ok') throw new StoreError('corrupt', 'The database is damaged.');
    const schemaVersion = Number(db.pragma('user_version', { simple: true }));
    if (schemaVersion > SCHEMA_VERSION) {
      throw new StoreError(
        'newer_schema',
        `The database has schema ${schemaVersion}, this version knows ${SCHEMA_VERSION}: use a newer qpc-server.`,
      );
    }
    if (schemaVersion === 0) throw new StoreError('corrupt', 'The file is not a database of qpc-server.');
    const origin = db.prepare<[], Uint8Array>("SELECT value FROM setting WHERE key = 'origin'").pluck().get();
    const blobs = db.prepare<[], readonly [Uint8Array, number]>('SELECT hash, size FROM blob').raw();
    return {
      schemaVersion,
      origin: origin === undefined ? undefined : new TextDecoder().decode(origin),
      ownCertificate: db.prepare("SELECT 1 FROM setting WHERE key = 'certificate-made'").get() !== undefined,
      accounts: db
        .prepare<[], number>('SELECT count(*) FROM account WHERE opaque_record <> zeroblob(0)')
        .pluck()
        .get()!,
      logEntries:
        schemaVersion < LOG_SINCE ? 0 : (db.prepare<[], number>('SELECT size FROM kt_head').pluck().get() ?? 0),
      blobs: schemaVersion < BLOBS_SINCE ? [] : blobs.all().map(([hash, sizeBytes]) => ({ hash, sizeBytes })),
    };
  } catch (error) {
    throw translated(error);
  } finally {
    db.close();
  }
}
