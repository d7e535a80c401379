// Devices come and go: revocation, what it ends and who hears of it; push tokens and what is knocked with.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { fromBinary } from '@bufbuild/protobuf';
import { signRevocation } from '@quicprochat/core';
import { encodeHex } from '@quicprochat/crypto';
import type { KeyPair } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import {
  KeyRevokedEventSchema,
  PushEvent,
  RegisterDeviceBodySchema,
  RevokeDeviceBodySchema,
  RevokeKeyBodySchema,
  Status,
} from '@quicprochat/proto';
import { methods, RpcError } from '@quicprochat/transport';
import type { PushNotifier } from '../../push-notifier.ts';
import { envelope, messageId, ORIGIN, resume, World } from '../../testing/world.node.ts';
import type { Person, TestConnection } from '../../testing/world.node.ts';
import { createWebhookNotifier, isPublic } from '../../webhook-notifier.node.ts';

const { device, keys, delivery } = methods;

/** Keeps what it was told, and is done when the test says so. */
class TestNotifier implements PushNotifier {
  readonly knocks: string[] = [];
  answer: 'sent' | 'gone' = 'sent';
  #next: (() => void)[] = [];

  objectionTo(token: string): string | undefined {
    return token.startsWith('!') ? 'it begins with an exclamation mark' : undefined;
  }
  notify(token: string): Promise<'sent' | 'gone'> {
    this.knocks.push(token);
    for (const resolve of this.#next.splice(0)) resolve();
    return Promise.resolve(this.answer);
  }
  async until(count: number): Promise<void> {
    while (this.knocks.length < count) await new Promise<void>((resolve) => this.#next.push(resolve));
  }
}

const notifier = new TestNotifier();
let world: World;
let bob: Person;
let b: TestConnection;

before(async () => {
  world = await World.start({ notifiers: new Map([['test', notifier]]) });
  bob = await world.register('bob');
  b = await world.subscribe(bob);
});
after(() => world.close());

async function refusal(promise: Promise<unknown>): Promise<RpcError> {
  const error = await promise.then(
    () => assert.fail('was not refused'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof RpcError, String(error));
  return error;
}

const hex = (data: Uint8Array | undefined) => encodeHex(data ?? new Uint8Array(0));
const nowSecs = () => Math.floor(world.clock.wallMs() / 1000);

function statement(of: Person, signer: 'identity' | 'device' = 'identity', key = of[signer]): Uint8Array {
  const { address } = of;
  const deviceKey = of.device.publicKey;
  const revocation = { origin: ORIGIN, address, deviceKey, signer, revokedAtSecs: nowSecs() };
  return signRevocation(crypto, key.privateKey, revocation);
}

/** The next statement where the request is by the account's identity key; a device key has none to give. */
async function stated(of: Person, requestKey: KeyPair, revocation: Uint8Array, remove = of.address.deviceId) {
  if (requestKey !== of.identity) return new Uint8Array(0);
  return world.statement(of, { remove, revocation });
}

async function revokeDevice(connection: TestConnection, of: Person, requestKey: KeyPair, revocation = statement(of)) {
  const { deviceId } = of.address;
  const body = { deviceId, revocation, accountStatement: await stated(of, requestKey, revocation) };
  return connection.call(device.revokeDevice, {
    signed: world.sign(requestKey, device.revokeDevice.id, RevokeDeviceBodySchema, body),
  });
}

async function revokeKey(connection: TestConnection, of: Person, requestKey: KeyPair, revocation: Uint8Array) {
  const body = { revocation, accountStatement: await stated(of, requestKey, revocation) };
  const signed = world.sign(requestKey, keys.revokeKey.id, RevokeKeyBodySchema, body);
  return connection.call(keys.revokeKey, { signed });
}

const check = async (...people: Person[]) =>
  (await b.call(keys.checkRevocation, { addresses: people.map((person) => person.address) })).revocations;

function send(to: Person) {
  const { identityKey, deviceId } = to.address;
  const request = { recipientKey: identityKey, deviceId, payload: envelope(1), messageId: messageId() };
  return b.call(delivery.enqueue, request);
}

describe('RevokeDevice', () => {
  test('connections, tokens and inbox go at once, neighbours hear of it, delivery answers unknown', async () => {
    const alice = await world.register('alice');
    const tablet = await world.addDevice(alice);
    const a = await world.subscribe(alice);
    const t = await world.subscribe(tablet);
    const { channelId } = channelOf(
      await b.call(methods.channel.createChannel, {
        kind: { case: 'direct', value: { peerIdentityKey: alice.address.identityKey } },
      }),
    );
    await send(tablet);
    const token = crypto.random(32);
    const nowMs = world.clock.wallMs();
    const tokenHash = crypto.hash('sha256', token);
    await world.store.putSession({ tokenHash, address: tablet.address, expiresAtMs: nowMs + 60_000, nowMs });

    const revocation = statement(tablet);
    await revokeDevice(a, tablet, alice.identity, revocation);
    await t.closed;
    await b.until(() => b.notices.includes(PushEvent.KEY_REVOKED));
    const event = fromBinary(KeyRevokedEventSchema, b.events.at(-1)!.payload);
    assert.equal(hex(event.address?.deviceId), hex(tablet.address.deviceId));
    await a.until(() => a.notices.includes(PushEvent.KEY_REVOKED));

    assert.equal((await refusal(resume(world.connect(), tablet, token))).status, Status.UNAUTHENTICATED);
    assert.deepEqual(
      (await send(tablet)).results.map((result) => result.outcome.case),
      ['unknown'],
    );
    const sent = await b.call(delivery.batchEnqueue, { channelId, messageId: messageId(), payload: envelope(3) });
    assert.deepEqual(sent.results.map((result) => result.outcome.case).sort(), ['queued', 'queued', 'unknown']);
    assert.equal((await b.call(methods.group.listGroupMembers, { channelId })).roster.length, 3);
    assert.equal((await a.call(device.listDevices, {})).devices.length, 1);
    const [found, ...others] = await check(alice, tablet, bob);
    assert.equal(hex(found?.revocation), hex(revocation));
    assert.equal(others.length, 0);

    const back = world.sign(alice.identity, device.registerDevice.id, RegisterDeviceBodySchema, {
      deviceCertificate: tablet.certificate,
    });
    assert.equal((await refusal(a.call(device.registerDevice, { signed: back }))).status, Status.ALREADY_EXISTS);
  });

  test('a device revokes itself with its own key, hears so, and another one never', async () => {
    const carol = await world.register('carol');
    const phone = await world.addDevice(carol);
    const p = await world.login(phone);
    const others = await refusal(revokeDevice(p, carol, phone.device, statement(carol, 'device')));
    assert.equal(others.status, Status.FORBIDDEN);
    await revokeDevice(p, phone, phone.device, statement(phone, 'device'));
    assert.equal((await refusal(p.call(device.listDevices, {}))).status, Status.UNAUTHENTICATED);
    assert.equal((await check(phone, carol)).length, 1);
  });

  test('wrong signers, statements of other devices, accounts and servers are refused', async () => {
    const dave = await world.register('dave');
    const phone = await world.addDevice(dave);
    const d = await world.login(dave);
    const mallory = world.newPerson('mallory');
    const cases: [() => Promise<unknown>, number][] = [
      [() => revokeDevice(d, phone, mallory.identity), Status.UNAUTHENTICATED],
      [() => revokeDevice(d, phone, phone.device), Status.UNAUTHENTICATED],
      [() => revokeDevice(d, phone, dave.identity, statement(dave)), Status.INVALID_ARGUMENT],
      [
        () => revokeDevice(d, phone, dave.identity, statement(phone, 'identity', mallory.identity)),
        Status.INVALID_ARGUMENT,
      ],
      [() => revokeDevice(d, bob, dave.identity, statement(bob)), Status.INVALID_ARGUMENT],
      [() => revokeDevice(d, phone, dave.identity, crypto.random(250)), Status.INVALID_ARGUMENT],
      [() => d.call(device.revokeDevice, {}), Status.INVALID_ARGUMENT],
    ];
    for (const [i, [attempt, status]] of cases.entries()) {
      assert.equal((await refusal(attempt())).status, status, `case ${i}`);
    }
    assert.equal((await d.call(device.listDevices, {})).devices.length, 2);
  });

  test('the answer to a retry is the first one; another request with its signature is a replay', async () => {
    const erin = await world.register('erin');
    const phone = await world.addDevice(erin);
    const e = await world.login(erin);
    const revocation = statement(phone);
    const accountStatement = await stated(phone, erin.identity, revocation);
    const body = { deviceId: phone.address.deviceId, revocation, accountStatement };
    const signed = world.sign(erin.identity, device.revokeDevice.id, RevokeDeviceBodySchema, body);
    await e.call(device.revokeDevice, { signed });
    await e.call(device.revokeDevice, { signed });
    assert.equal((await check(phone)).length, 1);
  });
});

function channelOf(created: { outcome: { case?: string | undefined; value?: unknown } }): { channelId: Uint8Array } {
  return created.outcome.value as { channelId: Uint8Array };
}

describe('RevokeKey', () => {
  test('ends the device of the key, and keeps statements about devices never seen here', async () => {
    const frank = await world.register('frank');
    const phone = await world.addDevice(frank);
    const f = await world.login(frank);
    const p = await world.login(phone);
    await revokeKey(f, phone, frank.identity, statement(phone));
    await p.closed;
    const never = world.newDevice(frank);
    assert.equal(
      (await refusal(revokeKey(f, never, frank.identity, statement(never, 'device')))).status,
      Status.INVALID_ARGUMENT,
      'nobody vouches for that key',
    );
    await revokeKey(f, never, frank.identity, statement(never));
    assert.equal((await check(never, phone, frank)).length, 2);
    const crowd = Array.from({ length: 101 }, (_, i) => ({
      identityKey: (i < 60 ? frank : bob).address.identityKey,
      deviceId: crypto.random(16),
    }));
    for (const address of crowd) {
      await world.store.revokeDevice({ address, statement: crypto.random(9), nowMs: world.clock.wallMs() });
    }
    const asked = [frank.address, ...crowd, ...crowd];
    const first = await b.call(keys.checkRevocation, { addresses: asked });
    assert.deepEqual([first.revocations.length, first.more], [100, true]);
    const heard = new Set(first.revocations.map(({ address }) => hex(address?.deviceId)));
    const rest = asked.filter(({ deviceId }) => !heard.has(hex(deviceId)));
    const last = await b.call(keys.checkRevocation, { addresses: rest });
    assert.deepEqual([last.revocations.length, last.more], [1, false]);
    const tooMany = { addresses: Array.from({ length: 1_001 }, () => frank.address) };
    assert.equal((await refusal(b.call(keys.checkRevocation, tooMany))).status, Status.INVALID_ARGUMENT);
  });
});

describe('push tokens', () => {
  const register = (connection: TestConnection, token: string, kind = 'test') =>
    connection.call(device.registerPushToken, { kind, token });

  test('who is away is knocked at once, then not again for a while; who is here is not', async () => {
    const grace = await world.register('grace');
    const g = await world.login(grace);
    await register(g, 'grace-1');
    await send(grace);
    g.rpc.close();
    // Her connection ends at the server when that has read so; the next envelope after it knocks.
    while (notifier.knocks.length === 0) await send(grace);
    await send(grace);
    assert.deepEqual(notifier.knocks, ['grace-1']);
    world.clock.advance(30_001);
    await send(grace);
    await notifier.until(2);

    notifier.answer = 'gone';
    world.clock.advance(30_001);
    await send(grace);
    await notifier.until(3);
    while ((await world.store.findPushTokens([grace.address])).length > 0);
    notifier.answer = 'sent';
  });

  test('unknown kinds, refused tokens, control characters and overlong ones; an empty one removes', async () => {
    const heidi = await world.register('heidi');
    const h = await world.login(heidi);
    for (const [token, kind] of [
      ['x', 'pigeon'],
      ['!x', 'test'],
      ['a\nb', 'test'],
      ['x'.repeat(2_049), 'test'],
    ] as const) {
      assert.equal((await refusal(register(h, token, kind))).status, Status.INVALID_ARGUMENT);
    }
    await register(h, 'heidi-1');
    assert.equal((await world.store.findPushTokens([heidi.address])).length, 1);
    await register(h, '');
    assert.equal((await world.store.findPushTokens([heidi.address])).length, 0);
  });
});

describe('the webhook', () => {
  test('posts that something arrived, and nothing else', async (t) => {
    const bodies: string[] = [];
    let status = 204;
    const receiver = createServer((request: IncomingMessage, response) => {
      let body = '';
      request.on('data', (data: Buffer) => (body += data.toString()));
      request.on('end', () => {
        bodies.push(`${request.method} ${request.url} ${body}`);
        response.writeHead(status, { location: 'http://127.0.0.1:1/elsewhere' }).end();
      });
    });
    await new Promise<void>((resolve) => receiver.listen(0, '127.0.0.1', resolve));
    t.after(() => receiver.close());
    const { port } = receiver.address() as AddressInfo;
    const webhook = createWebhookNotifier({ allowPrivate: true });
    const url = `http://127.0.0.1:${port}/wake/me?x=1`;
    assert.equal(webhook.objectionTo(url), undefined);
    assert.equal(await webhook.notify(url), 'sent');
    assert.deepEqual(bodies, ['POST /wake/me?x=1 {"v":1,"type":"wake"}']);
    for (const [answered, outcome] of [
      [302, 'failed'],
      [500, 'failed'],
      [410, 'gone'],
    ] as const) {
      status = answered;
      assert.equal(await webhook.notify(url), outcome);
    }
    assert.equal(bodies.length, 4, 'a redirect is not followed');
    // The same receiver, while private networks are not allowed: by address, and by a name that leads there.
    const guarded = createWebhookNotifier({ allowPrivate: false });
    assert.equal(await guarded.notify(`https://127.0.0.1:${port}/`), 'gone');
    assert.equal(await guarded.notify(`https://localhost:${port}/`), 'failed');
    assert.equal(bodies.length, 4);
  });

  test('takes HTTPS on the public internet only, unless told otherwise', () => {
    const guarded = createWebhookNotifier({ allowPrivate: false });
    for (const token of [
      'not a url',
      'http://example.org/',
      'ftp://example.org/',
      'https://user:secret@example.org/',
      'https://example.org:22/',
      'https://127.0.0.1/',
      'https://0x7f.1/',
      'https://2130706433/',
      'https://[::1]/',
      'https://[::ffff:10.0.0.1]/',
      'https://169.254.169.254/latest/meta-data',
    ]) {
      assert.notEqual(guarded.objectionTo(token), undefined, token);
    }
    for (const token of ['https://push.example.org/token', 'https://1.1.1.1:8443/x', 'https://[2606:4700::1111]/']) {
      assert.equal(guarded.objectionTo(token), undefined, token);
    }
    for (const address of [
      '10.1.2.3',
      '100.64.0.1',
      '172.31.0.1',
      '192.168.1.1',
      '0.0.0.0',
      '224.0.0.1',
      '255.255.255.255',
    ]) {
      assert.equal(isPublic(address), false, address);
    }
    for (const address of [
      '::1',
      '::',
      'fe80::1',
      'fc00::1',
      'ff02::1',
      '::ffff:8.8.8.8',
      '64:ff9b::a00:1',
      '2001:db8::1',
      '2002:a00:1::',
    ]) {
      assert.equal(isPublic(address), false, address);
    }
    assert.equal(isPublic('9.9.9.9'), true);
  });
});
