// Events to whoever listens, and conditions others wait for. Both are told only after what they tell of is on disk.
import type { Clock } from '@quicprochat/transport';
import { ClientError } from './errors.ts';
import type { ClientEvent } from './types.ts';

export class EventHub {
  readonly #listeners = new Set<(event: ClientEvent) => void>();
  readonly #iterators = new Set<EventIterator>();

  emit(event: ClientEvent): void {
    // A listener that throws must not stop the others, nor the engine in the middle of its work.
    for (const listener of this.#listeners) {
      try {
        listener(event);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
    for (const iterator of this.#iterators) iterator.push(event);
  }

  on(listener: (event: ClientEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  iterate(): AsyncIterableIterator<ClientEvent> {
    const iterator = new EventIterator(() => this.#iterators.delete(iterator));
    this.#iterators.add(iterator);
    return iterator;
  }

  end(): void {
    for (const iterator of this.#iterators) iterator.end();
    this.#iterators.clear();
    this.#listeners.clear();
  }
}

class EventIterator implements AsyncIterableIterator<ClientEvent> {
  readonly #queue: ClientEvent[] = [];
  readonly #stopped: () => void;
  #waiting: ((result: IteratorResult<ClientEvent>) => void) | undefined;
  #ended = false;

  constructor(stopped: () => void) {
    this.#stopped = stopped;
  }

  push(event: ClientEvent): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (waiting === undefined) this.#queue.push(event);
    else waiting({ done: false, value: event });
  }

  end(): void {
    this.#ended = true;
    this.#waiting?.({ done: true, value: undefined });
    this.#waiting = undefined;
  }

  next(): Promise<IteratorResult<ClientEvent>> {
    const event = this.#queue.shift();
    if (event !== undefined) return Promise.resolve({ done: false, value: event });
    if (this.#ended) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve) => {
      this.#waiting = resolve;
    });
  }

  return(): Promise<IteratorResult<ClientEvent>> {
    this.#stopped();
    this.end();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

interface Waiter {
  readonly holds: () => boolean;
  readonly resolve: () => void;
  readonly reject: (error: ClientError) => void;
  timer: unknown;
}

/** Lets code wait until the state says something. Conditions are looked at after every change of state. */
export class Conditions {
  readonly #clock: Clock;
  readonly #waiters = new Set<Waiter>();
  #ended: ClientError | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** @throws ClientError `timeout` after `timeoutMs` (undefined: never), or what `end` was called with */
  until(holds: () => boolean, timeoutMs: number | undefined, waitingFor: string): Promise<void> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => {
      if (holds()) {
        resolve();
        return;
      }
      const waiter: Waiter = { holds, resolve, reject, timer: undefined };
      this.#waiters.add(waiter);
      if (timeoutMs === undefined) return;
      waiter.timer = this.#clock.setTimer(() => {
        this.#waiters.delete(waiter);
        reject(
          new ClientError('timeout', 'timeout', `${waitingFor} took too long`, {
            hint: 'Try again; what is queued stays queued.',
          }),
        );
      }, timeoutMs);
    });
  }

  /** Something has changed. */
  check(): void {
    for (const waiter of this.#waiters) {
      let holds = false;
      try {
        holds = waiter.holds();
      } catch (error) {
        this.#remove(waiter);
        waiter.reject(
          error instanceof ClientError
            ? error
            : new ClientError('bug', 'bug', 'an unexpected fault in the client', { cause: error }),
        );
        continue;
      }
      if (!holds) continue;
      this.#remove(waiter);
      waiter.resolve();
    }
  }

  end(error: ClientError): void {
    this.#ended = error;
    for (const waiter of this.#waiters) {
      this.#remove(waiter);
      waiter.reject(error);
    }
  }

  #remove(waiter: Waiter): void {
    this.#waiters.delete(waiter);
    if (waiter.timer !== undefined) this.#clock.clearTimer(waiter.timer);
  }
}

/** Runs asynchronous tasks of one key one after the other. */
export class KeyedQueue {
  readonly #tails = new Map<string, Promise<unknown>>();

  run<T>(key: string, task: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(key) ?? Promise.resolve();
    const result = before.then(task, task);
    const tail = result.catch(() => {});
    this.#tails.set(key, tail);
    void tail.then(() => {
      if (this.#tails.get(key) === tail) this.#tails.delete(key);
    });
    return result;
  }
}
