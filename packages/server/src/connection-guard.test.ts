// Who may have a connection, and for how long without logging in.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { methods, RpcError } from '@quicprochat/transport';
import { Status } from '@quicprochat/proto';
import { ConnectionGuard, endIdle } from './connection-guard.ts';
import { newConnectionState } from './context.ts';
import type { ClientConnection, ConnectionState } from './context.ts';
import { NO_OBSERVER } from './observer.ts';
import type { Observer } from './observer.ts';
import { DEFAULT_RATES } from './rate-limits.ts';
import { TestClock, World } from './testing/world.node.ts';

function counting() {
  const turnedAway: string[] = [];
  const observer: Observer = { ...NO_OBSERVER, turnedAway: (why) => turnedAway.push(why) };
  return { turnedAway, observer };
}

test('THREATS 24: so many connections of one network address, whatever the port; others are not concerned', () => {
  const { observer, turnedAway } = counting();
  const limits = { perAddressMax: 3, connects: DEFAULT_RATES.connects };
  const guard = new ConnectionGuard(new TestClock(), limits, observer);
  const left = [1, 2, 3].map((port) => guard.admit(`192.0.2.1:${port}`));
  assert.ok(left.every((each) => each !== undefined));
  assert.equal(guard.admit('192.0.2.1:4'), undefined);
  assert.ok(guard.admit('192.0.2.2:1') !== undefined);
  const household = ['[2001:db8::1]:1', '[2001:db8::2]:1', '[2001:db8:0:0:ffff::3]:9'].map(guard.admit);
  assert.ok(household.every((each) => each !== undefined));
  assert.equal(guard.admit('[2001:db8::4]:1'), undefined, 'one /64 is one household');
  assert.deepEqual(turnedAway, ['address', 'address']);
  // An end that is told twice frees one place.
  left[0]?.();
  left[0]?.();
  assert.ok(guard.admit('192.0.2.1:5') !== undefined);
  assert.equal(guard.admit('192.0.2.1:6'), undefined);
  for (const each of [...left, ...household]) each?.();
  assert.equal(guard.size, 2, 'who has none left is forgotten');
});

test('THREATS 24: connecting over and over is limited, too', () => {
  const { observer, turnedAway } = counting();
  const clock = new TestClock();
  const guard = new ConnectionGuard(clock, { perAddressMax: 100, connects: { burst: 5, perHour: 3_600 } }, observer);
  for (let i = 0; i < 5; i++) guard.admit('192.0.2.1:1')?.();
  assert.equal(guard.admit('192.0.2.1:1'), undefined);
  clock.advance(1_001);
  assert.ok(guard.admit('192.0.2.1:1') !== undefined);
  assert.deepEqual(turnedAway, ['rate']);
});

/** A connection as `endIdle` sees one. */
function connectionOf(clock: TestClock, change: Partial<ConnectionState> = {}) {
  const closed: string[] = [];
  const state = { ...newConnectionState(clock, { peer: '192.0.2.1:1' }), ...change };
  const connection = { state, close: (_code: number, reason: string) => void closed.push(reason) };
  return { connection: connection as unknown as ClientConnection, closed };
}

test('THREATS 24: a connection that nobody logs in on ends; one with a device’s session does not', () => {
  const { observer, turnedAway } = counting();
  const clock = new TestClock();
  const idle = connectionOf(clock);
  const login = { expiresAt: clock.now() + 60_000 } as never;
  const pending = connectionOf(clock, { logins: new Map([['abandoned', login]]) });
  const limited = connectionOf(clock, { session: { kind: 'recovery', username: 'x1', record: new Uint8Array(0) } });
  const device = connectionOf(clock, { session: { kind: 'device' } as never });
  const all = [idle, pending, limited, device].map(({ connection }) => connection);
  clock.advance(61_000);
  // The one in the middle of its registration has just asked for something.
  pending.connection.state.usedAt = clock.now();
  clock.advance(60_000);
  endIdle(all, clock.now(), 120_000, observer);
  assert.equal(pending.connection.state.logins.size, 0, 'an abandoned login is forgotten');
  assert.deepEqual(
    [idle, pending, limited, device].map(({ closed }) => closed.length),
    [1, 0, 1, 0],
  );
  assert.deepEqual(turnedAway, ['idle', 'idle']);
});

test('at the server: who does nothing is sent away, before logging in and after logging out', async () => {
  const { observer, turnedAway } = counting();
  const world = await World.start({ loginDeadlineMs: 300, observer: () => observer });
  try {
    const member = await world.login(await world.register('member'));
    await world.connect().closed;
    await member.call(methods.device.listDevices, {});
    await member.call(methods.auth.logout, {});
    await member.closed;
    assert.deepEqual(turnedAway, ['idle', 'idle']);
  } finally {
    await world.close();
  }
});

const limited = async (promise: Promise<unknown>): Promise<boolean> => {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error === undefined) return false;
  assert.ok(error instanceof RpcError && error.status === Status.RATE_LIMITED, String(error));
  assert.ok(error.retryAfterMs > 0);
  return true;
};

test('THREATS 24, 27: each class of calls has its bucket, and one’s is not another’s', async () => {
  const limits: string[] = [];
  const observer: Observer = { ...NO_OBSERVER, limited: (limit) => limits.push(limit) };
  const few = { burst: 4, perHour: 4 };
  const world = await World.start({
    observer: () => observer,
    rates: {
      calls: { burst: 40, perHour: 40 },
      anonymous: few,
      enqueues: few,
      changes: few,
      resolvesFromAddress: few,
      reads: few,
    },
  });
  try {
    const [alice, bob] = [await world.register('alice'), await world.register('bob')];
    // A session costs two calls without one.
    const a = await world.login(alice);
    const b = await world.login(bob);
    assert.ok(await limited(world.connect().call(methods.p2p.health, {})), 'anonymous, per address');
    const { identityKey, deviceId } = alice.address;
    const toAlice = () => ({ recipientKey: identityKey, deviceId, payload: large(600), messageId: crypto.random(16) });
    const batch = () => ({
      recipients: [{ address: alice.address }],
      payload: large(600),
      messageId: crypto.random(16),
    });
    for (let i = 0; i < 2; i++) {
      await a.call(methods.delivery.enqueue, toAlice());
      await a.call(methods.delivery.batchEnqueue, batch());
    }
    assert.ok(await limited(a.call(methods.delivery.enqueue, toAlice())));
    assert.ok(await limited(a.call(methods.delivery.batchEnqueue, batch())));
    await b.call(methods.delivery.enqueue, toAlice());
    for (let i = 0; i < 4; i++) await a.call(methods.p2p.publishEndpoint, {});
    assert.ok(await limited(a.call(methods.p2p.publishEndpoint, {})));
    for (let i = 0; i < 4; i++) await a.call(methods.device.listDevices, {});
    assert.ok(await limited(a.call(methods.keys.checkRevocation, { addresses: [alice.address] })));
    for (let i = 0; i < 4; i++) await b.call(methods.user.resolveUser, { username: 'alice' });
    assert.ok(await limited(a.call(methods.user.resolveUser, { username: 'bob' })), 'per address, whoever asks');
    while (!(await limited(b.call(methods.p2p.health, {}))));
    await a.call(methods.p2p.health, {});
    const expected = ['anonymous', 'enqueues', 'enqueues', 'changes', 'reads', 'resolvesFromAddress', 'calls'];
    assert.deepEqual(limits, expected);
  } finally {
    await world.close();
  }
});

test('THREATS 27: bytes of messages and files are limited per account', async () => {
  const some = { burst: 600, perHour: 600 };
  const world = await World.start({ rates: { enqueueKib: some, uploadKib: some, downloadKib: some } });
  try {
    const alice = await world.register('alice');
    const a = await world.login(alice);
    const { identityKey, deviceId } = alice.address;
    const message = (bytes: number) =>
      a.call(methods.delivery.enqueue, {
        recipientKey: identityKey,
        deviceId,
        payload: large(bytes),
        messageId: crypto.random(16),
      });
    await message(500 * 1024);
    assert.ok(await limited(message(150 * 1024)));
    await message(40 * 1024);

    const blob = crypto.random(3 * 256 * 1024);
    const blobId = crypto.hash('sha256', blob);
    const { uploadBlob, downloadBlob } = methods.blob;
    const upload = (i: number) =>
      a.call(uploadBlob, {
        blobId,
        size: BigInt(blob.length),
        offset: BigInt(i * 256 * 1024),
        chunk: blob.subarray(i * 256 * 1024, (i + 1) * 256 * 1024),
      });
    await upload(0);
    await upload(1);
    assert.ok(await limited(upload(2)));
    world.clock.advance(3_600_000);
    assert.equal((await upload(2)).complete, true);
    const download = () => a.call(downloadBlob, { blobId, offset: 0n, length: 0 });
    await download();
    await download();
    assert.ok(await limited(download()));
  } finally {
    await world.close();
  }
});

function large(bytes: number): Uint8Array {
  const payload = new Uint8Array(Math.max(bytes, 1_149)).fill(7);
  payload[0] = 1;
  return payload;
}
