/**
 * Envelope type 02, for several devices without a common group (PROTOCOL section 4): one body under a random content key,
 * and per device a wrap of that key, which the server hands to that device only.
 *
 *   envelope: 02 ‖ commitment 32 ‖ nonce 12 ‖ AES-256-GCM(k, nonce, AAD = all before it, padded plaintext)
 *   wrap:     epk 32 ‖ ct_M 1088 ‖ AES-256-GCM(content key 32), nonce zero, AAD = epk ‖ ct_M            1,168 bytes
 *   (k, commitment) = HKDF-SHA-256("", content key, label, 64)
 *
 * AES-GCM alone would let a sender make one ciphertext that opens to different bodies under different keys; the
 * commitment, compared before anything is decrypted, fixes the content key (THREATS 38).
 */
import { type DeviceAddress, Label, Misuse } from '@quicprochat/core';
import { concat, type CryptoProvider, EMPTY } from '@quicprochat/crypto';
import type { DirectRecipient } from './envelope-direct.ts';
import {
  ENVELOPE_BYTES_MAX,
  EnvelopeType,
  envelopeAead,
  hkdf,
  kindTravelsIn,
  type OpenOutcome,
  type PayloadKind,
  refused,
  type SealContext,
} from './envelope.ts';
import { decapsulateKey, encapsulateKey, KEM_CIPHERTEXT_LENGTH, type KemBinding } from './key-encapsulation.ts';
import { pad, unpad } from './padding.ts';

const COMMITMENT_LENGTH = 32;
const CONTENT_KEY_LENGTH = 32;
const NONCE_LENGTH = 12;
const TAG_LENGTH = 16;
const HEADER_LENGTH = 1 + COMMITMENT_LENGTH + NONCE_LENGTH;
/** Bytes of a shared envelope beside the padded plaintext. */
export const SHARED_OVERHEAD = HEADER_LENGTH + TAG_LENGTH;
/** One device's wrap. */
export const WRAP_LENGTH = KEM_CIPHERTEXT_LENGTH + CONTENT_KEY_LENGTH + TAG_LENGTH;

/** Each wrap's key is used for this one encryption only. */
const WRAP_NONCE = new Uint8Array(NONCE_LENGTH);

export interface SharedEnvelope {
  /** The same for all recipients. */
  readonly envelope: Uint8Array;
  /** What the envelope commits to; a commit that renews the post-quantum salt names it in its authenticated_data. */
  readonly commitment: Uint8Array;
  /** In the order of the recipients given. */
  readonly wraps: readonly { readonly address: DeviceAddress; readonly wrap: Uint8Array }[];
}

/**
 * @param channelId 16 bytes, or empty for what belongs to no channel
 * @throws Misuse when the kind does not travel in this envelope or the body is too long
 * @throws CryptoError when a hybrid key is malformed
 */
export function sealShared(
  { crypto, random }: SealContext,
  recipients: readonly DirectRecipient[],
  channelId: Uint8Array,
  payloadKind: PayloadKind,
  body: Uint8Array,
): SharedEnvelope {
  if (!kindTravelsIn(payloadKind, EnvelopeType.Shared)) throw new Misuse('kind does not travel in type 02');
  const plaintext = pad(payloadKind, body, SHARED_OVERHEAD);
  const contentKey = random(CONTENT_KEY_LENGTH);
  const { key, commitment } = deriveKeys(crypto, contentKey);
  const header = concat(new Uint8Array([EnvelopeType.Shared]), commitment, random(NONCE_LENGTH));
  const nonce = header.subarray(HEADER_LENGTH - NONCE_LENGTH);
  const envelope = concat(header, envelopeAead(crypto).seal(key, nonce, header, plaintext));
  const wraps = recipients.map((recipient) => ({
    address: recipient.address,
    wrap: sealWrap(crypto, recipient, channelId, contentKey),
  }));
  for (const secret of [key, plaintext, contentKey]) crypto.wipe(secret);
  return { envelope, commitment, wraps };
}

export interface SharedOpening {
  /** This device. */
  readonly address: DeviceAddress;
  /** Private half of one of this device's hybrid keys, 32 bytes. Several may be alive: try each, newest first. */
  readonly hybridPrivateKey: Uint8Array;
  /** The channel the envelope came on, 16 bytes or empty. */
  readonly channelId: Uint8Array;
  /** This device's wrap as the server gave it. */
  readonly wrap: Uint8Array;
  /** The commitment the envelope must have, where something else names it (a commit's authenticated_data). */
  readonly expectedCommitment?: Uint8Array;
}

export function openShared(crypto: CryptoProvider, opening: SharedOpening, envelope: Uint8Array): OpenOutcome {
  if (envelope.length < SHARED_OVERHEAD || envelope.length > ENVELOPE_BYTES_MAX) return refused('malformed');
  if (envelope[0] !== EnvelopeType.Shared || opening.wrap.length !== WRAP_LENGTH) return refused('malformed');
  const commitment = envelope.subarray(1, 1 + COMMITMENT_LENGTH);
  if (opening.expectedCommitment !== undefined && !crypto.equal(opening.expectedCommitment, commitment)) {
    return refused('commitment');
  }
  const contentKey = openWrap(crypto, opening);
  if (contentKey === undefined) return refused('notAuthentic');
  const derived = deriveKeys(crypto, contentKey);
  crypto.wipe(contentKey);
  if (!crypto.equal(derived.commitment, commitment)) {
    crypto.wipe(derived.key);
    return refused('commitment');
  }
  const header = envelope.subarray(0, HEADER_LENGTH);
  const nonce = header.subarray(HEADER_LENGTH - NONCE_LENGTH);
  const plaintext = envelopeAead(crypto).open(derived.key, nonce, header, envelope.subarray(HEADER_LENGTH));
  crypto.wipe(derived.key);
  if (plaintext === undefined) return refused('notAuthentic');
  const outcome = unpad(plaintext, SHARED_OVERHEAD, EnvelopeType.Shared);
  crypto.wipe(plaintext);
  return outcome;
}

/** The commitment in the header of a shared envelope; undefined when it is no such envelope. */
export function sharedCommitment(envelope: Uint8Array): Uint8Array | undefined {
  if (envelope.length < SHARED_OVERHEAD || envelope[0] !== EnvelopeType.Shared) return undefined;
  return envelope.slice(1, 1 + COMMITMENT_LENGTH);
}

function sealWrap(
  crypto: CryptoProvider,
  recipient: DirectRecipient,
  channelId: Uint8Array,
  contentKey: Uint8Array,
): Uint8Array {
  const { ciphertext, key } = encapsulateKey(crypto, recipient.hybridKey, binding(recipient.address, channelId));
  const sealed = envelopeAead(crypto).seal(key, WRAP_NONCE, ciphertext, contentKey);
  crypto.wipe(key);
  return concat(ciphertext, sealed);
}

function openWrap(
  crypto: CryptoProvider,
  { address, hybridPrivateKey, channelId, wrap }: SharedOpening,
): Uint8Array | undefined {
  const ciphertext = wrap.subarray(0, KEM_CIPHERTEXT_LENGTH);
  const key = decapsulateKey(crypto, hybridPrivateKey, ciphertext, binding(address, channelId));
  if (key === undefined) return undefined;
  const contentKey = envelopeAead(crypto).open(key, WRAP_NONCE, ciphertext, wrap.subarray(KEM_CIPHERTEXT_LENGTH));
  crypto.wipe(key);
  return contentKey;
}

function deriveKeys(crypto: CryptoProvider, contentKey: Uint8Array): { key: Uint8Array; commitment: Uint8Array } {
  const okm = hkdf(crypto, EMPTY, contentKey, Label.sharedContentKey, 64);
  const key = okm.slice(0, 32);
  const commitment = okm.slice(32);
  crypto.wipe(okm);
  return { key, commitment };
}

function binding(address: DeviceAddress, channelId: Uint8Array): KemBinding {
  return { type: EnvelopeType.Shared, address, channelId };
}
