/**
 * Adds over several commits (PROTOCOL sections 5 and 9): at most 200 in one commit of a post-quantum suite and 1,000 in a
 * classical one, and half as many at a time while the server's limits on sizes ask for it.
 */
import { isPostQuantum } from '../profile/suites.ts';
import { ADDS_MAX_CLASSICAL, ADDS_MAX_POST_QUANTUM } from '../profile/validate-commit.ts';
import { CommitTooLarge } from './build-commit.ts';

/** Calls `commit` with parts of `adds` in order, one after the other. @throws CommitTooLarge when one alone is */
export async function splitAdds<Add>(
  adds: readonly Add[],
  suite: number,
  commit: (part: readonly Add[]) => Promise<void>,
): Promise<void> {
  let partMax = isPostQuantum(suite) ? ADDS_MAX_POST_QUANTUM : ADDS_MAX_CLASSICAL;
  for (let start = 0; start < adds.length;) {
    const part = adds.slice(start, start + partMax);
    try {
      await commit(part);
      start += part.length;
    } catch (error) {
      if (!(error instanceof CommitTooLarge) || part.length < 2) throw error;
      partMax = Math.ceil(part.length / 2);
    }
  }
}
