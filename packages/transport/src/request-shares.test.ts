// THREATS 24, 27: what one network address may make the server hold of requests, so that others still get theirs in.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, toBinary } from '@bufbuild/protobuf';
import { BytesValueSchema } from '@bufbuild/protobuf/wkt';
import { Status } from '@quicprochat/proto';
import { CloseCode } from './connection.ts';
import { type MemoryConnection, memoryPair } from './memory.ts';
import type { MethodDescriptor } from './method.ts';
import { RpcServer, route } from './rpc-server.ts';
import { ManualClock } from './testing/manual-clock.ts';
import { RawStream } from './testing/raw-stream.ts';

const KIB = 1024;
const TOTAL = 1024 * KIB;
const PER_CONNECTION = 128 * KIB;

const bounds = {
  requestMax: 1024 * KIB,
  responseMax: KIB,
  timeoutMs: 60_000,
  auth: 'anyone',
  idempotent: true,
} as const;
const upload: MethodDescriptor<typeof BytesValueSchema, typeof BytesValueSchema> = {
  ...bounds,
  id: 1,
  name: 'test.upload',
  stream: 'own',
  input: BytesValueSchema,
  output: BytesValueSchema,
};
const slow = { ...upload, id: 2, name: 'test.slow' };

class World {
  readonly #addresses = new Map<number, string>();
  #connections = 0;
  readonly finish: (() => void)[] = [];
  readonly server: RpcServer<undefined> = new RpcServer<undefined>({
    routes: [
      route(upload, () => ({})),
      route(slow, () => new Promise((resolve) => this.finish.push(() => resolve({})))),
    ],
    newState: () => undefined,
    authorize: () => {},
    limits: { totalRequestBytesMax: TOTAL, requestBytesMax: PER_CONNECTION },
    addressOf: ({ id }) => this.#addresses.get(id) ?? '',
    // Whose time never comes: the deadlines of what is never finished would keep the process for a minute.
    clock: new ManualClock(),
  });

  connect(address: string): MemoryConnection {
    const { client, server } = memoryPair({ highWaterBytes: TOTAL });
    this.#connections += 1;
    this.#addresses.set(this.#connections, address);
    this.server.accept(server);
    client.start({ onStream: () => undefined, onClose: () => {} });
    return client;
  }

  /** A request of which all but the last byte arrives. */
  unfinished(address: string, bytes: number): MemoryConnection {
    const connection = this.connect(address);
    const raw = new RawStream(connection);
    raw.header(upload.id, 1, bytes);
    raw.stream.write(new Uint8Array(bytes - 1));
    return connection;
  }

  /** The status of a whole request of so many bytes. */
  async ask(address: string, bytes: number, method = upload): Promise<number> {
    const connection = this.connect(address);
    const raw = new RawStream(connection);
    const value = new Uint8Array(bytes);
    raw.request(method.id, 1, toBinary(BytesValueSchema, create(BytesValueSchema, { value })));
    const { status } = await raw.response();
    connection.close(CloseCode.none, '');
    return status;
  }
}

const arrived = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('many connections of one address fill its share; another address gets through as if nothing was', async () => {
  const world = new World();
  const flood = Array.from({ length: 32 }, () => world.unfinished('mallory', 100 * KIB));
  await arrived();
  assert.equal(await world.ask('mallory', 100 * KIB), Status.EXHAUSTED);
  // As many at once as anybody may have on a few connections.
  const others = await Promise.all(['alice', 'alice', 'bob', 'carol'].map((name) => world.ask(name, 100 * KIB)));
  assert.deepEqual(others, [0, 0, 0, 0]);
  for (const connection of flood) connection.close(CloseCode.none, '');
  await arrived();
  assert.equal(world.server.inFlight, 0);
  assert.equal(await world.ask('mallory', 100 * KIB), Status.OK_UNSPECIFIED, 'what was held is free again');
});

test('however many addresses take their share, there is some left for the next', async () => {
  const world = new World();
  for (let i = 0; i < 7; i += 1) {
    for (let j = 0; j < 32; j += 1) world.unfinished(`mallory ${i}`, 64 * KIB);
    await arrived();
  }
  assert.equal(await world.ask('alice', 32 * KIB), Status.OK_UNSPECIFIED);
});

test('alone, an address has half of all, whole requests and pieces of them together', async () => {
  const world = new World();
  const held = Array.from({ length: 12 }, () => world.ask('mallory', 100 * KIB, slow));
  await arrived();
  assert.equal(world.finish.length, 5, 'the sixth would be beyond half');
  assert.equal(await world.ask('alice', 100 * KIB), Status.OK_UNSPECIFIED);
  for (const finish of world.finish) finish();
  const statuses = await Promise.all(held);
  assert.deepEqual(
    [0, Status.EXHAUSTED].map((status) => statuses.filter((each) => each === status).length),
    [5, 7],
  );
});

test('what a connection left behind counts for its address until its handlers have returned', async () => {
  const world = new World();
  for (let i = 0; i < 12; i += 1) {
    const connection = world.connect('mallory');
    const value = new Uint8Array(100 * KIB);
    new RawStream(connection).request(slow.id, 1, toBinary(BytesValueSchema, create(BytesValueSchema, { value })));
    await arrived();
    connection.lose();
    await arrived();
  }
  assert.equal(world.finish.length, 5);
  assert.equal(await world.ask('mallory', 100 * KIB), Status.EXHAUSTED);
  assert.equal(await world.ask('alice', 100 * KIB), Status.OK_UNSPECIFIED);
  for (const finish of world.finish) finish();
  await arrived();
  assert.equal(await world.ask('mallory', 100 * KIB), Status.OK_UNSPECIFIED);
});

test('a handler that outlives its connection, and held nothing, does not make the server forget what its address holds', async () => {
  const world = new World();
  const connection = world.connect('mallory');
  new RawStream(connection).request(slow.id, 1, new Uint8Array(0));
  await arrived();
  connection.lose();
  await arrived();
  for (let i = 0; i < 5; i += 1) world.unfinished('mallory', 100 * KIB);
  await arrived();
  for (const finish of world.finish) finish();
  await arrived();
  assert.equal(await world.ask('mallory', 100 * KIB), Status.EXHAUSTED, 'half of all is held by its other connections');
});
