/**
 * Who may have a connection (THREATS 24). Before one is handed to the dispatcher its network address is asked how many it
 * has already, and how often it came; while it lives, it has to belong to a device, or be in use.
 */
import { CloseCode } from '@quicprochat/transport';
import type { Clock } from '@quicprochat/transport';
import type { ClientConnection } from './context.ts';
import type { Observer } from './observer.ts';
import { networkOf, TokenBuckets } from './rate-limits.ts';
import type { Rate } from './rate-limits.ts';

/** Counts connections per network address, from before their handshake to their end. */
export class ConnectionGuard {
  readonly #perAddressMax: number;
  readonly #connects: TokenBuckets;
  readonly #observer: Observer;
  readonly #open = new Map<string, number>();

  constructor(clock: Clock, limits: { readonly perAddressMax: number; readonly connects: Rate }, observer: Observer) {
    this.#perAddressMax = limits.perAddressMax;
    this.#connects = new TokenBuckets(clock, limits.connects);
    this.#observer = observer;
  }

  /** Undefined: not another one. Else what is returned is to be called when the connection has ended. */
  readonly admit = (peer: string): (() => void) | undefined => {
    const network = networkOf({ peer });
    const open = this.#open.get(network) ?? 0;
    if (open >= this.#perAddressMax) {
      this.#observer.turnedAway('address');
      return undefined;
    }
    if (this.#connects.take(network) > 0) {
      this.#observer.turnedAway('rate');
      return undefined;
    }
    this.#open.set(network, open + 1);
    let ended = false;
    return () => {
      if (ended) return;
      ended = true;
      const left = (this.#open.get(network) ?? 1) - 1;
      if (left === 0) this.#open.delete(network);
      else this.#open.set(network, left);
    };
  };

  /** Network addresses with a connection. */
  get size(): number {
    return this.#open.size;
  }
}

/**
 * Ends the connections on which no device has a session and nothing was asked for `deadlineMs`, and forgets the logins
 * that nobody finished. A registration in progress and a sealed sender at work are in use.
 */
export function endIdle(
  connections: Iterable<ClientConnection>,
  nowMs: number,
  deadlineMs: number,
  observer: Observer,
): void {
  for (const connection of connections) {
    const { logins, session, usedAt } = connection.state;
    for (const [id, login] of logins) if (login.expiresAt < nowMs) logins.delete(id);
    if (session?.kind === 'device' || nowMs - usedAt < deadlineMs) continue;
    observer.turnedAway('idle');
    connection.close(CloseCode.none, 'nobody has logged in on this connection');
  }
}
