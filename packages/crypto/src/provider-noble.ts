/**
 * The provider over the noble libraries: pure TypeScript, for browsers and as the second opinion in tests. Same verdicts
 * as `provider.node.ts`, 10 to 30 times slower.
 */
import { gcm } from '@noble/ciphers/aes.js';
import { chacha20poly1305 } from '@noble/ciphers/chacha.js';
import { ed25519, x25519 } from '@noble/curves/ed25519.js';
import { p256, p384, p521 } from '@noble/curves/nist.js';
import { hmac as nobleHmac } from '@noble/hashes/hmac.js';
import { sha256, sha384, sha512 } from '@noble/hashes/sha2.js';
import { sha3_256, shake256 } from '@noble/hashes/sha3.js';
import { ml_kem768 } from '@noble/post-quantum/ml-kem.js';
import { bytesToBigInt, concat, equal as equalBytes } from './bytes.ts';
import { type DhGroup, dhKem } from './dhkem.ts';
import { isCanonicalOfLargeOrder, isEd25519PublicKey, isSmallOrder } from './ed25519.ts';
import {
  isScalar,
  isUncompressed,
  NIST_CURVES,
  type NistCurve,
  privateKeyDerivationOf,
  publicKeyLengthOf,
  scalarFromSeed,
} from './nist.ts';
import { checkOutputLength } from './output-length.ts';
import {
  type Aead,
  AeadId,
  CryptoError,
  type CryptoProvider,
  type HashName,
  type Kem,
  KemId,
  type SignatureScheme,
  SignatureSchemeId,
} from './provider.ts';
import { isX25519PublicKey } from './x25519.ts';
import { ML_KEM_CIPHERTEXT_LENGTH, xWing, type XWingPrimitives } from './x-wing.ts';

const HASHES = { sha256, sha384, sha512 };

// Randomness, HMAC and HKDF

/** The most that `getRandomValues` fills at a time (Web Cryptography, section 10.1.1). */
const RANDOM_BYTES_MAX = 65536;

function random(length: number): Uint8Array {
  checkOutputLength(length);
  const out = new Uint8Array(length);
  for (let offset = 0; offset < length; offset += RANDOM_BYTES_MAX) {
    crypto.getRandomValues(out.subarray(offset, offset + RANDOM_BYTES_MAX));
  }
  return out;
}

function hmac(hash: HashName, key: Uint8Array, data: Uint8Array): Uint8Array {
  return nobleHmac(HASHES[hash], key, data);
}

function hkdfExpand(hash: HashName, prk: Uint8Array, info: Uint8Array, length: number): Uint8Array {
  checkOutputLength(length);
  const { outputLen: hashLength } = HASHES[hash];
  if (length > 255 * hashLength) throw new CryptoError('more output than HKDF gives');
  const okm = new Uint8Array(Math.ceil(length / hashLength) * hashLength);
  let previous = okm.subarray(0, 0);
  for (let counter = 1, offset = 0; offset < length; counter++, offset += hashLength) {
    okm.set(hmac(hash, prk, concat(previous, info, new Uint8Array([counter]))), offset);
    previous = okm.subarray(offset, offset + hashLength);
  }
  const out = okm.slice(0, length);
  okm.fill(0);
  return out;
}

const hkdf = { hkdfExtract: hmac, hkdfExpand };

// AEADs

const TAG_LENGTH = 16;
const NONCE_LENGTH = 12;

function nobleAead(id: AeadId, keyLength: number, cipherOf: typeof gcm | typeof chacha20poly1305): Aead {
  const check = (key: Uint8Array, nonce: Uint8Array): void => {
    if (key.length !== keyLength || nonce.length !== NONCE_LENGTH) throw new CryptoError('wrong key or nonce length');
  };
  return {
    id,
    keyLength,
    nonceLength: NONCE_LENGTH,
    tagLength: TAG_LENGTH,
    seal(key, nonce, aad, plaintext) {
      check(key, nonce);
      return cipherOf(key, nonce, aad).encrypt(plaintext);
    },
    open(key, nonce, aad, ciphertext) {
      check(key, nonce);
      if (ciphertext.length < TAG_LENGTH) return undefined;
      try {
        return cipherOf(key, nonce, aad).decrypt(ciphertext);
      } catch {
        return undefined;
      }
    },
  };
}

const aeads = new Map<AeadId, Aead>(
  [
    nobleAead(AeadId.Aes128Gcm, 16, gcm),
    nobleAead(AeadId.Aes256Gcm, 32, gcm),
    nobleAead(AeadId.ChaCha20Poly1305, 32, chacha20poly1305),
  ].map((aead) => [aead.id, aead]),
);

// X25519 and ML-KEM-768

const x25519Group: DhGroup = {
  publicKeyLength: 32,
  privateKeyLength: 32,
  generateKeyPair() {
    const privateKey = random(32);
    return { privateKey, publicKey: x25519.getPublicKey(privateKey) };
  },
  publicKey(privateKey) {
    if (privateKey.length !== 32) throw new CryptoError('malformed key');
    return x25519.getPublicKey(privateKey);
  },
  isPublicKey: isX25519PublicKey,
  dh(privateKey, publicKey) {
    if (privateKey.length !== 32) throw new CryptoError('malformed key');
    try {
      return x25519.getSharedSecret(privateKey, publicKey);
    } catch {
      return undefined;
    }
  },
};

type MlKemKeyPair = ReturnType<typeof ml_kem768.keygen>;

/** The parts of X-Wing, also tested one by one against vectors. */
export const noblePrimitives: XWingPrimitives<MlKemKeyPair> = {
  sha3: (data) => sha3_256(data),
  shake256: (data, length) => shake256(data, { dkLen: length }),
  x25519: x25519Group,
  mlKem768: {
    privateKey(seed) {
      if (seed.length !== 64) throw new CryptoError('malformed key');
      return ml_kem768.keygen(seed);
    },
    publicKey: (privateKey) => privateKey.publicKey,
    encapsulate(publicKey, randomness) {
      try {
        const { sharedSecret, cipherText } = ml_kem768.encapsulate(publicKey, randomness ?? random(32));
        return { sharedSecret, ciphertext: cipherText };
      } catch {
        throw new CryptoError('malformed key');
      }
    },
    decapsulate: ({ secretKey }, ciphertext) =>
      ciphertext.length === ML_KEM_CIPHERTEXT_LENGTH ? ml_kem768.decapsulate(ciphertext, secretKey) : undefined,
    wipe: ({ secretKey }) => secretKey.fill(0),
  },
};

// Ed25519

type EdwardsPoint = InstanceType<typeof ed25519.Point>;

const { Point } = ed25519;
const GROUP_ORDER = Point.Fn.ORDER;

/** Decoded public keys by the array that held them; `undefined` for keys nothing can verify under. */
const ed25519Points = new WeakMap<Uint8Array, { readonly point: EdwardsPoint | undefined }>();

function ed25519Point(publicKey: Uint8Array): EdwardsPoint | undefined {
  let entry = ed25519Points.get(publicKey);
  if (entry === undefined) {
    entry = { point: undefined };
    if (isCanonicalOfLargeOrder(publicKey)) {
      try {
        entry = { point: Point.fromBytes(publicKey) };
      } catch {
        // Not a point of the curve.
      }
    }
    ed25519Points.set(publicKey, entry);
  }
  return entry.point;
}

/**
 * noble's own `verify` multiplies by the cofactor; this is the equation without it, as OpenSSL checks it: R is recomputed
 * as [S]B + [k](−A) and compared as bytes. A must be negated, not k: with torsion in A, [L − k]A differs from [k](−A).
 */
function verifyEd25519(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  if (signature.length !== 64 || isSmallOrder(signature)) return false;
  const a = ed25519Point(publicKey);
  const s = littleEndianInteger(signature.subarray(32));
  if (a === undefined || s >= GROUP_ORDER) return false;
  const r = signature.subarray(0, 32);
  const k = littleEndianInteger(sha512(concat(r, publicKey, message))) % GROUP_ORDER;
  const expected = Point.BASE.multiplyUnsafe(s).add(a.negate().multiplyUnsafe(k));
  return equalBytes(expected.toBytes(), r);
}

function littleEndianInteger(bytes: Uint8Array): bigint {
  const reversed = bytes.slice().reverse();
  const value = bytesToBigInt(reversed);
  reversed.fill(0);
  return value;
}

/** What RFC 8032 section 5.1.5 makes of a private key. */
interface ExpandedKey {
  readonly scalar: bigint;
  readonly prefix: Uint8Array;
  readonly publicKey: Uint8Array;
}

/** By the array that held the private key: computing the public key is half the work of a signature. */
const ed25519Keys = new WeakMap<Uint8Array, ExpandedKey>();

function expandedKey(privateKey: Uint8Array): ExpandedKey {
  let key = ed25519Keys.get(privateKey);
  if (key === undefined) {
    if (privateKey.length !== 32) throw new CryptoError('malformed key');
    const { head, scalar, prefix, pointBytes } = ed25519.utils.getExtendedPublicKey(privateKey);
    head.fill(0);
    key = { scalar, prefix, publicKey: pointBytes };
    ed25519Keys.set(privateKey, key);
  }
  return key;
}

function forgetEd25519Key(privateKey: Uint8Array): void {
  ed25519Keys.get(privateKey)?.prefix.fill(0);
  ed25519Keys.delete(privateKey);
}

/** RFC 8032 section 5.1.6; the multiplication by the secret r is noble's constant-time one. */
function signEd25519(privateKey: Uint8Array, message: Uint8Array): Uint8Array {
  const { scalar, prefix, publicKey } = expandedKey(privateKey);
  const { Fn } = Point;
  const secretInput = concat(prefix, message);
  const secretNonce = sha512(secretInput);
  const r = Fn.create(littleEndianInteger(secretNonce));
  secretInput.fill(0);
  secretNonce.fill(0);
  const R = Point.BASE.multiply(r).toBytes();
  const k = Fn.create(littleEndianInteger(sha512(concat(R, publicKey, message))));
  return concat(R, Fn.toBytes(Fn.create(r + k * scalar)));
}

const ed25519Scheme: SignatureScheme = {
  id: SignatureSchemeId.Ed25519,
  privateKeyLength: 32,
  deriveKeyPair(seed) {
    const privateKey = new Uint8Array(seed);
    return { privateKey, publicKey: ed25519Scheme.publicKey(privateKey) };
  },
  publicKey: (privateKey) => expandedKey(privateKey).publicKey.slice(),
  sign: signEd25519,
  verify: verifyEd25519,
  isPublicKey: isEd25519PublicKey,
};

// NIST curves

const NOBLE_CURVES = { 'P-256': p256, 'P-384': p384, 'P-521': p521 };

function ecdhGroup(curve: NistCurve): DhGroup {
  const noble = NOBLE_CURVES[curve.name];
  const publicKey = (privateKey: Uint8Array) => {
    if (!isScalar(curve, privateKey)) throw new CryptoError('malformed key');
    return noble.getPublicKey(privateKey, false);
  };
  return {
    publicKeyLength: publicKeyLengthOf(curve),
    privateKeyLength: curve.scalarLength,
    generateKeyPair() {
      const privateKey = scalarFromSeed(curve, random(curve.scalarLength + 8));
      return { privateKey, publicKey: publicKey(privateKey) };
    },
    publicKey,
    isPublicKey: (key) => isUncompressed(curve, key) && noble.utils.isValidPublicKey(key, false),
    dh(privateKey, peerKey) {
      if (!isScalar(curve, privateKey)) throw new CryptoError('malformed key');
      if (!isUncompressed(curve, peerKey)) return undefined;
      try {
        return noble.getSharedSecret(privateKey, peerKey, false).slice(1, 1 + curve.scalarLength);
      } catch {
        return undefined;
      }
    },
  };
}

function ecdsa(curve: NistCurve): SignatureScheme {
  const noble = NOBLE_CURVES[curve.name];
  const { publicKey, isPublicKey } = ecdhGroup(curve);
  const options = { format: 'der', lowS: false } as const;
  return {
    id: curve.signature,
    privateKeyLength: curve.scalarLength,
    deriveKeyPair(seed) {
      const privateKey = scalarFromSeed(curve, seed);
      return { privateKey, publicKey: publicKey(privateKey) };
    },
    publicKey,
    sign(privateKey, message) {
      if (!isScalar(curve, privateKey)) throw new CryptoError('malformed key');
      return noble.sign(message, privateKey, options);
    },
    verify(publicKey, message, signature) {
      if (!isUncompressed(curve, publicKey)) return false;
      try {
        return noble.verify(signature, message, publicKey, options);
      } catch {
        return false;
      }
    },
    isPublicKey,
  };
}

// The provider

const xWingKem = xWing(noblePrimitives);

const kems = new Map<KemId, Kem>(
  [
    dhKem(KemId.X25519HkdfSha256, 'sha256', 32, x25519Group, { kind: 'expand' }, hkdf),
    xWingKem,
    ...NIST_CURVES.map((curve) =>
      dhKem(curve.kem, curve.hash, curve.secretLength, ecdhGroup(curve), privateKeyDerivationOf(curve), hkdf),
    ),
  ].map((kem) => [kem.id, kem]),
);

const signatures = new Map<SignatureSchemeId, SignatureScheme>(
  [ed25519Scheme, ...NIST_CURVES.map(ecdsa)].map((scheme) => [scheme.id, scheme]),
);

export const nobleCrypto: CryptoProvider = {
  name: 'noble',
  random,
  hashLength: (hash) => HASHES[hash].outputLen,
  hash: (hash, data) => HASHES[hash](data),
  hmac,
  ...hkdf,
  aead: (id) => found(aeads.get(id)),
  kem: (id) => found(kems.get(id)),
  signature: (id) => found(signatures.get(id)),
  equal(a, b) {
    if (a.length !== b.length) return false;
    let difference = 0;
    for (let i = 0; i < a.length; i++) difference |= a[i]! ^ b[i]!;
    return difference === 0;
  },
  wipe(secret) {
    xWingKem.forget(secret);
    forgetEd25519Key(secret);
    secret.fill(0);
  },
};

function found<T>(algorithm: T | undefined): T {
  if (algorithm === undefined) throw new CryptoError('algorithm not supported');
  return algorithm;
}
