/**
 * From a backup to a data folder, or only a check of the backup: every file's hash, the database's own integrity check,
 * its schema, its origin, and whether the secrets are there that the accounts need. Nothing is overwritten, and the
 * database gets its name last: a restore cut short leaves no server behind that would start.
 */
import { existsSync } from 'node:fs';
import { lstat, mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { openDataDirectory, reasonOf } from '../data-directory.node.ts';
import { SCHEMA_VERSION, inspectDatabase } from '../store/sqlite-inspect.node.ts';
import { markRestored } from '../store/sqlite-restored.node.ts';
import { StoreError } from '../store/store.ts';
import {
  BLOBS,
  copyPrivate,
  DATABASE,
  digest,
  MANIFEST,
  manifestSchema,
  OWN_CERTIFICATE,
  SECRETS,
  SECRETS_OF_ACCOUNTS,
  SECRETS_OF_LOG,
  syncFolder,
} from './back-up.node.ts';
import type { Manifest } from './back-up.node.ts';

// SQLite would replay the log that another database left into the restored one.
const REMAINS: readonly string[] = [DATABASE, `${DATABASE}-wal`, `${DATABASE}-journal`];

/** Why a backup cannot be taken for one, or not be restored here. */
export class RestoreError extends Error {
  override readonly name = 'RestoreError';
  /** `verification`: the backup is not whole or not what it says. `place`: it can't go there. */
  readonly kind: 'verification' | 'place' | 'key';
  readonly hint: string;

  constructor(kind: RestoreError['kind'], message: string, hint: string, options: { readonly cause?: unknown } = {}) {
    super(message, options);
    this.kind = kind;
    this.hint = hint;
  }
}

export interface RestoreRequest {
  /** The backup's folder. */
  readonly source: string;
  /** Undefined = check only. */
  readonly dataDir: string | undefined;
  /** What the backup has to be of, if it matters. */
  readonly origin: string | undefined;
  /** Of an encrypted database. */
  readonly storeKey: Uint8Array | undefined;
  /** Milliseconds since 1970: a later restoration has to have a later one. */
  readonly nowMs: number;
}

export interface RestoreReport {
  readonly origin: string;
  readonly createdAt: string;
  readonly version: string;
  readonly schemaVersion: number;
  readonly encrypted: boolean;
  readonly accounts: number;
  readonly files: number;
  readonly bytes: number;
  /** Entries of the key-transparency log in it. */
  readonly logEntries: number;
  /**
   * Secrets that are neither in the backup nor in the data folder, and without which the server doesn't start; `cert.pem`
   * and `key.pem` where it made them, though another certificate may take their place.
   */
  readonly secretsMissing: readonly string[];
  readonly restored: boolean;
}

/** @throws RestoreError, StartupError */
export async function restoreServer(
  request: RestoreRequest,
  progress: (progress: { readonly bytes: number; readonly totalBytes: number }) => void,
  signal: AbortSignal,
): Promise<RestoreReport> {
  const { source, dataDir } = request;
  const present = dataDir === undefined ? undefined : REMAINS.find((name) => existsSync(path.join(dataDir, name)));
  if (present !== undefined) {
    throw new RestoreError(
      'place',
      present === DATABASE
        ? `${dataDir} has a database already`
        : `${dataDir} has ${present}, a part of another database`,
      'Restoring overwrites nothing: give a new --data-dir.',
    );
  }
  const manifest = await readManifest(source);
  if (request.origin !== undefined && request.origin !== manifest.origin) {
    throw new RestoreError(
      'verification',
      `the backup is of the server "${manifest.origin}", not of "${request.origin}"`,
      'A server keeps its origin: every signed statement names it.',
    );
  }
  await refuseStrangers(source, manifest);
  const totalBytes = manifest.files.reduce((sum, { bytes }) => sum + bytes, 0);
  let bytes = 0;
  for (const file of manifest.files) {
    signal.throwIfAborted();
    await verify(source, file, signal);
    bytes += file.bytes;
    progress({ bytes, totalBytes });
  }
  const inside = inspect(request, manifest);
  const secrets = new Set(manifest.files.filter(({ path: each }) => each.startsWith(`${SECRETS}/`)).map(nameOf));
  const secretsMissing = [
    ...(inside.accounts === 0 ? [] : SECRETS_OF_ACCOUNTS),
    ...(inside.logEntries === 0 ? [] : SECRETS_OF_LOG),
    ...(inside.ownCertificate ? OWN_CERTIFICATE : []),
  ].filter((name) => !secrets.has(name) && !existsSync(path.join(dataDir ?? source, name)));
  if (dataDir !== undefined) {
    await copyInto(request, dataDir, manifest, signal).catch((error: unknown) => {
      const ofFiles = error instanceof Error && 'code' in error && 'syscall' in error;
      if (!ofFiles && !(error instanceof StoreError)) throw error;
      throw new RestoreError(
        'place',
        `the backup cannot be copied to ${dataDir}: ${reasonOf(error)}`,
        'Run it again when that is mended: it goes on where it stopped.',
        { cause: error },
      );
    });
  }
  return {
    origin: manifest.origin,
    createdAt: manifest.createdAt,
    version: manifest.version,
    schemaVersion: inside.schemaVersion,
    encrypted: manifest.encrypted,
    accounts: inside.accounts,
    files: manifest.files.length,
    bytes: totalBytes,
    logEntries: inside.logEntries,
    secretsMissing,
    restored: dataDir !== undefined,
  };
}

const MANIFEST_BYTES_MAX = 256 * 1024 * 1024;

async function readManifest(source: string): Promise<Manifest> {
  const file = path.join(source, MANIFEST);
  let json: unknown;
  try {
    const found = await lstat(file);
    if (!found.isFile()) throw new Error('it is not a file');
    if (found.size > MANIFEST_BYTES_MAX) throw new Error('it is too large');
    json = JSON.parse(await readFile(file, 'utf8'));
  } catch (error) {
    throw new RestoreError(
      'verification',
      `${file} cannot be read: ${reasonOf(error)}`,
      'Name the folder of a backup.',
      {
        cause: error,
      },
    );
  }
  const parsed = manifestSchema.safeParse(json);
  const names = parsed.data?.files.map((each) => each.path) ?? [];
  if (!parsed.success || new Set(names).size !== names.length || !names.includes(DATABASE)) {
    throw new RestoreError(
      'verification',
      `${file} is not the manifest of a backup, or of a newer version`,
      'Use another backup, or the qpc-server that made it.',
    );
  }
  return parsed.data;
}

/** A file nobody listed could be anything: a backup is exactly what its manifest says. */
async function refuseStrangers(source: string, manifest: Manifest): Promise<void> {
  const listed = new Set([MANIFEST, ...manifest.files.map((each) => each.path)]);
  for (const entry of await readdir(source, { recursive: true, withFileTypes: true })) {
    if (entry.isDirectory()) continue;
    const relative = path.relative(source, path.join(entry.parentPath, entry.name)).split(path.sep).join('/');
    if (!listed.has(relative)) {
      throw new RestoreError('verification', `${relative} does not belong to the backup`, 'Move it elsewhere.');
    }
  }
}

async function verify(source: string, expected: Manifest['files'][number], signal: AbortSignal): Promise<void> {
  const file = path.join(source, expected.path);
  let found: { sha256: string; bytes: number };
  try {
    if (!(await lstat(file)).isFile()) throw new Error('it is not a file');
    found = await digest(file, signal);
  } catch (error) {
    signal.throwIfAborted();
    throw new RestoreError(
      'verification',
      `${expected.path} cannot be read: ${reasonOf(error)}`,
      'Use another backup.',
      {
        cause: error,
      },
    );
  }
  const isBlob = expected.path.startsWith(`${BLOBS}/`);
  if (
    found.sha256 !== expected.sha256 ||
    found.bytes !== expected.bytes ||
    (isBlob && nameOf(expected) !== found.sha256)
  ) {
    throw new RestoreError('verification', `${expected.path} is damaged: its hash is another`, 'Use another backup.');
  }
}

function nameOf(file: { readonly path: string }): string {
  return path.posix.basename(file.path);
}

function inspect({ source, storeKey }: RestoreRequest, manifest: Manifest) {
  if (manifest.encrypted && storeKey === undefined) {
    throw new RestoreError('key', 'the database of this backup is encrypted', 'Give its key with --store-key-file.');
  }
  const key = manifest.encrypted ? storeKey : undefined;
  try {
    const inside = inspectDatabase({ path: path.join(source, DATABASE), key }, 'full');
    const shelved = new Set(manifest.files.filter(({ path: each }) => each.startsWith(`${BLOBS}/`)).map(nameOf));
    const lost = inside.blobs.filter(({ hash }) => !shelved.has(Buffer.from(hash).toString('hex'))).length;
    if (lost > 0) {
      throw new RestoreError(
        'verification',
        `files that the database names are missing: ${lost}`,
        'Use another backup.',
      );
    }
    if (inside.origin !== manifest.origin) {
      throw new RestoreError(
        'verification',
        'the database is of another server than the manifest says',
        'Use another backup.',
      );
    }
    return inside;
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    const message = error.message.replace(/\.$/, '');
    if (error.kind === 'wrong_key') {
      throw new RestoreError(
        'key',
        'the store key is not the one of this backup',
        'Give the key it was made with: --store-key-file.',
      );
    }
    const hint = error.kind === 'newer_schema' ? `This one knows schema ${SCHEMA_VERSION}.` : 'Use another backup.';
    throw new RestoreError('verification', message, hint, { cause: error });
  }
}

async function copyInto(
  { source, storeKey, nowMs }: RestoreRequest,
  dataDir: string,
  manifest: Manifest,
  signal: AbortSignal,
): Promise<void> {
  const directory = openDataDirectory(dataDir);
  const secrets = manifest.files.filter(({ path: each }) => each.startsWith(`${SECRETS}/`));
  for (const secret of secrets) {
    const there = directory.file(nameOf(secret));
    if (existsSync(there) && (await digest(there)).sha256 !== secret.sha256) {
      throw new RestoreError(
        'place',
        `${there} is there already, and another`,
        'Restoring overwrites nothing: give a new --data-dir.',
      );
    }
  }
  const shelves = new Set<string>();
  for (const file of manifest.files) {
    signal.throwIfAborted();
    if (file.path === DATABASE) continue;
    const from = path.join(source, file.path);
    const to = directory.file(file.path.startsWith(`${SECRETS}/`) ? nameOf(file) : file.path);
    if (existsSync(to) && (await digest(to)).sha256 === file.sha256) continue;
    const folder = path.dirname(to);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    shelves.add(folder);
    // A restore that was cut short left half a file.
    if (file.path.startsWith(`${BLOBS}/`)) await rm(to, { force: true });
    await copyPrivate(from, to);
  }
  for (const folder of shelves) await syncFolder(folder);
  const growing = directory.file(`${DATABASE}.restoring`);
  // With the log of one that was cut short, which would be replayed into this one.
  for (const rest of ['', '-wal', '-shm', '-journal']) await rm(`${growing}${rest}`, { force: true });
  await copyPrivate(path.join(source, DATABASE), growing);
  markRestored({ path: growing, key: manifest.encrypted ? storeKey : undefined }, nowMs);
  await rename(growing, directory.file(DATABASE));
  await syncFolder(directory.path);
}
