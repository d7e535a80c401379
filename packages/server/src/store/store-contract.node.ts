/**
 * What every store has to do, told as stories of Alice, Bob and Carol. One suite for all implementations: each hands in
 * how to open an empty store and how to open the same one again. Time is a parameter, values come from a counter.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, describe, test } from 'node:test';
import { logHashGenesis, logHashNext, rosterHash } from '@quicprochat/core';
import { nodeCrypto } from '@quicprochat/crypto/node';
import {
  type Address,
  type BlobUpload,
  type Enqueue,
  type InboxRow,
  type KeyPackageUpload,
  type NewDevice,
  type RecipientResult,
  type RecoveryBundle,
  type RevokeDevice,
  type Store,
  StoreError,
  type StoreLimits,
  type SubmitCommit,
} from './store.ts';

interface StoreUnderTest {
  readonly store: Store;
  /** Closes it and opens it again. */
  reopen(): Promise<Store>;
}

export type OpenStore = (limits?: Partial<StoreLimits>) => Promise<StoreUnderTest>;

const NOW = 1_800_000_000_000;
const DAY = 86_400_000;
const HOUR = 3_600_000;

let counter = 0;

/** Different bytes at every call, the same in every run. */
export function fresh(length: number): Uint8Array {
  counter++;
  const bytes = new Uint8Array(length);
  for (let offset = 0; offset < length; offset += 32) {
    const block = createHash('sha256').update(`${counter}/${offset}`).digest();
    bytes.set(block.subarray(0, Math.min(32, length - offset)), offset);
  }
  return bytes;
}

function sha256(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(createHash('sha256').update(bytes).digest());
}

function newDevice(): NewDevice {
  return { deviceId: fresh(16), deviceKey: fresh(32), certificate: fresh(300), name: 'phone' };
}

/** An account with one device. */
export async function register(store: Store, username: string): Promise<Address> {
  const identityKey = fresh(32);
  const firstDevice = newDevice();
  const outcome = await store.createAccount({
    username,
    identityKey,
    opaqueRecord: fresh(192),
    registrationSignature: fresh(64),
    firstDevice,
    nowMs: NOW,
  });
  assert.equal(outcome.kind, 'created');
  return { identityKey, deviceId: firstDevice.deviceId };
}

async function addDevice(store: Store, of: Address): Promise<Address> {
  const device = newDevice();
  const outcome = await store.registerDevice({ identityKey: of.identityKey, device, nowMs: NOW });
  assert.equal(outcome.kind, 'registered');
  return { identityKey: of.identityKey, deviceId: device.deviceId };
}

export function message(to: readonly Address[], data: Uint8Array = fresh(100), more: Partial<Enqueue> = {}): Enqueue {
  return {
    target: { kind: 'recipients', recipients: to },
    messageId: fresh(16),
    payload: { data, hash: sha256(data) },
    nowMs: NOW,
    ...more,
  };
}

async function enqueued(store: Store, enqueue: Enqueue): Promise<readonly RecipientResult[]> {
  const outcome = await store.enqueue(enqueue);
  assert.equal(outcome.kind, 'enqueued');
  return outcome.kind === 'enqueued' ? outcome.results : [];
}

async function inboxOf(store: Store, address: Address, afterSeq = 0): Promise<readonly InboxRow[]> {
  const outcome = await store.readInbox({ address, afterSeq, maxRows: 10_000, maxBytes: 1 << 30 });
  assert.equal(outcome.kind, 'read');
  return outcome.kind === 'read' ? outcome.rows : [];
}

async function gapOf(store: Store, address: Address) {
  const outcome = await store.readInbox({ address, afterSeq: 0 });
  return outcome.kind === 'read' ? outcome.gap : undefined;
}

function commit(
  channelId: Uint8Array,
  submitter: Address,
  after: number,
  more: Partial<SubmitCommit> = {},
): SubmitCommit {
  const data = fresh(200);
  return {
    channelId,
    submitter,
    after,
    messageId: fresh(16),
    payload: { data, hash: sha256(data) },
    welcomes: [],
    rosterRemove: [],
    rosterAdd: [],
    adminsAdd: [],
    adminsRemove: [],
    nowMs: NOW,
    ...more,
  };
}

async function group(store: Store, creator: Address, members: readonly Address[] = []): Promise<Uint8Array> {
  const channelId = fresh(16);
  assert.equal((await store.createGroup({ channelId, creator, nowMs: NOW })).kind, 'created');
  if (members.length > 0) {
    const outcome = await store.submitCommit(commit(channelId, creator, 0, { rosterAdd: members }));
    assert.equal(outcome.kind, 'accepted');
  }
  return channelId;
}

function keyPackage(more: Partial<KeyPackageUpload> = {}): KeyPackageUpload {
  const data = fresh(300);
  return { keyPackage: data, hash: sha256(data), suite: 1, notAfterMs: NOW + 90 * DAY, lastResort: false, ...more };
}

const kinds = (results: readonly RecipientResult[]) => results.map(({ kind }) => kind);
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
/** Results of different backends and threads carry Buffers or Uint8Arrays alike. */
const same = (a: Uint8Array | undefined, b: Uint8Array | undefined) =>
  assert.equal(a === undefined ? a : hex(a), b === undefined ? b : hex(b));

export function storeContract(name: string, open: OpenStore): void {
  describe(`${name}: the store contract`, () => {
    settingsAndAccounts(open);
    sessions(open);
    leaving(open);
    keyMaterial(open);
    delivery(open);
    caps(open);
    channels(open);
    metadata(open);
    moderation(open);
    endpoints(open);
    recovery(open);
    blobs(open);
    commitLog(open);
    housekeeping(open);
  });
}

function suite(
  title: string,
  open: OpenStore,
  limits: Partial<StoreLimits>,
  body: (use: () => Promise<Store>) => void,
) {
  describe(title, () => {
    let opened: Promise<StoreUnderTest> | undefined;
    after(async () => (await opened)?.store.close());
    body(async () => (await (opened ??= open(limits))).store);
  });
}

function settingsAndAccounts(open: OpenStore): void {
  suite('settings, accounts and devices', open, {}, (use) => {
    test('a setting written once stays', async () => {
      const store = await use();
      assert.equal(await store.getSetting('origin'), undefined);
      same(await store.putSettingOnce('origin', new Uint8Array([1])), new Uint8Array([1]));
      same(await store.putSettingOnce('origin', new Uint8Array([2])), new Uint8Array([1]));
      await store.putSetting('origin', new Uint8Array([3]));
      same(await store.getSetting('origin'), new Uint8Array([3]));
    });

    test('an account is found by name and by identity, with its first device', async () => {
      const store = await use();
      const firstDevice = newDevice();
      const account = {
        username: 'alice.first',
        identityKey: fresh(32),
        opaqueRecord: fresh(192),
        registrationSignature: fresh(64),
        firstDevice,
        nowMs: NOW + 5,
      };
      assert.deepEqual(await store.createAccount(account), { kind: 'created' });
      const byName = await store.findAccountByUsername('alice.first');
      const byIdentity = await store.findAccountByIdentity(account.identityKey);
      assert.deepEqual(byName, byIdentity);
      assert.equal(byName?.createdAtMs, NOW + 5);
      same(byName?.registrationSignature, account.registrationSignature);
      const device = byName?.devices[0];
      same(device?.deviceKey, firstDevice.deviceKey);
      same(device?.certificate, firstDevice.certificate);
      assert.equal(device?.name, 'phone');
      assert.equal(device?.lastSeenDayMs, NOW + 5 - ((NOW + 5) % DAY));
      const record = await store.findOpaqueRecord('alice.first');
      same(record?.record, account.opaqueRecord);
      same(record?.identityKey, account.identityKey);
      assert.equal(await store.findAccountByUsername('nobody'), undefined);
      assert.equal(await store.findOpaqueRecord('nobody'), undefined);
      assert.equal(await store.findAccountByIdentity(fresh(32)), undefined);
    });

    test('a name and an identity key belong to one account (THREATS 37)', async () => {
      const store = await use();
      const alice = await register(store, 'alice');
      const attempt = (username: string, identityKey: Uint8Array) =>
        store.createAccount({
          username,
          identityKey,
          opaqueRecord: fresh(192),
          registrationSignature: fresh(64),
          firstDevice: newDevice(),
          nowMs: NOW,
        });
      assert.deepEqual(await attempt('alice', fresh(32)), { kind: 'username_taken' });
      assert.deepEqual(await attempt('mallory', alice.identityKey), { kind: 'identity_taken' });
      assert.deepEqual(await attempt('alice', alice.identityKey), { kind: 'username_taken' });
      assert.equal(await store.findAccountByUsername('mallory'), undefined);
      const outcomes = await Promise.all(Array.from({ length: 8 }, () => attempt('contested', fresh(32))));
      assert.equal(outcomes.filter(({ kind }) => kind === 'created').length, 1);
    });

    test('up to five devices, each registered once', async () => {
      const store = await use();
      const alice = await register(store, 'alice.devices');
      const device = newDevice();
      const add = (each: NewDevice) =>
        store.registerDevice({ identityKey: alice.identityKey, device: each, nowMs: NOW });
      assert.equal((await add(device)).kind, 'registered');
      assert.equal((await add(device)).kind, 'exists');
      assert.equal((await add({ ...device, certificate: fresh(300) })).kind, 'device_taken');
      for (let i = 0; i < 3; i++) assert.equal((await add(newDevice())).kind, 'registered');
      assert.deepEqual(await add(newDevice()), { kind: 'too_many', max: 5 });
      assert.equal((await add(device)).kind, 'exists');
      assert.equal((await store.listDevices(alice.identityKey)).length, 5);
      const found = await store.findDevice({ identityKey: alice.identityKey, deviceId: device.deviceId });
      same(found?.certificate, device.certificate);
      assert.equal(await store.findDevice({ identityKey: fresh(32), deviceId: device.deviceId }), undefined);
      const stranger = { identityKey: fresh(32), device: newDevice(), nowMs: NOW };
      assert.equal((await store.registerDevice(stranger)).kind, 'unknown_account');
    });

    test('a signed request counts once', async () => {
      const store = await use();
      const alice = await register(store, 'alice.replay');
      const replay = { hash: fresh(32), expiresAtMs: NOW + 600_000 };
      const request = { identityKey: alice.identityKey, device: newDevice(), nowMs: NOW, replay };
      assert.equal((await store.registerDevice(request)).kind, 'registered');
      assert.equal((await store.registerDevice(request)).kind, 'replayed');
      const other = { ...request, device: newDevice() };
      assert.equal((await store.registerDevice(other)).kind, 'replayed');
      assert.equal((await store.listDevices(alice.identityKey)).length, 2);
    });
  });

  test('accounts, replays, key packages and inboxes survive a restart', async (t) => {
    const opened = await open();
    const { store } = opened;
    t.after(() => store.close());
    const alice = await register(store, 'alice');
    const replay = { hash: fresh(32), expiresAtMs: NOW + 600_000 };
    const hybrid = { address: alice, hybridKey: fresh(1300), serial: 1, notAfterMs: NOW + DAY, nowMs: NOW, replay };
    assert.equal((await store.putHybridKey(hybrid)).kind, 'stored');
    const upload = { address: alice, keyPackages: [keyPackage()], nowMs: NOW };
    await store.uploadKeyPackages(upload);
    const take = { identityKey: alice.identityKey, suite: 1, nowMs: NOW };
    assert.equal((await store.takeKeyPackages(take)).kind, 'taken');
    const sent = message([alice]);
    await enqueued(store, sent);

    const again = await opened.reopen();
    t.after(() => again.close());
    assert.equal((await again.findAccountByUsername('alice'))?.devices.length, 1);
    assert.equal((await again.putHybridKey({ ...hybrid, serial: 2 })).kind, 'replayed');
    const taken = await again.takeKeyPackages(take);
    assert.deepEqual(taken.kind === 'taken' && taken.keyPackages, []);
    assert.deepEqual(
      await again.uploadKeyPackages(upload),
      { kind: 'stored', added: 0 },
      'a used package is no new one',
    );
    same((await inboxOf(again, alice))[0]?.data, sent.payload.data);
    assert.deepEqual(kinds(await enqueued(again, sent)), ['duplicate']);
    await again.close();
    await assert.rejects(again.headSeq(alice), (error) => error instanceof StoreError && error.kind === 'unavailable');
    await again.close();
  });
}

function leaving(open: OpenStore): void {
  suite('devices that leave', open, { purgeRows: 10, revocationsPerAccount: 2 }, (use) => {
    const revoke = (store: Store, address: Address, more: Partial<RevokeDevice> = {}) =>
      store.revokeDevice({ address, statement: fresh(200), nowMs: NOW, ...more });

    test('a revoked device is unknown at once, in everything but the rosters', async () => {
      const store = await use();
      const alice = await register(store, 'alice.leaves');
      const phone = await addDevice(store, alice);
      const bob = await register(store, 'bob.stays');
      const channelId = await group(store, alice, [phone, bob]);
      const tokenHash = fresh(32);
      await store.putSession({ tokenHash, address: phone, expiresAtMs: NOW + DAY, nowMs: NOW });
      await store.uploadKeyPackages({ address: phone, keyPackages: [keyPackage()], nowMs: NOW });
      const hybrid = { address: phone, hybridKey: fresh(99), serial: 1, notAfterMs: NOW + DAY, nowMs: NOW };
      await store.putHybridKey(hybrid);
      await store.putPushToken({ address: phone, token: { kind: 'webhook', token: 'https://push.example/1' } });
      for (let i = 0; i < 520; i++) void store.enqueue(message([phone], fresh(8)));
      await enqueued(store, message([phone], fresh(5_000)));
      const status = await store.status();

      const statement = fresh(200);
      const replay = { hash: fresh(32), expiresAtMs: NOW + HOUR };
      assert.deepEqual(await revoke(store, phone, { statement, replay }), { kind: 'revoked' });
      assert.deepEqual(await revoke(store, phone, { replay }), { kind: 'replayed' });
      assert.deepEqual(await revoke(store, phone), { kind: 'recorded' });
      const [found, ...others] = await store.findRevocations([bob, phone, alice]);
      same(found?.statement, statement);
      assert.equal(others.length, 0, 'the first statement stands, and only for that device');

      assert.deepEqual(await store.standingOf(phone, NOW), { kind: 'unknown_device' });
      assert.deepEqual(await store.standingOf(alice, NOW), { kind: 'good' });
      assert.equal((await store.findSession(tokenHash, NOW)).kind, 'none');
      assert.equal(await store.findDevice(phone), undefined);
      assert.equal((await store.listDevices(alice.identityKey)).length, 1);
      assert.equal((await store.findAccountByUsername('alice.leaves'))?.devices.length, 1);
      assert.deepEqual(await store.getHybridKeys([phone]), []);
      assert.deepEqual(await store.countKeyPackages(phone, NOW), []);
      assert.deepEqual(await store.findPushTokens([phone]), []);
      assert.deepEqual(await store.readInbox({ address: phone, afterSeq: 0 }), { kind: 'unknown_device' });
      assert.equal(await store.headSeq(phone), 0);
      const after = await store.status();
      assert.equal(status.queuedEnvelopes - after.queuedEnvelopes, 521);
      assert.equal(status.devices - after.devices, 1);
      assert.deepEqual(kinds(await enqueued(store, message([phone]))), ['unknown']);
      assert.equal((await store.putHybridKey({ ...hybrid, serial: 2 })).kind, 'unknown_device');
      const again = { deviceId: phone.deviceId, deviceKey: fresh(32), certificate: fresh(300), name: 'again' };
      const registered = await store.registerDevice({ identityKey: alice.identityKey, device: again, nowMs: NOW });
      assert.equal(registered.kind, 'device_taken', 'its id is never given out again');

      // The roster keeps it, delivery passes it by, and anyone may take it off.
      assert.equal((await store.findChannel(channelId))?.roster.length, 3);
      const target = { kind: 'roster', sender: bob } as const;
      const resolved = await store.resolveTarget(target, channelId);
      assert.equal(resolved.kind === 'resolved' && resolved.addresses.length, 2);
      const toAll = await enqueued(store, message([], fresh(9), { channelId, target }));
      assert.deepEqual(kinds(toAll), ['queued', 'unknown', 'queued']);
      const removed = await store.submitCommit(commit(channelId, bob, 1, { rosterRemove: [phone] }));
      assert.deepEqual(removed.kind === 'accepted' && kinds(removed.results), ['queued', 'unknown', 'queued']);
      assert.equal((await store.findChannel(channelId))?.roster.length, 2);
      const evicted = await store.submitCommit(commit(channelId, bob, 2, { rosterRemove: [alice] }));
      assert.equal(evicted.kind, 'admin_required');
    });

    test('a group whose only administrator is revoked goes on', async () => {
      const store = await use();
      const [alice, bob] = [await register(store, 'alice.admin'), await register(store, 'bob.member')];
      const channelId = await group(store, alice, [bob]);
      await revoke(store, alice);
      const without = await store.submitCommit(commit(channelId, bob, 1, { rosterRemove: [alice] }));
      assert.equal(without.kind, 'accepted');
      assert.deepEqual((await store.findChannel(channelId))?.admins, []);
      assert.equal((await store.submitCommit(commit(channelId, bob, 2))).kind, 'accepted');
    });

    test('a deleted account leaves its name, its key and its place on rosters, and nothing else', async () => {
      const store = await use();
      const alice = await register(store, 'alice.ends');
      const phone = await addDevice(store, alice);
      const bob = await register(store, 'bob.remains');
      const channelId = await group(store, alice, [phone, bob]);
      const direct = { channelId: fresh(16), pair: [alice.identityKey, bob.identityKey] as const, nowMs: NOW };
      await store.createDirect(direct);
      await revoke(store, phone);
      const tokenHash = fresh(32);
      await store.putSession({ tokenHash, address: alice, expiresAtMs: NOW + DAY, nowMs: NOW });
      const status = await store.status();
      const replay = { hash: fresh(32), expiresAtMs: NOW + HOUR };
      const deletion = { identityKey: alice.identityKey, nowMs: NOW, replay };
      const deleted = await store.deleteAccount(deletion);
      assert.equal(deleted.kind === 'deleted' && deleted.devices.length, 1);
      assert.deepEqual(await store.deleteAccount(deletion), { kind: 'replayed' });
      const unguarded = { ...deletion, replay: undefined };
      assert.deepEqual(await store.deleteAccount(unguarded), { kind: 'unknown_account' });

      assert.equal(await store.findAccountByUsername('alice.ends'), undefined);
      assert.equal(await store.findAccountByIdentity(alice.identityKey), undefined);
      assert.equal(await store.findOpaqueRecord('alice.ends'), undefined);
      assert.equal((await store.findSession(tokenHash, NOW)).kind, 'none');
      assert.deepEqual(await store.standingOf(alice, NOW), { kind: 'unknown_device' });
      const after = await store.status();
      assert.deepEqual([status.accounts - after.accounts, status.devices - after.devices], [1, 1]);
      const attempt = (username: string, identityKey: Uint8Array) =>
        store.createAccount({
          username,
          identityKey,
          opaqueRecord: fresh(192),
          registrationSignature: fresh(64),
          firstDevice: newDevice(),
          nowMs: NOW,
        });
      assert.deepEqual(await attempt('alice.ends', fresh(32)), { kind: 'username_taken' });
      assert.deepEqual(await attempt('alice.again', alice.identityKey), { kind: 'identity_taken' });
      const device = { identityKey: alice.identityKey, device: newDevice(), nowMs: NOW };
      assert.equal((await store.registerDevice(device)).kind, 'unknown_account');
      assert.equal((await store.createDirect(direct)).kind, 'unknown_account');
      assert.equal((await store.findRevocations([phone])).length, 1, 'its keys stay revoked');

      const channel = await store.findChannel(channelId);
      assert.deepEqual([channel?.roster.length, channel?.admins.length], [3, 0]);
      const target = { kind: 'roster', sender: bob } as const;
      const sent = await enqueued(store, message([], fresh(9), { channelId, target }));
      assert.deepEqual(kinds(sent), ['unknown', 'unknown', 'queued']);
      const rosterRemove = [alice, phone];
      assert.equal((await store.submitCommit(commit(channelId, bob, 1, { rosterRemove }))).kind, 'accepted');
    });

    test('a statement may come before its device, and then keeps it out; such statements are bounded', async () => {
      const store = await use();
      const alice = await register(store, 'alice.early');
      const device = newDevice();
      const address = { identityKey: alice.identityKey, deviceId: device.deviceId };
      assert.deepEqual(await revoke(store, address), { kind: 'recorded' });
      const registered = await store.registerDevice({ identityKey: alice.identityKey, device, nowMs: NOW });
      assert.equal(registered.kind, 'device_taken');
      assert.deepEqual(await revoke(store, { ...address, deviceId: fresh(16) }), { kind: 'recorded' });
      assert.deepEqual(await revoke(store, { ...address, deviceId: fresh(16) }), { kind: 'too_many', max: 2 });
      assert.deepEqual(await revoke(store, address), { kind: 'recorded' }, 'a repeat is none more');
      const nobody = { identityKey: fresh(32), deviceId: fresh(16) };
      assert.deepEqual(await revoke(store, nobody), { kind: 'unknown_account' });
      assert.deepEqual(await store.findRevocations([nobody]), []);
    });

    test('neighbours are the devices of shared channels and of the account, revoked ones left out', async () => {
      const store = await use();
      const alice = await register(store, 'alice.near');
      const tablet = await addDevice(store, alice);
      const [bob, carol] = [await register(store, 'bob.near'), await register(store, 'carol.far')];
      await group(store, alice, [bob]);
      await group(store, carol);
      const near = async () => (await store.findNeighbours(alice)).map(({ deviceId }) => hex(deviceId)).sort();
      assert.deepEqual(await near(), [alice, tablet, bob].map(({ deviceId }) => hex(deviceId)).sort());
      await revoke(store, alice);
      assert.deepEqual(await near(), [tablet, bob].map(({ deviceId }) => hex(deviceId)).sort());
      assert.deepEqual(await store.findNeighbours({ identityKey: fresh(32), deviceId: fresh(16) }), []);
    });

    test('a push token is the device’s until it is replaced or removed', async () => {
      const store = await use();
      const alice = await register(store, 'alice.push');
      const [one, two] = ['one', 'two'].map((token) => ({ kind: 'webhook', token }));
      assert.deepEqual(await store.putPushToken({ address: alice, token: one }), { kind: 'stored' });
      await store.putPushToken({ address: alice, token: two });
      const stranger = { identityKey: fresh(32), deviceId: fresh(16) };
      assert.deepEqual(await store.putPushToken({ address: stranger, token: one }), { kind: 'unknown_device' });
      await store.dropPushToken({ address: alice, token: one! });
      const tokens = await store.findPushTokens([alice, stranger]);
      assert.deepEqual(
        tokens.map(({ kind, token }) => [kind, token]),
        [['webhook', 'two']],
      );
      await store.dropPushToken({ address: alice, token: two! });
      assert.deepEqual(await store.findPushTokens([alice]), []);
      await store.putPushToken({ address: alice, token: one });
      await store.putPushToken({ address: alice, token: undefined });
      assert.deepEqual(await store.findPushTokens([alice]), []);
    });
  });
}

function sessions(open: OpenStore): void {
  suite('session tokens', open, { sessionsPerDevice: 2 }, (use) => {
    test('a token resumes until it expires, and each resume moves the expiry on (THREATS 13)', async () => {
      const store = await use();
      const alice = await register(store, 'alice');
      const tokenHash = fresh(32);
      await store.putSession({ tokenHash, address: alice, expiresAtMs: NOW + 30 * DAY, nowMs: NOW });
      const found = await store.findSession(tokenHash, NOW + 30 * DAY - 1);
      assert.equal(found.kind, 'found');
      if (found.kind === 'found') {
        assert.equal(found.username, 'alice');
        same(found.address.deviceId, alice.deviceId);
        same(found.deviceKey, (await store.findDevice(alice))?.deviceKey);
        assert.equal(found.expiresAtMs, NOW + 30 * DAY);
      }
      assert.equal((await store.findSession(tokenHash, NOW + 30 * DAY)).kind, 'none');
      assert.equal((await store.findSession(fresh(32), NOW)).kind, 'none');
      const later = NOW + 29 * DAY;
      const resumed = await store.resumeSession({ tokenHash, nowMs: later, expiresAtMs: later + 30 * DAY });
      assert.equal(resumed.kind === 'found' && resumed.expiresAtMs, later + 30 * DAY);
      assert.equal((await store.findSession(tokenHash, NOW + 40 * DAY)).kind, 'found');
      assert.equal((await store.findDevice(alice))?.lastSeenDayMs, later - (later % DAY));
      const late = { tokenHash, nowMs: later + 30 * DAY, expiresAtMs: later + 90 * DAY };
      assert.equal((await store.resumeSession(late)).kind, 'none');
    });

    test('logout removes all tokens of the device and nobody else’s', async () => {
      const store = await use();
      const alice = await register(store, 'alice.logout');
      const laptop = await addDevice(store, alice);
      const [phoneToken, laptopToken] = [fresh(32), fresh(32)];
      await store.putSession({ tokenHash: phoneToken, address: alice, expiresAtMs: NOW + DAY, nowMs: NOW });
      await store.putSession({ tokenHash: laptopToken, address: laptop, expiresAtMs: NOW + DAY, nowMs: NOW });
      assert.equal(await store.revokeSessions(alice), 1);
      assert.equal(await store.revokeSessions(alice), 0);
      assert.equal((await store.findSession(phoneToken, NOW)).kind, 'none');
      assert.equal((await store.findSession(laptopToken, NOW)).kind, 'found');
    });

    test('the oldest token of a device makes room', async () => {
      const store = await use();
      const alice = await register(store, 'alice.tokens');
      const tokens = [fresh(32), fresh(32), fresh(32)];
      for (const [i, tokenHash] of tokens.entries()) {
        await store.putSession({ tokenHash, address: alice, expiresAtMs: NOW + DAY, nowMs: NOW + i });
      }
      const found = await Promise.all(tokens.map((token) => store.findSession(token, NOW)));
      assert.deepEqual(
        found.map(({ kind }) => kind),
        ['none', 'found', 'found'],
      );
      const stranger = { identityKey: fresh(32), deviceId: fresh(16) };
      const outcome = await store.putSession({ tokenHash: fresh(32), address: stranger, expiresAtMs: NOW, nowMs: NOW });
      assert.equal(outcome.kind, 'unknown_device');
    });
  });
}

function keyMaterial(open: OpenStore): void {
  suite('key material', open, { keyPackagesPerSuite: 50 }, (use) => {
    test('each package is taken once by 32 parallel fetchers, then the last resort (THREATS 15)', async () => {
      const store = await use();
      const alice = await register(store, 'alice');
      const ordinary = Array.from({ length: 20 }, () => keyPackage());
      const lastResort = keyPackage({ lastResort: true });
      const uploaded = await store.uploadKeyPackages({
        address: alice,
        keyPackages: [...ordinary, lastResort],
        nowMs: NOW,
      });
      assert.deepEqual(uploaded, { kind: 'stored', added: 21 });
      const [before] = await store.countKeyPackages(alice, NOW);
      assert.deepEqual(before, { suite: 1, available: 20, lastResort: true, lastResortUsed: false });

      const takes = await Promise.all(
        Array.from({ length: 32 }, () =>
          store.takeKeyPackages({ identityKey: alice.identityKey, suite: 1, nowMs: NOW }),
        ),
      );
      const taken = takes.flatMap((take) => (take.kind === 'taken' ? take.keyPackages : []));
      assert.equal(taken.length, 32);
      const consumed = taken.filter((each) => !each.lastResort).map((each) => hex(each.keyPackage));
      assert.equal(new Set(consumed).size, 20);
      assert.deepEqual(consumed.sort(), ordinary.map((each) => hex(each.keyPackage)).sort());
      for (const each of taken.filter(({ lastResort: last }) => last)) same(each.keyPackage, lastResort.keyPackage);
      const [count] = await store.countKeyPackages(alice, NOW);
      assert.deepEqual(count, { suite: 1, available: 0, lastResort: true, lastResortUsed: true });
    });

    test('one package per device; devices without any are named', async () => {
      const store = await use();
      const alice = await register(store, 'alice.two');
      const laptop = await addDevice(store, alice);
      await store.uploadKeyPackages({ address: alice, keyPackages: [keyPackage(), keyPackage()], nowMs: NOW });
      const take = await store.takeKeyPackages({ identityKey: alice.identityKey, suite: 1, nowMs: NOW });
      assert.equal(take.kind, 'taken');
      if (take.kind !== 'taken') return;
      assert.deepEqual(
        take.keyPackages.map(({ deviceId }) => hex(deviceId)),
        [hex(alice.deviceId)],
      );
      assert.deepEqual(take.devicesWithout.map(hex), [hex(laptop.deviceId)]);
      const otherSuite = await store.takeKeyPackages({ identityKey: alice.identityKey, suite: 7, nowMs: NOW });
      assert.equal(otherSuite.kind === 'taken' && otherSuite.keyPackages.length, 0);
      const nobody = await store.takeKeyPackages({ identityKey: fresh(32), suite: 1, nowMs: NOW });
      assert.equal(nobody.kind, 'unknown_account');
    });

    test('uploading again adds nothing, expired ones are not given out, the cap holds', async () => {
      const store = await use();
      const alice = await register(store, 'alice.cap');
      const upload = (...keyPackages: KeyPackageUpload[]) =>
        store.uploadKeyPackages({ address: alice, keyPackages, nowMs: NOW });
      const first = keyPackage({ notAfterMs: NOW + HOUR });
      assert.deepEqual(await upload(first, first), { kind: 'stored', added: 1 });
      assert.deepEqual(await upload(first), { kind: 'stored', added: 0 });
      const later = { identityKey: alice.identityKey, suite: 1, nowMs: NOW + HOUR };
      const take = await store.takeKeyPackages(later);
      assert.equal(take.kind === 'taken' && take.keyPackages.length, 0);
      assert.deepEqual(await store.countKeyPackages(alice, NOW + HOUR), []);
      const many = Array.from({ length: 50 }, () => keyPackage());
      assert.deepEqual(await upload(...many), { kind: 'full', suite: 1, max: 50 });
      assert.deepEqual(await upload(...many.slice(1)), { kind: 'stored', added: 49 });
      assert.deepEqual(await upload(keyPackage()), { kind: 'full', suite: 1, max: 50 });
      assert.deepEqual(await upload(keyPackage({ suite: 2 })), { kind: 'stored', added: 1 });
      assert.deepEqual(await upload(keyPackage({ lastResort: true })), { kind: 'stored', added: 1 });
      const stranger = { identityKey: fresh(32), deviceId: fresh(16) };
      const refused = await store.uploadKeyPackages({ address: stranger, keyPackages: [keyPackage()], nowMs: NOW });
      assert.equal(refused.kind, 'unknown_device');
    });

    test('a new last-resort package replaces the old one', async () => {
      const store = await use();
      const alice = await register(store, 'alice.last');
      const [old, recent] = [keyPackage({ lastResort: true }), keyPackage({ lastResort: true })];
      const take = async () => {
        const outcome = await store.takeKeyPackages({ identityKey: alice.identityKey, suite: 1, nowMs: NOW });
        return outcome.kind === 'taken' ? outcome.keyPackages[0]?.keyPackage : undefined;
      };
      await store.uploadKeyPackages({ address: alice, keyPackages: [old], nowMs: NOW });
      same(await take(), old.keyPackage);
      assert.equal((await store.countKeyPackages(alice, NOW))[0]?.lastResortUsed, true);
      await store.uploadKeyPackages({ address: alice, keyPackages: [recent], nowMs: NOW });
      assert.equal((await store.countKeyPackages(alice, NOW))[0]?.lastResortUsed, false);
      same(await take(), recent.keyPackage);
      assert.deepEqual(await store.uploadKeyPackages({ address: alice, keyPackages: [old], nowMs: NOW }), {
        kind: 'stored',
        added: 0,
      });
      same(await take(), recent.keyPackage);
    });

    test('a hybrid key’s serial only grows', async () => {
      const store = await use();
      const alice = await register(store, 'alice.hybrid');
      const laptop = await addDevice(store, alice);
      const put = (serial: number, hybridKey: Uint8Array, address = alice) =>
        store.putHybridKey({ address, hybridKey, serial, notAfterMs: NOW + DAY, nowMs: NOW });
      const [one, two, three] = [fresh(1300), fresh(1300), fresh(1300)];
      assert.deepEqual(await put(5, one), { kind: 'stored' });
      assert.deepEqual(await put(5, one), { kind: 'stored' }, 'a repeat of the same statement');
      assert.deepEqual(await put(5, two), { kind: 'stale', serial: 5 });
      assert.deepEqual(await put(4, two), { kind: 'stale', serial: 5 });
      assert.deepEqual(await put(6, two), { kind: 'stored' });
      assert.deepEqual(await put(1, three, laptop), { kind: 'stored' });
      assert.equal((await put(1, three, { ...alice, deviceId: fresh(16) })).kind, 'unknown_device');
      const bob = await register(store, 'bob.hybrid');
      const keys = await store.getHybridKeys([alice, { identityKey: alice.identityKey }, bob]);
      assert.deepEqual(
        keys.map((key) => [hex(key.address.deviceId), hex(key.hybridKey)]),
        [
          [hex(alice.deviceId), hex(two)],
          [hex(laptop.deviceId), hex(three)],
        ],
      );
      same(keys[0]?.certificate, (await store.findDevice(alice))?.certificate);
    });
  });
}

function delivery(open: OpenStore): void {
  suite('delivery', open, {}, (use) => {
    test('what Alice sends, Bob reads, in order, until he acknowledges', async () => {
      const store = await use();
      const bob = await register(store, 'bob');
      assert.equal(await store.headSeq(bob), 0);
      const channelId = fresh(16);
      const sent = [message([bob]), message([bob], fresh(5000), { channelId }), message([bob], new Uint8Array(0))];
      for (const [i, each] of sent.entries()) {
        const outcome = await store.enqueue(each);
        assert.equal(outcome.kind, 'enqueued');
        if (outcome.kind !== 'enqueued') return;
        const [result] = outcome.results;
        assert.equal(result?.kind === 'queued' && result.seq, i + 1);
        assert.deepEqual(
          outcome.wake.map(({ deviceId }) => hex(deviceId)),
          [hex(bob.deviceId)],
        );
        assert.equal(outcome.acceptedAtMs, NOW);
        assert.equal(outcome.expiresAtMs, NOW + 30 * DAY);
      }
      const rows = await inboxOf(store, bob);
      assert.deepEqual(
        rows.map((row) => [row.seq, hex(row.data), row.channelId && hex(row.channelId), hex(row.messageId)]),
        sent.map((each, i) => [
          i + 1,
          hex(each.payload.data),
          each.channelId && hex(each.channelId),
          hex(each.messageId),
        ]),
      );
      assert.deepEqual(
        [rows[0]?.wrap, rows[0]?.entry, rows[0]?.pqRenewal, rows[0]?.acceptedAtMs],
        [undefined, undefined, undefined, NOW],
      );
      assert.deepEqual(
        (await inboxOf(store, bob, 2)).map(({ seq }) => seq),
        [3],
      );
      assert.equal(await store.ack({ address: bob, seqUpTo: 2 }), 2);
      assert.equal(await store.ack({ address: bob, seqUpTo: 2 }), 0);
      assert.deepEqual(
        (await inboxOf(store, bob)).map(({ seq }) => seq),
        [3],
      );
      assert.equal(await store.headSeq(bob), 3);
      assert.equal(await store.ack({ address: bob, seqUpTo: Number.MAX_SAFE_INTEGER }), 1);
      assert.equal(await store.headSeq(bob), 3);
      const status = await store.status();
      assert.deepEqual([status.state, status.queuedEnvelopes, status.queuedBytes], ['ok', 0, 0]);
    });

    test('reading is bounded by rows and bytes, and one row always comes', async () => {
      const store = await use();
      const bob = await register(store, 'bob.bounded');
      for (let i = 0; i < 70; i++) await enqueued(store, message([bob], fresh(i === 65 ? 300_000 : 100)));
      const read = async (afterSeq: number, maxRows?: number, maxBytes?: number) => {
        const outcome = await store.readInbox({ address: bob, afterSeq, maxRows, maxBytes });
        assert.equal(outcome.kind, 'read');
        return outcome.kind === 'read' ? [outcome.rows.map(({ seq }) => seq), outcome.more, outcome.headSeq] : [];
      };
      const numbers = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);
      assert.deepEqual(await read(0), [numbers(1, 64), true, 70]);
      assert.deepEqual(await read(64), [[65], true, 70]);
      assert.deepEqual(await read(65), [[66], true, 70]);
      assert.deepEqual(await read(66), [numbers(67, 70), false, 70]);
      assert.deepEqual(await read(0, 2), [[1, 2], true, 70]);
      assert.deepEqual(await read(0, 10, 350), [[1, 2, 3], true, 70]);
      assert.deepEqual(await read(70), [[], false, 70]);
      const stranger = { address: { identityKey: fresh(32), deviceId: fresh(16) }, afterSeq: 0 };
      assert.equal((await store.readInbox(stranger)).kind, 'unknown_device');
    });

    test('reading, draining and acknowledging one channel leaves the others', async () => {
      const store = await use();
      const bob = await register(store, 'bob.channels');
      const [a, b] = [fresh(16), fresh(16)];
      for (const channelId of [a, b, a, b, a]) await enqueued(store, message([bob], fresh(10), { channelId }));
      const read = await store.readInbox({ address: bob, afterSeq: 0, channelId: b });
      assert.deepEqual(read.kind === 'read' && read.rows.map(({ seq }) => seq), [2, 4]);
      assert.equal(await store.ack({ address: bob, seqUpTo: 3, channelId: a }), 2);
      assert.deepEqual(
        (await inboxOf(store, bob)).map(({ seq }) => seq),
        [2, 4, 5],
      );
      const drained = await store.drainInbox({ address: bob, afterSeq: 0, channelId: b });
      assert.deepEqual(drained.kind === 'read' && drained.rows.map(({ seq }) => seq), [2, 4]);
      const rest = await store.drainInbox({ address: bob, afterSeq: 0 });
      assert.deepEqual(rest.kind === 'read' && rest.rows.map(({ seq }) => seq), [5]);
      assert.deepEqual(await inboxOf(store, bob), []);
      assert.equal(
        (await store.drainInbox({ address: { ...bob, deviceId: fresh(16) }, afterSeq: 0 })).kind,
        'unknown_device',
      );
    });

    test('an identity stands for all its devices, each wrap goes to its device only', async () => {
      const store = await use();
      const bob = await register(store, 'bob.many');
      const laptop = await addDevice(store, bob);
      const carol = await register(store, 'carol.many');
      const whole = message([]);
      const toBob = {
        ...whole,
        target: { kind: 'recipients', recipients: [{ identityKey: bob.identityKey }, bob] },
      } as const;
      assert.deepEqual(kinds(await enqueued(store, toBob)), ['queued', 'queued']);
      const wraps = [fresh(1168), fresh(1168)];
      const recipients = [
        { ...laptop, wrap: wraps[0] },
        { ...carol, wrap: wraps[1] },
        { identityKey: fresh(32) },
        { ...bob, deviceId: fresh(16) },
      ];
      const results = await enqueued(store, message([], fresh(50), { target: { kind: 'recipients', recipients } }));
      assert.deepEqual(kinds(results), ['queued', 'queued', 'unknown', 'unknown']);
      assert.equal(results[2]?.address.deviceId.length, 0);
      same((await inboxOf(store, laptop)).at(-1)?.wrap, wraps[0]);
      same((await inboxOf(store, carol)).at(-1)?.wrap, wraps[1]);
      const resolved = await store.resolveTarget({ kind: 'recipients', recipients });
      assert.equal(resolved.kind === 'resolved' && resolved.addresses.length, 2);
    });

    test('a repeat is a duplicate for 24 hours, also after the acknowledgement', async () => {
      const store = await use();
      const bob = await register(store, 'bob.dedup');
      const carol = await register(store, 'carol.dedup');
      const sent = message([bob], fresh(64), { channelId: fresh(16) });
      await enqueued(store, sent);
      await store.ack({ address: bob, seqUpTo: 1 });
      const again = await store.enqueue({ ...sent, nowMs: NOW + DAY - 1 });
      assert.deepEqual(again.kind === 'enqueued' && again.results.map((each) => ('seq' in each ? each.seq : 0)), [1]);
      assert.deepEqual(again.kind === 'enqueued' && [kinds(again.results), again.wake], [['duplicate'], []]);
      const wider = { ...sent, target: message([bob, carol]).target };
      assert.deepEqual(kinds(await enqueued(store, wider)), ['duplicate', 'queued']);
      assert.deepEqual(kinds(await enqueued(store, { ...sent, channelId: fresh(16) })), ['queued'], 'another channel');
      assert.deepEqual(kinds(await enqueued(store, { ...sent, nowMs: NOW + DAY })), ['queued'], 'forgotten by now');
      const parallel = message([bob]);
      const outcomes = await Promise.all(Array.from({ length: 8 }, () => enqueued(store, parallel)));
      assert.equal(outcomes.flat().filter(({ kind }) => kind === 'queued').length, 1);
    });

    test('a message id with other bytes is refused and the first one stands (THREATS 39)', async () => {
      const store = await use();
      const bob = await register(store, 'bob.same');
      const carol = await register(store, 'carol.same');
      const sent = message([bob]);
      await enqueued(store, sent);
      const forged = message([carol, bob], fresh(100), { messageId: sent.messageId });
      assert.deepEqual(await store.enqueue(forged), { kind: 'already_exists' });
      assert.deepEqual(
        (await inboxOf(store, bob)).map(({ data }) => hex(data)),
        [hex(sent.payload.data)],
      );
      assert.deepEqual(await inboxOf(store, carol), [], 'nothing was written');
    });

    test('a malformed value is refused alone', async () => {
      const store = await use();
      const bob = await register(store, 'bob.malformed');
      const writes = [message([bob]), { ...message([bob]), messageId: fresh(15) }, message([bob])];
      const outcomes = await Promise.allSettled(writes.map((each) => store.enqueue(each)));
      assert.deepEqual(
        outcomes.map(({ status }) => status),
        ['fulfilled', 'rejected', 'fulfilled'],
      );
      const [, refused] = outcomes;
      assert.ok(refused?.status === 'rejected' && refused.reason instanceof StoreError);
      assert.equal(refused.reason.kind, 'misuse');
      assert.equal((await inboxOf(store, bob)).length, 2);
      assert.deepEqual(await store.ping(), { state: 'ok', failure: undefined });
    });

    test('what was handed in may change after the call', async () => {
      const store = await use();
      const bob = await register(store, 'bob.copy');
      const sent = message([bob], new Uint8Array([1, 2, 3]));
      const done = store.enqueue(sent);
      sent.payload.data.fill(0);
      await done;
      same((await inboxOf(store, bob))[0]?.data, new Uint8Array([1, 2, 3]));
    });
  });
}

function caps(open: OpenStore): void {
  suite('inbox caps and gaps', open, { inboxEnvelopes: 10, inboxBytes: 2_000 }, (use) => {
    test('a full inbox blocks nobody else and gets a gap (THREATS 35)', async () => {
      const store = await use();
      const [alice, bob, carol] = [
        await register(store, 'alice'),
        await register(store, 'bob'),
        await register(store, 'carol'),
      ];
      const channelId = await group(store, alice, [bob, carol]);
      for (let i = 0; i < 10; i++) await enqueued(store, message([bob], fresh(10)));
      const toAll = message([], fresh(10), { channelId, target: { kind: 'roster', sender: alice } });
      const outcome = await store.enqueue(toAll);
      assert.equal(outcome.kind, 'enqueued');
      if (outcome.kind !== 'enqueued') return;
      assert.deepEqual(kinds(outcome.results), ['queued', 'full', 'queued']);
      assert.equal(outcome.wake.length, 3, 'the gap is told at once');
      const head = await store.headSeq(bob);
      assert.deepEqual(await gapOf(store, bob), { reason: 'full', sinceSeq: head + 1, losses: 1 });
      assert.equal(await gapOf(store, carol), undefined);

      const accepted = await store.submitCommit(commit(channelId, alice, 1));
      assert.deepEqual(accepted.kind === 'accepted' && kinds(accepted.results), ['queued', 'queued', 'queued']);

      await store.ack({ address: bob, seqUpTo: head });
      assert.deepEqual(kinds(await enqueued(store, toAll)), ['duplicate', 'queued', 'duplicate']);
    });

    test('the cap counts bytes, and an acknowledgement gives them back', async () => {
      const store = await use();
      const bob = await register(store, 'bob.bytes');
      const wrapped = (data: number, wrap: number) =>
        message([], fresh(data), { target: { kind: 'recipients', recipients: [{ ...bob, wrap: fresh(wrap) }] } });
      assert.deepEqual(kinds(await enqueued(store, wrapped(900, 100))), ['queued']);
      assert.deepEqual(kinds(await enqueued(store, wrapped(900, 101))), ['full']);
      assert.deepEqual(kinds(await enqueued(store, wrapped(900, 100))), ['queued']);
      assert.deepEqual(kinds(await enqueued(store, message([bob], fresh(1)))), ['full']);
      await store.ack({ address: bob, seqUpTo: 1 });
      assert.deepEqual(kinds(await enqueued(store, message([bob], fresh(1000)))), ['queued']);
    });

    test('a gap stands until the device was told', async () => {
      const store = await use();
      const bob = await register(store, 'bob.gap');
      await enqueued(store, message([bob], fresh(2_001)));
      const first = await gapOf(store, bob);
      assert.deepEqual(first, { reason: 'full', sinceSeq: 1, losses: 1 });
      assert.ok(first);
      await enqueued(store, message([bob], fresh(2_001)));
      assert.equal(await store.clearGap(bob, first), false, 'something was lost since');
      const second = await gapOf(store, bob);
      assert.deepEqual(second, { reason: 'full', sinceSeq: 1, losses: 2 });
      assert.ok(second);
      assert.equal(await store.clearGap(bob, second), true);
      assert.equal(await store.clearGap(bob, second), false);
      assert.equal(await gapOf(store, bob), undefined);
      await enqueued(store, message([bob], fresh(2_001)));
      const drained = await store.drainInbox({ address: bob, afterSeq: 0 });
      assert.equal(drained.kind === 'read' && drained.gap?.losses, 3);
      assert.equal(await gapOf(store, bob), undefined);
    });
  });
}

function channels(open: OpenStore): void {
  suite('channels', open, {}, (use) => {
    test('a group starts with its creator, and creating it again changes nothing', async () => {
      const store = await use();
      const [alice, bob] = [await register(store, 'alice'), await register(store, 'bob')];
      const laptop = await addDevice(store, alice);
      const channelId = await group(store, alice);
      assert.deepEqual(await store.createGroup({ channelId, creator: alice, nowMs: NOW }), { kind: 'created' });
      assert.deepEqual(await store.createGroup({ channelId, creator: bob, nowMs: NOW }), { kind: 'conflict' });
      assert.deepEqual(await store.createGroup({ channelId, creator: laptop, nowMs: NOW }), { kind: 'conflict' });
      const stranger = { identityKey: fresh(32), deviceId: fresh(16) };
      const refused = await store.createGroup({ channelId: fresh(16), creator: stranger, nowMs: NOW });
      assert.deepEqual(refused, { kind: 'unknown_device' });
      const info = await store.findChannel(channelId);
      assert.equal(info?.kind, 'group');
      assert.equal(info?.head, 0);
      assert.equal(info?.sendTokenHash, undefined);
      same(info?.logHash, logHashGenesis(nodeCrypto, channelId));
      same(info?.rosterHash, rosterHash(nodeCrypto, [alice]));
      assert.deepEqual(
        info?.roster.map(({ deviceId }) => hex(deviceId)),
        [hex(alice.deviceId)],
      );
      assert.deepEqual(info?.admins.map(hex), [hex(alice.identityKey)]);
      assert.equal(await store.findChannel(fresh(16)), undefined);
    });

    test('a pair has one direct channel, with all devices of both', async () => {
      const store = await use();
      const [alice, bob] = [await register(store, 'alice.pair'), await register(store, 'bob.pair')];
      const laptop = await addDevice(store, alice);
      const ids = [fresh(16), fresh(16)];
      const outcomes = await Promise.all([
        store.createDirect({ channelId: ids[0]!, pair: [alice.identityKey, bob.identityKey], nowMs: NOW }),
        store.createDirect({ channelId: ids[1]!, pair: [bob.identityKey, alice.identityKey], nowMs: NOW }),
      ]);
      assert.deepEqual(
        outcomes.map(({ kind }) => kind),
        ['created', 'exists'],
      );
      const [first, second] = outcomes;
      assert.ok(first.kind === 'created' && second.kind === 'exists');
      same(second.channelId, first.channelId);
      assert.equal(second.head, 0);
      const info = await store.findChannel(first.channelId);
      assert.equal(info?.kind, 'direct');
      const roster = [alice, bob, laptop];
      assert.deepEqual(
        info?.roster.map(({ deviceId }) => hex(deviceId)).sort(),
        roster.map((each) => hex(each.deviceId)).sort(),
      );
      same(info?.rosterHash, rosterHash(nodeCrypto, roster));
      assert.deepEqual(info?.admins.map(hex), [hex(alice.identityKey), hex(bob.identityKey)].sort());
      const stranger = [alice.identityKey, fresh(32)] as const;
      assert.equal(
        (await store.createDirect({ channelId: fresh(16), pair: stranger, nowMs: NOW })).kind,
        'unknown_account',
      );
    });

    test('the whole roster is addressed by members only, the author’s device included (THREATS 36)', async () => {
      const store = await use();
      const [alice, bob, carol] = [
        await register(store, 'alice.roster'),
        await register(store, 'bob.roster'),
        await register(store, 'carol.roster'),
      ];
      const channelId = await group(store, alice, [bob]);
      const toAll = (sender: Address, id: Uint8Array | undefined = channelId) =>
        message([], fresh(20), { channelId: id, target: { kind: 'roster', sender } });
      const results = await enqueued(store, toAll(bob));
      assert.deepEqual(
        results.map(({ address }) => hex(address.deviceId)),
        [alice, bob].map((each) => hex(each.deviceId)),
      );
      assert.deepEqual(await store.enqueue(toAll(carol)), { kind: 'not_member' });
      assert.deepEqual(await store.enqueue(toAll({ ...bob, deviceId: fresh(16) })), { kind: 'not_member' });
      assert.deepEqual(await store.enqueue(toAll(bob, fresh(16))), { kind: 'unknown_channel' });
      const { channelId: _, ...nowhere } = toAll(bob);
      assert.deepEqual(await store.enqueue(nowhere), { kind: 'unknown_channel' });
      const live = await store.resolveTarget({ kind: 'roster', sender: alice }, channelId);
      assert.equal(live.kind === 'resolved' && live.addresses.length, 2);
      assert.deepEqual(await store.resolveTarget({ kind: 'roster', sender: carol }, channelId), { kind: 'not_member' });
    });

    test('a send token opens the channel, its predecessor for five minutes more', async () => {
      const store = await use();
      const alice = await register(store, 'alice.sealed');
      const channelId = await group(store, alice);
      const sealed = (sendTokenHash: Uint8Array, nowMs = NOW) =>
        store.enqueue(message([], fresh(20), { channelId, nowMs, target: { kind: 'sealed', sendTokenHash, nowMs } }));
      const [first, second] = [fresh(32), fresh(32)];
      assert.deepEqual(await sealed(first), { kind: 'stale_token' });
      await store.submitCommit(commit(channelId, alice, 0, { sendTokenHash: first }));
      assert.equal((await sealed(first)).kind, 'enqueued');
      await store.submitCommit(commit(channelId, alice, 1, { sendTokenHash: second }));
      await store.submitCommit(commit(channelId, alice, 2));
      assert.equal((await sealed(second)).kind, 'enqueued');
      assert.equal((await sealed(first, NOW + 299_999)).kind, 'enqueued');
      assert.deepEqual(await sealed(first, NOW + 300_000), { kind: 'stale_token' });
      assert.equal((await sealed(second, NOW + 300_000)).kind, 'enqueued');
      same((await store.findChannel(channelId))?.sendTokenHash, second);
    });
  });
}

function moderation(open: OpenStore): void {
  suite('moderation', open, { reports: 3 }, (use) => {
    test('a ban stands until it ends or is lifted, and a later one replaces it', async () => {
      const store = await use();
      const [alice, bob] = [await register(store, 'alice'), await register(store, 'bob')];
      const ban = { identityKey: alice.identityKey, reason: 'spam', untilMs: NOW + HOUR };
      assert.deepEqual(await store.putBan({ ...ban, identityKey: fresh(32) }), { kind: 'unknown_account' });
      assert.deepEqual(await store.putBan(ban), { kind: 'banned' });
      const standing = await store.standingOf(alice, NOW + HOUR - 1);
      assert.equal(standing.kind === 'banned' && standing.ban.reason, 'spam');
      assert.equal((await store.findBan(alice.identityKey, NOW))?.untilMs, NOW + HOUR);
      assert.equal((await store.standingOf(alice, NOW + HOUR)).kind, 'good');
      assert.equal((await store.standingOf(bob, NOW)).kind, 'good');
      await store.putBan({ ...ban, reason: 'more spam', untilMs: undefined });
      assert.equal((await store.findBan(alice.identityKey, NOW + 1_000 * DAY))?.reason, 'more spam');
      assert.equal(await store.liftBan(alice.identityKey), true);
      assert.equal(await store.liftBan(alice.identityKey), false);
      assert.equal(await store.findBan(alice.identityKey, NOW), undefined);
    });

    test('accounts are listed by page in order of name, deleted ones left out', async () => {
      const store = await use();
      // Behind everybody else of this store.
      const people = new Map<string, Address>();
      for (const name of ['z-dora', 'z-anna', 'z-carl', 'z-bert']) people.set(name, await register(store, name));
      await addDevice(store, people.get('z-carl')!);
      await store.deleteAccount({ identityKey: people.get('z-bert')!.identityKey, nowMs: NOW });
      const page = async (afterUsername: string) =>
        (await store.listAccounts({ afterUsername, limit: 2 })).map(({ username, devices }) => [username, devices]);
      assert.deepEqual(await page('z'), [
        ['z-anna', 1],
        ['z-carl', 2],
      ]);
      assert.deepEqual(await page('z-carl'), [['z-dora', 1]]);
      assert.deepEqual(await page('z-dora'), []);
      const [anna] = await store.listAccounts({ afterUsername: 'z', limit: 1 });
      assert.equal(hex(anna!.identityKey), hex(people.get('z-anna')!.identityKey));
    });

    test('bans are listed by page in order of identity key, ended ones left out and purged', async () => {
      const store = await use();
      const people = await Promise.all(['p1', 'p2', 'p3', 'p4'].map((name) => register(store, name)));
      const keys = people.map(({ identityKey }) => hex(identityKey)).sort();
      for (const { identityKey } of people) {
        const untilMs = hex(identityKey) === keys[1] ? NOW + HOUR : undefined;
        await store.putBan({ identityKey, reason: 'x', untilMs });
      }
      const page = async (after: string | undefined, nowMs: number) => {
        const afterIdentityKey = after === undefined ? undefined : Buffer.from(after, 'hex');
        return (await store.listBans({ afterIdentityKey, limit: 2, nowMs })).map((ban) => hex(ban.identityKey));
      };
      assert.deepEqual(await page(undefined, NOW), keys.slice(0, 2));
      assert.deepEqual(await page(keys[1], NOW), keys.slice(2));
      assert.deepEqual(await page(undefined, NOW + HOUR), [keys[0], keys[2]]);
      assert.equal((await store.purge(NOW + HOUR)).removed, 1);
    });

    test('reports come back oldest first, by number and by size, and are bounded', async () => {
      const store = await use();
      const report = (length: number) => ({ report: fresh(length), conversationId: fresh(16), receivedAtMs: NOW });
      const sent = [report(100), report(5_000), report(100)];
      for (const each of sent) assert.deepEqual(await store.addReport(each), { kind: 'stored' });
      assert.deepEqual(await store.addReport(report(1)), { kind: 'full' });
      const page = (afterId: number, limit = 10, maxBytes = 1 << 20) => store.listReports({ afterId, limit, maxBytes });
      const all = await page(0);
      assert.deepEqual(
        all.map(({ id, report: bytes, conversationId }) => [id, hex(bytes), hex(conversationId)]),
        sent.map((each, i) => [i + 1, hex(each.report), hex(each.conversationId)]),
      );
      const ids = async (...of: Parameters<typeof page>) => (await page(...of)).map(({ id }) => id);
      assert.deepEqual(await ids(1, 1), [2]);
      assert.deepEqual(await ids(0, 10, 1_000), [1]);
      assert.deepEqual(await ids(1, 10, 1_000), [2]);
      assert.deepEqual(await ids(3), []);
      assert.equal((await store.status()).reports, 3);
      assert.equal(await store.deleteReports([2, 2, 99]), 1);
      assert.deepEqual(await ids(0), [1, 3]);
      assert.equal((await store.purge(NOW + 90 * DAY)).removed, 2);
      assert.deepEqual(await store.addReport(report(1)), { kind: 'stored' });
      assert.deepEqual(await ids(0), [4], 'numbers are never used again');
    });
  });
}

function endpoints(open: OpenStore): void {
  suite('endpoints', open, {}, (use) => {
    test('are shown to the account and where it takes part, until they expire or are withdrawn', async () => {
      const store = await use();
      const alice = await register(store, 'alice');
      const phone = await addDevice(store, alice);
      const [bob, carol] = [await register(store, 'bob'), await register(store, 'carol')];
      await group(store, alice, [bob]);
      const statement = fresh(200);
      const put = (address: Address, bytes = statement) =>
        store.putEndpoint({ address, endpoint: { statement: bytes, expiresAtMs: NOW + HOUR } });
      assert.deepEqual(await put(alice, fresh(200)), { kind: 'stored' });
      await put(alice);
      await put(phone);
      assert.deepEqual(await put({ ...alice, deviceId: fresh(16) }), { kind: 'unknown_device' });
      const { identityKey } = alice;
      const seenBy = async (requester: Address, of: { identityKey: Uint8Array; deviceId?: Uint8Array }, nowMs = NOW) =>
        (await store.findEndpoints({ of, requester, nowMs })).map(({ address }) => hex(address.deviceId));
      assert.deepEqual(await seenBy(bob, { identityKey }), [hex(alice.deviceId)], 'the phone is on no roster of his');
      assert.deepEqual(await seenBy(phone, { identityKey }), [hex(alice.deviceId), hex(phone.deviceId)]);
      assert.deepEqual(await seenBy(carol, { identityKey }), []);
      const carols = await group(store, carol, [alice]);
      assert.deepEqual(await seenBy(carol, { identityKey }), [], 'alice was put there, and has done nothing');
      await store.submitCommit(commit(carols, alice, 1));
      assert.deepEqual(await seenBy(carol, { identityKey }), [hex(alice.deviceId)]);
      assert.deepEqual(await seenBy(bob, phone), []);
      assert.deepEqual(await seenBy({ ...bob, deviceId: fresh(16) }, { identityKey }), []);
      same((await store.findEndpoints({ of: alice, requester: bob, nowMs: NOW }))[0]?.statement, statement);
      assert.deepEqual(await seenBy(bob, alice, NOW + HOUR), []);
      await store.putEndpoint({ address: alice, endpoint: undefined });
      assert.deepEqual(await seenBy(bob, alice), []);
      assert.equal((await store.purge(NOW + HOUR)).removed, 1);
      await put(phone);
      await store.revokeDevice({ address: phone, statement: fresh(200), nowMs: NOW });
      assert.deepEqual(await seenBy(alice, { identityKey }), []);
    });
  });
}

function recovery(open: OpenStore): void {
  suite('recovery', open, {}, (use) => {
    const bundle = (): RecoveryBundle => ({
      sealedData: fresh(3_000),
      slots: [
        { kind: 'password', sealedKey: fresh(92), fetchTokenHash: undefined },
        { kind: 'phrase', sealedKey: fresh(92), fetchTokenHash: fresh(32) },
      ],
    });

    test('a bundle is replaced with all its slots, and deleted', async () => {
      const store = await use();
      const alice = await register(store, 'alice');
      assert.equal(await store.findRecovery('alice'), undefined);
      assert.equal(await store.findRecoveryTokenHash('alice'), undefined);
      const first = bundle();
      const replay = { hash: fresh(32), expiresAtMs: NOW + HOUR };
      const put = { bundle: first, of: alice, replay };
      assert.deepEqual(await store.putRecovery(put), { kind: 'stored', ended: [] });
      assert.deepEqual(await store.putRecovery(put), { kind: 'replayed' });
      const found = await store.findRecovery('alice');
      same(found?.sealedData, first.sealedData);
      assert.deepEqual(
        found?.slots.map(({ kind, sealedKey }) => [kind, hex(sealedKey)]),
        first.slots.map(({ kind, sealedKey }) => [kind, hex(sealedKey)]),
      );
      same(await store.findRecoveryTokenHash('alice'), first.slots[1]?.fetchTokenHash);
      const second = { sealedData: fresh(9), slots: bundle().slots.slice(0, 1) };
      await store.putRecovery({ bundle: second, of: alice });
      assert.equal((await store.findRecovery('alice'))?.slots.length, 1);
      assert.equal(await store.findRecoveryTokenHash('alice'), undefined, 'the phrase is gone');
      assert.equal(
        (await store.putRecovery({ bundle: second, of: { ...alice, deviceId: fresh(16) } })).kind,
        'unknown_device',
      );
      const deletion = { identityKey: alice.identityKey, replay: { hash: fresh(32), expiresAtMs: NOW + HOUR } };
      assert.deepEqual(await store.deleteRecovery(deletion), { kind: 'deleted' });
      assert.deepEqual(await store.deleteRecovery(deletion), { kind: 'replayed' });
      assert.equal(await store.findRecovery('alice'), undefined);
    });

    test('a change of password replaces the record and ends the sessions of all other devices', async () => {
      const store = await use();
      const alice = await register(store, 'alice.changes');
      const phone = await addDevice(store, alice);
      const tokens = [fresh(32), fresh(32)];
      for (const [i, address] of [alice, phone].entries()) {
        await store.putSession({ tokenHash: tokens[i]!, address, expiresAtMs: NOW + DAY, nowMs: NOW });
      }
      const opaqueRecord = fresh(192);
      const changed = await store.putRecovery({ bundle: bundle(), of: alice, opaqueRecord });
      assert.deepEqual(changed.kind === 'stored' && changed.ended.map(({ deviceId }) => hex(deviceId)), [
        hex(phone.deviceId),
      ]);
      same((await store.findOpaqueRecord('alice.changes'))?.record, opaqueRecord);
      assert.equal((await store.findSession(tokens[0]!, NOW)).kind, 'found');
      assert.equal((await store.findSession(tokens[1]!, NOW)).kind, 'none');
      const { identityKey } = alice;
      const byKey = await store.putRecovery({ bundle: bundle(), of: { identityKey }, opaqueRecord: fresh(192) });
      assert.equal(byKey.kind === 'stored' && byKey.ended.length, 2);
      assert.equal((await store.findSession(tokens[0]!, NOW)).kind, 'none', 'no device asked, none stays');
      const nobody = await store.putRecovery({ bundle: bundle(), of: { identityKey: fresh(32) } });
      assert.equal(nobody.kind, 'unknown_device');
      await store.deleteAccount({ identityKey: alice.identityKey, nowMs: NOW });
      assert.equal(await store.findRecovery('alice.changes'), undefined);
      assert.equal(await store.findRecoveryTokenHash('alice.changes'), undefined);
    });
  });
}

function blobs(open: OpenStore): void {
  suite('blobs', open, { blobQuotaBytes: 1_000 }, (use) => {
    const upload = (of: Address, sizeBytes: number, more: Partial<BlobUpload> = {}) => ({
      identityKey: of.identityKey,
      blobId: fresh(32),
      sizeBytes,
      nowMs: NOW,
      ...more,
    });

    test('a blob is found once it is complete, is shared, and goes when nobody owns it any more', async () => {
      const store = await use();
      const [alice, bob] = [await register(store, 'alice'), await register(store, 'bob')];
      const first = upload(alice, 600);
      const { blobId } = first;
      assert.deepEqual(await store.beginUpload(first), { kind: 'open', restarted: false });
      assert.deepEqual(await store.beginUpload({ ...first, sizeBytes: 500 }), { kind: 'open', restarted: true });
      assert.deepEqual(await store.beginUpload(first), { kind: 'open', restarted: true });
      assert.equal(await store.findBlob(blobId), undefined);
      await store.completeUpload(first);
      await store.completeUpload(first);
      assert.deepEqual(await store.findBlob(blobId), { sizeBytes: 600 });
      assert.deepEqual(await store.beginUpload(first), { kind: 'complete' });
      const second = upload(bob, 600, { blobId, nowMs: NOW + DAY });
      assert.deepEqual(await store.beginUpload({ ...second, sizeBytes: 601 }), { kind: 'wrong_size' });
      assert.deepEqual(await store.beginUpload(second), { kind: 'complete' });

      assert.equal(await store.forgetBlob(blobId), false);
      assert.equal((await store.purge(NOW + 90 * DAY)).removed, 1);
      assert.deepEqual(await store.listUnownedBlobs(), []);
      assert.equal((await store.purge(NOW + 91 * DAY)).removed, 1);
      assert.deepEqual((await store.listUnownedBlobs()).map(hex), [hex(blobId)]);
      assert.equal(await store.forgetBlob(blobId), true);
      assert.equal(await store.findBlob(blobId), undefined);
      assert.equal(await store.forgetBlob(blobId), true, 'an unknown one may go as well');
    });

    test('the quota counts what is begun; a day without a chunk, or the account’s end, gives it back', async () => {
      const store = await use();
      const alice = await register(store, 'alice.quota');
      const begin = async (sizeBytes: number, more: Partial<BlobUpload> = {}) =>
        (await store.beginUpload(upload(alice, sizeBytes, more))).kind;
      const large = upload(alice, 700);
      await store.beginUpload(large);
      await store.completeUpload(large);
      const blobId = fresh(32);
      assert.equal(await begin(300, { blobId }), 'open');
      assert.equal(await begin(300, { blobId }), 'open', 'the same one counts once');
      assert.deepEqual(await store.beginUpload(upload(alice, 1)), { kind: 'over_quota', maxBytes: 1_000 });
      assert.equal((await store.purge(NOW + DAY)).removed, 1);
      assert.equal(await begin(300), 'open');
      await store.deleteAccount({ identityKey: alice.identityKey, nowMs: NOW });
      assert.equal(await begin(1), 'unknown_account');
      assert.deepEqual((await store.listUnownedBlobs()).map(hex), [hex(large.blobId)]);
      const late = upload(alice, 5);
      await store.completeUpload(late);
      assert.equal((await store.listUnownedBlobs()).length, 2);
    });
  });
}

function metadata(open: OpenStore): void {
  suite('channel metadata', open, {}, (use) => {
    test('an administrator on the roster replaces it, compare and swap', async () => {
      const store = await use();
      const [alice, bob, carol] = [
        await register(store, 'alice'),
        await register(store, 'bob'),
        await register(store, 'carol'),
      ];
      const channelId = await group(store, alice, [bob]);
      const put = (writer: Address, expectedVersion: number, data = fresh(40)) =>
        store.putChannelMetadata({ channelId, writer, expectedVersion, data });
      assert.equal((await store.findChannel(channelId))?.metadata, undefined);
      assert.deepEqual(await put(alice, 1), { kind: 'conflict', metadata: undefined });
      const [first, second] = [fresh(40), fresh(60_000)];
      assert.deepEqual(await put(alice, 0, first), { kind: 'stored', version: 1 });
      const late = await put(alice, 0);
      assert.equal(late.kind === 'conflict' && late.metadata?.version, 1);
      same(late.kind === 'conflict' ? late.metadata?.data : undefined, first);
      assert.deepEqual(await put(bob, 1), { kind: 'admin_required' });
      assert.deepEqual(await put(carol, 1), { kind: 'not_member' });
      assert.deepEqual(await put(alice, 1, second), { kind: 'stored', version: 2 });
      same((await store.findChannel(channelId))?.metadata?.data, second);
      const unknown = { channelId: fresh(16), writer: alice, expectedVersion: 0, data: first };
      assert.deepEqual(await store.putChannelMetadata(unknown), { kind: 'unknown_channel' });
      const race = await Promise.all([put(alice, 2), put(alice, 2), put(alice, 2)]);
      assert.equal(race.filter(({ kind }) => kind === 'stored').length, 1);
    });
  });
}

function commitLog(open: OpenStore): void {
  suite('the commit log', open, { rosterDevices: 6 }, (use) => {
    const named = async (store: Store, story: string) =>
      [
        await register(store, `alice.${story}`),
        await register(store, `bob.${story}`),
        await register(store, `carol.${story}`),
      ] as const;

    test('an entry, its Welcomes and the new roster arrive together', async () => {
      const store = await use();
      const [alice, bob, carol] = await named(store, 'entry');
      const channelId = await group(store, alice);
      const welcomeData = fresh(700);
      const wraps = [fresh(1168), fresh(1168)];
      const submitted = commit(channelId, alice, 0, {
        rosterAdd: [bob, carol],
        adminsAdd: [bob.identityKey],
        sendTokenHash: fresh(32),
        welcomes: [
          {
            messageId: fresh(16),
            payload: { data: welcomeData, hash: sha256(welcomeData) },
            recipients: [
              { address: bob, wrap: wraps[0] },
              { address: carol, wrap: wraps[1] },
            ],
          },
        ],
      });
      const outcome = await store.submitCommit(submitted);
      assert.equal(outcome.kind, 'accepted');
      if (outcome.kind !== 'accepted') return;
      const expected = logHashNext(nodeCrypto, logHashGenesis(nodeCrypto, channelId), 1n, submitted.payload.hash);
      assert.equal(outcome.entry.position, 1);
      assert.equal(outcome.repeated, false);
      same(outcome.entry.logHash, expected);
      same(outcome.entry.rosterHash, rosterHash(nodeCrypto, [carol, alice, bob]));
      assert.equal(outcome.expiresAtMs, NOW + 90 * DAY);
      const everyone = [alice, bob, carol].map(({ deviceId }) => hex(deviceId));
      assert.deepEqual(
        outcome.results.map(({ address }) => hex(address.deviceId)),
        everyone,
      );
      assert.deepEqual(
        outcome.wake.map(({ deviceId }) => hex(deviceId)),
        everyone,
      );

      const [own] = await inboxOf(store, alice);
      same(own?.data, submitted.payload.data);
      same(own?.messageId, submitted.messageId);
      assert.equal(own?.entry?.position, 1);
      same(own?.entry?.logHash, expected);
      const [welcome, ...rest] = await inboxOf(store, bob);
      assert.deepEqual(rest, [], 'who joins does not get the entry');
      same(welcome?.data, welcomeData);
      same(welcome?.wrap, wraps[0]);
      same(welcome?.channelId, channelId);
      assert.equal(welcome?.entry, undefined);
      same((await inboxOf(store, carol))[0]?.wrap, wraps[1]);

      const info = await store.findChannel(channelId);
      assert.equal(info?.head, 1);
      same(info?.logHash, expected);
      assert.equal(info?.roster.length, 3);
      assert.deepEqual(info?.admins.map(hex), [alice, bob].map((each) => hex(each.identityKey)).sort());
    });

    test('of two submitters one wins, and the loser learns the head (THREATS 10)', async () => {
      const store = await use();
      const [alice, bob] = await named(store, 'race');
      const channelId = await group(store, alice, [bob]);
      const outcomes = await Promise.all(
        Array.from({ length: 10 }, (_, i) => store.submitCommit(commit(channelId, i % 2 === 0 ? alice : bob, 1))),
      );
      assert.equal(outcomes.filter(({ kind }) => kind === 'accepted').length, 1);
      for (const lost of outcomes.filter(({ kind }) => kind !== 'accepted')) {
        assert.deepEqual(lost, { kind: 'conflict', head: 2 });
      }
      assert.deepEqual(await store.submitCommit(commit(channelId, bob, 7)), { kind: 'conflict', head: 2 });
      assert.deepEqual(
        (await inboxOf(store, bob)).map(({ entry }) => entry?.position),
        [2],
      );
    });

    test('a retry gets the first answer, also after the head moved on and the submitter left (THREATS 32)', async () => {
      const store = await use();
      const [alice, bob] = await named(store, 'retry');
      const channelId = await group(store, alice, [bob]);
      const submitted = commit(channelId, bob, 1);
      const first = await store.submitCommit(submitted);
      assert.equal((await store.submitCommit(commit(channelId, alice, 2, { rosterRemove: [bob] }))).kind, 'accepted');
      const rows = (await inboxOf(store, alice)).length;
      const again = await store.submitCommit({ ...submitted, nowMs: NOW + HOUR });
      assert.ok(first.kind === 'accepted' && again.kind === 'accepted');
      assert.equal(again.repeated, true);
      assert.deepEqual([again.entry, again.results], [first.entry, first.results]);
      assert.deepEqual([again.acceptedAtMs, again.expiresAtMs], [first.acceptedAtMs, first.expiresAtMs]);
      assert.deepEqual(again.wake, []);
      assert.equal((await inboxOf(store, alice)).length, rows, 'nothing was delivered twice');
      const longAfter = await store.submitCommit({ ...submitted, nowMs: NOW + 10 * DAY });
      assert.deepEqual(longAfter.kind === 'accepted' && [longAfter.entry, longAfter.results], [first.entry, []]);
    });

    test('a message id of the log with other bytes, or from somebody else, is refused (THREATS 39)', async () => {
      const store = await use();
      const [alice, bob] = await named(store, 'reuse');
      const channelId = await group(store, alice, [bob]);
      const submitted = commit(channelId, bob, 1);
      await store.submitCommit(submitted);
      const { messageId } = submitted;
      assert.deepEqual(await store.submitCommit(commit(channelId, bob, 2, { messageId })), { kind: 'already_exists' });
      assert.deepEqual(await store.submitCommit({ ...submitted, submitter: alice }), { kind: 'already_exists' });
      const asMessage = message([], fresh(10), { channelId, messageId, target: { kind: 'roster', sender: alice } });
      assert.deepEqual(await store.enqueue(asMessage), { kind: 'already_exists' });
      assert.equal((await store.findChannel(channelId))?.head, 2);
    });

    test('only devices on the roster submit', async () => {
      const store = await use();
      const [alice, bob, carol] = await named(store, 'members');
      const channelId = await group(store, alice, [bob]);
      assert.deepEqual(await store.submitCommit(commit(channelId, carol, 1)), { kind: 'not_member' });
      const laptop = await addDevice(store, bob);
      assert.deepEqual(await store.submitCommit(commit(channelId, laptop, 1)), { kind: 'not_member' });
      assert.deepEqual(await store.submitCommit(commit(fresh(16), alice, 0)), { kind: 'unknown_channel' });
      const stranger = { identityKey: fresh(32), deviceId: fresh(16) };
      assert.deepEqual(await store.submitCommit(commit(channelId, stranger, 1)), { kind: 'not_member' });
    });

    test('a member’s garbage evicts nobody and burns only a position (THREATS 30)', async () => {
      const store = await use();
      const [alice, bob, carol] = await named(store, 'garbage');
      const channelId = await group(store, alice, [bob, carol]);
      const before = await store.findChannel(channelId);
      const refused = { kind: 'admin_required' };
      assert.deepEqual(await store.submitCommit(commit(channelId, bob, 1, { rosterRemove: [carol] })), refused);
      assert.deepEqual(await store.submitCommit(commit(channelId, bob, 1, { rosterRemove: [alice] })), refused);
      const stranger = await register(store, 'dave.garbage');
      assert.deepEqual(await store.submitCommit(commit(channelId, bob, 1, { rosterAdd: [stranger] })), refused);
      assert.deepEqual(await store.submitCommit(commit(channelId, bob, 1, { adminsAdd: [bob.identityKey] })), refused);
      assert.deepEqual(
        await store.submitCommit(commit(channelId, bob, 1, { adminsRemove: [alice.identityKey] })),
        refused,
      );
      assert.deepEqual(await store.findChannel(channelId), before);
      assert.equal((await store.submitCommit(commit(channelId, bob, 1))).kind, 'accepted');
      const afterwards = await store.findChannel(channelId);
      assert.equal(afterwards?.head, 2);
      assert.deepEqual([afterwards?.roster, afterwards?.rosterHash], [before?.roster, before?.rosterHash]);
      assert.equal((await store.submitCommit(commit(channelId, carol, 2))).kind, 'accepted');
    });

    test('one’s own devices need no administrator', async () => {
      const store = await use();
      const [alice, bob] = await named(store, 'own');
      const channelId = await group(store, alice, [bob]);
      const laptop = await addDevice(store, bob);
      assert.equal((await store.submitCommit(commit(channelId, bob, 1, { rosterAdd: [laptop] }))).kind, 'accepted');
      assert.equal((await store.submitCommit(commit(channelId, laptop, 2, { rosterRemove: [bob] }))).kind, 'accepted');
      assert.equal((await inboxOf(store, bob)).at(-1)?.entry?.position, 3, 'the removed device gets the entry');
      const roster = (await store.findChannel(channelId))?.roster;
      assert.deepEqual(
        roster?.map(({ deviceId }) => hex(deviceId)).sort(),
        [alice, laptop].map((d) => hex(d.deviceId)).sort(),
      );
    });

    test('removed and added in one entry stays; its Welcome comes after the entry', async () => {
      const store = await use();
      const [alice, bob] = await named(store, 'rejoin');
      const channelId = await group(store, alice, [bob]);
      const data = fresh(300);
      const outcome = await store.submitCommit(
        commit(channelId, alice, 1, {
          rosterRemove: [bob],
          rosterAdd: [bob],
          welcomes: [{ messageId: fresh(16), payload: { data, hash: sha256(data) }, recipients: [{ address: bob }] }],
        }),
      );
      assert.equal(outcome.kind, 'accepted');
      const rows = await inboxOf(store, bob);
      assert.deepEqual(
        rows.map(({ entry }) => entry?.position),
        [2, undefined],
      );
      same(rows[1]?.data, data);
      assert.equal((await store.findChannel(channelId))?.roster.length, 2);
    });

    test('administrators change by an administrator, and one always remains', async () => {
      const store = await use();
      const [alice, bob, carol] = await named(store, 'admins');
      const channelId = await group(store, alice, [bob]);
      const submit = async (submitter: Address, more: Partial<SubmitCommit>) => {
        const head = (await store.findChannel(channelId))!.head;
        return store.submitCommit(commit(channelId, submitter, head, more));
      };
      const admins = async () => (await store.findChannel(channelId))?.admins.map(hex);
      assert.deepEqual(await submit(alice, { adminsRemove: [alice.identityKey] }), { kind: 'last_admin' });
      assert.deepEqual(await submit(alice, { rosterRemove: [alice] }), { kind: 'last_admin' });
      assert.deepEqual(await submit(alice, { adminsAdd: [carol.identityKey] }), {
        kind: 'invalid',
        reason: 'admin_not_on_roster',
      });
      assert.equal((await submit(alice, { adminsAdd: [bob.identityKey] })).kind, 'accepted');
      assert.equal((await submit(bob, { rosterRemove: [alice] })).kind, 'accepted');
      assert.deepEqual(await admins(), [hex(bob.identityKey)], 'who is gone is no administrator');
      assert.deepEqual(await submit(alice, { rosterAdd: [alice] }), { kind: 'not_member' });
      assert.equal((await submit(bob, { rosterAdd: [alice] })).kind, 'accepted');
      assert.deepEqual(await admins(), [hex(bob.identityKey)]);
    });

    test('refusals name what is wrong and change nothing', async () => {
      const store = await use();
      const [alice, bob, carol] = await named(store, 'refusals');
      const channelId = await group(store, alice, [bob]);
      const nobody = { identityKey: fresh(32), deviceId: fresh(16) };
      const unknown = await store.submitCommit(commit(channelId, alice, 1, { rosterAdd: [carol, nobody] }));
      assert.equal(unknown.kind, 'unknown_device');
      if (unknown.kind === 'unknown_device') same(unknown.address.deviceId, nobody.deviceId);
      const data = fresh(300);
      const welcomes = [
        { messageId: fresh(16), payload: { data, hash: sha256(data) }, recipients: [{ address: carol }] },
      ];
      assert.deepEqual(await store.submitCommit(commit(channelId, alice, 1, { welcomes })), {
        kind: 'invalid',
        reason: 'welcome_not_on_roster',
      });
      const crowd = [carol];
      for (let i = 0; i < 4; i++) crowd.push(await register(store, `crowd${i}`));
      const full = await store.submitCommit(commit(channelId, alice, 1, { rosterAdd: crowd }));
      assert.deepEqual(full, { kind: 'roster_full', max: 6 });
      assert.equal((await store.findChannel(channelId))?.head, 1);
      assert.deepEqual(await inboxOf(store, carol), []);
    });

    test('a renewal of the salt travels with its entry; the removed device gets no wrap', async () => {
      const store = await use();
      const [alice, bob, carol] = await named(store, 'renewal');
      const channelId = await group(store, alice, [bob, carol]);
      const envelope = fresh(120);
      const wraps = [
        { address: alice, wrap: fresh(1168) },
        { address: bob, wrap: fresh(1168) },
      ];
      const outcome = await store.submitCommit(
        commit(channelId, alice, 1, { rosterRemove: [carol], pqRenewal: { envelope, wraps } }),
      );
      assert.equal(outcome.kind, 'accepted');
      for (const [i, device] of [alice, bob, carol].entries()) {
        const row = (await inboxOf(store, device)).at(-1);
        same(row?.pqRenewal?.envelope, envelope);
        same(row?.pqRenewal?.wrap, wraps[i]?.wrap);
        await store.ack({ address: device, seqUpTo: row!.seq });
      }
    });

    test('any device of the pair may start a direct channel’s group, nobody else may join it', async () => {
      const store = await use();
      const [alice, bob, carol] = await named(store, 'direct');
      const channelId = fresh(16);
      await store.createDirect({ channelId, pair: [alice.identityKey, bob.identityKey], nowMs: NOW });
      const late = await addDevice(store, bob);
      assert.deepEqual(await store.submitCommit(commit(channelId, carol, 0)), { kind: 'not_member' });
      assert.deepEqual(await store.submitCommit(commit(channelId, alice, 0, { rosterAdd: [carol] })), {
        kind: 'invalid',
        reason: 'stranger_in_direct_channel',
      });
      assert.deepEqual(await store.submitCommit(commit(channelId, alice, 0, { adminsRemove: [bob.identityKey] })), {
        kind: 'invalid',
        reason: 'admins_of_direct_channel',
      });
      const started = await store.submitCommit(commit(channelId, late, 0));
      assert.deepEqual(started.kind === 'accepted' && kinds(started.results), ['queued', 'queued', 'queued']);
      assert.deepEqual(await store.submitCommit(commit(channelId, alice, 0)), { kind: 'conflict', head: 1 });
      assert.equal((await store.findChannel(channelId))?.roster.length, 3);
      const later = await addDevice(store, bob);
      assert.deepEqual(await store.submitCommit(commit(channelId, later, 1)), { kind: 'not_member' });
      assert.equal((await store.submitCommit(commit(channelId, alice, 1, { rosterAdd: [later] }))).kind, 'accepted');
    });
  });
}

function housekeeping(open: OpenStore): void {
  suite('purging', open, { purgeRows: 10 }, (use) => {
    test('what outlived its time goes in small steps, and leaves a gap', async () => {
      const store = await use();
      const [alice, bob] = [await register(store, 'alice'), await register(store, 'bob')];
      const channelId = await group(store, alice, [bob]);
      const toAll = (ttlMs: number | undefined) =>
        message([], fresh(30), { channelId, ttlMs, target: { kind: 'roster', sender: alice } });
      for (let i = 0; i < 8; i++) await enqueued(store, toAll(HOUR));
      const longest = await store.enqueue(toAll(1_000 * DAY));
      assert.equal(longest.kind === 'enqueued' && longest.expiresAtMs, NOW + 90 * DAY);
      const early = await store.purge(NOW + HOUR - 1);
      assert.deepEqual([early.removed, early.more, early.wake], [0, false, []]);

      const first = await store.purge(NOW + HOUR);
      assert.deepEqual([first.removed, first.expiredEnvelopes, first.more], [10, 10, true]);
      const second = await store.purge(NOW + HOUR);
      assert.deepEqual([second.removed, second.more], [6, false]);
      assert.equal(new Set([...first.wake, ...second.wake].map(({ deviceId }) => hex(deviceId))).size, 2);
      // Bob’s first row is his first message; Alice’s is the entry that added him.
      assert.equal((await gapOf(store, bob))?.sinceSeq, 1);
      assert.equal((await gapOf(store, alice))?.sinceSeq, 2);
      assert.equal((await gapOf(store, alice))?.reason, 'expired');
      assert.deepEqual(
        (await inboxOf(store, bob)).map(({ seq }) => seq),
        [9],
      );
      assert.deepEqual(
        (await inboxOf(store, alice)).map(({ seq }) => seq),
        [1, 10],
      );
      const status = await store.status();
      assert.deepEqual([status.queuedEnvelopes, status.queuedBytes], [2, 60]);
    });

    test('sessions, replays, packages and old message ids go as well', async () => {
      const store = await use();
      const alice = await register(store, 'alice.purge');
      const start = NOW + 100 * DAY;
      while ((await store.purge(start)).more);
      const replay = { hash: fresh(32), expiresAtMs: start + HOUR };
      const tokenHash = fresh(32);
      await store.putSession({ tokenHash, address: alice, expiresAtMs: start + HOUR, nowMs: start });
      const hybrid = { address: alice, hybridKey: fresh(99), serial: 1, notAfterMs: start + DAY, nowMs: start, replay };
      await store.putHybridKey(hybrid);
      const keyPackages = [keyPackage({ notAfterMs: start + HOUR })];
      await store.uploadKeyPackages({ address: alice, keyPackages, nowMs: start });
      const sent = message([alice], fresh(5), { nowMs: start });
      await enqueued(store, sent);
      await store.ack({ address: alice, seqUpTo: 10 });
      const removed = async (nowMs: number) => (await store.purge(nowMs)).removed;
      assert.equal(await removed(start + HOUR - 1), 0);
      assert.equal(await removed(start + HOUR), 3);
      assert.deepEqual(kinds(await enqueued(store, { ...sent, nowMs: start + HOUR })), ['duplicate']);
      assert.equal(await removed(start + 3 * DAY), 1);
      assert.equal((await store.putHybridKey({ ...hybrid, serial: 2 })).kind, 'stored', 'the replay memory has an end');
    });
  });
}
