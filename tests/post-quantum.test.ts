// Conversations in the hybrid suite, ML-KEM-768 and X25519 together, over a real server; and classical ones beside them.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { CipherSuiteId } from '@quicprochat/mls';
import { SUITE_CLASSICAL, SUITE_POST_QUANTUM } from '../packages/client/src/profile/suites.ts';
import { type Person, World } from './world.ts';

let world: World;
let alice: Person;
let bob: Person;
let carol: Person;
let dave: Person;

before(async () => {
  world = await World.start();
  [alice, bob, carol, dave] = await world.people('alice', 'bob', 'carol', 'dave');
});
after(async () => {
  await world[Symbol.asyncDispose]();
});

/** The suite a person has a conversation in, and whether envelopes are salted beside it. */
async function exchangeOf(person: Person, reference: string): Promise<{ suite: number | undefined; salted: boolean }> {
  const { id, suite, suiteName } = await person.conversation(reference);
  assert.equal(suiteName, suite === SUITE_POST_QUANTUM ? 'post-quantum' : 'classical');
  const { store } = person;
  const channelId = new Uint8Array(Buffer.from(id, 'hex'));
  const position = store.conversations.get(channelId)?.epochPosition;
  const salt = position === undefined ? undefined : store.conversations.pqSalt(channelId, position);
  return { suite, salted: salt !== undefined && salt.length > 0 };
}

const hybrid = { suite: SUITE_POST_QUANTUM, salted: false };
const classical = { suite: SUITE_CLASSICAL, salted: true };

test('a direct conversation is post-quantum unless one says otherwise, and stays what it is', async () => {
  const { id } = await alice.client.openDirect('bob');
  await alice.client.send(id, 'hello Bob');
  await bob.sees('alice', ['hello Bob']);
  await bob.say('alice', 'hello Alice');
  await alice.sees('bob', ['hello Bob', 'hello Alice']);
  assert.deepEqual(await exchangeOf(alice, 'bob'), hybrid);
  assert.deepEqual(await exchangeOf(bob, 'alice'), hybrid);
  assert.equal((await bob.client.openDirect('alice', { suite: 'classical' })).suiteName, 'post-quantum');
});

test('four in a post-quantum group: a race, a removal, restarts; a classical group of the same people beside it', async () => {
  const everybody = [alice, bob, carol, dave];
  const { id } = await alice.client.createGroup('hybrid');
  await alice.client.invite(id, ['bob']);
  await bob.joined('hybrid');
  await alice.client.setAdmin(id, 'bob', true);
  await bob.until('administrator', () => bob.events.some(({ type }) => type === 'admin-changed'));
  // Both want the next position of the log.
  await Promise.all([alice.client.invite(id, ['carol']), bob.client.invite(id, ['dave'])]);
  for (const one of everybody) {
    await one.joined('hybrid');
    await one.until('four members', async () => (await one.client.members(id)).length === 4);
    assert.deepEqual(await exchangeOf(one, 'hybrid'), hybrid);
  }

  const { id: oldId } = await carol.client.createGroup('old style', { suite: 'classical' });
  await carol.client.invite(oldId, ['alice', 'bob', 'dave']);
  for (const one of everybody) {
    await one.joined('old style');
    assert.deepEqual(await exchangeOf(one, 'old style'), classical);
  }

  await Promise.all(everybody.map((one) => one.say('hybrid', `hybrid ${one.name}`)));
  await Promise.all(everybody.map((one) => one.say('old style', `old ${one.name}`)));
  for (const one of everybody) {
    await one.until('everybody heard in both', async () => {
      const [inHybrid, inOld] = [await one.texts('hybrid'), await one.texts('old style')];
      return everybody.every(({ name }) => inHybrid.includes(`hybrid ${name}`) && inOld.includes(`old ${name}`));
    });
  }

  await bob.restart();
  await alice.client.removeMember(id, 'dave');
  await carol.client.removeMember(oldId, 'dave');
  await dave.until('removed from both', () => dave.events.filter(({ type }) => type === 'removed').length === 2);
  for (const one of [alice, bob, carol]) {
    await one.until('three in both', async () =>
      (await Promise.all([id, oldId].map((group) => one.client.members(group)))).every(({ length }) => length === 3),
    );
  }
  await carol.restart();
  await alice.say('hybrid', 'without Dave');
  await carol.say('old style', 'without Dave');
  for (const one of [alice, bob, carol]) {
    await one.until('heard after the removal', async () =>
      (await Promise.all(['hybrid', 'old style'].map((group) => one.texts(group)))).every(
        (texts) => texts.at(-1) === 'without Dave',
      ),
    );
    assert.deepEqual(await exchangeOf(one, 'hybrid'), hybrid);
    assert.deepEqual(await exchangeOf(one, 'old style'), classical);
  }
  await dave.client.sync();
  for (const group of ['hybrid', 'old style']) assert.ok(!(await dave.texts(group)).includes('without Dave'));
  const epochs = await Promise.all([alice, bob, carol].map(async (one) => (await one.conversation('hybrid')).epoch));
  assert.equal(new Set(epochs).size, 1);
});

test('KeyPackages of each suite are kept at the server and topped up by themselves', async () => {
  const erin = await world.person('erin');
  const uploaded = await erin.client.refreshKeyPackages({ all: true });
  const perSuite = uploaded / 2;
  assert.ok(Number.isInteger(perSuite) && perSuite > 1, 'as many of one suite as of the other');
  for (const suite of [SUITE_POST_QUANTUM, SUITE_CLASSICAL]) {
    assert.equal(erin.store.keys.lastResort(suite)?.suite, suite);
  }
  assert.equal(await erin.client.refreshKeyPackages(), 0);
});

test('a suite the other side has no keys for, or that does not exist, is refused and named', async () => {
  // Nobody publishes keys for this one: to its caller everybody else is a client that is too old.
  const frank = await world.person('frank', {
    suite: CipherSuiteId.MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519,
  });
  await assert.rejects(frank.client.openDirect('bob'), {
    code: 'no-key-package',
    message: 'bob cannot be reached now: the server has no keys of theirs for post-quantum conversations',
  });
  const { suiteName } = await frank.client.openDirect('bob', { suite: 'classical' });
  assert.equal(suiteName, 'classical');
  const bad = 'toString' as 'classical';
  await assert.rejects(frank.client.createGroup('club', { suite: bad }), { code: 'invalid-argument' });
  await assert.rejects(frank.client.openDirect('carol', { suite: bad }), { code: 'invalid-argument' });
});
