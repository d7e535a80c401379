/**
 * A backup: a folder that is there whole or not at all, of what a server needs to go on from one moment.
 *
 *   manifest.json    what belongs to it, with SHA-256 and size of each file; what the server was
 *   qpc.db           the database, encrypted as the server has it
 *   blobs/ab/abcd…   the files, named by their SHA-256
 *   secrets/         only when asked for: whoever has them and the database can guess passwords offline (PROTOCOL 3)
 *
 * The database is copied as of one moment while the server goes on; files that it names are not collected meanwhile. The
 * folder grows under another name and gets its own when everything is on disk.
 */
import { createHash } from 'node:crypto';
import { constants, createReadStream, existsSync } from 'node:fs';
import { chmod, copyFile, lstat, mkdir, open, realpath, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { encodeHex } from '@quicprochat/crypto';
import { z } from 'zod';
import type { DataDirectory } from '../data-directory.node.ts';
import { reasonOf } from '../data-directory.node.ts';
import { conflict, invalidArgument } from '../refusals.ts';
import { StoreError } from '../store/store.ts';
import type { Store } from '../store/store.ts';

export const MANIFEST = 'manifest.json';
export const DATABASE = 'qpc.db';
export const BLOBS = 'blobs';
export const SECRETS = 'secrets';

/** Without these the accounts in the database are of no use, or clients take the server for another. */
export const SECRETS_OF_ACCOUNTS: readonly string[] = ['opaque-setup', 'receipt-key'];
export const SECRETS_OF_LOG: readonly string[] = ['log-key', 'log-vrf-key'];
/** The certificate that the server made for itself: clients trust that very one. */
export const OWN_CERTIFICATE: readonly string[] = ['cert.pem', 'key.pem'];
/** Never the store's key. */
const SECRET_FILES: readonly string[] = [
  ...SECRETS_OF_ACCOUNTS,
  ...SECRETS_OF_LOG,
  ...OWN_CERTIFICATE,
  'audit-key',
  'cert.der',
];

const PROGRESS_EVERY_BYTES = 64 * 1024 * 1024;

const FILE = /^(?:qpc\.db|blobs\/[0-9a-f]{2}\/[0-9a-f]{64})$/;
// Not any name: a `qpc.db-wal` among the secrets would come to lie beside the database.
const isSecret = (text: string): boolean => SECRET_FILES.some((name) => text === `${SECRETS}/${name}`);

const fileSchema = z.strictObject({
  path: z.string().refine((text) => FILE.test(text) || isSecret(text)),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  bytes: z.number().int().nonnegative(),
});

export const manifestSchema = z.strictObject({
  format: z.literal('quicprochat-backup'),
  v: z.literal(1),
  createdAt: z.iso.datetime(),
  version: z.string().max(64),
  origin: z.string().max(255),
  encrypted: z.boolean(),
  schemaVersion: z.number().int().positive(),
  accounts: z.number().int().nonnegative(),
  files: z.array(fileSchema),
});
export type Manifest = z.output<typeof manifestSchema>;
type BackedUpFile = z.output<typeof fileSchema>;

export interface BackUpParts {
  readonly store: Store;
  readonly directory: DataDirectory;
  readonly version: string;
  readonly origin: string;
  readonly nowMs: number;
  /** Keeps the files that the database names from being collected; nothing to do where no server runs. */
  readonly hold: () => Promise<() => void>;
}

export interface BackUpRequest {
  /** Absolute; does not exist yet. */
  readonly target: string;
  readonly withSecrets: boolean;
}

export interface BackUpProgress {
  readonly step: 'database' | 'files';
  readonly bytes: number;
  readonly totalBytes: number;
}

export interface BackUpReport {
  readonly path: string;
  readonly files: number;
  readonly bytes: number;
  readonly accounts: number;
  readonly withSecrets: boolean;
  readonly encrypted: boolean;
  readonly origin: string;
}

/** @throws RpcError, StoreError; nothing stays behind then */
export async function backUpServer(
  parts: BackUpParts,
  request: BackUpRequest,
  progress: (progress: BackUpProgress) => void,
  signal: AbortSignal,
): Promise<BackUpReport> {
  const { target } = request;
  if (!path.isAbsolute(target)) throw invalidArgument('the folder of a backup has an absolute path');
  if (await isWithin(parts.directory.path, target)) {
    throw invalidArgument('a backup does not belong into the data folder', 'Name another folder.');
  }
  if ((await lstat(target).catch(() => undefined)) !== undefined) {
    throw conflict(`${target} exists already`, 'A backup overwrites nothing: name a new folder.');
  }
  const growing = `${target}.unfinished`;
  const release = await parts.hold();
  try {
    await mkdir(growing, { mode: 0o700 }).catch((error: unknown) => {
      if (codeOf(error) === 'EEXIST') {
        throw conflict(
          `${growing} exists already`,
          'Another backup is being made there, or one was killed: then remove it.',
        );
      }
      throw invalidArgument(
        `${growing} cannot be made: ${reasonOf(error)}`,
        'The server makes it: its parent has to exist and be open to the server’s user.',
      );
    });
    try {
      const report = await fill(parts, request, growing, progress, signal);
      await rename(growing, target);
      await syncFolder(path.dirname(target));
      return report;
    } catch (error) {
      await rm(growing, { recursive: true, force: true });
      throw inWordsOfBackUp(error, path.dirname(target));
    }
  } finally {
    release();
  }
}

/** Whatever symbolic links lead to either. */
async function isWithin(folder: string, target: string): Promise<boolean> {
  const parent = path.dirname(target);
  const real = path.join(await realpath(parent).catch(() => parent), path.basename(target));
  const inside = path.relative(await realpath(folder), real);
  return inside !== '..' && !inside.startsWith(`..${path.sep}`) && !path.isAbsolute(inside);
}

/** The disk that is full is the backup's: the server goes on. */
function inWordsOfBackUp(error: unknown, folder: string): unknown {
  const code = codeOf(error);
  const isFull = error instanceof StoreError ? error.kind === 'disk_full' : NO_SPACE.has(code ?? '');
  if (isFull) {
    return new StoreError('disk_full', `The disk of ${folder} is full: nothing of the backup was kept.`, {
      cause: error,
    });
  }
  if (error instanceof StoreError || code === undefined) return error;
  return new StoreError('io', `The backup could not be written to ${folder}: ${reasonOf(error)}.`, { cause: error });
}

// No space, a quota, and a limit on the size of files.
const NO_SPACE: ReadonlySet<string> = new Set(['ENOSPC', 'EDQUOT', 'EFBIG']);

function codeOf(error: unknown): string | undefined {
  if (error instanceof StoreError) return undefined;
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'string' ? code : undefined;
}

async function fill(
  parts: BackUpParts,
  { target, withSecrets }: BackUpRequest,
  growing: string,
  progress: (progress: BackUpProgress) => void,
  signal: AbortSignal,
): Promise<BackUpReport> {
  const { store, directory } = parts;
  const files: BackedUpFile[] = [];
  const database = await store.backUp(path.join(growing, DATABASE), {
    signal,
    onProgress: (done) => progress({ step: 'database', ...done }),
  });
  files.push({ path: DATABASE, ...(await digest(path.join(growing, DATABASE), signal)) });

  const totalBytes = database.blobs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  let bytes = 0;
  let said = 0;
  const shelves = new Set<string>();
  for (const { hash, sizeBytes } of database.blobs) {
    signal.throwIfAborted();
    const name = encodeHex(hash);
    const shelf = name.slice(0, 2);
    const relative = `${BLOBS}/${shelf}/${name}`;
    if (!shelves.has(shelf)) await mkdir(path.join(growing, BLOBS, shelf), { recursive: true, mode: 0o700 });
    shelves.add(shelf);
    const copy = path.join(growing, relative);
    await copyPrivate(path.join(directory.path, relative), copy).catch((error: unknown) => {
      if (codeOf(error) !== 'ENOENT') throw error;
      throw new StoreError('corrupt', `The file ${relative} of the data folder is missing.`, { cause: error });
    });
    const copied = await digest(copy);
    if (copied.sha256 !== name || copied.bytes !== sizeBytes) {
      throw new StoreError(
        'corrupt',
        `The file ${relative} of the data folder is damaged: its bytes are not those its name says.`,
      );
    }
    files.push({ path: relative, ...copied });
    bytes += sizeBytes;
    if (bytes - said >= PROGRESS_EVERY_BYTES) {
      said = bytes;
      progress({ step: 'files', bytes, totalBytes });
    }
  }

  if (withSecrets) {
    await mkdir(path.join(growing, SECRETS), { mode: 0o700 });
    for (const name of SECRET_FILES.filter((each) => existsSync(directory.file(each)))) {
      const copy = path.join(growing, SECRETS, name);
      await copyPrivate(directory.file(name), copy);
      files.push({ path: `${SECRETS}/${name}`, ...(await digest(copy)) });
    }
  }

  const encrypted = (await store.status()).encrypted;
  const manifest: Manifest = {
    format: 'quicprochat-backup',
    v: 1,
    createdAt: new Date(parts.nowMs).toISOString(),
    version: parts.version,
    origin: parts.origin,
    encrypted,
    schemaVersion: database.schemaVersion,
    accounts: database.accounts,
    files,
  };
  const file = path.join(growing, MANIFEST);
  await writeFile(file, `${JSON.stringify(manifest, undefined, 2)}\n`, { mode: 0o600, flag: 'wx' });
  await syncFile(file);
  for (const shelf of shelves) await syncFolder(path.join(growing, BLOBS, shelf));
  if (shelves.size > 0) await syncFolder(path.join(growing, BLOBS));
  await syncFolder(growing);
  return {
    path: target,
    files: files.length,
    bytes: files.reduce((sum, each) => sum + each.bytes, 0),
    accounts: database.accounts,
    withSecrets,
    encrypted,
    origin: parts.origin,
  };
}

/** On disk when it resolves; overwrites nothing, and only its owner reads it. */
export async function copyPrivate(from: string, to: string): Promise<void> {
  await copyFile(from, to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
  await chmod(to, 0o600);
  await syncFile(to);
}

export async function digest(file: string, signal?: AbortSignal): Promise<{ sha256: string; bytes: number }> {
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const chunk of createReadStream(file) as AsyncIterable<Buffer>) {
    signal?.throwIfAborted();
    hash.update(chunk);
    bytes += chunk.length;
  }
  return { sha256: hash.digest('hex'), bytes };
}

async function syncFile(file: string): Promise<void> {
  const handle = await open(file, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

export async function syncFolder(folder: string): Promise<void> {
  // Windows has no such call; its file systems order these by themselves.
  if (process.platform !== 'win32') await syncFile(folder);
}
