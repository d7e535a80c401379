// What waits for its turn on one connection: in the order it came, with one timer for all of it. Whoever puts something in
// says how long it has to wait; what came later never goes first.
import type { Clock } from './clock.ts';

interface Waiting {
  readonly at: number;
  readonly run: () => void;
}

/** The line of one connection. */
export class WaitingLine {
  readonly #clock: Clock;
  // In the order they came, which is the order of `at`.
  readonly #waiting = new Set<Waiting>();
  #lastAt = -Infinity;
  #timer: unknown;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Runs `run` after `waitMs`, and after all that waits already; at once when nothing does and there is no wait. */
  take(waitMs: number, run: () => void): void {
    if (waitMs <= 0 && this.#waiting.size === 0) {
      run();
      return;
    }
    this.#lastAt = Math.max(this.#lastAt, this.#clock.now() + waitMs);
    this.#waiting.add({ at: this.#lastAt, run });
    if (this.#waiting.size === 1) this.#arm(this.#lastAt);
  }

  /** Nothing waits any longer: all that is left runs now, and no timer is left. */
  hurry(): void {
    this.#run(Infinity);
    this.#lastAt = -Infinity;
  }

  #run(until: number): void {
    this.#disarm();
    for (;;) {
      const [first] = this.#waiting;
      if (first === undefined) {
        // What ran may have put in what has run as well.
        this.#disarm();
        return;
      }
      if (first.at > until) {
        this.#arm(first.at);
        return;
      }
      this.#waiting.delete(first);
      first.run();
    }
  }

  #arm(at: number): void {
    this.#disarm();
    const ms = Math.max(0, Math.ceil(at - this.#clock.now()));
    this.#timer = this.#clock.setTimer(() => this.#run(this.#clock.now()), ms);
  }

  #disarm(): void {
    if (this.#timer !== undefined) this.#clock.clearTimer(this.#timer);
    this.#timer = undefined;
  }
}
