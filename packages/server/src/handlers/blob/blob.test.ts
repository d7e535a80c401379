// Blobs: cut anywhere and resumed, read in ranges, stored once, collected, and never a path of the user's making.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, utimesSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { encodeHex, equal } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { Status } from '@quicprochat/proto';
import { methods, RpcError } from '@quicprochat/transport';
import { openBlobFiles } from '../../blob-files.node.ts';
import { BLOB_BYTES_MAX, BLOB_CHUNK_BYTES, Blobs } from '../../blobs.ts';
import { World } from '../../testing/world.node.ts';
import type { Person, TestConnection } from '../../testing/world.node.ts';

const { blob } = methods;
const CHUNK = BLOB_CHUNK_BYTES;
const DAY_MS = 86_400_000;

let world: World;
let alice: Person;
let a: TestConnection;
let b: TestConnection;

before(async () => {
  world = await World.start({ limits: { blobQuotaBytes: 8 * CHUNK } });
  alice = await world.register('alice');
  a = await world.login(alice);
  b = await world.login(await world.register('bob'));
});
after(() => world.close());

async function status(promise: Promise<unknown>): Promise<number> {
  const error = await promise.then(
    () => assert.fail('was not refused'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof RpcError, String(error));
  return error.status;
}

const idOf = (data: Uint8Array) => crypto.hash('sha256', data);

function put(connection: TestConnection, data: Uint8Array, offset: number, blobId = idOf(data)) {
  const chunk = data.subarray(offset, offset + CHUNK);
  return connection.call(blob.uploadBlob, { blobId, size: BigInt(data.length), offset: BigInt(offset), chunk });
}

const ask = (connection: TestConnection, data: Uint8Array) =>
  connection.call(blob.uploadBlob, { blobId: idOf(data), size: BigInt(data.length) });

async function upload(connection: TestConnection, data: Uint8Array): Promise<void> {
  for (let offset = 0; offset < data.length; offset += CHUNK) await put(connection, data, offset);
}

async function download(connection: TestConnection, blobId: Uint8Array, length = 0): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for (let offset = 0; ;) {
    const { chunk, size } = await connection.call(blob.downloadBlob, { blobId, offset: BigInt(offset), length });
    parts.push(chunk);
    offset += chunk.length;
    if (BigInt(offset) === size) return new Uint8Array(Buffer.concat(parts));
    assert.ok(chunk.length > 0);
  }
}

test('a transfer cut at any chunk resumes where it was, on another connection', async () => {
  const data = crypto.random(3 * CHUNK + 1_000);
  for (let cut = 0; cut <= 3; cut++) {
    const own = crypto.random(data.length);
    const first = await world.login(alice);
    assert.deepEqual([(await ask(first, own)).nextOffset, (await ask(first, own)).complete], [0n, false]);
    for (let i = 0; i < cut; i++) assert.equal((await put(first, own, i * CHUNK)).nextOffset, BigInt((i + 1) * CHUNK));
    first.rpc.close();
    const second = await world.login(alice);
    let next = Number((await ask(second, own)).nextOffset);
    assert.equal(next, cut * CHUNK);
    assert.equal(
      (await put(second, own, 0)).nextOffset,
      cut === 0 ? BigInt(CHUNK) : BigInt(next),
      'a repeat is nothing',
    );
    for (next = Number((await ask(second, own)).nextOffset); next < own.length;) {
      const answer = await put(second, own, next);
      next = Number(answer.nextOffset);
      assert.equal(answer.complete, next === own.length);
    }
    assert.ok(equal(await download(b, idOf(own)), own));
    assert.equal((await ask(a, own)).complete, true);
    second.rpc.close();
    // The quota has room for two of these.
    world.clock.advance(91 * DAY_MS);
    while ((await world.store.purge(world.clock.wallMs())).more);
  }
});

test('an upload whose end never reached the store, as after a crash or on a full disk, is complete all the same', async () => {
  const data = crypto.random(CHUNK + 5);
  const name = encodeHex(idOf(data));
  // The file has got its name, and nothing is in the database.
  mkdirSync(path.join(world.blobFolder, name.slice(0, 2)), { recursive: true });
  writeFileSync(path.join(world.blobFolder, name.slice(0, 2), name), data);
  assert.equal(await status(b.call(blob.downloadBlob, { blobId: idOf(data) })), Status.NOT_FOUND);
  const { complete, nextOffset } = await ask(a, data);
  assert.deepEqual([complete, nextOffset], [true, BigInt(data.length)]);
  assert.ok(equal(await download(b, idOf(data)), data));
});

test('a chunk that came too early has no effect', async () => {
  const data = crypto.random(2 * CHUNK);
  assert.equal((await put(a, data, CHUNK)).nextOffset, 0n);
  await upload(a, data);
  assert.ok(equal(await download(b, idOf(data)), data));
});

test('ranges', async () => {
  const data = crypto.random(CHUNK + 77);
  const blobId = idOf(data);
  await upload(a, data);
  assert.ok(equal(await download(b, blobId, 100_001), data));
  const range = async (offset: number, length: number) =>
    (await b.call(blob.downloadBlob, { blobId, offset: BigInt(offset), length })).chunk;
  assert.ok(equal(await range(CHUNK - 3, 10), data.subarray(CHUNK - 3, CHUNK + 7)));
  assert.ok(equal(await range(CHUNK + 70, 10), data.subarray(CHUNK + 70)));
  assert.equal((await range(data.length, 10)).length, 0);
  assert.equal(await status(range(data.length + 1, 10)), Status.INVALID_ARGUMENT);
  assert.equal(await status(range(0, CHUNK + 1)), Status.INVALID_ARGUMENT);
  assert.equal(await status(b.call(blob.downloadBlob, { blobId: crypto.random(32) })), Status.NOT_FOUND);
  assert.equal(await status(b.call(blob.downloadBlob, { blobId, offset: 2n ** 63n })), Status.INVALID_ARGUMENT);
});

test('bytes that are not what the id says are refused and forgotten; nobody spoils another’s upload', async () => {
  const data = crypto.random(CHUNK + 5);
  const blobId = idOf(data);
  const wrong = crypto.random(data.length);
  await put(b, wrong, 0, blobId);
  await put(a, data, 0);
  assert.equal(await status(put(b, wrong, CHUNK, blobId)), Status.INVALID_ARGUMENT);
  assert.equal((await ask(b, data)).nextOffset, 0n);
  assert.equal((await put(a, data, CHUNK)).complete, true);
  assert.ok(equal(await download(b, blobId), data));
  assert.equal((await ask(b, data)).complete, true, 'stored once');
  const otherSize = b.call(blob.uploadBlob, { blobId, size: 7n });
  assert.equal(await status(otherSize), Status.INVALID_ARGUMENT);
});

test('sizes, offsets and chunks are checked before anything is kept', async () => {
  const blobId = crypto.random(32);
  const cases: [object, number][] = [
    [{ size: 0n }, Status.INVALID_ARGUMENT],
    [{ size: BigInt(BLOB_BYTES_MAX + 1) }, Status.TOO_LARGE],
    [{ size: 2n ** 63n }, Status.INVALID_ARGUMENT],
    [{ size: 100n, chunk: crypto.random(99) }, Status.INVALID_ARGUMENT],
    [{ size: 100n, chunk: crypto.random(101) }, Status.INVALID_ARGUMENT],
    [{ size: BigInt(2 * CHUNK), offset: 1n, chunk: crypto.random(CHUNK) }, Status.INVALID_ARGUMENT],
    [{ size: BigInt(CHUNK), offset: BigInt(CHUNK), chunk: crypto.random(1) }, Status.INVALID_ARGUMENT],
    [{ size: BigInt(9 * CHUNK) }, Status.EXHAUSTED],
  ];
  for (const [i, [request, expected]] of cases.entries()) {
    assert.equal(await status(a.call(blob.uploadBlob, { blobId, ...request })), expected, `case ${i}`);
  }
});

test('THREATS 29: files are named by hex digits of the server’s own, in its folder, for their owner only', async () => {
  const files = await openBlobFiles(world.blobFolder);
  for (const name of ['../../etc/passwd', '..', 'a'.repeat(63), `${'a'.repeat(63)}/`, 'A'.repeat(64), '']) {
    await assert.rejects(files.write(name, 0, new Uint8Array(1)));
    await assert.rejects(files.read(name, 0, 1));
    await assert.rejects(async () => files.remove(name));
  }
  for (const entry of readdirSync(world.blobFolder, { recursive: true }) as string[]) {
    assert.match(entry, /^(?:unfinished|[0-9a-f]{2})(?:\/[0-9a-f]{64})?$/);
  }
});

test('collected: what nobody owns, what nobody finished, and what a crash left behind', async () => {
  const data = crypto.random(1_000);
  const blobId = idOf(data);
  await upload(a, data);
  const unfinished = crypto.random(CHUNK + 1);
  await put(a, unfinished, 0);
  const name = encodeHex(crypto.hmac('sha256', alice.address.identityKey, idOf(unfinished)));
  const partial = path.join(world.blobFolder, 'unfinished', name);
  const stray = path.join(
    world.blobFolder,
    encodeHex(blobId).slice(0, 2),
    `${encodeHex(blobId).slice(0, 2)}${'0'.repeat(62)}`,
  );
  writeFileSync(stray, 'x');
  const files = await openBlobFiles(world.blobFolder);
  const { store, log } = world;
  const blobs = new Blobs({ crypto, store, files, log, uploadTtlMs: DAY_MS });
  await blobs.collect(Date.now());
  assert.deepEqual([existsSync(partial), existsSync(stray)], [true, false]);
  assert.ok(equal(await download(b, blobId), data));

  const longAgo = new Date(Date.now() - 2 * DAY_MS);
  utimesSync(partial, longAgo, longAgo);
  world.clock.advance(91 * DAY_MS);
  while ((await store.purge(world.clock.wallMs())).more);
  await blobs.collect(Date.now());
  assert.equal(existsSync(partial), false);
  assert.equal(await status(b.call(blob.downloadBlob, { blobId })), Status.NOT_FOUND);
  assert.equal((await ask(a, data)).nextOffset, 0n);
});
