// From starting the program, as its users start it, to the line that says it is ready.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { type BenchOptions, type BenchResult, figure, median } from './result.ts';

const PROGRAM = fileURLToPath(new URL('../apps/qpc-server/bin/qpc-server.js', import.meta.url));

export async function* serverStartBench(folder: string, { quick }: BenchOptions): AsyncGenerator<BenchResult> {
  const starts = quick ? 3 : 12;
  // Secrets and certificate are made, and compiled code is cached, once in the life of an installation.
  yield figure({ name: 'the very first start', value: await startMs(folder), unit: 'ms' });
  const samples: number[] = [];
  for (let i = 0; i < starts; i += 1) samples.push(await startMs(folder));
  yield figure({
    name: `start of the server, median of ${starts}`,
    value: median(samples),
    unit: 'ms',
    target: { of: 'value', atMost: 500 },
  });
}

async function startMs(folder: string): Promise<number> {
  const options = [
    '--data-dir',
    path.join(folder, 'start'),
    '--listen',
    '127.0.0.1:0',
    '--metrics-listen',
    '127.0.0.1:0',
  ];
  const started = performance.now();
  const child = spawn(process.execPath, [PROGRAM, ...options, '--log-level', 'warn'], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, XDG_CACHE_HOME: path.join(folder, 'cache') },
  });
  const exited = once(child, 'exit');
  const ready = await Promise.race([once(child.stdout, 'data').then(() => true), exited.then(() => false)]);
  const ms = performance.now() - started;
  child.kill('SIGTERM');
  await exited;
  if (!ready) throw new Error('qpc-server did not start');
  return ms;
}
