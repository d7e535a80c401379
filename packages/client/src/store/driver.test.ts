// The driver port on Node: transactions that are whole or not at all, and failures in our own words.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { Internal, Misuse } from '@quicprochat/core';
import type { Driver } from './driver.ts';
import { migrate, MIGRATIONS } from './migrations.ts';
import { openMemorySqlite, openSqlite } from './sqlite.node.ts';
import { openStore } from './store.ts';

const key = new Uint8Array(32).fill(7);

function emptyFile(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'qpc-driver-'));
  t.after(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, 'test.db'), '');
  return join(folder, 'test.db');
}

function withTable(): Driver {
  const driver = openMemorySqlite();
  driver.exec('CREATE TABLE t (id INTEGER PRIMARY KEY, bytes BLOB, big INTEGER) STRICT');
  return driver;
}

function count(driver: Driver): unknown {
  return driver.prepare('SELECT count(*) AS n FROM t').get()?.['n'];
}

test('values come back as they went in', () => {
  const driver = withTable();
  const bytes = new Uint8Array([1, 2, 3]);
  const insert = driver.prepare('INSERT INTO t (bytes, big) VALUES (?, ?)');
  assert.deepEqual(insert.run(bytes, 2n ** 62n), { changes: 1, lastInsertRowid: 1n });
  insert.run(null, 5);
  assert.deepEqual(driver.prepare('SELECT * FROM t ORDER BY id').all(), [
    { id: 1n, bytes, big: 2n ** 62n },
    { id: 2n, bytes: null, big: 5n },
  ]);
  assert.equal(driver.prepare('SELECT * FROM t WHERE id = ?').get(9), undefined);
});

test('blobs are plain arrays of their own: slice copies', () => {
  const driver = withTable();
  driver.prepare('INSERT INTO t (bytes) VALUES (?)').run(new Uint8Array([1, 2, 3]));
  const bytes = driver.prepare('SELECT bytes FROM t').get()?.['bytes'];
  assert.ok(bytes instanceof Uint8Array && !Buffer.isBuffer(bytes));
  bytes.slice(0, 1)[0] = 9;
  assert.equal(bytes[0], 1);
});

test('a transaction that throws has no effect', () => {
  const driver = withTable();
  const insert = driver.prepare('INSERT INTO t (big) VALUES (1)');
  assert.throws(
    () =>
      driver.transaction(() => {
        insert.run();
        throw new RangeError('no');
      }),
    RangeError,
  );
  assert.equal(count(driver), 0n);
  assert.equal(
    driver.transaction(() => {
      insert.run();
      return 'done';
    }),
    'done',
  );
  assert.equal(count(driver), 1n);
});

test('nested transactions are savepoints of the outer one', () => {
  const driver = withTable();
  const insert = driver.prepare('INSERT INTO t (big) VALUES (?)');
  driver.transaction(() => {
    insert.run(1);
    assert.throws(() =>
      driver.transaction(() => {
        insert.run(2);
        driver.transaction(() => insert.run(3).changes);
        throw new Error('inner');
      }),
    );
    driver.transaction(() => insert.run(4).changes);
  });
  assert.deepEqual(
    driver
      .prepare('SELECT big FROM t ORDER BY big')
      .all()
      .map((row) => row['big']),
    [1n, 4n],
  );
});

test('an async body is rolled back, and does not compile', () => {
  const driver = withTable();
  const insert = driver.prepare('INSERT INTO t (big) VALUES (1)');
  const body = async (): Promise<void> => {
    insert.run();
  };
  // @ts-expect-error a body may not return a promise
  assert.throws(() => driver.transaction(body), Misuse);
  assert.equal(count(driver), 0n);
});

test('a violated constraint is our bug, and names no value', () => {
  const driver = withTable();
  driver.exec('CREATE TABLE u (word TEXT UNIQUE) STRICT');
  const insert = driver.prepare('INSERT INTO u (word) VALUES (?)');
  insert.run('secret');
  assert.throws(
    () => insert.run('secret'),
    (error) => error instanceof Internal && !`${error.message}${error.hint}`.includes('secret'),
  );
});

test('a full disk refuses the transaction and keeps what was there', (t) => {
  const path = emptyFile(t);
  const driver = openSqlite(path, { key });
  driver.exec('CREATE TABLE t (bytes BLOB) STRICT; INSERT INTO t (bytes) VALUES (zeroblob(1000))');
  driver.exec('PRAGMA max_page_count = 40');
  const insert = driver.prepare('INSERT INTO t (bytes) VALUES (randomblob(4000))');
  assert.throws(
    () =>
      driver.transaction(() => {
        for (let i = 0; i < 100; i++) insert.run();
      }),
    { code: 'profile-unwritable', message: /disk is full/ },
  );
  assert.equal(count(driver), 1n);
  driver.transaction(() => insert.run().changes);
  driver.close();
  const reopened = openSqlite(path, { key });
  assert.equal(count(reopened), 2n);
  reopened.close();
});

test('a wrong key is refused, and leaves no lock behind', (t) => {
  const path = emptyFile(t);
  const driver = openSqlite(path, { key });
  driver.exec('CREATE TABLE t (x) ');
  driver.close();
  driver.close();
  assert.throws(() => openSqlite(path, { key: new Uint8Array(32) }), { code: 'profile-damaged' });
  const reopened = openSqlite(path, { key });
  assert.equal(count(reopened), 0n);
  assert.throws(() => openSqlite(path, { key }), { code: 'profile-in-use' });
  reopened.close();
});

test('migrations run forward once, each whole or not at all', (t) => {
  const path = emptyFile(t);
  const version = (driver: Driver): unknown => driver.prepare('PRAGMA user_version').get()?.['user_version'];
  const withNext = [...MIGRATIONS, 'ALTER TABLE settings ADD COLUMN note TEXT'];
  const broken = [...withNext, 'CREATE TABLE later (x) STRICT'];

  const driver = openSqlite(path, { key });
  openStore(driver).settings.set('colour', 'green');
  migrate(driver);
  assert.equal(version(driver), BigInt(MIGRATIONS.length));
  // The second one fails: `x` has no type. The first one stays.
  assert.throws(() => migrate(driver, broken), Internal);
  assert.equal(version(driver), BigInt(withNext.length));
  assert.equal(driver.prepare(`SELECT 1 FROM sqlite_schema WHERE name = 'later'`).get(), undefined);
  assert.deepEqual(driver.prepare('SELECT * FROM settings').get(), { key: 'colour', value: 'green', note: null });
  // A program that does not know the newer schema keeps its hands off.
  const words = new RegExp(`schema ${withNext.length}, known ${MIGRATIONS.length}`);
  assert.throws(() => openStore(driver), { code: 'profile-newer', message: words });
  assert.equal(version(driver), BigInt(withNext.length));
  driver.close();
});

test('a SQLite file of something else is refused', () => {
  const driver = openMemorySqlite();
  driver.exec('CREATE TABLE recipes (name TEXT); PRAGMA user_version = 1');
  assert.throws(() => openStore(driver), { code: 'profile-damaged', message: /not a profile/ });
});
