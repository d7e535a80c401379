/**
 * A copy of the database while it is in use. A thread of its own reads one snapshot and writes it anew with VACUUM INTO,
 * under the same key; the writer and the readers go on. The copy is then opened as a restore would, and checked.
 *
 *   VACUUM INTO → fsync → quick_check of the copy → what is in it
 */
import { existsSync } from 'node:fs';
import { rm, stat } from 'node:fs/promises';
import { Worker } from 'node:worker_threads';
import type { DatabaseFile } from './sqlite-database.node.ts';
import { type Failure, fromFailure } from './sqlite-messages.node.ts';
import { type BackUpOptions, type StoreBackUp, StoreError } from './store.ts';

export interface BackUpData {
  readonly file: DatabaseFile;
  readonly target: string;
}

export type FromBackUp =
  | { readonly kind: 'size'; readonly totalBytes: number }
  | { readonly kind: 'done'; readonly backUp: StoreBackUp }
  | { readonly kind: 'failed'; readonly failure: Failure };

const THREAD = new URL('./sqlite-back-up-thread.node.ts', import.meta.url);
const PROGRESS_EVERY_MS = 500;

export async function backUp(file: DatabaseFile, target: string, options: BackUpOptions): Promise<StoreBackUp> {
  const { onProgress, signal } = options;
  signal?.throwIfAborted();
  if (existsSync(target)) throw new StoreError('misuse', 'A backup does not overwrite a file.');
  // Built files lie beside each other like the sources; only the ending differs.
  const ending = import.meta.url.slice(import.meta.url.lastIndexOf('.'));
  const thread = new URL(THREAD.href.replace(/\.ts$/, ending));
  const workerData: BackUpData = { file, target };
  const worker = new Worker(thread, { workerData, name: 'store backup', execArgv: [] });
  const ended = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
  const { promise, resolve, reject } = Promise.withResolvers<StoreBackUp>();
  let totalBytes = 0;
  const look = async (): Promise<void> => {
    const bytes = (await stat(target).catch(() => undefined))?.size ?? 0;
    if (totalBytes > 0) onProgress?.({ bytes: Math.min(bytes, totalBytes), totalBytes });
  };
  const timer = onProgress === undefined ? undefined : setInterval(() => void look(), PROGRESS_EVERY_MS);
  const abort = (): void => reject(signal?.reason);
  signal?.addEventListener('abort', abort, { once: true });
  worker.on('message', (message: FromBackUp) => {
    if (message.kind === 'size') totalBytes = message.totalBytes;
    else if (message.kind === 'done') resolve(message.backUp);
    else reject(fromFailure(message.failure));
  });
  worker.once('error', (cause) => reject(new StoreError('internal', 'The thread of the backup failed.', { cause })));
  worker.once('exit', () => reject(new StoreError('internal', 'The thread of the backup ended early.')));
  try {
    return await promise;
  } catch (error) {
    await worker.terminate();
    await rm(target, { force: true });
    throw error;
  } finally {
    clearInterval(timer);
    signal?.removeEventListener('abort', abort);
    await ended;
  }
}
