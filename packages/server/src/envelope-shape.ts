/**
 * What the server can see of an envelope (PROTOCOL 4): its first byte, its length, and whether wraps stand beside it. It
 * checks these, so that a mistaken client hears of it at once and not its recipients later.
 */
import { exactBytes } from './checks.ts';
import { invalidArgument, tooLarge } from './refusals.ts';
import type { BatchRecipient } from '@quicprochat/proto';

export const EnvelopeType = { direct: 0x01, shared: 0x02, group: 0x03 } as const;
export type EnvelopeType = (typeof EnvelopeType)[keyof typeof EnvelopeType];

/** A device's wrap of a content key: epk 32 ‖ ML-KEM ciphertext 1088 ‖ AES-256-GCM 48. */
export const WRAP_BYTES = 1_168;
/** Leaves room for the rest of a request, and of the push that delivers it, within 4 MiB. */
export const ENVELOPE_BYTES_MAX = 4 * 1024 * 1024 - 64 * 1024;

const TAG_BYTES = 16;
const BYTES_MIN: Record<EnvelopeType, number> = {
  [EnvelopeType.direct]: 1 + 32 + 1_088 + 12 + TAG_BYTES,
  [EnvelopeType.shared]: 1 + 32 + 12 + TAG_BYTES,
  [EnvelopeType.group]: 1 + 8 + 12 + TAG_BYTES,
};

/** The type of an envelope. @throws RpcError for what is none, or none of those allowed here */
export function envelopeType(payload: Uint8Array, ...allowed: readonly EnvelopeType[]): EnvelopeType {
  if (payload.length > ENVELOPE_BYTES_MAX) {
    throw tooLarge(`an envelope has at most ${ENVELOPE_BYTES_MAX} bytes`, 'Send it in parts.');
  }
  const type = payload[0] as EnvelopeType | undefined;
  if (type === undefined || !allowed.includes(type)) {
    throw invalidArgument(`the payload is not an envelope of type ${allowed.map((t) => `0${t}`).join(' or ')}`);
  }
  if (payload.length < BYTES_MIN[type]) throw invalidArgument(`an envelope of type 0${type} is longer than that`);
  return type;
}

/** The wrap beside one recipient: exactly one for a type-02 envelope, none otherwise. */
export function wrapFor(type: EnvelopeType, recipient: BatchRecipient): Uint8Array | undefined {
  if (type === EnvelopeType.shared) return exactBytes(recipient.wrap, WRAP_BYTES, 'a wrap');
  if (recipient.wrap.length > 0) throw invalidArgument('only an envelope of type 02 has wraps');
  return undefined;
}
