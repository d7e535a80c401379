import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeUtf8 } from '@quicprochat/crypto';
import {
  createProposal,
  type GroupState,
  protectApplication,
  wipeGroup,
  wipePendingCommit,
  wipeReplaced,
} from './index.ts';
import { secretNodes } from './secret-tree.ts';
import { assertAgree, commit, groupWith, makeWorld, merged, processed } from './testing/world.node.ts';

const world = makeWorld('wipe');
const { context } = world;

/** Every buffer of a state that holds a secret, found without the library's own walk over `core`. */
function secretsOf(state: GroupState): Set<Uint8Array> {
  const found = new Set<Uint8Array>();
  const { core } = state;
  found.add(core.signaturePrivateKey);
  for (const key of core.privateKeys.values()) found.add(key);
  for (const secret of Object.values(core.secrets) as Uint8Array[]) found.add(secret);
  for (const { psk } of core.resumptionPsks) found.add(psk);
  for (const { own } of state.proposals) {
    if (own !== undefined) found.add(own.encryptionPrivateKey).add(own.signaturePrivateKey);
  }
  for (const past of state.pastEpochs) found.add(past.senderDataSecret);
  for (const { secretTree } of [state, ...state.pastEpochs]) {
    for (const [, node] of secretNodes(secretTree)) {
      if (node.kind === 'secret') found.add(node.secret);
      else {
        for (const ratchet of [node.handshake, node.application]) {
          found.add(ratchet.secret);
          for (const { key } of ratchet.unused) found.add(key);
        }
      }
    }
  }
  return found;
}

const isZero = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0);

/** Takes the step, wipes, and sees that exactly what is gone from the state is zero. */
function step(previous: GroupState, next: GroupState): GroupState {
  const before = secretsOf(previous);
  const after = secretsOf(next);
  wipeReplaced(context, previous, next);
  let wiped = 0;
  for (const secret of before) {
    if (after.has(secret)) continue;
    assert.ok(isZero(secret), 'a replaced secret is left');
    wiped++;
  }
  for (const secret of after) assert.ok(!isZero(secret), 'a living secret was wiped');
  assert.ok(wiped > 0);
  return next;
}

test('secrets are wiped when the state that replaced them is stored, and only those', () => {
  let [a, b, c] = groupWith(world, ['alice', 'bob', 'charlie']).states as [GroupState, GroupState, GroupState];
  for (let i = 0; i < 8; i++) {
    const skipped = protectApplication(context, a, encodeUtf8('skipped'));
    const sent = protectApplication(context, skipped.state, encodeUtf8('sent'));
    a = step(a, sent.state);
    b = step(b, processed(context, b, sent.message, 'application').state);
    c = step(c, processed(context, c, sent.message, 'application').state);
    b = step(b, processed(context, b, skipped.message, 'application').state);

    const update = createProposal(context, c, { kind: 'update' });
    assert.ok(update.kind === 'proposed');
    c = step(c, update.state);
    a = step(a, processed(context, a, update.message, 'proposal').state);
    b = step(b, processed(context, b, update.message, 'proposal').state);
    const made = commit(context, a);
    b = step(b, processed(context, b, made.commit, 'commit').state);
    c = step(c, processed(context, c, made.commit, 'commit').state);
    a = step(a, merged(context, made));
    assertAgree([a, b, c]);
    c = step(c, processed(context, c, skipped.message, 'application').state);
  }
});

test('a dropped commit is wiped without harm to the state it was made from', () => {
  const [a, b] = groupWith(world, ['alice', 'bob']).states;
  const made = commit(context, a!);
  const held = secretsOf(made.state);
  wipePendingCommit(context, made.state, made.pending);
  assert.ok(isZero(made.pending.encryptionSecret));
  assert.ok(isZero(made.pending.core.secrets.initSecret));
  for (const secret of held) assert.ok(!isZero(secret));
  const again = commit(context, made.state);
  assertAgree([merged(context, again), processed(context, b!, again.commit, 'commit').state]);
});

test('the keys of the application are never touched; a wiped group keeps nothing', () => {
  const { people, states } = groupWith(world, ['alice', 'bob']);
  const [a] = states;
  const secrets = secretsOf(a!);
  wipeGroup(context, a!);
  for (const secret of secrets) assert.ok(isZero(secret));
  assert.ok(!isZero(people[0]!.signatureKeyPair.privateKey));
});
