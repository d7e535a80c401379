/** Settings of this profile, and evidence kept for the user. */
import type { Driver } from './driver.ts';
import { bytesOf, numberOf, optional, textOf } from './sql.ts';

export interface SettingsStore {
  get(key: string): string | undefined;
  /** With undefined the setting is deleted. */
  set(key: string, value: string | undefined): void;
}

interface Evidence {
  readonly id: number;
  readonly channelId: Uint8Array | undefined;
  /** What it shows, for programs: `log-mismatch`, `roster-mismatch`, `identity-changed`, … */
  readonly kind: string;
  /** One line for the user. */
  readonly summary: string;
  /** The statements or envelopes themselves. */
  readonly data: Uint8Array;
  readonly atMs: number;
  /** How many of the same kind and channel came between this one and the one before it, and were not kept. */
  readonly leftOut: number;
}

/** Of one kind in one channel; what lies between goes. */
const FIRST_KEPT = 8;
const NEWEST_KEPT = 24;

export interface EvidenceStore {
  /** Keeps it; of one kind in one channel (or in none) the first and the newest, as there may be no end of them. */
  add(evidence: Omit<Evidence, 'id' | 'leftOut'>): number;
  /** Newest first. */
  list(limit: number): readonly Evidence[];
}

export function settingsStore(driver: Driver): SettingsStore {
  const get = driver.prepare('SELECT value FROM settings WHERE key = ?');
  const set = driver.prepare(
    'INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value',
  );
  const remove = driver.prepare('DELETE FROM settings WHERE key = ?');
  return {
    get(key) {
      const row = get.get(key);
      return row && textOf(row, 'value');
    },
    set(key, value) {
      if (value === undefined) remove.run(key);
      else set.run(key, value);
    },
  };
}

export function evidenceStore(driver: Driver): EvidenceStore {
  const add = driver.prepare('INSERT INTO evidence (channel_id, kind, summary, data, at) VALUES (?, ?, ?, ?, ?)');
  const list = driver.prepare('SELECT * FROM evidence ORDER BY id DESC LIMIT ?');
  const firstOfNewest = driver.prepare(
    `SELECT id, left_out FROM evidence WHERE kind = ? AND channel_id IS ? ORDER BY id LIMIT 2 OFFSET ${FIRST_KEPT}`,
  );
  const countAlike = driver.prepare('SELECT count(*) AS n FROM evidence WHERE kind = ? AND channel_id IS ?');
  const remove = driver.prepare('DELETE FROM evidence WHERE id = ?');
  const leaveOut = driver.prepare('UPDATE evidence SET left_out = left_out + ? WHERE id = ?');
  return {
    add({ channelId, kind, summary, data, atMs }) {
      const channel = channelId ?? null;
      const { lastInsertRowid } = add.run(channel, kind, summary, data, atMs);
      let tooMany = numberOf(countAlike.get(kind, channel) ?? {}, 'n') - FIRST_KEPT - NEWEST_KEPT;
      // A profile from before there was a bound may have many.
      for (; tooMany > 0; tooMany--) {
        const [oldest, next] = firstOfNewest.all(kind, channel);
        remove.run(numberOf(oldest!, 'id'));
        leaveOut.run(numberOf(oldest!, 'left_out') + 1, numberOf(next!, 'id'));
      }
      return Number(lastInsertRowid);
    },
    list: (limit) =>
      list.all(limit).map((row) => ({
        id: numberOf(row, 'id'),
        channelId: optional(bytesOf, row, 'channel_id'),
        kind: textOf(row, 'kind'),
        summary: textOf(row, 'summary'),
        data: bytesOf(row, 'data'),
        atMs: numberOf(row, 'at'),
        leftOut: numberOf(row, 'left_out'),
      })),
  };
}
