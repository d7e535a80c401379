// Device certificates are renewed at half of their year (PROTOCOL section 1): new at the server, in the log, and in the
// leaf of every group, with the clocks of everybody moved on.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { parseDeviceCertificate } from '@quicprochat/core';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { restoreGroup, roster } from '@quicprochat/mls';
import { methods } from '@quicprochat/transport';
import { mlsHooks } from '../packages/client/src/profile/group-parameters.ts';
import { certificateExtension, usernameOf } from '../packages/client/src/profile/member.ts';
import { Meddler } from './meddler.ts';
import { type Person, World } from './world.ts';

const DAY_MS = 86_400_000;

let world: World;
let alice: Person;
let bob: Person;
const forAlice = new Meddler();

before(async () => {
  world = await World.start({ sharesClock: true });
  [alice, bob] = await Promise.all([world.person('alice', { wrapDialer: forAlice.wrap }), world.person('bob')]);
});
after(async () => {
  await world[Symbol.asyncDispose]();
});

function passDays(days: number): void {
  world.clockOffsetMs += days * DAY_MS;
}

/** After so long the session is over. */
async function logInAgain(person: Person): Promise<void> {
  await person.restart();
  await person.client.login(person.name, person.password);
}

const serial = (person: Person): bigint | undefined =>
  parseDeviceCertificate(person.store.account.get()!.certificate)?.claims.serial;

const hybridSerial = (person: Person): bigint | undefined => person.store.keys.newestHybridKey()?.serial;

/** The serial of the certificate that somebody's leaf carries, in somebody's copy of the group. */
function serialInGroup(person: Person, conversationId: string, username: string): bigint | undefined {
  const { origin } = person.store.account.get()!;
  const context = {
    crypto: nodeCrypto,
    random: (length: number) => nodeCrypto.random(length),
    now: Math.floor(Date.now() / 1000),
    hooks: mlsHooks(nodeCrypto, origin),
  };
  const channelId = new Uint8Array(Buffer.from(conversationId, 'hex'));
  const members = roster(restoreGroup(context, person.store.mlsRows.reader(channelId)));
  const leaf = members.find((member) => usernameOf(member) === username);
  return parseDeviceCertificate(certificateExtension(leaf!.extensions)!)?.claims.serial;
}

test('at half of the year, not before: the server, the log and every group learn of the new certificate', async () => {
  const { id } = await alice.client.createGroup('old friends');
  await alice.client.invite(id, ['bob']);
  await bob.joined('old friends');
  passDays(180);
  await logInAgain(alice);
  await alice.client.sync();
  assert.equal(serial(alice), 1n);

  passDays(5);
  const epochBefore = (await alice.conversation(id)).epoch!;
  // The answer to RegisterDevice is lost, and so is the process: the same certificate is sent again.
  let lost = 0;
  forAlice.answer(methods.device.registerDevice, (real) => {
    lost += 1;
    if (lost === 1) forAlice.cut();
    return real;
  });
  await alice.restart();
  await alice.until('the answer to be lost', () => lost === 1);
  assert.equal(serial(alice), 1n);
  await alice.restart();
  await alice.until('a new certificate', () => serial(alice) === 2n);
  assert.equal(lost, 1, 'the server has it already');

  await bob.close();
  await bob.open();
  await bob.client.connect();
  await bob.client.login('bob', bob.password);
  const contact = await bob.client.resolve('alice');
  assert.equal(contact.devices[0]?.certificateSerial, 2);
  await alice.until('the update', () => serialInGroup(alice, id, 'alice') === 2n);
  assert.ok((await alice.conversation(id)).epoch! > epochBefore);
  await alice.client.send(id, 'still me');
  await bob.sees('old friends', ['still me']);
  assert.equal(serialInGroup(bob, id, 'alice'), 2n);
  assert.equal((await alice.conversation(id)).epoch, (await bob.conversation(id)).epoch);
  const own = (await alice.client.audit()).accounts[0];
  assert.deepEqual({ outcome: own?.outcome, version: own?.version }, { outcome: 'verified', version: 1 });
  assert.ok(!alice.events.some((event) => event.type === 'warning' && event.code === 'account-changed'));
  // Whoever adds her now is given a KeyPackage with the new certificate.
  const group = await bob.client.createGroup('new friends');
  await bob.client.invite(group.id, ['alice']);
  await alice.joined('new friends');
});

test('a server restored from before the renewal is given a certificate above both, once the rollback is accepted', async () => {
  // Nobody is in a group, which would have to come back from the restored server's log in its own way.
  await Promise.all([alice.close(), bob.close()]);
  const [erin, frank] = await world.people('erin', 'frank');
  const backup = await world.backUp();
  passDays(185);
  await logInAgain(erin);
  await erin.until('a new certificate', () => serial(erin) === 2n);
  await logInAgain(frank);
  assert.equal((await frank.client.resolve('erin')).devices[0]?.certificateSerial, 2);
  assert.deepEqual((await erin.client.audit()).findings, []);

  await world.putBack(backup);
  for (const one of [erin, frank]) {
    await logInAgain(one);
    // A rollback, or for who comes later two views: the log grows again meanwhile.
    assert.notDeepEqual((await one.client.audit()).findings, [], one.name);
    await one.client.audit({ accept: true });
  }
  await erin.until('a certificate that the server does not have yet', () => serial(erin) === 3n);
  assert.equal((await frank.client.resolve('erin')).devices[0]?.certificateSerial, 3);
  for (const one of [erin, frank]) {
    const open = (await one.client.audit()).findings.filter(({ accepted }) => !accepted);
    assert.deepEqual(open, [], one.name);
  }
});

test('a server restored from before a hybrid key was renewed gets one that nobody refuses', async () => {
  const forGrace = new Meddler();
  const [grace, heidi] = [await world.person('grace', { wrapDialer: forGrace.wrap }), await world.person('heidi')];
  const backup = await world.backUp();
  passDays(8);
  await grace.restart();
  await grace.until(
    'a newer hybrid key',
    () => grace.store.keys.newestHybridKey()?.uploaded === true && hybridSerial(grace) === 2n,
  );
  await heidi.restart();
  assert.equal((await heidi.client.checkKey('grace')).devices[0]?.hybridKey?.serial, 2);
  await world.putBack(backup);
  let acks = 0;
  forGrace.answer(methods.delivery.ack, (real) => {
    acks += 1;
    return real;
  });
  await grace.restart();
  await grace.until(
    'one newer still',
    () => hybridSerial(grace) === 3n && grace.store.keys.newestHybridKey()?.uploaded === true,
  );
  await heidi.restart();
  assert.equal((await heidi.client.checkKey('grace')).devices[0]?.hybridKey?.serial, 3);
  // Done with, and not once more at every connection.
  await grace.until('the gap to be acknowledged', () => acks === 1);
  await grace.restart();
  await grace.client.sync();
  assert.ok(!grace.events.some(({ type }) => type === 'gap'));
  assert.equal(hybridSerial(grace), 3n);
});
