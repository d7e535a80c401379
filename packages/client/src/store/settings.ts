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
}

export interface EvidenceStore {
  add(evidence: Omit<Evidence, 'id'>): number;
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
  return {
    add: ({ channelId, kind, summary, data, atMs }) =>
      Number(add.run(channelId ?? null, kind, summary, data, atMs).lastInsertRowid),
    list: (limit) =>
      list.all(limit).map((row) => ({
        id: numberOf(row, 'id'),
        channelId: optional(bytesOf, row, 'channel_id'),
        kind: textOf(row, 'kind'),
        summary: textOf(row, 'summary'),
        data: bytesOf(row, 'data'),
        atMs: numberOf(row, 'at'),
      })),
  };
}
