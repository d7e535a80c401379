// Account statements: the next one, signed by the identity key, saying exactly what the account is after the call.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  CERTIFICATE_LIFETIME_SECS,
  LogMirror,
  openCheckpoint,
  parseAccountStatement,
  signAccountStatement,
  signDeviceCertificate,
  signRevocation,
  verifyResolve,
} from '@quicprochat/core';
import type { AccountStatement, ResolvedAccount } from '@quicprochat/core';
import { encodeHex } from '@quicprochat/crypto';
import type { KeyPair } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { DeleteAccountBodySchema, RegisterDeviceBodySchema, RevokeDeviceBodySchema, Status } from '@quicprochat/proto';
import type { Account } from '@quicprochat/proto';
import { methods, RpcError } from '@quicprochat/transport';
import { ORIGIN, World } from '../../testing/world.node.ts';
import type { Person, TestConnection } from '../../testing/world.node.ts';

const { device, account, user, keys } = methods;

let world: World;
let watcher: TestConnection;
before(async () => {
  world = await World.start();
  watcher = await world.login(await world.register('watcher'));
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

const statusOf = async (promise: Promise<unknown>) => (await refusal(promise)).status;

function registerDevice(connection: TestConnection, of: Person, certificate: Uint8Array, accountStatement: Uint8Array) {
  const body = { deviceCertificate: certificate, accountStatement };
  const signed = world.sign(of.identity, device.registerDevice.id, RegisterDeviceBodySchema, body);
  return connection.call(device.registerDevice, { signed });
}

function revocationOf(of: Person, signer: 'identity' | 'device'): Uint8Array {
  const { address } = of;
  return signRevocation(crypto, of[signer].privateKey, {
    origin: ORIGIN,
    address,
    deviceKey: of.device.publicKey,
    signer,
    revokedAtSecs: Math.floor(world.clock.wallMs() / 1000),
  });
}

function revokeDevice(connection: TestConnection, of: Person, key: KeyPair, body: Partial<Record<string, Uint8Array>>) {
  const { deviceId } = of.address;
  const signed = world.sign(key, device.revokeDevice.id, RevokeDeviceBodySchema, { deviceId, ...body });
  return connection.call(device.revokeDevice, { signed });
}

/** A later certificate of the same device, or of another key under its id. */
function certificateOf(of: Person, serial: bigint, deviceKey = of.device.publicKey): Uint8Array {
  const nowSecs = Math.floor(world.clock.wallMs() / 1000);
  return signDeviceCertificate(crypto, of.identity.privateKey, {
    origin: ORIGIN,
    username: of.username,
    identityKey: of.identity.publicKey,
    deviceId: of.address.deviceId,
    deviceKey,
    manager: true,
    serial,
    notBeforeSecs: nowSecs - 60,
    notAfterSecs: nowSecs - 60 + CERTIFICATE_LIFETIME_SECS,
  });
}

/** The statement with something in it changed, and signed again. */
function changed(of: Person, statement: Uint8Array, change: Partial<AccountStatement>): Uint8Array {
  const { claims } = parseAccountStatement(statement)!;
  return signAccountStatement(crypto, of.identity.privateKey, { ...claims, ...change } as AccountStatement);
}

async function found(username: string): Promise<Account> {
  const { outcome } = await watcher.call(user.resolveUser, { username });
  assert.ok(outcome.case === 'found');
  return outcome.value;
}

async function resolved(username: string): Promise<ResolvedAccount> {
  const { keyTransparency } = await found(username);
  assert.ok(keyTransparency !== undefined);
  const outcome = verifyResolve(crypto, world.keyTransparency.pinned, username, keyTransparency);
  assert.ok(outcome.kind === 'verified', outcome.kind === 'refused' ? outcome.detail : '');
  return outcome.account;
}

/** What anybody sees of an account in the whole log: no finding, and this answer is the newest. */
async function assertCurrent(resolvedAccount: ResolvedAccount): Promise<void> {
  const { pinned } = world.keyTransparency;
  const mirror = new LogMirror(crypto, pinned);
  const head = openCheckpoint(crypto, (await watcher.call(keys.getTreeHead, {})).checkpoint, pinned);
  assert.ok(head.kind === 'verified');
  const start = mirror.update(head.checkpoint);
  assert.ok(start.kind === 'behind');
  assert.equal(start.update.append((await watcher.call(keys.auditKeyTransparency, {})).entries).kind, 'complete');
  assert.deepEqual(mirror.indexFindings, []);
  assert.equal(mirror.checkResolved(resolvedAccount, mirror.size).kind, 'current');
}

describe('a statement that is not the next one, or not the truth, is refused', () => {
  test('whatever of it is wrong', async () => {
    const alice = await world.register('alice');
    const a = await world.login(alice);
    const phone = world.newDevice(alice);
    const good = await world.statement(alice, { add: phone.certificate });
    const mallory = world.newPerson('mallory');
    const stranger = world.newDevice({ username: 'alice', identity: mallory.identity }).certificate;
    const revocation = revocationOf(world.newDevice(alice), 'identity');
    const cases: [string, Uint8Array, number][] = [
      ['missing', new Uint8Array(0), Status.INVALID_ARGUMENT],
      ['noise', crypto.random(400), Status.INVALID_ARGUMENT],
      [
        'a bit of the signature',
        good.map((byte, i) => (i === good.length - 1 ? byte ^ 1 : byte)),
        Status.INVALID_ARGUMENT,
      ],
      ['signed by another key', changed(mallory, good, {}), Status.INVALID_ARGUMENT],
      ['of another server', changed(alice, good, { origin: 'else' }), Status.INVALID_ARGUMENT],
      ['of another account', changed(alice, good, { username: 'bob' }), Status.INVALID_ARGUMENT],
      [
        'by another identity',
        changed(alice, good, { identityKey: mallory.identity.publicKey }),
        Status.INVALID_ARGUMENT,
      ],
      ['with a stranger’s device', changed(alice, good, { certificates: [stranger] }), Status.INVALID_ARGUMENT],
      ['an old version', changed(alice, good, { version: 0 }), Status.CONFLICT],
      ['a version left out', changed(alice, good, { version: 2 }), Status.CONFLICT],
      ['another history', changed(alice, good, { history: crypto.random(32) }), Status.CONFLICT],
      ['without the new device', changed(alice, good, { certificates: [alice.certificate] }), Status.CONFLICT],
      ['without the old one', changed(alice, good, { certificates: [phone.certificate] }), Status.CONFLICT],
      ['with a revocation nobody made', changed(alice, good, { revocations: [revocation] }), Status.CONFLICT],
      ['the end of the account', await world.statement(alice, { deleted: true }), Status.CONFLICT],
    ];
    for (const [name, statement, status] of cases) {
      assert.equal(await statusOf(registerDevice(a, alice, phone.certificate, statement)), status, name);
    }
    assert.equal((await resolved('alice')).version, 0, 'nothing of it was entered');
    await registerDevice(a, alice, phone.certificate, good);
    assert.equal((await resolved('alice')).version, 1);
    const third = world.newDevice(alice);
    // The statement that stands does not cover another device.
    assert.equal(await statusOf(registerDevice(a, alice, third.certificate, good)), Status.CONFLICT);
  });

  test('of two devices that sign the same version at the same time one hears of a conflict', async () => {
    const bob = await world.register('bob');
    const connections = await Promise.all([world.login(bob), world.login(bob)]);
    const devices = [world.newDevice(bob), world.newDevice(bob)];
    const attempts = await Promise.allSettled(
      devices.map(async ({ certificate }, i) => {
        const statement = await world.statement(bob, { add: certificate });
        return registerDevice(connections[i]!, bob, certificate, statement);
      }),
    );
    const refused = attempts.filter((attempt) => attempt.status === 'rejected');
    assert.equal(refused.length, 1);
    assert.equal((refused[0]!.reason as RpcError).status, Status.CONFLICT);
    const account = await resolved('bob');
    assert.deepEqual([account.version, account.certificates.length], [1, 2]);
    assert.equal((await found('bob')).deviceCertificates.length, 2, 'account and log say the same');
    await assertCurrent(account);
  });
});

describe('what a revocation states', () => {
  test('by the identity key: the account without the device, and the revocation', async () => {
    const carol = await world.register('carol');
    const phone = await world.addDevice(carol);
    const c = await world.login(carol);
    const revocation = revocationOf(phone, 'identity');
    const { deviceId: remove } = phone.address;
    const without = await world.statement(carol, { remove });
    assert.equal(await statusOf(revokeDevice(c, phone, carol.identity, { revocation })), Status.INVALID_ARGUMENT);
    const silent = revokeDevice(c, phone, carol.identity, { revocation, accountStatement: without });
    assert.equal(await statusOf(silent), Status.CONFLICT, 'it has to list the revocation');
    const still = await world.statement(carol, { revocation });
    const contradicting = revokeDevice(c, phone, carol.identity, { revocation, accountStatement: still });
    assert.equal(await statusOf(contradicting), Status.INVALID_ARGUMENT, 'a device is current or revoked');
    const accountStatement = await world.statement(carol, { remove, revocation });
    await revokeDevice(c, phone, carol.identity, { revocation, accountStatement });
    const account = await resolved('carol');
    assert.deepEqual([account.version, account.certificates.length, account.revocations.length], [2, 1, 1]);
    const { revocations } = await found('carol');
    assert.deepEqual(revocations.map(encodeHex), [encodeHex(revocation)]);
    await assertCurrent(account);
  });

  test('by a device itself: nothing, until the identity key states the account anew', async () => {
    const dave = await world.register('dave');
    const phone = await world.addDevice(dave);
    const [d, p] = [await world.login(dave), await world.login(phone)];
    const revocation = revocationOf(phone, 'device');
    const outdated = await world.statement(dave, { add: world.newDevice(dave).certificate });
    const claimed = revokeDevice(p, phone, phone.device, { revocation, accountStatement: outdated });
    assert.equal(await statusOf(claimed), Status.INVALID_ARGUMENT);
    await revokeDevice(p, phone, phone.device, { revocation });
    assert.equal((await resolved('dave')).certificates.length, 2, 'the log still has it');
    assert.equal((await found('dave')).revocations.length, 1, 'and the revocation is there to see');

    const tablet = world.newDevice(dave);
    const unaware = changed(dave, await world.statement(dave, { add: tablet.certificate }), { revocations: [] });
    assert.equal(await statusOf(registerDevice(d, dave, tablet.certificate, unaware)), Status.CONFLICT);
    await registerDevice(d, dave, dave.certificate, await world.statement(dave));
    const account = await resolved('dave');
    assert.deepEqual([account.version, account.certificates.length, account.revocations.length], [2, 1, 1]);
    await assertCurrent(account);
  });

  test('of many the newest 32, oldest first; the log and Resolve list the same', async () => {
    const erin = await world.register('erin');
    const e = await world.login(erin);
    for (let i = 0; i < 34; i++) {
      const never = world.newDevice(erin);
      const revocation = revocationOf(never, 'identity');
      const whole = await world.statement(erin, { revocation });
      const { claims } = parseAccountStatement(whole)!;
      const revocations = claims.kind === 'keys' ? claims.revocations.slice(-32) : [];
      world.clock.advance(1);
      const accountStatement = changed(erin, whole, { revocations });
      await revokeDevice(e, never, erin.identity, { revocation, accountStatement });
    }
    const account = await resolved('erin');
    const { revocations } = await found('erin');
    assert.equal(revocations.length, 32);
    assert.deepEqual(
      account.revocations.map(({ bytes }) => encodeHex(bytes)),
      revocations.map(encodeHex),
    );
  });
});

describe('RegisterDevice for a device that is there', () => {
  test('a later certificate for the same key takes the place of the one before', async () => {
    const frank = await world.register('frank');
    const f = await world.login(frank);
    const renewed = certificateOf(frank, 2n);
    const { deviceId: remove } = frank.address;
    const state = (add: Uint8Array) => world.statement(frank, { remove, add });
    const otherKey = certificateOf(frank, 3n, world.newPerson('x1').device.publicKey);
    assert.equal(await statusOf(registerDevice(f, frank, otherKey, await state(otherKey))), Status.ALREADY_EXISTS);
    assert.equal(await statusOf(registerDevice(f, frank, renewed, await world.statement(frank))), Status.CONFLICT);
    const statement = await state(renewed);
    await registerDevice(f, frank, renewed, statement);
    await registerDevice(f, frank, renewed, statement);
    for (const [what, serial] of [
      ['an earlier one', 1n],
      ['another one of the same serial', 2n],
    ] as const) {
      world.clock.advance(1_000);
      const old = certificateOf(frank, serial);
      assert.equal(await statusOf(registerDevice(f, frank, old, await state(old))), Status.ALREADY_EXISTS, what);
    }
    const account = await resolved('frank');
    assert.deepEqual([account.version, account.certificates[0]?.serial], [1, 2n]);
    const { devices } = await f.call(device.listDevices, {});
    assert.equal(encodeHex(devices[0]!.deviceCertificate), encodeHex(renewed));
    await world.login(frank);
    await assertCurrent(account);
  });

  test('an account from before the log enters it by stating itself', async () => {
    const grace = world.newPerson('grace');
    await world.registerUnstated(grace);
    const g = await world.login(grace);
    assert.equal((await found('grace')).keyTransparency, undefined);
    await registerDevice(g, grace, grace.certificate, await world.statement(grace));
    const account = await resolved('grace');
    assert.deepEqual([account.version, account.certificates.length], [0, 1]);
    await assertCurrent(account);
  });
});

test('THREATS 27: nobody fills the log with statements', async () => {
  const strict = await World.start({ rates: { statements: { burst: 2, perHour: 3_600 } } });
  try {
    const ivan = await strict.register('ivan');
    const connection = await strict.login(ivan);
    const again = async () => {
      const body = { deviceCertificate: ivan.certificate, accountStatement: await strict.statement(ivan) };
      const signed = strict.sign(ivan.identity, device.registerDevice.id, RegisterDeviceBodySchema, body);
      return connection.call(device.registerDevice, { signed });
    };
    await again();
    await again();
    assert.equal(await statusOf(again()), Status.RATE_LIMITED);
    strict.clock.advance(1_000);
    await again();
  } finally {
    await strict.close();
  }
});

test('DeleteAccount enters the end, and nothing opens what was before', async () => {
  const heidi = await world.register('heidi');
  const before = await resolved('heidi');
  const h = await world.login(heidi);
  const deletion = (accountStatement: Uint8Array) => {
    const body = { username: 'heidi', accountStatement };
    return h.call(account.deleteAccount, {
      signed: world.sign(heidi.identity, account.deleteAccount.id, DeleteAccountBodySchema, body),
    });
  };
  assert.equal(await statusOf(deletion(new Uint8Array(0))), Status.INVALID_ARGUMENT);
  assert.equal(await statusOf(deletion(await world.statement(heidi))), Status.CONFLICT);
  await deletion(await world.statement(heidi, { deleted: true }));
  await world.keyTransparency.flush();
  const { entries } = await watcher.call(keys.auditKeyTransparency, {});
  const own = entries.filter((entry) => encodeHex(entry.subarray(1, 33)) === encodeHex(before.index));
  assert.deepEqual(
    own.map((entry) => entry[0]),
    [1, 2],
    'keys, then deleted',
  );
  assert.equal(await world.store.findStatedAccount({ username: 'heidi' }), undefined);
});
