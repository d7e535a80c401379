/**
 * One turn of the writer: several writes in one transaction, one fsync for all (DESIGN section 6). A write that fails is
 * undone alone. Savepoints, which that takes, cost a copy of every page each write touches; so a turn goes without them
 * first, and when a write fails it starts over with one for each. When the transaction as a whole fails (a full disk, a
 * failing fsync), nothing of it stands, and each write gets a transaction of its own, so that a large one on a nearly
 * full disk does not fail the small ones.
 */
import { type Database, translated } from './sqlite-database.node.ts';
import { type Answer, toFailure } from './sqlite-messages.node.ts';

/**
 * Answers in the order of the requests, all of them final: on disk, or without effect. Fewer answers than requests: the rest
 * has not been begun.
 * @param isOver asked after each write: whether those to come are left to another transaction
 */
export function createGroupCommit<T extends { readonly id: number }>(
  db: Database,
  perform: (request: T) => unknown,
  isOver: () => boolean = () => false,
): (requests: readonly T[]) => Answer[] {
  const begin = db.prepare('BEGIN IMMEDIATE');
  const savepoint = db.prepare('SAVEPOINT write');
  const release = db.prepare('RELEASE write');
  const undo = db.prepare('ROLLBACK TO write');
  const commit = db.prepare('COMMIT');
  const rollback = db.prepare('ROLLBACK');

  function write(request: T): Answer {
    const { id } = request;
    savepoint.run();
    try {
      const value = perform(request);
      release.run();
      return { id, value };
    } catch (error) {
      // SQLite may have ended the whole transaction: then nobody's write stands.
      if (!db.inTransaction) throw error;
      undo.run();
      release.run();
      return { id, failure: toFailure(translated(error)) };
    }
  }

  function inTransaction(requests: readonly T[], each: (request: T) => Answer): Answer[] {
    try {
      begin.run();
      const answers: Answer[] = [];
      for (const request of requests) {
        answers.push(each(request));
        if (isOver()) break;
      }
      commit.run();
      return answers;
    } catch (error) {
      if (db.inTransaction) rollback.run();
      throw error;
    }
  }

  return function transact(requests): Answer[] {
    try {
      return inTransaction(requests, (request) => ({ id: request.id, value: perform(request) }));
    } catch {
      // Somebody's fault or everybody's: the next attempt tells.
    }
    try {
      return inTransaction(requests, write);
    } catch (error) {
      if (requests.length > 1) return requests.flatMap((request) => transact([request]));
      const failure = toFailure(translated(error));
      return requests.map(({ id }) => ({ id, failure }));
    }
  };
}
