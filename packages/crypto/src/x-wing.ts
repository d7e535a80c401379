/**
 * X-Wing (draft-connolly-cfrg-xwing-kem-09): ML-KEM-768 and X25519 made into one KEM, secure while either is. HPKE
 * registers it as 0x647a; DeriveKeyPair is that of draft-ietf-hpke-pq. Composed here from a provider's primitives.
 *
 *   private key: seed 32 → SHAKE256 → ML-KEM seed 64 ‖ X25519 private key 32
 *   public key:  pk_M 1184 ‖ pk_X 32;  enc: ct_M 1088 ‖ ct_X 32
 *   shared secret = SHA3-256(ss_M ‖ ss_X ‖ ct_X ‖ pk_X ‖ label)
 */
import { concat, encodeUtf8, u16 } from './bytes.ts';
import type { DhGroup } from './dhkem.ts';
import { HPKE_V1 } from './labeled-hkdf.ts';
import { CryptoError, type Kem, KemId, type KeyPair } from './provider.ts';

/** ML-KEM-768 (FIPS 203) with the private key in its imported form. */
export interface MlKem768<PrivateKey> {
  /** Imports the seed d ‖ z, 64 bytes. @throws CryptoError when it has another length. */
  privateKey(seed: Uint8Array): PrivateKey;
  publicKey(privateKey: PrivateKey): Uint8Array;
  /**
   * `randomness` fixes m where the implementation can.
   * @throws CryptoError when the public key fails the modulus check (FIPS 203 section 7.2).
   */
  encapsulate(
    publicKey: Uint8Array,
    randomness?: Uint8Array,
  ): { readonly sharedSecret: Uint8Array; readonly ciphertext: Uint8Array };
  /** Undefined when the length is wrong; a ciphertext not made for this key gives a secret nobody else has. */
  decapsulate(privateKey: PrivateKey, ciphertext: Uint8Array): Uint8Array | undefined;
  /** Overwrites what can be; a key that lives outside JavaScript goes when it is collected. */
  wipe(privateKey: PrivateKey): void;
}

export interface XWingPrimitives<MlKemPrivateKey> {
  sha3(data: Uint8Array): Uint8Array;
  shake256(data: Uint8Array, length: number): Uint8Array;
  readonly mlKem768: MlKem768<MlKemPrivateKey>;
  readonly x25519: DhGroup;
}

export interface XWing extends Kem {
  /** Drops and overwrites what was expanded from this private key. */
  forget(privateKey: Uint8Array): void;
}

export const ML_KEM_CIPHERTEXT_LENGTH = 1088;
const ML_KEM_PUBLIC_KEY_LENGTH = 1184;
const ML_KEM_SEED_LENGTH = 64;
const X25519_LENGTH = 32;
const SEED_LENGTH = 32;
const SECRET_LENGTH = 32;

/** The characters \.//^\ */
const LABEL = new Uint8Array([0x5c, 0x2e, 0x2f, 0x2f, 0x5e, 0x5c]);

interface ExpandedKey<MlKemPrivateKey> {
  readonly privateKeyM: MlKemPrivateKey;
  readonly privateKeyX: Uint8Array;
  readonly publicKey: Uint8Array;
}

export function xWing<MlKemPrivateKey>(primitives: XWingPrimitives<MlKemPrivateKey>): XWing {
  const { mlKem768, x25519 } = primitives;
  const expandedKeys = new WeakMap<Uint8Array, ExpandedKey<MlKemPrivateKey>>();

  function expand(privateKey: Uint8Array): ExpandedKey<MlKemPrivateKey> {
    const known = expandedKeys.get(privateKey);
    if (known !== undefined) return known;
    if (privateKey.length !== SEED_LENGTH) throw new CryptoError('malformed private key');
    const expanded = primitives.shake256(privateKey, ML_KEM_SEED_LENGTH + X25519_LENGTH);
    const privateKeyM = mlKem768.privateKey(expanded.subarray(0, ML_KEM_SEED_LENGTH));
    const privateKeyX = expanded.slice(ML_KEM_SEED_LENGTH);
    expanded.fill(0);
    const publicKey = concat(mlKem768.publicKey(privateKeyM), x25519.publicKey(privateKeyX));
    const key = { privateKeyM, privateKeyX, publicKey };
    expandedKeys.set(privateKey, key);
    return key;
  }

  function combine(ssM: Uint8Array, ssX: Uint8Array, ctX: Uint8Array, pkX: Uint8Array): Uint8Array {
    const input = concat(ssM, ssX, ctX, pkX, LABEL);
    const sharedSecret = primitives.sha3(input);
    for (const secret of [input, ssM, ssX]) secret.fill(0);
    return sharedSecret;
  }

  return {
    id: KemId.XWing,
    secretLength: SECRET_LENGTH,
    encLength: ML_KEM_CIPHERTEXT_LENGTH + X25519_LENGTH,
    publicKeyLength: ML_KEM_PUBLIC_KEY_LENGTH + X25519_LENGTH,
    privateKeyLength: SEED_LENGTH,

    deriveKeyPair(ikm): KeyPair {
      if (ikm.length < SEED_LENGTH) throw new CryptoError('too little keying material');
      const privateKey = labeledDerive(primitives, ikm, 'DeriveKeyPair', SEED_LENGTH);
      return { privateKey, publicKey: expand(privateKey).publicKey.slice() };
    },

    publicKey: (privateKey) => expand(privateKey).publicKey.slice(),

    isPublicKey: (publicKey) =>
      publicKey.length === ML_KEM_PUBLIC_KEY_LENGTH + X25519_LENGTH &&
      passesModulusCheck(publicKey) &&
      x25519.isPublicKey(publicKey.subarray(ML_KEM_PUBLIC_KEY_LENGTH)),

    encapsulate(publicKey, ikmE) {
      if (publicKey.length !== ML_KEM_PUBLIC_KEY_LENGTH + X25519_LENGTH) throw new CryptoError('malformed public key');
      const pkX = publicKey.subarray(ML_KEM_PUBLIC_KEY_LENGTH);
      // EncapsulateDerand: 32 bytes for ML-KEM, then the ephemeral X25519 private key.
      const ephemeralX = ikmE === undefined ? x25519.generateKeyPair() : keyPairOf(x25519, ikmE.slice(32));
      const { sharedSecret: ssM, ciphertext: ctM } = mlKem768.encapsulate(
        publicKey.subarray(0, ML_KEM_PUBLIC_KEY_LENGTH),
        ikmE?.subarray(0, 32),
      );
      const ssX = x25519.dh(ephemeralX.privateKey, pkX);
      ephemeralX.privateKey.fill(0);
      if (ssX === undefined) throw new CryptoError('malformed public key');
      return {
        sharedSecret: combine(ssM, ssX, ephemeralX.publicKey, pkX),
        enc: concat(ctM, ephemeralX.publicKey),
      };
    },

    decapsulate(privateKey, enc) {
      if (enc.length !== ML_KEM_CIPHERTEXT_LENGTH + X25519_LENGTH) return undefined;
      const { privateKeyM, privateKeyX, publicKey } = expand(privateKey);
      const ctX = enc.subarray(ML_KEM_CIPHERTEXT_LENGTH);
      const ssX = x25519.dh(privateKeyX, ctX);
      if (ssX === undefined) return undefined;
      const ssM = mlKem768.decapsulate(privateKeyM, enc.subarray(0, ML_KEM_CIPHERTEXT_LENGTH));
      return ssM && combine(ssM, ssX, ctX, publicKey.subarray(ML_KEM_PUBLIC_KEY_LENGTH));
    },

    forget(privateKey) {
      const expanded = expandedKeys.get(privateKey);
      if (expanded === undefined) return;
      expanded.privateKeyX.fill(0);
      mlKem768.wipe(expanded.privateKeyM);
      expandedKeys.delete(privateKey);
    },
  };
}

const ML_KEM_MODULUS = 3329;
/** 3 polynomials of 256 coefficients, 12 bits each; the matrix seed follows. */
const ML_KEM_COEFFICIENTS_LENGTH = 1152;

/** FIPS 203 section 7.2: every coefficient is below the modulus. */
function passesModulusCheck(publicKey: Uint8Array): boolean {
  for (let i = 0; i < ML_KEM_COEFFICIENTS_LENGTH; i += 3) {
    const middle = publicKey[i + 1]!;
    if ((publicKey[i]! | ((middle & 0x0f) << 8)) >= ML_KEM_MODULUS) return false;
    if (((middle >>> 4) | (publicKey[i + 2]! << 4)) >= ML_KEM_MODULUS) return false;
  }
  return true;
}

function keyPairOf(group: DhGroup, privateKey: Uint8Array): KeyPair {
  return { privateKey, publicKey: group.publicKey(privateKey) };
}

/** LabeledDerive of the one-stage KDFs (draft-ietf-hpke-pq), with SHAKE256, no context and this KEM's suite_id. */
function labeledDerive(
  { shake256 }: Pick<XWingPrimitives<unknown>, 'shake256'>,
  ikm: Uint8Array,
  label: string,
  length: number,
): Uint8Array {
  const labelBytes = encodeUtf8(label);
  const input = concat(
    ikm,
    HPKE_V1,
    encodeUtf8('KEM'),
    u16(KemId.XWing),
    u16(labelBytes.length),
    labelBytes,
    u16(length),
  );
  const derived = shake256(input, length);
  input.fill(0);
  return derived;
}
