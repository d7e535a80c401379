/** Message ids are UUIDv7 (RFC 9562 section 5.7), 16 bytes: 48 bits of milliseconds, then random bits. */
import { Misuse } from '@quicprochat/core';

const TIME_MS_MAX = 2 ** 48;

/**
 * @param nowMs milliseconds since 1970
 * @param random cryptographically random bytes
 */
export function createMessageId(nowMs: number, random: (length: number) => Uint8Array): Uint8Array {
  if (!Number.isInteger(nowMs) || nowMs < 0 || nowMs >= TIME_MS_MAX) throw new Misuse('no time for a message id');
  const id = new Uint8Array(16);
  id.set(random(10), 6);
  const view = new DataView(id.buffer);
  view.setUint16(0, Math.floor(nowMs / 2 ** 32));
  view.setUint32(2, nowMs % 2 ** 32);
  id[6] = 0x70 | (id[6]! & 0x0f);
  id[8] = 0x80 | (id[8]! & 0x3f);
  return id;
}

/** Whether these bytes are a UUIDv7. */
export function isMessageId(bytes: Uint8Array): boolean {
  return bytes.length === 16 && bytes[6]! >> 4 === 7 && bytes[8]! >> 6 === 2;
}
