// People talk: over a real server, real QUIC, real encryption, state on disk. Alice, Bob, Carol and Dave are registered
// once; each story has a conversation of its own.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
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

test('Alice and Bob write to each other', async () => {
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
  await bob.until('checked', async () =>
    (await bob.client.members(chat.id)).every(({ check }) => check === 'verified'),
  );
});

test('four people in a group: everybody reads everybody, in order', async () => {
  const group = await alice.client.createGroup('friends');
  assert.equal(group.memberCount, 1);
  const invited = await alice.client.invite(group.id, ['bob', 'carol', 'dave', 'nobody']);
  assert.deepEqual([...invited.added].sort(), ['bob', 'carol', 'dave']);
  assert.deepEqual(
    invited.failed.map(({ username, code }) => ({ username, code })),
    [{ username: 'nobody', code: 'unknown-user' }],
  );
  const everybody = [alice, bob, carol, dave];
  for (const one of everybody) await one.joined('friends');
  const said: string[] = [];
  for (let round = 0; round < 3; round++) {
    for (const one of everybody) {
      const text = `${one.name} ${round}`;
      await one.say('friends', text);
      said.push(text);
      for (const other of everybody) await other.sees('friends', said);
    }
  }
  const members = await bob.client.members(group.id);
  assert.deepEqual(members.map(({ username }) => username).sort(), ['alice', 'bob', 'carol', 'dave']);
  assert.deepEqual(
    members.filter(({ admin }) => admin).map(({ username }) => username),
    ['alice'],
  );
});

test('two members commit at the same moment: one wins, the other tries again, nothing is lost (THREATS 10)', async () => {
  const { id } = await alice.client.createGroup('race');
  await alice.client.invite(id, ['bob']);
  await bob.joined('race');
  await alice.client.setAdmin(id, 'bob', true);
  await bob.until('administrator', () => bob.events.some(({ type }) => type === 'admin-changed'));
  await Promise.all([
    alice.client.invite(id, ['carol']),
    bob.client.invite(id, ['dave']),
    alice.say('race', 'during 1'),
    bob.say('race', 'during 2'),
  ]);
  const everybody = [alice, bob, carol, dave];
  for (const one of everybody) {
    await one.joined('race');
    await one.until('four members', async () => (await one.client.members(id)).length === 4);
  }
  await carol.say('race', 'hello from carol');
  await dave.until('carol heard', async () => (await dave.texts('race')).includes('hello from carol'));
  for (const one of [alice, bob]) {
    await one.until('all said', async () => {
      const texts = await one.texts('race');
      return ['during 1', 'during 2', 'hello from carol'].every((text) => texts.includes(text));
    });
  }
  const epochs = await Promise.all(everybody.map(async (one) => (await one.conversation('race')).epoch));
  assert.equal(new Set(epochs).size, 1);
});

test('who is removed reads nothing more, the others go on', async () => {
  const { id } = await alice.client.createGroup('removal');
  await alice.client.invite(id, ['bob', 'carol']);
  for (const one of [bob, carol]) await one.joined('removal');
  await alice.say('removal', 'with Carol');
  await carol.sees('removal', ['with Carol']);
  await alice.client.removeMember(id, 'carol');
  await carol.until('removed', () => carol.events.some(({ type }) => type === 'removed'));
  assert.equal((await carol.conversation('removal')).state, 'removed');
  await alice.say('removal', 'without Carol');
  await bob.sees('removal', ['with Carol', 'without Carol']);
  await bob.say('removal', 'she cannot hear us');
  await alice.sees('removal', ['with Carol', 'without Carol', 'she cannot hear us']);
  await carol.client.sync();
  assert.deepEqual(await carol.texts('removal'), ['with Carol']);
  await assert.rejects(carol.say('removal', 'hello?'), { code: 'not-active' });
  await assert.rejects(bob.client.invite(id, ['carol']), { code: 'not-admin' });
  // She may come back.
  await alice.client.invite(id, ['carol']);
  await carol.joined('removal');
  await carol.say('removal', 'here again');
  await bob.sees('removal', ['with Carol', 'without Carol', 'she cannot hear us', 'here again']);
});

test('leaving: an administrator’s client commits it; the last administrator promotes somebody first', async () => {
  const { id } = await alice.client.createGroup('leaving');
  await alice.client.invite(id, ['bob', 'carol']);
  for (const one of [bob, carol]) await one.joined('leaving');
  assert.equal(await carol.client.leave(id), 'leaving');
  await carol.until('left', async () => (await carol.conversation('leaving')).state === 'left');
  await bob.until('told', () => bob.events.some(({ type }) => type === 'member-left'));
  assert.equal(await alice.client.leave(id), 'leaving');
  await alice.until('left', async () => (await alice.conversation('leaving')).state === 'left');
  await bob.until('alone', async () => (await bob.client.members(id)).length === 1);
  const [only] = await bob.client.members(id);
  assert.equal(only?.username, 'bob');
  assert.equal(only?.admin, true);
  assert.equal(await bob.client.leave(id), 'left');
});

test('both open the conversation at the same moment: one conversation comes of it', async () => {
  const [a, b] = await Promise.all([carol.client.openDirect('dave'), dave.client.openDirect('carol')]);
  assert.equal(a.id, b.id);
  await carol.joined('@dave');
  await dave.joined('@carol');
  await Promise.all([carol.say('dave', 'me'), dave.say('carol', 'me too')]);
  for (const [one, other] of [
    [carol, 'dave'],
    [dave, 'carol'],
  ] as const) {
    await one.until('both', async () => (await one.texts(other)).length === 2);
  }
});

test('what is written offline is sent later, in order', async () => {
  await alice.client.openDirect('carol');
  await carol.joined('@alice');
  await alice.close();
  await alice.open();
  const texts = ['one', 'two', 'three'];
  for (const text of texts) assert.equal((await alice.say('carol', text)).state, 'queued');
  assert.deepEqual(await alice.texts('carol'), texts);
  await assert.rejects(alice.client.flush({ timeoutMs: 50 }), { kind: 'cannot-connect' });
  await alice.client.connect();
  await alice.client.flush();
  await carol.sees('alice', texts);
});

test('the group’s name, the note to self, search, seen and unseen', async () => {
  const { id } = await alice.client.createGroup('first name');
  await alice.client.invite(id, ['dave']);
  await dave.joined('first name');
  assert.equal((await dave.conversation('first name')).isNew, true);
  await dave.client.markConversationSeen(id);
  assert.equal((await dave.conversation('first name')).isNew, false);
  await alice.client.renameGroup(id, 'second name');
  await dave.joined('second name');
  await assert.rejects(dave.client.renameGroup(id, 'third name'), { code: 'not-admin' });

  const note = await alice.client.openDirect('alice');
  assert.equal(note.kind, 'note');
  assert.equal((await alice.client.send(note.id, 'buy milk')).state, 'sent');
  assert.equal((await alice.client.openDirect('alice')).id, note.id);
  const [found] = await alice.client.search('milk');
  assert.equal(found?.text, 'buy milk');

  await alice.say('second name', 'look at this');
  const inGroup = { conversationId: id };
  await dave.until('unseen', async () => (await dave.client.unseen(inGroup)).length === 1);
  const [unseen] = await dave.client.unseen(inGroup);
  assert.equal(unseen?.text, 'look at this');
  await dave.client.markSeen([unseen!.localId]);
  assert.deepEqual(await dave.client.unseen(inGroup), []);
});

test('two administrators rename at the same moment: all end with the same name', async () => {
  const { id } = await alice.client.createGroup('nameless');
  await alice.client.invite(id, ['dave', 'bob']);
  await Promise.all([dave.joined(id), bob.joined(id)]);
  await alice.client.setAdmin(id, 'dave', true);
  await dave.client.sync();
  // Neither has heard of the other's name yet: both are queued while nothing arrives.
  dave.cut();
  alice.cut();
  await Promise.all([alice.client.renameGroup(id, 'mountain'), dave.client.renameGroup(id, 'meadow')]);
  const named = (name: string) => async (person: Person) =>
    person.until(`the name ${name}`, async () => (await person.client.findConversation(id)).name === name);
  await Promise.all([alice, bob, dave].map(named('mountain')));
  for (const person of [alice, bob, dave]) {
    await person.client.sync();
    assert.equal((await person.client.findConversation(id)).name, 'mountain');
  }
});

test('a client restarted between register and join still has the key it is welcomed with', async () => {
  const erin = await world.person('erin');
  await erin.close();
  const { id } = await alice.client.openDirect('erin');
  await alice.client.send(id, 'are you there?');
  await alice.client.flush();
  await erin.open();
  await erin.client.connect();
  const { joined, messages } = await erin.client.sync();
  assert.deepEqual({ joined, messages }, { joined: 1, messages: 1 });
  await erin.sees('alice', ['are you there?']);
});
