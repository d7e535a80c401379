/** How far this device's inbox was read: one number across all channels (DESIGN section 5). */
import type { Driver } from './driver.ts';
import { bigintOf } from './sql.ts';

export interface InboxStore {
  /** The highest seq whose effects are stored; 0 before the first. */
  cursor(): bigint;
  /** Moves forward, never back. Call it in the transaction that stores the row's effects, and Ack only afterwards. */
  advance(seq: bigint): void;
  /** Starts from the beginning: the server counts anew. */
  restart(): void;
  /** The highest seq the server has confirmed as removed. */
  acked(): bigint;
  setAcked(seq: bigint): void;
}

export function inboxStore(driver: Driver): InboxStore {
  const get = driver.prepare('SELECT cursor, acked FROM inbox');
  const advance = driver.prepare('UPDATE inbox SET cursor = max(cursor, ?)');
  const restart = driver.prepare('UPDATE inbox SET cursor = 0, acked = 0');
  const setAcked = driver.prepare('UPDATE inbox SET acked = max(acked, ?)');
  return {
    cursor: () => bigintOf(get.get() ?? {}, 'cursor'),
    advance(seq) {
      advance.run(seq);
    },
    restart() {
      restart.run();
    },
    acked: () => bigintOf(get.get() ?? {}, 'acked'),
    setAcked(seq) {
      setAcked.run(seq);
    },
  };
}
