// Loaded into the server process with `--import`, so that it can be asked how it is: no part of the product.
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { isMainThread } from 'node:worker_threads';

export interface ServerHealth {
  /** Of the event loop since the last `reset`. */
  readonly loopDelay: { readonly p50Ms: number; readonly p99Ms: number; readonly maxMs: number };
  readonly rssBytes: number;
  /** CPU time of all threads since the process started. */
  readonly cpuMs: number;
}

const RESOLUTION_MS = 1;

if (isMainThread && process.send) {
  const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  delay.enable();
  // The histogram counts its own timer's interval as delay.
  const ms = (nanoseconds: number): number => Math.max(0, nanoseconds / 1e6 - RESOLUTION_MS);
  process.on('message', (question) => {
    if (question === 'reset') delay.reset();
    if (question !== 'read') return;
    globalThis.gc?.();
    const { user, system } = process.cpuUsage();
    const health: ServerHealth = {
      loopDelay: { p50Ms: ms(delay.percentile(50)), p99Ms: ms(delay.percentile(99)), maxMs: ms(delay.max) },
      rssBytes: process.memoryUsage.rss(),
      cpuMs: (user + system) / 1000,
    };
    process.send?.(health);
  });
  // A benchmark that was killed leaves no server behind.
  process.on('disconnect', () => process.exit());
  // Being asked is not a reason to live.
  process.channel?.unref();
}
