/**
 * The one interface to cryptographic primitives. Everything is synchronous, so that no await lies between reading a
 * ratchet and writing its successor. Two implementations pass the same tests: `provider.node.ts` (node:crypto) and
 * `provider-noble.ts` (portable).
 *
 * Keys are raw bytes everywhere. An implementation may cache imported keys by the identity of the array that held them,
 * so key arrays must never be changed in place, except by `wipe`, which also drops what was cached.
 *
 * Identifiers are those of the HPKE registries (RFC 9180 section 7) and, for signatures, TLS 1.3 (RFC 8446 section
 * 4.2.3), because RFC 9420 defines its cipher suites in the same terms.
 */

export type HashName = 'sha256' | 'sha384' | 'sha512';

export const KdfId = { HkdfSha256: 0x0001, HkdfSha384: 0x0002, HkdfSha512: 0x0003 } as const;
export type KdfId = (typeof KdfId)[keyof typeof KdfId];

export const AeadId = { Aes128Gcm: 0x0001, Aes256Gcm: 0x0002, ChaCha20Poly1305: 0x0003 } as const;
export type AeadId = (typeof AeadId)[keyof typeof AeadId];

export const KemId = {
  P256HkdfSha256: 0x0010,
  P384HkdfSha384: 0x0011,
  P521HkdfSha512: 0x0012,
  X25519HkdfSha256: 0x0020,
  /** X-Wing: ML-KEM-768 with X25519 (draft-connolly-cfrg-xwing-kem; HPKE registry 0x647a). */
  XWing: 0x647a,
} as const;
export type KemId = (typeof KemId)[keyof typeof KemId];

export const SignatureSchemeId = {
  EcdsaP256Sha256: 0x0403,
  EcdsaP384Sha384: 0x0503,
  EcdsaP521Sha512: 0x0603,
  Ed25519: 0x0807,
} as const;
export type SignatureSchemeId = (typeof SignatureSchemeId)[keyof typeof SignatureSchemeId];

export interface KeyPair {
  readonly publicKey: Uint8Array;
  readonly privateKey: Uint8Array;
}

/** Authenticated encryption (RFC 5116). Ciphertexts end in the 16-byte tag. */
export interface Aead {
  readonly id: AeadId;
  readonly keyLength: number;
  readonly nonceLength: number;
  readonly tagLength: number;
  seal(key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, plaintext: Uint8Array): Uint8Array;
  /** The plaintext, or undefined when the ciphertext is not authentic or shorter than a tag. */
  open(key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, ciphertext: Uint8Array): Uint8Array | undefined;
}

/** A key encapsulation mechanism as HPKE uses it (RFC 9180 section 4). */
export interface Kem {
  readonly id: KemId;
  /** Nsecret, Nenc, Npk, Nsk in bytes. */
  readonly secretLength: number;
  readonly encLength: number;
  readonly publicKeyLength: number;
  readonly privateKeyLength: number;
  /**
   * DeriveKeyPair (RFC 9180 section 7.1.3; for X-Wing the SHAKE256 form of draft-ietf-hpke-pq). `ikm` has at least Nsk
   * bytes; for P-521 Nh are enough.
   */
  deriveKeyPair(ikm: Uint8Array): KeyPair;
  /** The public key that belongs to a serialized private key. */
  publicKey(privateKey: Uint8Array): Uint8Array;
  /**
   * Whether anything can be encapsulated to these bytes: length, form, membership in the curve, not of small order, the
   * modulus check of ML-KEM (FIPS 203 section 7.2). `encapsulate` throws exactly when this is false.
   */
  isPublicKey(publicKey: Uint8Array): boolean;
  /**
   * Encapsulates to a public key, with randomness of its own. `ikmE` (tests only) fixes the randomness where the
   * implementation can; node:crypto cannot for ML-KEM and throws.
   * @throws CryptoError when the key is malformed or of small order.
   */
  encapsulate(
    publicKey: Uint8Array,
    ikmE?: Uint8Array,
  ): { readonly sharedSecret: Uint8Array; readonly enc: Uint8Array };
  /** The shared secret, or undefined when `enc` is malformed (ML-KEM itself rejects implicitly). */
  decapsulate(privateKey: Uint8Array, enc: Uint8Array): Uint8Array | undefined;
}

/** A KEM that can authenticate the sender by its private key (RFC 9180 section 4.1); the DHKEMs can, X-Wing cannot. */
export interface AuthKem extends Kem {
  authEncapsulate(
    publicKey: Uint8Array,
    senderPrivateKey: Uint8Array,
    ikmE?: Uint8Array,
  ): { readonly sharedSecret: Uint8Array; readonly enc: Uint8Array };
  authDecapsulate(privateKey: Uint8Array, enc: Uint8Array, senderPublicKey: Uint8Array): Uint8Array | undefined;
}

export interface SignatureScheme {
  readonly id: SignatureSchemeId;
  readonly privateKeyLength: number;
  /** A key pair from a 32-byte seed (Ed25519) or from keying material of at least the order's length plus 8 bytes. */
  deriveKeyPair(seed: Uint8Array): KeyPair;
  publicKey(privateKey: Uint8Array): Uint8Array;
  sign(privateKey: Uint8Array, message: Uint8Array): Uint8Array;
  /**
   * Strict verification, the same verdict on every implementation (PROTOCOL: Ed25519 has canonical A and R, S < L, A not
   * of small order, cofactorless equation). Never throws: malformed keys and signatures are false.
   */
  verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean;
  /** Whether these bytes are a key that `verify` could ever accept. */
  isPublicKey(publicKey: Uint8Array): boolean;
}

/** Synchronous. Arguments are good only during a call, since callers use their buffers again; results are the caller's. */
export interface CryptoProvider {
  readonly name: string;
  /** Bytes from the system's cryptographic random generator. @throws CryptoError for a length that is none. */
  random(length: number): Uint8Array;
  hashLength(hash: HashName): number;
  hash(hash: HashName, data: Uint8Array): Uint8Array;
  hmac(hash: HashName, key: Uint8Array, data: Uint8Array): Uint8Array;
  /** HKDF (RFC 5869). */
  hkdfExtract(hash: HashName, salt: Uint8Array, ikm: Uint8Array): Uint8Array;
  hkdfExpand(hash: HashName, prk: Uint8Array, info: Uint8Array, length: number): Uint8Array;
  aead(id: AeadId): Aead;
  /** @throws CryptoError when this provider does not have the algorithm; likewise `aead` and `signature`. */
  kem(id: KemId): Kem;
  signature(id: SignatureSchemeId): SignatureScheme;
  /** Constant-time comparison; false for different lengths. */
  equal(a: Uint8Array, b: Uint8Array): boolean;
  /** Overwrites a secret with zeros and forgets any key imported from it. */
  wipe(secret: Uint8Array): void;
}

/** A primitive was misused or given malformed key material. Carries no secret. */
export class CryptoError extends Error {
  override readonly name = 'CryptoError';
}

export function hashOfKdf(kdf: KdfId): HashName {
  return kdf === KdfId.HkdfSha256 ? 'sha256' : kdf === KdfId.HkdfSha384 ? 'sha384' : 'sha512';
}
