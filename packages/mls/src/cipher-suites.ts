/**
 * The cipher suites (RFC 9420 section 17.1) as a table, and what a suite does with labels (section 5): ExpandWithLabel,
 * DeriveSecret, RefHash, SignWithLabel, EncryptWithLabel. Everything above this file is the same for all suites.
 */
import {
  type Aead,
  AeadId,
  CryptoError,
  type CryptoProvider,
  createHpke,
  EMPTY,
  encodeUtf8,
  type HashName,
  hashOfKdf,
  type Hpke,
  KdfId,
  type Kem,
  KemId,
  type KeyPair,
  type SignatureScheme,
  SignatureSchemeId,
} from '@quicprochat/crypto';
import { Writer } from './codec.ts';
import { MlsUsageError, violated } from './errors.ts';

export interface CipherSuite {
  readonly id: number;
  readonly name: string;
  readonly kem: KemId;
  readonly kdf: KdfId;
  readonly aead: AeadId;
  readonly signature: SignatureSchemeId;
}

/**
 * The post-quantum suites of draft-ietf-mls-pq-ciphersuites have no code points yet; these two are in the private range
 * and stand here only.
 */
export const CipherSuiteId = {
  MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519: 0x0001,
  MLS_128_DHKEMP256_AES128GCM_SHA256_P256: 0x0002,
  MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519: 0x0003,
  MLS_256_DHKEMP521_AES256GCM_SHA512_P521: 0x0005,
  MLS_256_DHKEMP384_AES256GCM_SHA384_P384: 0x0007,
  MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519: 0xf0a1,
  MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519: 0xf0a2,
} as const;

const K = KemId;
const H = KdfId;
const A = AeadId;
const S = SignatureSchemeId;

export const cipherSuites: readonly CipherSuite[] = (
  [
    ['MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519', K.X25519HkdfSha256, H.HkdfSha256, A.Aes128Gcm, S.Ed25519],
    ['MLS_128_DHKEMP256_AES128GCM_SHA256_P256', K.P256HkdfSha256, H.HkdfSha256, A.Aes128Gcm, S.EcdsaP256Sha256],
    [
      'MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519',
      K.X25519HkdfSha256,
      H.HkdfSha256,
      A.ChaCha20Poly1305,
      S.Ed25519,
    ],
    ['MLS_256_DHKEMP521_AES256GCM_SHA512_P521', K.P521HkdfSha512, H.HkdfSha512, A.Aes256Gcm, S.EcdsaP521Sha512],
    ['MLS_256_DHKEMP384_AES256GCM_SHA384_P384', K.P384HkdfSha384, H.HkdfSha384, A.Aes256Gcm, S.EcdsaP384Sha384],
    ['MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519', K.XWing, H.HkdfSha384, A.Aes256Gcm, S.Ed25519],
    ['MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519', K.XWing, H.HkdfSha256, A.Aes128Gcm, S.Ed25519],
  ] as const
).map(([name, kem, kdf, aead, signature]) => ({ id: CipherSuiteId[name], name, kem, kdf, aead, signature }));

/** A suite at work on one crypto provider. */
export interface Suite {
  readonly id: number;
  readonly crypto: CryptoProvider;
  readonly hash: HashName;
  /** KDF.Nh, which is also the hash length. */
  readonly hashLength: number;
  readonly kem: Kem;
  readonly hpke: Hpke;
  readonly aead: Aead;
  readonly signature: SignatureScheme;
  /** Expanded labels by name and length, and the context of an HPKE label; all public. */
  readonly labels: Map<string, Uint8Array>;
}

const suites = new WeakMap<CryptoProvider, Map<number, Suite>>();

/** The suite, or undefined when the table does not have it. */
export function findSuite(crypto: CryptoProvider, id: number): Suite | undefined {
  let known = suites.get(crypto);
  if (known === undefined) suites.set(crypto, (known = new Map()));
  let suite = known.get(id);
  if (suite === undefined) {
    const entry = cipherSuites.find((each) => each.id === id);
    if (entry === undefined) return undefined;
    const hash = hashOfKdf(entry.kdf);
    const hpke = createHpke(crypto, entry);
    suite = {
      id,
      crypto,
      hash,
      hashLength: crypto.hashLength(hash),
      kem: hpke.kem,
      hpke,
      aead: crypto.aead(entry.aead),
      signature: crypto.signature(entry.signature),
      labels: new Map(),
    };
    known.set(id, suite);
  }
  return suite;
}

/** @throws MlsUsageError for a suite the table does not have. */
export function suiteOf(crypto: CryptoProvider, id: number): Suite {
  return findSuite(crypto, id) ?? unknownSuite(id);
}

function unknownSuite(id: number): never {
  throw new MlsUsageError(`unknown cipher suite ${id}`);
}

const PREFIX = 'MLS 1.0 ';

/** uint16 length ‖ label<V>, the constant part of KDFLabel. */
function kdfLabel(suite: Suite, label: string, length: number): Uint8Array {
  const key = `${length} ${label}`;
  let bytes = suite.labels.get(key);
  if (bytes === undefined) {
    bytes = new Writer()
      .u16(length)
      .opaque(encodeUtf8(PREFIX + label))
      .finish();
    if (suite.labels.size < 256) suite.labels.set(key, bytes);
  }
  return bytes;
}

export function expandWithLabel(
  suite: Suite,
  secret: Uint8Array,
  label: string,
  context: Uint8Array,
  length: number,
): Uint8Array {
  return new Writer()
    .bytes(kdfLabel(suite, label, length))
    .opaque(context)
    .finishInto((info) => suite.crypto.hkdfExpand(suite.hash, secret, info, length));
}

export function deriveSecret(suite: Suite, secret: Uint8Array, label: string): Uint8Array {
  return expandWithLabel(suite, secret, label, EMPTY, suite.hashLength);
}

export function deriveTreeSecret(
  suite: Suite,
  secret: Uint8Array,
  label: string,
  generation: number,
  length: number,
): Uint8Array {
  const prefix = kdfLabel(suite, label, length);
  const info = new Uint8Array(prefix.length + 5);
  info.set(prefix);
  let at = prefix.length;
  info[at++] = 4;
  info[at++] = generation >>> 24;
  info[at++] = generation >>> 16;
  info[at++] = generation >>> 8;
  info[at] = generation;
  return suite.crypto.hkdfExpand(suite.hash, secret, info, length);
}

export function hash(suite: Suite, data: Uint8Array): Uint8Array {
  return suite.crypto.hash(suite.hash, data);
}

export function mac(suite: Suite, key: Uint8Array, data: Uint8Array): Uint8Array {
  return suite.crypto.hmac(suite.hash, key, data);
}

export function refHash(suite: Suite, label: string, value: Uint8Array): Uint8Array {
  const writer = new Writer(value.length + 64).opaque(encodeUtf8(label)).opaque(value);
  return writer.finishInto((bytes) => hash(suite, bytes));
}

const prefixedLabels = new Map<string, Uint8Array>();

/** SignContent and EncryptContext: label<V> ‖ content<V>. All labels are the library's own. */
function labeled(label: string, content: Uint8Array): Writer {
  let prefix = prefixedLabels.get(label);
  if (prefix === undefined) prefixedLabels.set(label, (prefix = encodeUtf8(PREFIX + label)));
  return new Writer(content.length + 64).opaque(prefix).opaque(content);
}

export function signWithLabel(suite: Suite, privateKey: Uint8Array, label: string, content: Uint8Array): Uint8Array {
  return labeled(label, content).finishInto((bytes) => suite.signature.sign(privateKey, bytes));
}

export function verifyWithLabel(
  suite: Suite,
  publicKey: Uint8Array,
  label: string,
  content: Uint8Array,
  signature: Uint8Array,
): boolean {
  return labeled(label, content).finishInto((bytes) => suite.signature.verify(publicKey, bytes, signature));
}

export interface HpkeCiphertext {
  readonly kemOutput: Uint8Array;
  readonly ciphertext: Uint8Array;
}

let lastInfo: { readonly label: string; readonly context: Uint8Array; readonly info: Uint8Array } | undefined;

/** EncryptContext. One after the other, all receivers of a path or of a Welcome have the same; a Welcome's is long. */
function sealInfo(label: string, context: Uint8Array): Uint8Array {
  if (lastInfo?.context !== context || lastInfo.label !== label) {
    lastInfo = { label, context, info: labeled(label, context).finish() };
  }
  return lastInfo.info;
}

/** @throws RuleViolation `leafKeysValid` when nothing can be encrypted to this key. */
export function encryptWithLabel(
  suite: Suite,
  publicKey: Uint8Array,
  label: string,
  context: Uint8Array,
  plaintext: Uint8Array,
): HpkeCiphertext {
  try {
    const { enc, ciphertext } = suite.hpke.sealBase(publicKey, sealInfo(label, context), EMPTY, plaintext);
    return { kemOutput: enc, ciphertext };
  } catch (error) {
    if (error instanceof CryptoError) violated('leafKeysValid');
    throw error;
  }
}

export function decryptWithLabel(
  suite: Suite,
  privateKey: Uint8Array,
  label: string,
  context: Uint8Array,
  { kemOutput, ciphertext }: HpkeCiphertext,
): Uint8Array | undefined {
  return labeled(label, context).finishInto((info) =>
    suite.hpke.openBase(privateKey, kemOutput, info, EMPTY, ciphertext),
  );
}

export function freshKemKeyPair(suite: Suite, random: (length: number) => Uint8Array): KeyPair {
  const ikm = random(Math.max(suite.kem.privateKeyLength, suite.hashLength));
  const pair = suite.kem.deriveKeyPair(ikm);
  suite.crypto.wipe(ikm);
  return pair;
}
