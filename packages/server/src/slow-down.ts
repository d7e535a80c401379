/**
 * Guessing is slowed, nobody is locked out (PROTOCOL 8): each failure in a row doubles the wait before the next attempt
 * is looked at, up to a quarter of an hour. Counted per what is guessed at and where from, so that nobody makes somebody
 * else wait. An attempt counts as failed until it has succeeded: many at once are no way around.
 */
import type { Clock } from '@quicprochat/transport';

const FREE_ATTEMPTS = 3;
const FIRST_WAIT_MS = 1_000;
const WAIT_MS_MAX = 15 * 60_000;
const KEYS_MAX = 100_000;

export class SlowDown {
  readonly #clock: Clock;
  // In order of the last attempt: the first is the oldest.
  readonly #failures = new Map<string, { count: number; at: number }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Begins an attempt: 0 when it may go on, else the milliseconds to wait, and nothing has been counted. */
  attempt(key: string): number {
    const now = this.#clock.now();
    const known = this.#failures.get(key);
    const count = known?.count ?? 0;
    const wait = count < FREE_ATTEMPTS ? 0 : Math.min(WAIT_MS_MAX, FIRST_WAIT_MS * 2 ** (count - FREE_ATTEMPTS));
    const left = known === undefined ? 0 : known.at + wait - now;
    if (left > 0) return left;
    this.#failures.delete(key);
    // Who stayed away for long begins anew.
    const isFresh = known === undefined || now - known.at > 4 * WAIT_MS_MAX;
    this.#failures.set(key, { count: isFresh ? 1 : count + 1, at: now });
    for (const oldest of this.#failures.keys()) {
      if (this.#failures.size <= KEYS_MAX) break;
      this.#failures.delete(oldest);
    }
    return 0;
  }

  succeeded(key: string): void {
    this.#failures.delete(key);
  }
}
