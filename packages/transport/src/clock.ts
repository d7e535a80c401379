// Time as the transport needs it: a monotonic reading and one-shot timers. Passed in everywhere, so
// that tests drive it by hand; `systemClock` is the real one.

/** Milliseconds that never run backwards, and timers on the same scale. */
export interface Clock {
  /** Monotonic milliseconds from an arbitrary origin. */
  now(): number;
  /** Runs `callback` once after `ms` milliseconds; the result is for `clearTimer`. */
  setTimer(callback: () => void, ms: number): unknown;
  clearTimer(timer: unknown): void;
}

const performanceClock = (globalThis as { performance?: { now(): number } }).performance;

/** The clock of the machine. */
export const systemClock: Clock = {
  now: () => (performanceClock === undefined ? Date.now() : performanceClock.now()),
  setTimer: (callback, ms) => setTimeout(callback, ms),
  clearTimer: (timer) => clearTimeout(timer),
};

// setTimeout fires at once for anything above this.
const TIMER_MS_MAX = 2 ** 31 - 1;

/**
 * Runs out many deadlines with one timer: armed for the earliest one, and for the next when it fires. Its
 * owner keeps the items; nothing is set or cleared per item.
 */
export class Deadlines<T extends { readonly deadline: number }> {
  readonly #clock: Clock;
  readonly #items: () => Iterable<T>;
  readonly #expired: (item: T) => void;
  #timer: unknown;
  #armedFor = Infinity;

  /**
   * @param items those still running, asked for when the timer fires
   * @param expired called for each whose deadline has passed
   */
  constructor(clock: Clock, items: () => Iterable<T>, expired: (item: T) => void) {
    this.#clock = clock;
    this.#items = items;
    this.#expired = expired;
  }

  /** An item with this deadline has been added. */
  added(deadline: number): void {
    if (deadline < this.#armedFor) this.#arm(deadline);
  }

  /** Nothing more is to expire; no timer keeps a process alive. */
  stop(): void {
    if (this.#timer !== undefined) this.#clock.clearTimer(this.#timer);
    this.#timer = undefined;
    this.#armedFor = Infinity;
  }

  #arm(deadline: number): void {
    this.stop();
    if (deadline === Infinity) return;
    this.#armedFor = deadline;
    const ms = Math.min(Math.max(0, Math.ceil(deadline - this.#clock.now())), TIMER_MS_MAX);
    this.#timer = this.#clock.setTimer(() => this.#fire(), ms);
  }

  #fire(): void {
    this.#timer = undefined;
    this.#armedFor = Infinity;
    const now = this.#clock.now();
    const due: T[] = [];
    let earliest = Infinity;
    for (const item of this.#items()) {
      if (item.deadline <= now) due.push(item);
      else if (item.deadline < earliest) earliest = item.deadline;
    }
    this.#arm(earliest);
    for (const item of due) this.#expired(item);
  }
}
