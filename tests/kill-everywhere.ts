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
  #armed = true;
  readonly #at: number;
  readonly #moment: Moment;

  constructor(at: number, moment: Moment) {
    this.#at = at;
    this.#moment = moment;
    this.killed = new Promise((resolve) => {
      this.#kill = resolve;
    });
  }

  /** Counts from now on. */
  disarm(): () => void {
    this.#armed = false;
    return () => {
      this.#armed = true;
    };
  }

  wrap = (store: Store): Store => ({
    ...store,
    transaction: (body) => {
      if (this.fired) throw new Error('killed');
      if (!this.#armed) return store.transaction(body);
      this.#count += 1;
      if (this.#count < this.#at) return store.transaction(body);
      if (this.#moment === 'after') store.transaction(body);
      this.fired = true;
      this.#kill();
      throw new Error('killed');
    },
  });
}

export interface KillOptions {
  /** What a run needs to be there, made without a fault. */
  readonly prepare?: (run: string) => Promise<unknown>;
  readonly moments?: readonly Moment[];
  /** Whether the transactions before the story count, too. */
  readonly whileConnecting?: boolean;
}

/**
 * Runs `story` with the person killed at transaction 1, 2, 3 … until a run ends without having reached the place.
 * `story` may fail when the kill hits it; `settle` runs on the restarted person and must hold always.
 */
export async function killEverywhere(
  person: Person,
  story: (run: string) => Promise<unknown>,
  settle: (run: string) => Promise<void>,
  { prepare = async () => {}, moments = ['before', 'after'], whileConnecting = true }: KillOptions = {},
): Promise<number> {
  let kills = 0;
  for (const moment of moments) {
    for (let at = 1; ; at++) {
      const run = `${moment} ${at}`;
      await prepare(run);
      const fault = new Fault(at, moment);
      const arm = whileConnecting ? () => {} : fault.disarm();
      await person.close();
      person.wrapStore = fault.wrap;
      await person.open();
      await Promise.race([
        person.client.connect().then(() => {
          arm();
          return story(run);
        }),
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
