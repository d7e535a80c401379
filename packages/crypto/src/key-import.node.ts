/**
 * Raw key bytes to KeyObjects. Node 26 imports raw keys itself; Node 24 needs them wrapped as PKCS#8 and
 * SubjectPublicKeyInfo, which for these key types is a constant header before the raw bytes.
 */
import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto';
import { concat, decodeHex } from './bytes.ts';
import { CryptoError } from './provider.ts';

type KeyType = 'ed25519' | 'x25519' | 'ml-kem-768';

export interface KeyImport {
  /** @throws CryptoError when the bytes are not a key of this type; likewise `publicKey`. */
  privateKey(type: KeyType, bytes: Uint8Array): KeyObject;
  publicKey(type: KeyType, bytes: Uint8Array): KeyObject;
  /** The raw public key of a private key. */
  rawPublicKey(privateKey: KeyObject): Uint8Array;
}

/** The private key of ML-KEM is its 64-byte seed. */
const PKCS8_HEADERS: Record<KeyType, Uint8Array> = {
  ed25519: decodeHex('302e020100300506032b657004220420')!,
  x25519: decodeHex('302e020100300506032b656e04220420')!,
  'ml-kem-768': decodeHex('3054020100300b060960864801650304040204428040')!,
};

const SPKI_HEADERS: Record<KeyType, Uint8Array> = {
  ed25519: decodeHex('302a300506032b6570032100')!,
  x25519: decodeHex('302a300506032b656e032100')!,
  'ml-kem-768': decodeHex('308204b2300b0609608648016503040402038204a100')!,
};

/** Lengths of private and public keys. Checked by us: a DER parser may stop before bytes that follow the key. */
const KEY_LENGTHS: Record<KeyType, readonly [number, number]> = {
  ed25519: [32, 32],
  x25519: [32, 32],
  'ml-kem-768': [64, 1184],
};

const rawImport: KeyImport = checked({
  privateKey: (type, bytes) =>
    createPrivateKey({
      key: asBuffer(bytes),
      format: type === 'ml-kem-768' ? 'raw-seed' : 'raw-private',
      asymmetricKeyType: type,
    }),
  publicKey: (type, bytes) => createPublicKey({ key: asBuffer(bytes), format: 'raw-public', asymmetricKeyType: type }),
  rawPublicKey: (privateKey) => plain(createPublicKey(privateKey).export({ format: 'raw-public' })),
});

export const derImport: KeyImport = checked({
  privateKey(type, bytes) {
    const der = concat(PKCS8_HEADERS[type], bytes);
    const key = createPrivateKey({ key: asBuffer(der), format: 'der', type: 'pkcs8' });
    der.fill(0);
    return key;
  },
  publicKey: (type, bytes) =>
    createPublicKey({ key: asBuffer(concat(SPKI_HEADERS[type], bytes)), format: 'der', type: 'spki' }),
  rawPublicKey(privateKey) {
    const spki = createPublicKey(privateKey).export({ format: 'der', type: 'spki' });
    return new Uint8Array(spki.subarray(SPKI_HEADERS[privateKey.asymmetricKeyType as KeyType].length));
  },
});

function checked(unchecked: KeyImport): KeyImport {
  const importKey = (length: number, bytes: Uint8Array, convert: () => KeyObject): KeyObject => {
    if (bytes.length !== length) throw new CryptoError('malformed key');
    try {
      return convert();
    } catch {
      throw new CryptoError('malformed key');
    }
  };
  return {
    ...unchecked,
    privateKey: (type, bytes) => importKey(KEY_LENGTHS[type][0], bytes, () => unchecked.privateKey(type, bytes)),
    publicKey: (type, bytes) => importKey(KEY_LENGTHS[type][1], bytes, () => unchecked.publicKey(type, bytes)),
  };
}

/** The fastest import this Node has. */
export function fastestImport(): KeyImport {
  try {
    rawImport.publicKey('x25519', new Uint8Array(32).fill(9));
    return rawImport;
  } catch {
    return derImport;
  }
}

/** A view of Node's Buffer without its methods: `Buffer.slice` aliases where `Uint8Array.slice` copies. */
export function plain(buffer: Uint8Array): Uint8Array {
  return new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.byteLength);
}
