/**
 * Knocking at devices without a connection. What goes out says that something arrived and nothing else: no sender, no
 * channel, no count. A device is knocked at once, then not again for a while or until it has been here.
 *
 *   something on disk → no live connection? → token from the store → its notifier → gone? → token removed
 *                                                                                  → failed? → left alone for longer
 *
 * Nobody waits for it, and what cannot be kept up with is dropped: the envelopes are in the inbox all the same. Users
 * choose the places, so some are slow on purpose: each holds one of many slots, and not soon again.
 */
import { encodeAddress } from '@quicprochat/core';
import { encodeHex } from '@quicprochat/crypto';
import type { Clock } from '@quicprochat/transport';
import type { Log } from './context.ts';
import type { Address, PushToken, Store } from './store/store.ts';

/** One way to reach a device; a webhook, or a phone maker's service. */
export interface PushNotifier {
  /** Why this token can't be one, as a clause for its owner; undefined when it may be. Does no I/O. */
  objectionTo(token: string): string | undefined;
  /** Says that something arrived. Never rejects; `gone`: this token will not work again. */
  notify(token: string): Promise<'sent' | 'failed' | 'gone'>;
}

export type PushNotifiers = ReadonlyMap<string, PushNotifier>;

const AGAIN_AFTER_MS = 30_000;
const AFTER_FAILURE_MS = 120_000;
const REMEMBERED_MAX = 100_000;
const WAITING_MAX = 50_000;
const LOOK_UPS = 500;
const AT_ONCE = 128;

type Tokens = Pick<Store, 'findPushTokens' | 'dropPushToken'>;

export class PushWakeUps {
  readonly #store: Tokens;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #notifiers: PushNotifiers;
  // When a device was last knocked at or looked up, oldest first.
  readonly #recent = new Map<string, number>();
  // When that last failed, oldest first; a device that has been here since is no better to reach for it.
  readonly #failed = new Map<string, number>();
  readonly #waiting = new Map<string, Address>();
  #underWay = 0;
  #freed: (() => void) | undefined;
  #running = false;
  #stopped = false;

  constructor(parts: { store: Tokens; clock: Clock; log: Log; notifiers: PushNotifiers }) {
    this.#store = parts.store;
    this.#clock = parts.clock;
    this.#log = parts.log;
    this.#notifiers = parts.notifiers;
  }

  /** Something is in the inbox of a device that has no connection. */
  knock(address: Address): void {
    if (this.#notifiers.size === 0 || this.#stopped) return;
    const key = encodeHex(encodeAddress(address));
    if (this.#isWithin(AGAIN_AFTER_MS, this.#recent.get(key))) return;
    if (this.#isWithin(AFTER_FAILURE_MS, this.#failed.get(key))) return;
    if (this.#waiting.size >= WAITING_MAX) return;
    this.#waiting.set(key, address);
    if (this.#running) return;
    this.#running = true;
    void this.#run();
  }

  /** The device has been here: the next envelope it misses is worth a knock. */
  forget(address: Address): void {
    this.#recent.delete(encodeHex(encodeAddress(address)));
  }

  stop(): void {
    this.#stopped = true;
    this.#waiting.clear();
  }

  #isWithin(ms: number, at: number | undefined): boolean {
    return at !== undefined && this.#clock.now() - at < ms;
  }

  async #run(): Promise<void> {
    try {
      while (this.#waiting.size > 0) {
        const batch = [...this.#waiting].slice(0, LOOK_UPS);
        for (const [key] of batch) {
          this.#waiting.delete(key);
          this.#remember(this.#recent, key);
        }
        for (const token of await this.#store.findPushTokens(batch.map(([, address]) => address))) {
          while (this.#underWay >= AT_ONCE) await new Promise<void>((resolve) => (this.#freed = resolve));
          if (this.#stopped) return;
          void this.#send(token);
        }
      }
    } catch (error) {
      this.#log.warn({ err: error }, 'push tokens could not be looked up');
    } finally {
      this.#running = false;
    }
  }

  async #send({ address, kind, token }: PushToken & { readonly address: Address }): Promise<void> {
    this.#underWay++;
    try {
      const outcome = await this.#notifiers.get(kind)?.notify(token);
      this.#log.debug({ notifier: kind, outcome }, 'knocked');
      const key = encodeHex(encodeAddress(address));
      if (outcome === 'failed') this.#remember(this.#failed, key);
      else this.#failed.delete(key);
      if (outcome === 'gone') await this.#store.dropPushToken({ address, token: { kind, token } });
    } catch (error) {
      this.#log.warn({ err: error }, 'a push token could not be removed');
    } finally {
      this.#underWay--;
      this.#freed?.();
    }
  }

  #remember(times: Map<string, number>, key: string): void {
    times.delete(key);
    times.set(key, this.#clock.now());
    for (const oldest of times.keys()) {
      if (times.size <= REMEMBERED_MAX) break;
      times.delete(oldest);
    }
  }
}
