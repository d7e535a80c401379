import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { createGroupCommit } from './group-commit.node.ts';
import { type Database, openDatabase } from './sqlite-database.node.ts';

interface Write {
  readonly id: number;
  readonly fails?: boolean;
}

function withDatabase(run: (db: Database, stored: () => number[]) => void): void {
  const folder = mkdtempSync(join(tmpdir(), 'qpc-commit-'));
  try {
    const db = openDatabase({ path: join(folder, 'test.db'), key: undefined }, { cacheKiB: 1024 });
    db.exec('CREATE TABLE written (id INTEGER PRIMARY KEY)');
    const ids = db.prepare<[], number>('SELECT id FROM written ORDER BY id').pluck();
    run(db, () => ids.all());
    db.close();
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const writes = (count: number): Write[] => Array.from({ length: count }, (_, id) => ({ id }));

/** Over after so many writes of each transaction. */
function committer(db: Database, overAfter: number): (requests: readonly Write[]) => { readonly id: number }[] {
  const insert = db.prepare<[number]>('INSERT INTO written (id) VALUES (?)');
  let begun = 0;
  const transact = createGroupCommit<Write>(
    db,
    ({ id, fails }) => {
      begun++;
      insert.run(id);
      if (fails === true) throw new Error('refused');
      return id;
    },
    () => begun >= overAfter,
  );
  return (requests) => {
    begun = 0;
    return transact(requests);
  };
}

test('a turn that is over commits what it has done, and has not begun the rest', () => {
  withDatabase((db, stored) => {
    const transact = committer(db, 3);
    assert.deepEqual(
      transact(writes(10)).map(({ id }) => id),
      [0, 1, 2],
    );
    assert.deepEqual(stored(), [0, 1, 2]);
    assert.deepEqual(
      transact(writes(5).slice(3)).map(({ id }) => id),
      [3, 4],
      'all of them when there is time',
    );
  });
});

test('one write is done however long it takes', () => {
  withDatabase((db, stored) => {
    assert.equal(committer(db, 0)(writes(4)).length, 1);
    assert.deepEqual(stored(), [0]);
  });
});

test('a write that fails is undone alone, and the answers still end where the turn did', () => {
  withDatabase((db, stored) => {
    // The first attempt ends at the failure; the second, with savepoints, is over at its first write.
    const transact = committer(db, 4);
    const answers = transact([{ id: 0 }, { id: 1, fails: true }, { id: 2 }, { id: 3 }, { id: 4 }]);
    assert.deepEqual(
      answers.map((answer) => [answer.id, 'failure' in answer]),
      [
        [0, false],
        [1, true],
      ],
    );
    assert.deepEqual(stored(), [0]);
  });
});
