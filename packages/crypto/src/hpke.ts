/**
 * HPKE (RFC 9180): encrypt to a public key, over any KEM, KDF and AEAD of a provider.
 *
 *   encapsulate / decapsulate → shared secret ┐
 *   mode, info, psk, psk_id                   ┴→ key schedule (section 5.1) → context: seal / open / export
 *
 * MLS uses mode base with single-shot `sealBase` and `openBase`. The other modes are here because the RFC's vectors
 * exercise the same key schedule through them.
 */
import { concat, EMPTY, encodeUtf8, u16 } from './bytes.ts';
import { labeledHkdf } from './labeled-hkdf.ts';
import { type AeadId, type AuthKem, CryptoError, type CryptoProvider, hashOfKdf, type Kem } from './provider.ts';
import type { KdfId, KemId } from './provider.ts';

/** AEAD identifier of a context that only exports secrets (RFC 9180 section 7.3). */
export const EXPORT_ONLY = 0xffff;

export interface HpkeSuite {
  readonly kem: KemId;
  readonly kdf: KdfId;
  readonly aead: AeadId | typeof EXPORT_ONLY;
}

/** A pre-shared key of at least 32 bytes and its identifier; both non-empty. */
export interface HpkePsk {
  readonly psk: Uint8Array;
  readonly pskId: Uint8Array;
}

interface HpkeContext {
  /** A secret of `length` bytes bound to this context (RFC 9180 section 5.3). */
  export(exporterContext: Uint8Array, length: number): Uint8Array;
  /** Overwrites the context's keys; it is of no use afterwards. */
  wipe(): void;
}

export interface HpkeSenderContext extends HpkeContext {
  /** Encrypts under the next sequence number. @throws CryptoError for an export-only context. */
  seal(aad: Uint8Array, plaintext: Uint8Array): Uint8Array;
}

export interface HpkeReceiverContext extends HpkeContext {
  /** Decrypts under the next sequence number, which advances only on success. Undefined: not authentic. */
  open(aad: Uint8Array, ciphertext: Uint8Array): Uint8Array | undefined;
}

export interface HpkeSender {
  readonly enc: Uint8Array;
  readonly context: HpkeSenderContext;
}

/** The modes beyond base (RFC 9180 section 5.1): a pre-shared key, the sender's authentication by its KEM key, or both. */
export interface SenderOptions {
  readonly psk?: HpkePsk;
  readonly senderPrivateKey?: Uint8Array;
  /** Fixes the KEM's randomness; test vectors only. */
  readonly ikmE?: Uint8Array;
}

export interface ReceiverOptions {
  readonly psk?: HpkePsk;
  readonly senderPublicKey?: Uint8Array;
}

export interface Hpke {
  readonly kem: Kem;
  /** Single-shot encryption in mode base (RFC 9180 section 6.1). @throws CryptoError when the public key is malformed. */
  sealBase(
    publicKey: Uint8Array,
    info: Uint8Array,
    aad: Uint8Array,
    plaintext: Uint8Array,
  ): { readonly enc: Uint8Array; readonly ciphertext: Uint8Array };
  /** The plaintext, or undefined when `enc` is malformed or the ciphertext not authentic. */
  openBase(
    privateKey: Uint8Array,
    enc: Uint8Array,
    info: Uint8Array,
    aad: Uint8Array,
    ciphertext: Uint8Array,
  ): Uint8Array | undefined;
  /** Mode base unless `options` says otherwise. @throws CryptoError when the public key is malformed. */
  setupSender(publicKey: Uint8Array, info: Uint8Array, options?: SenderOptions): HpkeSender;
  /** Mode base unless `options` says otherwise. Undefined when `enc` or the sender's public key is malformed. */
  setupReceiver(
    privateKey: Uint8Array,
    enc: Uint8Array,
    info: Uint8Array,
    options?: ReceiverOptions,
  ): HpkeReceiverContext | undefined;
}

const Mode = { base: 0, psk: 1, auth: 2, authPsk: 3 } as const;
type Mode = (typeof Mode)[keyof typeof Mode];

const PSK_LENGTH_MIN = 32;
const INFO_LENGTH_KEPT = 1024;

/**
 * HPKE for one suite. Keep the result: it holds what is the same for every message of the suite. An `info` must not be
 * changed in place between calls.
 */
export function createHpke(provider: CryptoProvider, suite: HpkeSuite): Hpke {
  const kem = provider.kem(suite.kem);
  const hash = hashOfKdf(suite.kdf);
  const hashLength = provider.hashLength(hash);
  const aead = suite.aead === EXPORT_ONLY ? undefined : provider.aead(suite.aead);
  const suiteId = concat(encodeUtf8('HPKE'), u16(suite.kem), u16(suite.kdf), u16(suite.aead));
  const kdf = labeledHkdf(provider, hash, suiteId);
  const emptyPskIdHash = kdf.extract(EMPTY, 'psk_id_hash', EMPTY);
  let lastInfo: { readonly info: Uint8Array; readonly hash: Uint8Array } | undefined;

  /** The hash of a long `info` is kept: a message to a thousand receivers has the same one a thousand times. */
  function infoHashOf(info: Uint8Array): Uint8Array {
    if (info.length < INFO_LENGTH_KEPT) return kdf.extract(EMPTY, 'info_hash', info);
    if (lastInfo?.info !== info) lastInfo = { info, hash: kdf.extract(EMPTY, 'info_hash', info) };
    return lastInfo.hash;
  }

  function keySchedule(
    sharedSecret: Uint8Array,
    info: Uint8Array,
    psk: HpkePsk | undefined,
    auth: boolean,
  ): HpkeSenderContext & HpkeReceiverContext {
    if (psk !== undefined && (psk.psk.length < PSK_LENGTH_MIN || psk.pskId.length === 0)) {
      throw new CryptoError('a pre-shared key needs 32 bytes and an identifier');
    }
    const mode: Mode = auth ? (psk ? Mode.authPsk : Mode.auth) : psk ? Mode.psk : Mode.base;
    const pskIdHash = psk ? kdf.extract(EMPTY, 'psk_id_hash', psk.pskId) : emptyPskIdHash;
    const infoHash = infoHashOf(info);
    const keyScheduleContext = concat(new Uint8Array([mode]), pskIdHash, infoHash);
    const secret = kdf.extract(sharedSecret, 'secret', psk?.psk ?? EMPTY);
    const key = aead ? kdf.expand(secret, 'key', keyScheduleContext, aead.keyLength) : EMPTY;
    const baseNonce = aead ? kdf.expand(secret, 'base_nonce', keyScheduleContext, aead.nonceLength) : EMPTY;
    const exporterSecret = kdf.expand(secret, 'exp', keyScheduleContext, hashLength);
    provider.wipe(secret);
    provider.wipe(sharedSecret);
    let sequence = 0;

    return {
      seal(aad, plaintext) {
        if (!aead) throw new CryptoError('an export-only context does not encrypt');
        return aead.seal(key, nonceOf(baseNonce, sequence++), aad, plaintext);
      },
      open(aad, ciphertext) {
        if (!aead) throw new CryptoError('an export-only context does not decrypt');
        const plaintext = aead.open(key, nonceOf(baseNonce, sequence), aad, ciphertext);
        if (plaintext !== undefined) sequence++;
        return plaintext;
      },
      export: (exporterContext, length) => kdf.expand(exporterSecret, 'sec', exporterContext, length),
      wipe() {
        provider.wipe(key);
        provider.wipe(baseNonce);
        provider.wipe(exporterSecret);
      },
    };
  }

  function setupSender(publicKey: Uint8Array, info: Uint8Array, options: SenderOptions = {}) {
    const { psk, senderPrivateKey, ikmE } = options;
    const { sharedSecret, enc } =
      senderPrivateKey === undefined
        ? kem.encapsulate(publicKey, ikmE)
        : authKem(kem).authEncapsulate(publicKey, senderPrivateKey, ikmE);
    return { enc, context: keySchedule(sharedSecret, info, psk, senderPrivateKey !== undefined) };
  }

  function setupReceiver(privateKey: Uint8Array, enc: Uint8Array, info: Uint8Array, options: ReceiverOptions = {}) {
    const { psk, senderPublicKey } = options;
    const sharedSecret =
      senderPublicKey === undefined
        ? kem.decapsulate(privateKey, enc)
        : authKem(kem).authDecapsulate(privateKey, enc, senderPublicKey);
    return sharedSecret && keySchedule(sharedSecret, info, psk, senderPublicKey !== undefined);
  }

  return {
    kem,
    setupSender,
    setupReceiver,
    sealBase(publicKey, info, aad, plaintext) {
      const { enc, context } = setupSender(publicKey, info);
      const ciphertext = context.seal(aad, plaintext);
      context.wipe();
      return { enc, ciphertext };
    },
    openBase(privateKey, enc, info, aad, ciphertext) {
      const context = setupReceiver(privateKey, enc, info);
      const plaintext = context?.open(aad, ciphertext);
      context?.wipe();
      return plaintext;
    },
  };
}

function authKem(kem: Kem): AuthKem {
  if (!('authEncapsulate' in kem)) throw new CryptoError('this KEM does not authenticate the sender');
  return kem as AuthKem;
}

/** ComputeNonce (RFC 9180 section 5.2): base nonce XOR sequence number, which stays exact up to 2^53 − 1. */
function nonceOf(baseNonce: Uint8Array, sequence: number): Uint8Array {
  if (sequence > Number.MAX_SAFE_INTEGER) throw new CryptoError('too many messages in one context');
  const nonce = new Uint8Array(baseNonce);
  for (let i = nonce.length - 1, rest = sequence; rest > 0; i--, rest = Math.floor(rest / 256)) {
    nonce[i]! ^= rest % 256;
  }
  return nonce;
}
