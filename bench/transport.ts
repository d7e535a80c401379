// How much of the QUIC engine's speed is left after our framing, calls, limits and deadlines. The server
// runs in a process of its own; the baseline is the bare engine with the same frames and the same
// messages, and nothing else: no deadlines, no limits, no errors, no back-pressure.
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { RpcClient, methods } from '@quicprochat/transport';
import { connectQuic } from '@quicprochat/transport/quic';
import { type TestCertificate, makeTestCertificate } from '../packages/transport/src/testing/certificate.node.ts';
import { type BenchOptions, type BenchResult, figure, median, quantile } from './result.ts';
import { ACK_REQUEST, BULK_METHOD, type BareCall, BareClient, type ServerKind } from './transport-peer.ts';

const IN_FLIGHT = 128;

export async function* transportBench({ quick }: BenchOptions): AsyncGenerator<BenchResult> {
  const rounds = quick ? 1 : 5;
  const ms = quick ? 300 : 2000;
  const certificate = makeTestCertificate();
  const ours = await startPeer('rpc', certificate);
  const bare = await startPeer('bare', certificate);
  try {
    const rates = { ours: [] as number[], bare: [] as number[] };
    const latencies = { ours: [] as number[], bare: [] as number[] };
    // Turn and turn about, so that a change of the machine's mood hits both.
    for (let round = 0; round < rounds; round += 1) {
      rates.bare.push(await bareRate(bare.port, certificate.certificate, IN_FLIGHT, ms));
      rates.ours.push(await ourRate(ours.port, certificate, IN_FLIGHT, ms));
      latencies.bare.push(...(await bareLatencies(bare.port, certificate, ms / 4)));
      latencies.ours.push(...(await ourLatencies(ours.port, certificate, ms / 4)));
    }
    yield figure({
      name: `small calls, ${IN_FLIGHT} in flight`,
      value: median(rates.ours),
      unit: 'calls/s',
      baseline: { name: 'bare QUIC engine', value: median(rates.bare) },
      target: { of: 'ratio', atLeast: 0.7 },
    });
    for (const [label, q] of [
      ['p50', 0.5],
      ['p99', 0.99],
    ] as const) {
      yield figure({
        name: `one call at a time, ${label}`,
        value: quantile(latencies.ours, q),
        unit: 'ms',
        baseline: { name: 'bare QUIC engine', value: quantile(latencies.bare, q) },
      });
    }
    yield figure({
      name: 'requests of 1 MiB, 4 in flight',
      value: await bulkRate(ours.port, certificate, ms),
      unit: 'MB/s',
    });
  } finally {
    ours.process.kill();
    bare.process.kill();
  }
}

/** The other side, as a process of its own. */
export async function startPeer(
  kind: ServerKind,
  certificate: TestCertificate,
): Promise<{ process: ChildProcess; port: number }> {
  const child = fork(fileURLToPath(new URL('transport-peer.ts', import.meta.url)), [kind], {
    serialization: 'advanced',
  });
  child.send(certificate);
  const [port] = (await once(child, 'message')) as [number];
  return { process: child, port };
}

async function ourClient(port: number, { certificate }: TestCertificate): Promise<RpcClient> {
  return new RpcClient(await connectQuic({ host: '127.0.0.1', port, trustAnchor: certificate }));
}

async function ourRate(port: number, certificate: TestCertificate, inFlight: number, ms: number): Promise<number> {
  const client = await ourClient(port, certificate);
  const measure = async (forMs: number): Promise<number> => {
    let calls = 0;
    const start = performance.now();
    const until = start + forMs;
    const loop = async (): Promise<void> => {
      while (performance.now() < until) {
        await client.call(methods.delivery.ack, ACK_REQUEST);
        calls += 1;
      }
    };
    await Promise.all(Array.from({ length: inFlight }, loop));
    return calls / ((performance.now() - start) / 1000);
  };
  await measure(ms / 4);
  const rate = await measure(ms);
  client.close();
  return rate;
}

async function ourLatencies(port: number, certificate: TestCertificate, ms: number): Promise<number[]> {
  const client = await ourClient(port, certificate);
  const samples: number[] = [];
  for (const until = performance.now() + ms; performance.now() < until;) {
    const start = performance.now();
    await client.call(methods.delivery.ack, ACK_REQUEST);
    samples.push(performance.now() - start);
  }
  client.close();
  return samples.slice(samples.length / 4);
}

async function bulkRate(port: number, certificate: TestCertificate, ms: number): Promise<number> {
  const client = await ourClient(port, certificate);
  const value = new Uint8Array(1024 * 1024);
  let bytes = 0;
  const start = performance.now();
  const loop = async (): Promise<void> => {
    while (performance.now() < start + ms) {
      await client.call(BULK_METHOD, { value });
      bytes += value.length;
    }
  };
  await Promise.all([1, 2, 3, 4].map(loop));
  const rate = bytes / 1e6 / ((performance.now() - start) / 1000);
  client.close();
  return rate;
}

export async function bareRate(
  port: number,
  certificate: Uint8Array,
  inFlight: number,
  ms: number,
  call?: BareCall,
): Promise<number> {
  const client = await BareClient.connect(port, certificate, call);
  const measure = async (forMs: number): Promise<number> => {
    let calls = 0;
    const start = performance.now();
    const until = start + forMs;
    await client.run(inFlight, () => {
      calls += 1;
      return performance.now() < until;
    });
    return calls / ((performance.now() - start) / 1000);
  };
  await measure(ms / 4);
  const rate = await measure(ms);
  await client.close();
  return rate;
}

async function bareLatencies(port: number, certificate: TestCertificate, ms: number): Promise<number[]> {
  const client = await BareClient.connect(port, certificate.certificate);
  const samples: number[] = [];
  const until = performance.now() + ms;
  let last = performance.now();
  await client.run(1, () => {
    const now = performance.now();
    samples.push(now - last);
    last = now;
    return now < until;
  });
  await client.close();
  return samples.slice(samples.length / 4);
}
