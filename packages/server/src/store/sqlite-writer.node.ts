/**
 * The thread that writes (DESIGN section 6). It alone changes the database: it opens and migrates it, then takes what is
 * queued into one transaction per turn and answers when that is on disk.
 *
 * Checkpoints happen in another thread; when those cannot keep up and the WAL exceeds 64 MB, this one empties it.
 */
import { statSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { pack } from './arena.ts';
import { channelHashes } from './channel-hashes.node.ts';
import { createGroupCommit } from './group-commit.node.ts';
import { checkpoint, createPrivateFile, lockStore, migrate, openDatabase, translated } from './sqlite-database.node.ts';
import {
  type Answer,
  type FromThread,
  Signal,
  type ToWriter,
  toFailure,
  type WriteRequest,
  type WriterData,
} from './sqlite-messages.node.ts';
import { createWrites } from './sqlite-writes.node.ts';
import { WriteQueue } from './write-queue.ts';

const CACHE_KIB = 32 * 1024;
const WAL_BYTES_MAX = 64 * 1024 * 1024;
/** A turn writes at most a few MB. */
const WAL_CHECK_TURNS = 8;
/** How long a reader's snapshot may hold up the emptying of the WAL. */
const READER_WAIT_MS = 200;

const port = parentPort!;
const { file, limits, signals } = workerData as WriterData;

function post(message: FromThread, transfer: ArrayBuffer[] = []): void {
  port.postMessage(message, transfer);
}

try {
  start();
} catch (error) {
  post({ kind: 'unusable', failure: toFailure(translated(error)) });
  port.close();
}

function start(): void {
  const lock = lockStore(file.path);
  createPrivateFile(file.path);
  const db = openDatabase(file, { cacheKiB: CACHE_KIB });
  file.key?.fill(0);
  const schemaVersion = migrate(db);
  db.pragma(`busy_timeout = ${READER_WAIT_MS}`);
  const writes = createWrites(db, limits, channelHashes);
  const transact = createGroupCommit<WriteRequest>(db, ({ op, input }) =>
    (writes[op] as (input: unknown) => unknown)(input),
  );
  const queue = new WriteQueue<WriteRequest>();
  let scheduled = false;
  let closing = false;
  let turnsUntilWalCheck = WAL_CHECK_TURNS;

  port.on('message', (message: ToWriter) => {
    if (message.kind === 'close') closing = true;
    else for (const request of message.requests) queue.push(request);
    schedule();
  });
  post({ kind: 'ready', schemaVersion });

  /** The messages that came during a turn are read before the next one starts. */
  function schedule(): void {
    if (scheduled) return;
    scheduled = true;
    setImmediate(turn);
  }

  function turn(): void {
    scheduled = false;
    if (queue.size > 0) {
      answer(transact(queue.take()));
      Atomics.add(signals, Signal.commits, 1);
      Atomics.notify(signals, Signal.commits);
      turnsUntilWalCheck--;
      if (turnsUntilWalCheck <= 0) {
        turnsUntilWalCheck = WAL_CHECK_TURNS;
        truncateWalIfLarge();
      }
    }
    if (queue.size > 0) schedule();
    else if (closing) close();
  }

  /** One buffer for all answers of a turn: transferring one each costs more than the rest of the answer. */
  function answer(answers: readonly Answer[]): void {
    const { value, arena } = pack(answers);
    post({ kind: 'answers', answers: value }, arena === undefined ? [] : [arena]);
  }

  /** While the checkpointer is at work this does nothing; a turn in its next pause, at most 100 ms long, succeeds. */
  function truncateWalIfLarge(): void {
    const bytes = statSync(`${file.path}-wal`, { throwIfNoEntry: false })?.size ?? 0;
    if (bytes <= WAL_BYTES_MAX) return;
    try {
      checkpoint(db, 'TRUNCATE');
    } catch (error) {
      // The writes are on disk all the same; what ails the medium shows at the next one.
      if (translated(error).kind === 'internal') throw error;
    }
  }

  function close(): void {
    db.close();
    lock.close();
    port.close();
  }
}
