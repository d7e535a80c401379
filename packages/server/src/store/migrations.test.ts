// Every schema there ever was, with something in each of its tables, opened by this version: nothing is lost, and what the
// store says of it is right. The rows are SQL of their time, so that nothing of today's code has a hand in them.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { resolveConfig, startServer, StartupError } from '../index.node.ts';
import { createPrivateFile, type Database, migrate, openDatabase } from './sqlite-database.node.ts';
import { MIGRATIONS } from './sqlite-schema.node.ts';
import { openSqliteStore } from './sqlite.node.ts';
import { StoreError } from './store.ts';

const root = mkdtempSync(path.join(tmpdir(), 'qpc-migrations-'));
after(() => rmSync(root, { recursive: true, force: true }));

const NOW = 1_800_000_000_000;
const LATER = NOW + 86_400_000;

/** `n` bytes of one value, as an SQL literal. */
const b = (value: number, n = 32): string => `x'${value.toString(16).padStart(2, '0').repeat(n)}'`;
const bytes = (value: number, n = 32): Uint8Array => new Uint8Array(n).fill(value);

// Alice (1) has the devices 1 and 2, Bob (2) has 3. Device 1 has sent Bob a message; a commit has gone to all three.
const FIXTURES: readonly string[] = [
  `
  INSERT INTO setting VALUES ('origin', CAST('chat.test' AS BLOB));
  INSERT INTO account VALUES (1, 'alice', ${b(1)}, ${b(2, 192)}, ${b(3, 64)}, ${NOW}),
                             (2, 'bob', ${b(11)}, ${b(12, 192)}, ${b(13, 64)}, ${NOW});
  INSERT INTO device VALUES (1, 1, ${b(21, 16)}, ${b(31)}, ${b(41, 200)}, 'desk', ${NOW}, 20833),
                            (2, 1, ${b(22, 16)}, ${b(32)}, ${b(42, 200)}, 'phone', ${NOW}, 20833),
                            (3, 2, ${b(23, 16)}, ${b(33)}, ${b(43, 200)}, 'desk', ${NOW}, 20833);
  INSERT INTO session VALUES (${b(51)}, 1, ${NOW}, ${LATER});
  INSERT INTO replay VALUES (${b(52)}, ${LATER});
  INSERT INTO key_package VALUES (1, 1, 1, 0, 0, ${b(61)}, ${LATER}, ${b(62, 300)}),
                                 (2, 1, 1, 0, 1, ${b(63)}, ${LATER}, NULL),
                                 (3, 1, 1, 1, 1, ${b(64)}, ${LATER}, ${b(65, 300)});
  INSERT INTO hybrid_key VALUES (1, ${b(66, 1300)}, 7, ${LATER});
  INSERT INTO channel VALUES (1, ${b(71, 16)}, 0, 1, NULL, NULL, 1, ${b(72)}, ${b(73)}, ${b(74)}, ${b(75)}, ${LATER}, ${NOW}),
                             (2, ${b(76, 16)}, 1, 1, 1, 2, 0, ${b(77)}, ${b(78)}, NULL, NULL, NULL, ${NOW});
  INSERT INTO roster VALUES (1, 1), (1, 2), (1, 3);
  INSERT INTO channel_admin VALUES (1, ${b(1)});
  INSERT INTO log_entry VALUES (1, 1, 1, ${b(81, 16)}, ${b(82)}, ${b(72)}, ${b(73)}, ${NOW}, ${LATER});
  INSERT INTO head VALUES (1, 2, 0, 0, NULL, NULL, 0), (2, 2, 0, 0, 0, 1, 3), (3, 3, 1, 5000, NULL, NULL, 0);
  INSERT INTO payload VALUES (1, ${b(91, 5000)}), (2, ${b(92, 61)});
  INSERT INTO wrap VALUES (1, ${b(93, 1168)});
  INSERT INTO message VALUES (1, 1, ${b(94, 16)}, ${NOW}, NULL, NULL, NULL, NULL, 1, NULL),
                             (2, 3, ${b(81, 16)}, ${NOW}, 1, ${b(72)}, ${b(73)}, 2, NULL, ${b(95, 300)});
  INSERT INTO inbox VALUES (3, 1, 1, ${LATER}, 5000, NULL, NULL, ${b(71, 16)}),
                           (1, 1, 2, ${LATER}, NULL, NULL, 1, ${b(71, 16)}),
                           (2, 1, 2, ${LATER}, NULL, NULL, NULL, ${b(71, 16)}),
                           (3, 2, 2, ${LATER}, NULL, NULL, NULL, ${b(71, 16)});
  INSERT INTO dedup VALUES (${NOW - (NOW % 86_400_000)}, ${b(94, 16)}, ${b(71, 16)}, 3, 1, ${NOW}, ${b(96)});
  `,
  `
  INSERT INTO device VALUES (4, 2, ${b(24, 16)}, ${b(34)}, ${b(44, 200)}, 'lost', ${NOW}, 20833, ${NOW});
  INSERT INTO revocation VALUES (2, ${b(24, 16)}, ${b(101, 240)}, ${NOW});
  INSERT INTO push_token VALUES (2, 'webhook', 'https://push.test/1');
  INSERT INTO emptying VALUES (4);
  `,
  `INSERT INTO channel_metadata VALUES (1, 4, ${b(102, 60)});`,
  `INSERT INTO account VALUES (3, 'gone', ${b(103)}, x'', x'', ${NOW}, ${NOW});`,
  `
  INSERT INTO report VALUES (5, ${b(104, 90)}, ${b(71, 16)}, ${NOW});
  INSERT INTO ban VALUES (${b(11)}, 'spam', NULL);
  `,
  `
  INSERT INTO blob VALUES (1, ${b(105)}, 700000);
  INSERT INTO blob_owner VALUES (1, 1, ${LATER});
  INSERT INTO upload VALUES (2, ${b(106)}, 900000, ${NOW});
  `,
  `
  INSERT INTO recovery VALUES (1, ${b(107, 400)});
  INSERT INTO recovery_slot VALUES (1, 'password', ${b(108, 80)}, NULL), (1, 'phrase', ${b(109, 80)}, ${b(110)});
  `,
  `INSERT INTO endpoint VALUES (1, ${b(111, 120)}, ${LATER});`,
];

/** A database as a server with this schema left it. */
function written(version: number, key?: Uint8Array): { path: string; key: Uint8Array | undefined } {
  const file = { path: path.join(root, `${version}-${key === undefined ? 'plain' : 'key'}.db`), key };
  rmSync(file.path, { force: true });
  createPrivateFile(file.path);
  const db = openDatabase(file, { cacheKiB: 1_000 });
  db.pragma('foreign_keys = ON');
  for (let at = 0; at < version; at++) {
    db.exec(MIGRATIONS[at]!);
    db.exec(FIXTURES[at] ?? '');
  }
  db.pragma(`user_version = ${version}`);
  db.close();
  return file;
}

type Rows = ReadonlyMap<string, { readonly columns: readonly string[]; readonly rows: readonly unknown[] }>;

function rowsOf(db: Database, columnsOf?: Rows): Rows {
  const tables = db
    .prepare(`SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name`)
    .pluck()
    .all() as string[];
  return new Map(
    (columnsOf === undefined ? tables : [...columnsOf.keys()]).map((table) => {
      const all = db.prepare(`SELECT name FROM pragma_table_info('${table}')`).pluck().all() as string[];
      const columns = columnsOf?.get(table)?.columns ?? all;
      const rows = db.prepare(`SELECT ${columns.join(', ')} FROM ${table} ORDER BY ${columns.join(', ')}`).all();
      return [table, { columns, rows }];
    }),
  );
}

for (let version = 1; version < MIGRATIONS.length; version++) {
  test(`schema ${version}: every row of every table is there after the way to ${MIGRATIONS.length}`, async () => {
    const file = written(version);
    const db = openDatabase(file, { cacheKiB: 1_000 });
    const before = rowsOf(db);
    for (const [table, { rows }] of before) {
      assert.ok(rows.length > 0, `the fixtures have nothing in "${table}": add to those of schema ${version}`);
    }
    assert.equal(migrate(db), MIGRATIONS.length);
    assert.deepEqual(rowsOf(db, before), before);
    assert.deepEqual(db.pragma('integrity_check', { simple: true }), 'ok');
    assert.deepEqual(db.pragma('foreign_key_check'), []);
    db.close();
    // The ends of the way; in between, the rows speak for themselves.
    if (version === 1 || version === MIGRATIONS.length - 1) await looksRight(file, version);
  });
}

test('the same under a key', async () => {
  const file = written(1, bytes(7));
  await looksRight(file, 1);
});

/** What the rows mean, by the store of today. */
async function looksRight(file: { path: string; key: Uint8Array | undefined }, version: number): Promise<void> {
  const store = await openSqliteStore(file);
  try {
    const alice = { identityKey: bytes(1), deviceId: bytes(21, 16) };
    const bob = { identityKey: bytes(11), deviceId: bytes(23, 16) };
    assert.equal((await store.status()).accounts, 2);
    assert.equal((await store.findAccountByUsername('alice'))?.devices.length, 2);
    assert.deepEqual(new TextDecoder().decode(await store.getSetting('origin')), 'chat.test');
    assert.equal((await store.findSession(bytes(51), NOW)).kind, 'found');
    const read = await store.readInbox({ address: bob, afterSeq: 0 });
    assert.ok(read.kind === 'read');
    assert.deepEqual(
      read.rows.map(({ seq, data, entry }) => [seq, data.length, entry?.position]),
      [
        [1, 5000, undefined],
        [2, 300, 1],
      ],
    );
    // What was handed out before is not handed out again.
    const first = await store.takeKeyPackages({ identityKey: alice.identityKey, suite: 1, nowMs: NOW });
    const second = await store.takeKeyPackages({ identityKey: alice.identityKey, suite: 1, nowMs: NOW });
    const kinds = [first, second].map((taken) =>
      'keyPackages' in taken ? taken.keyPackages.map(({ keyPackage, lastResort }) => [keyPackage[0], lastResort]) : [],
    );
    assert.deepEqual(kinds, [[[62, false]], [[65, true]]]);
    // The counters go on where they were.
    const channelId = bytes(71, 16);
    const payload = { data: bytes(3, 300), hash: crypto.hash('sha256', bytes(3, 300)) };
    const target = { kind: 'recipients', recipients: [bob] } as const;
    const sent = await store.enqueue({ target, channelId, messageId: bytes(5, 16), payload, nowMs: NOW });
    assert.deepEqual(sent.kind === 'enqueued' && sent.results.map((result) => 'seq' in result && result.seq), [3]);
    const repeated = { data: bytes(91, 5000), hash: bytes(96) };
    const again = await store.enqueue({ target, channelId, messageId: bytes(94, 16), payload: repeated, nowMs: NOW });
    assert.deepEqual(again.kind === 'enqueued' && again.results.map(({ kind }) => kind), ['duplicate']);
    assert.equal((await store.findChannel(channelId))?.head, 1);
    if (version >= 2) assert.equal((await store.findRevocations([{ ...bob, deviceId: bytes(24, 16) }])).length, 1);
    if (version >= 4) assert.equal(await store.findAccountByUsername('gone'), undefined);
    if (version >= 5) assert.equal((await store.findBan(bob.identityKey, NOW))?.reason, 'spam');
    if (version >= 6) assert.deepEqual(await store.findBlob(bytes(105)), { sizeBytes: 700_000 });
    if (version >= 7) assert.equal((await store.findRecovery('alice'))?.sealedData.length, 400);
    if (version >= 8) {
      const found = await store.findEndpoints({ of: alice, requester: alice, nowMs: NOW });
      assert.equal(found.length, 1);
    }
  } finally {
    await store.close();
  }
}

test('a migration that fails leaves the schema before it, and its rows', () => {
  const file = written(1);
  const db = openDatabase(file, { cacheKiB: 1_000 });
  // In the way of the second statement of migration 2.
  db.exec('CREATE TABLE push_token (mine TEXT)');
  const before = rowsOf(db);
  assert.throws(() => migrate(db), StoreError);
  assert.equal(db.pragma('user_version', { simple: true }), 1);
  assert.deepEqual(rowsOf(db), before);
  db.exec('DROP TABLE push_token');
  assert.equal(migrate(db), MIGRATIONS.length);
  db.close();
});

test('a newer schema stops the server with a sentence, and nothing of it is touched', async () => {
  const dataDir = path.join(root, 'newer');
  const outcome = resolveConfig({
    flags: { dataDir, listen: '127.0.0.1:0', metricsListen: 'off', logLevel: 'silent' },
  });
  assert.ok(outcome.kind === 'config');
  await (await startServer(outcome.config)).close();
  const file = path.join(dataDir, 'qpc.db');
  const db = openDatabase({ path: file, key: undefined }, { cacheKiB: 1_000 });
  db.pragma(`user_version = ${MIGRATIONS.length + 1}`);
  db.close();
  const before = readFileSync(file);
  const error = await startServer(outcome.config).then(
    async (server) => {
      await server.close();
      return assert.fail('it started');
    },
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof StartupError, String(error));
  assert.equal(error.kind, 'data');
  const words = `schema ${MIGRATIONS.length + 1}, this version knows ${MIGRATIONS.length}`;
  assert.ok(error.message.includes(words), error.message);
  assert.match(error.hint, /newer version/);
  assert.deepEqual(readFileSync(file), before);
});
