// THREATS 11 and 12: a client killed at every transaction of sending, receiving and committing, before it and after it.
// After a restart nothing is lost and nothing is there twice. State changes in transactions only, so these are all the
// places where a crash can make a difference.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Fault, killEverywhere } from './kill-everywhere.ts';
import { type Person, World } from './world.ts';

let world: World;
let alice: Person;
let bob: Person;
let carol: Person;

before(async () => {
  world = await World.start();
  [alice, bob, carol] = await world.people('alice', 'bob', 'carol');
});
after(async () => {
  await world[Symbol.asyncDispose]();
});

test('killed while sending', async () => {
  const { id } = await alice.client.openDirect('bob');
  await bob.joined('@alice');
  const accepted: string[] = [];
  const kills = await killEverywhere(
    alice,
    async (run) => {
      for (const n of [1, 2, 3]) {
        const text = `${run} / ${n}`;
        await alice.client.send(id, text);
        accepted.push(text);
      }
      await alice.client.flush();
      await alice.client.sync();
    },
    async () => {
      await alice.client.flush();
      const own = await alice.texts('bob');
      for (const text of accepted) assert.ok(own.includes(text), `${text} was accepted and lost`);
      await bob.sees('alice', own);
      const states = (await alice.client.history(id, { limit: 1000 })).map(({ state }) => state);
      assert.ok(states.every((state) => state === 'sent'));
    },
  );
  assert.ok(kills >= 8, `${kills} kills`);
  assert.equal(bob.events.filter(({ type }) => type === 'gap').length, 0);
});

test('killed while receiving', async () => {
  const { id } = await carol.client.openDirect('alice');
  await alice.joined('@carol');
  const said: string[] = [];
  const kills = await killEverywhere(
    alice,
    async (run) => {
      for (const n of [1, 2, 3]) {
        said.push(`${run} / ${n}`);
        await carol.client.send(id, `${run} / ${n}`);
        await carol.client.flush();
      }
      await alice.sees('carol', said);
      await alice.client.sync();
    },
    async () => {
      await alice.client.sync();
      await alice.sees('carol', await carol.texts('alice'));
    },
  );
  assert.ok(kills >= 3, `${kills} kills`);
  assert.equal(alice.events.filter(({ type }) => type === 'gap').length, 0);
});

test('killed while inviting', async () => {
  let current = '';
  const kills = await killEverywhere(
    alice,
    async (run) => {
      const group = await alice.client.createGroup(run);
      current = group.id;
      await alice.client.invite(group.id, ['bob', 'carol']);
      await alice.client.send(group.id, 'welcome');
      await alice.client.flush();
    },
    async (run) => {
      await alice.client.sync();
      const groups = await alice.client.conversations();
      const group = groups.find(({ name }) => name === run);
      if (group === undefined) return;
      current = group.id;
      const there = (await alice.client.members(current)).map(({ username }) => username);
      const missing = ['bob', 'carol'].filter((name) => !there.includes(name));
      if (missing.length > 0) await alice.client.invite(current, missing);
      for (const one of [bob, carol]) await one.joined(run);
      await alice.client.send(current, 'now');
      const heard = await alice.texts(run);
      for (const one of [bob, carol]) await one.sees(run, heard);
      const epochs = await Promise.all([alice, bob, carol].map(async (one) => (await one.conversation(run)).epoch));
      assert.equal(new Set(epochs).size, 1);
    },
  );
  assert.ok(kills >= 10, `${kills} kills`);
});

// In the classical suite, where a removal brings a new salt.
test('killed while joining and while a member is removed', async () => {
  const kills = await killEverywhere(
    bob,
    async (run) => {
      const { id } = await alice.client.createGroup(`joining ${run}`, { suite: 'classical' });
      await alice.client.invite(id, ['bob', 'carol']);
      await alice.client.send(id, 'one');
      await alice.client.removeMember(id, 'carol');
      await alice.client.send(id, 'two');
      await alice.client.flush();
      await bob.sees(`joining ${run}`, ['one', 'two']);
      await bob.client.sync();
    },
    async (run) => {
      await alice.client.flush();
      // The story was told to its end by Alice, whatever became of Bob meanwhile.
      await alice.until('told', async () => (await alice.texts(`joining ${run}`).catch(() => [])).length === 2);
      await bob.client.sync();
      await bob.sees(`joining ${run}`, ['one', 'two']);
      assert.deepEqual(
        (await bob.client.members((await bob.conversation(`joining ${run}`)).id))
          .map(({ username }) => username)
          .sort(),
        ['alice', 'bob'],
      );
    },
  );
  assert.ok(kills >= 4, `${kills} kills`);
});

test('killed while registering: doing it again completes it', async () => {
  let kills = 0;
  for (let at = 1; ; at++) {
    const fault = new Fault(at, at % 2 === 0 ? 'before' : 'after');
    const person = await world.stranger(`person-${at}`, { wrapStore: fault.wrap });
    await Promise.race([
      person.client.connect().then(() => person.client.register(person.name, person.password)),
      fault.killed,
    ]).catch((error: unknown) => {
      if (!fault.fired) throw error;
    });
    await person.crash();
    person.wrapStore = undefined;
    await person.open();
    await person.client.connect();
    const account = await person.client.register(person.name, person.password);
    assert.equal(account.username, person.name);
    const { id } = await alice.client.openDirect(person.name);
    await alice.client.send(id, 'welcome');
    await person.sees('alice', ['welcome']);
    await person.close();
    if (!fault.fired) break;
    kills += 1;
  }
  assert.ok(kills >= 5, `${kills} kills`);
});
