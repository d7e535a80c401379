/**
 * Envelope type 01, for one device (PROTOCOL section 4). Carries a Welcome, a rejoin request or a device-link message.
 *
 *   01 ‖ epk 32 ‖ ct_M 1088 ‖ nonce 12 ‖ AES-256-GCM(key, nonce, AAD = all before it, padded plaintext)
 *
 * The key is bound to the recipient's hybrid key and address and to the channel: a copy sent to someone else, or on
 * another channel, does not open (THREATS 2, 3).
 */
import { type DeviceAddress, Misuse } from '@quicprochat/core';
import { concat, type CryptoProvider } from '@quicprochat/crypto';
import {
  ENVELOPE_BYTES_MAX,
  EnvelopeType,
  envelopeAead,
  kindTravelsIn,
  type OpenOutcome,
  type PayloadKind,
  refused,
  type SealContext,
} from './envelope.ts';
import { decapsulateKey, encapsulateKey, KEM_CIPHERTEXT_LENGTH, type KemBinding } from './key-encapsulation.ts';
import { pad, unpad } from './padding.ts';

const NONCE_LENGTH = 12;
const TAG_LENGTH = 16;
const HEADER_LENGTH = 1 + KEM_CIPHERTEXT_LENGTH + NONCE_LENGTH;
/** Bytes of a direct envelope beside the padded plaintext. */
export const DIRECT_OVERHEAD = HEADER_LENGTH + TAG_LENGTH;

export interface DirectRecipient {
  readonly address: DeviceAddress;
  /** The device's verified hybrid key, 1216 bytes. */
  readonly hybridKey: Uint8Array;
}

/**
 * @param channelId 16 bytes, or empty for what belongs to no channel
 * @throws Misuse when the kind does not travel in this envelope or the body is too long
 * @throws CryptoError when the hybrid key is malformed
 */
export function sealDirect(
  { crypto, random }: SealContext,
  recipient: DirectRecipient,
  channelId: Uint8Array,
  payloadKind: PayloadKind,
  body: Uint8Array,
): Uint8Array {
  if (!kindTravelsIn(payloadKind, EnvelopeType.Direct)) throw new Misuse('kind does not travel in type 01');
  const plaintext = pad(payloadKind, body, DIRECT_OVERHEAD);
  const { ciphertext, key } = encapsulateKey(crypto, recipient.hybridKey, binding(recipient.address, channelId));
  const nonce = random(NONCE_LENGTH);
  const header = concat(new Uint8Array([EnvelopeType.Direct]), ciphertext, nonce);
  const sealed = envelopeAead(crypto).seal(key, nonce, header, plaintext);
  crypto.wipe(key);
  crypto.wipe(plaintext);
  return concat(header, sealed);
}

export interface DirectOpening {
  /** This device. */
  readonly address: DeviceAddress;
  /** Private half of one of this device's hybrid keys, 32 bytes. Several may be alive: try each, newest first. */
  readonly hybridPrivateKey: Uint8Array;
  /** The channel the envelope came on, 16 bytes or empty. */
  readonly channelId: Uint8Array;
}

export function openDirect(crypto: CryptoProvider, opening: DirectOpening, envelope: Uint8Array): OpenOutcome {
  if (envelope.length < DIRECT_OVERHEAD || envelope.length > ENVELOPE_BYTES_MAX) return refused('malformed');
  if (envelope[0] !== EnvelopeType.Direct) return refused('malformed');
  const ciphertext = envelope.subarray(1, 1 + KEM_CIPHERTEXT_LENGTH);
  const key = decapsulateKey(crypto, opening.hybridPrivateKey, ciphertext, binding(opening.address, opening.channelId));
  if (key === undefined) return refused('malformed');
  const header = envelope.subarray(0, HEADER_LENGTH);
  const nonce = envelope.subarray(HEADER_LENGTH - NONCE_LENGTH, HEADER_LENGTH);
  const plaintext = envelopeAead(crypto).open(key, nonce, header, envelope.subarray(HEADER_LENGTH));
  crypto.wipe(key);
  if (plaintext === undefined) return refused('notAuthentic');
  const outcome = unpad(plaintext, DIRECT_OVERHEAD, EnvelopeType.Direct);
  crypto.wipe(plaintext);
  return outcome;
}

function binding(address: DeviceAddress, channelId: Uint8Array): KemBinding {
  return { type: EnvelopeType.Direct, address, channelId };
}
