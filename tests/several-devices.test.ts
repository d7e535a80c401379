// An account with two devices, of which the second cannot manage it: both are in its conversations, and both go along when
// one of those moves into the post-quantum suite, whoever moves it (THREATS 31). No command adds a device yet, so the test
// registers the second one by hand, with the identity key of the first.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { create, toBinary } from '@bufbuild/protobuf';
import {
  generateSigningKey,
  HISTORY_START,
  nextHistory,
  signAccountStatement,
  signDeviceCertificate,
  signRequest,
} from '@quicprochat/core';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { RegisterDeviceBodySchema } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import { SUITE_POST_QUANTUM } from '../packages/client/src/profile/suites.ts';
import { Meddler } from './meddler.ts';
import { type Person, World } from './world.ts';

let world: World;
let laptop: Person;
let phone: Person;
let bob: Person;
let carol: Person;
const forLaptop = new Meddler();

before(async () => {
  world = await World.start();
  [laptop, bob, carol] = await Promise.all([
    world.person('alice', { wrapDialer: forLaptop.wrap }),
    world.person('bob'),
    world.person('carol'),
  ]);
  phone = await secondDevice();
});
after(async () => {
  await world[Symbol.asyncDispose]();
});

async function secondDevice(): Promise<Person> {
  await laptop.until('saw the own entry', () => laptop.store.log.ownEntries()[0]?.seen !== undefined);
  const account = laptop.store.account.get()!;
  const { origin, username, identityKey, identityPrivateKey } = account;
  const device = generateSigningKey(nodeCrypto);
  const deviceId = nodeCrypto.random(16);
  const nowSecs = Math.floor(Date.now() / 1000);
  const certificate = signDeviceCertificate(nodeCrypto, identityPrivateKey!, {
    origin,
    username,
    identityKey,
    deviceId,
    deviceKey: device.publicKey,
    manager: false,
    serial: 1n,
    notBeforeSecs: nowSecs - 60,
    notAfterSecs: nowSecs + 86_400 * 300,
  });
  const accountStatement = signAccountStatement(nodeCrypto, identityPrivateKey!, {
    kind: 'keys',
    origin,
    username,
    identityKey,
    version: 1,
    history: nextHistory(nodeCrypto, HISTORY_START, laptop.store.log.ownEntries()[0]!.seen!.commitment),
    certificates: [account.certificate, certificate],
    revocations: [],
  });
  const statementHash = nodeCrypto.hash('sha256', accountStatement);
  laptop.store.log.saveOwnEntry({ version: 1, statementHash, seen: undefined });
  const body = toBinary(
    RegisterDeviceBodySchema,
    create(RegisterDeviceBodySchema, { deviceCertificate: certificate, accountStatement }),
  );
  const timeMs = BigInt(Date.now());
  const terms = { methodId: methods.device.registerDevice.id, origin, timeMs, body };
  const signature = signRequest(nodeCrypto, identityPrivateKey!, terms);
  await forLaptop.call(methods.device.registerDevice, { signed: { body, timeMs, signature } });

  const person = await world.stranger('alice on the phone');
  person.store.account.save({
    ...account,
    identityPrivateKey: undefined,
    deviceId,
    deviceKey: device.publicKey,
    devicePrivateKey: device.privateKey,
    certificate,
  });
  await person.restart();
  await person.client.login('alice', laptop.password);
  return person;
}

const everybody = (): readonly Person[] => [laptop, phone, bob, carol];

async function allMoved(reference: (one: Person) => string, ...people: readonly Person[]): Promise<void> {
  for (const one of people) {
    await one.until('moved', async () => (await one.conversation(reference(one))).suite === SUITE_POST_QUANTUM);
  }
}

test('both devices go along into the post-quantum suite, whoever moves the group', async () => {
  const { id } = await bob.client.createGroup('team', { suite: 'classical' });
  await bob.client.invite(id, ['alice', 'carol']);
  for (const one of [laptop, phone, carol]) await one.joined('team');
  for (const one of everybody()) await one.say('team', `before: ${one.name}`);
  await bob.client.flush();
  await phone.client.flush();
  await bob.client.upgrade(id);
  await allMoved(() => 'team', ...everybody());
  for (const one of everybody()) await one.say('team', `after: ${one.name}`);
  for (const one of everybody()) {
    await one.until('all', async () => (await one.texts('team')).length === 8);
    assert.equal(new Set(await one.texts('team')).size, 8);
    assert.equal((await one.conversation('team')).memberCount, 3);
    assert.equal(one.events.filter(({ type }) => type === 'gap').length, 0);
  }
});

test('one’s own device takes the other along in a conversation of two, and both read on', async () => {
  const { id } = await bob.client.openDirect('alice', { suite: 'classical' });
  await bob.client.send(id, 'hello, both of you');
  for (const one of [laptop, phone]) await one.sees('bob', ['hello, both of you']);
  // The laptop sleeps meanwhile.
  await laptop.close();
  assert.equal(await phone.client.upgrade(id), 'upgraded');
  await phone.say('bob', 'from the phone');
  await bob.sees('alice', ['hello, both of you', 'from the phone']);
  await laptop.open();
  await laptop.client.connect();
  await allMoved((one) => (one === bob ? 'alice' : 'bob'), laptop, phone, bob);
  await laptop.say('bob', 'from the laptop');
  for (const one of [laptop, phone]) {
    await one.sees('bob', ['hello, both of you', 'from the phone', 'from the laptop']);
  }
  await bob.sees('alice', ['hello, both of you', 'from the phone', 'from the laptop']);
});

test('two devices of one account move it at the same moment: one does, the other finds it done', async () => {
  const { id } = await carol.client.openDirect('alice', { suite: 'classical' });
  await carol.client.send(id, 'hello');
  for (const one of [laptop, phone]) await one.sees('carol', ['hello']);
  const outcomes = await Promise.all([laptop.client.upgrade(id), phone.client.upgrade(id)]);
  assert.deepEqual(outcomes.sort(), ['already', 'upgraded']);
  await allMoved((one) => (one === carol ? 'alice' : 'carol'), laptop, phone, carol);
  await phone.say('carol', 'there');
  for (const one of [laptop, phone]) await one.sees('carol', ['hello', 'there']);
  await carol.sees('alice', ['hello', 'there']);
});
