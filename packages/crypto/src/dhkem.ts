/**
 * DHKEM (RFC 9180 section 4.1): a Diffie-Hellman group and HKDF made into a key encapsulation mechanism. A provider
 * brings the group; everything above it is the same for all providers.
 *
 *   encapsulate: ephemeral key pair → dh(skE, pkR) ─┐
 *   decapsulate: enc = pkE          → dh(skR, pkE) ─┴→ ExtractAndExpand(dh, enc ‖ pkR [‖ pkS]) → shared secret
 */
import { bytesToBigInt, concat, EMPTY, encodeUtf8, u16 } from './bytes.ts';
import { type Hkdf, labeledHkdf } from './labeled-hkdf.ts';
import { type AuthKem, CryptoError, type HashName, type KemId, type KeyPair } from './provider.ts';

/** A Diffie-Hellman group over serialized keys (RFC 9180 section 7.1). */
export interface DhGroup {
  readonly publicKeyLength: number;
  readonly privateKeyLength: number;
  generateKeyPair(): KeyPair;
  /** @throws CryptoError when the private key is malformed. */
  publicKey(privateKey: Uint8Array): Uint8Array;
  /** Whether `dh` could take these bytes: of the right form, on the curve, not of small order. */
  isPublicKey(publicKey: Uint8Array): boolean;
  /** Undefined when the public key is malformed or the result is the neutral element. */
  dh(privateKey: Uint8Array, publicKey: Uint8Array): Uint8Array | undefined;
}

/** How DeriveKeyPair makes a private key (RFC 9180 section 7.1.3): one expansion, or candidates below the order. */
export type PrivateKeyDerivation =
  | { readonly kind: 'expand' }
  | { readonly kind: 'reject'; readonly order: bigint; readonly bitmask: number };

export function dhKem(
  id: KemId,
  hash: HashName,
  secretLength: number,
  group: DhGroup,
  derivation: PrivateKeyDerivation,
  hkdf: Hkdf,
): AuthKem {
  const kdf = labeledHkdf(hkdf, hash, concat(encodeUtf8('KEM'), u16(id)));
  const { publicKeyLength, privateKeyLength } = group;

  function extractAndExpand(dh: Uint8Array, kemContext: Uint8Array): Uint8Array {
    const eaePrk = kdf.extract(EMPTY, 'eae_prk', dh);
    const sharedSecret = kdf.expand(eaePrk, 'shared_secret', kemContext, secretLength);
    dh.fill(0);
    eaePrk.fill(0);
    return sharedSecret;
  }

  function derivePrivateKey(dkpPrk: Uint8Array): Uint8Array {
    if (derivation.kind === 'expand') return kdf.expand(dkpPrk, 'sk', EMPTY, privateKeyLength);
    for (let counter = 0; counter < 256; counter++) {
      const candidate = kdf.expand(dkpPrk, 'candidate', new Uint8Array([counter]), privateKeyLength);
      candidate[0]! &= derivation.bitmask;
      const scalar = bytesToBigInt(candidate);
      if (scalar !== 0n && scalar < derivation.order) return candidate;
    }
    throw new CryptoError('no private key could be derived');
  }

  function deriveKeyPair(ikm: Uint8Array): KeyPair {
    // The RFC asks for Nsk bytes but does not insist; MLS gives Nh, 64 of 66 for P-521. Nsecret is Nh in every DHKEM.
    if (ikm.length < Math.min(privateKeyLength, secretLength)) throw new CryptoError('too little keying material');
    const dkpPrk = kdf.extract(EMPTY, 'dkp_prk', ikm);
    const privateKey = derivePrivateKey(dkpPrk);
    dkpPrk.fill(0);
    return { privateKey, publicKey: group.publicKey(privateKey) };
  }

  function encapsulate(pkR: Uint8Array, ikmE: Uint8Array | undefined, skS: Uint8Array | undefined) {
    const { privateKey: skE, publicKey: enc } = ikmE === undefined ? group.generateKeyPair() : deriveKeyPair(ikmE);
    const dh = pkR.length === publicKeyLength ? group.dh(skE, pkR) : undefined;
    skE.fill(0);
    if (dh === undefined) throw new CryptoError('malformed public key');
    if (skS === undefined) return { sharedSecret: extractAndExpand(dh, concat(enc, pkR)), enc };
    const dhS = group.dh(skS, pkR);
    if (dhS === undefined) throw new CryptoError('malformed public key');
    const sharedSecret = extractAndExpand(concat(dh, dhS), concat(enc, pkR, group.publicKey(skS)));
    dh.fill(0);
    dhS.fill(0);
    return { sharedSecret, enc };
  }

  function decapsulate(skR: Uint8Array, enc: Uint8Array, pkS: Uint8Array | undefined): Uint8Array | undefined {
    if (enc.length !== publicKeyLength) return undefined;
    const dh = group.dh(skR, enc);
    if (dh === undefined) return undefined;
    if (pkS === undefined) return extractAndExpand(dh, concat(enc, group.publicKey(skR)));
    const dhS = pkS.length === publicKeyLength ? group.dh(skR, pkS) : undefined;
    if (dhS === undefined) return undefined;
    const sharedSecret = extractAndExpand(concat(dh, dhS), concat(enc, group.publicKey(skR), pkS));
    dh.fill(0);
    dhS.fill(0);
    return sharedSecret;
  }

  return {
    id,
    secretLength,
    encLength: publicKeyLength,
    publicKeyLength,
    privateKeyLength,
    deriveKeyPair,
    publicKey: group.publicKey,
    isPublicKey: group.isPublicKey,
    encapsulate: (publicKey, ikmE) => encapsulate(publicKey, ikmE, undefined),
    decapsulate: (privateKey, enc) => decapsulate(privateKey, enc, undefined),
    authEncapsulate: (publicKey, senderPrivateKey, ikmE) => encapsulate(publicKey, ikmE, senderPrivateKey),
    authDecapsulate: (privateKey, enc, senderPublicKey) => decapsulate(privateKey, enc, senderPublicKey),
  };
}
