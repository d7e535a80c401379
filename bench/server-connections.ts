// What connections cost the server and do to each other: small calls, idle ones, calls that wait, one that floods.
import { makeTestCertificate } from '../packages/transport/src/testing/certificate.node.ts';
import { type BenchOptions, type BenchResult, figure, median, quantile } from './result.ts';
import { ClientsProcess } from './server-clients.ts';
import { LoadProcess } from './server-load.ts';
import { ServerProcess } from './server-process.ts';
import type { SeededServer } from './server.ts';
import { BARE_NONCE } from './transport-peer.ts';
import { bareRate, startPeer } from './transport.ts';

const SMALL_CALLS_IN_FLIGHT = 128;
/** Connected before memory is measured: what a server allocates once is not a connection's. */
const WARMING_CONNECTIONS = 64;
const WAITING_CALLS_EACH = 5;
const CALM_CLIENTS = 16;
const CALM_EVERY_MS = 40;
const FLOOD_IN_FLIGHT = 200;
/** What one connection may hold (events 16 MiB, requests 8, answers 16), and as much garbage until it is collected. */
const FLOOD_BYTES_MAX = 80 * 1024 * 1024;

interface Scale {
  readonly rounds: number;
  readonly smallCallsMs: number;
  readonly idleConnections: number;
  readonly waitingConnections: number;
  readonly wakingMessages: number;
  readonly floodMs: number;
}

const FULL: Scale = {
  rounds: 5,
  smallCallsMs: 2000,
  idleConnections: 500,
  waitingConnections: 200,
  wakingMessages: 400,
  floodMs: 6000,
};
const QUICK: Scale = {
  rounds: 1,
  smallCallsMs: 300,
  idleConnections: 100,
  waitingConnections: 20,
  wakingMessages: 40,
  floodMs: 1500,
};

export async function* serverConnectionsBench(
  seeded: SeededServer,
  { quick }: BenchOptions,
): AsyncGenerator<BenchResult> {
  const scale = quick ? QUICK : FULL;
  yield* smallCalls(seeded, scale);
  yield* idleConnections(seeded, scale);
  yield* wakeUps(seeded, scale);
  yield* flood(seeded, scale);
}

/** The baseline answers the same messages in the same frames, and does nothing else; the same client asks both. */
async function* smallCalls({ folder }: SeededServer, { rounds, smallCallsMs }: Scale): AsyncGenerator<BenchResult> {
  const certificate = makeTestCertificate();
  const bare = await startPeer('bare-nonce', certificate);
  const server = await ServerProcess.start(folder);
  const rates = { ours: [] as number[], bare: [] as number[] };
  try {
    const { port, caCert } = server.address;
    for (let round = 0; round < rounds; round += 1) {
      rates.bare.push(
        await bareRate(bare.port, certificate.certificate, SMALL_CALLS_IN_FLIGHT, smallCallsMs, BARE_NONCE),
      );
      rates.ours.push(await bareRate(port, caCert, SMALL_CALLS_IN_FLIGHT, smallCallsMs, BARE_NONCE));
    }
  } finally {
    bare.process.kill();
    await server.stop();
  }
  yield figure({
    name: `small calls, ${SMALL_CALLS_IN_FLIGHT} in flight`,
    value: median(rates.ours),
    unit: 'calls/s',
    baseline: { name: 'bare QUIC engine', value: median(rates.bare) },
    target: { of: 'ratio', atLeast: 0.7 },
  });
}

async function* idleConnections(
  { folder, devices }: SeededServer,
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

/** From sending a message to the answer of a call that waited for it, which includes its way to the disk. */
async function* wakeUps(
  { folder, devices }: SeededServer,
  { waitingConnections, wakingMessages }: Scale,
): AsyncGenerator<BenchResult> {
  const server = await ServerProcess.start(folder);
  const clients = new ClientsProcess();
  try {
    const waiting = devices.slice(devices.length - waitingConnections - 1);
    await clients.connect(server.address, waiting);
    await clients.empty();
    const { wokenMs, sentMs } = await clients.wakeUps(WAITING_CALLS_EACH, wakingMessages);
    const calls = `${waitingConnections * WAITING_CALLS_EACH} calls waiting`;
    for (const [label, q] of [
      ['p50', 0.5],
      ['p99', 0.99],
    ] as const) {
      yield figure({
        name: `woken from FetchWait, ${label}, ${calls}`,
        value: quantile(wokenMs, q),
        unit: 'ms',
        baseline: { name: 'the sending alone', value: quantile(sentMs, q) },
        ...(label === 'p99' ? { target: { of: 'value', atMost: 10 } as const } : {}),
      });
    }
  } finally {
    await clients.close();
    await server.stop();
  }
}

async function* flood({ folder, devices }: SeededServer, { floodMs }: Scale): AsyncGenerator<BenchResult> {
  const server = await ServerProcess.start(folder);
  const calm = new LoadProcess();
  const flooding = new LoadProcess();
  const quiet: number[] = [];
  const flooded: number[] = [];
  const rss: number[] = [];
  let answered = 0;
  try {
    await calm.connect(server.address, devices.slice(0, CALM_CLIENTS));
    await flooding.connect(server.address, devices.slice(CALM_CLIENTS, CALM_CLIENTS + 1));
    await calm.trickle(500, CALM_EVERY_MS, 1024);
    const { rssBytes: before } = await server.health();
    const ask = async (): Promise<void> => {
      rss.push((await server.health()).rssBytes - before);
    };
    for (let round = 0; round < 2; round += 1) {
      quiet.push(...(await calm.trickle(floodMs / 2, CALM_EVERY_MS, 1024)));
      await flooding.flood(FLOOD_IN_FLIGHT, 1024);
      flooded.push(...(await calm.trickle(floodMs / 2, CALM_EVERY_MS, 1024)));
      await ask();
      answered += await flooding.endFlood();
    }
  } finally {
    await Promise.all([calm.close(), flooding.close()]);
    await server.stop();
  }
  yield figure({ name: 'messages of the client that floods', value: answered / (floodMs / 1000), unit: 'enqueues/s' });
  yield figure({
    name: `p99 of ${CALM_CLIENTS} others beside it`,
    value: quantile(flooded, 0.99),
    unit: 'ms',
    baseline: { name: 'without it', value: quantile(quiet, 0.99) },
    target: { of: 'ratio', atMost: 2 },
  });
  yield figure({
    name: 'memory added by the flood',
    value: Math.max(...rss) / 1e6,
    unit: 'MB',
    target: { of: 'value', atMost: FLOOD_BYTES_MAX / 1e6 },
  });
}
