// Numbers that no honest server or member sends: what they come with is passed over or shown without them, and nothing
// else is lost.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { methods, RpcError } from '@quicprochat/transport';
import { Status } from '@quicprochat/proto';
import { signDeviceCertificate, signHybridKey } from '@quicprochat/core';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { epochSpentKey, updateDueKey } from '../packages/client/src/track.ts';
import { Meddler } from './meddler.ts';
import { type Person, World } from './world.ts';

let world: World;
let alice: Person;
let bob: Person;
let carol: Person;
const forAlice = new Meddler();
const forBob = new Meddler();

before(async () => {
  world = await World.start();
  [alice, bob, carol] = await Promise.all([
    world.person('alice', { wrapDialer: forAlice.wrap }),
    world.person('bob', { wrapDialer: forBob.wrap }),
    world.person('carol'),
  ]);
});
after(async () => {
  await world[Symbol.asyncDispose]();
});
afterEach(() => {
  forAlice.honest();
  forBob.honest();
});

async function groupOfThree(name: string): Promise<string> {
  const { id } = await alice.client.createGroup(name);
  await alice.client.invite(id, ['bob', 'carol']);
  for (const one of [bob, carol]) await one.joined(name);
  return id;
}

test('a position beyond 2^63 is passed over; what comes with it and after it is read', async () => {
  const id = await groupOfThree('positions');
  let last: Parameters<typeof forBob.pushAt>[0] | undefined;
  forBob.envelopes = (envelope) => {
    last = envelope;
    return [];
  };
  await alice.client.send(id, 'one');
  await bob.until('the envelope', () => last !== undefined);
  assert.ok(last);
  const connections = (): number =>
    bob.events.filter((event) => event.type === 'connection' && event.state === 'online').length;
  const before = connections();
  forBob.honest();
  for (const seq of [2n ** 63n, 2n ** 64n - 1n, 0n]) forBob.pushAt(last, seq);
  forBob.push(last);
  await alice.client.send(id, 'two');
  await bob.sees('positions', ['one', 'two']);
  assert.equal(connections(), before, 'the connection was not started over');
});

test('times beyond the calendar, from the server, neither hide a message nor spoil the profile', async () => {
  const id = await groupOfThree('times');
  const times = [2n ** 64n - 1n, 2n ** 63n - 1n, 2n ** 53n, 8_640_000_000_000_001n];
  forBob.envelopes = (envelope) => [{ ...envelope, acceptedAtMs: times[0] ?? 0n }];
  const texts: string[] = [];
  for (const text of ['one', 'two', 'three', 'four']) {
    await alice.client.send(id, text);
    texts.push(text);
    await bob.sees('times', texts);
    times.shift();
  }
  const { id: bobs } = await bob.conversation('times');
  for (const { acceptedAtMs } of await bob.client.history(bobs, { limit: 10 })) assert.equal(acceptedAtMs, undefined);

  let signed: bigint | undefined;
  forAlice.answer(methods.delivery.batchEnqueue, (real) => {
    signed = real.receipt?.acceptedAtMs;
    return {
      ...real,
      ...(real.receipt === undefined ? {} : { receipt: { ...real.receipt, acceptedAtMs: 2n ** 63n - 1n } }),
    };
  });
  forAlice.envelopes = (envelope) => [{ ...envelope, acceptedAtMs: 2n ** 63n - 1n }];
  await alice.client.send(id, 'five');
  await alice.client.flush();
  await bob.sees('times', [...texts, 'five']);
  assert.deepEqual(await alice.texts('times'), [...texts, 'five']);
  const [five] = (await alice.client.history(id, { limit: 10 })).slice(-1);
  assert.equal(five?.acceptedAtMs, Number(signed), 'what was signed counts, not what is said beside it');
});

test('a server that wants hours of patience is not asked thousands of times a second instead', async () => {
  const id = await groupOfThree('patience');
  let asked = 0;
  forAlice.request(methods.delivery.batchEnqueue, () => {
    asked += 1;
    throw new RpcError(Status.RATE_LIMITED, 'later', { retryAfterMs: 2 ** 32 - 1 });
  });
  await alice.client.send(id, 'one');
  await alice.until('the first refusal', () => asked > 0);
  for (let i = 0; i < 20; i++) await alice.client.ping();
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(asked, 1);
  forAlice.honest();
  await alice.restart();
  await bob.sees('patience', ['one']);
});

test('serial numbers beyond 2^63 are refused, and keep nobody from removing somebody else', async () => {
  const id = await groupOfThree('serials');
  const { origin, identityKey, identityPrivateKey, deviceId, deviceKey, devicePrivateKey } = carol.store.account.get()!;
  const nowSecs = Math.floor(Date.now() / 1000);
  const lifetime = { notBeforeSecs: nowSecs - 60, notAfterSecs: nowSecs + 86_400 };
  const certificate = signDeviceCertificate(nodeCrypto, identityPrivateKey!, {
    origin,
    username: 'carol',
    identityKey,
    deviceId,
    deviceKey,
    manager: true,
    serial: 2n ** 63n,
    ...lifetime,
  });
  forAlice.answer(methods.user.resolveUser, (real) =>
    real.outcome.case === 'found'
      ? { outcome: { ...real.outcome, value: { ...real.outcome.value, deviceCertificates: [certificate] } } }
      : real,
  );
  await assert.rejects(alice.client.resolve('carol'), { kind: 'verification-failed', code: 'bad-certificate' });

  const [own] = carol.store.keys.hybridKeys();
  const hybridKey = signHybridKey(nodeCrypto, devicePrivateKey, {
    origin,
    address: { identityKey, deviceId },
    publicKey: own!.publicKey,
    serial: 2n ** 64n - 1n,
    ...lifetime,
  });
  forAlice.answer(methods.keys.fetchHybridKeys, (real) => ({
    keys: real.keys.map((key) =>
      Buffer.from(key.address?.identityKey ?? []).equals(identityKey) ? { ...key, hybridKey } : key,
    ),
  }));
  await alice.client.removeMember(id, 'bob');
  assert.deepEqual((await alice.client.members(id)).map(({ username }) => username).sort(), ['alice', 'carol']);
});

test('a device that has used up its share of an epoch sends nothing more in it: what it says waits for the next', async () => {
  const id = await groupOfThree('spent');
  await alice.client.flush();
  const channelId = new Uint8Array(Buffer.from(id, 'hex'));
  const stored = alice.store.conversations.get(channelId)!;
  alice.store.settings.set(epochSpentKey(channelId), String(stored.epochPosition));
  alice.store.settings.set(updateDueKey(channelId), '1');
  await alice.client.send(id, 'one');
  await alice.client.send(id, 'two');
  assert.deepEqual(
    alice.store.outbox.list(channelId).map(({ protection }) => protection),
    [undefined, undefined],
  );
  await alice.restart();
  await bob.sees('spent', ['one', 'two']);
  await alice.client.flush();
  const after = alice.store.conversations.get(channelId)!;
  assert.equal(after.epochPosition, stored.epochPosition + 1n);
  assert.equal(alice.store.outbox.list(channelId).length, 0);
});
