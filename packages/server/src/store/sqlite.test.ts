import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { getPriority, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, describe, test, type TestContext } from 'node:test';
import { createGroupCommit } from './group-commit.node.ts';
import { openDatabase } from './sqlite-database.node.ts';
import { MIGRATIONS } from './sqlite-schema.node.ts';
import { openSqliteStore, type SqliteStoreOptions } from './sqlite.node.ts';
import { fresh, message, type OpenStore, register, storeContract } from './store-contract.node.ts';
import { transparencyContract } from './store-contract-transparency.node.ts';
import { type Address, type Store, StoreError, type StoreErrorKind } from './store.ts';

const root = mkdtempSync(join(tmpdir(), 'qpc-store-'));
after(() => rmSync(root, { recursive: true, force: true }));

let files = 0;
const newPath = () => join(root, `${++files}.db`);
/** A store that is closed when the test is over, however that ends: an open one would keep the process alive. */
async function opened(t: TestContext, options: SqliteStoreOptions): Promise<Store> {
  const store = await openSqliteStore(options);
  t.after(() => store.close());
  return store;
}
const failsWith = (kind: StoreErrorKind, text?: RegExp) => (error: unknown) => {
  assert.ok(error instanceof StoreError, String(error));
  assert.equal(error.kind, kind);
  if (text !== undefined) assert.match(error.message, text);
  return true;
};

for (const [name, key] of [
  ['SQLite', undefined],
  ['SQLCipher', new Uint8Array(32).fill(7)],
] as const) {
  const open: OpenStore = async (limits) => {
    const path = newPath();
    const store = await openSqliteStore({ path, key, limits });
    return {
      store,
      reopen: async () => {
        await store.close();
        return openSqliteStore({ path, key, limits });
      },
    };
  };
  storeContract(name, open);
  transparencyContract(name, open);
}

describe('opening', () => {
  test('a wrong key, a missing key and a superfluous key are told apart from damage', async (t) => {
    const path = newPath();
    const key = fresh(32);
    await (await openSqliteStore({ path, key })).close();
    await assert.rejects(openSqliteStore({ path, key: fresh(32) }), failsWith('wrong_key', /does not open/));
    await assert.rejects(openSqliteStore({ path }), failsWith('wrong_key', /encrypted or is not a database/));
    const plain = newPath();
    await (await openSqliteStore({ path: plain })).close();
    await assert.rejects(openSqliteStore({ path: plain, key }), failsWith('wrong_key', /does not open/));
    await assert.rejects(openSqliteStore({ path, key: fresh(31) }), failsWith('misuse'));
    const store = await opened(t, { path, key });
    assert.equal((await store.status()).encrypted, true);
    await store.close();
  });

  test('a newer schema is refused, and left as it is', async () => {
    const path = newPath();
    await (await openSqliteStore({ path })).close();
    const db = openDatabase({ path, key: undefined }, { cacheKiB: 100 });
    db.pragma(`user_version = ${MIGRATIONS.length + 1}`);
    db.close();
    const before = readFileSync(path);
    await assert.rejects(openSqliteStore({ path }), failsWith('newer_schema', /start a newer qpc-server/));
    assert.deepEqual(readFileSync(path), before);
  });

  test('one process has it at a time, and a failed attempt harms nobody', async (t) => {
    const path = newPath();
    const store = await opened(t, { path });
    await assert.rejects(openSqliteStore({ path }), failsWith('in_use', /Another server process/));
    const alice = await register(store, 'alice');
    assert.equal((await store.enqueue(message([alice]))).kind, 'enqueued');
    await store.close();
    const again = await opened(t, { path });
    assert.equal(await again.headSeq(alice), 1);
    await again.close();
  });

  test('a missing folder is an error of the medium with the next step', async () => {
    await assert.rejects(openSqliteStore({ path: join(root, 'nowhere', 'x.db') }), failsWith('io', /check/));
  });

  test('files are private, and an encrypted store shows nothing of what it holds', async (t) => {
    const path = newPath();
    const store = await opened(t, { path, key: fresh(32) });
    const alice = await register(store, 'alice-in-the-clear');
    await store.enqueue(message([alice], new TextEncoder().encode('the quick brown fox')));
    for (const suffix of ['', '-wal', '-shm', '.lock']) {
      assert.equal(statSync(path + suffix).mode & 0o077, 0, suffix);
      const bytes = readFileSync(path + suffix);
      for (const text of ['alice-in-the-clear', 'quick brown', 'CREATE TABLE', 'SQLite format']) {
        assert.ok(suffix === '.lock' || !bytes.includes(text), `${suffix} holds ${text}`);
      }
    }
    await store.close();
    assert.equal(statSync(`${path}-wal`, { throwIfNoEntry: false }), undefined, 'closing empties the WAL');
  });
});

describe('failures', () => {
  test('a damaged page fails what needs it, and reads of the rest go on', async (t) => {
    const path = newPath();
    const key = fresh(32);
    let store = await opened(t, { path, key });
    const alice = await register(store, 'alice');
    const bob = await register(store, 'bob');
    await store.enqueue(message([alice], fresh(100_000)));
    await store.enqueue(message([bob], fresh(10)));
    await store.close();

    // Alice's payload fills the end of the file; her pages are damaged, everything else is whole.
    const pageBytes = 4096;
    const fd = openSync(path, 'r+');
    const pages = statSync(path).size / pageBytes;
    for (let page = pages - 12; page < pages - 6; page++)
      writeSync(fd, new Uint8Array(64), 0, 64, page * pageBytes + 500);
    closeSync(fd);

    store = await opened(t, { path, key });
    const of = { address: alice, afterSeq: 0 };
    await assert.rejects(store.drainInbox(of), failsWith('corrupt', /restore a backup/));
    const passed = await store.readInbox(of);
    assert.ok(passed.kind === 'read');
    assert.deepEqual([passed.rows, passed.gap?.reason, passed.gap?.sinceSeq], [[], 'damaged', 1]);
    const read = await store.readInbox({ address: bob, afterSeq: 0 });
    assert.equal(read.kind === 'read' && read.rows.length, 1);
    assert.equal((await store.findAccountByUsername('alice'))?.username, 'alice');
    await store.close();
  });

  test('a full disk fails the large write only, and says so; when there is space again, all goes on', () => {
    const db = openDatabase({ path: newPath(), key: fresh(32) }, { cacheKiB: 1_000 });
    db.exec('CREATE TABLE t (data BLOB) STRICT');
    const insert = db.prepare('INSERT INTO t VALUES (?)');
    const transact = createGroupCommit(db, ({ data }: { id: number; data: Uint8Array }) => insert.run(data).changes);
    const requests = [10, 400_000, 20].map((length, id) => ({ id, data: new Uint8Array(length) }));
    db.pragma('max_page_count = 20');
    const [first, large, last] = transact(requests);
    assert.deepEqual(
      [first, last],
      [
        { id: 0, value: 1 },
        { id: 2, value: 1 },
      ],
    );
    assert.ok(large !== undefined && 'failure' in large);
    assert.equal(large.failure.kind, 'disk_full');
    assert.match(large.failure.message, /free some space/);
    const lengths = db.prepare('SELECT length(data) FROM t ORDER BY rowid').pluck();
    assert.deepEqual(lengths.all(), [10, 20]);
    db.pragma('max_page_count = 1000000');
    assert.deepEqual(transact(requests.slice(1, 2)), [{ id: 1, value: 1 }]);
    assert.deepEqual(lengths.all(), [10, 20, 400_000]);
    db.close();
  });

  test('a write that fails half-way in a turn leaves nothing, wherever it stands, and undoes no other', () => {
    const db = openDatabase({ path: newPath(), key: undefined }, { cacheKiB: 1_000 });
    db.exec(
      'CREATE TABLE t (n INTEGER PRIMARY KEY) STRICT; CREATE TABLE sum (n INTEGER) STRICT; INSERT INTO sum VALUES (0)',
    );
    const insert = db.prepare<[number]>('INSERT INTO t VALUES (?)');
    const add = db.prepare<[number]>('UPDATE sum SET n = n + ?');
    const transact = createGroupCommit(db, ({ id, fails }: { id: number; fails: boolean }) => {
      insert.run(id);
      add.run(id);
      // Its own row again: the statement fails in SQLite, after two that went well.
      if (fails) insert.run(id);
      return id;
    });
    const rows = db.prepare<[], number>('SELECT n FROM t ORDER BY n').pluck();
    const sum = db.prepare<[], number>('SELECT n FROM sum').pluck();
    // Each subset of a turn of five.
    for (let failing = 0; failing < 32; failing++) {
      const requests = [1, 2, 3, 4, 5].map((id) => ({ id, fails: (failing & (1 << (id - 1))) !== 0 }));
      const good = requests.filter(({ fails }) => !fails).map(({ id }) => id);
      const answers = transact(requests);
      assert.deepEqual(
        answers.map((answer) => [answer.id, 'failure' in answer]),
        requests.map(({ id, fails }) => [id, fails]),
      );
      assert.deepEqual(rows.all(), good);
      assert.equal(
        sum.get(),
        good.reduce((total, id) => total + id, 0),
      );
      db.exec('DELETE FROM t; UPDATE sum SET n = 0');
    }
    db.close();
  });

  test('writes beyond the bound are turned away at once, the others are served', async (t) => {
    const store = await opened(t, { path: newPath(), limits: { pendingWrites: 8 } });
    const alice = await register(store, 'alice');
    const outcomes = await Promise.allSettled(Array.from({ length: 20 }, () => store.enqueue(message([alice]))));
    const refused = outcomes.filter((each) => each.status === 'rejected');
    assert.equal(refused.length, 12);
    for (const each of refused) failsWith('unavailable', /too much to do/)(each.reason);
    assert.equal(await store.headSeq(alice), 8);
    await store.close();
  });

  test('THREATS 24: one lane fills a quarter of the queue at most, in writes and in bytes, and the others are served', async (t) => {
    const limits = { pendingWrites: 32, pendingBytes: 64 * 1024 };
    const store = await opened(t, { path: newPath(), limits });
    const alice = await register(store, 'alice');
    const settled = async (writes: Promise<unknown>[]) =>
      (await Promise.allSettled(writes)).filter(({ status }) => status === 'fulfilled').length;
    const flood = (bytes: number) =>
      Array.from({ length: 40 }, () => store.enqueue(message([alice], fresh(bytes)), { fairnessKey: 'mallory' }));
    for (const [bytes, most] of [
      [100, 8],
      [4_096, 4],
    ] as const) {
      const taken = settled(flood(bytes));
      const other = store.enqueue(message([alice], fresh(bytes)), { fairnessKey: 'bob' });
      await other;
      assert.ok((await taken) <= most, String(bytes));
      assert.ok((await taken) > 0);
    }
    assert.equal(await settled(flood(100)), 8, 'what was answered makes room again');
    await store.close();
  });

  test('the WAL begins anew when it is large, and a reader sees every write that was answered', async (t) => {
    const path = newPath();
    const store = await opened(t, { path, limits: { inboxBytes: 1e12, inboxEnvelopes: 1e6 } });
    const alice = await register(store, 'alice');
    const data = new Uint8Array(4 * 1024 * 1024);
    for (let i = 0; i < 10; i++) {
      await Promise.all(Array.from({ length: 2 }, () => store.enqueue(message([alice], data))));
      assert.equal(await store.headSeq(alice), 2 * i + 2);
    }
    // On a slow disk the checkpointer may be at work for a while; every turn after it tries again.
    while (statSync(`${path}-wal`).size > 64 * 1024 * 1024) await store.enqueue(message([alice]));
    const read = await store.readInbox({ address: alice, afterSeq: 0, maxBytes: 1e9 });
    assert.ok(read.kind === 'read' && read.rows.length >= 20);
    assert.ok(read.rows.slice(0, 20).every((row) => row.data.length === data.length));
  });

  test('where cores are short its threads stand back behind the one that opened it, and it alone keeps its place', async (t) => {
    const own = getPriority();
    const store = await opened(t, { path: newPath() });
    assert.equal(getPriority(), own);
    if (process.platform === 'linux') {
      const threads = readdirSync('/proc/self/task').map((id) => {
        const [, name = '', rest = ''] =
          /\((.*)\) (.*)/u.exec(readFileSync(`/proc/self/task/${id}/stat`, 'utf8')) ?? [];
        // The nice value is the 19th field, the second is the name (proc_pid_stat(5)).
        return { name, nice: Number(rest.split(' ')[16]) };
      });
      const nice = (name: string): number[] => threads.filter((each) => each.name === name).map((each) => each.nice);
      assert.ok(nice('store writer').length > 0 && nice('store writer').every((value) => value === own + 4));
      assert.ok(nice('store reader').length > 0 && nice('store reader').every((value) => value === own));
    }
    await store.close();
  });

  test('closing finishes what was accepted', async (t) => {
    const path = newPath();
    const store = await opened(t, { path });
    const alice = await register(store, 'alice');
    const sent = Array.from({ length: 300 }, () => store.enqueue(message([alice])));
    const closed = store.close();
    const late = store.enqueue(message([alice]));
    await assert.rejects(late, failsWith('unavailable', /closed/));
    assert.deepEqual(new Set((await Promise.all(sent)).map(({ kind }) => kind)), new Set(['enqueued']));
    await closed;
    const again = await opened(t, { path });
    assert.equal(await again.headSeq(alice), 300);
    await again.close();
  });
});

test('kill -9 under load loses no acknowledged envelope and hands out no KeyPackage twice (THREATS 11)', async (t) => {
  const path = newPath();
  const key = fresh(32);
  const store = await opened(t, { path, key });
  const alice = await register(store, 'alice');
  await store.close();

  const script = join(root, 'writer.mjs');
  writeFileSync(script, CHILD);
  const known = new Map<string, number>();
  const taken = new Set<string>();
  let round = 0;
  for (const acknowledgements of [1, 150, 400]) {
    const child = spawn(process.execPath, [script, path, Buffer.from(key).toString('hex'), String(++round)], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, ALICE: JSON.stringify(hexAddress(alice)) },
    });
    const exited = once(child, 'exit');
    let lines = 0;
    for await (const line of createInterface({ input: child.stdout })) {
      const [what, id, seq] = line.split(' ');
      if (what === 'queued') known.set(id!, Number(seq));
      else {
        assert.ok(!taken.has(id!), 'a KeyPackage came twice');
        taken.add(id!);
      }
      if (++lines === acknowledgements) child.kill('SIGKILL');
    }
    const [, signal] = await exited;
    assert.equal(signal, 'SIGKILL');
    assert.ok(lines >= acknowledgements);

    const again = await opened(t, { path, key, limits: { inboxEnvelopes: 1e6 } });
    const found = await everything(again, alice);
    for (const [id, seq] of known) assert.equal(found.get(id), seq, 'an acknowledged envelope is gone');
    assert.equal(new Set(found.values()).size, found.size);
    await again.close();
  }
  assert.ok(taken.size > 0);
});

async function everything(store: Store, address: Address): Promise<Map<string, number>> {
  const found = new Map<string, number>();
  let afterSeq = 0;
  for (;;) {
    const outcome = await store.readInbox({ address, afterSeq });
    assert.equal(outcome.kind, 'read');
    if (outcome.kind !== 'read') return found;
    for (const row of outcome.rows) {
      found.set(Buffer.from(row.messageId).toString('hex'), row.seq);
      afterSeq = row.seq;
    }
    if (!outcome.more) return found;
  }
}

function hexAddress(address: Address): { identityKey: string; deviceId: string } {
  const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
  return { identityKey: hex(address.identityKey), deviceId: hex(address.deviceId) };
}

/** Writes as fast as it can and prints each answer the moment it has it. */
const CHILD = `
import { writeSync } from 'node:fs';
import { createHash } from 'node:crypto';
import { openSqliteStore } from ${JSON.stringify(new URL('./sqlite.node.ts', import.meta.url).href)};
const [path, key, round] = process.argv.slice(2);
const hex = (text) => new Uint8Array(Buffer.from(text, 'hex'));
const sha256 = (data) => createHash('sha256').update(data).digest();
const parsed = JSON.parse(process.env.ALICE);
const alice = { identityKey: hex(parsed.identityKey), deviceId: hex(parsed.deviceId) };
const store = await openSqliteStore({ path, key: hex(key), limits: { inboxEnvelopes: 1e6, inboxBytes: 1e12 } });
const nowMs = 1800000000000;
const writer = async (n) => {
  for (let i = 0; ; i++) {
    const messageId = sha256(round + '/' + n + '/' + i).subarray(0, 16);
    const data = new Uint8Array(1024).fill(i);
    const target = { kind: 'recipients', recipients: [alice] };
    const outcome = await store.enqueue({ target, messageId, payload: { data, hash: sha256(data) }, nowMs }, { fairnessKey: n });
    writeSync(1, 'queued ' + messageId.toString('hex') + ' ' + outcome.results[0].seq + '\\n');
    const keyPackage = sha256('package' + messageId.toString('hex'));
    const upload = { keyPackage, hash: sha256(keyPackage), suite: 1, notAfterMs: nowMs + 1e9, lastResort: false };
    await store.uploadKeyPackages({ address: alice, keyPackages: [upload], nowMs });
    const take = await store.takeKeyPackages({ identityKey: alice.identityKey, suite: 1, nowMs });
    for (const each of take.keyPackages) writeSync(1, 'taken ' + Buffer.from(each.keyPackage).toString('hex') + '\\n');
  }
};
await Promise.all(Array.from({ length: 32 }, (_, n) => writer(n)));
`;

describe('a damaged page in an inbox', () => {
  for (const [name, key, table] of [
    ['messages, SQLite', undefined, 'message'],
    ['messages, SQLCipher', new Uint8Array(32).fill(7), 'message'],
    ['positions, SQLCipher', new Uint8Array(32).fill(7), 'inbox'],
  ] as const) {
    test(`${name}: what can be read is read, in order, and the gap is told`, async (t) => {
      const path = newPath();
      const store = await openSqliteStore({ path, key });
      const bob = await register(store, 'bob');
      const sent: Uint8Array[] = [];
      for (let n = 0; n < 300; n++) sent.push(fresh(n % 3 === 0 ? 2_500 : 200));
      await Promise.all(sent.map((data) => store.enqueue(message([bob], data))));
      await store.close();
      damageLeafOf(path, key, table);

      const damaged = await opened(t, { path, key });
      const seqs: number[] = [];
      const gaps: [string, number][] = [];
      for (let more = true, rounds = 0; more && rounds < 400; rounds++) {
        const read = await damaged.readInbox({ address: bob, afterSeq: seqs.at(-1) ?? 0, maxRows: 50 });
        assert.ok(read.kind === 'read');
        if (read.gap !== undefined) gaps.push([read.gap.reason, read.gap.sinceSeq]);
        for (const { seq, data } of read.rows) assert.deepEqual(data, sent[seq - 1]);
        seqs.push(...read.rows.map((row) => row.seq));
        more = read.more;
      }
      const missing = sent.map((_, n) => n + 1).filter((seq) => !seqs.includes(seq));
      assert.ok(missing.length > 0 && missing.length < 250, String(missing.length));
      assert.deepEqual(
        seqs,
        seqs.toSorted((a, b) => a - b),
      );
      assert.equal(seqs.at(-1), sent.length);
      // One gap at the first row missing of each stretch.
      const starts = missing.filter((seq) => !missing.includes(seq - 1));
      assert.deepEqual(
        gaps,
        starts.map((seq) => ['damaged', seq]),
      );
      await damaged.enqueue(message([bob], fresh(100)));
      const after = await damaged.readInbox({ address: bob, afterSeq: sent.length });
      assert.deepEqual(after.kind === 'read' && [after.rows.length, after.gap], [1, undefined]);
    });
  }
});

/** Spoils the first leaf of a table, so that it cannot be read any more. */
function damageLeafOf(path: string, key: Uint8Array | undefined, table: string): void {
  const db = openDatabase({ path, key }, { cacheKiB: 1_000 });
  const leaves = db
    .prepare<[string], number>("SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY path")
    .pluck()
    .all(table);
  db.close();
  const [page] = leaves;
  assert.ok(page !== undefined && leaves.length > 1, `${leaves.length} leaves`);
  const file = openSync(path, 'r+');
  writeSync(file, new Uint8Array(100).fill(0xff), 0, 100, (page - 1) * 4096);
  closeSync(file);
}
