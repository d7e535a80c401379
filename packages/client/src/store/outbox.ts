/**
 * What waits to be sent, in order within each conversation. An entry holds the body (content bytes, or another payload's)
 * and, once protected, the envelope as it will be sent: repeats send the same bytes under the same message id. An entry
 * that was never tried when the epoch moves is protected anew (PROTOCOL section 9); one that was tried is not, the server
 * may have it.
 */
import { decodeAddress, type DeviceAddress, encodeAddress } from '@quicprochat/core';
import type { Driver, SqlRow } from './driver.ts';
import { damaged } from './local-state-error.ts';
import { bigintOf, bytesOf, numberOf, optional } from './sql.ts';

export interface Protection {
  /** 16 bytes, UUIDv7. */
  readonly messageId: Uint8Array;
  /** The whole sealed envelope. */
  readonly envelope: Uint8Array;
  /** Position of the epoch it was made in; 0n where there is no group. */
  readonly position: bigint;
}

export interface OutboxEntry {
  readonly id: number;
  readonly channelId: Uint8Array;
  /** One device; undefined = the channel's whole roster. */
  readonly recipient: DeviceAddress | undefined;
  /** `PayloadKind` of message/envelope.ts. */
  readonly payloadKind: number;
  /** Content bytes, or the body of another kind of payload. */
  readonly body: Uint8Array;
  /** The message it sends, when it is one. */
  readonly localId: number | undefined;
  readonly protection: Protection | undefined;
  /** How often it was sent; above 0 the server may have it. */
  readonly attempts: number;
  readonly createdAtMs: number;
}

export interface OutboxStore {
  /** Appends to its conversation's queue. Returns the entry's id. */
  add(entry: Omit<OutboxEntry, 'id' | 'attempts'>): number;
  get(id: number): OutboxEntry | undefined;
  /** The entry to send next in this conversation. */
  first(channelId: Uint8Array): OutboxEntry | undefined;
  /** A conversation's queue in order. */
  list(channelId: Uint8Array): readonly OutboxEntry[];
  /** Conversations that have something queued, the one waiting longest first. */
  channels(): readonly Uint8Array[];
  /** Number of entries, of all conversations or of one. */
  count(channelId?: Uint8Array): number;
  protect(id: number, protection: Protection): void;
  /**
   * The epoch moved: entries made in another one and never sent lose their protection. Returns how many, so that their
   * messages can be protected again.
   */
  dropUnsentProtection(channelId: Uint8Array, position: bigint): number;
  /** Counts one more attempt: call it, committed, before the bytes leave. */
  countAttempt(id: number): void;
  remove(id: number): void;
}

export function outboxStore(driver: Driver): OutboxStore {
  const add = driver.prepare(
    `INSERT INTO outbox
       (channel_id, recipient, payload_kind, body, local_id, message_id, envelope, position, attempts, created_at)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?)`,
  );
  const get = driver.prepare('SELECT * FROM outbox WHERE id = ?');
  const first = driver.prepare('SELECT * FROM outbox WHERE channel_id = ? ORDER BY id LIMIT 1');
  const list = driver.prepare('SELECT * FROM outbox WHERE channel_id = ? ORDER BY id');
  const channels = driver.prepare('SELECT channel_id FROM outbox GROUP BY channel_id ORDER BY min(id)');
  const countAll = driver.prepare('SELECT count(*) AS n FROM outbox');
  const countIn = driver.prepare('SELECT count(*) AS n FROM outbox WHERE channel_id = ?');
  const protect = driver.prepare('UPDATE outbox SET message_id = ?, envelope = ?, position = ? WHERE id = ?');
  const dropProtection = driver.prepare(
    `UPDATE outbox SET message_id = NULL, envelope = NULL, position = NULL
     WHERE channel_id = ? AND recipient IS NULL AND attempts = 0 AND envelope IS NOT NULL AND position <> ?`,
  );
  const countAttempt = driver.prepare('UPDATE outbox SET attempts = attempts + 1 WHERE id = ?');
  const remove = driver.prepare('DELETE FROM outbox WHERE id = ?');

  return {
    add({ channelId, recipient, payloadKind, body, localId, protection, createdAtMs }) {
      const { lastInsertRowid } = add.run(
        channelId,
        recipient === undefined ? null : encodeAddress(recipient),
        payloadKind,
        body,
        localId ?? null,
        protection?.messageId ?? null,
        protection?.envelope ?? null,
        protection?.position ?? null,
        createdAtMs,
      );
      return Number(lastInsertRowid);
    },
    get(id) {
      const row = get.get(id);
      return row && entryOf(row);
    },
    first(channelId) {
      const row = first.get(channelId);
      return row && entryOf(row);
    },
    list: (channelId) => list.all(channelId).map(entryOf),
    channels: () => channels.all().map((row) => bytesOf(row, 'channel_id')),
    count: (channelId) => numberOf((channelId ? countIn.get(channelId) : countAll.get()) ?? {}, 'n'),
    protect(id, { messageId, envelope, position }) {
      protect.run(messageId, envelope, position, id);
    },
    dropUnsentProtection: (channelId, position) => dropProtection.run(channelId, position).changes,
    countAttempt(id) {
      countAttempt.run(id);
    },
    remove(id) {
      remove.run(id);
    },
  };
}

function entryOf(row: SqlRow): OutboxEntry {
  const recipient = optional(bytesOf, row, 'recipient');
  const address = recipient && decodeAddress(recipient);
  if (recipient !== undefined && address === undefined) throw damaged('The outbox holds a malformed address.');
  const envelope = optional(bytesOf, row, 'envelope');
  return {
    id: numberOf(row, 'id'),
    channelId: bytesOf(row, 'channel_id'),
    recipient: address,
    payloadKind: numberOf(row, 'payload_kind'),
    body: bytesOf(row, 'body'),
    localId: optional(numberOf, row, 'local_id'),
    protection: envelope && { envelope, messageId: bytesOf(row, 'message_id'), position: bigintOf(row, 'position') },
    attempts: numberOf(row, 'attempts'),
    createdAtMs: numberOf(row, 'created_at'),
  };
}
