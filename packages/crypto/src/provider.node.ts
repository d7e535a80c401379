/**
 * The provider over node:crypto. Imported keys are kept by the identity of the array that held them, because importing
 * a private key costs as much as signing with it.
 */
import {
  createCipheriv,
  createDecipheriv,
  createECDH,
  createHmac,
  createPrivateKey,
  createPublicKey,
  decapsulate,
  diffieHellman,
  ECDH,
  encapsulate,
  hash as digest,
  type KeyObject,
  randomBytes,
  randomFillSync,
  sign,
  timingSafeEqual,
  verify,
} from 'node:crypto';
import { type DhGroup, dhKem } from './dhkem.ts';
import { isCanonicalOfLargeOrder, isEd25519PublicKey, isSmallOrder } from './ed25519.ts';
import { fastestImport, type KeyImport, plain } from './key-import.node.ts';
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
import { ML_KEM_CIPHERTEXT_LENGTH, type MlKem768, xWing, type XWingPrimitives } from './x-wing.ts';

const HASH_LENGTHS: Record<HashName, number> = { sha256: 32, sha384: 48, sha512: 64 };

export const nodeCrypto: CryptoProvider = createNodeCrypto(fastestImport());

/** The provider with a given way of importing keys, so that tests cover the one this Node would not choose. */
export function createNodeCrypto(keys: KeyImport): CryptoProvider {
  const primitives = nodePrimitives(keys);
  const ed25519PrivateKeys = new WeakMap<Uint8Array, KeyObject>();
  const xWingKem = xWing(primitives);
  const nistGroups = NIST_CURVES.map((curve) => ({ curve, group: ecdhGroup(curve) }));
  const kems = new Map<KemId, Kem>([
    [
      KemId.X25519HkdfSha256,
      dhKem(KemId.X25519HkdfSha256, 'sha256', 32, primitives.x25519, { kind: 'expand' }, { hkdfExtract, hkdfExpand }),
    ],
    [KemId.XWing, xWingKem],
    ...nistGroups.map(({ curve, group }): [KemId, Kem] => [
      curve.kem,
      dhKem(curve.kem, curve.hash, curve.secretLength, group, privateKeyDerivationOf(curve), {
        hkdfExtract,
        hkdfExpand,
      }),
    ]),
  ]);
  const ecdsaSchemes = nistGroups.map(({ curve, group }) => ecdsa(curve, group));
  const signatures = new Map<SignatureSchemeId, SignatureScheme>(
    [ed25519(keys, ed25519PrivateKeys), ...ecdsaSchemes].map((scheme) => [scheme.id, scheme]),
  );

  return {
    name: 'node:crypto',
    random(length) {
      checkOutputLength(length);
      return length <= SMALL_RANDOM_MAX ? smallRandom(length) : plain(randomBytes(length));
    },
    hashLength: (hash) => HASH_LENGTHS[hash],
    hash: (hash, data) => plain(digest(hash, data, 'buffer')),
    hmac,
    hkdfExtract,
    hkdfExpand,
    aead: (id) => found(aeads.get(id)),
    kem: (id) => found(kems.get(id)),
    signature: (id) => found(signatures.get(id)),
    equal: (a, b) => a.length === b.length && timingSafeEqual(a, b),
    wipe(secret) {
      ed25519PrivateKeys.delete(secret);
      for (const scheme of ecdsaSchemes) scheme.forget(secret);
      for (const { group } of nistGroups) group.forget(secret);
      primitives.x25519.forget(secret);
      xWingKem.forget(secret);
      secret.fill(0);
    },
  };
}

function found<T>(algorithm: T | undefined): T {
  if (algorithm === undefined) throw new CryptoError('algorithm not supported');
  return algorithm;
}

// Randomness

/**
 * Guards and the like, of which messages take a few bytes each, come from a pool: asking the system costs more than
 * drawing them. Keys never do. What was given out is overwritten in the pool.
 */
const SMALL_RANDOM_MAX = 8;
const pool = new Uint8Array(1024);
let poolUsed = pool.length;

function smallRandom(length: number): Uint8Array {
  if (poolUsed + length > pool.length) {
    randomFillSync(pool);
    poolUsed = 0;
  }
  const out = pool.slice(poolUsed, poolUsed + length);
  pool.fill(0, poolUsed, poolUsed + length);
  poolUsed += length;
  return out;
}

// HMAC and HKDF

const BLOCK_LENGTHS: Record<HashName, number> = { sha256: 64, sha384: 128, sha512: 128 };
const INNER_PAD = 0x36;
const OUTER_PAD = 0x5c;
const SHORT_DATA_MAX = 384;
const innerInput = new Uint8Array(128 + SHORT_DATA_MAX + 1);
const outerInput = new Uint8Array(128 + 64);
const COUNTER_1 = new Uint8Array([1]);

function hmac(hash: HashName, key: Uint8Array, data: Uint8Array): Uint8Array {
  if (key.length > BLOCK_LENGTHS[hash] || data.length > SHORT_DATA_MAX) {
    return plain(createHmac(hash, key).update(data).digest());
  }
  innerInput.set(data, BLOCK_LENGTHS[hash]);
  return shortHmac(hash, key, data.length);
}

/**
 * HMAC (RFC 2104) over what stands in `innerInput` after the block for the key, by two calls of `crypto.hash`: nothing
 * native is left for the garbage collector, which costs as much as making an Hmac object.
 */
function shortHmac(hash: HashName, key: Uint8Array, dataLength: number): Uint8Array {
  const blockLength = BLOCK_LENGTHS[hash];
  const hashLength = HASH_LENGTHS[hash];
  for (let i = 0; i < key.length; i++) {
    const byte = key[i]!;
    innerInput[i] = byte ^ INNER_PAD;
    outerInput[i] = byte ^ OUTER_PAD;
  }
  innerInput.fill(INNER_PAD, key.length, blockLength);
  outerInput.fill(OUTER_PAD, key.length, blockLength);
  const inner = digest(hash, innerInput.subarray(0, blockLength + dataLength), 'buffer');
  outerInput.set(inner, blockLength);
  const mac = plain(digest(hash, outerInput.subarray(0, blockLength + hashLength), 'buffer'));
  inner.fill(0);
  innerInput.fill(0, 0, blockLength + dataLength);
  outerInput.fill(0, 0, blockLength + hashLength);
  return mac;
}

function hkdfExtract(hash: HashName, salt: Uint8Array, ikm: Uint8Array): Uint8Array {
  return hmac(hash, salt, ikm);
}

function hkdfExpand(hash: HashName, prk: Uint8Array, info: Uint8Array, length: number): Uint8Array {
  checkOutputLength(length);
  const hashLength = HASH_LENGTHS[hash];
  if (length <= hashLength) {
    const block = firstBlock(hash, prk, info);
    return length === hashLength ? block : truncate(block, length);
  }
  if (length > 255 * hashLength) throw new CryptoError('more output than HKDF gives');
  const okm = new Uint8Array(Math.ceil(length / hashLength) * hashLength);
  let previous = okm.subarray(0, 0);
  for (let counter = 1, offset = 0; offset < length; counter++, offset += hashLength) {
    const mac = createHmac(hash, prk).update(previous).update(info);
    okm.set(mac.update(new Uint8Array([counter])).digest(), offset);
    previous = okm.subarray(offset, offset + hashLength);
  }
  return truncate(okm, length);
}

function firstBlock(hash: HashName, prk: Uint8Array, info: Uint8Array): Uint8Array {
  const blockLength = BLOCK_LENGTHS[hash];
  if (prk.length > blockLength || info.length > SHORT_DATA_MAX) {
    return plain(createHmac(hash, prk).update(info).update(COUNTER_1).digest());
  }
  innerInput.set(info, blockLength);
  innerInput[blockLength + info.length] = 1;
  return shortHmac(hash, prk, info.length + 1);
}

/** A copy of the beginning; the rest of the secret does not stay behind it. */
function truncate(secret: Uint8Array, length: number): Uint8Array {
  const out = secret.slice(0, length);
  secret.fill(0);
  return out;
}

// AEADs

const TAG_LENGTH = 16;
const NONCE_LENGTH = 12;

/** The type of the GCM overloads; node:crypto treats ChaCha20-Poly1305 the same. */
const aeads = new Map<AeadId, Aead>(
  [
    nodeAead(AeadId.Aes128Gcm, 'aes-128-gcm', 16),
    nodeAead(AeadId.Aes256Gcm, 'aes-256-gcm', 32),
    nodeAead(AeadId.ChaCha20Poly1305, 'chacha20-poly1305', 32),
  ].map((aead) => [aead.id, aead]),
);

function nodeAead(id: AeadId, name: 'aes-128-gcm' | 'aes-256-gcm' | 'chacha20-poly1305', keyLength: number): Aead {
  const cipherName = name as 'aes-128-gcm';
  const options = { authTagLength: TAG_LENGTH };
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
      const cipher = createCipheriv(cipherName, key, nonce, options);
      if (aad.length > 0) cipher.setAAD(aad);
      const body = cipher.update(plaintext);
      cipher.final();
      const out = new Uint8Array(body.length + TAG_LENGTH);
      out.set(body);
      out.set(cipher.getAuthTag(), body.length);
      return out;
    },
    open(key, nonce, aad, ciphertext) {
      check(key, nonce);
      const bodyLength = ciphertext.length - TAG_LENGTH;
      if (bodyLength < 0) return undefined;
      const decipher = createDecipheriv(cipherName, key, nonce, options);
      decipher.setAuthTag(ciphertext.subarray(bodyLength));
      if (aad.length > 0) decipher.setAAD(aad);
      const plaintext = plain(decipher.update(ciphertext.subarray(0, bodyLength)));
      try {
        decipher.final();
      } catch {
        plaintext.fill(0);
        return undefined;
      }
      return plaintext;
    },
  };
}

// X25519 and ML-KEM-768

interface NodeDhGroup extends DhGroup {
  forget(privateKey: Uint8Array): void;
}

interface NodePrimitives extends XWingPrimitives<KeyObject> {
  readonly x25519: NodeDhGroup;
}

/** The parts of X-Wing, also tested one by one against vectors. */
export function nodePrimitives(keys: KeyImport): NodePrimitives {
  return {
    sha3: (data) => plain(digest('sha3-256', data, 'buffer')),
    shake256: (data, length) => plain(digest('shake256', data, { outputEncoding: 'buffer', outputLength: length })),
    mlKem768: mlKem768(keys),
    x25519: x25519(keys),
  };
}

function x25519(keys: KeyImport): NodeDhGroup {
  interface Imported {
    readonly key: KeyObject;
    readonly publicKey: Uint8Array;
  }
  const privateKeys = new WeakMap<Uint8Array, Imported>();

  function imported(privateKey: Uint8Array): Imported {
    let entry = privateKeys.get(privateKey);
    if (entry === undefined) {
      const key = keys.privateKey('x25519', privateKey);
      entry = { key, publicKey: keys.rawPublicKey(key) };
      privateKeys.set(privateKey, entry);
    }
    return entry;
  }

  return {
    publicKeyLength: 32,
    privateKeyLength: 32,
    generateKeyPair() {
      const privateKey = plain(randomBytes(32));
      return { privateKey, publicKey: imported(privateKey).publicKey.slice() };
    },
    publicKey: (privateKey) => imported(privateKey).publicKey.slice(),
    isPublicKey: isX25519PublicKey,
    dh(privateKey, publicKey) {
      const { key } = imported(privateKey);
      try {
        return plain(diffieHellman({ privateKey: key, publicKey: keys.publicKey('x25519', publicKey) }));
      } catch {
        return undefined;
      }
    },
    forget: (privateKey) => privateKeys.delete(privateKey),
  };
}

function mlKem768(keys: KeyImport): MlKem768<KeyObject> {
  return {
    privateKey: (seed) => keys.privateKey('ml-kem-768', seed),
    publicKey: (privateKey) => keys.rawPublicKey(privateKey),
    encapsulate(publicKey, randomness) {
      if (randomness !== undefined) throw new CryptoError('node:crypto draws the randomness of ML-KEM itself');
      const { sharedKey, ciphertext } = encapsulate(keys.publicKey('ml-kem-768', publicKey));
      return { sharedSecret: plain(sharedKey), ciphertext: plain(ciphertext) };
    },
    decapsulate: (privateKey, ciphertext) =>
      ciphertext.length === ML_KEM_CIPHERTEXT_LENGTH ? plain(decapsulate(privateKey, ciphertext)) : undefined,
    wipe() {},
  };
}

// Ed25519

function ed25519(keys: KeyImport, privateKeys: WeakMap<Uint8Array, KeyObject>): SignatureScheme {
  /** `undefined` for keys nothing can verify under. */
  const publicKeys = new WeakMap<Uint8Array, { readonly key: KeyObject | undefined }>();

  function privateKeyObject(privateKey: Uint8Array): KeyObject {
    let key = privateKeys.get(privateKey);
    if (key === undefined) {
      key = keys.privateKey('ed25519', privateKey);
      privateKeys.set(privateKey, key);
    }
    return key;
  }

  function publicKeyObject(publicKey: Uint8Array): KeyObject | undefined {
    let entry = publicKeys.get(publicKey);
    if (entry === undefined) {
      entry = { key: isCanonicalOfLargeOrder(publicKey) ? keys.publicKey('ed25519', publicKey) : undefined };
      publicKeys.set(publicKey, entry);
    }
    return entry.key;
  }

  const publicKey = (privateKey: Uint8Array) => keys.rawPublicKey(privateKeyObject(privateKey));
  return {
    id: SignatureSchemeId.Ed25519,
    privateKeyLength: 32,
    deriveKeyPair(seed) {
      const privateKey = new Uint8Array(seed);
      return { privateKey, publicKey: publicKey(privateKey) };
    },
    publicKey,
    sign: (privateKey, message) => plain(sign(null, message, privateKeyObject(privateKey))),
    // OpenSSL refuses S ≥ L, and compares R as bytes with its own canonical encoding.
    verify(publicKey, message, signature) {
      const key = publicKeyObject(publicKey);
      if (key === undefined || signature.length !== 64 || isSmallOrder(signature)) return false;
      return verify(null, message, key, signature);
    },
    isPublicKey: isEd25519PublicKey,
  };
}

// NIST curves

const OPENSSL_CURVES = { 'P-256': 'prime256v1', 'P-384': 'secp384r1', 'P-521': 'secp521r1' } as const;

function ecdhGroup(curve: NistCurve): NodeDhGroup {
  /** Setting a private key computes the public one, which on P-521 costs as much as an exchange. */
  const privateKeys = new WeakMap<Uint8Array, ECDH>();

  const ecdh = (privateKey: Uint8Array): ECDH => {
    let exchange = privateKeys.get(privateKey);
    if (exchange === undefined) {
      if (!isScalar(curve, privateKey)) throw new CryptoError('malformed key');
      exchange = createECDH(OPENSSL_CURVES[curve.name]);
      exchange.setPrivateKey(privateKey);
      privateKeys.set(privateKey, exchange);
    }
    return exchange;
  };
  const publicKey = (privateKey: Uint8Array) => plain(ecdh(privateKey).getPublicKey());
  return {
    publicKeyLength: publicKeyLengthOf(curve),
    privateKeyLength: curve.scalarLength,
    generateKeyPair() {
      const privateKey = scalarFromSeed(curve, randomBytes(curve.scalarLength + 8));
      return { privateKey, publicKey: publicKey(privateKey) };
    },
    publicKey,
    isPublicKey(publicKey) {
      if (!isUncompressed(curve, publicKey)) return false;
      try {
        ECDH.convertKey(publicKey, OPENSSL_CURVES[curve.name]);
        return true;
      } catch {
        return false;
      }
    },
    dh(privateKey, publicKey) {
      const exchange = ecdh(privateKey);
      if (!isUncompressed(curve, publicKey)) return undefined;
      try {
        return plain(exchange.computeSecret(publicKey));
      } catch {
        return undefined;
      }
    },
    forget: (privateKey) => privateKeys.delete(privateKey),
  };
}

interface NodeEcdsa extends SignatureScheme {
  forget(privateKey: Uint8Array): void;
}

function ecdsa(curve: NistCurve, group: NodeDhGroup): NodeEcdsa {
  const privateKeys = new WeakMap<Uint8Array, KeyObject>();
  const publicKeys = new WeakMap<Uint8Array, { readonly key: KeyObject | undefined }>();
  const base64url = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64url');

  function publicJwk(publicKey: Uint8Array) {
    const x = publicKey.subarray(1, 1 + curve.scalarLength);
    const y = publicKey.subarray(1 + curve.scalarLength);
    return { kty: 'EC', crv: curve.name, x: base64url(x), y: base64url(y) };
  }

  function privateKeyObject(privateKey: Uint8Array): KeyObject {
    let key = privateKeys.get(privateKey);
    if (key === undefined) {
      const jwk = { ...publicJwk(group.publicKey(privateKey)), d: base64url(privateKey) };
      key = createPrivateKey({ key: jwk, format: 'jwk' });
      privateKeys.set(privateKey, key);
    }
    return key;
  }

  function publicKeyObject(publicKey: Uint8Array): KeyObject | undefined {
    let entry = publicKeys.get(publicKey);
    if (entry === undefined) {
      entry = { key: undefined };
      if (isUncompressed(curve, publicKey)) {
        try {
          entry = { key: createPublicKey({ key: publicJwk(publicKey), format: 'jwk' }) };
        } catch {
          // Not a point of the curve.
        }
      }
      publicKeys.set(publicKey, entry);
    }
    return entry.key;
  }

  return {
    id: curve.signature,
    privateKeyLength: curve.scalarLength,
    deriveKeyPair(seed) {
      const privateKey = scalarFromSeed(curve, seed);
      return { privateKey, publicKey: group.publicKey(privateKey) };
    },
    publicKey: group.publicKey,
    sign: (privateKey, message) => plain(sign(curve.hash, message, privateKeyObject(privateKey))),
    verify(publicKey, message, signature) {
      const key = publicKeyObject(publicKey);
      return key !== undefined && verify(curve.hash, message, key, signature);
    },
    isPublicKey: (publicKey) => publicKeyObject(publicKey) !== undefined,
    forget: (privateKey) => privateKeys.delete(privateKey),
  };
}
