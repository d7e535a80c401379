// Keys by which others reach a device: topped up, renewed, of last resort, and checked by others without using any up.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { methods } from '@quicprochat/transport';
import { Meddler } from './meddler.ts';
import { type Person, World } from './world.ts';

let world: World;
let alice: Person;
let bob: Person;
const forAlice = new Meddler();
const forBob = new Meddler();

before(async () => {
  world = await World.start();
  alice = await world.person('alice', { wrapDialer: forAlice.wrap });
  bob = await world.person('bob', { wrapDialer: forBob.wrap });
});
after(async () => {
  await world[Symbol.asyncDispose]();
});

async function left(): Promise<{ readonly available: number; readonly lastResortUsed: boolean }> {
  const { counts } = await forBob.call(methods.keys.countKeyPackages, {});
  return { available: counts[0]?.available ?? 0, lastResortUsed: counts[0]?.lastResortUsed ?? false };
}

test('check-key verifies certificates and hybrid keys and uses nothing up', async () => {
  const before = await left();
  const check = await alice.client.checkKey('bob');
  assert.equal(check.contact.username, 'bob');
  assert.equal(check.devices.length, 1);
  assert.equal(check.devices[0]?.hybridKey?.serial, 1);
  assert.deepEqual(await left(), before);
  assert.equal((await alice.client.checkKey('bob')).contact.pin, 'same');
  await assert.rejects(alice.client.checkKey('nobody'), { code: 'unknown-user' });
  await assert.rejects(alice.client.checkKey('No Body'), { code: 'invalid-username', kind: 'usage' });
});

test('no KeyPackage left: the one of last resort lets two groups in; then it is replaced, and the device updates', async () => {
  await bob.close();
  const identityKey = new Uint8Array(Buffer.from((await alice.client.resolve('bob')).identityKey, 'hex'));
  for (let taken = 0; taken < 100; taken++) {
    const { keyPackages } = await forAlice.call(methods.keys.fetchKeyPackage, { identityKey, suite: 1 });
    if (keyPackages[0]?.lastResort === true) break;
  }
  const ids: string[] = [];
  for (const name of ['first', 'second']) {
    const { id } = await alice.client.createGroup(name);
    await alice.client.invite(id, ['bob']);
    ids.push(id);
  }
  const epochs = await Promise.all(ids.map(async (id) => (await alice.client.findConversation(id)).epoch));
  await bob.open();
  await bob.client.connect();
  await bob.client.sync();
  for (const name of ['first', 'second']) {
    await bob.joined(name);
    await bob.say(name, `hello ${name}`);
    await alice.sees(name, [`hello ${name}`]);
  }
  // Joining by it is followed by an update, so that what was sealed to its key is not all that protects the group.
  for (const [i, id] of ids.entries()) {
    await alice.until('updated', async () => ((await alice.client.findConversation(id)).epoch ?? 0) > (epochs[i] ?? 0));
  }
  await bob.until('topped up', async () => {
    const { available, lastResortUsed } = await left();
    return available >= 16 && !lastResortUsed;
  });
  // Its Welcomes do not work twice.
  const welcomes = forBob.seen.filter((envelope) => envelope.data[0] === 1);
  assert.equal(welcomes.length, 2);
  for (const name of ['first', 'second']) await alice.client.removeMember((await alice.conversation(name)).id, 'bob');
  await bob.until('removed twice', () => bob.events.filter(({ type }) => type === 'removed').length === 2);
  for (const welcome of welcomes) forBob.push(welcome);
  await bob.until(
    'both refused',
    () =>
      bob.events.filter((e) => e.type === 'warning' && e.code === 'welcome-refused' && /used before/.test(e.text))
        .length === 2,
  );
});

test('keys are renewed in time: hybrid keys weekly, KeyPackages at half of their life', async () => {
  const day = 86_400_000;
  assert.equal((await alice.client.checkKey('bob')).devices[0]?.hybridKey?.serial, 1);
  world.clockOffsetMs = 8 * day;
  // The server judges by its own clock, so it is only asked what it thinks of keys, not of requests made next week.
  assert.equal(bob.store.keys.newestHybridKey()?.serial, 1n);
  await assert.rejects(bob.client.refreshKeyPackages(), { kind: 'refused' });
  assert.equal(bob.store.keys.newestHybridKey()?.serial, 2n);
  world.clockOffsetMs = 0;
  const uploaded = await bob.client.refreshKeyPackages({ all: true });
  assert.ok(uploaded >= 33);
  // Made next week, it is valid from then on.
  await assert.rejects(alice.client.checkKey('bob'), { code: 'bad-hybrid-key' });
  world.clockOffsetMs = 8 * day;
  assert.equal((await alice.client.checkKey('bob')).devices[0]?.hybridKey?.serial, 2);
  world.clockOffsetMs = 0;
  // The old key still opens what was sealed to it.
  assert.equal(bob.store.keys.hybridKeys().length, 2);
});
