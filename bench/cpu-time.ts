// CPU time as the clock of what runs in this process: it counts every thread (the garbage collector's and the thread
// pool's too, where WebCrypto works) and does not count what else the machine is doing.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { median } from './result.ts';

setFlagsFromString('--expose-gc');
const gc = runInNewContext('gc') as (options: { readonly type: 'minor' | 'major' }) => void;

/** Bytes of objects and of their buffers that `make` leaves alive. */
export function bytesKept(make: () => unknown): { readonly bytes: number; readonly kept: unknown } {
  const before = bytesAlive();
  const kept = make();
  return { bytes: bytesAlive() - before, kept };
}

function bytesAlive(): number {
  for (let i = 0; i < 3; i += 1) gc({ type: 'major' });
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

/** CPU milliseconds, user and system, of all threads of this process while `work` runs. */
export async function cpuMs(work: () => unknown): Promise<number> {
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

/** Operations per second of CPU time. */
export async function cpuRate(operations: number, work: () => unknown): Promise<number> {
  return operations / ((await cpuMs(work)) / 1000);
}

/**
 * Takes samples of several contenders turn and turn about, after some rounds to warm up; the median of each. Everyone
 * starts without the garbage of the one before; samples have to be long enough to pay for some of their own.
 */
export async function inTurns<K extends string>(
  rounds: number,
  contenders: Readonly<Record<K, () => Promise<number>>>,
): Promise<Record<K, number>> {
  const names = Object.keys(contenders) as K[];
  const samples = new Map<K, number[]>(names.map((name) => [name, []]));
  const warmUp = warmUpRounds(rounds);
  for (let round = 0; round < warmUp + rounds; round += 1) {
    for (const name of names) {
      // Only the young: a forced collection of everything throws compiled code away too.
      gc({ type: 'minor' });
      const sample = await contenders[name]();
      if (round >= warmUp) samples.get(name)?.push(sample);
    }
  }
  return Object.fromEntries(names.map((name) => [name, median(samples.get(name) ?? [])])) as Record<K, number>;
}

/** How many rounds come before those that count. */
export function warmUpRounds(rounds: number): number {
  return Math.ceil(rounds / 5);
}
