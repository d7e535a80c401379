/**
 * Listening anew on a port that was given up for a moment, for the sake of a new certificate. Somebody else may have got
 * it in between: that is waited out, for as long as clients would take to notice.
 */
import type { Log, ServerClock } from './context.ts';

const EVERY_MS = 250;
const WAIT_MS_MAX = 15_000;

/** @throws what `listen` threw last */
export async function listenAgain<T>(
  listen: () => Promise<T>,
  clock: Pick<ServerClock, 'now' | 'setTimer'>,
  log: Log,
): Promise<T> {
  const until = clock.now() + WAIT_MS_MAX;
  for (let said = false; ; said = true) {
    try {
      return await listen();
    } catch (error) {
      if (clock.now() >= until) throw error;
      if (!said) log.error({ err: error }, 'the port that was given up for a moment is taken; waiting for it');
      await new Promise<void>((resolve) => void clock.setTimer(resolve, EVERY_MS));
    }
  }
}
