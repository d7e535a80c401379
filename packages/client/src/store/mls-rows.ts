/**
 * MLS group states as the small rows `@quicprochat/mls` reads and writes. A conversation has up to three groups: its own;
 * the successor that a pending ReInit of ours opens; and the predecessor that a ReInit closed, in which late messages are
 * still read.
 */
import type { RowChange, RowReader } from '@quicprochat/mls';
import type { Driver } from './driver.ts';
import { bytesOf, textOf } from './sql.ts';

export interface MlsRowStore {
  /** For `restoreGroup`; stays usable afterwards, the group reads further rows when it needs them. */
  reader(channelId: Uint8Array): RowReader;
  /** Applies `diffRows(previous, next)`. Call it inside the transaction that stores what follows from the change. */
  apply(channelId: Uint8Array, changes: readonly RowChange[]): void;
  /** Deletes the group's state: before a rejoin, or after one was removed. */
  clear(channelId: Uint8Array): void;
}

type Table = 'mls_rows' | 'successor_rows' | 'predecessor_rows';

/** Above every character a key may have. */
const AFTER_ALL_KEYS = '\u{10ffff}';

export function mlsRowStore(driver: Driver, table: Table): MlsRowStore {
  const get = driver.prepare(`SELECT bytes FROM ${table} WHERE channel_id = ? AND key = ?`);
  const list = driver.prepare(`SELECT key, bytes FROM ${table} WHERE channel_id = ? AND key >= ? AND key < ?`);
  const set = driver.prepare(
    `INSERT INTO ${table} (channel_id, key, bytes) VALUES (?, ?, ?)
     ON CONFLICT (channel_id, key) DO UPDATE SET bytes = excluded.bytes`,
  );
  const remove = driver.prepare(`DELETE FROM ${table} WHERE channel_id = ? AND key = ?`);
  const removePrefix = driver.prepare(`DELETE FROM ${table} WHERE channel_id = ? AND key >= ? AND key < ?`);
  const clear = driver.prepare(`DELETE FROM ${table} WHERE channel_id = ?`);

  function applyOne(channelId: Uint8Array, change: RowChange): void {
    switch (change.kind) {
      case 'set':
        set.run(channelId, change.key, change.bytes);
        return;
      case 'delete':
        remove.run(channelId, change.key);
        return;
      case 'deletePrefix':
        removePrefix.run(channelId, change.prefix, change.prefix + AFTER_ALL_KEYS);
    }
  }

  return {
    reader: (channelId) => ({
      get(key) {
        const row = get.get(channelId, key);
        return row && bytesOf(row, 'bytes');
      },
      list: (prefix) =>
        list
          .all(channelId, prefix, prefix + AFTER_ALL_KEYS)
          .map((row) => ({ key: textOf(row, 'key'), bytes: bytesOf(row, 'bytes') })),
    }),
    apply(channelId, changes) {
      driver.transaction(() => {
        for (const change of changes) applyOne(channelId, change);
      });
    },
    clear(channelId) {
      clear.run(channelId);
    },
  };
}
