/**
 * The data folder: who may read it, and the secrets in it. Secrets are files of their own, so that a copy of the database
 * alone gives nothing to guess passwords against (PROTOCOL 3), and are on disk before the first use of their values.
 *
 *   qpc.db              the store
 *   blobs               encrypted files, by the hash of their ciphertext
 *   opaque-setup        OPAQUE server setup: losing it voids every password
 *   receipt-key         Ed25519 key of delivery receipts
 *   log-key             Ed25519 key of the key-transparency log's checkpoints
 *   log-vrf-key         the log's VRF key, private half first
 *   audit-key           of the hashes in the audit log
 *   audit.log           the audit log, unless it is kept elsewhere
 *   cert.pem cert.der   what clients trust, when made here; key.pem its private key
 */
import {
  closeSync,
  existsSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';
import { decodeBase64Url, encodeBase64Url } from '@quicprochat/core';
import { StartupError } from './startup-error.ts';

const OWNER_ONLY_DIRECTORY = 0o700;
const OWNER_ONLY_FILE = 0o600;

export interface DataDirectory {
  readonly path: string;
  file(name: string): string;
}

/** Makes the folder if it is missing. @throws StartupError when it cannot be used */
export function openDataDirectory(directory: string): DataDirectory {
  const absolute = path.resolve(directory);
  try {
    makeDirectory(absolute);
    if (!statSync(absolute).isDirectory()) throw new Error('not a folder');
    // A write now gives a clear message; the first write of the database would not.
    const probe = path.join(absolute, `.probe-${process.pid}`);
    closeSync(openSync(probe, 'w', OWNER_ONLY_FILE));
    unlinkSync(probe);
  } catch (error) {
    throw new StartupError(
      'data',
      `the data folder ${absolute} cannot be used: ${reasonOf(error)}`,
      'Give a folder that you can write to with --data-dir.',
      { cause: error },
    );
  }
  return { path: absolute, file: (name) => path.join(absolute, name) };
}

// Not mkdirSync's own `recursive`: it never returns where a file system answers ENOENT to every mkdir, as /proc does.
function makeDirectory(directory: string): void {
  if (existsSync(directory)) return;
  makeDirectory(path.dirname(directory));
  try {
    mkdirSync(directory, { mode: OWNER_ONLY_DIRECTORY });
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error;
  }
}

/**
 * The secret in a file, made on the first start. It is written beside its name and then linked to it, so that a crash
 * leaves the whole secret or none, and two servers starting at once keep the same one.
 * @param loss what the loss of the file means where it has to be there: then nothing is made
 */
export function loadSecret(
  directory: DataDirectory,
  name: string,
  bytes: number,
  make: () => Uint8Array,
  loss: { readonly neededBy: string; readonly hint: string } | undefined,
): Uint8Array {
  const file = directory.file(name);
  const present = readSecret(file, bytes);
  if (present !== undefined) return present;
  if (loss !== undefined) {
    throw new StartupError('data', `${file} is missing, and ${loss.neededBy} in the database need it`, loss.hint);
  }
  const temporary = `${file}.${process.pid}.tmp`;
  writePrivateFile(temporary, `${encodeBase64Url(make())}\n`);
  try {
    linkSync(temporary, file);
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error;
  } finally {
    unlinkSync(temporary);
  }
  syncDirectory(directory.path);
  const made = readSecret(file, bytes);
  if (made === undefined) throw new StartupError('data', `${file} cannot be written`, 'Check the disk.');
  return made;
}

function readSecret(file: string, bytes: number): Uint8Array | undefined {
  let content: string;
  try {
    const { mode } = statSync(file);
    if (process.platform !== 'win32' && (mode & 0o077) !== 0) {
      throw new StartupError('data', `${file} can be read by other users`, `Take their access away: chmod 600 ${file}`);
    }
    content = readFileSync(file, 'utf8');
  } catch (error) {
    if (error instanceof StartupError) throw error;
    if (codeOf(error) === 'ENOENT') return undefined;
    throw new StartupError('data', `${file} cannot be read: ${reasonOf(error)}`, 'Check its owner and mode.', {
      cause: error,
    });
  }
  const secret = decodeBase64Url(content.trim());
  if (secret?.length !== bytes) {
    throw new StartupError('data', `${file} is damaged`, 'Restore it from a backup.');
  }
  return secret;
}

/** Writes a file that only its owner reads, replacing an old one, and waits until it is on disk. */
export function writePrivateFile(file: string, content: string | Uint8Array): void {
  writeNewFile(file, content, OWNER_ONLY_FILE);
}

/** Writes a file that anyone may read, replacing an old one. */
export function writePublicFile(file: string, content: string | Uint8Array): void {
  writeNewFile(file, content, 0o644);
}

// Whole or not at all: a crash leaves the old file, or none.
function writeNewFile(file: string, content: string | Uint8Array, mode: number): void {
  const temporary = `${file}.${process.pid}.new`;
  const handle = openSync(temporary, 'w', mode);
  try {
    writeSync(handle, typeof content === 'string' ? Buffer.from(content) : content);
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
  renameSync(temporary, file);
  // Others rely on it from now on: the database says that there is a certificate, for instance.
  syncDirectory(path.dirname(file));
}

function syncDirectory(directory: string): void {
  // Windows has no such call; its file systems order these by themselves.
  if (process.platform === 'win32') return;
  const handle = openSync(directory, 'r');
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}

function codeOf(error: unknown): string | undefined {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'string' ? code : undefined;
}

/** A file system error in words. */
export function reasonOf(error: unknown): string {
  switch (codeOf(error)) {
    case 'EACCES':
    case 'EPERM':
      return 'permission denied';
    case 'ENOENT':
      return 'no such file';
    case 'EEXIST':
    case 'ENOTDIR':
      return 'it is not a folder';
    case 'EISDIR':
      return 'it is a folder';
    case 'ENOSPC':
      return 'the disk is full';
    case 'EROFS':
      return 'the file system is read-only';
    default:
      return error instanceof Error ? error.message : String(error);
  }
}
