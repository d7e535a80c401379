/**
 * What Ed25519 (RFC 8032) leaves open, decided once for all providers (PROTOCOL section 11): A and R are canonical and
 * not of small order, A is on the curve, S < L, and the equation is checked without the cofactor.
 *
 * OpenSSL and our check over noble both recompute R and compare bytes, which makes R canonical, and both refuse S ≥ L.
 * The rest is checked here, so that a key or signature with torsion can never be valid for one member of a group and
 * invalid for another. R of small order is refused because Web Cryptography and Node 26 refuse it, Node 24 does not.
 */
import { bytesToBigInt } from './bytes.ts';

const P = 2n ** 255n - 19n;
const D = 37095705934669439343138083508754565189542113879843219016388785533085940283555n;

const Y_OF_ORDER_8 = 55188659117513257062467267217118295137698188065244968500265048394206261417927n;

/** y of the points of order 4, 1, 2, 8 and 8; every one of the eight points of small order has one of these. */
const SMALL_ORDER_Y = [0n, 1n, P - 1n, Y_OF_ORDER_8, P - Y_OF_ORDER_8].map(littleEndian);

/** Canonical and not of small order. Says nothing about the curve: verification fails there by itself. */
export function isCanonicalOfLargeOrder(publicKey: Uint8Array): boolean {
  return publicKey.length === 32 && isBelowP(publicKey) && !isSmallOrder(publicKey);
}

/** Whether the first 32 bytes are the canonical encoding of a point of small order, with either sign of x. */
export function isSmallOrder(encoded: Uint8Array): boolean {
  return SMALL_ORDER_Y.some((y) => {
    for (let i = 0; i < 31; i++) if (encoded[i] !== y[i]) return false;
    return (encoded[31]! & 0x7f) === y[31];
  });
}

/** Whether some signature could verify under these bytes. */
export function isEd25519PublicKey(publicKey: Uint8Array): boolean {
  return isCanonicalOfLargeOrder(publicKey) && isOnCurve(publicKey);
}

/** p = 2^255 − 19 in little-endian is ed ff … ff 7f; the highest bit is the sign of x. */
function isBelowP(encoded: Uint8Array): boolean {
  if ((encoded[31]! & 0x7f) !== 0x7f || encoded[0]! < 0xed) return true;
  for (let i = 1; i < 31; i++) if (encoded[i] !== 0xff) return true;
  return false;
}

/** x² = (y² − 1) / (d y² + 1) has a solution: the Jacobi symbol of numerator times denominator is 1. */
function isOnCurve(publicKey: Uint8Array): boolean {
  const reversed = publicKey.slice().reverse();
  reversed[0]! &= 0x7f;
  const y = bytesToBigInt(reversed);
  const y2 = (y * y) % P;
  return jacobi(((y2 - 1n + P) * (D * y2 + 1n)) % P, P) === 1;
}

/** The Jacobi symbol (a/n) for odd n. Public values only. */
function jacobi(a: bigint, n: bigint): number {
  let sign = 1;
  while (a !== 0n) {
    while ((a & 1n) === 0n) {
      a >>= 1n;
      const mod8 = n & 7n;
      if (mod8 === 3n || mod8 === 5n) sign = -sign;
    }
    [a, n] = [n, a];
    if ((a & 3n) === 3n && (n & 3n) === 3n) sign = -sign;
    a %= n;
  }
  return n === 1n ? sign : 0;
}

function littleEndian(value: bigint): Uint8Array {
  const out = new Uint8Array(32);
  for (let i = 0; i < 32; i++) out[i] = Number((value >> BigInt(8 * i)) & 0xffn);
  return out;
}
