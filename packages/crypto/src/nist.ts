/**
 * The NIST curves as HPKE and ECDSA use them: sizes, orders, and the derivation of a private key from keying material.
 * Public keys are uncompressed points (04 ‖ x ‖ y); private keys are big-endian scalars of fixed length.
 */
import { bigIntToBytes, bytesToBigInt } from './bytes.ts';
import type { PrivateKeyDerivation } from './dhkem.ts';
import { CryptoError, type HashName, KemId, SignatureSchemeId } from './provider.ts';

export interface NistCurve {
  readonly name: 'P-256' | 'P-384' | 'P-521';
  readonly hash: HashName;
  readonly scalarLength: number;
  readonly order: bigint;
  /** Nsecret of the curve's KEM. */
  readonly secretLength: number;
  /** Mask for the first byte of a candidate in DeriveKeyPair (RFC 9180 section 7.1.3). */
  readonly bitmask: number;
  readonly kem: KemId;
  readonly signature: SignatureSchemeId;
}

export const NIST_CURVES: readonly NistCurve[] = [
  {
    name: 'P-256',
    hash: 'sha256',
    scalarLength: 32,
    order: 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n,
    secretLength: 32,
    bitmask: 0xff,
    kem: KemId.P256HkdfSha256,
    signature: SignatureSchemeId.EcdsaP256Sha256,
  },
  {
    name: 'P-384',
    hash: 'sha384',
    scalarLength: 48,
    order: 0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973n,
    secretLength: 48,
    bitmask: 0xff,
    kem: KemId.P384HkdfSha384,
    signature: SignatureSchemeId.EcdsaP384Sha384,
  },
  {
    name: 'P-521',
    hash: 'sha512',
    scalarLength: 66,
    order:
      0x1fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409n,
    secretLength: 64,
    bitmask: 0x01,
    kem: KemId.P521HkdfSha512,
    signature: SignatureSchemeId.EcdsaP521Sha512,
  },
];

export function publicKeyLengthOf(curve: NistCurve): number {
  return 1 + 2 * curve.scalarLength;
}

export function privateKeyDerivationOf({ order, bitmask }: NistCurve): PrivateKeyDerivation {
  return { kind: 'reject', order, bitmask };
}

export function isScalar(curve: NistCurve, bytes: Uint8Array): boolean {
  if (bytes.length !== curve.scalarLength) return false;
  const scalar = bytesToBigInt(bytes);
  return scalar !== 0n && scalar < curve.order;
}

/** The uncompressed form, the only one the HPKE and TLS registries allow. */
export function isUncompressed(curve: NistCurve, publicKey: Uint8Array): boolean {
  return publicKey.length === publicKeyLengthOf(curve) && publicKey[0] === 0x04;
}

/** A private key from at least 8 bytes more than the order has (FIPS 186-5 appendix A.2.1, extra random bits). */
export function scalarFromSeed(curve: NistCurve, seed: Uint8Array): Uint8Array {
  if (seed.length < curve.scalarLength + 8) throw new CryptoError('too little keying material');
  return bigIntToBytes((bytesToBigInt(seed) % (curve.order - 1n)) + 1n, curve.scalarLength);
}
