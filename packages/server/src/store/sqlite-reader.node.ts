/** The thread that reads: one connection, each read one snapshot. It opens after the writer has migrated. */
import { parentPort, workerData } from 'node:worker_threads';
import { pack } from './arena.ts';
import { damaged, openDatabase, translated } from './sqlite-database.node.ts';
import {
  type FromThread,
  type ReadRequest,
  type ToReader,
  toFailure,
  type WriterData,
} from './sqlite-messages.node.ts';
import { createReads, type ReadCalls } from './sqlite-reads.node.ts';

const CACHE_KIB = 16 * 1024;

const port = parentPort!;
const { file } = workerData as WriterData;
let snapshot: ((request: ReadRequest) => unknown) | undefined;
let close = () => {};

port.on('message', (message: ToReader) => {
  if (message.kind === 'open') open();
  else if (message.kind === 'reads') for (const request of message.requests) answer(request);
  else {
    close();
    port.close();
  }
});

function post(message: FromThread, transfer: ArrayBuffer[] = []): void {
  port.postMessage(message, transfer);
}

function open(): void {
  try {
    const db = openDatabase(file, { cacheKiB: CACHE_KIB });
    file.key?.fill(0);
    db.pragma('query_only = ON');
    const { calls, readInboxOverDamage } = createReads(db);
    const begin = db.prepare('BEGIN');
    // Not COMMIT: that fails after a read that has passed over a damaged page.
    const end = db.prepare('ROLLBACK');
    snapshot = (request) => {
      begin.run();
      try {
        const call = calls[request.op] as unknown as (...args: readonly unknown[]) => unknown;
        return call(...request.args);
      } catch (error) {
        if (request.op !== 'readInbox' || translated(error).kind !== 'corrupt') throw error;
      } finally {
        if (db.inTransaction) end.run();
      }
      const [read] = request.args as Parameters<ReadCalls['readInbox']>;
      if (read.channelId !== undefined) throw damaged();
      return readInboxOverDamage(read);
    };
    close = () => db.close();
    post({ kind: 'ready', schemaVersion: Number(db.pragma('user_version', { simple: true })) });
  } catch (error) {
    post({ kind: 'unusable', failure: toFailure(translated(error)) });
    port.close();
  }
}

function answer(request: ReadRequest): void {
  const { id } = request;
  try {
    const { value, arena } = pack(snapshot!(request));
    post({ kind: 'answers', answers: [{ id, value }] }, arena === undefined ? [] : [arena]);
  } catch (error) {
    post({ kind: 'answers', answers: [{ id, failure: toFailure(translated(error)) }] });
  }
}
