// The bounds of one connection (DESIGN section 3) at the product's own server, spoken to by somebody who keeps to none.
// What each bound means in every detail is in the transport's contract suite.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';
import { create, toBinary } from '@bufbuild/protobuf';
import { FetchWaitRequestSchema, Status } from '@quicprochat/proto';
import { encodeRequestHeader, methods, RpcClient } from '@quicprochat/transport';
import type { Connection, StreamHandler, TransportStream } from '@quicprochat/transport';
import { connectQuic } from '@quicprochat/transport/quic';
import { resolveConfig } from './config.ts';
import { startServer } from './server.node.ts';
import { TestLog, World } from './testing/world.node.ts';

const MIB = 1024 * 1024;
const RESPONSE_HEADER_BYTES = 9;

/** A stream that says whatever it is told to, and hears the statuses of the answers. */
class Rude implements StreamHandler {
  readonly statuses: number[] = [];
  readonly stream: TransportStream;
  over = false;
  #buffered = Buffer.alloc(0);
  #changed: (() => void)[] = [];

  constructor(connection: Pick<Connection, 'openStream'>) {
    const stream = connection.openStream(this);
    assert.ok(stream !== undefined);
    this.stream = stream;
  }

  header(method: { readonly id: number }, requestId: number, bytes: number): void {
    this.stream.write(encodeRequestHeader(new Uint8Array(10), method.id, requestId, bytes));
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#changed.push(resolve));
  }

  onData(bytes: Uint8Array): void {
    this.#buffered = Buffer.concat([this.#buffered, bytes]);
    while (this.#buffered.length >= RESPONSE_HEADER_BYTES) {
      const whole = RESPONSE_HEADER_BYTES + this.#buffered.readUInt32BE(5);
      if (this.#buffered.length < whole) break;
      this.statuses.push(this.#buffered.readUInt8(0));
      this.#buffered = this.#buffered.subarray(whole);
    }
    this.#wake();
  }

  onEnd(): void {}
  onDrain(): void {}
  onClose(): void {
    this.over = true;
    this.#wake();
  }

  #wake(): void {
    for (const resolve of this.#changed.splice(0)) resolve();
  }
}

test('THREATS 24, 27: 256 calls in flight; the next are refused, others are served, and when one ends there is room', async () => {
  const world = await World.start();
  try {
    const alice = await world.register('alice');
    const [a, b] = [await world.login(alice), await world.login(await world.register('bob'))];
    const { identityKey: recipientKey, deviceId } = alice.address;
    const own = { recipientKey, deviceId };
    const waiting = create(FetchWaitRequestSchema, { ...own, timeoutMs: 60_000 });
    const request = toBinary(FetchWaitRequestSchema, waiting);
    const rude = new Rude(a.wire);
    for (let id = 1; id <= 300; id++) {
      rude.header(methods.delivery.fetchWait, id, request.length);
      rude.stream.write(request);
    }
    await rude.until(() => rude.statuses.length === 44);
    assert.deepEqual(new Set(rude.statuses), new Set([Status.EXHAUSTED]));
    assert.equal(world.server.inFlight, 256);
    await b.call(methods.device.listDevices, {});
    rude.stream.reset(0);
    while (world.server.inFlight > 0) await new Promise((resolve) => setImmediate(resolve));
    await a.call(methods.delivery.peek, own);
  } finally {
    await world.close();
  }
});

describe('over QUIC, without a session', { timeout: 60_000 }, () => {
  test('THREATS 24, 27: requests, streams and lengths beyond the bounds; the server goes on and keeps nothing', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'qpc-limits-test-'));
    const flags = { dataDir: folder, listen: '127.0.0.1:0', metricsListen: 'off', shutdownGraceSecs: 1 };
    const outcome = resolveConfig({ flags });
    assert.ok(outcome.kind === 'config');
    const server = await startServer(outcome.config, { log: new TestLog() });
    try {
      const { host, port } = server;
      const trustAnchor = readFileSync(server.certificatePath);
      const connect = async () => {
        const connection = await connectQuic({ host, port, trustAnchor });
        return { connection, rpc: new RpcClient(connection) };
      };
      const honest = await connect();
      const { connection, rpc } = await connect();

      // A length above 4 MiB ends its stream; one above the method's own bound is an answer.
      const lying = new Rude(connection);
      lying.header(methods.p2p.health, 1, 2 ** 31);
      await lying.until(() => lying.over);
      const large = new Rude(connection);
      large.header(methods.auth.opaqueLoginStart, 1, methods.auth.opaqueLoginStart.requestMax + 1);
      await large.until(() => large.statuses.length === 1);
      assert.equal(large.statuses[0], Status.TOO_LARGE);
      assert.equal((await rpc.call(methods.p2p.health, {})).origin, server.origin);

      // Announced and never sent: 8 MiB, then no more, for this connection alone.
      const { batchEnqueue } = methods.delivery;
      const announced = Math.min(4 * MIB, batchEnqueue.requestMax);
      const rude: Rude[] = [];
      while (rude.every(({ statuses }) => statuses.length === 0) && rude.length < 20) {
        const next = new Rude(connection);
        rude.push(next);
        next.header(batchEnqueue, 1, announced);
        // Another stream's answer comes after this one's header was read.
        await rpc.call(methods.p2p.health, {});
        await honest.rpc.call(methods.p2p.health, {});
      }
      assert.ok(rude.length <= (8 * MIB) / announced + 2, `${rude.length} of ${announced} bytes`);
      assert.ok(rude.flatMap(({ statuses }) => statuses).every((status) => status === Status.EXHAUSTED));
      for (const { stream } of rude) stream.reset(0);

      // Streams: 64, then refusals, then the end of this connection.
      const { connection: many } = await connect();
      while (many.closed === undefined) {
        const none = { onData: () => {}, onEnd: () => {}, onDrain: () => {}, onClose: () => {} };
        many.openStream(none)?.write(new Uint8Array(1));
        await new Promise((resolve) => setImmediate(resolve));
      }
      assert.equal((await honest.rpc.call(methods.p2p.health, {})).origin, server.origin);
      for (const each of [honest.rpc, rpc]) each.close();
    } finally {
      await server.close();
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
