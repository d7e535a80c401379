// Calls that wait for their turn (docs/decisions/0023-pacing.md), on a clock that moves when told to.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, toBinary } from '@bufbuild/protobuf';
import { BytesValueSchema } from '@bufbuild/protobuf/wkt';
import { Status } from '@quicprochat/proto';
import type { CloseReason } from './connection.ts';
import { CloseCode } from './connection.ts';
import { RpcError } from './errors.ts';
import { type MemoryConnection, memoryPair } from './memory.ts';
import type { MethodDescriptor } from './method.ts';
import { type Pace, RpcServer, type RpcServerOptions, route } from './rpc-server.ts';
import { ManualClock } from './testing/manual-clock.ts';
import { RawStream } from './testing/raw-stream.ts';

const CANCEL = 0;
const NOTED = 1;
const HASTY = 2;
const UNKNOWN = 99;

function method(id: number, timeoutMs: number): MethodDescriptor<typeof BytesValueSchema, typeof BytesValueSchema> {
  const bounds = { requestMax: 4 * 1024 * 1024, responseMax: 1024, timeoutMs };
  const rules = { idempotent: true, stream: 'shared', auth: 'anyone' } as const;
  return { id, name: `test.${id}`, ...bounds, ...rules, input: BytesValueSchema, output: BytesValueSchema };
}

interface World {
  readonly clock: ManualClock;
  readonly server: RpcServer<undefined>;
  /** A client's end. */
  connect(): MemoryConnection;
  /** The first client's. */
  readonly connection: MemoryConnection;
  readonly raw: RawStream;
  /** When each handler ran, and with what: `10 a`. */
  readonly ran: string[];
  readonly ended: Promise<CloseReason>;
}

/** A server where the calls of a connection may begin one every `everyMs`, or as `pace` says. */
function world(options: Partial<RpcServerOptions<undefined>> & { everyMs?: number } = {}): World {
  const { everyMs = 10, ...others } = options;
  const clock = new ManualClock();
  const ran: string[] = [];
  const next = new Map<number, number>();
  let setEnded: (reason: CloseReason) => void = () => {};
  const ended = new Promise<CloseReason>((resolve) => {
    setEnded = resolve;
  });
  const note = (request: { readonly value: Uint8Array }) => {
    ran.push(`${clock.now()} ${Buffer.from(request.value.subarray(0, 8)).toString()}`);
    return {};
  };
  const server = new RpcServer<undefined>({
    routes: [route(method(NOTED, 60_000), (_, it) => note(it)), route(method(HASTY, 25), (_, it) => note(it))],
    newState: () => undefined,
    authorize: () => {},
    pace: ({ id }) => {
      const waitMs = Math.max(0, (next.get(id) ?? 0) - clock.now());
      next.set(id, clock.now() + waitMs + everyMs);
      return { kind: 'go', waitMs };
    },
    clock,
    onDisconnect: (_, reason) => setEnded(reason),
    ...others,
  });
  const connect = (): MemoryConnection => {
    const pair = memoryPair();
    server.accept(pair.server);
    const ignoring = { onData: () => {}, onEnd: () => {}, onDrain: () => {}, onClose: () => {} };
    pair.client.start({ onStream: () => ignoring, onClose: () => {} });
    return pair.client;
  };
  const connection = connect();
  return { clock, server, connect, connection, raw: new RawStream(connection), ran, ended };
}

const saying = (text: string, bytes = text.length): Uint8Array => {
  const value = new Uint8Array(bytes);
  value.set(Buffer.from(text));
  return toBinary(BytesValueSchema, create(BytesValueSchema, { value }));
};

/** The memory binding delivers in microtasks: by now everything written has arrived. */
const arrived = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('calls begin at their pace and in the order they came, on whatever stream', async () => {
  const { clock, connection, raw, ran } = world();
  const other = new RawStream(connection);
  for (const [id, text] of [...'abcdef'].entries()) (id % 2 === 0 ? raw : other).request(NOTED, id, saying(text));
  await arrived();
  assert.deepEqual(ran, ['0 a'], 'the first at once');
  clock.advance(9);
  assert.equal(ran.length, 1);
  clock.advance(1);
  assert.equal(ran.length, 2);
  clock.advance(1_000);
  assert.deepEqual(
    ran.map((line) => line.split(' ')[0]),
    ['0', '10', '20', '30', '40', '50'],
  );
  for (const stream of [raw, other]) {
    const said = ran.map((line) => line.at(-1)).filter((text) => 'ace'.includes(text ?? '') === (stream === raw));
    assert.deepEqual(said, [...(stream === raw ? 'ace' : 'bdf')], 'each stream in its order');
    for (let i = 0; i < 3; i += 1) assert.equal((await stream.response()).status, Status.OK_UNSPECIFIED);
  }
  assert.equal(clock.pending, 1, 'the deadlines’ timer, and none of the turns');
});

test('a call that needs not wait does not pass one that does', async () => {
  const waits = [0, 50, 0, 20];
  const { clock, raw, ran } = world({ pace: () => ({ kind: 'go', waitMs: waits.shift() ?? 0 }) });
  for (const [id, text] of [...'abcd'].entries()) raw.request(NOTED, id, saying(text));
  await arrived();
  clock.advance(49);
  assert.deepEqual(ran, ['0 a']);
  clock.advance(1);
  assert.deepEqual(ran, ['0 a', '50 b', '50 c', '50 d']);
});

test('one connection waits, another does not', async () => {
  const { raw, ran, connect } = world();
  for (let id = 0; id < 100; id += 1) raw.request(NOTED, id, saying('flood'));
  const calm = new RawStream(connect());
  calm.request(NOTED, 1, saying('calm'));
  assert.equal((await calm.response()).status, Status.OK_UNSPECIFIED);
  assert.deepEqual(ran, ['0 flood', '0 calm']);
});

test('Cancel while waiting: answered at once, never run, its bytes are free; its place when its turn would come', async () => {
  const { clock, server, raw, ran } = world({ limits: { callsMax: 2, requestBytesMax: 1_000 } });
  raw.request(NOTED, 0, saying('a'));
  raw.request(NOTED, 1, saying('b', 900));
  raw.header(CANCEL, 1, 0);
  assert.equal((await raw.response()).status, Status.OK_UNSPECIFIED);
  const cancelled = await raw.response();
  assert.deepEqual([cancelled.id, cancelled.status], [1, Status.CANCELLED]);
  assert.equal(server.inFlight, 1, 'it keeps its place');
  raw.request(NOTED, 2, saying('c', 900));
  raw.request(NOTED, 3, saying('d'));
  await arrived();
  assert.equal(server.inFlight, 2);
  clock.advance(1_000);
  const [third, fourth] = [await raw.response(), await raw.response()];
  assert.deepEqual([third.id, third.status], [2, Status.OK_UNSPECIFIED], 'there was room for its bytes');
  assert.deepEqual([fourth.id, fourth.status], [3, Status.EXHAUSTED], 'but not for another call');
  assert.deepEqual(
    ran.map((line) => line.slice(0, 4)),
    ['0 a', '20 c'],
  );
  assert.equal(server.inFlight, 0);
});

test('the deadline ends a call that waits', async () => {
  const { clock, server, raw, ran } = world({ everyMs: 40 });
  raw.request(NOTED, 1, saying('a'));
  raw.request(HASTY, 2, saying('b'));
  raw.request(NOTED, 3, saying('c'));
  await arrived();
  clock.advance(25);
  await raw.response();
  const late = await raw.response();
  assert.deepEqual([late.id, late.status], [2, Status.DEADLINE_EXCEEDED]);
  clock.advance(100);
  assert.deepEqual(ran, ['0 a', '80 c']);
  assert.equal(server.inFlight, 0);
});

for (const [how, end] of [
  ['closes', ({ connection }: World) => connection.close(CloseCode.none, '')],
  ['is lost', ({ connection }: World) => connection.lose()],
] as const) {
  test(`a connection that ${how} takes along what waits, and its timer`, async () => {
    const it = world();
    const { clock, server, raw, ran } = it;
    for (let id = 0; id < 20; id += 1) raw.request(NOTED, id, saying('a'));
    raw.header(CANCEL, 7, 0);
    raw.request(UNKNOWN, 100);
    await arrived();
    assert.equal(server.inFlight, 19);
    end(it);
    await it.ended;
    assert.equal(server.inFlight, 0);
    assert.equal(clock.pending, 0);
    clock.advance(10_000);
    assert.equal(ran.length, 1);
  });
}

test('a stream that is reset takes along its own; their places are free when their turns come', async () => {
  const { clock, server, connection, raw, ran } = world();
  const other = new RawStream(connection);
  for (let id = 0; id < 5; id += 1) raw.request(NOTED, id, saying('reset'));
  await arrived();
  other.request(NOTED, 1, saying('stays'));
  await arrived();
  raw.stream.reset(CloseCode.cancelled);
  await raw.over;
  clock.advance(1_000);
  assert.deepEqual(ran, ['0 reset', '50 stays']);
  assert.equal((await other.response()).status, Status.OK_UNSPECIFIED);
  assert.equal(server.inFlight, 0);
});

test('drain: what waits is still answered, in its turn; then the connection ends', async () => {
  const { clock, server, raw, ran, connection, ended } = world();
  for (const [id, text] of [...'abc'].entries()) raw.request(NOTED, id, saying(text));
  await arrived();
  const drained = server.drain(5_000);
  raw.request(NOTED, 3, saying('late'));
  await arrived();
  clock.advance(20);
  for (const [id, status] of [0, 0, 0, Status.UNAVAILABLE].entries()) {
    const answer = await raw.response();
    assert.deepEqual([answer.id, answer.status], [id, status]);
  }
  assert.deepEqual(ran, ['0 a', '10 b', '20 c']);
  connection.close(CloseCode.none, '');
  await drained;
  await ended;
  assert.equal(clock.pending, 0);
});

test('drain: what has not had its turn in time is cut', async () => {
  const { clock, server, raw, ran } = world({ everyMs: 1_000 });
  for (const [id, text] of [...'abc'].entries()) raw.request(NOTED, id, saying(text));
  await arrived();
  const drained = server.drain(1_500);
  clock.advance(1_500);
  await drained;
  clock.advance(10_000);
  assert.deepEqual(ran, ['0 a', '1000 b']);
  assert.equal(server.inFlight, 0);
});

test('a refusal has its turn too: of the pace, and of what is refused at its header', async () => {
  const error = new RpcError(Status.RATE_LIMITED, 'too many', { retryAfterMs: 70 });
  const paces: Pace[] = [
    { kind: 'go', waitMs: 0 },
    { kind: 'refuse', waitMs: 100, error },
  ];
  const { clock, raw, ran } = world({ pace: () => paces.shift() ?? { kind: 'go', waitMs: 0 } });
  raw.request(NOTED, 1, saying('a'));
  raw.request(NOTED, 2, saying('b'));
  raw.request(UNKNOWN, 3);
  raw.request(NOTED, 4, saying('c'));
  raw.stream.end();
  await arrived();
  assert.equal((await raw.response()).status, Status.OK_UNSPECIFIED);
  clock.advance(99);
  await arrived();
  assert.deepEqual(ran, ['0 a']);
  clock.advance(1);
  assert.equal((await raw.response()).status, Status.RATE_LIMITED);
  assert.equal((await raw.response()).status, Status.UNIMPLEMENTED);
  assert.equal((await raw.response()).status, Status.OK_UNSPECIFIED);
  assert.deepEqual(ran, ['0 a', '100 c']);
  assert.equal(await raw.over, 'finished', 'a half-closed stream ends after its last answer');
});

test('THREATS 24: refusals that wait are bounded, also while the connection’s own calls are answered', async () => {
  const { clock, raw, connection, ended } = world({ limits: { callsMax: 4 } });
  let id = 0;
  // Far fewer in a row than close a connection, and never without a call of it being served in between.
  while (connection.closed === undefined && id < 20_000) {
    for (let i = 0; i < 100; i += 1) raw.request(NOTED, id++, saying('a'));
    await arrived();
    clock.advance(10);
    await arrived();
  }
  const reason = await ended;
  assert.deepEqual([reason.kind, reason.code], ['local', CloseCode.limits]);
  assert.ok(id < 6_000, `after ${id}`);
  assert.equal(clock.pending, 0);
});

test('THREATS 27: the requests of calls that wait count towards the bounds of bytes', async () => {
  const { clock, raw } = world({ limits: { requestBytesMax: 1_000, totalRequestBytesMax: 1_500 } });
  raw.request(NOTED, 0, saying('a', 10));
  for (let id = 1; id <= 3; id += 1) raw.request(NOTED, id, saying('b', 400));
  await arrived();
  clock.advance(1_000);
  const statuses = [];
  for (let i = 0; i < 4; i += 1) statuses.push((await raw.response()).status);
  assert.deepEqual(statuses, [0, 0, 0, Status.EXHAUSTED]);
});
