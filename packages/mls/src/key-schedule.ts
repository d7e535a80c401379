/**
 * The key schedule (RFC 9420 section 8): from init, commit and pre-shared secrets to an epoch's secrets; transcript
 * hashes; exporters. Intermediate secrets are wiped where they are last used.
 */
import { EMPTY, encodeUtf8, type KeyPair } from '@quicprochat/crypto';
import { deriveSecret, expandWithLabel, hash, mac, type Suite } from './cipher-suites.ts';
import { encode, Writer } from './codec.ts';
import { violated } from './errors.ts';
import { type FramedContentAuthData, writeGroupContext, writePreSharedKeyId } from './structures.ts';
import type { GroupContext, PreSharedKeyId } from './types.ts';

/** What an epoch keeps. The encryption secret is not here: it goes into the secret tree at once. */
export interface EpochSecrets {
  readonly senderDataSecret: Uint8Array;
  readonly exporterSecret: Uint8Array;
  readonly externalSecret: Uint8Array;
  readonly confirmationKey: Uint8Array;
  readonly membershipKey: Uint8Array;
  readonly resumptionPsk: Uint8Array;
  readonly epochAuthenticator: Uint8Array;
  readonly initSecret: Uint8Array;
}

export interface EpochKeys {
  readonly secrets: EpochSecrets;
  readonly encryptionSecret: Uint8Array;
}

export function encodeGroupContext(context: GroupContext): Uint8Array {
  return encode(writeGroupContext, context);
}

export function joinerSecret(
  suite: Suite,
  initSecret: Uint8Array,
  commitSecret: Uint8Array,
  groupContext: Uint8Array,
): Uint8Array {
  const extracted = suite.crypto.hkdfExtract(suite.hash, initSecret, commitSecret);
  const joiner = expandWithLabel(suite, extracted, 'joiner', groupContext, suite.hashLength);
  suite.crypto.wipe(extracted);
  return joiner;
}

export function welcomeSecret(suite: Suite, joiner: Uint8Array, pskSecret: Uint8Array): Uint8Array {
  const member = suite.crypto.hkdfExtract(suite.hash, joiner, pskSecret);
  const welcome = deriveSecret(suite, member, 'welcome');
  suite.crypto.wipe(member);
  return welcome;
}

export function epochKeys(
  suite: Suite,
  joiner: Uint8Array,
  pskSecret: Uint8Array,
  groupContext: Uint8Array,
): EpochKeys {
  const member = suite.crypto.hkdfExtract(suite.hash, joiner, pskSecret);
  const epochSecret = expandWithLabel(suite, member, 'epoch', groupContext, suite.hashLength);
  suite.crypto.wipe(member);
  const keys = keysOfEpochSecret(suite, epochSecret);
  suite.crypto.wipe(epochSecret);
  return keys;
}

export function keysOfEpochSecret(suite: Suite, epochSecret: Uint8Array): EpochKeys {
  const derive = (label: string): Uint8Array => deriveSecret(suite, epochSecret, label);
  return {
    encryptionSecret: derive('encryption'),
    secrets: {
      senderDataSecret: derive('sender data'),
      exporterSecret: derive('exporter'),
      externalSecret: derive('external'),
      confirmationKey: derive('confirm'),
      membershipKey: derive('membership'),
      resumptionPsk: derive('resumption'),
      epochAuthenticator: derive('authentication'),
      initSecret: derive('init'),
    },
  };
}

export function secretsOf({ secrets, encryptionSecret }: EpochKeys): Uint8Array[] {
  return [...(Object.values(secrets) as Uint8Array[]), encryptionSecret];
}

/** The key pair outsiders encapsulate to (section 8.3). */
export function externalKeyPair(suite: Suite, externalSecret: Uint8Array): KeyPair {
  return suite.kem.deriveKeyPair(externalSecret);
}

const EXTERNAL_INIT = encodeUtf8('MLS 1.0 external init secret');

/** A joiner's init secret, and the kem_output by which the members get it too. */
export function makeExternalInit(
  suite: Suite,
  externalPub: Uint8Array,
): { readonly kemOutput: Uint8Array; readonly initSecret: Uint8Array } {
  const { enc, context } = suite.hpke.setupSender(externalPub, EMPTY);
  const initSecret = context.export(EXTERNAL_INIT, suite.hashLength);
  context.wipe();
  return { kemOutput: enc, initSecret };
}

/** @throws RuleViolation `externalInit` */
export function openExternalInit(suite: Suite, externalSecret: Uint8Array, kemOutput: Uint8Array): Uint8Array {
  const { privateKey } = externalKeyPair(suite, externalSecret);
  const receiver = suite.hpke.setupReceiver(privateKey, kemOutput, EMPTY);
  suite.crypto.wipe(privateKey);
  if (receiver === undefined) return violated('externalInit');
  const initSecret = receiver.export(EXTERNAL_INIT, suite.hashLength);
  receiver.wipe();
  return initSecret;
}

export interface PskWithId {
  readonly id: PreSharedKeyId;
  readonly psk: Uint8Array;
}

/** psk_secret of section 8.4; all zero for no PSK. */
export function derivePskSecret(suite: Suite, psks: readonly PskWithId[]): Uint8Array {
  const zero = new Uint8Array(suite.hashLength);
  let secret: Uint8Array = new Uint8Array(suite.hashLength);
  psks.forEach(({ id, psk }, index) => {
    const extracted = suite.crypto.hkdfExtract(suite.hash, zero, psk);
    const label = new Writer();
    writePreSharedKeyId(label, id);
    label.u16(index).u16(psks.length);
    const input = expandWithLabel(suite, extracted, 'derived psk', label.finish(), suite.hashLength);
    const next = suite.crypto.hkdfExtract(suite.hash, input, secret);
    for (const used of [extracted, input, secret]) suite.crypto.wipe(used);
    secret = next;
  });
  return secret;
}

/** `content` is the encoded FramedContent of a commit. */
export function confirmedTranscriptHash(
  suite: Suite,
  interim: Uint8Array,
  wireFormat: number,
  content: Uint8Array,
  signature: FramedContentAuthData['signature'],
): Uint8Array {
  const writer = new Writer(interim.length + content.length + signature.length + 16);
  writer.bytes(interim).u16(wireFormat).bytes(content).opaque(signature);
  return writer.finishInto((bytes) => hash(suite, bytes));
}

export function interimTranscriptHash(suite: Suite, confirmed: Uint8Array, confirmationTag: Uint8Array): Uint8Array {
  return new Writer()
    .bytes(confirmed)
    .opaque(confirmationTag)
    .finishInto((bytes) => hash(suite, bytes));
}

export function confirmationTag(suite: Suite, confirmationKey: Uint8Array, confirmed: Uint8Array): Uint8Array {
  return mac(suite, confirmationKey, confirmed);
}

export function mlsExporter(
  suite: Suite,
  exporterSecret: Uint8Array,
  label: string,
  context: Uint8Array,
  length: number,
): Uint8Array {
  const derived = deriveSecret(suite, exporterSecret, label);
  const value = expandWithLabel(suite, derived, 'exported', hash(suite, context), length);
  suite.crypto.wipe(derived);
  return value;
}

/** Key and nonce of the encrypted GroupInfo (section 12.4.3.1). */
export function welcomeKey(suite: Suite, welcome: Uint8Array): { key: Uint8Array; nonce: Uint8Array } {
  return {
    key: expandWithLabel(suite, welcome, 'key', EMPTY, suite.aead.keyLength),
    nonce: expandWithLabel(suite, welcome, 'nonce', EMPTY, suite.aead.nonceLength),
  };
}

/** RefHash labels of section 5.2. */
export const KEY_PACKAGE_REF = 'MLS 1.0 KeyPackage Reference';
export const PROPOSAL_REF = 'MLS 1.0 Proposal Reference';
