/** What X25519 (RFC 7748) leaves to its user: which public keys are of small order, so that a shared secret with them is 0. */
import { decodeHex } from './bytes.ts';

/** The u-coordinates of small order on Curve25519, high bit cleared, those not reduced included. */
const SMALL_ORDER: readonly Uint8Array[] = [
  '0000000000000000000000000000000000000000000000000000000000000000',
  '0100000000000000000000000000000000000000000000000000000000000000',
  'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
  '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
].map((text) => decodeHex(text)!);

export function isX25519PublicKey(key: Uint8Array): boolean {
  if (key.length !== 32) return false;
  const last = key[31]! & 0x7f;
  return !SMALL_ORDER.some((point) => {
    if (point[31] !== last) return false;
    for (let i = 0; i < 31; i++) if (point[i] !== key[i]) return false;
    return true;
  });
}
