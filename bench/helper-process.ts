// A process that does what the benchmark asks, one order at a time.
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';

interface Answer {
  readonly failed?: string;
  readonly result?: unknown;
}

const CLOSE = 'close';
const CLOSE_MS_MAX = 10_000;

/** The benchmark's end. */
export class HelperProcess<Order> {
  readonly #child: ChildProcess;

  /** @param file a module that calls `obeyOrders` when it is the program */
  constructor(file: string) {
    this.#child = fork(file, { serialization: 'advanced' });
  }

  /** What `obey` of the other process answers. */
  async ask(order: Order): Promise<unknown> {
    const given = new AbortController();
    const { signal } = given;
    try {
      const answer = await Promise.race([
        once(this.#child, 'message', { signal }) as Promise<[Answer]>,
        once(this.#child, 'exit', { signal }).then((): [Answer] => [{ failed: 'a helper process ended' }]),
        new Promise<never>((_resolve, reject) => {
          this.#child.send({ order }, (error) => {
            if (error) reject(error);
          });
        }),
      ]);
      const [{ failed, result }] = answer;
      if (failed !== undefined) throw new Error(failed);
      return result;
    } finally {
      given.abort();
    }
  }

  async close(): Promise<void> {
    if (!this.#child.connected) return;
    const exited = once(this.#child, 'exit', { signal: AbortSignal.timeout(CLOSE_MS_MAX) });
    this.#child.send(CLOSE);
    await exited.catch(() => this.#child.kill('SIGKILL'));
  }
}

/** The helper's end. It ends with the benchmark, however that ends. */
export function obeyOrders<Order>(obey: (order: Order) => Promise<unknown>, close: () => void | Promise<void>): void {
  process.on('message', (message: typeof CLOSE | { readonly order: Order }) => {
    if (message === CLOSE) {
      void Promise.resolve(close()).finally(() => process.exit());
      return;
    }
    obey(message.order).then(
      (result) => process.send?.({ result } satisfies Answer),
      (error: unknown) => process.send?.({ failed: describe(error) } satisfies Answer),
    );
  });
  process.on('disconnect', () => process.exit());
}

function describe(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
