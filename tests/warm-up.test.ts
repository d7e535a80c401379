// Members who have joined a larger group commit an update each when their turn comes, so that later commits are small.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { World } from './world.ts';

const NAMES = ['alice', 'bob', 'carol', 'dave', 'erin', 'frank', 'grace', 'heidi', 'ivan'];

test('joiners of a larger group commit updates one after the other; what is urgent goes first', async () => {
  await using world = await World.start();
  const everybody = await Promise.all(NAMES.map((name) => world.person(name)));
  const [alice, bob, ...others] = everybody;
  assert.ok(alice !== undefined && bob !== undefined);

  const { id: small } = await alice.client.createGroup('few');
  await alice.client.invite(small, NAMES.slice(1, 7));
  const { id } = await alice.client.createGroup('many');
  await alice.client.invite(id, NAMES.slice(1));
  await Promise.all([bob, ...others].map((one) => one.joined('many')));
  await alice.client.setAdmin(id, 'bob', true);

  // Bob is to commit his update in ten seconds, and Alice's departure well before.
  const left = performance.now();
  await alice.client.leave(id);
  await alice.until('gone', async () => (await alice.conversation('many')).state === 'left', 9_000);
  assert.ok(performance.now() - left < 9_000);
  await bob.until('eight left', async () => (await bob.client.members(id)).length === 8);
  const epochLeft = (await bob.conversation('many')).epoch ?? 0;

  for (const one of [bob, ...others]) {
    const joiners = `an update of somebody who joined, after epoch ${epochLeft}`;
    await one.until(joiners, async () => ((await one.conversation('many')).epoch ?? 0) > epochLeft, 60_000);
  }
  await bob.say('many', 'still here');
  for (const one of others) await one.sees('many', ['still here']);
  for (const one of [bob, ...others]) {
    const warned = one.events.filter(({ type }) => type === 'warning');
    assert.deepEqual(warned, [], one.name);
  }
  assert.equal((await alice.conversation('few')).epoch, 1, 'seven need no update');
});
