/**
 * Which devices have a connection right now, and who waits for their inboxes. A write that reached the disk wakes its
 * recipients here; waking says "look again". The row that is new may come along, so that who has seen all before it need
 * not read it back.
 */
import { encodeAddress } from '@quicprochat/core';
import { encodeHex } from '@quicprochat/crypto';
import type { PushEvent } from '@quicprochat/proto';
import type { ClientConnection } from './context.ts';
import type { Address, InboxRow } from './store/store.ts';

interface Live {
  readonly connections: Set<ClientConnection>;
  readonly waiters: Set<Waiter>;
}

/** Told after each write to an inbox, of the row it added if that is at hand. */
export type Waiter = (row: InboxRow | undefined) => void;

export class LiveDevices {
  readonly #devices = new Map<string, Live>();

  /** A device has a session on this connection. */
  add(address: Address, connection: ClientConnection): void {
    this.#live(address).connections.add(connection);
  }

  remove(address: Address, connection: ClientConnection): void {
    const key = keyOf(address);
    const live = this.#devices.get(key);
    live?.connections.delete(connection);
    this.#forgetIfEmpty(key);
  }

  /** The connections on which the device has a session. */
  connections(address: Address): readonly ClientConnection[] {
    return [...(this.#devices.get(keyOf(address))?.connections ?? [])];
  }

  /** Calls `wake` after each write to the inbox, until the function returned is called. */
  onWake(address: Address, wake: Waiter): () => void {
    const key = keyOf(address);
    this.#live(address).waiters.add(wake);
    return () => {
      this.#devices.get(key)?.waiters.delete(wake);
      this.#forgetIfEmpty(key);
    };
  }

  /** Pushes a hint to the device wherever it is connected; whoever does not keep up goes without. */
  push(address: Address, event: PushEvent, payload: Uint8Array): void {
    for (const connection of this.connections(address)) connection.state.pump?.pushHint(event, payload);
  }

  has(address: Address): boolean {
    return (this.#devices.get(keyOf(address))?.connections.size ?? 0) > 0;
  }

  /** Something new is in these inboxes, on disk. `rows` has what was added to some of them. */
  wake(addresses: readonly Address[], rows?: ReadonlyMap<Address, InboxRow>): void {
    if (this.#devices.size === 0) return;
    for (const address of addresses) {
      const waiters = this.#devices.get(keyOf(address))?.waiters;
      if (waiters !== undefined) for (const wake of waiters) wake(rows?.get(address));
    }
  }

  get size(): number {
    return this.#devices.size;
  }

  #live(address: Address): Live {
    const key = keyOf(address);
    let live = this.#devices.get(key);
    if (live === undefined) {
      live = { connections: new Set(), waiters: new Set() };
      this.#devices.set(key, live);
    }
    return live;
  }

  #forgetIfEmpty(key: string): void {
    const live = this.#devices.get(key);
    if (live?.connections.size === 0 && live.waiters.size === 0) this.#devices.delete(key);
  }
}

function keyOf(address: Address): string {
  return encodeHex(encodeAddress(address));
}
