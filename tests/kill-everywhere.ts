// Kills a client at every transaction of a story, before it and after it. State changes in transactions only, so these are
// all the places where a crash can make a difference.
import type { Store } from '../packages/client/src/store/index.ts';
import type { Person } from './world.ts';

type Moment = 'before' | 'after';

/** Kills the engine at its n-th transaction: that one is lost (before) or on disk (after), and nothing follows. */
export class Fault {
  fired = false;
  readonly killed: Promise<void>;
  #kill = (): void => {};
  #count = 0;
  readonly #at: number;
  readonly #moment: Moment;

  constructor(at: number, moment: Moment) {
    this.#at = at;
    this.#moment = moment;
    this.killed = new Promise((resolve) => {
      this.#kill = resolve;
    });
  }

  wrap = (store: Store): Store => ({
    ...store,
    transaction: (body) => {
      if (this.fired) throw new Error('killed');
      this.#count += 1;
      if (this.#count < this.#at) return store.transaction(body);
      if (this.#moment === 'after') store.transaction(body);
      this.fired = true;
      this.#kill();
      throw new Error('killed');
    },
  });
}

/**
 * Runs `story` with the person killed at transaction 1, 2, 3 … until a run ends without having reached the place.
 * `story` may fail when the kill hits it; `settle` runs on the restarted person and must hold always.
 */
export async function killEverywhere(
  person: Person,
  story: (run: string) => Promise<unknown>,
  settle: (run: string) => Promise<void>,
  /** What a run needs to be there, made without a fault. */
  prepare: (run: string) => Promise<unknown> = async () => {},
): Promise<number> {
  let kills = 0;
  for (const moment of ['before', 'after'] as const) {
    for (let at = 1; ; at++) {
      const run = `${moment} ${at}`;
      await prepare(run);
      const fault = new Fault(at, moment);
      await person.close();
      person.wrapStore = fault.wrap;
      await person.open();
      await Promise.race([
        person.client.connect().then(() => story(run)),
        // The story may wait for something that a dead client will never see.
        fault.killed,
      ]).catch((error: unknown) => {
        if (!fault.fired) throw error;
      });
      await person.crash();
      person.wrapStore = undefined;
      await person.open();
      await person.client.connect();
      await settle(run);
      if (!fault.fired) break;
      kills += 1;
    }
  }
  return kills;
}
