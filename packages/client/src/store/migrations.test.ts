// Every schema a profile ever had, with something in each of its tables, opened by this version: no row is lost or changed,
// and what the store says of it is right. The rows are SQL of their time.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Driver, SqlRow } from './driver.ts';
import { MIGRATIONS } from './migrations.ts';
import { openMemorySqlite } from './sqlite.node.ts';
import { openStore } from './store.ts';

const NOW = 1_800_000_000_000;
const DAY = 86_400_000;
const PROFILE = 0x71706370;

/** `n` bytes of one value, as an SQL literal. */
const b = (value: number, n = 32): string => `x'${value.toString(16).padStart(2, '0').repeat(n)}'`;
const bytes = (value: number, n = 32): Uint8Array => new Uint8Array(n).fill(value);

// Alice writes with Bob in channel 9: what was said, what waits to be sent, a commit on its way.
const FIXTURES: readonly string[] = [
  `
  INSERT INTO account VALUES (1, 'registered', 'chat.test', 'alice', ${b(1)}, ${b(2)}, ${b(3, 16)}, ${b(4)}, ${b(5)}, ${b(6, 200)}, ${NOW});
  INSERT INTO session VALUES (1, ${b(7)}, ${NOW + 30 * DAY}, ${NOW});
  INSERT INTO server_pins (origin, receipt_key, opaque_key, log_origin, log_key, pinned_at)
    VALUES ('chat.test', ${b(10)}, ${b(11)}, 'chat.test/key-transparency', ${b(12)}, ${NOW});
  INSERT INTO hybrid_keys VALUES (1, ${b(13, 1216)}, ${b(14)}, ${b(15, 1300)}, 1, 2, 1, ${NOW}), (2, ${b(16, 1216)}, ${b(17)}, ${b(18, 1300)}, 2, 3, 0, NULL);
  INSERT INTO key_packages VALUES (${b(20)}, 1, ${b(21, 300)}, ${b(22)}, ${b(23)}, 1, ${NOW / 1000 + 86_400}, 1, NULL, ${NOW});
  INSERT INTO welcomes_seen VALUES (${b(24)}, ${b(20)});
  INSERT INTO conversations VALUES (${b(9, 16)}, 'group', 'active', NULL, 'team', 3, NULL, 12, ${b(30)}, ${b(31)}, 11, ${b(32)}, 1, 4, 2, 6, ${b(33)}, ${b(40)}, 0, ${NOW}, ${NOW + 5});
  INSERT INTO pq_salts VALUES (${b(9, 16)}, 11, ${b(34)});
  INSERT INTO envelope_keys VALUES (${b(9, 16)}, 10, 3, ${b(35)}, ${NOW}), (${b(9, 16)}, 11, 4, ${b(36)}, NULL);
  INSERT INTO mls_rows VALUES (${b(9, 16)}, 'group', ${b(37, 500)}), (${b(9, 16)}, 'secret/0', ${b(38, 80)});
  INSERT INTO pending_commits VALUES (${b(9, 16)}, ${b(39, 16)}, 12, ${b(41, 400)}, ${b(42, 400)}, '{}', 1, ${NOW});
  INSERT INTO messages VALUES
    (1, ${b(9, 16)}, ${b(40)}, ${b(43, 16)}, ${b(44, 16)}, 0, 'received', 'text', 'hello alice', NULL, NULL, ${NOW}, ${NOW}, ${NOW}, 1, NULL, NULL, NULL),
    (2, ${b(9, 16)}, ${b(1)}, ${b(3, 16)}, ${b(45, 16)}, 1, 'sent', 'text', 'hello bob', ${b(40)}, ${b(44, 16)}, ${NOW}, ${NOW}, ${NOW}, 1, ${b(46, 16)}, ${b(47, 200)}, NULL),
    (3, ${b(9, 16)}, ${b(1)}, ${b(3, 16)}, ${b(48, 16)}, 1, 'queued', 'text', 'not sent yet', NULL, NULL, ${NOW}, ${NOW}, NULL, 1, NULL, NULL, NULL);
  INSERT INTO contents_seen VALUES (${b(9, 16)}, ${b(40)}, ${b(49, 16)});
  INSERT INTO sender_chains VALUES (${b(9, 16)}, ${b(40)}, ${b(43, 16)}, 8, ${b(50)});
  INSERT INTO outbox VALUES (1, ${b(9, 16)}, NULL, 3, ${b(51, 60)}, 3, NULL, NULL, NULL, 0, ${NOW});
  UPDATE inbox SET cursor = 77, acked = 70;
  INSERT INTO contacts VALUES (${b(40)}, 'bob', ${NOW}, ${NOW});
  INSERT INTO contact_devices VALUES (${b(40)}, ${b(43, 16)}, ${b(52)}, ${b(53, 200)}, 1, ${b(54, 1216)}, ${b(55, 1300)}, 5, ${NOW / 1000}, NULL, ${NOW});
  INSERT INTO member_checks VALUES (${b(9, 16)}, ${b(40)}, ${b(43, 16)}, 'verified', '', ${NOW});
  INSERT INTO rejoin_own VALUES (${b(9, 16)}, ${b(56, 16)}, ${NOW});
  INSERT INTO rejoin_received VALUES (${b(9, 16)}, ${b(40)}, ${b(43, 16)}, ${b(57, 16)}, ${NOW}, 0);
  INSERT INTO settings VALUES ('colour', 'green');
  INSERT INTO evidence VALUES (1, ${b(9, 16)}, 'log-mismatch', 'two logs', ${b(58, 90)}, ${NOW});
  `,
  `
  UPDATE server_pins SET log_vrf_key = ${b(60)};
  INSERT INTO log_head VALUES (1, ${b(61, 200)}, 1, ${NOW});
  INSERT INTO log_entries VALUES (0, ${b(62, 73)});
  INSERT INTO log_witnessed VALUES (${b(63, 200)}, ${b(9, 16)}, ${NOW});
  INSERT INTO log_accounts VALUES (${b(40)}, ${b(64)}, 0, ${NOW});
  INSERT INTO log_own_entries VALUES (0, ${b(65)}, ${b(66)}, 2);
  INSERT INTO log_findings VALUES (1, 'a', 'split-view', 'two heads', ${b(40)}, NULL, '{}', ${NOW}, NULL);
  `,
  `
  INSERT INTO successor_rows VALUES (${b(9, 16)}, 'group', ${b(70, 400)});
  INSERT INTO predecessors VALUES (${b(9, 16)}, 12, ${NOW});
  INSERT INTO predecessor_rows VALUES (${b(9, 16)}, 'group', ${b(71, 400)});
  `,
  `
  INSERT INTO tree_uploads VALUES (${b(9, 16)}, ${b(80)}, ${b(81, 400)}, 0);
  INSERT INTO tree_downloads VALUES (${b(82, 16)}, ${b(83, 80)}, ${NOW});
  INSERT INTO held_rows VALUES (1, ${b(82, 16)}, ${b(84, 300)});
  `,
];

/** A profile's database as a program with this schema left it. */
function written(version: number): Driver {
  const driver = openMemorySqlite();
  for (let at = 0; at < version; at++) {
    driver.exec(MIGRATIONS[at]!);
    driver.exec(FIXTURES[at] ?? '');
  }
  driver.exec(`PRAGMA application_id = ${PROFILE}; PRAGMA user_version = ${version}`);
  return driver;
}

type Rows = ReadonlyMap<string, { readonly columns: string; readonly rows: readonly SqlRow[] }>;

function rowsOf(driver: Driver, columnsOf?: Rows): Rows {
  // A virtual table's own tables are its business, and it is found by what the search finds.
  const tables = driver
    .prepare(
      `SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE 'messages_text%'`,
    )
    .all()
    .map(({ name }) => String(name));
  return new Map(
    (columnsOf === undefined ? tables : [...columnsOf.keys()]).map((table) => {
      const infos = driver.prepare(`SELECT name FROM pragma_table_info('${table}')`).all();
      const columns = columnsOf?.get(table)?.columns ?? infos.map(({ name }) => String(name)).join(', ');
      return [table, { columns, rows: driver.prepare(`SELECT ${columns} FROM ${table} ORDER BY ${columns}`).all() }];
    }),
  );
}

for (let version = 1; version < MIGRATIONS.length; version++) {
  test(`schema ${version}: every row of every table is there after the way to ${MIGRATIONS.length}`, () => {
    const driver = written(version);
    const before = rowsOf(driver);
    for (const [table, { rows }] of before) {
      assert.ok(rows.length > 0, `the fixtures have nothing in "${table}": add to those of schema ${version}`);
    }
    const store = openStore(driver);
    assert.deepEqual(rowsOf(driver, before), before);
    assert.deepEqual(driver.prepare('PRAGMA foreign_key_check').all(), []);
    assert.equal(driver.prepare('PRAGMA integrity_check').get()?.['integrity_check'], 'ok');

    const channelId = bytes(9, 16);
    assert.equal(store.account.get()?.username, 'alice');
    assert.deepEqual(store.account.serverPin('chat.test')?.receiptKey, bytes(10));
    assert.equal(store.keys.newestHybridKey()?.serial, 2n);
    assert.equal(store.keys.rememberWelcome(bytes(24), bytes(20)), false);
    assert.equal(store.conversations.get(channelId)?.position, 12n);
    assert.deepEqual(store.conversations.envelopeKey(channelId, 11n)?.key, bytes(36));
    assert.deepEqual(store.conversations.pendingCommits(), [channelId]);
    assert.deepEqual(
      store.messages.history(channelId, { limit: 10 }).map(({ text }) => text),
      ['hello alice', 'hello bob', 'not sent yet'],
    );
    assert.equal(store.messages.rememberContent(channelId, bytes(40), bytes(49, 16)), false);
    assert.deepEqual(
      store.messages.search('hello', { limit: 10 }).map(({ text }) => text),
      ['hello bob', 'hello alice'],
    );
    assert.equal(store.outbox.first(channelId)?.id, 1);
    assert.equal(store.inbox.cursor(), 77n);
    assert.equal(store.contacts.byUsername('bob')?.identityKey.length, 32);
    assert.equal(store.contacts.devices(bytes(40)).length, 1);
    assert.equal(store.rejoinRequests.open(channelId).length, 1);
    assert.equal(store.settings.get('colour'), 'green');
    assert.equal(store.evidence.list(10).length, 1);
    store.close();
  });
}

test('a profile of a newer schema is refused with what to do, and left alone', () => {
  const driver = written(MIGRATIONS.length);
  driver.exec(`PRAGMA user_version = ${MIGRATIONS.length + 1}`);
  const before = rowsOf(driver);
  const message = new RegExp(`schema ${MIGRATIONS.length + 1}, known ${MIGRATIONS.length}`);
  assert.throws(() => openStore(driver), { code: 'profile-newer', message, hint: /Update the program/ });
  assert.deepEqual(rowsOf(driver), before);
  driver.close();
});
