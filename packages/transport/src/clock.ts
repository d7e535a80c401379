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
 * Runs out many deadlines with one timer: armed for the earliest one, re-armed lazily when it fires.
 * Adding and removing a deadline is a set operation; nothing is set or cleared per call.
 */
export class Deadlines<T extends { deadline: number }> {
  readonly #clock: Clock;
  readonly #expired: (item: T) => void;
  readonly #items = new Set<T>();
  #timer: unknown;
  #armedFor = Infinity;

  constructor(clock: Clock, expired: (item: T) => void) {
    this.#clock = clock;
    this.#expired = expired;
  }

  add(item: T): void {
    this.#items.add(item);
    if (item.deadline < this.#armedFor) this.#arm(item.deadline);
  }

  remove(item: T): void {
    this.#items.delete(item);
  }

  /** Takes everything out, so that no timer keeps a process alive. */
  drain(): T[] {
    const items = [...this.#items];
    this.#items.clear();
    this.#disarm();
    return items;
  }

  #disarm(): void {
    if (this.#timer !== undefined) this.#clock.clearTimer(this.#timer);
    this.#timer = undefined;
    this.#armedFor = Infinity;
  }

  #arm(deadline: number): void {
    this.#disarm();
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
    for (const item of this.#items) {
      if (item.deadline <= now) due.push(item);
      else if (item.deadline < earliest) earliest = item.deadline;
    }
    for (const item of due) this.#items.delete(item);
    if (earliest < this.#armedFor) this.#arm(earliest);
    for (const item of due) this.#expired(item);
  }
}
