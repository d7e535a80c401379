// A connection that has died without a word: noticed by its silence, and made again.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConnectError, memoryPair, methods, route, RpcServer } from '@quicprochat/transport';
import { ManualClock } from '../../transport/src/testing/manual-clock.ts';
import { ServerConnection } from './server-connection.ts';
import type { ConnectionState } from './types.ts';

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A server whose connections can fall silent, all that exist at that moment or only until they are woken. */
function world(): {
  connection: ServerConnection;
  clock: ManualClock;
  states: ConnectionState[];
  silence: () => void;
  wake: () => void;
  dials: () => number;
  refuse: (refused: boolean) => void;
} {
  const clock = new ManualClock();
  const states: ConnectionState[] = [];
  const ends: ReturnType<typeof memoryPair>['server'][] = [];
  let dials = 0;
  let refused = false;
  const server = new RpcServer<undefined>({
    routes: [route(methods.p2p.health, () => ({ version: 'test' }))],
    newState: () => undefined,
    authorize: () => {},
    clock,
  });
  const dialer = {
    server: 'memory',
    dial: async () => {
      dials += 1;
      if (refused) throw new ConnectError('refused', 'nothing listens');
      const pair = memoryPair();
      ends.push(pair.server);
      server.accept(pair.server);
      return pair.client;
    },
  };
  const connection = new ServerConnection(dialer, clock, () => 0, {
    greet: async () => {},
    online: () => {},
    push: () => {},
    state: (state) => states.push(state),
  });
  return {
    connection,
    clock,
    states,
    silence: () => ends.forEach((end) => end.pauseReading()),
    wake: () => ends.forEach((end) => end.resumeReading()),
    dials: () => dials,
    refuse: (yes) => (refused = yes),
  };
}

async function advance(clock: ManualClock, ms: number): Promise<void> {
  for (let passed = 0; passed < ms; passed += 100) {
    clock.advance(100);
    for (let i = 0; i < 8; i += 1) await turn();
  }
}

test('a call on a connection that died fails within seconds, and the next connection serves', async () => {
  const { connection, clock, states, silence } = world();
  await connection.connect();
  await connection.call(methods.p2p.health, {});
  silence();
  const call = connection.call(methods.p2p.health, {});
  const failed = assert.rejects(
    call,
    (error) => error instanceof Error && 'code' in error && error.code === 'connection-lost',
  );
  await advance(clock, 2_000);
  await failed;
  assert.equal(connection.state, 'online');
  assert.deepEqual(
    states.filter((state, i) => state !== states[i - 1]),
    ['connecting', 'online', 'offline', 'connecting', 'online'],
  );
  assert.equal((await connection.call(methods.p2p.health, {})).version, 'test');
  connection.close();
});

test('a port where nobody listens any more is noticed as well', async () => {
  const { connection, clock, silence, refuse } = world();
  await connection.connect();
  silence();
  refuse(true);
  const failed = assert.rejects(connection.call(methods.p2p.health, {}));
  await advance(clock, 1_500);
  await failed;
  assert.notEqual(connection.state, 'online');
  refuse(false);
  await advance(clock, 3_000);
  assert.equal(connection.state, 'online');
  connection.close();
});

test('a server that is slow with everything keeps its connections', async () => {
  const { connection, clock, silence, wake, dials } = world();
  await connection.connect();
  silence();
  const call = connection.call(methods.p2p.health, {});
  // The second connection is made while the server is busy, and falls silent like the first.
  clock.advance(1_000);
  silence();
  for (let i = 0; i < 20; i += 1) {
    await turn();
    silence();
  }
  assert.equal(dials(), 2);
  wake();
  assert.equal((await call).version, 'test');
  await advance(clock, 500);
  assert.equal(connection.state, 'online');
  assert.equal(dials(), 2);
  connection.close();
});

test('nothing is asked while nothing is waited for', async () => {
  const { connection, clock, silence, dials } = world();
  await connection.connect();
  await connection.call(methods.p2p.health, {});
  silence();
  await advance(clock, 5_000);
  assert.equal(dials(), 1);
  connection.close();
});
