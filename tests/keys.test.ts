// Keys by which others reach a device: topped up, renewed, of last resort, and checked by others without using any up.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { methods } from '@quicprochat/transport';
import { member, memoryRows, ownLeafIndex, restoreGroup } from '@quicprochat/mls';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { SUITE_CLASSICAL, SUITE_DEFAULT } from '../packages/client/src/profile/suites.ts';
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
  const count = counts.find(({ suite }) => suite === SUITE_DEFAULT);
  return { available: count?.available ?? 0, lastResortUsed: count?.lastResortUsed ?? false };
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
    const { keyPackages } = await forAlice.call(methods.keys.fetchKeyPackage, { identityKey, suite: SUITE_DEFAULT });
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

/** Where a person's own leaf in a group comes from, as it is on disk. */
async function leafSource(person: Person, reference: string): Promise<string | undefined> {
  const channelId = new Uint8Array(Buffer.from((await person.conversation(reference)).id, 'hex'));
  const context = { crypto: nodeCrypto, random: (length: number) => nodeCrypto.random(length), now: 0 };
  const state = restoreGroup(context, memoryRows([...person.store.mlsRows.reader(channelId).list('')]));
  return member(state, ownLeafIndex(state))?.source.kind;
}

test('leaves and KeyPackages are renewed at half of their life, and who stays away longer keeps nobody out', async () => {
  const day = 86_400_000;
  await using moving = await World.start({ sharesClock: true });
  const [dora, emil, fay] = await moving.people('dora', 'emil', 'fay');
  /** Days pass; somebody starts their client again. */
  const comesBack = async (person: Person, days: number): Promise<void> => {
    await person.close();
    moving.clockOffsetMs = days * day;
    await person.open();
    await person.client.connect();
    await person.client.login(person.name, person.password);
    await person.client.sync();
  };
  const lastResorts = (person: Person): (string | undefined)[] =>
    [SUITE_DEFAULT, SUITE_CLASSICAL].map((suite) => {
      const ref = person.store.keys.lastResort(suite)?.keyPackageRef;
      return ref && Buffer.from(ref).toString('hex');
    });
  const { id } = await dora.client.createGroup('long');
  await dora.client.invite(id, ['emil', 'fay']);
  for (const one of [emil, fay]) await one.joined('long');
  const [epoch, first] = [(await emil.conversation('long')).epoch!, lastResorts(emil)];
  await fay.close();

  await comesBack(emil, 41);
  assert.equal(await leafSource(emil, 'long'), 'keyPackage');
  assert.equal((await emil.conversation('long')).epoch, epoch);
  assert.deepEqual(lastResorts(emil), first);

  await comesBack(emil, 43);
  await emil.until('a new leaf', async () => (await leafSource(emil, 'long')) === 'commit');
  assert.equal((await emil.conversation('long')).epoch, epoch + 1);
  await emil.until(
    'new KeyPackages',
    () => emil.store.keys.keyPackagesToUpload().length === 0 && lastResorts(emil).every((ref, i) => ref !== first[i]),
  );
  await emil.close();

  // The first KeyPackages are over, those made at half of their life are not.
  await comesBack(dora, 86);
  const { id: later } = await dora.client.createGroup('later');
  assert.deepEqual(await dora.client.invite(later, ['emil']), { added: ['emil'], failed: [] });
  // Fay's leaf is over, too: she was away since. That is hers to mend, and no reason not to let others in.
  const gus = await moving.person('gus');
  assert.deepEqual(await dora.client.invite(id, ['gus']), { added: ['gus'], failed: [] });
  await gus.joined('long');
  await gus.say('long', 'hello');
  await comesBack(emil, 87);
  await emil.joined('later');
  await emil.until('heard', async () => (await emil.texts('long')).includes('hello'));
  await comesBack(fay, 88);
  await fay.until('heard', async () => (await fay.texts('long')).includes('hello'));
  await fay.until('a new leaf', async () => (await leafSource(fay, 'long')) === 'commit');
  await fay.say('long', 'back again');
  await gus.sees('long', ['hello', 'back again']);
});
