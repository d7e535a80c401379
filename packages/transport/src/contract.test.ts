// One suite for every binding: framing and RPC behave the same on memory and on real QUIC.
// DESIGN section 3; THREATS 24 and 27 where they concern frames and calls.
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { after, describe, test } from 'node:test';
import { type DescMessage, create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { BytesValueSchema, StringValueSchema } from '@bufbuild/protobuf/wkt';
import { ErrorSchema, Status } from '@quicprochat/proto';
import type { CloseReason, Connection, Listener } from './connection.ts';
import { CloseCode } from './connection.ts';
import { ConnectionLost, RpcError } from './errors.ts';
import { memoryPair } from './memory.ts';
import type { MethodDescriptor } from './method.ts';
import { connectQuic, listenQuic } from './quic.node.ts';
import { RpcClient, type RpcClientOptions } from './rpc-client.ts';
import { type Route, RpcServer, type RpcServerOptions, route } from './rpc-server.ts';
import { ManualClock } from './testing/manual-clock.ts';
import { makeTestCertificate } from './testing/certificate.node.ts';
import { seededRandom } from './testing/random.ts';
import { RawStream } from './testing/raw-stream.ts';

// ── Bindings ────────────────────────────────────────────────────────────────────────────────────────

interface Binding {
  readonly name: string;
  connect(accept: (connection: Connection) => void): Promise<Connection>;
  close(): Promise<void>;
}

function memoryBinding(name: string, chunkBytes: number): Binding {
  return {
    name,
    connect: async (accept) => {
      const { client, server } = memoryPair({ chunkBytes });
      accept(server);
      return client;
    },
    close: async () => {},
  };
}

function quicBinding(): Binding {
  const { certificate, privateKey } = makeTestCertificate();
  let listener: Listener | undefined;
  let accept: ((connection: Connection) => void) | undefined;
  return {
    name: 'QUIC',
    connect: async (onConnection) => {
      listener ??= await listenQuic({ host: '127.0.0.1', port: 0, certificate, privateKey }, (c) => accept?.(c));
      const accepted = new Promise<void>((resolve) => {
        accept = (connection) => {
          onConnection(connection);
          resolve();
        };
      });
      const { port } = listener.address;
      const connection = await connectQuic({ host: '127.0.0.1', port, trustAnchor: certificate });
      await accepted;
      return connection;
    },
    close: async () => listener?.close(),
  };
}

// ── Methods and the world ───────────────────────────────────────────────────────────────────────────

type BytesMethod = MethodDescriptor<typeof BytesValueSchema, typeof BytesValueSchema>;

const MIB = 1024 * 1024;

function method(id: number, options: Partial<BytesMethod> = {}): BytesMethod {
  return {
    id,
    name: `test.${id}`,
    requestMax: 64 * 1024,
    responseMax: 64 * 1024,
    timeoutMs: 30_000,
    idempotent: true,
    stream: 'shared',
    auth: 'anyone',
    input: BytesValueSchema,
    output: BytesValueSchema,
    ...options,
  };
}

const echo = method(1);
const wait = method(2);
const large = method(3, { requestMax: 4 * MIB, responseMax: 4 * MIB, stream: 'own' });
const largeShared = method(4, { requestMax: 4 * MIB, responseMax: 4 * MIB });
const fail = method(5);
const small = method(6, { requestMax: 100 });
const hasty = method(7, { timeoutMs: 30 });

interface State {
  name: string;
}

/** A call the server is holding open. */
interface Held {
  readonly signal: AbortSignal;
  finish(): void;
}

/** Holds every call of `wait` until the test finishes it; counts runs. */
class Gate {
  readonly held: Held[] = [];
  runs = 0;
  #arrived: (() => void)[] = [];

  readonly routes: readonly Route<State>[] = [
    route(wait, (context, request) => {
      this.runs += 1;
      return new Promise((resolve) => {
        this.held.push({
          signal: context.signal,
          finish: () => resolve({ value: request.value }),
        });
        for (const arrived of this.#arrived.splice(0)) arrived();
      });
    }),
  ];

  async arrivals(count: number): Promise<void> {
    while (this.runs < count) await new Promise<void>((resolve) => this.#arrived.push(resolve));
  }

  finishAll(): void {
    for (const held of this.held.splice(0)) held.finish();
  }
}

interface World {
  readonly connection: Connection;
  readonly server: RpcServer<State>;
  readonly disconnected: Promise<CloseReason>;
}

async function world(
  binding: Binding,
  routes: Iterable<Route<State>>,
  options: Partial<RpcServerOptions<State>> = {},
): Promise<World> {
  let onDisconnected: (reason: CloseReason) => void = () => {};
  const disconnected = new Promise<CloseReason>((resolve) => {
    onDisconnected = resolve;
  });
  const server = new RpcServer<State>({
    newState: () => ({ name: 'nobody' }),
    authorize: () => {},
    onFault: (failed, error) => {
      if (failed !== fail) assert.fail(`${failed.name}: ${String(error)}`);
    },
    onDisconnect: (_connection, reason) => onDisconnected(reason),
    ...options,
    routes: [
      ...routes,
      route(echo, (_context, request) => ({ value: request.value })),
      route(large, (_context, request) => ({ value: request.value })),
      route(largeShared, (_context, request) => ({ value: request.value })),
      route(small, (_context, request) => ({ value: request.value })),
    ],
  });
  const connection = await binding.connect(server.accept);
  return { connection, server, disconnected };
}

function bytes(text: string): Uint8Array {
  return Buffer.from(text);
}

function encoded(value: Uint8Array): Uint8Array {
  return toBinary(BytesValueSchema, create(BytesValueSchema, { value }));
}

function status(expected: number): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof RpcError, String(error));
    assert.equal(error.status, expected, error.message);
    return true;
  };
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

// ── The suite ───────────────────────────────────────────────────────────────────────────────────────

for (const binding of [
  memoryBinding('memory', Infinity),
  memoryBinding('memory, cut into 13-byte pieces', 13),
  quicBinding(),
]) {
  const cutSmall = binding.name.includes('13-byte');

  describe(`RPC over ${binding.name}`, { timeout: 60_000 }, () => {
    after(() => binding.close());

    const setUp = async (
      routes: Iterable<Route<State>> = [],
      options: Partial<RpcServerOptions<State>> = {},
      clientOptions: RpcClientOptions = {},
    ): Promise<World & { client: RpcClient }> => {
      const made = await world(binding, routes, options);
      return { ...made, client: new RpcClient(made.connection, clientOptions) };
    };

    describe('calls', () => {
      test('a call and its answer', async () => {
        const { client } = await setUp();
        const answer = await client.call(echo, { value: bytes('hello') });
        assert.equal(Buffer.from(answer.value).toString(), 'hello');
        const empty = await client.call(echo, {});
        assert.equal(empty.value.length, 0);
        client.close();
      });

      test('the session state belongs to the connection', async () => {
        const rename = method(20);
        const routes = [
          route<State, typeof BytesValueSchema, typeof BytesValueSchema>(rename, (context, request) => {
            const before = context.connection.state.name;
            context.connection.state.name = Buffer.from(request.value).toString();
            return { value: bytes(before) };
          }),
        ];
        const first = await setUp(routes);
        const second = await setUp(routes);
        const names: string[] = [];
        for (const [client, name] of [
          [first.client, 'alice'],
          [second.client, 'bob'],
          [first.client, 'carol'],
        ] as const) {
          const { value } = await client.call(rename, { value: bytes(name) });
          names.push(Buffer.from(value).toString());
        }
        assert.deepEqual(names, ['nobody', 'nobody', 'alice']);
        first.client.close();
        second.client.close();
      });

      test('128 in flight at once, answered in any order', async () => {
        const gate = new Gate();
        const { client, server } = await setUp(gate.routes);
        const calls = Array.from({ length: 128 }, (_, i) => client.call(wait, { value: bytes(`call ${i}`) }));
        await gate.arrivals(128);
        assert.equal(client.inFlight, 128);
        assert.equal(server.inFlight, 128);
        for (const held of gate.held.splice(0).reverse()) held.finish();
        const answers = await Promise.all(calls);
        assert.deepEqual(
          answers.map((answer) => Buffer.from(answer.value).toString()),
          Array.from({ length: 128 }, (_, i) => `call ${i}`),
        );
        assert.equal(client.inFlight, 0);
        assert.equal(server.inFlight, 0);
        client.close();
      });

      test('more than 256 wait at the client and all are answered', async () => {
        const { client } = await setUp();
        const calls = Array.from({ length: 2000 }, (_, i) => client.call(echo, { value: bytes(`${i}`) }));
        assert.equal(client.inFlight, 256);
        const answers = await Promise.all(calls);
        assert.ok(answers.every((answer, i) => Buffer.from(answer.value).toString() === `${i}`));
        client.close();
      });

      test('payloads up to 4 MiB, several at once, travel on their own streams', async () => {
        const { client } = await setUp();
        const sizes = cutSmall ? [70_000, 300_000] : [70_000, MIB, 3 * MIB, 4 * MIB - 5];
        await Promise.all(
          sizes.flatMap((size) =>
            [large, largeShared].map(async (target) => {
              const value = new Uint8Array(size).fill(size & 0xff);
              const answer = await client.call(target, { value });
              assert.ok(Buffer.from(answer.value).equals(value));
            }),
          ),
        );
        client.close();
      });

      test('own streams are kept and reused', async () => {
        const opened = new Set<number>();
        const { client } = await setUp([], {});
        for (let i = 0; i < 200; i += 1) await client.call(large, { value: bytes('x') });
        const raw = await world(binding, []);
        const counting: Connection = {
          peer: raw.connection.peer,
          streamsMax: raw.connection.streamsMax,
          get closed() {
            return raw.connection.closed;
          },
          start: (handler) => raw.connection.start(handler),
          openStream: (handler) => {
            const stream = raw.connection.openStream(handler);
            if (stream !== undefined) opened.add(stream.id);
            return stream;
          },
          openPushStream: (handler) => raw.connection.openPushStream(handler),
          close: (code, reason) => raw.connection.close(code, reason),
        };
        const counted = new RpcClient(counting);
        for (let i = 0; i < 50; i += 1) {
          await Promise.all([1, 2, 3].map(() => counted.call(large, { value: bytes('x') })));
        }
        assert.ok(opened.size <= 4, `${opened.size} streams for 150 calls`);
        client.close();
        counted.close();
      });

      test('a method that this server does not have', async () => {
        const { client } = await setUp();
        await assert.rejects(client.call(method(999), {}), status(Status.UNIMPLEMENTED));
        await client.call(echo, {});
        client.close();
      });

      test('a request that is not what the method expects', async () => {
        const { client } = await setUp();
        // Field 1 as a varint, where bytes are expected by the schema that answers.
        const wrong: MethodDescriptor<DescMessage, DescMessage> = { ...echo, input: StringValueSchema };
        await client.call(wrong, create(StringValueSchema, { value: 'text is bytes on the wire' }));
        const connection = await binding.connect((await setUp()).server.accept);
        const raw = new RawStream(connection);
        raw.request(echo.id, 1, Buffer.from('0affffffff0f', 'hex'));
        assert.equal((await raw.response()).status, Status.INVALID_ARGUMENT);
        connection.close(CloseCode.none, '');
        client.close();
      });
    });

    describe('errors', () => {
      test('THREATS 27: two million fields in one request are not decoded', async () => {
        const { connection } = await world(binding, []);
        const raw = new RawStream(connection);
        raw.request(
          large.id,
          1,
          new Uint8Array(4 * MIB).map((_, i) => (i % 2 === 0 ? 0x0a : 0)),
        );
        assert.equal((await raw.response()).status, Status.INVALID_ARGUMENT);
        connection.close(CloseCode.none, '');
      });

      test('an RpcError of a handler arrives as it is; anything else as `internal`, without detail', async () => {
        let error: unknown;
        const faults: unknown[] = [];
        const { client } = await setUp(
          [
            route(fail, () => {
              throw error;
            }),
          ],
          { onFault: (_method, fault) => faults.push(fault) },
        );
        error = new RpcError(Status.RATE_LIMITED, 'slow down', { hint: 'wait', retryAfterMs: 1500 });
        await assert.rejects(client.call(fail, {}), (got: unknown) => {
          assert.ok(got instanceof RpcError);
          const { message, hint, retryAfterMs, local } = got;
          assert.deepEqual(
            { status: got.status, message, hint, retryAfterMs, local },
            {
              status: Status.RATE_LIMITED,
              message: 'slow down',
              hint: 'wait',
              retryAfterMs: 1500,
              local: false,
            },
          );
          return true;
        });
        assert.deepEqual(faults, []);
        error = new Error('password is hunter2');
        await assert.rejects(client.call(fail, {}), (got: unknown) => {
          assert.ok(got instanceof RpcError);
          assert.equal(got.status, Status.INTERNAL);
          assert.ok(!`${got.message}${got.hint}`.includes('hunter2'));
          return true;
        });
        assert.deepEqual(faults, [error]);
        client.close();
      });

      test('the auth rule decides before the request is decoded', async () => {
        const { client } = await setUp([], {
          authorize: async ({ method: called }) => {
            if (called.id === echo.id) throw new RpcError(Status.UNAUTHENTICATED, 'log in first');
          },
        });
        await assert.rejects(client.call(echo, {}), status(Status.UNAUTHENTICATED));
        await client.call(small, {});
        client.close();
      });

      test('a request above its method’s limit: refused here, and by the server', async () => {
        const { client, server } = await setUp();
        await assert.rejects(client.call(small, { value: new Uint8Array(101) }), status(Status.TOO_LARGE));
        const connection = await binding.connect(server.accept);
        const raw = new RawStream(connection);
        raw.request(small.id, 1, new Uint8Array(101));
        raw.request(echo.id, 2);
        assert.equal((await raw.response()).status, Status.TOO_LARGE);
        assert.equal((await raw.response()).status, Status.OK_UNSPECIFIED);
        connection.close(CloseCode.none, '');
        client.close();
      });

      test('a response above its method’s limit is the server’s fault', async () => {
        const faults: unknown[] = [];
        const { client } = await setUp([route(fail, () => ({ value: new Uint8Array(fail.responseMax + 1) }))], {
          onFault: (_method, error) => faults.push(error),
        });
        await assert.rejects(client.call(fail, {}), status(Status.INTERNAL));
        assert.equal(faults.length, 1);
        client.close();
      });

      test('a response above what the client expects is refused there', async () => {
        const { client } = await setUp();
        await assert.rejects(
          client.call({ ...echo, responseMax: 10 }, { value: new Uint8Array(50) }),
          status(Status.TOO_LARGE),
        );
        await client.call(echo, {});
        client.close();
      });
    });

    describe('cancel and deadlines', () => {
      for (const [where, target] of [
        ['the shared stream', wait],
        ['a stream of its own', method(2, { stream: 'own' })],
      ] as const) {
        test(`an abort on ${where} ends the call and the handler hears of it`, async () => {
          const gate = new Gate();
          const { client, server } = await setUp(gate.routes);
          const controller = new AbortController();
          const call = client.call(target, {}, { signal: controller.signal });
          await gate.arrivals(1);
          controller.abort();
          await assert.rejects(call, status(Status.CANCELLED));
          await aborted((gate.held[0] as Held).signal);
          gate.finishAll();
          await client.call(echo, {});
          assert.equal(client.inFlight, 0);
          assert.equal(server.inFlight, 0);
          client.close();
        });
      }

      test('an abort before the call sends nothing', async () => {
        const gate = new Gate();
        const { client } = await setUp(gate.routes);
        const call = client.call(wait, {}, { signal: AbortSignal.abort() });
        await assert.rejects(call, status(Status.CANCELLED));
        await client.call(echo, {});
        assert.equal(gate.runs, 0);
        client.close();
      });

      test('an abort in the middle of a large upload stops it', async () => {
        const { client, server } = await setUp();
        const controller = new AbortController();
        const value = new Uint8Array(4 * MIB - 5);
        const call = client.call(large, { value }, { signal: controller.signal });
        controller.abort();
        await assert.rejects(call, status(Status.CANCELLED));
        for (let i = 0; i < 5; i += 1) await client.call(large, { value: bytes('again') });
        assert.equal(client.inFlight, 0);
        assert.equal(server.inFlight, 0);
        client.close();
      });

      test('the client’s deadline is its own, and cancels', async () => {
        const gate = new Gate();
        const { client } = await setUp(gate.routes);
        await assert.rejects(client.call(wait, {}, { timeoutMs: 20 }), status(Status.DEADLINE_EXCEEDED));
        await gate.arrivals(1);
        await aborted((gate.held[0] as Held).signal);
        client.close();
      });

      test('the server’s deadline is the method’s', async () => {
        let signal: AbortSignal | undefined;
        const { client } = await setUp([
          route(hasty, (context) => {
            ({ signal } = context);
            return new Promise(() => {});
          }),
        ]);
        const call = client.call(hasty, {}, { timeoutMs: 10_000 });
        await assert.rejects(call, (error: unknown) => {
          assert.ok(error instanceof RpcError);
          assert.equal(error.status, Status.DEADLINE_EXCEEDED);
          assert.equal(error.local, false);
          return true;
        });
        assert.equal(signal?.aborted, true);
        client.close();
      });

      test('a request that never arrives whole runs into the deadline too', async () => {
        const routes = [route<State, typeof BytesValueSchema, typeof BytesValueSchema>(hasty, () => ({}))];
        const { connection, server } = await world(binding, routes);
        const raw = new RawStream(connection);
        raw.header(hasty.id, 1, 1000);
        raw.stream.write(new Uint8Array(10));
        assert.equal((await raw.response()).status, Status.DEADLINE_EXCEEDED);
        assert.equal(server.inFlight, 0);
        raw.stream.write(new Uint8Array(990));
        raw.request(echo.id, 2);
        assert.equal((await raw.response()).id, 2);
        connection.close(CloseCode.none, '');
      });

      test('Cancel and answer: whichever comes first, one answer', async () => {
        const gate = new Gate();
        const { connection } = await world(binding, gate.routes);
        const raw = new RawStream(connection);
        raw.request(wait.id, 7, encoded(bytes('a')));
        await gate.arrivals(1);
        raw.header(0, 7, 0);
        assert.equal((await raw.response()).status, Status.CANCELLED);
        gate.finishAll();
        // Cancelling what is answered, or never was, is nothing.
        raw.header(0, 7, 0);
        raw.header(0, 1234, 0);
        raw.request(echo.id, 7);
        const next = await raw.response();
        assert.deepEqual([next.status, next.id], [Status.OK_UNSPECIFIED, 7]);
        connection.close(CloseCode.none, '');
      });

      test('resetting a stream cancels its calls', async () => {
        const gate = new Gate();
        const { connection, server } = await world(binding, gate.routes);
        const raw = new RawStream(connection);
        for (const id of [1, 2, 3]) raw.request(wait.id, id);
        await gate.arrivals(3);
        raw.stream.reset(CloseCode.cancelled);
        await Promise.all(gate.held.map((held) => aborted(held.signal)));
        assert.equal(server.inFlight, 3, 'a handler counts until it returns');
        gate.finishAll();
        const other = new RawStream(connection);
        other.request(echo.id, 1);
        await other.response();
        assert.equal(server.inFlight, 0);
        connection.close(CloseCode.none, '');
      });
    });

    describe('push', () => {
      test('events arrive in order, whatever calls do meanwhile', async () => {
        const seen: number[] = [];
        let enough: () => void = () => {};
        const all = new Promise<void>((resolve) => {
          enough = resolve;
        });
        const { client, server } = await setUp(
          [],
          {},
          {
            onPush: (eventType, payload) => {
              assert.equal(eventType, 4);
              seen.push(new DataView(payload.buffer, payload.byteOffset).getUint32(0));
              if (seen.length === 3000) enough();
            },
          },
        );
        const [peer] = server.connections;
        assert.ok(peer);
        for (let i = 0; i < 3000; i += 1) {
          const payload = new Uint8Array(4 + (i % 50));
          new DataView(payload.buffer).setUint32(0, i);
          if (!peer.push(4, payload)) assert.equal(await peer.drained(), true);
          if (i % 100 === 0) await client.call(echo, {});
        }
        await all;
        assert.deepEqual(
          seen,
          Array.from({ length: 3000 }, (_, i) => i),
        );
        client.close();
      });

      test('drained says no once the connection is gone', async () => {
        const { client, server, disconnected } = await setUp();
        await client.call(echo, {});
        const [peer] = server.connections;
        assert.ok(peer);
        client.close();
        await disconnected;
        assert.equal(peer.push(1, bytes('x')), false);
        assert.equal(await peer.drained(), false);
      });
    });

    describe('garbage closes its stream, never more', () => {
      const survives = async (connection: Connection): Promise<void> => {
        const raw = new RawStream(connection);
        raw.request(echo.id, 1, encoded(bytes('alive')));
        const { payload } = await raw.response();
        assert.equal(Buffer.from(fromBinary(BytesValueSchema, payload).value).toString(), 'alive');
      };

      test('THREATS 27: a header above 4 MiB', async () => {
        const { connection } = await world(binding, []);
        for (const length of [4 * MIB + 1, 0x7fffffff, 0xffffffff]) {
          const raw = new RawStream(connection);
          raw.header(large.id, 1, length);
          assert.equal(await raw.over, 'reset');
        }
        await survives(connection);
        connection.close(CloseCode.none, '');
      });

      test('a request id used twice; the first call is cancelled', async () => {
        const gate = new Gate();
        const { connection } = await world(binding, gate.routes);
        const raw = new RawStream(connection);
        raw.request(wait.id, 1);
        await gate.arrivals(1);
        raw.request(echo.id, 1);
        assert.equal(await raw.over, 'reset');
        await aborted((gate.held[0] as Held).signal);
        await survives(connection);
        connection.close(CloseCode.none, '');
      });

      test('the same id on two streams is two calls', async () => {
        const { connection } = await world(binding, []);
        const raws = [new RawStream(connection), new RawStream(connection)];
        for (const raw of raws) raw.request(echo.id, 1);
        for (const raw of raws) assert.equal((await raw.response()).id, 1);
        connection.close(CloseCode.none, '');
      });

      test('a Cancel with a payload', async () => {
        const { connection } = await world(binding, []);
        const raw = new RawStream(connection);
        raw.request(0, 1, bytes('x'));
        assert.equal(await raw.over, 'reset');
        await survives(connection);
        connection.close(CloseCode.none, '');
      });

      test('a truncated frame', async () => {
        const { connection, server } = await world(binding, []);
        for (const cut of [1, 9, 10, 12]) {
          const raw = new RawStream(connection);
          raw.stream.write(Buffer.from('0001000000010000000568656c6c', 'hex').subarray(0, cut));
          raw.stream.end();
          assert.equal(await raw.over, 'reset', `cut at ${cut}`);
        }
        await survives(connection);
        assert.equal(server.inFlight, 0);
        connection.close(CloseCode.none, '');
      });

      test('random bytes', async () => {
        const seed = randomInt(2 ** 31);
        const random = seededRandom(seed);
        const { connection, server } = await world(binding, []);
        for (let round = 0; round < 30; round += 1) {
          const raw = new RawStream(connection);
          const junk = Uint8Array.from({ length: 1 + Math.floor(random() * 2000) }, () => Math.floor(random() * 256));
          raw.stream.write(junk);
          raw.stream.end();
          await raw.over;
        }
        await survives(connection);
        assert.equal(server.inFlight, 0, `seed ${seed}`);
        connection.close(CloseCode.none, '');
      });

      test('a server that answers a call nobody made', async () => {
        const connection = await binding.connect((accepted) => {
          accepted.start({
            onStream: (stream) => ({
              onData: () => {
                stream.write(Buffer.from('000000ffff00000000', 'hex'));
              },
              onEnd: () => {},
              onDrain: () => {},
              onClose: () => {},
            }),
            onClose: () => {},
          });
        });
        const client = new RpcClient(connection);
        await assert.rejects(client.call(echo, {}), ConnectionLost);
        client.close();
      });

      test('a server that sends an oversized event', async () => {
        let closed: (reason: CloseReason) => void = () => {};
        const over = new Promise<CloseReason>((resolve) => {
          closed = resolve;
        });
        const connection = await binding.connect((accepted) => {
          accepted.start({ onStream: () => undefined, onClose: closed });
          const none = { onData: () => {}, onEnd: () => {}, onDrain: () => {}, onClose: () => {} };
          accepted.openPushStream(none)?.write(Buffer.from('0001ffffffff', 'hex'));
        });
        new RpcClient(connection).call(echo, {}).catch(() => {});
        const reason = await over;
        assert.deepEqual([reason.kind, reason.code], ['peer', CloseCode.protocol]);
      });
    });

    describe('bounds of one connection', () => {
      test('the 257th call is answered `exhausted` and does not run', async () => {
        const gate = new Gate();
        const { connection, server } = await world(binding, gate.routes);
        const raw = new RawStream(connection);
        for (let id = 1; id <= 257; id += 1) raw.request(wait.id, id);
        const refused = await raw.response();
        assert.deepEqual([refused.status, refused.id], [Status.EXHAUSTED, 257]);
        assert.ok(fromBinary(ErrorSchema, refused.payload).message.length > 0);
        assert.equal(gate.runs, 256);
        // Cancelling does not buy more work: the handlers have not returned.
        for (let id = 1; id <= 256; id += 1) raw.header(0, id, 0);
        for (let id = 1; id <= 256; id += 1) assert.equal((await raw.response()).status, Status.CANCELLED);
        raw.request(wait.id, 500);
        assert.equal((await raw.response()).status, Status.EXHAUSTED);
        assert.equal(server.inFlight, 256);
        gate.finishAll();
        raw.request(echo.id, 501);
        const { status: fine } = await raw.response();
        assert.equal(fine, Status.OK_UNSPECIFIED);
        connection.close(CloseCode.none, '');
      });

      test('8 MiB of unanswered requests: what is announced counts, the rest is not kept', async () => {
        const { connection, server } = await world(binding, []);
        const raws = [1, 2, 3].map(() => new RawStream(connection));
        const [first, second, third] = raws as [RawStream, RawStream, RawStream];
        first.header(large.id, 1, 4 * MIB);
        second.header(large.id, 1, 4 * MIB);
        second.stream.write(new Uint8Array(1));
        // Streams are not ordered among each other: wait until both headers have been read.
        while (server.inFlight < 2) await new Promise((resolve) => setImmediate(resolve));
        third.header(large.id, 1, 1);
        third.stream.write(new Uint8Array(1));
        assert.equal((await third.response()).status, Status.EXHAUSTED);
        first.stream.reset(CloseCode.cancelled);
        while (server.inFlight > 1) await new Promise((resolve) => setImmediate(resolve));
        third.request(large.id, 2, encoded(bytes('fits')));
        assert.equal((await third.response()).status, Status.OK_UNSPECIFIED);
        connection.close(CloseCode.none, '');
      });

      test('a bound on the requests of all connections together', async () => {
        const gate = new Gate();
        const { connection, server } = await world(binding, gate.routes, {
          limits: { totalRequestBytesMax: 1000 },
        });
        const other = await binding.connect(server.accept);
        const first = new RawStream(connection);
        first.request(wait.id, 1, encoded(new Uint8Array(900)));
        await gate.arrivals(1);
        const second = new RawStream(other);
        second.request(echo.id, 1, encoded(new Uint8Array(200)));
        assert.equal((await second.response()).status, Status.EXHAUSTED);
        gate.finishAll();
        await first.response();
        second.request(echo.id, 2, encoded(new Uint8Array(200)));
        assert.equal((await second.response()).status, Status.OK_UNSPECIFIED);
        connection.close(CloseCode.none, '');
        other.close(CloseCode.none, '');
      });

      test('THREATS 24, 27: what others announce and never send leaves room; what they send is bounded', async () => {
        const { connection, server } = await world(binding, [], { limits: { totalRequestBytesMax: 4 * MIB } });
        const silent = new RawStream(connection);
        silent.header(large.id, 1, 4 * MIB);
        while (server.inFlight < 1) await new Promise((resolve) => setImmediate(resolve));
        const other = await binding.connect(server.accept);
        const honest = new RawStream(other);
        honest.request(echo.id, 1, encoded(new Uint8Array(200)));
        assert.equal((await honest.response()).status, Status.OK_UNSPECIFIED);

        // Two that do send, each within its own bound: together they would be beyond the server's.
        const first = new RawStream(other);
        first.header(large.id, 1, 4 * MIB);
        while (server.inFlight < 2) await new Promise((resolve) => setImmediate(resolve));
        const part = new Uint8Array(3 * MIB);
        silent.stream.write(part);
        first.stream.write(part);
        const refused = await Promise.race([silent, first].map(async (raw) => ({ raw, ...(await raw.response()) })));
        assert.equal(refused.status, Status.EXHAUSTED);
        assert.equal(server.inFlight, 1);
        // Its call is over and nothing of it is kept: after the other one there is room again.
        const kept = refused.raw === silent ? first : silent;
        kept.stream.reset(CloseCode.cancelled);
        while (server.inFlight > 0) await new Promise((resolve) => setImmediate(resolve));
        honest.request(large.id, 2, encoded(new Uint8Array(3 * MIB)));
        assert.equal((await honest.response()).status, Status.OK_UNSPECIFIED);
        connection.close(CloseCode.none, '');
        other.close(CloseCode.none, '');
      });

      test('streams beyond 64 are answered `exhausted`; twice as many close the connection', async () => {
        const { connection, disconnected } = await world(binding, []);
        const streams: RawStream[] = [];
        for (let i = 0; i < 64; i += 1) {
          const raw = new RawStream(connection);
          raw.request(echo.id, 1);
          assert.equal((await raw.response()).status, Status.OK_UNSPECIFIED);
          streams.push(raw);
        }
        const surplus = new RawStream(connection);
        surplus.request(echo.id, 1);
        assert.equal((await surplus.response()).status, Status.EXHAUSTED);
        // One that ends makes room.
        streams[0]?.stream.end();
        await streams[0]?.over;
        surplus.stream.end();
        await surplus.over;
        const next = new RawStream(connection);
        next.request(echo.id, 1);
        assert.equal((await next.response()).status, Status.OK_UNSPECIFIED);
        while (connection.closed === undefined) {
          const none = { onData: () => {}, onEnd: () => {}, onDrain: () => {}, onClose: () => {} };
          connection.openStream(none)?.write(new Uint8Array(1));
          await new Promise((resolve) => setImmediate(resolve));
        }
        const reason = await disconnected;
        assert.deepEqual([reason.kind, reason.code], ['local', CloseCode.limits]);
      });

      test('refusals without end close the connection', async () => {
        const gate = new Gate();
        const { connection, disconnected } = await world(binding, gate.routes);
        const raw = new RawStream(connection);
        for (let id = 1; id <= 256 + 4097; id += 1) raw.request(wait.id, id);
        const reason = await disconnected;
        assert.deepEqual([reason.kind, reason.code], ['local', CloseCode.limits]);
        assert.equal(gate.runs, 256);
        gate.finishAll();
        assert.equal(connection.closed?.kind ?? 'peer', 'peer');
      });
    });

    describe('other clients', () => {
      test('one stream per call, half-closed, is served the same', async () => {
        const { connection } = await world(binding, []);
        for (let i = 0; i < 100; i += 1) {
          const raw = new RawStream(connection);
          raw.request(echo.id, 1, encoded(bytes(`${i}`)));
          raw.stream.end();
          const { payload } = await raw.response();
          assert.equal(Buffer.from(fromBinary(BytesValueSchema, payload).value).toString(), `${i}`);
          await raw.ended;
          assert.equal(await raw.over, 'finished');
        }
        connection.close(CloseCode.none, '');
      });

      test('what is written in one piece of any length arrives whole, and the writer may reuse it', async () => {
        const { connection } = await world(binding, []);
        const raw = new RawStream(connection);
        const payload = encoded(new Uint8Array(100_000).fill(7));
        const expected = payload.slice();
        raw.header(largeShared.id, 1, payload.length);
        raw.stream.write(payload);
        payload.fill(0);
        assert.deepEqual((await raw.response()).payload, expected);
        connection.close(CloseCode.none, '');
      });

      test('half-closed with calls still running: all are answered, then the stream ends', async () => {
        const gate = new Gate();
        const { connection } = await world(binding, gate.routes);
        const raw = new RawStream(connection);
        for (const id of [1, 2, 3]) raw.request(wait.id, id);
        raw.request(999, 4);
        raw.stream.end();
        await gate.arrivals(3);
        gate.finishAll();
        const ids = [];
        for (let i = 0; i < 4; i += 1) ids.push((await raw.response()).id);
        assert.deepEqual(ids.toSorted(), [1, 2, 3, 4]);
        assert.equal(await raw.over, 'finished');
        connection.close(CloseCode.none, '');
      });

      test('a stream that carries nothing', async () => {
        const { connection } = await world(binding, []);
        const raw = new RawStream(connection);
        raw.stream.end();
        assert.equal(await raw.over, 'finished');
        connection.close(CloseCode.none, '');
      });
    });

    describe('the end', () => {
      test('a connection closed by the server fails its calls with the code', async () => {
        const gate = new Gate();
        const { client, server } = await setUp(gate.routes);
        const call = client.call(wait, {});
        await gate.arrivals(1);
        for (const peer of server.connections) peer.close(CloseCode.limits, 'enough');
        await assert.rejects(call, (error: unknown) => {
          assert.ok(error instanceof ConnectionLost);
          assert.equal(error.code, CloseCode.limits);
          return true;
        });
        assert.deepEqual(client.closed, { kind: 'peer', code: CloseCode.limits, reason: 'enough' });
        await assert.rejects(client.call(echo, {}), ConnectionLost);
      });

      test('a client that leaves aborts its handlers', async () => {
        const gate = new Gate();
        const { client, disconnected } = await setUp(gate.routes);
        const call = client.call(wait, {});
        await gate.arrivals(1);
        client.close('bye');
        await assert.rejects(call, ConnectionLost);
        const reason = await disconnected;
        assert.deepEqual(reason, { kind: 'peer', code: CloseCode.none, reason: 'bye' });
        assert.equal(gate.held[0]?.signal.aborted, true);
        gate.finishAll();
      });

      test('onClose comes after every call has failed', async () => {
        const gate = new Gate();
        const order: string[] = [];
        const { client, server } = await setUp(gate.routes, {}, { onClose: () => order.push('closed') });
        const calls = [1, 2].map(() => client.call(wait, {}).catch(() => order.push('failed')));
        await gate.arrivals(2);
        for (const peer of server.connections) peer.close(CloseCode.none, '');
        await Promise.all(calls);
        assert.equal(order.length, 3);
      });

      test('drain: calls in flight finish, new ones are refused, then the connection closes', async () => {
        const gate = new Gate();
        let closed: (reason: CloseReason) => void = () => {};
        const over = new Promise<CloseReason>((resolve) => {
          closed = resolve;
        });
        const { client, server } = await setUp(gate.routes, {}, { onClose: closed });
        const call = client.call(wait, { value: bytes('last') });
        await gate.arrivals(1);
        const drained = server.drain(20_000);
        await assert.rejects(client.call(echo, {}), status(Status.UNAVAILABLE));
        gate.finishAll();
        assert.equal(Buffer.from((await call).value).toString(), 'last');
        await drained;
        assert.equal((await over).kind, 'local');
        assert.deepEqual([...server.connections], []);
        assert.equal(server.inFlight, 0);
      });

      test('drain: what does not finish in time is cut', async () => {
        const gate = new Gate();
        const { client, server } = await setUp(gate.routes);
        const call = client.call(wait, {});
        await gate.arrivals(1);
        await Promise.all([
          server.drain(50),
          assert.rejects(call, (error: unknown) => {
            assert.ok(error instanceof ConnectionLost);
            assert.equal(error.code, CloseCode.shutdown);
            return true;
          }),
        ]);
        gate.finishAll();
      });

      test('drain: a client that neither closes nor has anything to read holds it up for two seconds, no longer', async () => {
        const clock = new ManualClock();
        const { connection, server, disconnected } = await world(binding, [], { clock });
        const told = Promise.withResolvers<void>();
        connection.start({
          onStream: () => ({ onData: () => {}, onEnd: () => told.resolve(), onDrain: () => {}, onClose: () => {} }),
          onClose: () => {},
        });
        const drained = server.drain(20_000);
        await told.promise;
        clock.advance(2000);
        await drained;
        assert.deepEqual(await disconnected, {
          kind: 'local',
          code: CloseCode.shutdown,
          reason: (await disconnected).reason,
        });
      });

      test('drain with nothing in flight is quick', async () => {
        const { client, server } = await setUp();
        await client.call(echo, {});
        await server.drain(20_000);
        assert.deepEqual([...server.connections], []);
      });
    });
  });
}
