/**
 * Blobs as files: `<folder>/ab/abcd…` by the hex digits of their hash, unfinished ones in `<folder>/unfinished`. Nothing
 * but 64 hex digits ever becomes a name.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import type { BlobFiles } from './blobs.ts';
import { StoreError } from './store/store.ts';

const OWNER_ONLY_DIRECTORY = 0o700;
const OWNER_ONLY_FILE = 0o600;
const READ_BYTES = 256 * 1024;
const NAME = /^[0-9a-f]{64}$/;

export async function openBlobFiles(folder: string): Promise<BlobFiles> {
  const unfinished = path.join(folder, 'unfinished');
  await mkdir(unfinished, { recursive: true, mode: OWNER_ONLY_DIRECTORY });
  const partial = (name: string) => path.join(unfinished, checked(name));
  const shelf = (name: string) => path.join(folder, checked(name).slice(0, 2));
  const final = (name: string) => path.join(shelf(name), name);

  return {
    unfinishedBytes: onDisk(async (name) => (await orMissing(stat(partial(name))))?.size ?? 0),

    write: onDisk(async (name, offset, chunk) => {
      // Not 'a': a chunk cut short by a crash is written over.
      const file = (await orMissing(open(partial(name), 'r+'))) ?? (await open(partial(name), 'wx+', OWNER_ONLY_FILE));
      try {
        let written = 0;
        while (written < chunk.length) {
          written += (await file.write(chunk, written, chunk.length - written, offset + written)).bytesWritten;
        }
      } finally {
        await file.close();
      }
    }),

    finish: onDisk(async (name, blobName, sizeBytes, expectedHash) => {
      const file = await open(partial(name), 'r+');
      let matches: boolean;
      try {
        await file.truncate(sizeBytes);
        const hash = createHash('sha256');
        const buffer = new Uint8Array(READ_BYTES);
        for (let at = 0; at < sizeBytes;) {
          const { bytesRead } = await file.read(buffer, 0, buffer.length, at);
          if (bytesRead === 0) break;
          hash.update(buffer.subarray(0, bytesRead));
          at += bytesRead;
        }
        matches = timingSafeEqual(hash.digest(), expectedHash);
        if (matches) await file.sync();
      } finally {
        await file.close();
      }
      if (!matches) {
        await rm(partial(name), { force: true });
        return false;
      }
      await mkdir(shelf(blobName), { recursive: true, mode: OWNER_ONLY_DIRECTORY });
      await rename(partial(name), final(blobName));
      await syncDirectory(shelf(blobName));
      await syncDirectory(folder);
      return true;
    }),

    discard: onDisk((name) => rm(partial(name), { force: true })),

    finishedBytes: onDisk(async (blobName) => (await orMissing(stat(final(blobName))))?.size),

    read: onDisk(async (name, offset, length) => {
      const file = await orMissing(open(final(name), 'r'));
      if (file === undefined) return undefined;
      try {
        const chunk = new Uint8Array(length);
        let got = 0;
        while (got < length) {
          const { bytesRead } = await file.read(chunk, got, length - got, offset + got);
          if (bytesRead === 0) break;
          got += bytesRead;
        }
        return chunk.subarray(0, got);
      } finally {
        await file.close();
      }
    }),

    remove: onDisk((name) => rm(final(name), { force: true })),

    list: async function* () {
      for (const entry of await readdir(folder)) {
        if (!/^[0-9a-f]{2}$/.test(entry)) continue;
        for (const name of await readdir(path.join(folder, entry))) if (NAME.test(name)) yield name;
      }
    },

    discardBefore: async (timeMs) => {
      for (const name of await readdir(unfinished)) {
        if (!NAME.test(name)) continue;
        const found = await orMissing(stat(partial(name)));
        if (found !== undefined && found.mtimeMs < timeMs) await rm(partial(name), { force: true });
      }
    },
  };
}

function checked(name: string): string {
  if (!NAME.test(name)) throw new Error('a blob has another kind of name');
  return name;
}

/** The system's errors in the store's words, which callers turn into an answer. */
function onDisk<A extends readonly unknown[], T>(task: (...args: A) => Promise<T>): (...args: A) => Promise<T> {
  return async (...args) => {
    try {
      return await task(...args);
    } catch (cause) {
      const code = cause instanceof Error && 'code' in cause ? String(cause.code) : undefined;
      if (code === undefined) throw cause;
      if (NO_SPACE.has(code)) {
        throw new StoreError('disk_full', 'The disk is full: free some space in the data directory.', { cause });
      }
      throw new StoreError('io', 'A file of a blob could not be read or written: check the disk.', { cause });
    }
  };
}

// No space, a quota, and a limit on the size of files.
const NO_SPACE: ReadonlySet<string> = new Set(['ENOSPC', 'EDQUOT', 'EFBIG']);

async function orMissing<T>(attempt: Promise<T>): Promise<T | undefined> {
  try {
    return await attempt;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

async function syncDirectory(directory: string): Promise<void> {
  // Windows has no such call; its file systems order these by themselves.
  if (process.platform === 'win32') return;
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
