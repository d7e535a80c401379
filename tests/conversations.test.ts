// People talk: over a real server, real QUIC, real encryption, state on disk.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { World } from './world.ts';

let world: World;
before(async () => {
  world = await World.start();
});
after(async () => {
  await world[Symbol.asyncDispose]();
});

test('Alice and Bob write to each other', async () => {
  const [alice, bob] = await world.people('alice', 'bob');
  const chat = await alice.client.openDirect('bob');
  assert.equal(chat.kind, 'direct');
  assert.equal(chat.name, 'bob');
  assert.equal(chat.state, 'active');
  await alice.client.send(chat.id, 'hello Bob');
  await bob.sees('alice', ['hello Bob']);
  await bob.say('alice', 'hello Alice');
  await alice.sees('bob', ['hello Bob', 'hello Alice']);
  await alice.client.flush();
  const [first] = await alice.client.history(chat.id);
  assert.equal(first?.state, 'sent');
  assert.notEqual(first?.acceptedAtMs, undefined);
});
