// Loaded into a server process with `--import`, so that a test can ask how much it holds: no part of the product.
import { isMainThread } from 'node:worker_threads';

export interface Held {
  /** Of the main thread, after a garbage collection. */
  readonly heapBytes: number;
  readonly rssBytes: number;
}

if (isMainThread && process.send) {
  process.on('message', () => {
    globalThis.gc?.();
    const { heapUsed, rss } = process.memoryUsage();
    process.send?.({ heapBytes: heapUsed, rssBytes: rss } satisfies Held);
  });
  // Being asked is not a reason to live.
  process.channel?.unref();
}
