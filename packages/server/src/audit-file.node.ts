/**
 * The audit log on disk: one JSON object a line, only ever appended to, readable by its owner alone. At a size the file
 * becomes `<name>.1`, that one `<name>.2`, and so on; the last is removed. Lines of one turn of the event loop are
 * written together, so a crash loses those of that turn, and a line that it cut off is ended at the next start. What was
 * written is synced a second later, so that is what a loss of power takes; no call waits for it. A disk that takes no more
 * stops no call: the log says so.
 */
import {
  close as closeHandle,
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fdatasync,
  fdatasyncSync,
  fstatSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import type { AuditLine, AuditSink } from './audit.ts';
import type { Log } from './context.ts';
import { reasonOf } from './data-directory.node.ts';
import { StartupError } from './startup-error.ts';

const { O_APPEND, O_CREAT, O_NOFOLLOW, O_RDONLY, O_WRONLY } = constants;
const OWNER_ONLY = 0o600;
// Of lines that could not be written; more are dropped and counted.
const WAITING_BYTES_MAX = 1024 * 1024;
const SYNC_AFTER_MS = 1000;

export interface AuditFile extends AuditSink {
  /** Writes what waits, and syncs it. */
  close(): void;
}

/** @throws StartupError when the file cannot be written */
export function openAuditFile(
  path: string,
  { bytesMax, files }: { readonly bytesMax: number; readonly files: number },
  log: Log,
): AuditFile {
  let handle: number;
  try {
    handle = open(path);
  } catch (error) {
    throw new StartupError('data', `the audit log ${path} cannot be written: ${reasonOf(error)}`, 'Set --audit-log.', {
      cause: error,
    });
  }
  const { isFile, size: sizeBefore } = about(handle);
  let size = sizeBefore;
  let waiting = isFile && size > 0 && !endsALine(path, size) ? '\n' : '';
  let dropped = 0;
  let scheduled = false;
  let isFailing = false;
  let isClosed = false;
  let syncTimer: NodeJS.Timeout | undefined;

  const noteSync = (error: unknown): void => {
    if (error) log.error({ err: error }, 'the audit log cannot be synced: the newest lines may not be on the disk');
  };
  const syncSoon = (): void => {
    if (!isFile) return;
    syncTimer ??= setTimeout(() => {
      syncTimer = undefined;
      fdatasync(handle, (error) => {
        // Closing syncs by itself, and takes the handle away.
        if (!isClosed) noteSync(error);
      });
    }, SYNC_AFTER_MS).unref();
  };
  // The old handle stays until there is a new one: a number that was given back might be the database's by then.
  const rotate = (): void => {
    // Put away already, and only the new one could not be made: another round would push out an old one for nothing.
    if (existsSync(path)) putAway();
    const next = open(path);
    const put = handle;
    fdatasync(put, (error) => {
      noteSync(error);
      // Whatever ails it must not end the server from here.
      closeHandle(put, noteSync);
    });
    handle = next;
    size = 0;
  };
  const putAway = (): void => {
    for (let i = files - 1; i > 0; i--) {
      try {
        renameSync(i === 1 ? path : `${path}.${i - 1}`, `${path}.${i}`);
      } catch (error) {
        if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error;
      }
    }
    if (files === 1) rmSync(path);
  };
  const flush = (): void => {
    scheduled = false;
    if (waiting === '') return;
    try {
      const bytes = Buffer.from(waiting);
      if (isFile && size > 0 && size + bytes.length > bytesMax) rotate();
      // What was written of it before an error stands; the rest is tried again.
      const written = writeSync(handle, bytes);
      size += written;
      syncSoon();
      waiting = bytes.subarray(written).toString();
      if (isFailing) log.info({ dropped }, 'the audit log is written again');
      isFailing = false;
      dropped = 0;
    } catch (error) {
      if (!isFailing) log.error({ err: error }, 'the audit log cannot be written');
      isFailing = true;
    }
  };
  return {
    write(line: AuditLine): void {
      if (isClosed) return;
      const text = `${JSON.stringify(line)}\n`;
      if (waiting.length + text.length > WAITING_BYTES_MAX) dropped++;
      else waiting += text;
      if (scheduled) return;
      scheduled = true;
      setImmediate(flush);
    },
    close(): void {
      if (isClosed) return;
      isClosed = true;
      flush();
      clearTimeout(syncTimer);
      try {
        if (isFile) fdatasyncSync(handle);
      } catch (error) {
        noteSync(error);
      }
      closeSync(handle);
    },
  };
}

function about(handle: number): { readonly isFile: boolean; readonly size: number } {
  const stats = fstatSync(handle);
  return { isFile: stats.isFile(), size: stats.size };
}

function endsALine(path: string, size: number): boolean {
  const last = Buffer.alloc(1);
  const handle = openSync(path, O_RDONLY | (O_NOFOLLOW ?? 0));
  try {
    readSync(handle, last, 0, 1, size - 1);
  } finally {
    closeSync(handle);
  }
  return last.toString() === '\n';
}

function open(path: string): number {
  const handle = openSync(path, O_WRONLY | O_APPEND | O_CREAT | (O_NOFOLLOW ?? 0), OWNER_ONLY);
  // An old file may have been made by somebody more generous; a device or a pipe is somebody else's.
  if (process.platform !== 'win32' && fstatSync(handle).isFile()) fchmodSync(handle, OWNER_ONLY);
  return handle;
}
