// THREATS 31: a conversation moves from the classical to the post-quantum suite by a ReInit on its own channel: positions
// go on, history and what is under way stay, and nobody loses or sees anything twice, whoever is offline, races or lies.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { methods } from '@quicprochat/transport';
import { SUITE_CLASSICAL, SUITE_POST_QUANTUM } from '../packages/client/src/profile/suites.ts';
import type { Envelope } from '@quicprochat/proto';
import { killEverywhere } from './kill-everywhere.ts';
import { Meddler } from './meddler.ts';
import { type Person, World } from './world.ts';

let world: World;
let alice: Person;
let bob: Person;
let carol: Person;
let dave: Person;
/** Between her and the server somebody stands. */
let erin: Person;
const forErin = new Meddler();

before(async () => {
  world = await World.start();
  [alice, bob, carol, dave] = await world.people('alice', 'bob', 'carol', 'dave');
  erin = await world.person('erin', { wrapDialer: forErin.wrap });
});
after(async () => {
  await world[Symbol.asyncDispose]();
});

const hexBytes = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex, 'hex'));

/** A classical group of the first (administrator) and the others. */
async function classicalGroup(name: string, first: Person, ...others: readonly Person[]): Promise<string> {
  const { id } = await first.client.createGroup(name, { suite: 'classical' });
  await first.client.invite(
    id,
    others.map((one) => one.name),
  );
  for (const one of others) await one.joined(name);
  return id;
}

/** Waits until all are in one epoch of the post-quantum suite. */
async function isPostQuantumFor(reference: string, ...people: readonly Person[]): Promise<void> {
  const keyOf = async ({ client, store }: Person): Promise<string | undefined> => {
    const { id, suite } = await client.findConversation(reference);
    if (suite !== SUITE_POST_QUANTUM) return undefined;
    const { epochPosition } = store.conversations.get(hexBytes(id))!;
    return Buffer.from(store.conversations.envelopeKey(hexBytes(id), epochPosition)!.key).toString('hex');
  };
  for (const one of people) {
    await one.until('post-quantum, with the others', async () => {
      const keys = new Set(await Promise.all(people.map(keyOf)));
      return keys.size === 1 && !keys.has(undefined);
    });
  }
}

const placeOf = (person: Person, id: string): bigint => person.store.conversations.get(hexBytes(id))!.position;

const gaps = (...people: readonly Person[]): number =>
  people.flatMap(({ events }) => events).filter(({ type }) => type === 'gap').length;

test('three in a group: history stays, positions go on, what is said goes on', async () => {
  const id = await classicalGroup('club', alice, bob, carol);
  const everybody = [alice, bob, carol];
  for (const one of everybody) await one.say('club', `before: ${one.name}`);
  for (const one of everybody) await one.until('all', async () => (await one.texts('club')).length === 3);
  assert.equal((await bob.conversation('club')).suite, SUITE_CLASSICAL);
  const place = placeOf(bob, id);
  assert.equal(await alice.client.upgrade(id), 'upgraded');
  await isPostQuantumFor('club', ...everybody);
  for (const one of everybody) {
    assert.equal(placeOf(one, id), place + 1n);
    const { groupId, epoch } = one.store.conversations.get(hexBytes(id))!;
    assert.equal(epoch, 1n);
    assert.ok(groupId);
    const told = one.events.filter((event) => event.type === 'suite-changed');
    assert.deepEqual(told, [{ type: 'suite-changed', conversationId: id, suiteName: 'post-quantum', by: 'alice' }]);
  }
  for (const one of everybody) await one.say('club', `after: ${one.name}`);
  for (const one of everybody) {
    await one.until('all', async () => (await one.texts('club')).length === 6);
    assert.deepEqual(
      (await one.texts('club')).slice(0, 3).sort(),
      everybody.map(({ name }) => `before: ${name}`).sort(),
    );
    await one.restart();
  }
  // What a group does goes on from there: who is in, who may, what it is called.
  await alice.client.invite(id, ['dave']);
  await dave.joined('club');
  await alice.client.setAdmin(id, 'bob', true);
  await bob.until('administrator', () => bob.events.some(({ type }) => type === 'admin-changed'));
  await bob.client.removeMember(id, 'carol');
  await bob.say('club', 'without Carol');
  for (const one of [alice, dave]) {
    await one.until('heard', async () => (await one.texts('club')).at(-1) === 'without Carol');
  }
  await isPostQuantumFor('club', alice, bob, dave);
  assert.equal(await bob.client.upgrade(id), 'already');
  assert.equal(gaps(alice, bob, carol, dave), 0);
});

test('a conversation of two, by either of them; alone in a group; a note to oneself', async () => {
  const { id } = await bob.client.openDirect('alice', { suite: 'classical' });
  await bob.client.send(id, 'hello');
  await alice.sees('bob', ['hello']);
  await alice.client.upgrade(id);
  await bob.until('post-quantum', async () => (await bob.conversation('alice')).suite === SUITE_POST_QUANTUM);
  await bob.say('alice', 'and now?');
  await alice.say('bob', 'still here');
  for (const [one, other] of [
    [alice, 'bob'],
    [bob, 'alice'],
  ] as const) {
    await one.until('all', async () => (await one.texts(other)).length === 3);
  }
  const { id: own } = await alice.client.createGroup('alone', { suite: 'classical' });
  await alice.say('alone', 'to nobody');
  assert.equal(await alice.client.upgrade(own), 'upgraded');
  await alice.client.invite(own, ['bob']);
  await bob.joined('alone');
  await alice.say('alone', 'to Bob');
  await bob.sees('alone', ['to Bob']);
  assert.deepEqual(await alice.texts('alone'), ['to nobody', 'to Bob']);
  const note = await alice.client.openDirect('alice');
  await assert.rejects(alice.client.upgrade(note.id), { code: 'invalid-argument' });
});

test('who was away reads on: said before it, said after it, and what they had written themselves', async () => {
  const id = await classicalGroup('away', alice, bob, carol);
  await alice.say('away', 'before');
  for (const one of [bob, carol]) await one.sees('away', ['before']);
  await carol.close();
  await alice.say('away', 'you are away');
  await alice.client.flush();
  await alice.client.upgrade(id);
  await isPostQuantumFor('away', alice, bob);
  await bob.say('away', 'she is away');
  await alice.sees('away', ['before', 'you are away', 'she is away']);
  await bob.close();
  // Written without a server, in the old group; protected anew before it is sent.
  await carol.open();
  await carol.say('away', 'I was away');
  await carol.client.connect();
  await carol.until('all', async () => (await carol.texts('away')).length === 4);
  await isPostQuantumFor('away', alice, carol);
  await alice.sees('away', ['before', 'you are away', 'she is away', 'I was away']);
  await bob.open();
  await bob.client.connect();
  await bob.sees('away', ['before', 'you are away', 'she is away', 'I was away']);
  await carol.client.flush();
  assert.equal(gaps(alice, bob, carol), 0);
});

test('what was under way in the old group arrives after it was closed, also after a restart', async () => {
  const id = await classicalGroup('late', alice, bob, erin);
  const withheld: Envelope[] = [];
  forErin.envelopes = (envelope) => {
    withheld.push(envelope);
    return [];
  };
  await alice.client.upgrade(id);
  await isPostQuantumFor('late', alice, bob);
  await erin.until('withheld', () => withheld.some(({ entry }) => entry !== undefined));
  await erin.say('late', 'one');
  await bob.sees('late', ['one']);
  await bob.restart();
  await erin.say('late', 'two');
  await bob.sees('late', ['one', 'two']);
  await alice.sees('late', ['one', 'two']);
  forErin.honest();
  for (const envelope of withheld) forErin.push(envelope);
  await isPostQuantumFor('late', alice, bob, erin);
  await erin.say('late', 'three');
  await alice.sees('late', ['one', 'two', 'three']);
  assert.equal(gaps(alice, bob, erin), 0);
});

test('races: two administrators at once; a removal, a departure and an invitation beside it', async () => {
  const id = await classicalGroup('race', alice, bob, carol);
  await alice.client.setAdmin(id, 'bob', true);
  await bob.until('administrator', async () =>
    (await bob.client.members(id)).some(({ username, admin }) => username === 'bob' && admin),
  );
  const outcomes = await Promise.all([alice.client.upgrade(id), bob.client.upgrade(id)]);
  assert.deepEqual(outcomes.sort(), ['already', 'upgraded']);
  await isPostQuantumFor('race', alice, bob, carol);

  const other = await classicalGroup('race 2', alice, bob, carol);
  await alice.client.setAdmin(other, 'bob', true);
  await bob.until('administrator', async () =>
    (await bob.client.members(other)).some(({ username, admin }) => username === 'bob' && admin),
  );
  await Promise.all([
    alice.client.upgrade(other),
    bob.client.removeMember(other, 'carol'),
    bob.client.invite(other, ['dave']),
    carol.say('race 2', 'farewell'),
  ]);
  await dave.joined('race 2');
  await carol.until('removed', async () => (await carol.conversation('race 2')).state === 'removed');
  await isPostQuantumFor('race 2', alice, bob, dave);
  await dave.say('race 2', 'hello');
  for (const one of [alice, bob]) {
    await one.until('heard', async () => (await one.texts('race 2')).at(-1) === 'hello');
  }

  const third = await classicalGroup('race 3', alice, bob, carol);
  // Nobody confirms it before Alice moves the group.
  await alice.close();
  assert.equal(await carol.client.leave(third), 'leaving');
  await alice.open();
  await alice.client.connect();
  await alice.client.upgrade(third);
  await carol.until('left', async () => (await carol.conversation('race 3')).state === 'left');
  await isPostQuantumFor('race 3', alice, bob);
});

test('a device without keys for it: nothing is changed, its people are named; who is no administrator is refused', async () => {
  const id = await classicalGroup('not ready', erin, bob, carol);
  await assert.rejects(bob.client.upgrade(id), { code: 'not-admin', kind: 'refused' });
  forErin.answer(methods.keys.fetchKeyPackage, () => ({ keyPackages: [] }));
  await assert.rejects(erin.client.upgrade(id), {
    code: 'devices-not-ready',
    message: '2 devices have no keys for it yet: bob, carol',
  });
  forErin.honest();
  assert.equal((await erin.conversation('not ready')).suite, SUITE_CLASSICAL);
  await erin.client.upgrade(id);
  await isPostQuantumFor('not ready', erin, bob, carol);
  assert.deepEqual(
    erin.events
      .flatMap((event) => (event.type === 'upgrade-progress' ? [`${event.done}/${event.total}`] : []))
      .slice(-2),
    ['1/2', '2/2'],
  );
});

test('a server that omits, repeats or reorders the entry: nobody is cut off, nobody is fooled', async () => {
  const id = await classicalGroup('lies', alice, bob, erin);
  await alice.say('lies', 'one');
  await erin.sees('lies', ['one']);
  // Twice, and again later.
  let kept: Envelope | undefined;
  forErin.envelopes = (envelope) => {
    if (envelope.entry !== undefined) kept = envelope;
    return envelope.entry === undefined ? [envelope] : [envelope, envelope];
  };
  await alice.client.upgrade(id);
  await isPostQuantumFor('lies', alice, bob, erin);
  forErin.honest();
  assert.ok(kept);
  forErin.push(kept);
  await alice.say('lies', 'two');
  await erin.sees('lies', ['one', 'two']);
  assert.equal(erin.events.filter((event) => event.type === 'suite-changed' && event.conversationId === id).length, 1);

  // Not at all: it is missed with the next entry, and somebody adds her again, into the new group.
  const omitted = await classicalGroup('omitted', alice, bob, erin);
  let missing = 0;
  forErin.envelopes = (envelope) => {
    if (envelope.entry === undefined) return [envelope];
    missing += 1;
    return [];
  };
  await alice.client.upgrade(omitted);
  await erin.until('omitted', () => missing > 0);
  forErin.honest();
  await alice.client.setAdmin(omitted, 'bob', true);
  await erin.until('asked', () =>
    erin.events.some(
      (event) => event.type === 'warning' && event.code === 'rejoin-requested' && event.conversationId === omitted,
    ),
  );
  await isPostQuantumFor('omitted', alice, bob, erin);
  await erin.say('omitted', 'back');
  await alice.sees('omitted', ['back']);
});

test('killed while moving a conversation', async () => {
  const ids = new Map<string, string>();
  const kills = await killEverywhere(
    alice,
    async (run) => {
      await alice.say(run, 'before');
      await alice.client.upgrade(ids.get(run)!);
      await alice.say(run, 'after');
      await alice.client.flush();
    },
    async (run) => {
      await alice.client.sync();
      await alice.client.upgrade(ids.get(run)!);
      await isPostQuantumFor(run, alice, bob);
      await bob.say(run, 'now');
      await alice.until('heard', async () => (await alice.texts(run)).at(-1) === 'now');
      await alice.client.flush();
      const heard = await alice.texts(run);
      await bob.until('all', async () => (await bob.texts(run)).length === heard.length);
      assert.deepEqual((await bob.texts(run)).sort(), [...heard].sort());
    },
    { prepare: async (run) => ids.set(run, await classicalGroup(run, alice, bob)), whileConnecting: false },
  );
  assert.ok(kills >= 10, `${kills} kills`);
  assert.equal(gaps(alice, bob), 0);
});

test('killed while being moved', async () => {
  const ids = new Map<string, string>();
  const kills = await killEverywhere(
    bob,
    async (run) => {
      await carol.client.upgrade(ids.get(run)!);
      await carol.say(`moved ${run}`, 'there');
      await bob.sees(`moved ${run}`, ['there']);
      await bob.say(`moved ${run}`, 'here');
      await bob.client.flush();
    },
    async (run) => {
      await carol.client.upgrade(ids.get(run)!);
      await carol.say(`moved ${run}`, 'now');
      await bob.until('heard', async () => (await bob.texts(`moved ${run}`)).includes('now'));
      await isPostQuantumFor(`moved ${run}`, bob, carol);
      await bob.client.flush();
      await carol.until(
        'all',
        async () => (await carol.texts(`moved ${run}`)).length === (await bob.texts(`moved ${run}`)).length,
      );
    },
    {
      prepare: async (run) => ids.set(run, await classicalGroup(`moved ${run}`, carol, bob)),
      moments: ['before'],
      whileConnecting: false,
    },
  );
  assert.ok(kills >= 4, `${kills} kills`);
  assert.equal(gaps(bob, carol), 0);
});

// The last one: it moves the clock of all of them.
test('the keys of a group that was closed are gone after a week', async () => {
  const id = await classicalGroup('old', dave, erin);
  await dave.client.upgrade(id);
  await isPostQuantumFor('old', dave, erin);
  for (const one of [dave, erin]) assert.ok(one.store.conversations.predecessor(hexBytes(id)));
  await erin.close();
  world.clockOffsetMs = 8 * 86_400_000;
  await dave.restart();
  assert.equal(dave.store.conversations.predecessor(hexBytes(id)), undefined);
  assert.deepEqual([...dave.store.predecessorRows.reader(hexBytes(id)).list('')], []);
  await dave.say('old', 'a week later');
  await erin.open();
  await erin.client.connect();
  await erin.sees('old', ['a week later']);
});
