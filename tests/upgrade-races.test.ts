// THREATS 31: what somebody prepared for a group while another administrator moved it into the post-quantum suite. The new
// group has other leaves, takes other keys and begins with epoch 1, which the old one may have been in, too.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { methods } from '@quicprochat/transport';
import { SUITE_POST_QUANTUM } from '../packages/client/src/profile/suites.ts';
import { Meddler } from './meddler.ts';
import { type Person, World } from './world.ts';

let world: World;
let alice: Person;
let bob: Person;
let carol: Person;
const forBob = new Meddler();

before(async () => {
  world = await World.start();
  [alice, bob, carol] = await Promise.all([
    world.person('alice'),
    world.person('bob', { wrapDialer: forBob.wrap }),
    world.person('carol'),
  ]);
});
after(async () => {
  await world[Symbol.asyncDispose]();
});
afterEach(() => {
  forBob.honest();
});

/** Bob's next question for KeyPackages is answered when Alice has moved the group and he knows it. */
function upgradeWhileBobAsks(id: string, reference: string): void {
  forBob.answer(methods.keys.fetchKeyPackage, async (real) => {
    forBob.answer(methods.keys.fetchKeyPackage, (again) => again);
    await alice.client.upgrade(id);
    await bob.until('moved', async () => (await bob.conversation(reference)).suite === SUITE_POST_QUANTUM);
    return real;
  });
}

test('both sides of a conversation move it at once: one does, and the other finds it done', async () => {
  const { id } = await bob.client.openDirect('alice', { suite: 'classical' });
  await bob.client.send(id, 'hello');
  await alice.sees('bob', ['hello']);
  upgradeWhileBobAsks(id, 'alice');
  assert.equal(await bob.client.upgrade(id), 'already');
  await bob.say('alice', 'and now?');
  await alice.sees('bob', ['hello', 'and now?']);
});

test('an invitation that was prepared for the old suite is made anew for the new one', async () => {
  const { id } = await alice.client.createGroup('guests', { suite: 'classical' });
  await alice.client.invite(id, ['bob']);
  await bob.joined('guests');
  await alice.client.setAdmin(id, 'bob', true);
  await bob.until('administrator', () => bob.events.some(({ type }) => type === 'admin-changed'));
  upgradeWhileBobAsks(id, 'guests');
  assert.deepEqual(await bob.client.invite(id, ['carol']), { added: ['carol'], failed: [] });
  await carol.joined('guests');
  await carol.say('guests', 'thank you');
  for (const one of [alice, bob]) await one.sees('guests', ['thank you']);
});
