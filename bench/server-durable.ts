// Durable enqueues of the whole server, beside its own store without a network (packages/server/src/store/measure.node.ts),
// beside the bare engine without a store, and beside PostgreSQL with the same rows; and one message to a thousand devices.
import assert from 'node:assert/strict';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { makeTestCertificate } from '../packages/transport/src/testing/certificate.node.ts';
import { type StoreMeasurement, measureSqliteStore } from '../packages/server/src/store/measure.node.ts';
import { PostgresClientsProcess } from './postgres-clients.ts';
import { HOW_TO_INSTALL, Postgres } from './postgres.ts';
import { type BenchOptions, type BenchResult, figure, median, quantile } from './result.ts';
import { ClientsProcess } from './server-clients.ts';
import { LoadProcess } from './server-load.ts';
import { ServerProcess } from './server-process.ts';
import { withStore } from './server-seed.ts';
import { FAN_OUT_DEVICES, type SeededServer } from './server.ts';
import { startPeer } from './transport.ts';

const CLIENTS = 64;
const PAYLOAD_BYTES = 1024;

interface Scale {
  readonly rounds: number;
  readonly warmUpMs: number;
  readonly seconds: number;
  readonly fanOuts: number;
}

const FULL: Scale = { rounds: 5, warmUpMs: 3000, seconds: 4, fanOuts: 40 };
const QUICK: Scale = { rounds: 1, warmUpMs: 500, seconds: 1, fanOuts: 5 };

interface Samples {
  readonly alone: StoreMeasurement[];
  readonly engine: number[];
  readonly postgres: number[];
  readonly rates: number[];
  readonly latencies: number[];
  readonly loopDelays: number[];
  readonly idleLoopDelays: number[];
  readonly cpu: number[];
  readonly clientCpu: number[];
  readonly fanOuts: number[];
}

export async function* serverDurableBench(seeded: SeededServer, { quick }: BenchOptions): AsyncGenerator<BenchResult> {
  const samples = await measure(seeded, quick ? QUICK : FULL);
  const { alone, engine, postgres, rates, latencies, loopDelays, idleLoopDelays, cpu, clientCpu, fanOuts } = samples;
  const aloneMedian = (of: (measurement: StoreMeasurement) => number): number => median(alone.map(of));
  for (const [label, of] of [
    ['p50', (m: StoreMeasurement) => m.fdatasync.p50Ms],
    ['p99', (m: StoreMeasurement) => m.fdatasync.p99Ms],
  ] as const) {
    yield figure({ name: `fdatasync of 4 KiB on this disk, ${label}`, value: aloneMedian(of), unit: 'ms' });
  }
  const durable = { name: `durable enqueues of 1 KB, ${CLIENTS} clients`, value: median(rates), unit: 'enqueues/s' };
  yield figure({
    ...durable,
    baseline: { name: 'the store alone', value: aloneMedian((m) => m.enqueuesPerSecond) },
    target: { of: 'ratio', atLeast: 0.5 },
  });
  // One after the other, on cores that no one of them has for itself: what is left when the server's own work costs nothing.
  const enginePlusStore = rates.map((_, i) => 1 / (1 / (engine[i] ?? 0) + 1 / (alone[i]?.enqueuesPerSecond ?? 0)));
  yield figure({
    ...durable,
    baseline: {
      name: 'the bare engine with the same clients, and then the store alone',
      value: median(enginePlusStore),
    },
  });
  yield figure({
    name: 'the bare engine with the same clients, and then the store alone',
    value: median(enginePlusStore),
    unit: 'enqueues/s',
    baseline: { name: 'the store alone', value: aloneMedian((m) => m.enqueuesPerSecond) },
  });
  if (postgres.length > 0) {
    yield figure({
      ...durable,
      baseline: { name: 'PostgreSQL', value: median(postgres) },
      target: { of: 'ratio', atLeast: 0.7 },
    });
  } else {
    console.error(`Not compared with PostgreSQL: ${HOW_TO_INSTALL}.`);
  }
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
    baseline: { name: 'of an idle process beside it', value: median(idleLoopDelays) },
    target: { of: 'value', atMost: 5 },
  });
  yield figure({
    name: 'event-loop delay of the caller of the store alone, p99',
    value: aloneMedian((m) => m.loopDelay.p99Ms),
    unit: 'ms',
  });
  yield figure({
    name: 'one message to 1,000 devices, p50',
    value: quantile(fanOuts, 0.5),
    unit: 'ms',
    baseline: { name: 'the store alone', value: aloneMedian((m) => m.fanOut.p50Ms) },
    target: { of: 'value', atMost: 40 },
  });
}

async function measure(seeded: SeededServer, { rounds, warmUpMs, seconds, fanOuts }: Scale): Promise<Samples> {
  const { folder, storePath, devices, groupId } = seeded;
  const samples: Samples = {
    alone: [],
    engine: [],
    postgres: [],
    rates: [],
    latencies: [],
    loopDelays: [],
    idleLoopDelays: [],
    cpu: [],
    clientCpu: [],
    fanOuts: [],
  };
  const server = await ServerProcess.start(folder);
  const load = new LoadProcess();
  const certificate = makeTestCertificate();
  const engine = await startPeer('bare-enqueue', certificate);
  const engineLoad = new LoadProcess();
  const clients = new ClientsProcess();
  const postgres = await Postgres.start();
  const postgresClients = new PostgresClientsProcess();
  let acknowledged = 0;
  try {
    await load.connect(server.address, devices.slice(0, CLIENTS));
    // With the code compiled that a running server has compiled.
    acknowledged += (await load.enqueue(warmUpMs, PAYLOAD_BYTES)).enqueues;
    const address = { port: engine.port, caCert: certificate.certificate };
    await engineLoad.connectBare(address, devices.slice(0, CLIENTS));
    await engineLoad.enqueue(warmUpMs, PAYLOAD_BYTES);
    if (postgres !== undefined) {
      await postgresClients.connect(postgres.folder, CLIENTS);
      await postgresClients.enqueue(warmUpMs, PAYLOAD_BYTES);
    }
    // Turn and turn about, so that a change of the machine's mood hits all.
    for (let round = 0; round < rounds; round += 1) {
      samples.alone.push(
        await measureSqliteStore({
          writers: CLIENTS,
          payloadBytes: PAYLOAD_BYTES,
          seconds,
          fanOutDevices: FAN_OUT_DEVICES,
          fanOutMessages: fanOuts,
          folder,
        }),
      );
      const { cpuMs: cpuBefore } = await server.health();
      server.resetLoopDelay();
      const idle = monitorEventLoopDelay({ resolution: 1 });
      idle.enable();
      const { enqueues, elapsedMs, latenciesMs, cpuUs } = await load.enqueue(seconds * 1000, PAYLOAD_BYTES);
      idle.disable();
      const { loopDelay, cpuMs } = await server.health();
      acknowledged += enqueues;
      samples.cpu.push(((cpuMs - cpuBefore) / enqueues) * 1000);
      samples.clientCpu.push(cpuUs);
      samples.rates.push(enqueues / (elapsedMs / 1000));
      samples.latencies.push(...latenciesMs);
      samples.loopDelays.push(loopDelay.p99Ms);
      // The histogram counts its own timer's millisecond as delay.
      samples.idleLoopDelays.push(idle.percentile(99) / 1e6 - 1);
      const bare = await engineLoad.enqueue(seconds * 1000, PAYLOAD_BYTES);
      samples.engine.push(bare.enqueues / (bare.elapsedMs / 1000));
      if (postgres !== undefined) {
        samples.postgres.push(await postgresClients.enqueue(seconds * 1000, PAYLOAD_BYTES));
      }
    }
    await Promise.all([load.close(), engineLoad.close()]);
    await clients.connect(server.address, devices.slice(0, 1));
    await clients.fanOut(groupId, FAN_OUT_DEVICES, 2);
    samples.fanOuts.push(...(await clients.fanOut(groupId, FAN_OUT_DEVICES, fanOuts)));
  } finally {
    await Promise.all([load.close(), engineLoad.close(), clients.close(), postgresClients.close()]);
    engine.process.kill();
    await Promise.all([server.stop(), postgres?.stop()]);
  }
  const { queuedEnvelopes } = await withStore(storePath, (store) => store.status());
  assert.equal(queuedEnvelopes, acknowledged + (2 + fanOuts) * FAN_OUT_DEVICES, 'acknowledged but not stored');
  return samples;
}
