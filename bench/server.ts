// The server process under load, beside its own store without a network (packages/server/src/store/measure.node.ts), in
// one run on one disk: server, clients and this process are three processes. What is answered is on disk, so the disk's
// own fdatasync comes first.
import assert from 'node:assert/strict';
import path from 'node:path';
import { type StoreMeasurement, measureSqliteStore } from '../packages/server/src/store/measure.node.ts';
import { type BenchOptions, type BenchResult, figure, median, quantile } from './result.ts';
import { ClientsProcess } from './server-clients.ts';
import { LoadProcess } from './server-load.ts';
import { ServerProcess } from './server-process.ts';
import { type SeededDevice, seedDevices, seedGroup, withStore } from './server-seed.ts';
import { temporaryFolder } from './temporary-folder.ts';

const CLIENTS = 64;
const PAYLOAD_BYTES = 1024;
const FAN_OUT_DEVICES = 1000;
/** Connected before memory is measured: what a server allocates once is not a connection's. */
const WARMING_CONNECTIONS = 64;

interface Scale {
  readonly rounds: number;
  readonly seconds: number;
  readonly fanOuts: number;
  readonly idleConnections: number;
}

const FULL: Scale = { rounds: 3, seconds: 5, fanOuts: 40, idleConnections: 500 };
const QUICK: Scale = { rounds: 1, seconds: 1, fanOuts: 5, idleConnections: 100 };

export async function* serverBench({ quick }: BenchOptions): AsyncGenerator<BenchResult> {
  const scale = quick ? QUICK : FULL;
  const { path: folder, remove } = temporaryFolder();
  try {
    const seeded = await seed(folder);
    yield* enqueues(folder, seeded, scale);
    yield* idleConnections(folder, seeded.devices, scale);
  } finally {
    remove();
  }
}

interface Seeded {
  readonly devices: readonly SeededDevice[];
  readonly groupId: Uint8Array;
}

const storePath = (folder: string): string => path.join(folder, 'qpc.db');

async function seed(folder: string): Promise<Seeded> {
  // The first start makes secrets and certificate.
  await (await ServerProcess.start(folder)).stop();
  return withStore(storePath(folder), async (store) => {
    const devices = await seedDevices(store, 'bench', FAN_OUT_DEVICES);
    return { devices, groupId: await seedGroup(store, devices) };
  });
}

async function* enqueues(folder: string, { devices, groupId }: Seeded, scale: Scale): AsyncGenerator<BenchResult> {
  const server = await ServerProcess.start(folder);
  const clients = new ClientsProcess();
  const load = new LoadProcess();
  const alone: StoreMeasurement[] = [];
  const rates: number[] = [];
  const latencies: number[] = [];
  const loopDelays: number[] = [];
  const cpu: number[] = [];
  const clientCpu: number[] = [];
  let acknowledged = 0;
  let fanOuts: readonly number[] = [];
  try {
    await load.connect(server.address, devices.slice(0, CLIENTS));
    acknowledged += (await load.enqueue(500, PAYLOAD_BYTES)).enqueues;
    for (let round = 0; round < scale.rounds; round += 1) {
      alone.push(
        await measureSqliteStore({
          writers: CLIENTS,
          payloadBytes: PAYLOAD_BYTES,
          seconds: scale.seconds,
          fanOutDevices: FAN_OUT_DEVICES,
          fanOutMessages: scale.fanOuts,
          folder,
        }),
      );
      const { cpuMs: cpuBefore } = await server.health();
      server.resetLoopDelay();
      const { enqueues, elapsedMs, latenciesMs, cpuUs } = await load.enqueue(scale.seconds * 1000, PAYLOAD_BYTES);
      const { loopDelay, cpuMs } = await server.health();
      acknowledged += enqueues;
      cpu.push(((cpuMs - cpuBefore) / enqueues) * 1000);
      clientCpu.push(cpuUs);
      rates.push(enqueues / (elapsedMs / 1000));
      latencies.push(...latenciesMs);
      loopDelays.push(loopDelay.p99Ms);
    }
    await load.close();
    await clients.connect(server.address, devices.slice(0, 1));
    await clients.fanOut(groupId, FAN_OUT_DEVICES, 2);
    fanOuts = await clients.fanOut(groupId, FAN_OUT_DEVICES, scale.fanOuts);
  } finally {
    await load.close();
    await clients.close();
    await server.stop();
  }
  const { queuedEnvelopes } = await withStore(storePath(folder), (store) => store.status());
  assert.equal(queuedEnvelopes, acknowledged + (2 + scale.fanOuts) * FAN_OUT_DEVICES, 'acknowledged but not stored');

  const aloneMedian = (of: (measurement: StoreMeasurement) => number): number => median(alone.map(of));
  for (const [label, of] of [
    ['p50', (m: StoreMeasurement) => m.fdatasync.p50Ms],
    ['p99', (m: StoreMeasurement) => m.fdatasync.p99Ms],
  ] as const) {
    yield figure({ name: `fdatasync of 4 KiB on this disk, ${label}`, value: aloneMedian(of), unit: 'ms' });
  }
  yield figure({
    name: `durable enqueues of 1 KB, ${CLIENTS} clients`,
    value: median(rates),
    unit: 'enqueues/s',
    baseline: { name: 'the store alone', value: aloneMedian((m) => m.enqueuesPerSecond) },
    target: { of: 'ratio', atLeast: 0.5 },
  });
  for (const [label, q, of] of [
    ['p50', 0.5, (m: StoreMeasurement) => m.enqueue.p50Ms],
    ['p99', 0.99, (m: StoreMeasurement) => m.enqueue.p99Ms],
  ] as const) {
    yield figure({
      name: `enqueue under that load, ${label}`,
      value: quantile(latencies, q),
      unit: 'ms',
      baseline: { name: 'the store alone', value: aloneMedian(of) },
    });
  }
  yield figure({ name: 'CPU of the server for one of them', value: median(cpu), unit: 'µs' });
  yield figure({ name: 'CPU of the clients for one of them', value: median(clientCpu), unit: 'µs' });
  yield figure({
    name: 'event-loop delay under that load, p99',
    value: median(loopDelays),
    unit: 'ms',
    baseline: { name: 'of the caller of the store alone', value: aloneMedian((m) => m.loopDelay.p99Ms) },
    target: { of: 'value', atMost: 5 },
  });
  yield figure({
    name: 'one message to 1,000 devices, p50',
    value: quantile(fanOuts, 0.5),
    unit: 'ms',
    baseline: { name: 'the store alone', value: aloneMedian((m) => m.fanOut.p50Ms) },
    target: { of: 'value', atMost: 40 },
  });
}

async function* idleConnections(
  folder: string,
  devices: readonly SeededDevice[],
  { idleConnections: count }: Scale,
): AsyncGenerator<BenchResult> {
  const server = await ServerProcess.start(folder);
  const clients = new ClientsProcess();
  try {
    await clients.connect(server.address, devices.slice(0, WARMING_CONNECTIONS));
    const before = await server.health();
    await clients.connect(server.address, devices.slice(WARMING_CONNECTIONS, WARMING_CONNECTIONS + count));
    const after = await server.health();
    yield figure({
      name: `memory of an idle connection, ${count} of them`,
      value: (after.rssBytes - before.rssBytes) / count / 1000,
      unit: 'KB',
      target: { of: 'value', atMost: 80 },
    });
  } finally {
    await clients.close();
    await server.stop();
  }
}
