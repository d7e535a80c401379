// What becomes of errors: a handler that fails takes neither the connection nor the server down, and tells no details.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Status, StoreState } from '@quicprochat/proto';
import { memoryPair, methods, RpcClient, RpcError, RpcServer, systemClock } from '@quicprochat/transport';
import { newConnectionState } from './context.ts';
import type { ConnectionState, ServerContext } from './context.ts';
import { authorize, handler } from './handler.ts';
import { StoreError } from './store/store.ts';
import { envelope, messageId, TestLog, World } from './testing/world.node.ts';

async function refusal(promise: Promise<unknown>): Promise<RpcError> {
  const error = await promise.then(
    () => assert.fail('was not refused'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof RpcError, String(error));
  return error;
}

/** A server of one method, Health, whose handler does what the test wants. */
function serverOf(run: () => Promise<never> | never) {
  const log = new TestLog();
  // The wrapper around handlers uses these two and nothing else of the server.
  const context: Pick<ServerContext, 'callId' | 'log'> = { callId: (sequence) => `c0ffee00-${sequence}`, log };
  const rpc = new RpcServer<ConnectionState>({
    routes: [handler(methods.p2p.health, run)(context as ServerContext)],
    newState: (connection) => newConnectionState(systemClock, connection),
    authorize,
  });
  const { client, server } = memoryPair();
  rpc.accept(server);
  return { log, client: new RpcClient(client) };
}

test('a fault is internal, with a reference that leads to the log and no detail in the answer', async () => {
  for (const run of [
    () => {
      throw new Error('detail of user 42');
    },
    () => Promise.reject(new TypeError('detail of user 42')),
  ]) {
    const { client, log } = serverOf(run);
    for (let i = 0; i < 3; i++) {
      const error = await refusal(client.call(methods.p2p.health, {}));
      assert.equal(error.status, Status.INTERNAL);
      assert.doesNotMatch(error.message, /detail/);
      const reference = /reference ([0-9a-f]{8}-\d+)$/.exec(error.message)?.[1];
      assert.ok(reference !== undefined && log.lines.at(-1)?.includes(reference));
    }
    assert.equal(client.closed, undefined);
    client.close();
  }
});

test('what the store cannot do now is unavailable, with when to come back; its contract broken is our fault', async () => {
  const cases = [
    ['unavailable', Status.UNAVAILABLE, /overloaded/],
    ['disk_full', Status.UNAVAILABLE, /disk of the server is full/],
    ['io', Status.UNAVAILABLE, /cannot read or write/],
    ['misuse', Status.INTERNAL, /reference/],
    ['internal', Status.INTERNAL, /reference/],
  ] as const;
  for (const [kind, status, words] of cases) {
    const { client } = serverOf(() => Promise.reject(new StoreError(kind, 'in words of the store')));
    const error = await refusal(client.call(methods.p2p.health, {}));
    assert.equal(error.status, status, kind);
    assert.match(error.message, words);
    assert.equal(error.retryAfterMs > 0, status === Status.UNAVAILABLE);
    client.close();
  }
});

test('a server whose store is gone still answers, and Health says so', async () => {
  const world = await World.start();
  const alice = await world.register('alice');
  const connection = await world.login(alice);
  const subscriber = await world.subscribe(alice);
  await world.store.close();
  const { identityKey, deviceId } = alice.address;
  const request = { recipientKey: identityKey, deviceId, payload: envelope(1), messageId: messageId() };
  const error = await refusal(connection.call(methods.delivery.enqueue, request));
  assert.equal(error.status, Status.UNAVAILABLE);
  assert.equal((await connection.call(methods.p2p.health, {})).store, StoreState.FAILED);
  assert.equal(subscriber.rpc.closed, undefined);
  await world.close();
});
