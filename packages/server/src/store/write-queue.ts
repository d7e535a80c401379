/**
 * Writes waiting for their transaction (DESIGN section 6). A turn takes at most 128, at most 16 of one fairness key (a
 * device, or a connection without a session), and goes round the keys one by one, so that a flood of one delays nobody
 * else's write by more than a turn.
 * Writes of one key keep their order.
 */
export interface QueuedWrite {
  readonly fairnessKey: string | number | undefined;
  readonly bytes: number;
}

export const TURN_WRITES = 128;
export const TURN_WRITES_PER_KEY = 16;
/** Bounds how long one transaction of large payloads holds the others up. */
export const TURN_BYTES = 8 * 1024 * 1024;

export class WriteQueue<T extends QueuedWrite> {
  /** In the order of their next turn; a write without a key is a lane of its own. */
  #lanes = new Map<unknown, T[]>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  push(write: T): void {
    const key = laneOf(write);
    const lane = this.#lanes.get(key);
    if (lane === undefined) this.#lanes.set(key, [write]);
    else lane.push(write);
    this.#size++;
  }

  /** The next transaction's writes; at least one if there is any. */
  take(): T[] {
    const taken: T[] = [];
    let bytes = 0;
    let lanes = [...this.#lanes];
    for (let round = 0; round < TURN_WRITES_PER_KEY && lanes.length > 0; round++) {
      for (const [, lane] of lanes) {
        const next = lane[round];
        if (next === undefined) continue;
        if (taken.length === TURN_WRITES || (taken.length > 0 && bytes + next.bytes > TURN_BYTES)) {
          return this.#remove(taken);
        }
        taken.push(next);
        bytes += next.bytes;
      }
      lanes = lanes.filter(([, lane]) => lane.length > round + 1);
    }
    return this.#remove(taken);
  }

  /** What was taken and not written comes first again, in its order. */
  putBack(writes: readonly T[]): void {
    if (writes.length === 0) return;
    const first = new Map<unknown, T[]>();
    for (const [key, own] of Map.groupBy(writes, laneOf)) {
      first.set(key, [...own, ...(this.#lanes.get(key) ?? [])]);
      this.#lanes.delete(key);
    }
    this.#lanes = new Map([...first, ...this.#lanes]);
    this.#size += writes.length;
  }

  /** Lanes that were served go to the end. */
  #remove(taken: T[]): T[] {
    const served = Map.groupBy(taken, laneOf);
    for (const [key, writes] of served) {
      const left = this.#lanes.get(key)!.slice(writes.length);
      this.#lanes.delete(key);
      if (left.length > 0) this.#lanes.set(key, left);
    }
    this.#size -= taken.length;
    return taken;
  }
}

function laneOf(write: QueuedWrite): unknown {
  return write.fairnessKey ?? write;
}
