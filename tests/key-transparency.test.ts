// The key-transparency log against a server that tampers with it, rolls it back, or shows two of them (PROTOCOL sections
// 2, 5 and 7; THREATS 1, 21, 34): real servers, real clients, and the server's own database.
import assert from 'node:assert/strict';
import type BetterSqlite3 from 'better-sqlite3';
import { cp, mkdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { signDeviceCertificate } from '@quicprochat/core';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { resolveConfig, startServer } from '@quicprochat/server';
import { methods, RpcClient } from '@quicprochat/transport';
import { connectQuic } from '@quicprochat/transport/quic';
import type { Dialer } from '../packages/client/src/server-connection.ts';
import type { Store } from '../packages/client/src/store/index.ts';
import { Meddler } from './meddler.ts';
import { statedAnew } from './wire.ts';
import { type Person, World } from './world.ts';

// As in the store: the package's own types are out of reach of its exports.
const SQLite = createRequire(import.meta.url)('better-sqlite3-multiple-ciphers') as typeof BetterSqlite3;

let world: World;
let alice: Person;
let bob: Person;
let carol: Person;
/** Come in on the way, and see nothing but an honest server until their own test. */
let dave: Person;
let erin: Person;
let frank: Person;
let grace: Person;
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

function warned(person: Person, code: string, words: RegExp, conversationId?: string): boolean {
  return person.events.some(
    (event) =>
      event.type === 'warning' &&
      event.code === code &&
      words.test(event.text) &&
      (conversationId === undefined || event.conversationId === conversationId),
  );
}

/** A group of Alice (administrator), Bob and Carol. */
async function groupOfThree(name: string): Promise<string> {
  const { id } = await alice.client.createGroup(name);
  await alice.client.invite(id, ['bob', 'carol']);
  for (const one of [bob, carol]) await one.joined(name);
  return id;
}

/** The database of the server, opened beside it. */
function withDatabase<T>(work: (db: BetterSqlite3.Database) => T): T {
  const db = new SQLite(path.join(world.dataDir, 'qpc.db'));
  try {
    return work(db);
  } finally {
    db.close();
  }
}

/** A copy of the server's folder as it is now. */
async function copyOfServer(name: string, change?: (db: BetterSqlite3.Database) => void): Promise<string> {
  const folder = path.join(world.folder, name);
  await mkdir(folder);
  const isCopied = (source: string): boolean => !/^(?:qpc\.db.*|.*\.sock)$/.test(path.basename(source));
  await cp(world.dataDir, folder, { recursive: true, filter: isCopied });
  withDatabase((db) => db.prepare('VACUUM INTO ?').run(path.join(folder, 'qpc.db')));
  const copy = new SQLite(path.join(folder, 'qpc.db'));
  change?.(copy);
  copy.close();
  return folder;
}

/** Another server with what is in a folder, under the same name. */
async function serverOn(dataDir: string): Promise<{ readonly dialer: Dialer; close(): Promise<void> }> {
  const flags = { dataDir, listen: '127.0.0.1:0', metricsListen: 'off', logLevel: 'error', shutdownGraceSecs: 1 };
  const outcome = resolveConfig({ flags, environment: {} });
  if (outcome.kind !== 'config') throw new Error(outcome.problems.join('; '));
  const server = await startServer(outcome.config);
  const dial: Dialer['dial'] = async ({ timeoutMs, signal }) =>
    connectQuic({
      host: '127.0.0.1',
      port: server.port,
      serverName: 'localhost',
      trustAnchor: new Uint8Array(await readFile(path.join(dataDir, 'cert.pem'))),
      connectTimeoutMs: timeoutMs,
      signal,
    });
  return { dialer: { server: world.server, dial }, close: () => server.close() };
}

const kinds = async (person: Person): Promise<string[]> =>
  (await person.client.audit()).findings.filter(({ accepted }) => !accepted).map(({ kind }) => kind);

test('who registers is in the log, sees it there, and keeps a copy that outlives the process', async () => {
  await alice.until('saw the own entry', () => alice.store.log.ownEntries()[0]?.seen !== undefined);
  await alice.client.resolve('bob');
  const { head, size } = { head: alice.store.log.head()!, size: alice.store.log.head()!.size };
  assert.ok(size >= 4, 'the start of the log and three accounts');
  assert.deepEqual(alice.store.log.entries(0, 10).length, size);

  await alice.restart();
  forAlice.calls.length = 0;
  await alice.client.sync();
  await alice.client.resolve('bob');
  assert.deepEqual(alice.store.log.head(), head);
  const fetches = forAlice.calls.filter((name) => name.endsWith('/AuditKeyTransparency'));
  assert.deepEqual(fetches, [], 'nothing is fetched twice');

  const report = await alice.client.audit();
  assert.equal(report.entries, size);
  assert.ok(
    forAlice.calls.some((name) => name.endsWith('/AuditKeyTransparency')),
    'an audit fetches it all',
  );
  assert.deepEqual(report.findings, []);
  assert.deepEqual(
    report.accounts.map(({ username, self, outcome, version }) => ({ username, self, outcome, version })),
    [
      { username: 'alice', self: true, outcome: 'verified', version: 0 },
      { username: 'bob', self: false, outcome: 'verified', version: 0 },
    ],
  );
});

test('THREATS 1: a device the log does not name, an answer without proof, an old answer: refused, nothing pinned', async () => {
  dave = await world.person('dave');
  const account = dave.store.account.get()!;
  // Even with the identity key's signature: a device that was never stated is nobody's.
  const certificate = signDeviceCertificate(nodeCrypto, account.identityPrivateKey!, {
    origin: account.origin,
    username: 'dave',
    identityKey: account.identityKey,
    deviceId: nodeCrypto.random(16),
    deviceKey: nodeCrypto.random(32),
    manager: false,
    serial: 1n,
    notBeforeSecs: Math.floor(Date.now() / 1000) - 60,
    notAfterSecs: Math.floor(Date.now() / 1000) + 86_400,
  });
  forAlice.answer(methods.user.resolveUser, (real) => {
    if (real.outcome.case === 'found') real.outcome.value.deviceCertificates.push(certificate);
    return real;
  });
  await assert.rejects(alice.client.resolve('dave'), { code: 'bad-log-proof', message: /names a device that the log/ });
  forAlice.answer(methods.user.resolveUser, (real) => {
    if (real.outcome.case === 'found') real.outcome.value.deviceCertificates = [];
    return real;
  });
  await assert.rejects(alice.client.resolve('dave'), { code: 'bad-log-proof', message: /withholds a device/ });
  forAlice.answer(methods.user.resolveUser, (real) => {
    if (real.outcome.case === 'found') delete real.outcome.value.keyTransparency;
    return real;
  });
  await assert.rejects(alice.client.resolve('dave'), { code: 'no-log-proof' });
  forAlice.answer(methods.user.resolveUser, (real) => {
    if (real.outcome.case === 'found') real.outcome.value.keyTransparency!.opening = nodeCrypto.random(32);
    return real;
  });
  await assert.rejects(alice.client.resolve('dave'), { code: 'bad-log-proof', message: /not in the log/ });
  assert.equal(alice.store.contacts.byUsername('dave'), undefined);

  let old:
    | Parameters<Parameters<typeof forAlice.answer<never, typeof methods.user.resolveUser.output>>[1]>[0]
    | undefined;
  forAlice.answer(methods.user.resolveUser, (real) => (old = real));
  await alice.client.resolve('dave');
  erin = await world.person('erin');
  forAlice.honest();
  await alice.client.resolve('erin');
  forAlice.answer(methods.user.resolveUser, () => old!);
  await assert.rejects(alice.client.resolve('dave'), { code: 'log-finding', message: /withholds entries/ });
  assert.ok(warned(alice, 'key-transparency', /withholds entries/));
  forAlice.honest();
  // From now on nothing this log vouches for is believed, until the user says so.
  await assert.rejects(alice.client.resolve('bob'), { code: 'log-finding' });
  const { findings } = await alice.client.audit({ accept: true });
  assert.deepEqual(
    findings.map(({ kind, accepted }) => ({ kind, accepted })),
    [{ kind: 'stale-head', accepted: true }],
  );
  await alice.client.resolve('bob');
});

test('THREATS 34: key-transparency answers differ between members: one of them pauses, the group does not fork', async () => {
  const id = await groupOfThree('answers differ');
  frank = await world.person('frank');
  forBob.answer(methods.user.resolveIdentity, (real) => {
    if (real.outcome.case === 'found') delete real.outcome.value.keyTransparency;
    return real;
  });
  await alice.client.invite(id, ['frank']);
  await bob.until('noticed', () => warned(bob, 'member-check-failed', /frank are refused/, id));
  await assert.rejects(bob.client.send(id, 'psst'), { code: 'sending-paused' });
  await alice.client.setAdmin(id, 'carol', true);
  await alice.client.send(id, 'hello Frank');
  for (const one of [bob, carol]) await one.sees('answers differ', ['hello Frank']);
  const epochs = await Promise.all([alice, bob, carol].map(async (one) => (await one.conversation(id)).epoch));
  assert.equal(new Set(epochs).size, 1);
  await bob.client.resumeSending(id);
  await bob.client.send(id, 'I asked him');
  await carol.sees('answers differ', ['hello Frank', 'I asked him']);
});

test('a member whose commit names a head that nobody has signed: shown, paused, and the commit counts', async () => {
  const id = await groupOfThree('strange head');
  await alice.client.setAdmin(id, 'bob', true);
  await bob.until('administrator', async () => (await bob.client.members(id)).some(({ self, admin }) => self && admin));
  const strange = { checkpoint: new TextEncoder().encode('elsewhere\n1\nAAAA\n'), size: 1, followedAtMs: Date.now() };
  bob.wrapStore = (store) => ({ ...store, log: { ...store.log, head: () => strange } });
  await bob.restart();
  await bob.client.setAdmin(id, 'carol', true);
  for (const one of [alice, carol]) {
    await one.until('noticed', () => warned(one, 'key-transparency', /another key-transparency log/, id));
    await assert.rejects(one.client.send(id, 'psst'), { code: 'sending-paused' });
    await one.client.resumeSending(id);
  }
  bob.wrapStore = undefined;
  await bob.restart();
  await alice.client.send(id, 'what was that?');
  for (const one of [bob, carol]) await one.sees('strange head', ['what was that?']);
});

test('THREATS 21: a split view: the heads two members were shown meet in a commit; shown, paused, no fork', async () => {
  const id = await groupOfThree('split');
  for (const one of [alice, bob, carol]) assert.deepEqual(await kinds(one), []);
  // The same keys, another log from here on.
  const fork = await serverOn(await copyOfServer('fork'));
  try {
    grace = await world.person('grace');
    await world.person('mallory', { wrapDialer: () => fork.dialer });
    const connection = await fork.dialer.dial({ timeoutMs: 10_000, signal: new AbortController().signal });
    const other = new RpcClient(connection, {});
    let asked: { start: bigint; limit: number } = { start: 0n, limit: 0 };
    forBob.request(methods.keys.auditKeyTransparency, (sent) => (asked = sent));
    forBob.answer(methods.keys.auditKeyTransparency, () => other.call(methods.keys.auditKeyTransparency, asked));
    forBob.answer(methods.keys.getTreeHead, () => other.call(methods.keys.getTreeHead, {}));
    await alice.client.resolve('grace');
    // Bob's log is in order, as far as Bob can see.
    world.clockOffsetMs += 11 * 60_000;
    await bob.restart();
    await bob.until('followed', () => bob.store.log.head()!.size === alice.store.log.head()!.size);
    assert.deepEqual(bob.store.log.findings(), []);

    await alice.client.setAdmin(id, 'bob', true);
    await bob.until('found', () => warned(bob, 'key-transparency', /contradict each other/, id));
    await assert.rejects(bob.client.send(id, 'psst'), { code: 'sending-paused' });
    await assert.rejects(bob.client.resolve('dave'), { code: 'log-finding' });
    // The commit counted all the same, for Bob as for the others.
    await alice.client.send(id, 'still one group');
    for (const one of [bob, carol]) await one.sees('split', ['still one group']);
    // And Bob's commit shows it to Alice.
    await bob.client.setAdmin(id, 'carol', true);
    await alice.until('found', () => warned(alice, 'key-transparency', /contradict each other/, id));
    other.close();
  } finally {
    await fork.close();
    world.clockOffsetMs = 0;
  }
  const [finding] = bob.store.log.findings();
  const evidence = JSON.parse(finding!.evidence) as { mine: string; other: string };
  assert.match(evidence.mine, /key-transparency\n\d+\n/);
  assert.match(evidence.other, /key-transparency\n\d+\n/);
  forBob.honest();
  // Bob's copy is of the other log: an audit of this one says so each time, and the evidence stays.
  assert.deepEqual(await kinds(bob), ['split-view', 'split-view']);
});

test('THREATS 21: one entry changed in the server’s database is found by an audit, and named', async () => {
  await dave.client.resolve('alice');
  const before = await dave.client.audit();
  assert.deepEqual(before.findings, []);
  const change = (): void =>
    withDatabase((db) => {
      const entry = db.prepare<[], Buffer>('SELECT entry FROM kt_entry WHERE position = 2').pluck().get()!;
      entry[40]! ^= 1;
      db.prepare('UPDATE kt_entry SET entry = ? WHERE position = 2').run(entry);
    });
  change();
  const report = await dave.client.audit();
  assert.equal(report.changedAt, 2);
  assert.equal(report.root, undefined);
  assert.deepEqual(
    report.findings.map(({ kind, username, accepted }) => ({ kind, username, accepted })),
    [{ kind: 'root-mismatch', username: undefined, accepted: false }],
  );
  assert.ok(warned(dave, 'key-transparency', /do not add up/));
  await assert.rejects(dave.client.resolve('bob'), { code: 'log-finding' });
  // Changed back: the log is in order again, what was found stays in the report.
  change();
  const after = await dave.client.audit({ accept: true });
  assert.equal(after.root, before.root);
  assert.deepEqual(
    after.findings.map(({ kind, accepted }) => ({ kind, accepted })),
    [{ kind: 'root-mismatch', accepted: true }],
  );
  await dave.client.resolve('bob');
});

test('THREATS 21: an entry of one’s own account that one did not make is found without an audit', async () => {
  await erin.until('saw the own entry', () => erin.store.log.ownEntries()[0]?.seen !== undefined);
  const { id } = await erin.client.openDirect('dave');
  await erin.client.send(id, 'is it me?');
  await dave.joined('erin');
  withDatabase((db) => {
    const row = db
      .prepare<[], { account: number; entry: Buffer }>(
        `SELECT k.account, k.entry FROM kt_account k JOIN account a ON a.id = k.account WHERE a.username = 'erin'`,
      )
      .get()!;
    const entry = Buffer.from(row.entry);
    entry.writeUInt32BE(1, 33);
    entry.set(nodeCrypto.random(32), 37);
    db.prepare('INSERT INTO kt_queue (account, version, entry) VALUES (?, 1, ?)').run(row.account, entry);
  });
  // It is appended with whatever comes next.
  await world.person('rupert');
  world.clockOffsetMs += 11 * 60_000;
  await erin.restart();
  await erin.until('found', () => warned(erin, 'key-transparency', /was not made by it|is newer/));
  await assert.rejects(erin.client.send(id, 'psst'), { code: 'sending-paused' });
  // Others follow the log, too; what they find concerns what they say to her, and nobody else.
  await dave.restart();
  await dave.until('found', () => warned(dave, 'key-transparency', /is newer/, id));
  world.clockOffsetMs = 0;
  assert.ok((await kinds(erin)).includes('unexpected-own-entry'));
  await assert.rejects(dave.client.resolve('erin'), { code: 'bad-log-proof', message: /is newer/ });
  await assert.rejects(dave.client.send(id, 'psst'), { code: 'sending-paused' });
  await dave.client.resolve('carol');
  const { accounts } = await dave.client.audit({ accept: true });
  assert.deepEqual(
    accounts.filter(({ outcome }) => outcome === 'failed').map(({ username }) => username),
    ['erin'],
  );
  await dave.client.send(id, 'I have asked you');
});

test('a deleted account is over in the log too; its history stays', async () => {
  const ivan = await world.person('ivan');
  await frank.client.resolve('ivan');
  const chat = await ivan.client.openDirect('frank');
  await ivan.client.send(chat.id, 'farewell');
  await frank.joined('ivan');
  await ivan.client.flush();
  await ivan.client.deleteAccount();
  await assert.rejects(ivan.client.login('ivan', ivan.password), { code: 'account-deleted' });
  assert.deepEqual(await ivan.texts('frank'), ['farewell']);
  await assert.rejects(frank.client.resolve('ivan'), { code: 'unknown-user' });
  const gone = (await frank.client.audit()).accounts.find(({ username }) => username === 'ivan');
  assert.deepEqual(gone, {
    username: 'ivan',
    self: false,
    outcome: 'unlisted',
    version: undefined,
    reason: 'the account was deleted',
  });
});

test('a server that shows another log than before, or none any more, is refused', async () => {
  for (const [words, lie] of [
    [/no longer shows/, { logOrigin: '', logKey: new Uint8Array(0), logVrfKey: new Uint8Array(0) }],
    [/another one/, { logVrfKey: nodeCrypto.random(32) }],
    [/another one/, { logKey: nodeCrypto.random(32) }],
    [/another one/, { logOrigin: 'elsewhere/key-transparency' }],
    [/properly/, { logVrfKey: new Uint8Array(0) }],
  ] as const) {
    await alice.close();
    await alice.open();
    forAlice.answer(methods.p2p.health, (real) => ({ ...real, ...lie }));
    await assert.rejects(alice.client.connect(), { code: 'server-changed', message: words });
  }
  forAlice.honest();
  await alice.client.connect();
});

test('an account that changes while it is looked up is looked up again; its owner is told of what this device did not do', async () => {
  const forNiaj = new Meddler();
  const niaj = await world.person('niaj', { wrapDialer: forNiaj.wrap });
  const forTrent = new Meddler();
  const trent = await world.person('trent', { wrapDialer: forTrent.wrap });
  for (const one of [niaj, trent]) {
    await one.until('saw the own entry', () => one.store.log.ownEntries()[0]?.seen !== undefined);
  }
  const { identityKey } = niaj.store.account.get()!;
  // With the identity key, as another device of the account would.
  const stateAnew = async (): Promise<void> => {
    const first = niaj.store.log.ownEntries()[0]!.seen!;
    await forNiaj.call(methods.device.registerDevice, statedAnew(niaj.store.account.get()!, first.commitment));
  };
  const names: string[] = [];
  forTrent.request(methods.user.resolveUser, (sent) => {
    names.push(sent.username);
    return sent;
  });
  forTrent.answer(methods.user.resolveUser, async (real) => {
    if (names.length > 1) return real;
    // This answer is on its way while the account changes and Trent's copy of the log goes on.
    await stateAnew();
    await world.person('sybil');
    await trent.client.resolve('sybil');
    return real;
  });
  await trent.client.resolve('niaj');
  assert.deepEqual(names, ['niaj', 'sybil', 'niaj']);
  assert.equal(trent.store.log.account(identityKey)?.version, 1);
  assert.deepEqual(trent.store.log.findings(), []);

  world.clockOffsetMs += 11 * 60_000;
  await niaj.restart();
  await niaj.until('told', () => warned(niaj, 'account-changed', /another device/));
  assert.deepEqual(
    niaj.store.log.ownEntries().map(({ version, seen }) => ({ version, seen: seen !== undefined })),
    [
      { version: 0, seen: true },
      { version: 1, seen: true },
    ],
  );
  assert.deepEqual(niaj.store.log.findings(), []);
  world.clockOffsetMs = 0;
});

test('an account from before the server kept a log enters it by itself, and can be looked up from then on', async () => {
  // A client that knows nothing of the log, and a server that has not begun it.
  const forgetful = (store: Store): Store => ({
    ...store,
    log: { ...store.log, advance: () => {}, followed: () => {}, saveOwnEntry: () => {}, saveAccount: () => {} },
  });
  const walter = await world.person('walter', { wrapStore: forgetful });
  const folder = await copyOfServer('before', (db) => {
    for (const table of ['kt_entry', 'kt_hash', 'kt_head', 'kt_account', 'kt_queue']) db.exec(`DELETE FROM ${table}`);
  });
  const later = await serverOn(folder);
  try {
    const wendy = await world.person('wendy', { wrapDialer: () => later.dialer });
    await assert.rejects(wendy.client.resolve('walter'), { code: 'no-log-proof' });
    walter.wrapStore = undefined;
    walter.wrapDialer = () => later.dialer;
    await walter.restart();
    await walter.until('in the log', () => walter.store.log.ownEntries()[0]?.seen !== undefined);
    assert.equal((await wendy.client.resolve('walter')).username, 'walter');
    assert.deepEqual(walter.store.log.findings(), []);
    for (const one of [walter, wendy]) await one.close();
  } finally {
    await later.close();
  }
});

test('THREATS 21: a server put back to an earlier state is found: by an audit, and before anything is believed', async () => {
  assert.deepEqual(await kinds(grace), []);
  const backup = await copyOfServer('backup');
  await world.person('judy');
  await grace.client.resolve('judy');
  const earlier = await serverOn(backup);
  try {
    grace.wrapDialer = () => earlier.dialer;
    await grace.restart();
    const report = await grace.client.audit();
    assert.deepEqual(
      report.findings.filter(({ accepted }) => !accepted).map(({ kind }) => kind),
      ['rollback'],
    );
    assert.equal(report.entries, undefined);
    await assert.rejects(grace.client.resolve('bob'), { code: 'log-finding', message: /fewer entries/ });
    // It is the only log there is now: whoever accepts that begins anew with it.
    const { root, findings } = await grace.client.audit({ accept: true });
    assert.notEqual(root, undefined);
    assert.ok(findings.every(({ accepted }) => accepted));
    await grace.client.resolve('bob');
    await grace.close();
  } finally {
    await earlier.close();
  }
});

test('a log put back is accepted: what another device had done, and was told then, is not told once more', async () => {
  const forPeggy = new Meddler();
  const peggy = await world.person('peggy', { wrapDialer: forPeggy.wrap });
  await peggy.until('saw the own entry', () => peggy.store.log.ownEntries()[0]?.seen !== undefined);
  const first = peggy.store.log.ownEntries()[0]!.seen!;
  await forPeggy.call(methods.device.registerDevice, statedAnew(peggy.store.account.get()!, first.commitment));
  assert.deepEqual(await kinds(peggy), []);
  await peggy.until('told', () => warned(peggy, 'account-changed', /another device/));
  const backup = await copyOfServer('put-back');
  await world.person('victor');
  await peggy.client.resolve('victor');
  const earlier = await serverOn(backup);
  try {
    peggy.wrapDialer = () => earlier.dialer;
    await peggy.restart();
    assert.deepEqual(await kinds(peggy), ['rollback']);
    const { accounts } = await peggy.client.audit({ accept: true });
    assert.equal(accounts[0]?.version, 1);
    const size = peggy.store.log.head()!.size;
    assert.deepEqual(
      peggy.store.log.ownEntries().map(({ seen }) => seen !== undefined && seen.dueAtSize <= size),
      [true, true],
    );
    assert.ok(!warned(peggy, 'account-changed', /./));
    await peggy.close();
  } finally {
    await earlier.close();
  }
});
