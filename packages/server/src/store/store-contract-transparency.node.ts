/** What every store has to do for the key-transparency log: statements with their accounts, batches whole or not at all. */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { fresh, type OpenStore, register } from './store-contract.node.ts';
import type { Address, AppendToLog, NewDevice, StatedEntry, Store } from './store.ts';

const NOW = 1_800_000_000_000;
const DAY = 86_400_000;
const hex = (bytes: Uint8Array | undefined) => (bytes === undefined ? undefined : Buffer.from(bytes).toString('hex'));
const hexAll = (many: readonly Uint8Array[]) => many.map(hex);

function stated(version: number, revocationsBefore = 0): StatedEntry {
  const [entry, history, opening, statement, vrfProof] = [73, 32, 32, 900, 80].map(fresh) as [
    Uint8Array,
    Uint8Array,
    Uint8Array,
    Uint8Array,
    Uint8Array,
  ];
  return { version, entry, history, opening, statement, vrfProof, revocationsBefore };
}

function newDevice(): NewDevice {
  return { deviceId: fresh(16), deviceKey: fresh(32), certificate: fresh(300), name: 'phone' };
}

/** An account that begins with a statement. */
async function registerStated(store: Store, username: string, first = stated(0)): Promise<Address> {
  const firstDevice = newDevice();
  const identityKey = fresh(32);
  const record = { opaqueRecord: fresh(192), registrationSignature: fresh(64) };
  const outcome = await store.createAccount({
    username,
    identityKey,
    ...record,
    firstDevice,
    stated: first,
    nowMs: NOW,
  });
  assert.equal(outcome.kind, 'created');
  return { identityKey, deviceId: firstDevice.deviceId };
}

/** Everything queued, or the start of the log. The hashes mean nothing here: only where they go. */
async function append(store: Store, change: Partial<AppendToLog> = {}) {
  const size = (await store.readLogHead())?.size ?? 0;
  const queued = (await store.readLogQueue(1_000)).length;
  const start = size === 0 ? fresh(73) : undefined;
  const entries = queued + (start === undefined ? 0 : 1);
  const hashes = Array.from({ length: entries }, () => fresh(32));
  const batch = { size, start, queued, hashesFrom: size, hashes, checkpoint: fresh(150), ...change };
  return { batch, outcome: await store.appendToLog(batch) };
}

const positionOf = async (store: Store, username: string) =>
  (await store.findStatedAccount({ username }))?.stated?.position;

export function transparencyContract(name: string, open: OpenStore): void {
  describe(`${name}: the contract of the key-transparency log`, () => {
    const opened = open();
    after(async () => (await opened).store.close());
    const use = async () => (await opened).store;

    test('a log begins with its start, and grows by what was queued, in order', async () => {
      const store = await use();
      assert.equal(await store.readLogHead(), undefined);
      const alice = stated(0);
      const { identityKey } = await registerStated(store, 'alice', alice);
      const before = await store.findStatedAccount({ username: 'alice' });
      const { revocationsBefore: _, ...kept } = alice;
      assert.deepEqual(
        Object.entries(before?.stated ?? {}).map(([key, value]) => [
          key,
          value instanceof Uint8Array ? hex(value) : value,
        ]),
        Object.entries({ position: undefined, ...kept }).map(([key, value]) => [
          key,
          value instanceof Uint8Array ? hex(value) : value,
        ]),
      );
      assert.deepEqual(hexAll(await store.readLogQueue(10)), [hex(alice.entry)]);
      const bob = stated(0);
      await registerStated(store, 'bob', bob);

      const { batch, outcome } = await append(store);
      assert.deepEqual(outcome, { kind: 'appended' });
      const head = await store.readLogHead();
      assert.deepEqual(
        [head?.size, hex(head?.checkpoint), hex(head?.start)],
        [3, hex(batch.checkpoint), hex(batch.start)],
      );
      assert.deepEqual(await store.readLogQueue(10), []);
      assert.deepEqual([await positionOf(store, 'alice'), await positionOf(store, 'bob')], [1, 2]);
      assert.equal((await store.findStatedAccount({ identityKey }))?.stated?.position, 1);
      assert.deepEqual(hexAll(await store.readLogEntries({ start: 1, limit: 5 })), hexAll([alice.entry, bob.entry]));
      assert.deepEqual(hexAll(await store.readLogEntries({ start: 0, limit: 1 })), [hex(batch.start)]);
      assert.deepEqual(await store.readLogEntries({ start: 3, limit: 5 }), []);
      assert.deepEqual(hexAll(await store.readLogHashes([2, 0])), hexAll([batch.hashes[2]!, batch.hashes[0]!]));
      assert.equal((await store.readLogHashes([2, 99])).length, 1);
    });

    test('a batch that does not fit log and queue changes nothing', async () => {
      const store = await use();
      await registerStated(store, 'carol');
      const head = await store.readLogHead();
      for (const change of [{ size: head!.size - 1 }, { size: 0 }, { queued: 2 }]) {
        assert.deepEqual((await append(store, change)).outcome, { kind: 'conflict' });
      }
      // A position that is taken fails the batch as a whole.
      await assert.rejects(append(store, { hashesFrom: 0 }));
      assert.deepEqual(await store.readLogHead(), head);
      assert.equal((await store.readLogQueue(10)).length, 1);
      assert.equal(await positionOf(store, 'carol'), undefined);
      assert.deepEqual((await append(store)).outcome, { kind: 'appended' });
      assert.equal(await positionOf(store, 'carol'), head!.size);
    });

    test('a statement goes in with its change, or neither does', async () => {
      const store = await use();
      const { identityKey } = await registerStated(store, 'dave');
      const device = newDevice();
      const attempt = (next: StatedEntry) => store.registerDevice({ identityKey, device, stated: next, nowMs: NOW });
      for (const stale of [stated(0), stated(2), stated(1, 1)]) {
        assert.deepEqual(await attempt(stale), { kind: 'stale_statement' });
      }
      assert.equal((await store.listDevices(identityKey)).length, 1);
      assert.equal((await attempt(stated(1))).kind, 'registered');
      assert.deepEqual(await attempt(stated(1)), { kind: 'stale_statement' }, 'the second of one version');

      const address = { identityKey, deviceId: device.deviceId };
      const revoke = (next?: StatedEntry) =>
        store.revokeDevice({ address, statement: fresh(200), stated: next, nowMs: NOW });
      assert.deepEqual(await revoke(stated(1)), { kind: 'stale_statement' });
      assert.equal((await store.listDevices(identityKey)).length, 2);
      // By its own key, without a statement: one that was checked before does not fit any more.
      assert.deepEqual(await revoke(), { kind: 'revoked' });
      const restate = { ...newDevice(), deviceId: fresh(16) };
      const add = (next: StatedEntry) =>
        store.registerDevice({ identityKey, device: restate, stated: next, nowMs: NOW });
      assert.deepEqual(await add(stated(2, 0)), { kind: 'stale_statement' });
      assert.deepEqual(await add(stated(2, 1)), { kind: 'registered' });
      const ended = { identityKey, nowMs: NOW };
      assert.deepEqual(await store.deleteAccount({ ...ended, stated: stated(2, 1) }), { kind: 'stale_statement' });
      assert.notEqual(await store.findAccountByUsername('dave'), undefined);
    });

    test('of two versions in one batch the newest is the one that is found', async () => {
      const store = await use();
      const { identityKey } = await registerStated(store, 'erin');
      const second = stated(1);
      await store.registerDevice({ identityKey, device: newDevice(), stated: second, nowMs: NOW });
      const { batch } = await append(store);
      assert.equal(await positionOf(store, 'erin'), batch.size + batch.queued - 1);
      const [entry] = await store.readLogEntries({ start: batch.size + batch.queued - 1, limit: 1 });
      assert.equal(hex(entry), hex(second.entry));
    });

    test('a certificate gives way to the one that names it, with a statement', async () => {
      const store = await use();
      const { identityKey, deviceId } = await registerStated(store, 'frank');
      const device = (await store.findDevice({ identityKey, deviceId }))!;
      const renewed = { ...device, certificate: fresh(301) };
      const renew = (renews: Uint8Array | undefined, next: StatedEntry) =>
        store.registerDevice({ identityKey, device: renewed, renews, stated: next, nowMs: NOW });
      assert.deepEqual(await renew(undefined, stated(1)), { kind: 'device_taken' });
      assert.deepEqual(await renew(fresh(300), stated(1)), { kind: 'device_taken' });
      assert.deepEqual(await renew(device.certificate, stated(1)), { kind: 'renewed' });
      assert.deepEqual(await renew(device.certificate, stated(2)), { kind: 'exists' }, 'stated again');
      assert.equal(hex((await store.findDevice({ identityKey, deviceId }))?.certificate), hex(renewed.certificate));
      await store.revokeDevice({ address: { identityKey, deviceId }, statement: fresh(9), nowMs: NOW });
      assert.deepEqual(await renew(renewed.certificate, stated(3, 1)), { kind: 'device_taken' });
      assert.equal((await store.findStatedAccount({ identityKey }))?.stated?.version, 2);
    });

    test('the end of an account is entered, and what opened its entries is gone', async () => {
      const store = await use();
      const { identityKey } = await registerStated(store, 'grace');
      const end = stated(1);
      assert.equal((await store.deleteAccount({ identityKey, stated: end, nowMs: NOW })).kind, 'deleted');
      assert.equal(await store.findStatedAccount({ identityKey }), undefined);
      const queue = await store.readLogQueue(10);
      assert.equal(hex(queue.at(-1)), hex(end.entry));
      assert.deepEqual((await append(store)).outcome, { kind: 'appended' });
    });

    test('an account without a statement has none; its revocations are shown, the newest of many', async () => {
      const store = await use();
      const { identityKey } = await register(store, 'heidi');
      const statements = Array.from({ length: 40 }, () => fresh(100));
      for (const [i, statement] of statements.entries()) {
        const address = { identityKey, deviceId: fresh(16) };
        await store.revokeDevice({ address, statement, nowMs: NOW + i });
      }
      const found = await store.findStatedAccount({ username: 'heidi' });
      assert.equal(found?.stated, undefined);
      assert.equal(found?.revocationCount, 40);
      assert.deepEqual(hexAll(found?.revocations.map(({ statement }) => statement) ?? []), hexAll(statements.slice(8)));
    });

    test('log, queue and statements survive a restart', async (t) => {
      const store = await use();
      await registerStated(store, 'ivan');
      await append(store);
      await registerStated(store, 'judy');
      const head = await store.readLogHead();
      const again = await (await opened).reopen();
      t.after(() => again.close());
      assert.deepEqual(await again.readLogHead(), head);
      assert.equal(await positionOf(again, 'ivan'), head!.size - 1);
      assert.equal(await positionOf(again, 'judy'), undefined);
      assert.equal((await again.readLogQueue(10)).length, 1);
      assert.equal((await again.purge(NOW + 100 * DAY)).more, false);
      assert.deepEqual((await append(again)).outcome, { kind: 'appended' });
    });
  });
}
