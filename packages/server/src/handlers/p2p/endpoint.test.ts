// Endpoints: signed by the device, for a day at most, and shown to those in a channel that the account takes part in.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { signEndpoint } from '@quicprochat/core';
import { encodeHex } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { Status } from '@quicprochat/proto';
import { methods, RpcError } from '@quicprochat/transport';
import { envelope, messageId, ORIGIN, World } from '../../testing/world.node.ts';
import type { Person, TestConnection } from '../../testing/world.node.ts';

const { p2p } = methods;
const DAY_SECS = 86_400;

let world: World;
let [alice, bob]: Person[] = [];
let [a, b, c]: TestConnection[] = [];

before(async () => {
  world = await World.start();
  [alice, bob] = [await world.register('alice'), await world.register('bob')];
  [a, b, c] = [await world.login(alice), await world.login(bob), await world.login(await world.register('carol'))];
  await commitTo(a, await openDirect(a, bob));
});
after(() => world.close());

async function openDirect(by: TestConnection, { address }: Person): Promise<Uint8Array> {
  const value = { peerIdentityKey: address.identityKey };
  const { outcome } = await by.call(methods.channel.createChannel, { kind: { case: 'direct', value } });
  assert.ok(outcome.case !== undefined);
  return outcome.value.channelId;
}

async function commitTo(by: TestConnection, channelId: Uint8Array, rosterAdd: Person[] = []): Promise<void> {
  const { outcome } = await by.call(methods.delivery.submitCommit, {
    channelId,
    messageId: messageId(),
    payload: envelope(3),
    rosterAdd: rosterAdd.map(({ address }) => address),
  });
  assert.equal(outcome.case, 'accepted');
}

async function status(promise: Promise<unknown>): Promise<number> {
  const error = await promise.then(
    () => assert.fail('was not refused'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof RpcError, String(error));
  return error.status;
}

function publish(
  by: Person,
  connection: TestConnection,
  change: { lifetimeSecs?: number; startsIn?: number; key?: Person } = {},
) {
  const notBeforeSecs = Math.floor(world.clock.wallMs() / 1000) + (change.startsIn ?? -60);
  const notAfterSecs = notBeforeSecs + (change.lifetimeSecs ?? DAY_SECS);
  const statement = { origin: ORIGIN, address: by.address, endpoint: '192.0.2.7:4433', notBeforeSecs, notAfterSecs };
  const endpoint = signEndpoint(crypto, (change.key ?? by).device.privateKey, statement);
  return connection.call(p2p.publishEndpoint, { endpoint, notAfter: BigInt(notAfterSecs) }).then(() => endpoint);
}

const resolve = async (connection: TestConnection) =>
  (await connection.call(p2p.resolveEndpoint, { address: { identityKey: alice!.address.identityKey } })).endpoints;

test('published, seen by the other side of a channel, by no stranger, and not for longer than it says', async () => {
  assert.deepEqual(await resolve(b!), []);
  const endpoint = await publish(alice!, a!);
  const [found, ...others] = await resolve(b!);
  assert.equal(encodeHex(found!.endpoint), encodeHex(endpoint));
  assert.equal(encodeHex(found!.address!.deviceId), encodeHex(alice!.address.deviceId));
  assert.equal(others.length, 0);
  assert.deepEqual(await resolve(c!), []);
  world.clock.advance(DAY_SECS * 1000);
  assert.deepEqual(await resolve(b!), []);
  await publish(alice!, a!);
  assert.equal((await resolve(b!)).length, 1);
  await a!.call(p2p.publishEndpoint, {});
  assert.deepEqual(await resolve(b!), []);
});

test('THREATS 17: whom a stranger puts on a roster, of two or of a group, shows them nothing', async () => {
  await publish(alice!, a!);
  await commitTo(c!, await openDirect(c!, alice!));
  const channelId = crypto.random(16);
  await c!.call(methods.channel.createChannel, { kind: { case: 'group', value: { channelId } } });
  await commitTo(c!, channelId, [alice!]);
  assert.deepEqual(await resolve(c!), []);
  await a!.call(p2p.publishEndpoint, {});
});

test('somebody else’s, one of the past or the future, and another lifetime are refused', async () => {
  const cases = [
    () => publish(bob!, a!),
    () => publish(alice!, a!, { key: bob! }),
    () => publish(alice!, a!, { startsIn: 3_600 }),
    () => publish(alice!, a!, { startsIn: -3_600, lifetimeSecs: 60 }),
    () => publish(alice!, a!, { lifetimeSecs: 2 * DAY_SECS }),
    () => a!.call(p2p.publishEndpoint, { endpoint: crypto.random(250) }),
    async () => a!.call(p2p.publishEndpoint, { endpoint: await publish(alice!, a!), notAfter: 1n }),
    () => b!.call(p2p.resolveEndpoint, {}),
  ];
  for (const [i, attempt] of cases.entries())
    assert.equal(await status(attempt()), Status.INVALID_ARGUMENT, `case ${i}`);
});
