/**
 * The thread that moves the WAL into the database file, so that the writer need not: every 100 ms while there are
 * commits, asleep otherwise. It blocks its thread on purpose and talks through shared memory only.
 */
import { workerData } from 'node:worker_threads';
import { checkpoint, openDatabase, translated } from './sqlite-database.node.ts';
import { Signal, type WriterData } from './sqlite-messages.node.ts';
import { standBack } from './stand-back.node.ts';

const INTERVAL_MS = 100;
/** Nobody waits for it. */
const STANDS_BACK_BY = 10;
const CACHE_KIB = 1024;

standBack(STANDS_BACK_BY);
const { file, signals } = workerData as WriterData;
const db = openDatabase(file, { cacheKiB: CACHE_KIB });
file.key?.fill(0);

let seen = -1;
while (Atomics.load(signals, Signal.stop) === 0) {
  const commits = Atomics.load(signals, Signal.commits);
  if (commits === seen) {
    Atomics.wait(signals, Signal.commits, seen);
    continue;
  }
  seen = commits;
  try {
    checkpoint(db, 'PASSIVE');
  } catch (error) {
    // Nothing is lost by a failed checkpoint; a full disk or a damaged file shows in the writer's answers.
    if (translated(error).kind === 'internal') throw error;
  }
  Atomics.wait(signals, Signal.stop, 0, INTERVAL_MS);
}
db.close();
