/**
 * What a database has to be told that was put back, because things went on after it was copied:
 *
 * - Devices have read on. Counted on from the copy, inboxes would give out positions again that a device has behind it, and
 *   it would pass over what comes in them.
 * - KeyPackages have been handed out. Handed out again they would open nothing: their private halves are used and gone.
 *   Devices publish new ones when they come; until then there is the one of last resort.
 */
import { type DatabaseFile, openDatabase, translated } from './sqlite-database.node.ts';

const CACHE_KIB = 16 * 1024;
/**
 * A restored inbox begins where the seconds since 1970 put it, as the same backup may be restored again after the first
 * restoration has given out positions. No inbox gets so many in a second; the numbers last until the year 2106, and stay
 * below what SQLite and doubles both hold exactly.
 */
const POSITIONS_A_SECOND = 2 ** 20;
const SECONDS_MAX = 2 ** 32;
/** And at least so far above the backup, where the clock is wrong: more than an inbox can have got in the meantime. */
const SEQ_JUMP = 2 ** 32;
/** In `gap_reason`, beside 0 full and 1 expired, over which it goes: devices do more about it. */
const GAP_RESTORED = 2;

/** Leaves nothing to be given out that may have been given out before, and lets devices know. @throws StoreError */
export function markRestored(file: DatabaseFile, nowMs: number): void {
  const seconds = Math.min(Math.max(0, Math.floor(nowMs / 1000)), SECONDS_MAX);
  const db = openDatabase(file, { cacheKiB: CACHE_KIB });
  try {
    db.prepare(
      `UPDATE head SET gap_reason = ?, gap_since = coalesce(gap_since, next_seq),
         gap_losses = gap_losses + 1, next_seq = max(next_seq + ?, ?)`,
    ).run(GAP_RESTORED, SEQ_JUMP, seconds * POSITIONS_A_SECOND);
    db.prepare('UPDATE key_package SET state = 1, data = NULL WHERE state = 0 AND last_resort = 0').run();
    // Without a log beside it, so that the file can be given its name.
    db.pragma('journal_mode = DELETE');
  } catch (error) {
    throw translated(error);
  } finally {
    db.close();
  }
}
