/** Ratchet trees that travel as blobs: one to upload with a pending commit, and what waits for one to be downloaded. */
import type { Driver } from './driver.ts';
import { booleanOf, bytesOf, numberOf } from './sql.ts';

interface TreeUpload {
  /** SHA-256 of `blob`, 32 bytes. */
  readonly blobId: Uint8Array;
  readonly blob: Uint8Array;
}

export interface TreeStore {
  /** The tree that has to be at the server before the channel's pending commit is; undefined when it is, or none is. */
  pendingUpload(channelId: Uint8Array): TreeUpload | undefined;
  /** Of the pending commit that is stored; with undefined it has none. */
  setPendingUpload(channelId: Uint8Array, upload: TreeUpload | undefined): void;
  uploaded(channelId: Uint8Array): void;

  /** What a channel is held up by, as `encodeTreeReference` gives it; undefined when it is not. */
  wanted(channelId: Uint8Array): Uint8Array | undefined;
  /** Channels that are held up, the one waiting longest first. */
  channels(): readonly Uint8Array[];
  hold(channelId: Uint8Array, reference: Uint8Array, nowMs: number): void;
  /** With all its rows. */
  release(channelId: Uint8Array): void;
  addRow(channelId: Uint8Array, row: Uint8Array): void;
  /** In the order in which they came. */
  rows(channelId: Uint8Array): readonly { readonly id: number; readonly row: Uint8Array }[];
  removeRow(id: number): void;
}

export function treeStore(driver: Driver): TreeStore {
  const pendingUpload = driver.prepare('SELECT blob_id, blob, uploaded FROM tree_uploads WHERE channel_id = ?');
  const setUpload = driver.prepare(
    `INSERT INTO tree_uploads (channel_id, blob_id, blob, uploaded) VALUES (?, ?, ?, 0)
     ON CONFLICT (channel_id) DO UPDATE SET blob_id = excluded.blob_id, blob = excluded.blob, uploaded = 0`,
  );
  const clearUpload = driver.prepare('DELETE FROM tree_uploads WHERE channel_id = ?');
  const markUploaded = driver.prepare('UPDATE tree_uploads SET uploaded = 1 WHERE channel_id = ?');
  const wanted = driver.prepare('SELECT reference FROM tree_downloads WHERE channel_id = ?');
  const channels = driver.prepare('SELECT channel_id FROM tree_downloads ORDER BY wanted_at, channel_id');
  const hold = driver.prepare(
    `INSERT INTO tree_downloads (channel_id, reference, wanted_at) VALUES (?, ?, ?)
     ON CONFLICT (channel_id) DO UPDATE SET reference = excluded.reference`,
  );
  const release = driver.prepare('DELETE FROM tree_downloads WHERE channel_id = ?');
  const addRow = driver.prepare('INSERT INTO held_rows (channel_id, row) VALUES (?, ?)');
  const rows = driver.prepare('SELECT id, row FROM held_rows WHERE channel_id = ? ORDER BY id');
  const removeRow = driver.prepare('DELETE FROM held_rows WHERE id = ?');
  return {
    pendingUpload(channelId) {
      const row = pendingUpload.get(channelId);
      if (row === undefined || booleanOf(row, 'uploaded')) return undefined;
      return { blobId: bytesOf(row, 'blob_id'), blob: bytesOf(row, 'blob') };
    },
    setPendingUpload(channelId, upload) {
      if (upload === undefined) clearUpload.run(channelId);
      else setUpload.run(channelId, upload.blobId, upload.blob);
    },
    uploaded(channelId) {
      markUploaded.run(channelId);
    },
    wanted(channelId) {
      const row = wanted.get(channelId);
      return row && bytesOf(row, 'reference');
    },
    channels: () => channels.all().map((row) => bytesOf(row, 'channel_id')),
    hold(channelId, reference, nowMs) {
      hold.run(channelId, reference, nowMs);
    },
    release(channelId) {
      release.run(channelId);
    },
    addRow(channelId, row) {
      addRow.run(channelId, row);
    },
    rows: (channelId) => rows.all(channelId).map((row) => ({ id: numberOf(row, 'id'), row: bytesOf(row, 'row') })),
    removeRow(id) {
      removeRow.run(id);
    },
  };
}
