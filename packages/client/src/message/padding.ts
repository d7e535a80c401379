/**
 * Padding (PROTOCOL section 4): plaintext = kind u8 ‖ length u32 ‖ body ‖ zeros, so long that the whole envelope, its
 * overhead included, fills a bucket: 512 bytes doubling to 64 KiB, then multiples of 64 KiB. One body length has one
 * padded length, and opening accepts no other, so the server learns the bucket and nothing finer (THREATS 14).
 */
import { Misuse } from '@quicprochat/core';
import { readU32 } from '@quicprochat/crypto';
import {
  ENVELOPE_BYTES_MAX,
  type EnvelopeType,
  isPayloadKind,
  kindTravelsIn,
  type OpenOutcome,
  type PayloadKind,
  refused,
} from './envelope.ts';

const BUCKET_MIN = 512;
const BUCKET_STEP = 64 * 1024;
const HEADER_LENGTH = 5;

/** The bucket that holds `length` bytes. */
export function bucketFor(length: number): number {
  if (length > BUCKET_STEP) return Math.ceil(length / BUCKET_STEP) * BUCKET_STEP;
  let bucket = BUCKET_MIN;
  while (bucket < length) bucket *= 2;
  return bucket;
}

/** Longest body an envelope with this overhead can carry. */
export function bodyBytesMax(overhead: number): number {
  return ENVELOPE_BYTES_MAX - overhead - HEADER_LENGTH;
}

/**
 * @param overhead bytes of the envelope that are not this plaintext: header and tag
 * @returns a new array; wipe it after sealing
 * @throws Misuse when the body is too long for any envelope
 */
export function pad(payloadKind: PayloadKind, body: Uint8Array, overhead: number): Uint8Array {
  if (body.length > bodyBytesMax(overhead)) throw new Misuse('body too long for an envelope');
  const plaintext = new Uint8Array(bucketFor(overhead + HEADER_LENGTH + body.length) - overhead);
  plaintext[0] = payloadKind;
  new DataView(plaintext.buffer).setUint32(1, body.length);
  plaintext.set(body, HEADER_LENGTH);
  return plaintext;
}

/** Checks kind, length, every zero and the bucket of a decrypted plaintext; the body is copied out. */
export function unpad(plaintext: Uint8Array, overhead: number, type: EnvelopeType): OpenOutcome {
  if (plaintext.length < HEADER_LENGTH) return refused('padding');
  const length = readU32(plaintext, 1);
  if (length > plaintext.length - HEADER_LENGTH) return refused('padding');
  if (bucketFor(overhead + HEADER_LENGTH + length) !== overhead + plaintext.length) return refused('padding');
  let rest = 0;
  for (let i = HEADER_LENGTH + length; i < plaintext.length; i++) rest |= plaintext[i]!;
  if (rest !== 0) return refused('padding');
  const payloadKind = plaintext[0]!;
  if (!isPayloadKind(payloadKind) || !kindTravelsIn(payloadKind, type)) return refused('kind');
  return { kind: 'opened', payloadKind, body: plaintext.slice(HEADER_LENGTH, HEADER_LENGTH + length) };
}
