import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeUtf8, encodeUtf8 } from '@quicprochat/crypto';
import {
  createProposal,
  decodePendingCommit,
  diffRows,
  encodePendingCommit,
  groupContext,
  groupRows,
  isActive,
  joinGroup,
  memoryRows,
  mergePendingCommit,
  processMessage,
  protectApplication,
  restoreGroup,
  roster,
} from './index.ts';
import {
  assertAgree,
  assertRefused,
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

test('Alice creates a group, adds Bob and Charlie, they talk, Bob leaves', () => {
  const world = makeWorld('story');
  const { context } = world;
  const [alice, bob, charlie] = ['alice', 'bob', 'charlie'].map((name) => person(world, name));
  let a = groupOf(world, alice!);

  const bobBundle = keyPackageOf(world, bob!);
  const addBob = commit(context, a, {
    proposals: [{ kind: 'add', keyPackage: verified(context, bobBundle.keyPackage) }],
  });
  assert.equal(addBob.effects.added.length, 1);
  a = merged(context, addBob);
  let b = joined(context, addBob.welcome, bobBundle);
  assertAgree([a, b]);

  const charlieBundle = keyPackageOf(world, charlie!);
  const addCharlie = commit(context, b, {
    proposals: [{ kind: 'add', keyPackage: verified(context, charlieBundle.keyPackage) }],
    authenticatedData: encodeUtf8('channel'),
  });
  const seenByAlice = processed(context, a, addCharlie.commit, 'commit');
  assert.deepEqual(
    seenByAlice.effects.added.map((m) => m.signatureKey),
    [charlie!.signatureKeyPair.publicKey],
  );
  assert.equal(decodeUtf8(seenByAlice.authenticatedData), 'channel');
  a = seenByAlice.state;
  assert.equal(processed(context, addCharlie.state, addCharlie.commit, 'own').epoch, 1n);
  b = merged(context, addCharlie);
  let c = joined(context, addCharlie.welcome, charlieBundle);
  assertAgree([a, b, c]);
  assert.equal(roster(c).length, 3);

  const hello = protectApplication(context, a, encodeUtf8('hello'), { authenticatedData: encodeUtf8('x') });
  a = hello.state;
  for (const state of [b, c]) {
    const outcome = processed(context, state, hello.message, 'application');
    assert.equal(decodeUtf8(outcome.data), 'hello');
    assert.equal(decodeUtf8(outcome.authenticatedData), 'x');
    assert.equal(outcome.sender.leafIndex, 0);
    assertRefused(processMessage(context, outcome.state, hello.message), 'generationUsed');
  }

  // Bob proposes to leave; Charlie commits it by reference.
  const leave = createProposal(context, b, { kind: 'remove', removed: b.core.ownLeaf });
  assert.ok(leave.kind === 'proposed');
  a = processed(context, a, leave.message, 'proposal').state;
  c = processed(context, c, leave.message, 'proposal').state;
  b = leave.state;
  const removal = commit(context, c);
  a = processed(context, a, removal.commit, 'commit').state;
  const atBob = processed(context, b, removal.commit, 'commit');
  assert.ok(atBob.effects.selfRemoved);
  assert.ok(!isActive(atBob.state));
  c = merged(context, removal);
  assertAgree([a, c]);
  const secret = protectApplication(context, c, encodeUtf8('without bob'));
  assert.equal(processed(context, a, secret.message, 'application').epoch, 3n);
  assertRefused(processMessage(context, atBob.state, secret.message), 'epochFuture');
});

test('an Update by reference is applied by its sender and by everyone', () => {
  const world = makeWorld('update');
  const { context } = world;
  let [a, b, c] = groupWith(world, ['alice', 'bob', 'charlie']).states;
  const update = createProposal(context, b!, { kind: 'update' }, { wireFormat: 'public' });
  assert.ok(update.kind === 'proposed');
  b = update.state;
  a = processed(context, a!, update.message, 'proposal').state;
  c = processed(context, c!, update.message, 'proposal').state;
  const outcome = commit(context, a, { wireFormat: 'public' });
  assert.equal(outcome.effects.updated.length, 2);
  b = processed(context, b, outcome.commit, 'commit').state;
  c = processed(context, c, outcome.commit, 'commit').state;
  a = merged(context, outcome);
  assertAgree([a, b, c]);
  const again = commit(context, b);
  a = processed(context, a, again.commit, 'commit').state;
  c = processed(context, c, again.commit, 'commit').state;
  assertAgree([a, merged(context, again), c]);
});

test('two members commit at once: the loser drops its commit and follows', () => {
  const world = makeWorld('race');
  const { context } = world;
  const [a, b, c] = groupWith(world, ['alice', 'bob', 'charlie']).states;
  const winner = commit(context, a!);
  const loser = commit(context, b!);
  const followed = processed(context, loser.state, winner.commit, 'commit').state;
  assert.throws(() => mergePendingCommit(context, followed, loser.pending));
  const retry = commit(context, followed);
  const atAlice = processed(context, merged(context, winner), retry.commit, 'commit').state;
  const first = processed(context, c!, winner.commit, 'commit').state;
  assertRefused(processMessage(context, first, loser.commit), 'epochPast');
  const second = processed(context, first, retry.commit, 'commit').state;
  assertAgree([atAlice, merged(context, retry), second]);
});

test('a state restored from its rows goes on as the original would', () => {
  const world = makeWorld('rows');
  const { context } = world;
  let [a, b] = groupWith(world, ['alice', 'bob', 'charlie', 'dave']).states;
  const rows = memoryRows(groupRows(b!));
  let stored = b!;
  for (let i = 0; i < 5; i++) {
    const sent = protectApplication(context, a!, encodeUtf8(`message ${i}`));
    a = sent.state;
    const next = processed(context, stored, sent.message, 'application').state;
    const changes = diffRows(stored, next);
    if (i > 0) assert.equal(changes.length, 1, 'one small row per message');
    rows.apply(changes);
    stored = restoreGroup(context, rows);
  }
  b = restoreGroup(context, rows);
  assert.deepEqual(groupRows(b), groupRows(stored));

  const pendingOutcome = commit(context, b);
  rows.apply(diffRows(b, pendingOutcome.state));
  const pending = decodePendingCommit(context, encodePendingCommit(pendingOutcome.pending));
  const restored = restoreGroup(context, rows);
  const next = mergePendingCommit(context, restored, pending);
  rows.apply(diffRows(restored, next));
  a = processed(context, a!, pendingOutcome.commit, 'commit').state;
  assertAgree([a, next, restoreGroup(context, rows)]);
  const byName = (x: { key: string }, y: { key: string }): number => (x.key < y.key ? -1 : 1);
  assert.deepEqual([...rows.list('')].sort(byName), [...groupRows(next)].sort(byName));
  assert.equal(groupContext(next).epoch, 2n);
});

test('the tree may travel apart from the Welcome', () => {
  const world = makeWorld('tree apart');
  const { context } = world;
  const a = groupOf(world, person(world, 'alice'));
  const bundle = keyPackageOf(world, person(world, 'bob'));
  const outcome = commit(context, a, {
    proposals: [{ kind: 'add', keyPackage: verified(context, bundle.keyPackage) }],
    ratchetTreeInWelcome: false,
  });
  const welcome = outcome.welcome!;
  assertRefused(joinGroup(context, { welcome, keyPackage: bundle }), 'welcomeTree');
  const outcome2 = joinGroup(context, { welcome, keyPackage: bundle, ratchetTree: outcome.ratchetTree! });
  assert.ok(outcome2.kind === 'joined');
  assertAgree([merged(context, outcome), outcome2.state]);
});
