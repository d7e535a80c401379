// What a client keeps when the server does not let it in: with an account that is banned it keeps its session, and is back
// without a password when the ban is lifted; a session or a device that is gone is forgotten.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { signRevocation } from '@quicprochat/core';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { RevokeDeviceBodySchema } from '@quicprochat/proto';
import { findRunning } from '@quicprochat/server';
import { methods } from '@quicprochat/transport';
import { Meddler } from './meddler.ts';
import { signed } from './wire.ts';
import { type Person, World } from './world.ts';

type Operator = NonNullable<Awaited<ReturnType<typeof findRunning>>>;

let world: World;
let operator: Operator;

before(async () => {
  world = await World.start();
  const running = await findRunning({ dataDir: world.dataDir });
  assert.ok(running !== undefined);
  operator = running;
});
after(async () => {
  await world[Symbol.asyncDispose]();
});

function warnings(person: Person, code: string): string[] {
  return person.events.flatMap((event) => (event.type === 'warning' && event.code === code ? [event.text] : []));
}

function onlineCount(person: Person): number {
  return person.events.filter((event) => event.type === 'connection' && event.state === 'online').length;
}

/** Loses the connection; resolves when there is another one. */
async function comesBack(person: Person): Promise<void> {
  const before = onlineCount(person);
  person.cut();
  await person.until('another connection', () => onlineCount(person) > before);
}

test('banned, a client says why and keeps its session; the ban lifted, it is back without a password', async () => {
  const [alice, mallory] = await world.people('alice', 'mallory');
  const { id } = await mallory.client.openDirect('alice');
  await alice.joined('mallory');
  const { token } = mallory.store.account.session()!;
  const ban = { account: 'mallory', reason: 'sells umbrellas', durationSecs: 3_600 };
  await operator.call('ban', ban);
  await mallory.until('hearing why', () => warnings(mallory, 'session-refused').length > 0);
  assert.match(
    warnings(mallory, 'session-refused')[0]!,
    /this account is banned: sells umbrellas\. The ban holds until/,
  );
  const refused = { kind: 'refused', code: 'session-refused', message: /is banned: sells umbrellas/, hint: /until/ };
  await mallory.client.send(id, 'umbrella?');
  await assert.rejects(mallory.client.flush(), refused);
  await assert.rejects(mallory.client.sync(), refused);

  await comesBack(mallory);
  assert.equal(warnings(mallory, 'session-refused').length, 1, 'said once, not with every connection');
  await assert.rejects(mallory.client.login('mallory', mallory.password), { kind: 'refused', message: /is banned/ });
  await mallory.restart();
  await assert.rejects(mallory.client.sync(), refused);
  assert.deepEqual(mallory.store.account.session()?.token, token);
  assert.equal((await mallory.client.whoami())?.loggedIn, true);

  await operator.call('unban', { account: 'mallory' });
  await comesBack(mallory);
  await mallory.client.flush();
  await alice.sees('mallory', ['umbrella?']);
  assert.deepEqual(mallory.store.account.session()?.token, token);
  assert.equal(warnings(mallory, 'session-ended').length, 0);

  await operator.call('ban', ban);
  await mallory.until('hearing it again', () => warnings(mallory, 'session-refused').length === 2);
  await mallory.client.logout();
  assert.equal(mallory.store.account.session(), undefined, 'who logs out is logged out, banned or not');
  await assert.rejects(mallory.client.sync(), { code: 'not-logged-in' });
});

test('a session that ends while its account is banned is forgotten', async () => {
  const carol = await world.person('carol');
  await operator.call('ban', { account: 'carol', reason: '', durationSecs: 0 });
  await carol.until('being refused', () => warnings(carol, 'session-refused').length > 0);
  await operator.call('endSessions', { account: 'carol' });
  await comesBack(carol);
  assert.equal(warnings(carol, 'session-ended').length, 1);
  assert.equal(carol.store.account.session(), undefined);
  await assert.rejects(carol.client.sync(), { code: 'not-logged-in' });
  await operator.call('unban', { account: 'carol' });
  await carol.client.login('carol', carol.password);
  await carol.client.sync();
});

test('the session of a revoked device is forgotten', async () => {
  const forDave = new Meddler();
  const dave = await world.person('dave', { wrapDialer: forDave.wrap });
  const { origin, identityKey, deviceId, deviceKey, devicePrivateKey } = dave.store.account.get()!;
  const device = { publicKey: deviceKey, privateKey: devicePrivateKey };
  const revocation = signRevocation(nodeCrypto, devicePrivateKey, {
    origin,
    address: { identityKey, deviceId },
    deviceKey,
    signer: 'device',
    revokedAtSecs: Math.floor(Date.now() / 1000),
  });
  await forDave.call(methods.device.revokeDevice, {
    signed: signed(origin, device, methods.device.revokeDevice.id, RevokeDeviceBodySchema, { deviceId, revocation }),
  });
  await comesBack(dave);
  assert.match(warnings(dave, 'session-ended')[0]!, /log in again/);
  assert.equal(dave.store.account.session(), undefined);
  await assert.rejects(dave.client.sync(), { code: 'not-logged-in' });
});
