// The server in a process of its own, killed in the middle of a conversation: what was said arrives once and in order.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { World } from './world.ts';

test('a hundred messages in a group, the server killed halfway: everybody reads each once, in order', async () => {
  await using world = await World.start({ ownProcess: true });
  const people = await world.people('alice', 'bob', 'carol');
  const [alice, bob, carol] = people;
  const { id } = await alice.client.createGroup('chat');
  await alice.client.invite(id, ['bob', 'carol']);
  for (const one of people) await one.joined('chat');
  for (const one of people) await one.client.connect({ keepTrying: true });

  const said = { alice: [] as string[], bob: [] as string[], carol: [] as string[] };
  const say = async (one: (typeof people)[number], from: number, to: number): Promise<void> => {
    for (let n = from; n < to; n++) {
      const text = `${one.name} ${n}`;
      said[one.name as keyof typeof said].push(text);
      await one.client.send(id, text);
    }
  };
  const half = Promise.all([say(alice, 0, 17), say(bob, 0, 17), say(carol, 0, 16)]);
  await bob.until('some arrived', async () => (await bob.texts('chat')).length > 10);
  await world.killServer();
  await half;
  // Written while there is no server.
  await Promise.all([say(alice, 17, 34), say(bob, 17, 34), say(carol, 16, 32)]);
  await world.startServer();
  const total = said.alice.length + said.bob.length + said.carol.length;
  assert.equal(total, 100);
  for (const one of people) {
    await one.until('all hundred', async () => (await one.texts('chat')).length >= total, 60_000);
  }
  for (const one of people) await one.client.flush({ timeoutMs: 30_000 });
  for (const one of people) {
    const texts = await one.texts('chat');
    assert.equal(new Set(texts).size, total, `${one.name} has each message once`);
    for (const author of people) {
      assert.deepEqual(
        texts.filter((text) => text.startsWith(author.name)),
        said[author.name as keyof typeof said],
        `${one.name} has ${author.name}'s words in order`,
      );
    }
    assert.equal(one.events.filter(({ type }) => type === 'gap').length, 0);
  }
});

test('a server that starts anew under the same address but with another identity is not believed', async () => {
  await using world = await World.start();
  const alice = await world.person('alice');
  await alice.close();
  await world.forgetServer();
  await alice.open();
  await assert.rejects(alice.client.connect(), { kind: 'verification-failed', code: 'server-changed' });
});

test('THREATS 35: one full inbox: the others and the commits go on; who was away learns what is missing', async () => {
  await using world = await World.start({ ownProcess: true, settings: { 'limits.inboxEnvelopes': 5 } });
  const [alice, bob, carol] = await world.people('alice', 'bob', 'carol');
  const { id } = await alice.client.createGroup('busy');
  await alice.client.invite(id, ['bob', 'carol']);
  for (const one of [bob, carol]) await one.joined('busy');
  await carol.client.sync();
  await carol.close();
  const said = Array.from({ length: 12 }, (_, n) => `message ${n}`);
  for (const text of said) {
    await alice.client.send(id, text);
    // Whoever is there keeps up; a sync ends with everything acknowledged.
    for (const one of [alice, bob]) await one.client.sync();
  }
  await bob.sees('busy', said);
  assert.ok(alice.events.some((event) => event.type === 'warning' && event.code === 'undelivered'));
  const history = await alice.client.history(id);
  assert.equal(history[11]?.undelivered[0]?.username, 'carol');
  assert.equal(history[11]?.undelivered[0]?.reason, 'full');
  await alice.client.setAdmin(id, 'bob', true);
  await carol.open();
  await carol.client.connect();
  await carol.client.sync();
  assert.deepEqual(await carol.texts('busy'), said.slice(0, 5));
  assert.ok(carol.events.some((event) => event.type === 'gap' && /full/.test(event.reason)));
  await alice.client.send(id, 'after');
  await carol.sees('busy', [...said.slice(0, 5), 'after']);
  assert.ok(carol.events.some((event) => event.type === 'gap' && event.missing === 7));
  assert.equal((await carol.conversation('busy')).state, 'active');
  assert.equal((await carol.conversation('busy')).epoch, (await bob.conversation('busy')).epoch);
});
