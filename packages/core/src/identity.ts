/**
 * Who is who: identity keys, device ids, addresses, MLS credentials (PROTOCOL 1, DESIGN 5). An address is
 * identity key 32 ‖ device id 16. The MLS BasicCredential identity is 01 ‖ the address: the leading byte keeps it apart
 * from every other encoding of the same parts (THREATS 2).
 */
import { compare, concat, equal, SignatureSchemeId } from '@quicprochat/crypto';
import type { CryptoProvider, KeyPair } from '@quicprochat/crypto';
import { exactly } from './statement.ts';

export const IDENTITY_KEY_BYTES = 32;
export const DEVICE_KEY_BYTES = 32;
export const DEVICE_ID_BYTES = 16;
export const ADDRESS_BYTES = IDENTITY_KEY_BYTES + DEVICE_ID_BYTES;
export const CHANNEL_ID_BYTES = 16;
export const MESSAGE_ID_BYTES = 16;

const CREDENTIAL_VERSION = 0x01;

/** One device's address. */
export interface DeviceAddress {
  /** Ed25519, 32 bytes. */
  readonly identityKey: Uint8Array;
  /** 16 bytes. */
  readonly deviceId: Uint8Array;
}

/** A fresh Ed25519 key pair: an identity key or a device key. */
export function generateSigningKey(crypto: CryptoProvider): KeyPair {
  const seed = crypto.random(32);
  try {
    return crypto.signature(SignatureSchemeId.Ed25519).deriveKeyPair(seed);
  } finally {
    crypto.wipe(seed);
  }
}

/** 48 bytes. @throws Misuse when a part has another length; likewise `encodeCredentialIdentity`. */
export function encodeAddress(address: DeviceAddress): Uint8Array {
  return concat(
    exactly(address.identityKey, IDENTITY_KEY_BYTES, 'an identity key'),
    exactly(address.deviceId, DEVICE_ID_BYTES, 'a device id'),
  );
}

/** The address, or undefined unless these are 48 bytes. */
export function decodeAddress(bytes: Uint8Array): DeviceAddress | undefined {
  if (bytes.length !== ADDRESS_BYTES) return undefined;
  return { identityKey: bytes.slice(0, IDENTITY_KEY_BYTES), deviceId: bytes.slice(IDENTITY_KEY_BYTES) };
}

export function addressesEqual(a: DeviceAddress, b: DeviceAddress): boolean {
  return equal(a.identityKey, b.identityKey) && equal(a.deviceId, b.deviceId);
}

/** The order of encoded addresses; a comparator for `sort`. */
export function compareAddresses(a: DeviceAddress, b: DeviceAddress): number {
  return compare(a.identityKey, b.identityKey) || compare(a.deviceId, b.deviceId);
}

/** BasicCredential.identity of the device's MLS leaves: 49 bytes, stable for life. */
export function encodeCredentialIdentity(address: DeviceAddress): Uint8Array {
  return concat(new Uint8Array([CREDENTIAL_VERSION]), encodeAddress(address));
}

/** The address in a BasicCredential identity, or undefined when it is none of ours. */
export function decodeCredentialIdentity(identity: Uint8Array): DeviceAddress | undefined {
  if (identity.length !== 1 + ADDRESS_BYTES || identity[0] !== CREDENTIAL_VERSION) return undefined;
  return decodeAddress(identity.subarray(1));
}
