/**
 * For work of many calls that a server may slow down. Whoever is told `rate limited` waits as long as the server says and
 * asks again; from then on one question at a time goes out, as there is no more than one answer in that time. It ends
 * when what was waited for together exceeds a bound: then this question and all after it fail with the server's refusal.
 */
import { Status } from '@quicprochat/proto';
import type { Engine } from './engine.ts';
import { ClientError, toClientError } from './errors.ts';
import { statusOf } from './server-errors.ts';
import type { Waiting } from './types.ts';

const TOTAL_MS_MAX = 300_000;
/** However soon the server says. */
const WAIT_MS_MIN = 250;
const WAIT_MS_UNSAID = 1_000;

export interface PatienceOptions {
  /** Told of each wait before it begins. */
  readonly waiting?: ((waiting: Waiting) => void) | undefined;
  /** Ends the waiting. */
  readonly signal?: AbortSignal | undefined;
}

export class Patience {
  readonly #engine: Engine;
  readonly #options: PatienceOptions;
  #leftMs = TOTAL_MS_MAX;
  /** On the monotonic clock: not before this may be asked again. */
  #notBefore = -Infinity;
  #refusal: ClientError | undefined;
  #isOver = false;
  /** Resolves when those who wait have had their turn; undefined while nobody was limited. */
  #line: Promise<unknown> | undefined;

  constructor(engine: Engine, options: PatienceOptions) {
    this.#engine = engine;
    this.#options = options;
  }

  /** @throws ClientError what `question` throws; `rate-limited` when patience has come to its end; `timeout` by signal */
  async ask<T>(question: () => Promise<T>): Promise<T> {
    if (this.#line === undefined) {
      const answer = await this.#try(question);
      if (answer !== undefined) return answer.value;
    }
    const turn = (this.#line ?? Promise.resolve()).then(() => this.#insist(question));
    this.#line = turn.catch(() => {});
    return turn;
  }

  async #insist<T>(question: () => Promise<T>): Promise<T> {
    for (;;) {
      await this.#wait();
      const answer = await this.#try(question);
      if (answer !== undefined) return answer.value;
    }
  }

  /** Undefined: the server wants us to be slower. */
  async #try<T>(question: () => Promise<T>): Promise<{ readonly value: T } | undefined> {
    try {
      return { value: await question() };
    } catch (error) {
      const failure = toClientError(error);
      if (statusOf(failure) !== Status.RATE_LIMITED) throw failure;
      const waitMs = failure.retryAfterMs > 0 ? Math.max(failure.retryAfterMs, WAIT_MS_MIN) : WAIT_MS_UNSAID;
      this.#notBefore = Math.max(this.#notBefore, this.#engine.ports.clock.now() + waitMs);
      this.#refusal = failure;
      return undefined;
    }
  }

  async #wait(): Promise<void> {
    if (this.#options.signal?.aborted === true) throw gaveUp();
    const { clock } = this.#engine.ports;
    const waitMs = this.#notBefore - clock.now();
    if (this.#refusal === undefined || waitMs <= 0) return;
    if (waitMs > this.#leftMs) this.#isOver = true;
    if (this.#isOver) throw this.#refusal;
    this.#leftMs -= waitMs;
    this.#options.waiting?.({ ms: waitMs, reason: this.#refusal.message });
    await this.#pass(waitMs);
  }

  async #pass(ms: number): Promise<void> {
    const { conditions } = this.#engine;
    const { signal } = this.#options;
    let isOver = false;
    const callOff = this.#engine.later(() => {
      isOver = true;
      conditions.check();
    }, ms);
    const look = (): void => conditions.check();
    signal?.addEventListener('abort', look, { once: true });
    try {
      const holds = (): boolean => {
        if (signal?.aborted === true) throw gaveUp();
        return isOver;
      };
      await conditions.until(holds, undefined, 'the server');
    } finally {
      callOff();
      signal?.removeEventListener('abort', look);
    }
  }
}

function gaveUp(): ClientError {
  return new ClientError('timeout', 'timeout', 'waiting for the server was given up');
}
