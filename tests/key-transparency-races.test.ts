// The key-transparency log followed while something else happens (PROTOCOL section 7; THREATS 21): an audit while the copy
// goes on, findings accepted in the middle of following, another device of one's own while the log is doubted. An honest
// server must not be accused for any of it, and the copy on disk stays whole.
import assert from 'node:assert/strict';
import type BetterSqlite3 from 'better-sqlite3';
import { createRequire } from 'node:module';
import path from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { encodeLogEntry } from '@quicprochat/core';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { methods } from '@quicprochat/transport';
import { Meddler } from './meddler.ts';
import { statedAnew } from './wire.ts';
import { type Person, World } from './world.ts';

// As in the store: the package's own types are out of reach of its exports.
const SQLite = createRequire(import.meta.url)('better-sqlite3-multiple-ciphers') as typeof BetterSqlite3;

let world: World;
let alice: Person;
const forAlice = new Meddler();

before(async () => {
  world = await World.start();
  alice = await world.person('alice', { wrapDialer: forAlice.wrap });
  await world.person('bob');
  await alice.until('saw the own entry', () => alice.store.log.ownEntries()[0]?.seen !== undefined);
});
after(async () => {
  await world[Symbol.asyncDispose]();
});
afterEach(() => {
  forAlice.honest();
  world.clockOffsetMs = 0;
});

/** The server answers with what it said of somebody before the log went on. */
async function findSomething(name: string): Promise<void> {
  await world.person(name);
  type Answered = Parameters<Parameters<typeof forAlice.answer<never, typeof methods.user.resolveUser.output>>[1]>[0];
  let old: Answered | undefined;
  forAlice.answer(methods.user.resolveUser, (real) => (old = real));
  await alice.client.resolve(name);
  forAlice.honest();
  await world.person(`${name}-next`);
  await alice.client.resolve(`${name}-next`);
  forAlice.answer(methods.user.resolveUser, () => old!);
  await assert.rejects(alice.client.resolve(name), { code: 'log-finding' });
  forAlice.honest();
}

test('an audit while the copy of the log goes on accuses nobody', async () => {
  const sizeBefore = alice.store.log.head()!.size;
  let isHeld = false;
  forAlice.answer(methods.keys.auditKeyTransparency, async (real) => {
    if (isHeld) return real;
    isHeld = true;
    // The audit has its head; meanwhile somebody registers, is looked up, and the copy goes beyond it.
    await world.person('carol');
    await alice.client.resolve('carol');
    assert.ok(alice.store.log.head()!.size > sizeBefore);
    return real;
  });
  const { findings, root } = await alice.client.audit();
  assert.ok(isHeld);
  assert.deepEqual(findings, []);
  assert.notEqual(root, undefined);
  await alice.client.resolve('bob');
});

test('findings accepted while the log is being followed: the copy begins anew and stays whole', async () => {
  await findSomething('dora');
  await alice.close();
  await alice.open();
  world.clockOffsetMs = 11 * 60_000;
  const asked = Promise.withResolvers<void>();
  const answered = Promise.withResolvers<void>();
  forAlice.answer(methods.keys.getTreeHead, async (real) => {
    asked.resolve();
    await answered.promise;
    return real;
  });
  await alice.client.connect();
  // As with "qpc audit --accept" a while after: connecting has begun to follow.
  await asked.promise;
  const audited = alice.client.audit({ accept: true });
  answered.resolve();
  const { findings } = await audited;
  assert.ok(findings.length > 0 && findings.every(({ accepted }) => accepted));
  await alice.client.resolve('bob');
  await alice.restart();
  await alice.client.resolve('bob');
  assert.deepEqual(
    (await alice.client.audit()).findings.filter(({ accepted }) => !accepted),
    [],
  );
});

test('another device of one’s own changes the account while the log is doubted: it is looked up once that is over', async () => {
  await findSomething('edna');
  const first = alice.store.log.ownEntries()[0]!.seen!;
  await forAlice.call(methods.device.registerDevice, statedAnew(alice.store.account.get()!, first.commitment));
  await world.person('fred');

  const sizeBefore = alice.store.log.head()!.size;
  world.clockOffsetMs = 11 * 60_000;
  await alice.restart();
  await alice.until('followed', () => alice.store.log.head()!.size > sizeBefore);
  const report = await alice.client.audit({ accept: true });
  assert.deepEqual(new Set(report.findings.map(({ kind }) => kind)), new Set(['stale-head']));
  assert.deepEqual(report.accounts[0], {
    username: 'alice',
    self: true,
    outcome: 'verified',
    version: 1,
    reason: undefined,
  });
});

test('a copy damaged on disk is fetched anew, and the log has to continue it all the same', async () => {
  const damage = (): void => {
    const { log } = alice.store;
    const head = log.head()!;
    log.forgetCopy();
    log.advance(0, nodeCrypto.random(73 * head.size), head);
  };
  const { checkpoint: earlier } = await forAlice.call(methods.keys.getTreeHead, {});
  await world.person('hugo');
  await alice.client.resolve('hugo');
  const before = alice.store.log.head()!;
  await alice.close();
  await alice.open();
  damage();
  forAlice.answer(methods.keys.getTreeHead, () => ({ checkpoint: earlier }));
  world.clockOffsetMs = 11 * 60_000;
  await alice.client.connect();
  const isFound = (): boolean => alice.store.log.findings().some(({ settledAtMs }) => settledAtMs === undefined);
  await alice.until('found', isFound);
  await assert.rejects(alice.client.resolve('hugo'), { code: 'log-finding', message: /withholds entries/ });
  forAlice.honest();
  const { root } = await alice.client.audit({ accept: true });
  assert.notEqual(root, undefined);

  await alice.close();
  await alice.open();
  damage();
  await alice.client.connect();
  await alice.client.resolve('hugo');
  assert.deepEqual(alice.store.log.head()!.checkpoint, before.checkpoint);
  assert.deepEqual(alice.store.log.witnessed(), []);
  assert.deepEqual(
    (await alice.client.audit()).findings.filter(({ accepted }) => !accepted),
    [],
  );
});

test('what was accepted once and is found again is a finding again', async () => {
  const lie = (): void => {
    forAlice.answer(methods.keys.auditKeyTransparency, (real) => {
      const entries = real.entries.map((entry) => entry.slice());
      entries.at(-1)![40]! ^= 1;
      return { ...real, entries };
    });
  };
  for (let time = 0; time < 2; time++) {
    lie();
    const { findings } = await alice.client.audit();
    assert.deepEqual(
      findings.filter(({ accepted }) => !accepted).map(({ kind }) => kind),
      ['root-mismatch'],
    );
    await assert.rejects(alice.client.resolve('bob'), { code: 'log-finding', message: /do not add up/ });
    // Accepted is what was found before, not what this very audit finds.
    const again = await alice.client.audit({ accept: true });
    assert.equal(again.findings.at(-1)!.accepted, false);
    forAlice.honest();
    await alice.client.audit({ accept: true });
    await alice.client.resolve('bob');
  }
});

test('a server that withholds the entries of a head it has signed: told once, without anybody asking', async () => {
  await world.person('ines');
  await alice.close();
  await alice.open();
  world.clockOffsetMs = 11 * 60_000;
  forAlice.answer(methods.keys.auditKeyTransparency, (real) => ({ ...real, entries: [] }));
  const told = (): number =>
    alice.events.filter(
      (event) =>
        event.type === 'warning' && event.code === 'key-transparency' && /withholds entries of a log/.test(event.text),
    ).length;
  await alice.client.connect();
  await alice.until('told', () => told() === 1);
  await assert.rejects(alice.client.resolve('ines'), { code: 'bad-log' });
  assert.equal(told(), 1);
  forAlice.honest();
  await alice.client.resolve('ines');
  assert.deepEqual(
    alice.store.log.findings().filter(({ settledAtMs }) => settledAtMs === undefined),
    [],
  );
});

test('a log with hundreds of faulty entries: told a few times, and kept with bounds', async () => {
  const db = new SQLite(path.join(world.dataDir, 'qpc.db'));
  const insert = db.prepare('INSERT INTO kt_queue (account, version, entry) VALUES (0, 7, ?)');
  for (let i = 0; i < 300; i++) {
    const [index, commitment] = [nodeCrypto.random(32), nodeCrypto.random(32)];
    insert.run(encodeLogEntry({ kind: 'keys', index, version: 7, commitment, day: 20_000 }));
  }
  db.close();
  // They are appended with whatever comes next.
  await world.person('gina');
  alice.events.length = 0;
  await alice.client.resolve('gina');
  const skipped = alice.store.log.findings().filter(({ kind }) => kind === 'version-skipped');
  assert.equal(skipped.length, 32);
  assert.equal(alice.events.filter(({ type }) => type === 'warning').length, 32);
});
