/** The thread of one backup; see sqlite-back-up.node.ts. */
import { chmodSync, closeSync, fsyncSync, openSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import type { BackUpData, FromBackUp } from './sqlite-back-up.node.ts';
import { createPrivateFile, openDatabase, translated } from './sqlite-database.node.ts';
import { inspectDatabase } from './sqlite-inspect.node.ts';
import { toFailure } from './sqlite-messages.node.ts';

const CACHE_KIB = 4 * 1024;

const { file, target } = workerData as BackUpData;

function post(message: FromBackUp): void {
  parentPort!.postMessage(message, []);
}

try {
  const db = openDatabase(file, { cacheKiB: CACHE_KIB });
  const pragma = (name: string): number => Number(db.pragma(name, { simple: true }));
  post({ kind: 'size', totalBytes: pragma('page_count') * pragma('page_size') });
  // SQLite takes an empty file for one that does not exist; nobody else can read it from the first byte on.
  createPrivateFile(target);
  db.prepare('VACUUM INTO ?').run(target);
  db.close();
  chmodSync(target, 0o600);
  // VACUUM INTO leaves that to the caller.
  const handle = openSync(target, 'r');
  fsyncSync(handle);
  closeSync(handle);
  const { schemaVersion, accounts, blobs } = inspectDatabase({ path: target, key: file.key }, 'quick');
  post({ kind: 'done', backUp: { schemaVersion, accounts, blobs } });
} catch (error) {
  post({ kind: 'failed', failure: toFailure(translated(error)) });
} finally {
  file.key?.fill(0);
}
