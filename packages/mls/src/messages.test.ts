/** Late, reordered, repeated and reflected messages (RFC 9420 section 15.3). THREATS 12. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeUtf8, encodeUtf8 } from '@quicprochat/crypto';
import {
  createCommit,
  diffRows,
  dropExpiredEpochs,
  type GroupState,
  groupRows,
  memoryRows,
  MlsUsageError,
  processMessage,
  protectApplication,
  restoreGroup,
} from './index.ts';
import {
  assertRefused,
  commit,
  credential,
  groupWith,
  makeWorld,
  merged,
  NOW,
  processed,
} from './testing/world.node.ts';

const world = makeWorld('messages');
const { context } = world;

function talk(state: GroupState, texts: readonly string[]): { state: GroupState; messages: Uint8Array[] } {
  let next = state;
  const messages = texts.map((text) => {
    const sent = protectApplication(context, next, encodeUtf8(text));
    next = sent.state;
    return sent.message;
  });
  return { state: next, messages };
}

test('messages out of order are read once each, and with the name their sender had then', () => {
  const [a, b] = groupWith(world, ['alice', 'bob']).states;
  const { state: sender, messages } = talk(a!, ['one', 'two', 'three']);
  const renamed = commit(context, sender, { leafNode: { credential: credential('alice the second') } });
  let receiver = processed(context, b!, messages[2]!, 'application').state;
  receiver = processed(context, receiver, renamed.commit, 'commit').state;
  const later = talk(merged(context, renamed), ['four']);
  const fourth = processed(context, receiver, later.messages[0]!, 'application');
  assert.deepEqual(fourth.sender.credential, credential('alice the second'));
  receiver = fourth.state;
  for (const i of [1, 0]) {
    const outcome = processed(context, receiver, messages[i]!, 'application');
    assert.deepEqual(outcome.sender.credential, credential('alice'));
    assert.equal(outcome.epoch, 1n);
    assert.equal(outcome.generation, i);
    receiver = outcome.state;
  }
  for (const message of [...messages, ...later.messages]) {
    assertRefused(processMessage(context, receiver, message), 'generationUsed');
  }
});

test('THREATS 12: a replay is refused after a restart too', () => {
  const [a, b] = groupWith(world, ['alice', 'bob', 'charlie']).states;
  const { messages } = talk(a!, ['one', 'two', 'three']);
  const rows = memoryRows(groupRows(b!));
  let receiver = restoreGroup(context, rows);
  for (const i of [2, 0]) {
    const next = processed(context, receiver, messages[i]!, 'application').state;
    rows.apply(diffRows(receiver, next));
    receiver = restoreGroup(context, rows);
    assertRefused(processMessage(context, receiver, messages[i]!), 'generationUsed');
  }
  assert.equal(decodeUtf8(processed(context, receiver, messages[1]!, 'application').data), 'two');
});

test('THREATS 12: our own messages, reflected, are known as ours and change nothing', () => {
  const [a] = groupWith(world, ['alice', 'bob']).states;
  const { state, messages } = talk(a!, ['one']);
  const outcome = processed(context, state, messages[0]!, 'own');
  assert.equal(outcome.state, state);
  assert.equal(outcome.generation, 0);
  const made = commit(context, state);
  assert.equal(processed(context, made.state, made.commit, 'own').contentType, 3);
  const afterwards = merged(context, made);
  assert.equal(processed(context, afterwards, messages[0]!, 'own').epoch, 1n, 'from the epoch before, too');
  const publicCommit = commit(context, afterwards, { wireFormat: 'public' });
  assert.equal(processed(context, publicCommit.state, publicCommit.commit, 'own').generation, undefined);
});

test('five past epochs can be read for seven days, then their secrets are dropped', () => {
  const [a, b] = groupWith(world, ['alice', 'bob']).states;
  let [sender, receiver] = [a!, b!];
  const texts: Uint8Array[] = [];
  for (let i = 0; i < 7; i++) {
    const said = talk(sender, [`epoch ${i}`]);
    texts.push(said.messages[0]!);
    const at = world.at(NOW + i * 24 * 3600);
    const made = commit(at, said.state);
    receiver = processed(at, receiver, made.commit, 'commit').state;
    sender = merged(at, made);
  }
  assert.equal(receiver.pastEpochs.length, 5);
  const at = (days: number) => world.at(NOW + days * 24 * 3600);
  for (const i of [0, 1]) assertRefused(processMessage(at(7), receiver, texts[i]!), 'epochPast');
  for (const i of [2, 6]) processed(at(7), receiver, texts[i]!, 'application');
  // Epoch 3 ended on day 2, epoch 7 on day 6.
  assertRefused(processMessage(at(9.1), receiver, texts[2]!), 'epochPast');
  processed(at(9.1), receiver, texts[3]!, 'application');
  const dropped = dropExpiredEpochs(at(9.1), receiver);
  assert.equal(dropped.pastEpochs.length, 4);
  const changes = diffRows(receiver, dropped);
  assert.deepEqual(changes.map(({ kind }) => kind).sort(), ['delete', 'delete', 'deletePrefix']);
  assert.equal(dropExpiredEpochs(at(20), receiver).pastEpochs.length, 0);
  assert.equal(dropExpiredEpochs(at(7), receiver), receiver);
});

test('a removed member reads what was sent before, and nothing after', () => {
  const [a, b, c] = groupWith(world, ['alice', 'bob', 'charlie']).states;
  const said = talk(a!, ['before']);
  const removal = commit(context, said.state, { proposals: [{ kind: 'remove', removed: c!.core.ownLeaf }] });
  const removed = processed(context, c!, removal.commit, 'commit').state;
  assert.equal(decodeUtf8(processed(context, removed, said.messages[0]!, 'application').data), 'before');
  const after = talk(merged(context, removal), ['after']);
  assertRefused(processMessage(context, removed, after.messages[0]!), 'epochFuture');
  assert.throws(() => protectApplication(context, removed, encodeUtf8('still here')), { name: 'MlsUsageError' });
  assert.equal(processed(context, b!, removal.commit, 'commit').effects.selfRemoved, false);
});

test('a padding that is no number of bytes is misuse, and brings nothing of one message into another', () => {
  for (const paddingLength of [-100, -1, 0.5, Number.NaN]) {
    let [a, b] = groupWith(world, ['alice', 'bob']).states as [GroupState, GroupState];
    const secret = encodeUtf8('secret '.repeat(40));
    assert.throws(() => protectApplication(context, a, secret, { paddingLength }), MlsUsageError);
    assert.throws(() => createCommit(context, a, { paddingLength }), MlsUsageError);
    for (let i = 0; i < 10; i++) {
      const sent = protectApplication(context, a, encodeUtf8('text'), { paddingLength: 1000 });
      a = sent.state;
      b = processed(context, b, sent.message, 'application').state;
    }
  }
});

test('padding hides the length and is not part of the data', () => {
  const [a, b] = groupWith(world, ['alice', 'bob']).states;
  const short = protectApplication(context, a!, encodeUtf8('no'), { paddingLength: 100 });
  const long = protectApplication(context, a!, encodeUtf8('n'.repeat(52)), { paddingLength: 50 });
  assert.equal(short.message.length, long.message.length);
  assert.equal(decodeUtf8(processed(context, b!, short.message, 'application').data), 'no');
});
