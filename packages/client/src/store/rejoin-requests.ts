/** Requests to be added to a channel again (PROTOCOL section 4): our own open ones, and those others sent us. */
import type { DeviceAddress } from '@quicprochat/core';
import type { Driver } from './driver.ts';
import { booleanOf, bytesOf, numberOf } from './sql.ts';

interface OwnRejoinRequest {
  readonly nonce: Uint8Array;
  readonly requestedAtMs: number;
}

export interface ReceivedRejoinRequest {
  readonly channelId: Uint8Array;
  readonly device: DeviceAddress;
  readonly nonce: Uint8Array;
  /** The requester's clock. */
  readonly requestedAtMs: number;
  /** We committed the Remove and Add. */
  readonly handled: boolean;
}

export interface RejoinRequestStore {
  /** The open request for a channel: with one, a Welcome for a known channel is accepted. */
  own(channelId: Uint8Array): OwnRejoinRequest | undefined;
  saveOwn(channelId: Uint8Array, request: OwnRejoinRequest): void;
  clearOwn(channelId: Uint8Array): void;
  /**
   * Stores a verified request; a newer one of the same device replaces the older.
   * @returns false when it is not newer than what is known: a replay
   */
  receive(request: Omit<ReceivedRejoinRequest, 'handled'>): boolean;
  /** Requests that are still to be handled. */
  open(channelId: Uint8Array): readonly ReceivedRejoinRequest[];
  markHandled(channelId: Uint8Array, device: DeviceAddress): void;
  /** Deletes requests made before `beforeMs`, own and received. */
  deleteExpired(beforeMs: number): void;
}

export function rejoinRequestStore(driver: Driver): RejoinRequestStore {
  const own = driver.prepare('SELECT nonce, requested_at FROM rejoin_own WHERE channel_id = ?');
  const saveOwn = driver.prepare(
    `INSERT INTO rejoin_own (channel_id, nonce, requested_at) VALUES (?, ?, ?)
     ON CONFLICT (channel_id) DO UPDATE SET nonce = excluded.nonce, requested_at = excluded.requested_at`,
  );
  const clearOwn = driver.prepare('DELETE FROM rejoin_own WHERE channel_id = ?');
  const receive = driver.prepare(
    `INSERT INTO rejoin_received (channel_id, identity_key, device_id, nonce, requested_at, handled)
     VALUES (?, ?, ?, ?, ?, 0)
     ON CONFLICT (channel_id, identity_key, device_id)
     DO UPDATE SET nonce = excluded.nonce, requested_at = excluded.requested_at, handled = 0
     WHERE excluded.requested_at > requested_at`,
  );
  const open = driver.prepare(
    'SELECT * FROM rejoin_received WHERE channel_id = ? AND handled = 0 ORDER BY requested_at',
  );
  const markHandled = driver.prepare(
    'UPDATE rejoin_received SET handled = 1 WHERE channel_id = ? AND identity_key = ? AND device_id = ?',
  );
  const expireOwn = driver.prepare('DELETE FROM rejoin_own WHERE requested_at < ?');
  const expireReceived = driver.prepare('DELETE FROM rejoin_received WHERE requested_at < ?');

  return {
    own(channelId) {
      const row = own.get(channelId);
      return row && { nonce: bytesOf(row, 'nonce'), requestedAtMs: numberOf(row, 'requested_at') };
    },
    saveOwn(channelId, { nonce, requestedAtMs }) {
      saveOwn.run(channelId, nonce, requestedAtMs);
    },
    clearOwn(channelId) {
      clearOwn.run(channelId);
    },
    receive: ({ channelId, device, nonce, requestedAtMs }) =>
      receive.run(channelId, device.identityKey, device.deviceId, nonce, requestedAtMs).changes === 1,
    open: (channelId) =>
      open.all(channelId).map((row) => ({
        channelId: bytesOf(row, 'channel_id'),
        device: { identityKey: bytesOf(row, 'identity_key'), deviceId: bytesOf(row, 'device_id') },
        nonce: bytesOf(row, 'nonce'),
        requestedAtMs: numberOf(row, 'requested_at'),
        handled: booleanOf(row, 'handled'),
      })),
    markHandled(channelId, { identityKey, deviceId }) {
      markHandled.run(channelId, identityKey, deviceId);
    },
    deleteExpired(beforeMs) {
      driver.transaction(() => {
        expireOwn.run(beforeMs);
        expireReceived.run(beforeMs);
      });
    },
  };
}
