/**
 * Leaf nodes and KeyPackages: making them and checking them (RFC 9420 sections 7.2, 7.3, 10, 10.1). Checks are split by
 * what they need: a leaf alone (`checkLeafNode`), a leaf with the group it stands in (`checkLeafInGroup`); uniqueness of
 * keys is checked for the whole list of proposals (proposals.ts) or the whole tree (tree-validation.ts).
 */
import { EMPTY, equal, type KeyPair, SignatureSchemeId } from '@quicprochat/crypto';
import {
  cipherSuites,
  findSuite,
  freshKemKeyPair,
  refHash,
  signWithLabel,
  type Suite,
  suiteOf,
  verifyWithLabel,
} from './cipher-suites.ts';
import { decode, encode, Writer } from './codec.ts';
import { demand, MlsUsageError, refusable, usable, violated } from './errors.ts';
import { greasedCapabilities, greaseExtension, isGrease } from './grease.ts';
import { memberOf } from './group-state.ts';
import { KEY_PACKAGE_REF } from './key-schedule.ts';
import {
  encodeLeafNodeTbs,
  messageWriter,
  readExternalJoins,
  readExternalSenders,
  readMlsMessage,
  readRequiredCapabilities,
  type UnsignedLeafNode,
  writeKeyPackage,
  writeUnsignedKeyPackage,
} from './structures.ts';
import {
  type Capabilities,
  type Credential,
  CredentialType,
  type Extension,
  ExtensionType,
  type ExternalJoins,
  type ExternalSender,
  type KeyPackage,
  type KeyPackageBundle,
  type KeyPackageOutcome,
  type KeyPackageParameters,
  type LeafIndex,
  type LeafNode,
  type Lifetime,
  type MlsContext,
  ProtocolVersion,
  type Rejected,
  type RequiredCapabilities,
  type VerifiedKeyPackage,
  WireFormat,
} from './types.ts';

const HOUR = 3600;
const LIFETIME_DAYS = 84;

/** A fresh key pair of the suite's signature scheme, raw bytes. */
export function generateSignatureKeyPair(context: MlsContext, cipherSuite: number): KeyPair {
  const { signature, crypto } = suiteOf(context.crypto, cipherSuite);
  // A seed longer than the group order, so that reducing it leaves no bias; Ed25519 takes its 32 bytes as they are.
  const seed = context.random(signature.id === SignatureSchemeId.Ed25519 ? 32 : signature.privateKeyLength + 16);
  const pair = signature.deriveKeyPair(seed);
  if (pair.privateKey !== seed) crypto.wipe(seed);
  return pair;
}

/**
 * A KeyPackage (RFC 9420 section 10) with fresh init and encryption keys, and its secrets.
 * @throws MlsUsageError for an unknown suite or parameters that contradict each other
 */
export function generateKeyPackage(context: MlsContext, parameters: KeyPackageParameters): KeyPackageBundle {
  const suite = suiteOf(context.crypto, parameters.cipherSuite);
  const initKeys = freshKemKeyPair(suite, context.random);
  const encryptionKeys = freshKemKeyPair(suite, context.random);
  const extensions = [...(parameters.extensions ?? [])];
  const leafExtensions = [...(parameters.leafNodeExtensions ?? [])];
  if (parameters.lastResort) extensions.push({ extensionType: ExtensionType.LastResort, extensionData: EMPTY });
  if (parameters.grease) {
    extensions.push(greaseExtension(context));
    leafExtensions.push(greaseExtension(context));
  }
  const leafNode = signLeafNode(suite, parameters.signatureKeyPair.privateKey, EMPTY, 0, {
    encryptionKey: encryptionKeys.publicKey,
    signatureKey: parameters.signatureKeyPair.publicKey,
    credential: parameters.credential,
    capabilities: greasedCapabilities(
      context,
      parameters.grease,
      completeCapabilities(parameters.capabilities, parameters.credential, [...extensions, ...leafExtensions]),
    ),
    source: { kind: 'keyPackage', lifetime: parameters.lifetime ?? defaultLifetime(context.now) },
    extensions: leafExtensions,
  });
  const unsigned = {
    version: ProtocolVersion.Mls10,
    cipherSuite: suite.id,
    initKey: initKeys.publicKey,
    leafNode,
    extensions,
  };
  const signature = signWithLabel(
    suite,
    parameters.signatureKeyPair.privateKey,
    'KeyPackageTBS',
    encode(writeUnsignedKeyPackage, unsigned),
  );
  const keyPackage: KeyPackage = { ...unsigned, signature };
  usable(() => {
    checkKeyPackageForm(suite, keyPackage);
    checkSignatureKey(suite, leafNode);
  });
  const writer = messageWriter(WireFormat.KeyPackage, 1024);
  writeKeyPackage(writer, keyPackage);
  return {
    keyPackage: writer.finish(),
    keyPackageRef: keyPackageRef(suite, keyPackage),
    initPrivateKey: initKeys.privateKey,
    encryptionPrivateKey: encryptionKeys.privateKey,
    signaturePrivateKey: parameters.signatureKeyPair.privateKey,
  };
}

/** Whether it may be used more than once. */
export function isLastResort(keyPackage: KeyPackage): boolean {
  return keyPackage.extensions.some(({ extensionType }) => extensionType === ExtensionType.LastResort);
}

export function defaultLifetime(now: number): Lifetime {
  return { notBefore: BigInt(now - HOUR), notAfter: BigInt(now + LIFETIME_DAYS * 24 * HOUR) };
}

/** Fills in what the application did not say, and the types of the extensions it uses. */
export function completeCapabilities(
  given: Partial<Capabilities> | undefined,
  credential: Credential,
  extensions: readonly Extension[],
): Capabilities {
  const used = extensions.map((extension) => extension.extensionType).filter((type) => !isDefaultExtension(type));
  return {
    versions: given?.versions ?? [ProtocolVersion.Mls10],
    cipherSuites: given?.cipherSuites ?? cipherSuites.map((suite) => suite.id),
    extensions: [...new Set([...(given?.extensions ?? []), ...used])],
    proposals: given?.proposals ?? [],
    credentials: [...new Set([...(given?.credentials ?? [CredentialType.Basic]), credential.credentialType])],
  };
}

export function signLeafNode(
  suite: Suite,
  signaturePrivateKey: Uint8Array,
  groupId: Uint8Array,
  leafIndex: number,
  leafNode: UnsignedLeafNode,
): LeafNode {
  const tbs = encodeLeafNodeTbs(leafNode, groupId, leafIndex, new Writer());
  return { ...leafNode, signature: signWithLabel(suite, signaturePrivateKey, 'LeafNodeTBS', tbs) };
}

export function keyPackageRef(suite: Suite, keyPackage: KeyPackage): Uint8Array {
  return refHash(suite, KEY_PACKAGE_REF, encode(writeKeyPackage, keyPackage));
}

// ---- Checking a leaf by itself --------------------------------------------------------------------------------------

export interface LeafPlace {
  /** Undefined for a leaf that stands in a tree: any source. */
  readonly source: LeafNode['source']['kind'] | undefined;
  readonly groupId: Uint8Array;
  readonly leafIndex: number;
}

export function checkLeafNode(suite: Suite, leaf: LeafNode, place: LeafPlace): void {
  checkLeafForm(suite, leaf, place.source);
  checkLeafSignature(suite, leaf, place);
}

/** A signature that is valid shows that its key is; only where it is not does it matter which of them is wrong. */
function checkLeafSignature(suite: Suite, leaf: LeafNode, place: Pick<LeafPlace, 'groupId' | 'leafIndex'>): void {
  if (isLeafSignatureValid(suite, leaf, place)) return;
  checkSignatureKey(suite, leaf);
  violated('leafSignature');
}

function checkSignatureKey(suite: Suite, leaf: LeafNode): void {
  demand(suite.signature.isPublicKey(leaf.signatureKey), 'leafKeysValid', 'signature_key');
}

export function isLeafSignatureValid(
  suite: Suite,
  leaf: LeafNode,
  { groupId, leafIndex }: Pick<LeafPlace, 'groupId' | 'leafIndex'>,
): boolean {
  const tbs = encodeLeafNodeTbs(leaf, groupId, leafIndex, new Writer());
  return verifyWithLabel(suite, leaf.signatureKey, 'LeafNodeTBS', tbs, leaf.signature);
}

/** All of a leaf of one's own, which one signs oneself. */
export function checkOwnLeaf(suite: Suite, leaf: LeafNode, source: LeafPlace['source']): void {
  checkLeafForm(suite, leaf, source);
  checkSignatureKey(suite, leaf);
}

/** All of a leaf but its signature and the key of that. */
function checkLeafForm(suite: Suite, leaf: LeafNode, source: LeafPlace['source']): void {
  demand(source === undefined || leaf.source.kind === source, 'leafSource');
  demand(suite.kem.isPublicKey(leaf.encryptionKey), 'leafKeysValid', 'encryption_key');
  const { capabilities } = leaf;
  demand(
    capabilities.versions.includes(ProtocolVersion.Mls10) && capabilities.cipherSuites.includes(suite.id),
    'leafSuite',
  );
  demand(capabilities.credentials.includes(leaf.credential.credentialType), 'leafCredentialSupport');
  checkExtensionList(leaf.extensions, 'leafExtensions');
  for (const { extensionType } of leaf.extensions) {
    demand(supportsExtension(capabilities, extensionType), 'leafExtensions');
  }
}

export function checkLifetime(leaf: LeafNode, now: number): void {
  demand(isWithinLifetime(leaf, now), 'leafLifetime');
}

export function isWithinLifetime(leaf: LeafNode, now: number): boolean {
  if (leaf.source.kind !== 'keyPackage') return true;
  const { notBefore, notAfter } = leaf.source.lifetime;
  const time = BigInt(Math.floor(now));
  return notBefore <= time && time <= notAfter;
}

export function askForMember(
  context: MlsContext,
  leafIndex: LeafIndex,
  leaf: LeafNode,
  reason: 'join' | 'add' | 'update' | 'commit',
): void {
  const verdict = context.hooks?.validateMember?.(memberOf(leafIndex, leaf), reason);
  if (verdict?.kind === 'reject') violated('leafCredential', verdict.reason);
}

// ---- Checking a KeyPackage ------------------------------------------------------------------------------------------

/** A KeyPackage from its MLSMessage, unchecked: to look at, not to add. */
export function decodeKeyPackage(
  bytes: Uint8Array,
): { readonly kind: 'decoded'; readonly keyPackage: KeyPackage } | Rejected {
  return refusable(() => ({ kind: 'decoded' as const, keyPackage: readKeyPackageMessage(bytes) }));
}

export function readKeyPackageMessage(bytes: Uint8Array): KeyPackage {
  const message = decode(readMlsMessage, bytes);
  if (message.wireFormat !== WireFormat.KeyPackage) violated('wireFormat');
  return message.keyPackage;
}

/**
 * A KeyPackage from its MLSMessage, with everything checked that does not depend on a group: signatures, keys,
 * lifetime, capabilities. What `createCommit` and `createProposal` take.
 */
export function verifyKeyPackage(context: MlsContext, bytes: Uint8Array): KeyPackageOutcome {
  return refusable((): KeyPackageOutcome => {
    const keyPackage = readKeyPackageMessage(bytes);
    const suite = findSuite(context.crypto, keyPackage.cipherSuite) ?? violated('keyPackageSuite');
    const checked = checkKeyPackage(suite, keyPackage);
    checkLifetime(checked.leafNode, context.now);
    return { kind: 'verified', keyPackage: checked, keyPackageRef: keyPackageRef(suite, checked) };
  });
}

/** KeyPackages whose signatures were verified in this process; nothing is verified twice. */
const verifiedKeyPackages = new WeakSet<KeyPackage>();

/** All of section 10.1 that does not depend on the time. */
export function checkKeyPackage(suite: Suite, keyPackage: KeyPackage): VerifiedKeyPackage {
  demand(keyPackage.version === ProtocolVersion.Mls10 && keyPackage.cipherSuite === suite.id, 'keyPackageSuite');
  if (isVerified(keyPackage)) return keyPackage;
  checkKeyPackageForm(suite, keyPackage);
  const { leafNode } = keyPackage;
  checkLeafSignature(suite, leafNode, { groupId: EMPTY, leafIndex: 0 });
  const tbs = encode(writeUnsignedKeyPackage, keyPackage);
  demand(
    verifyWithLabel(suite, leafNode.signatureKey, 'KeyPackageTBS', tbs, keyPackage.signature),
    'keyPackageSignature',
  );
  verifiedKeyPackages.add(keyPackage);
  return keyPackage as VerifiedKeyPackage;
}

/** All of a KeyPackage but its signatures. */
function checkKeyPackageForm(suite: Suite, keyPackage: KeyPackage): void {
  const { leafNode } = keyPackage;
  demand(suite.kem.isPublicKey(keyPackage.initKey), 'leafKeysValid', 'init_key');
  demand(!equal(keyPackage.initKey, leafNode.encryptionKey), 'keyPackageInitKey');
  checkLeafForm(suite, leafNode, 'keyPackage');
  checkExtensionList(keyPackage.extensions, 'keyPackageExtensions');
  for (const { extensionType } of keyPackage.extensions) {
    demand(supportsExtension(leafNode.capabilities, extensionType), 'keyPackageExtensions');
  }
}

function isVerified(keyPackage: KeyPackage): keyPackage is VerifiedKeyPackage {
  return verifiedKeyPackages.has(keyPackage);
}

export function demandVerified(keyPackage: VerifiedKeyPackage): void {
  if (!isVerified(keyPackage)) throw new MlsUsageError('a KeyPackage must come from verifyKeyPackage');
}

// ---- Extensions and capabilities (sections 11.1, 13) ----------------------------------------------------------------

/** The extension and proposal types every client has, which are not listed in capabilities. */
function isDefaultExtension(type: number): boolean {
  return type >= ExtensionType.ApplicationId && type <= ExtensionType.ExternalSenders;
}

export function isDefaultProposal(type: number): boolean {
  return type >= 1 && type <= 7;
}

/** Whether a client with these capabilities takes part in a commit of a proposal that RFC 9420 does not define. */
export function supportsCustomProposal(capabilities: Capabilities, type: number): boolean {
  return type !== 0 && !isDefaultProposal(type) && !isGrease(type) && capabilities.proposals.includes(type);
}

function supportsExtension(capabilities: Capabilities, type: number): boolean {
  return isDefaultExtension(type) || capabilities.extensions.includes(type);
}

export function checkExtensionList(
  extensions: readonly Extension[],
  rule: 'leafExtensions' | 'keyPackageExtensions' | 'extensionsUnique',
): void {
  if (extensions.length < 2) return;
  const types = new Set(extensions.map((extension) => extension.extensionType));
  demand(types.size === extensions.length, rule, 'a type occurs twice');
}

/** Extensions of a GroupContext: each once, the known ones well-formed and allowed there. */
export function checkGroupExtensions(extensions: readonly Extension[]): void {
  checkExtensionList(extensions, 'extensionsUnique');
  for (const { extensionType, extensionData } of extensions) {
    switch (extensionType) {
      case ExtensionType.RequiredCapabilities:
      case ExtensionType.ExternalSenders:
      case ExtensionType.ExternalJoins:
        demandWellFormed(extensionType, extensionData);
        break;
      case ExtensionType.ApplicationId:
      case ExtensionType.RatchetTree:
      case ExtensionType.ExternalPub:
        violated('extensionsValid');
    }
  }
}

function demandWellFormed(type: number, data: Uint8Array): void {
  const outcome = refusable(() => {
    if (type === ExtensionType.RequiredCapabilities) decode(readRequiredCapabilities, data);
    else if (type === ExtensionType.ExternalJoins) decode(readExternalJoins, data);
    else decode(readExternalSenders, data);
    return undefined;
  });
  if (outcome !== undefined) violated('extensionsValid');
}

/** Whom the group lets in by themselves. */
export function externalJoins(extensions: readonly Extension[]): ExternalJoins {
  const data = extensions.find((each) => each.extensionType === ExtensionType.ExternalJoins)?.extensionData;
  return data === undefined ? { commits: false, proposals: false } : decode(readExternalJoins, data);
}

/** Who may propose from outside. */
export function externalSenders(extensions: readonly Extension[]): readonly ExternalSender[] {
  const data = extensions.find((each) => each.extensionType === ExtensionType.ExternalSenders)?.extensionData;
  return data === undefined ? [] : decode(readExternalSenders, data);
}

/** What the GroupContext extensions ask of every member. */
export function requirements(extensions: readonly Extension[]): RequiredCapabilities {
  const data = extensions.find((each) => each.extensionType === ExtensionType.RequiredCapabilities)?.extensionData;
  const required = data && decode(readRequiredCapabilities, data);
  const extensionTypes = extensions.map((each) => each.extensionType).concat(required?.extensionTypes ?? []);
  return {
    extensionTypes: extensionTypes.filter((type) => !isDefaultExtension(type)),
    proposalTypes: (required?.proposalTypes ?? []).filter((type) => !isDefaultProposal(type)),
    credentialTypes: required?.credentialTypes ?? [],
  };
}

export function meets(capabilities: Capabilities, required: RequiredCapabilities): boolean {
  return (
    required.extensionTypes.every((type) => capabilities.extensions.includes(type)) &&
    required.proposalTypes.every((type) => capabilities.proposals.includes(type)) &&
    required.credentialTypes.every((type) => capabilities.credentials.includes(type))
  );
}
