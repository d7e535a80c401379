// When to try again (DESIGN section 3): 0.2 s doubling, full jitter, cap 30 s. The policy is a pure
// class; `Reconnector` drives it. Clock and randomness are passed in.
import type { Clock } from './clock.ts';

const FIRST_MS = 200;
const CAP_MS = 30_000;

/** Waiting times of successive failures. */
export class Backoff {
  readonly #random: () => number;
  #failures = 0;

  /** @param random uniform in [0, 1) */
  constructor(random: () => number) {
    this.#random = random;
  }

  /** How long to wait after one more failure: uniform below 0.2 s × 2^failures, at most 30 s. */
  nextMs(): number {
    const ceiling = Math.min(CAP_MS, FIRST_MS * 2 ** Math.min(this.#failures, 30));
    this.#failures += 1;
    return this.#random() * ceiling;
  }

  /** A connection was established: the next failure is a first one. */
  reset(): void {
    this.#failures = 0;
  }
}

/** What `Reconnector` needs. */
export interface ReconnectorOptions {
  /**
   * One whole session: connects, calls `established` once it works, and settles when it has ended.
   * Rejecting and resolving both mean: try again, unless `retry` says otherwise.
   */
  readonly session: (established: () => void, signal: AbortSignal) => Promise<void>;
  /** False ends the attempts: `run` rejects with the error. Default: always again. */
  readonly retry?: (error: unknown) => boolean;
  /** Told before each wait. `error` is undefined when the session ended without one. */
  readonly onWaiting?: (waitMs: number, error: unknown) => void;
  readonly clock: Clock;
  /** Uniform in [0, 1). */
  readonly random: () => number;
}

/** Keeps one session going until it is stopped. */
export class Reconnector {
  readonly #options: ReconnectorOptions;
  readonly #backoff: Backoff;
  readonly #abort = new AbortController();
  #wake: (() => void) | undefined;

  constructor(options: ReconnectorOptions) {
    this.#options = options;
    this.#backoff = new Backoff(options.random);
  }

  /**
   * Runs sessions one after the other. Resolves after `stop`.
   * @throws what a session failed with, when `retry` refused it
   */
  async run(): Promise<void> {
    const { session, retry, onWaiting } = this.#options;
    const { signal } = this.#abort;
    while (!signal.aborted) {
      let error: unknown;
      try {
        await session(() => this.#backoff.reset(), signal);
      } catch (thrown) {
        error = thrown;
        if (!signal.aborted && retry?.(thrown) === false) throw thrown;
      }
      if (signal.aborted) return;
      const waitMs = this.#backoff.nextMs();
      onWaiting?.(waitMs, error);
      await this.#wait(waitMs);
    }
  }

  /** Cuts the current wait short: someone wants to send, or the network is back. */
  tryNow(): void {
    this.#wake?.();
  }

  /** No more attempts; the session in progress sees its signal aborted. */
  stop(): void {
    this.#abort.abort();
    this.#wake?.();
  }

  #wait(ms: number): Promise<void> {
    const { clock } = this.#options;
    return new Promise((resolve) => {
      if (this.#abort.signal.aborted) {
        resolve();
        return;
      }
      const timer = clock.setTimer(() => this.#wake?.(), ms);
      this.#wake = () => {
        this.#wake = undefined;
        clock.clearTimer(timer);
        resolve();
      };
    });
  }
}
