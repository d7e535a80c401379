// A copy of a store in use: everything that was answered before it began is in it, and nothing half.
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { inspectDatabase } from './sqlite-inspect.node.ts';
import { MIGRATIONS } from './sqlite-schema.node.ts';
import { openSqliteStore } from './sqlite.node.ts';
import { fresh, message, register } from './store-contract.node.ts';
import { StoreError } from './store.ts';
import type { Address, Store, StoreErrorKind } from './store.ts';

const root = mkdtempSync(join(tmpdir(), 'qpc-back-up-'));
after(() => rmSync(root, { recursive: true, force: true }));

const failsWith = (kind: StoreErrorKind) => (error: unknown) => error instanceof StoreError && error.kind === kind;

async function rows(store: Store, address: Address): Promise<Set<string>> {
  const read = await store.readInbox({ address, afterSeq: 0, maxRows: 10_000, maxBytes: 1 << 30 });
  assert.ok(read.kind === 'read' && !read.more);
  return new Set(read.rows.map((row) => Buffer.from(row.messageId).toString('hex')));
}

for (const [name, key] of [
  ['SQLite', undefined],
  ['SQLCipher', fresh(32)],
] as const) {
  test(`${name}: a copy made under load has all that was acknowledged before, under the same key`, async () => {
    const path = join(root, `${name}.db`);
    const copy = join(root, `${name}-copy.db`);
    const store = await openSqliteStore({ path, key });
    const alice = await register(store, 'alice');
    const send = async (): Promise<string> => {
      const sent = message([alice]);
      await store.enqueue(sent);
      return Buffer.from(sent.messageId).toString('hex');
    };
    const before = await Promise.all(Array.from({ length: 300 }, send));
    const load = { stopped: false };
    const loading = Promise.all(
      Array.from({ length: 4 }, async () => {
        while (!load.stopped) await send();
      }),
    );
    const made = await store.backUp(copy);
    load.stopped = true;
    await loading;
    assert.deepEqual([made.schemaVersion, made.accounts, made.blobs], [MIGRATIONS.length, 1, []]);
    assert.equal(statSync(copy).mode & 0o777, 0o600);
    assert.equal(readFileSync(copy).subarray(0, 15).toString('latin1') === 'SQLite format 3', key === undefined);
    await assert.rejects(store.backUp(copy), failsWith('misuse'));
    await store.close();
    await assert.rejects(store.backUp(join(root, 'late.db')), failsWith('unavailable'));
    assert.equal(inspectDatabase({ path: copy, key }, 'full').accounts, 1);
    if (key !== undefined) {
      assert.throws(() => inspectDatabase({ path: copy, key: fresh(32) }, 'full'), failsWith('wrong_key'));
      assert.throws(() => inspectDatabase({ path: copy, key: undefined }, 'full'), failsWith('wrong_key'));
    }
    const restored = await openSqliteStore({ path: copy, key });
    const found = await rows(restored, alice);
    for (const id of before) assert.ok(found.has(id), 'acknowledged before the copy began');
    await restored.close();
  });
}

test('a copy that nobody wants any more, or that cannot be written, leaves nothing and harms nobody', async () => {
  const store = await openSqliteStore({ path: join(root, 'given-up.db') });
  const copy = join(root, 'given-up-copy.db');
  const stop = new AbortController();
  const making = store.backUp(copy, { signal: stop.signal });
  stop.abort(new Error('enough'));
  await assert.rejects(making, /enough/);
  assert.equal(existsSync(copy), false);
  await assert.rejects(store.backUp(join(root, 'nowhere', 'copy.db')), failsWith('io'));
  await register(store, 'alice');
  await store.close();
});

test('a damaged file, an empty one and another program’s are told apart from a store', () => {
  const damaged = join(root, 'damaged.db');
  const bytes = readFileSync(join(root, 'SQLite-copy.db'));
  bytes.fill(0x5a, 8_192, 16_384);
  writeFileSync(damaged, bytes);
  assert.throws(() => inspectDatabase({ path: damaged, key: undefined }, 'full'), failsWith('corrupt'));
  const empty = join(root, 'empty.db');
  writeFileSync(empty, '');
  assert.throws(() => inspectDatabase({ path: empty, key: undefined }, 'full'), failsWith('corrupt'));
  assert.throws(() => inspectDatabase({ path: join(root, 'missing.db'), key: undefined }, 'full'), failsWith('io'));
});
