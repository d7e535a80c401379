/**
 * The thread that writes (DESIGN section 6). It alone changes the database: it opens and migrates it, then takes what is
 * queued into one transaction per turn and answers when that is on disk.
 *
 * Checkpoints happen in another thread, and this one begins the WAL anew when that has little left to do or cannot keep up.
 * The file keeps its size: writing over blocks it has is cheaper than new ones (12.7k instead of 10.8k enqueues/s, alone).
 */
import { parentPort, workerData } from 'node:worker_threads';
import { pack } from './arena.ts';
import { channelHashes } from './channel-hashes.node.ts';
import { createGroupCommit } from './group-commit.node.ts';
import {
  checkpoint,
  createPrivateFile,
  lockStore,
  migrate,
  openDatabase,
  translated,
  walState,
} from './sqlite-database.node.ts';
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
import { standBack } from './stand-back.node.ts';
import { TURN_WRITES, WriteQueue } from './write-queue.ts';

const CACHE_KIB = 32 * 1024;
/** Pages of 4 KiB: from the first on the WAL begins anew when few are left to move, from the second on in any case. */
const WAL_PAGES = 4096;
const WAL_PAGES_MAX = 4 * WAL_PAGES;
const FEW_PAGES = WAL_PAGES / 10;
/** What a burst made longer is cut back to this. */
const WAL_BYTES_KEPT = WAL_PAGES_MAX * 4096;
/** A turn writes at most a few MB. */
const WAL_CHECK_TURNS = 8;
/** How long a reader's snapshot may hold up the beginning anew. */
const READER_WAIT_MS = 200;
/**
 * While there are many writes at a time, the first of a turn waits for those of others: 64 clients on two cores make turns
 * of 18 writes instead of 12, which saves 2 to 7 % of the server's CPU. A few clients are never kept waiting, nor is a full turn.
 */
const MANY_WRITES = 8;
const FULL_TURN = TURN_WRITES / 2;
const PAUSE_MS = 1;
/**
 * A turn that has taken so long already leaves its other writes to the next: a message to a thousand devices takes some
 * 20 ms, and one sender may have 16 of them in a turn.
 */
const TURN_MS = 20;
/** After this long the last turn says nothing about how many there are now. */
const RECENT_MS = 25;

/** Two fifths of the share of a thread that competes with it. */
const STANDS_BACK_BY = 4;

const port = parentPort!;
const { file, limits, signals } = workerData as WriterData;

function post(message: FromThread, transfer: ArrayBuffer[] = []): void {
  port.postMessage(message, transfer);
}

standBack(STANDS_BACK_BY);
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
  db.pragma(`journal_size_limit = ${WAL_BYTES_KEPT}`);
  const writes = createWrites(db, limits, channelHashes);
  let turnBeganAt = 0;
  const transact = createGroupCommit<WriteRequest>(
    db,
    ({ op, input }) => (writes[op] as (input: unknown) => unknown)(input),
    () => performance.now() - turnBeganAt > TURN_MS,
  );
  const queue = new WriteQueue<WriteRequest>();
  let scheduled = false;
  let pause: ReturnType<typeof setTimeout> | undefined;
  let lastTurn = { writes: 0, endedAt: 0 };
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
    if (queue.size > 0 && queue.size < FULL_TURN && !closing && areMany()) {
      pause ??= setTimeout(turn, PAUSE_MS);
      return;
    }
    clearTimeout(pause);
    scheduled = true;
    setImmediate(turn);
  }

  function areMany(): boolean {
    return lastTurn.writes >= MANY_WRITES && performance.now() - lastTurn.endedAt < RECENT_MS;
  }

  function turn(): void {
    scheduled = false;
    pause = undefined;
    if (queue.size > 0) {
      const taken = queue.take();
      turnBeganAt = performance.now();
      const answers = transact(taken);
      answer(answers);
      queue.putBack(taken.slice(answers.length));
      lastTurn = { writes: answers.length, endedAt: performance.now() };
      Atomics.add(signals, Signal.commits, 1);
      Atomics.notify(signals, Signal.commits);
      turnsUntilWalCheck--;
      if (turnsUntilWalCheck <= 0) {
        turnsUntilWalCheck = WAL_CHECK_TURNS;
        restartWalIfLarge();
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

  /**
   * While the checkpointer is at work, or somebody reads what is in the WAL, this does nothing; a later turn succeeds. Only
   * when there is too much in it are readers waited for.
   */
  function restartWalIfLarge(): void {
    try {
      const { pages, moved } = walState(db);
      if (pages > WAL_PAGES_MAX) {
        checkpoint(db, 'RESTART');
      } else if (pages > WAL_PAGES && pages - moved < FEW_PAGES) {
        db.pragma('busy_timeout = 0');
        try {
          checkpoint(db, 'RESTART');
        } finally {
          db.pragma(`busy_timeout = ${READER_WAIT_MS}`);
        }
      }
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
