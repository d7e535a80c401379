/** One suite for every row store: memory, and SQL over node:sqlite. */
import assert from 'node:assert/strict';
import { DatabaseSync } from 'node:sqlite';
import { suite as describe, test } from 'node:test';
import { encodeUtf8 } from '@quicprochat/crypto';
import {
  diffRows,
  groupContext,
  groupRows,
  type GroupState,
  memoryRows,
  type Row,
  protectApplication,
  restoreGroup,
  type RowStore,
  sqlRows,
  wipeReplaced,
} from './index.ts';
import { assertAgree, commit, groupWith, makeWorld, merged, processed } from './testing/world.node.ts';

const world = makeWorld('row stores');
const { context } = world;

function sqlStore(): RowStore {
  return sqlRows(new DatabaseSync(':memory:')).group(encodeUtf8('group'));
}

function sorted(rows: Iterable<Row>): Row[] {
  return [...rows].toSorted((a, b) => (a.key < b.key ? -1 : 1));
}

for (const [name, makeStore] of [
  ['memory', (): RowStore => memoryRows()],
  ['SQL', sqlStore],
] as const) {
  describe(`${name} rows`, () => {
    test('set, replace, delete, delete by prefix; listing keeps to the prefix', () => {
      const store = makeStore();
      const bytes = (text: string): Uint8Array => encodeUtf8(text);
      store.apply([
        { kind: 'set', key: 'a/1', bytes: bytes('one') },
        { kind: 'set', key: 'a/2', bytes: bytes('two') },
        { kind: 'set', key: 'a0', bytes: bytes('after the slash') },
        { kind: 'set', key: 'a', bytes: bytes('before') },
        { kind: 'set', key: 'b/1', bytes: bytes('') },
      ]);
      store.apply([{ kind: 'set', key: 'a/1', bytes: bytes('uno') }]);
      assert.deepEqual(store.get('a/1'), bytes('uno'));
      assert.deepEqual(store.get('b/1'), bytes(''));
      assert.equal(store.get('c'), undefined);
      assert.deepEqual(
        sorted(store.list('a/')).map(({ key }) => key),
        ['a/1', 'a/2'],
      );
      store.apply([{ kind: 'delete', key: 'a/1' }]);
      assert.equal(store.get('a/1'), undefined);
      store.apply([{ kind: 'deletePrefix', prefix: 'a/' }]);
      assert.deepEqual([...store.list('a/')], []);
      assert.deepEqual([store.get('a'), store.get('a0')], [bytes('before'), bytes('after the slash')]);
    });

    test('a group lives in it: every step stored, the old state wiped, the next one restored', () => {
      const { states } = groupWith(world, ['alice', 'bob', 'charlie']);
      let [alice, bob] = states as [GroupState, GroupState];
      const store = makeStore();
      store.apply(diffRows(undefined, bob));
      const enter = (next: GroupState): void => {
        store.apply(diffRows(bob, next));
        wipeReplaced(context, bob, next);
        bob = restoreGroup(context, store);
        assert.deepEqual(sorted(groupRows(restoreGroup(context, store))), sorted(groupRows(next)));
      };
      for (let round = 0; round < 7; round++) {
        const sent = protectApplication(context, alice, encodeUtf8(`message ${round}`));
        const made = commit(context, sent.state);
        alice = merged(context, made);
        enter(processed(context, bob, made.commit, 'commit').state);
        enter(processed(context, bob, sent.message, 'application').state);
        enter(protectApplication(context, bob, encodeUtf8('reply')).state);
      }
      assertAgree([alice, bob]);
    });
  });
}

test('one SQL table holds many groups, and forgets one at a time', () => {
  const rows = sqlRows(new DatabaseSync(':memory:'), 'groups_of_alice');
  const states = ['one', 'two'].map(() => groupWith(world, ['alice', 'bob']).states[0]!);
  const ids = states.map((state) => groupContext(state).groupId);
  states.forEach((state, i) => rows.group(ids[i]!).apply(diffRows(undefined, state)));
  assert.equal(rows.groupIds().length, 2);
  rows.remove(ids[0]!);
  assert.deepEqual(rows.groupIds(), [ids[1]]);
  assert.throws(() => restoreGroup(context, rows.group(ids[0]!)), { name: 'MlsStateError' });
  assertAgree([restoreGroup(context, rows.group(ids[1]!)), states[1]!]);
});

test('rows survive closing the database, and what a driver gives is copied', () => {
  const database = new DatabaseSync(':memory:');
  const { states } = groupWith(world, ['alice', 'bob']);
  const id = groupContext(states[0]!).groupId;
  sqlRows(database).group(id).apply(diffRows(undefined, states[0]!));
  const buffers = {
    prepare(sql: string) {
      const statement = database.prepare(sql);
      const asBuffer = (row: unknown): unknown =>
        row &&
        Object.fromEntries(Object.entries(row).map(([k, v]) => [k, v instanceof Uint8Array ? Buffer.from(v) : v]));
      return {
        run: (...p: (Uint8Array | string)[]) => statement.run(...p),
        get: (...p: (Uint8Array | string)[]) => asBuffer(statement.get(...p)),
        all: (...p: (Uint8Array | string)[]) => statement.all(...p).map(asBuffer),
      };
    },
  };
  const again = sqlRows(buffers).group(id);
  assert.ok(!Buffer.isBuffer(again.get('core')));
  assertAgree([restoreGroup(context, again), states[1]!]);
});

test('misuse and damage: a table name that is none, columns that are not bytes', () => {
  const database = new DatabaseSync(':memory:');
  assert.throws(() => sqlRows(database, 'rows; DROP TABLE rows'), { name: 'MlsUsageError' });
  const store = sqlRows(database).group(encodeUtf8('group'));
  database.exec(`INSERT INTO mls_rows VALUES (CAST('group' AS BLOB), 'core', 'text')`);
  assert.throws(() => store.get('core'), { name: 'MlsStateError' });
});
