// KeyPackages, hybrid keys, devices, look-ups: what people need to reach each other.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { signHybridKey } from '@quicprochat/core';
import { fromBinary } from '@bufbuild/protobuf';
import { encodeHex } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { RegisterDeviceBodySchema, Status, UploadHybridKeyBodySchema } from '@quicprochat/proto';
import { methods, RpcError } from '@quicprochat/transport';
import { ORIGIN, World } from '../../testing/world.node.ts';
import type { Person, TestConnection } from '../../testing/world.node.ts';

const { keys, device, user } = methods;
const DAY_SECS = 86_400;

let world: World;
let alice: Person;
let bob: Person;
let a: TestConnection;
let b: TestConnection;

before(async () => {
  world = await World.start({ limits: { keyPackagesPerSuite: 10, devicesPerAccount: 3 } });
  alice = await world.register('alice');
  bob = await world.register('bob');
  a = await world.login(alice);
  b = await world.login(bob);
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
const upload = (suite: number, lastResort = false) => ({
  keyPackage: crypto.random(300),
  suite,
  notAfter: BigInt(nowSecs() + 30 * DAY_SECS),
  lastResort,
});

describe('KeyPackages', () => {
  test('each is handed out once; then the last-resort package, again and again; then nothing', async () => {
    const packages = [upload(1), upload(1), upload(1, true)];
    assert.equal((await b.call(keys.uploadKeyPackage, { keyPackages: packages })).added, 3);
    assert.equal((await b.call(keys.uploadKeyPackage, { keyPackages: packages })).added, 0, 'a repeat changes nothing');
    const counts = async () => (await b.call(keys.countKeyPackages, {})).counts;
    assert.deepEqual(
      (await counts()).map((c) => [c.suite, c.available, c.lastResort, c.lastResortUsed]),
      [[1, 2, true, false]],
    );
    const fetched = [];
    for (let i = 0; i < 4; i++) {
      const { keyPackages } = await a.call(keys.fetchKeyPackage, { identityKey: bob.address.identityKey, suite: 1 });
      fetched.push(...keyPackages);
    }
    assert.deepEqual(
      fetched.map((f) => f.lastResort),
      [false, false, true, true],
    );
    assert.deepEqual(new Set(fetched.map((f) => hex(f.keyPackage))), new Set(packages.map((p) => hex(p.keyPackage))));
    assert.deepEqual(
      (await counts()).map((c) => [c.available, c.lastResortUsed]),
      [[0, true]],
    );
    const other = await a.call(keys.fetchKeyPackage, { identityKey: bob.address.identityKey, suite: 2 });
    assert.deepEqual(other.devicesWithout.map(hex), [hex(bob.address.deviceId)]);
  });

  test('THREATS 15: concurrent fetches never get the same one', async () => {
    const carol = await world.register('carol');
    const c = await world.login(carol);
    await c.call(keys.uploadKeyPackage, { keyPackages: Array.from({ length: 10 }, () => upload(1)) });
    const answers = await Promise.all(
      Array.from({ length: 10 }, (_, i) =>
        [a, b][i % 2]!.call(keys.fetchKeyPackage, { identityKey: carol.address.identityKey, suite: 1 }),
      ),
    );
    const got = answers.flatMap((answer) => answer.keyPackages.map((k) => hex(k.keyPackage)));
    assert.equal(new Set(got).size, 10);
  });

  test('THREATS 15: ten an hour per requester and target, two thousand a day per requester', async () => {
    const strict = await World.start({
      rates: { keyPackagesOfOne: { burst: 10, perHour: 10 }, keyPackages: { burst: 12, perHour: 83 } },
    });
    try {
      const [one, target, another] = [
        await strict.register('one'),
        await strict.register('target'),
        await strict.register('another'),
      ];
      const connection = await strict.login(one);
      const fetch = (person: Person) =>
        connection.call(keys.fetchKeyPackage, { identityKey: person.address.identityKey, suite: 1 });
      for (let i = 0; i < 10; i++) await fetch(target);
      assert.equal((await refusal(fetch(target))).status, Status.RATE_LIMITED);
      for (let i = 0; i < 2; i++) await fetch(another);
      assert.equal((await refusal(fetch(another))).status, Status.RATE_LIMITED);
      strict.clock.advance(3_600_000 / 10 + 1);
      await fetch(target);
      const someoneElse = await strict.login(another);
      await someoneElse.call(keys.fetchKeyPackage, { identityKey: target.address.identityKey, suite: 1 });
    } finally {
      await strict.close();
    }
  });

  test('a full shelf, an expired package, one too old, too large or empty, and too many are refused', async () => {
    const dave = await world.login(await world.register('dave'));
    const put = (...keyPackages: ReturnType<typeof upload>[]) => dave.call(keys.uploadKeyPackage, { keyPackages });
    await put(...Array.from({ length: 10 }, () => upload(1)));
    assert.equal((await refusal(put(upload(1)))).status, Status.EXHAUSTED);
    const refused: [object, number][] = [
      [{ notAfter: BigInt(nowSecs() - 1) }, Status.INVALID_ARGUMENT],
      [{ notAfter: BigInt(nowSecs() + 100 * DAY_SECS) }, Status.INVALID_ARGUMENT],
      [{ notAfter: 2n ** 63n }, Status.INVALID_ARGUMENT],
      [{ keyPackage: new Uint8Array(0) }, Status.INVALID_ARGUMENT],
      [{ keyPackage: new Uint8Array(12 * 1024 + 1) }, Status.TOO_LARGE],
      [{ suite: 0 }, Status.INVALID_ARGUMENT],
      [{ suite: 65_536 }, Status.INVALID_ARGUMENT],
    ];
    for (const [change, status] of refused) {
      assert.equal((await refusal(put({ ...upload(2), ...change }))).status, status, Object.keys(change).join());
    }
    const many = Array.from({ length: 101 }, () => upload(3));
    assert.equal((await refusal(put(...many))).status, Status.INVALID_ARGUMENT);
    const nobody = a.call(keys.fetchKeyPackage, { identityKey: crypto.random(32), suite: 1 });
    assert.equal((await refusal(nobody)).status, Status.NOT_FOUND);
  });
});

test('THREATS 15, 27: a device fills sixteen shelves and no more, also when it hurries', async () => {
  const erin = await world.login(await world.register('shelf-filler'));
  const put = (...keyPackages: ReturnType<typeof upload>[]) => erin.call(keys.uploadKeyPackage, { keyPackages });
  await put(...Array.from({ length: 15 }, (_, i) => upload(i + 1)));
  const hurried = await Promise.allSettled([16, 17, 18, 19].map((suite) => put(upload(suite))));
  assert.equal(hurried.filter((each) => each.status === 'fulfilled').length, 1);
  assert.equal((await refusal(put(upload(20)))).status, Status.EXHAUSTED);
  await put(upload(1), upload(1, true));
  assert.equal((await erin.call(keys.countKeyPackages, {})).counts.length, 16);
  // Each one that is replaced leaves a trace until it expires.
  assert.equal((await refusal(put(upload(1, true), upload(1, true)))).status, Status.INVALID_ARGUMENT);
});

test('THREATS 27: uploads of KeyPackages are limited per device', async () => {
  const strict = await World.start({ rates: { keyPackageUploads: { burst: 2, perHour: 2 } } });
  try {
    const connection = await strict.login(await strict.register('frank'));
    const put = () => connection.call(keys.uploadKeyPackage, { keyPackages: [upload(1, true)] });
    await put();
    await put();
    assert.equal((await refusal(put())).status, Status.RATE_LIMITED);
  } finally {
    await strict.close();
  }
});

describe('hybrid keys', () => {
  const statement = (person: Person, serial: bigint, change: { device?: Person['device']; origin?: string } = {}) =>
    signHybridKey(crypto, (change.device ?? person.device).privateKey, {
      origin: change.origin ?? ORIGIN,
      address: person.address,
      publicKey: crypto.random(1_216),
      serial,
      notBeforeSecs: nowSecs() - 60,
      notAfterSecs: nowSecs() + 30 * DAY_SECS,
    });
  const body = (hybridKey: Uint8Array, serial: bigint) => ({
    hybridKey,
    serial,
    notAfter: BigInt(nowSecs() + 30 * DAY_SECS),
  });
  const method = keys.uploadHybridKey;
  const signed = (person: Person, hybridKey: Uint8Array, serial: bigint, key = person.device, timeMs?: number) => ({
    signed: world.sign(key, method.id, UploadHybridKeyBodySchema, body(hybridKey, serial), timeMs),
  });

  test('are published, fetched with their certificates, and replaced by a higher serial only', async () => {
    const first = statement(alice, 1n);
    await a.call(method, signed(alice, first, 1n));
    const second = statement(alice, 2n);
    await a.call(method, signed(alice, second, 2n));
    const { keys: found } = await b.call(keys.fetchHybridKey, { identityKey: alice.address.identityKey });
    assert.deepEqual(
      found.map((k) => hex(k.hybridKey)),
      [hex(second)],
    );
    assert.equal(hex(found[0]?.deviceCertificate), hex(alice.certificate));
    assert.equal((await refusal(a.call(method, signed(alice, statement(alice, 2n), 2n)))).status, Status.CONFLICT);
    const many = await b.call(keys.fetchHybridKeys, {
      addresses: [alice.address, bob.address, { identityKey: crypto.random(32) }],
    });
    assert.deepEqual(
      many.keys.map((k) => hex(k.hybridKey)),
      [hex(second)],
    );
  });

  test('THREATS 12: a signed request is used once; its own retry is answered alike', async () => {
    const request = signed(bob, statement(bob, 1n), 1n);
    await b.call(method, request);
    await b.call(method, request);
    await b.call(method, signed(bob, statement(bob, 2n), 2n));
    assert.equal((await refusal(b.call(method, request))).status, Status.CONFLICT);
  });

  test('THREATS 1: nothing but the device’s own signature, for this server, method, body and time, is taken', async () => {
    const good = statement(alice, 9n);
    const { signed: request } = signed(alice, good, 9n);
    const other = await world.register('other');
    const cases: [string, object, number][] = [
      ['signed by the identity key', signed(alice, good, 9n, alice.identity), Status.UNAUTHENTICATED],
      [
        'for another method',
        { signed: world.sign(alice.device, 700, UploadHybridKeyBodySchema, body(good, 9n)) },
        Status.UNAUTHENTICATED,
      ],
      ['another body', { signed: { ...request, body: request.body.slice(1) } }, Status.UNAUTHENTICATED],
      ['another time', { signed: { ...request, timeMs: request.timeMs + 1n } }, Status.UNAUTHENTICATED],
      ['no signature', {}, Status.INVALID_ARGUMENT],
      ['too old', signed(alice, good, 9n, alice.device, world.clock.wallMs() - 300_001), Status.INVALID_ARGUMENT],
      [
        'from the future',
        signed(alice, good, 9n, alice.device, world.clock.wallMs() + 301_000),
        Status.INVALID_ARGUMENT,
      ],
      ['a statement of another device', signed(alice, statement(other, 9n), 9n), Status.INVALID_ARGUMENT],
      [
        'a statement by another key',
        signed(alice, statement(alice, 9n, { device: other.device }), 9n),
        Status.INVALID_ARGUMENT,
      ],
      [
        'a statement for another server',
        signed(alice, statement(alice, 9n, { origin: 'else' }), 9n),
        Status.INVALID_ARGUMENT,
      ],
      ['another serial than stated', signed(alice, good, 10n), Status.INVALID_ARGUMENT],
      ['noise', signed(alice, crypto.random(1_400), 9n), Status.INVALID_ARGUMENT],
    ];
    for (const [name, change, status] of cases) {
      assert.equal((await refusal(a.call(method, change))).status, status, name);
    }
    await a.call(method, { signed: request });
  });
});

describe('devices', () => {
  const method = device.registerDevice;
  const request = async (person: Person, key: Person['identity'], name = 'phone') => {
    const accountStatement = await world.statement(person, { add: person.certificate });
    const body = { deviceCertificate: person.certificate, name, accountStatement };
    return { signed: world.sign(key, method.id, RegisterDeviceBodySchema, body) };
  };

  test('a manager adds one, a retry changes nothing, and the list shows both in order', async () => {
    const erin = await world.register('erin');
    const connection = await world.login(erin);
    const phone = world.newDevice(erin);
    const added = await request(phone, erin.identity);
    await connection.call(method, added);
    await connection.call(method, added);
    // Signed anew, with the statement that stands.
    const { accountStatement } = fromBinary(RegisterDeviceBodySchema, added.signed.body);
    const again = { deviceCertificate: phone.certificate, accountStatement };
    const signed = world.sign(erin.identity, method.id, RegisterDeviceBodySchema, again);
    await connection.call(method, { signed });
    const { devices } = await connection.call(device.listDevices, {});
    assert.deepEqual(
      devices.map((d) => [hex(d.deviceId), d.name]),
      [
        [hex(erin.address.deviceId), 'test'],
        [hex(phone.address.deviceId), 'phone'],
      ],
    );
    assert.equal(devices[0]!.lastSeenDayMs % 86_400_000n, 0n);
    // The new device logs in by itself.
    await world.login(phone);
    await connection.call(method, await request(world.newDevice(erin), erin.identity));
    const fourth = await refusal(connection.call(method, await request(world.newDevice(erin), erin.identity)));
    assert.equal(fourth.status, Status.EXHAUSTED);
  });

  test('THREATS 1: a session alone adds no device: it takes the identity key', async () => {
    const fresh = world.newDevice(alice);
    const byDevice = await refusal(a.call(method, await request(fresh, alice.device)));
    assert.equal(byDevice.status, Status.UNAUTHENTICATED);
    const foreign = world.newDevice({ username: 'alice', identity: bob.identity });
    assert.equal(
      (await refusal(a.call(method, await request(foreign, alice.identity)))).status,
      Status.INVALID_ARGUMENT,
    );
    const otherName = world.newDevice({ username: 'bob', identity: alice.identity });
    assert.equal(
      (await refusal(a.call(method, await request(otherName, alice.identity)))).status,
      Status.INVALID_ARGUMENT,
    );
    assert.equal((await a.call(device.listDevices, {})).devices.length, 1);
  });

  test('a device id that is taken keeps its certificate', async () => {
    const { deviceId } = alice.address;
    const clone = world.newDevice(alice, false, deviceId);
    const error = await refusal(a.call(method, await request(clone, alice.identity)));
    assert.equal(error.status, Status.ALREADY_EXISTS);
    assert.equal(hex((await a.call(device.listDevices, {})).devices[0]?.deviceCertificate), hex(alice.certificate));
  });
});

describe('look-ups', () => {
  test('by name and by identity give the same account; unknown ones are unknown', async () => {
    const byName = await a.call(user.resolveUser, { username: 'bob' });
    const byKey = await a.call(user.resolveIdentity, { identityKey: bob.address.identityKey });
    assert.ok(byName.outcome.case === 'found' && byKey.outcome.case === 'found');
    assert.deepEqual(byName.outcome.value, byKey.outcome.value);
    assert.equal(hex(byName.outcome.value.deviceCertificates[0]), hex(bob.certificate));
    assert.equal((await a.call(user.resolveUser, { username: 'nobody' })).outcome.case, 'unknown');
    assert.equal((await a.call(user.resolveIdentity, { identityKey: crypto.random(32) })).outcome.case, 'unknown');
  });

  test('THREATS 17: are limited per account', async () => {
    const strict = await World.start({ rates: { resolves: { burst: 2, perHour: 3_600 } } });
    try {
      const person = await strict.register('alice');
      const [one, other] = [await strict.login(person), await strict.login(person)];
      await one.call(user.resolveUser, { username: 'alice' });
      await other.call(user.resolveUser, { username: 'alice' });
      assert.equal((await refusal(one.call(user.resolveUser, { username: 'alice' }))).status, Status.RATE_LIMITED);
    } finally {
      await strict.close();
    }
  });
});
