/**
 * Large reads, one at a time per device (THREATS 24, 27). The store reads for everyone in one line, and a few bytes of
 * request ask for megabytes of it: without turns one device could put hundreds of its own reads before everybody's.
 */
import { encodeAddress } from '@quicprochat/core';
import { encodeHex } from '@quicprochat/crypto';
import type { Address } from './store/store.ts';

export class ReadTurns {
  /** The last one in line of each device that has one. */
  readonly #last = new Map<string, Promise<unknown>>();

  /**
   * Reads once the device's reads before this one are over.
   * @param read what it was asked for may be moot by the time it runs: look before asking the store
   */
  take<T>(address: Address, read: () => Promise<T>): Promise<T> {
    return this.takeAs(encodeHex(encodeAddress(address)), read);
  }

  /** The same for whoever `key` stands for: a network address, where nobody has said who they are. */
  async takeAs<T>(key: string, read: () => Promise<T>): Promise<T> {
    const before = this.#last.get(key);
    const mine = before === undefined ? read() : before.then(read);
    const over = mine.catch(() => {});
    this.#last.set(key, over);
    try {
      return await mine;
    } finally {
      if (this.#last.get(key) === over) this.#last.delete(key);
    }
  }

  get size(): number {
    return this.#last.size;
  }
}
