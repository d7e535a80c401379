/**
 * The KEM step of the direct envelope and of a shared envelope's wrap (PROTOCOL section 4): X-Wing to one device's hybrid
 * key, then HKDF over everything that says for whom and where. X-Wing writes ct_M ‖ ct_X; our wire has epk = ct_X first:
 * swapped here and nowhere else.
 *
 *   key = HKDF-SHA-256("", X-Wing secret, label ‖ type ‖ epk ‖ ct_M ‖ SHA-256(public key) ‖ address ‖ channel id, 32)
 */
import { CHANNEL_ID_BYTES, type DeviceAddress, encodeAddress, Label, Misuse } from '@quicprochat/core';
import { concat, type CryptoProvider, EMPTY, KemId } from '@quicprochat/crypto';
import { type EnvelopeType, hkdf } from './envelope.ts';

const CT_X_LENGTH = 32;
const CT_M_LENGTH = 1088;
/** epk 32 ‖ ct_M 1088. */
export const KEM_CIPHERTEXT_LENGTH = CT_X_LENGTH + CT_M_LENGTH;

/** What both sides bind the key to, beside the ciphertext. */
export interface KemBinding {
  readonly type: EnvelopeType;
  /** The recipient. */
  readonly address: DeviceAddress;
  /** 16 bytes, or empty for what belongs to no channel. */
  readonly channelId: Uint8Array;
}

/**
 * @returns epk ‖ ct_M and the 32-byte key; wipe the key
 * @throws CryptoError when the public key is malformed
 */
export function encapsulateKey(
  crypto: CryptoProvider,
  publicKey: Uint8Array,
  binding: KemBinding,
): { readonly ciphertext: Uint8Array; readonly key: Uint8Array } {
  const { sharedSecret, enc } = crypto.kem(KemId.XWing).encapsulate(publicKey);
  const ciphertext = concat(enc.subarray(CT_M_LENGTH), enc.subarray(0, CT_M_LENGTH));
  return { ciphertext, key: deriveKey(crypto, sharedSecret, ciphertext, publicKey, binding) };
}

/** The 32-byte key, or undefined when the ciphertext is malformed. `ciphertext` has KEM_CIPHERTEXT_LENGTH bytes. */
export function decapsulateKey(
  crypto: CryptoProvider,
  privateKey: Uint8Array,
  ciphertext: Uint8Array,
  binding: KemBinding,
): Uint8Array | undefined {
  const kem = crypto.kem(KemId.XWing);
  const enc = concat(ciphertext.subarray(CT_X_LENGTH), ciphertext.subarray(0, CT_X_LENGTH));
  const sharedSecret = kem.decapsulate(privateKey, enc);
  if (sharedSecret === undefined) return undefined;
  return deriveKey(crypto, sharedSecret, ciphertext, kem.publicKey(privateKey), binding);
}

function deriveKey(
  crypto: CryptoProvider,
  sharedSecret: Uint8Array,
  ciphertext: Uint8Array,
  publicKey: Uint8Array,
  { type, address, channelId }: KemBinding,
): Uint8Array {
  if (channelId.length !== 0 && channelId.length !== CHANNEL_ID_BYTES) throw new Misuse('a channel id has 16 bytes');
  const info = concat(
    Label.kemEnvelopeKey,
    new Uint8Array([type]),
    ciphertext,
    crypto.hash('sha256', publicKey),
    encodeAddress(address),
    channelId,
  );
  const key = hkdf(crypto, EMPTY, sharedSecret, info, 32);
  crypto.wipe(sharedSecret);
  return key;
}
