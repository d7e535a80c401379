// Whether the server's memory stays as it is while a million messages are stored and acknowledged away.
import { type BenchOptions, type BenchResult, figure } from './result.ts';
import { LoadProcess } from './server-load.ts';
import { ServerProcess } from './server-process.ts';
import type { SeededServer } from './server.ts';

const CLIENTS = 64;
const PAYLOAD_BYTES = 100;
const STEPS = 10;
/** The curve is judged from here on: before, caches fill. */
const SETTLED_AFTER_STEPS = 3;

export async function* serverMemoryBench(
  { folder, devices }: SeededServer,
  { quick }: BenchOptions,
): AsyncGenerator<BenchResult> {
  const cycles = quick ? 20_000 : 1_000_000;
  const server = await ServerProcess.start(folder);
  const load = new LoadProcess();
  const curve: number[] = [];
  try {
    await load.connect(server.address, devices.slice(-CLIENTS));
    let elapsedMs = 0;
    for (let step = 1; step <= STEPS; step += 1) {
      elapsedMs += await load.cycles(cycles / STEPS, PAYLOAD_BYTES);
      const { rssBytes } = await server.health();
      curve.push(rssBytes / 1e6);
      const done = (cycles / STEPS) * step;
      yield figure({ name: `memory after ${done.toLocaleString('en')} cycles`, value: rssBytes / 1e6, unit: 'MB' });
    }
    yield figure({ name: 'enqueue/ack cycles', value: cycles / (elapsedMs / 1000), unit: 'cycles/s' });
  } finally {
    await load.close();
    await server.stop();
  }
  yield figure({
    name: 'memory at the end',
    value: curve.at(-1) ?? Number.NaN,
    unit: 'MB',
    baseline: {
      name: `after ${(SETTLED_AFTER_STEPS * 100) / STEPS} %`,
      value: curve[SETTLED_AFTER_STEPS - 1] ?? Number.NaN,
    },
    target: { of: 'ratio', atMost: 1.1 },
  });
}
