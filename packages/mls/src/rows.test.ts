import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeUtf8 } from '@quicprochat/crypto';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { suiteOf } from './cipher-suites.ts';
import { defaultConfig } from './group-state.ts';
import {
  decodePendingCommit,
  diffRows,
  encodePendingCommit,
  groupRows,
  type GroupState,
  memoryRows,
  processMessage,
  protectApplication,
  restoreGroup,
  type RowChange,
  type RowReader,
} from './index.ts';
import { takeKey } from './secret-tree.ts';
import {
  assertAgree,
  commit,
  groupOf,
  groupWith,
  joined,
  keyPackageOf,
  makeWorld,
  merged,
  person,
  processed,
  verified,
} from './testing/world.node.ts';

const world = makeWorld('rows');
const { context } = world;

function sizeOf(changes: readonly RowChange[]): number {
  return changes.reduce((sum, change) => sum + (change.kind === 'set' ? change.bytes.length : 0), 0);
}

/** Counts the bytes read, the public tree's apart. */
function counting(rows: RowReader): RowReader & { read: { tree: number; other: number } } {
  const read = { tree: 0, other: 0 };
  return {
    read,
    get(key) {
      const bytes = rows.get(key);
      read.other += bytes?.length ?? 0;
      return bytes;
    },
    *list(prefix) {
      for (const row of rows.list(prefix)) {
        read[row.key.startsWith('tree/') ? 'tree' : 'other'] += row.bytes.length;
        yield row;
      }
    },
  };
}

test('a group of 1,000: opening it and sending reads and writes far less than 64 KB besides the public tree', () => {
  const people = Array.from({ length: 1000 }, (_, i) => person(world, `member ${i}`));
  const bundles = people.slice(1).map((each) => keyPackageOf(world, each));
  const made = commit(context, groupOf(world, people[0]!), {
    proposals: bundles.map(({ keyPackage }) => ({ kind: 'add', keyPackage: verified(context, keyPackage) })),
  });
  const alice = merged(context, made);
  const bob = joined(context, made.welcome, bundles[0]!);

  // Everybody has spoken, in this epoch and in the five before: the state holds 6,000 pairs of ratchets.
  const suite = suiteOf(nodeCrypto, 1);
  const spoken = (state: GroupState): GroupState => {
    let { secretTree } = state;
    for (let leaf = 0; leaf < 1000; leaf++) {
      ({ tree: secretTree } = takeKey(suite, secretTree, leaf, 'application', 1, defaultConfig, 10_000));
    }
    return { ...state, secretTree };
  };
  let busy = spoken(alice);
  for (let i = 0; i < 2; i++) {
    const next = commit(context, busy);
    busy = spoken(merged(context, next));
  }
  const rows = memoryRows(groupRows(busy));
  const counted = counting(rows);
  const restored = restoreGroup(context, counted);
  const sent = protectApplication(context, restored, encodeUtf8('hello'));
  const changes = diffRows(restored, sent.state);
  assert.deepEqual(
    changes.map(({ kind }) => kind),
    ['set'],
    'one row',
  );
  assert.ok(sizeOf(changes) < 300, `${sizeOf(changes)} bytes written`);
  assert.ok(counted.read.other < 16_384, `${counted.read.other} bytes read`);
  assert.ok(counted.read.tree > 100_000);

  // Receiving costs one row as well, and a commit a few.
  const said = protectApplication(context, alice, encodeUtf8('hello'));
  const more = protectApplication(context, said.state, encodeUtf8('again'));
  const first = processed(context, bob, said.message, 'application').state;
  const second = processed(context, first, more.message, 'application').state;
  assert.equal(diffRows(first, second).length, 1);
  const commitMade = commit(context, more.state);
  const third = processed(context, second, commitMade.commit, 'commit').state;
  const byCommit = diffRows(second, third);
  assert.ok(byCommit.length < 20 && sizeOf(byCommit) < 8192, `${byCommit.length} rows, ${sizeOf(byCommit)} bytes`);
});

test('rows after any number of steps are the rows of the state', () => {
  const [a, b] = groupWith(world, ['alice', 'bob', 'charlie']).states;
  let state = b!;
  let sender = a!;
  const rows = memoryRows(groupRows(state));
  const follow = (next: GroupState): void => {
    rows.apply(diffRows(state, next));
    state = next;
    const sorted = [...rows.list('')].sort((x, y) => (x.key < y.key ? -1 : 1));
    assert.deepEqual(
      sorted,
      groupRows(state).toSorted((x, y) => (x.key < y.key ? -1 : 1)),
    );
    const restored = restoreGroup(context, rows);
    assertAgree([state, restored]);
    assert.deepEqual(restored.core, state.core);
    assert.deepEqual(restored.proposals, state.proposals);
    assert.deepEqual(restored.tree.leaves, state.tree.leaves);
  };
  for (let i = 0; i < 8; i++) {
    const sent = protectApplication(context, sender, encodeUtf8('skip'));
    const next = protectApplication(context, sent.state, encodeUtf8('hello'));
    follow(processed(context, state, next.message, 'application').state);
    const made = commit(context, next.state, {
      proposals: i === 3 ? [{ kind: 'remove', removed: 2 as never }] : [],
    });
    follow(processed(context, state, made.commit, 'commit').state);
    sender = merged(context, made);
    follow(processed(context, state, sent.message, 'application').state);
  }
});

test('a state read from rows means the same however often it is asked', () => {
  const [a, b] = groupWith(world, ['alice', 'bob']).states;
  const one = protectApplication(context, a!, encodeUtf8('one'));
  const rows = memoryRows(groupRows(b!));
  const restored = restoreGroup(context, rows);
  const next = processed(context, restored, one.message, 'application').state;
  rows.apply(diffRows(restored, next));
  assert.equal(processed(context, restored, one.message, 'application').generation, 0, 'what was loaded stays');
});

test('damaged and missing rows are reported, not worked with', () => {
  const [a] = groupWith(world, ['alice', 'bob']).states;
  const rows = groupRows(a!);
  const damaged = { name: 'MlsStateError' };
  assert.throws(() => restoreGroup(context, memoryRows([])), damaged);
  for (const { key, bytes } of rows) {
    if (key.startsWith('secret/')) continue;
    for (const broken of [bytes.slice(0, -1), new Uint8Array([...bytes, 0]), new Uint8Array()]) {
      const others = rows.filter((row) => row.key !== key);
      assert.throws(() => restoreGroup(context, memoryRows([...others, { key, bytes: broken }])), damaged, key);
    }
  }
  const withoutSecrets = memoryRows(rows.filter(({ key }) => !key.startsWith('secret/')));
  const state = restoreGroup(context, withoutSecrets);
  assert.throws(() => protectApplication(context, state, new Uint8Array()), damaged);
  const pending = commit(context, a!).pending;
  const bytes = encodePendingCommit(pending);
  assert.throws(() => decodePendingCommit(context, bytes.slice(0, -1)), damaged);
});

test('a removed member stays removed after a restart', () => {
  const [a, b] = groupWith(world, ['alice', 'bob']).states;
  const removal = commit(context, a!, { proposals: [{ kind: 'remove', removed: b!.core.ownLeaf }] });
  const removed = processed(context, b!, removal.commit, 'commit').state;
  const restored = restoreGroup(context, memoryRows(groupRows(removed)));
  assert.equal(restored.core.status, 'removed');
  assert.equal(processMessage(context, restored, removal.commit).kind, 'rejected');
});
