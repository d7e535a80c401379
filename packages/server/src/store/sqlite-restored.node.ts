/**
 * What a database has to be told that was put back: devices may have read on since it was copied. Counted on from there,
 * inboxes would give out positions again that a device has behind it, and it would pass over what comes in them.
 */
import { type DatabaseFile, openDatabase, translated } from './sqlite-database.node.ts';

const CACHE_KIB = 16 * 1024;
/** More than any inbox can have got in the meantime; there is room for two million restorations. */
const SEQ_JUMP = 2 ** 32;
/** In `gap_reason`, beside 0 full and 1 expired. */
const GAP_RESTORED = 2;

/** Moves every inbox on to positions that were never given out, and lets its device know. @throws StoreError */
export function markRestored(file: DatabaseFile): void {
  const db = openDatabase(file, { cacheKiB: CACHE_KIB });
  try {
    db.prepare(
      `UPDATE head SET gap_reason = coalesce(gap_reason, ?), gap_since = coalesce(gap_since, next_seq),
         gap_losses = gap_losses + 1, next_seq = next_seq + ?`,
    ).run(GAP_RESTORED, SEQ_JUMP);
    // Without a log beside it, so that the file can be given its name.
    db.pragma('journal_mode = DELETE');
  } catch (error) {
    throw translated(error);
  } finally {
    db.close();
  }
}
