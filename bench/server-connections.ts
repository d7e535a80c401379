// What connections cost the server and do to each other: small calls, idle ones, calls that wait, one that floods.
import { makeTestCertificate } from '../packages/transport/src/testing/certificate.node.ts';
import { type BenchOptions, type BenchResult, figure, median, quantile } from './result.ts';
import { ClientsProcess } from './server-clients.ts';
import { type Flood, LoadProcess } from './server-load.ts';
import { ServerProcess } from './server-process.ts';
import type { SeededServer } from './server.ts';
import { BARE_NONCE } from './transport-peer.ts';
import { bareRate, startPeer } from './transport.ts';

const SMALL_CALLS_IN_FLIGHT = 128;
/** Connected before memory is measured: what a server allocates once is not a connection's. */
const WARMING_CONNECTIONS = 64;
/** Made on each of them: until then V8's young generation grows with what is done, whoever does it. */
const WARMING_CALLS = 100;
/** While connections are idle: looking at the server's health collects its garbage. */
const COLLECTED_EVERY_MS = 10_000;
const WAITING_CALLS_EACH = 5;
const CALM_CLIENTS = 16;
const CALM_EVERY_MS = 40;
const FLOOD_IN_FLIGHT = 200;
/** The devices that flood, one after the other: their inboxes are empty so far. */
const FLOODING_AT = 100;
/** What one connection may hold (events 16 MiB, requests 8, answers 16), and as much garbage until it is collected. */
const FLOOD_BYTES_MAX = 80 * 1024 * 1024;

interface Scale {
  readonly rounds: number;
  readonly smallCallsMs: number;
  readonly idleConnections: number;
  readonly idleMs: number;
  readonly waitingConnections: number;
  readonly wakingMessages: number;
  readonly floodMs: number;
}

const FULL: Scale = {
  rounds: 5,
  smallCallsMs: 2000,
  idleConnections: 500,
  idleMs: 60_000,
  waitingConnections: 200,
  wakingMessages: 400,
  floodMs: 6000,
};
const QUICK: Scale = {
  rounds: 1,
  smallCallsMs: 300,
  idleConnections: 100,
  idleMs: 2000,
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

/**
 * Idle: for a minute nothing is asked on them, only keep-alives go. What handshakes took goes back to the system some ten
 * seconds after it was collected as garbage, and collecting happens here on demand only.
 */
async function* idleConnections(
  { folder, devices }: SeededServer,
  { idleConnections: count, idleMs }: Scale,
): AsyncGenerator<BenchResult> {
  const server = await ServerProcess.start(folder);
  const clients = new ClientsProcess();
  try {
    await clients.connect(server.address, devices.slice(0, WARMING_CONNECTIONS));
    for (let i = 0; i < WARMING_CALLS; i += 1) await clients.empty();
    const before = await server.health();
    const each = async (name: string): Promise<Pick<BenchResult, 'name' | 'value' | 'unit'>> => ({
      name,
      value: ((await server.health()).rssBytes - before.rssBytes) / count / 1000,
      unit: 'KB',
    });
    await clients.connect(server.address, devices.slice(WARMING_CONNECTIONS, WARMING_CONNECTIONS + count));
    yield figure(await each(`memory of a connection just made, ${count} of them`));
    for (let waitedMs = 0; waitedMs < idleMs; waitedMs += COLLECTED_EVERY_MS) {
      await new Promise((resolve) => setTimeout(resolve, Math.min(idleMs, COLLECTED_EVERY_MS)));
      await server.health();
    }
    yield figure({
      ...(await each(`after ${idleMs / 1000} s in which it was idle`)),
      target: { of: 'value', atMost: 80 },
    });
    // Fails if one of them has ended.
    await clients.empty();
    yield figure(await each('after a call on each of them'));
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

/**
 * Twice: a server as it is when nobody configures its limits, which is what the targets are for, and one that limits
 * nothing, which shows what sharing alone does.
 */
async function* flood(seeded: SeededServer, { floodMs }: Scale): AsyncGenerator<BenchResult> {
  const limited = await floodOne(seeded, floodMs, 'default', FLOODING_AT);
  yield figure({ name: 'messages of the client that floods', value: limited.perSecond, unit: 'enqueues/s' });
  yield figure({ ...limited.p99, target: { of: 'ratio', atMost: 2 } });
  yield figure({ ...limited.memory, target: { of: 'value', atMost: FLOOD_BYTES_MAX / 1e6 } });

  const unlimited = await floodOne(seeded, floodMs, 'none', FLOODING_AT + 1);
  const named = (name: string): string => `no limits: ${name}`;
  yield figure({ name: named('messages of the flood'), value: unlimited.perSecond, unit: 'enqueues/s' });
  yield figure({ name: named('of these stored'), value: unlimited.stored, unit: 'messages' });
  yield figure({ name: named('answered “full”'), value: unlimited.full, unit: 'messages' });
  yield figure({ ...unlimited.p99, name: named(unlimited.p99.name) });
  yield figure({ ...unlimited.memory, name: named(unlimited.memory.name) });
}

async function floodOne(
  { folder, devices }: SeededServer,
  floodMs: number,
  rates: 'default' | 'none',
  flooder: number,
): Promise<{
  readonly perSecond: number;
  readonly stored: number;
  readonly full: number;
  readonly p99: Pick<BenchResult, 'name' | 'value' | 'unit' | 'baseline'>;
  readonly memory: Pick<BenchResult, 'name' | 'value' | 'unit'>;
}> {
  const server = await ServerProcess.start(folder, rates);
  const calm = new LoadProcess();
  const flooding = new LoadProcess();
  const quiet: number[] = [];
  const flooded: number[] = [];
  const rss: number[] = [];
  const floods: Flood[] = [];
  try {
    await calm.connect(server.address, devices.slice(0, CALM_CLIENTS));
    await flooding.connect(server.address, devices.slice(flooder, flooder + 1));
    await calm.trickle(500, CALM_EVERY_MS, 1024);
    const { rssBytes: before } = await server.health();
    for (let round = 0; round < 2; round += 1) {
      quiet.push(...(await calm.trickle(floodMs / 2, CALM_EVERY_MS, 1024)));
      await flooding.flood(FLOOD_IN_FLIGHT, 1024);
      flooded.push(...(await calm.trickle(floodMs / 2, CALM_EVERY_MS, 1024)));
      rss.push((await server.health()).rssBytes - before);
      floods.push(await flooding.endFlood());
    }
  } finally {
    await Promise.all([calm.close(), flooding.close()]);
    await server.stop();
  }
  const sum = (of: (flood: Flood) => number): number => floods.reduce((total, each) => total + of(each), 0);
  return {
    perSecond: sum(({ stored, full, refused }) => stored + full + refused) / (floodMs / 1000),
    stored: sum(({ stored }) => stored),
    full: sum(({ full }) => full),
    p99: {
      name: `p99 of ${CALM_CLIENTS} others beside it`,
      value: quantile(flooded, 0.99),
      unit: 'ms',
      baseline: { name: 'without it', value: quantile(quiet, 0.99) },
    },
    memory: { name: 'memory added by the flood', value: Math.max(...rss) / 1e6, unit: 'MB' },
  };
}
