/**
 * Welcomes (RFC 9420 section 12.4.3.1): the GroupInfo once, encrypted under the joiner secret; that secret encrypted to
 * each new member's init key. Joining checks everything before a state exists.
 */
import { EMPTY, equal } from '@quicprochat/crypto';
import {
  decryptWithLabel,
  encryptWithLabel,
  findSuite,
  signWithLabel,
  type Suite,
  verifyWithLabel,
} from './cipher-suites.ts';
import { decode, encode, Writer } from './codec.ts';
import { demand, refusable, violated, wipedOnRefusal } from './errors.ts';
import type { OwnPath } from './commit.ts';
import { defaultConfig, findExtension, type GroupCore, type GroupState, memberOf } from './group-state.ts';
import {
  confirmationTag,
  derivePskSecret,
  encodeGroupContext,
  epochKeys,
  interimTranscriptHash,
  type PskWithId,
  secretsOf,
  welcomeKey,
  welcomeSecret,
} from './key-schedule.ts';
import { checkExtensionList, checkGroupExtensions, keyPackageRef, readKeyPackageMessage } from './leaf-node.ts';
import { findPsk } from './proposals.ts';
import {
  decodeRatchetTree,
  encodeRatchetTree,
  leafAt,
  occupiedLeaves,
  parentAt,
  type RatchetTree,
  treeDirectPath,
  treeHash,
} from './ratchet-tree.ts';
import { newSecretTree } from './secret-tree.ts';
import { checkSuccessor, findSuccessorPsk, type SuccessorPsk } from './successor.ts';
import {
  type GroupInfo,
  type GroupSecrets,
  messageWriter,
  readGroupInfo,
  readGroupSecrets,
  readMlsMessage,
  type Welcome,
  writeGroupInfo,
  writeGroupSecrets,
  writeLeafNode,
  writeUnsignedGroupInfo,
  writeWelcome,
} from './structures.ts';
import { commonAncestor, nodeOfLeaf } from './tree-math.ts';
import { validateTree } from './tree-validation.ts';
import {
  type Extension,
  ExtensionType,
  type JoinGroupParameters,
  type JoinOutcome,
  type KeyPackage,
  type LeafIndex,
  type LeafNode,
  type MlsContext,
  type PreSharedKeyId,
  ProtocolVersion,
  type Rejected,
  WireFormat,
} from './types.ts';
import { derivePathSecrets, wipePathSecrets } from './update-path.ts';

// ---- Making ---------------------------------------------------------------------------------------------------------

export interface WelcomeParameters {
  readonly core: GroupCore;
  readonly tree: RatchetTree;
  readonly joinerSecret: Uint8Array;
  readonly psks: readonly PskWithId[];
  readonly added: readonly { readonly leafIndex: LeafIndex; readonly keyPackage: KeyPackage }[];
  readonly path: OwnPath | undefined;
  readonly ratchetTreeInside: boolean;
  readonly extensions: readonly Extension[];
}

export function createWelcome(
  _context: MlsContext,
  suite: Suite,
  parameters: WelcomeParameters,
): { readonly welcome: Uint8Array; readonly ratchetTree: Uint8Array | undefined } | undefined {
  const { core, added, path, psks } = parameters;
  if (added.length === 0) return undefined;
  const ratchetTree = encodeRatchetTree(parameters.tree);
  const groupInfo = signGroupInfo(suite, core, [
    ...(parameters.ratchetTreeInside ? [{ extensionType: ExtensionType.RatchetTree, extensionData: ratchetTree }] : []),
    ...parameters.extensions,
  ]);
  const pskSecret = derivePskSecret(suite, psks);
  const secret = welcomeSecret(suite, parameters.joinerSecret, pskSecret);
  const { key, nonce } = welcomeKey(suite, secret);
  const encryptedGroupInfo = suite.aead.seal(
    key,
    nonce,
    EMPTY,
    encode(writeGroupInfo, groupInfo, ratchetTree.length + 1024),
  );
  for (const used of [pskSecret, secret, key, nonce]) suite.crypto.wipe(used);

  const ids: PreSharedKeyId[] = psks.map(({ id }) => id);
  const secrets = added.map(({ leafIndex, keyPackage }) => {
    const ancestor = commonAncestor(core.ownLeaf, leafIndex);
    const step = path?.steps.findIndex(({ node }) => node === ancestor) ?? -1;
    const writer = new Writer();
    writeGroupSecrets(writer, {
      joinerSecret: parameters.joinerSecret,
      pathSecret: path?.secrets.pathSecrets[step],
      psks: ids,
    });
    const groupSecrets = writer.finish();
    const encryptedGroupSecrets = encryptWithLabel(
      suite,
      keyPackage.initKey,
      'Welcome',
      encryptedGroupInfo,
      groupSecrets,
    );
    suite.crypto.wipe(groupSecrets);
    return { newMember: keyPackageRef(suite, keyPackage), encryptedGroupSecrets };
  });
  const writer = messageWriter(WireFormat.Welcome, encryptedGroupInfo.length + 256 * added.length);
  writeWelcome(writer, { cipherSuite: suite.id, secrets, encryptedGroupInfo });
  return { welcome: writer.finish(), ratchetTree: parameters.ratchetTreeInside ? undefined : ratchetTree };
}

export function signGroupInfo(suite: Suite, core: GroupCore, extensions: readonly Extension[]): GroupInfo {
  const unsigned = {
    groupContext: core.context,
    extensions,
    confirmationTag: core.confirmationTag,
    signer: core.ownLeaf,
  };
  const tbs = encode(writeUnsignedGroupInfo, unsigned);
  return { ...unsigned, signature: signWithLabel(suite, core.signaturePrivateKey, 'GroupInfoTBS', tbs) };
}

// ---- Joining --------------------------------------------------------------------------------------------------------

function readWelcomeMessage(bytes: Uint8Array): Welcome {
  const message = decode(readMlsMessage, bytes);
  if (message.wireFormat !== WireFormat.Welcome) violated('wireFormat');
  return message.welcome;
}

/** The references of the KeyPackages a Welcome was made for: which bundle to join with. */
export function welcomeKeyPackageRefs(
  bytes: Uint8Array,
): { readonly kind: 'decoded'; readonly cipherSuite: number; readonly refs: readonly Uint8Array[] } | Rejected {
  return refusable(() => {
    const welcome = readWelcomeMessage(bytes);
    const refs = welcome.secrets.map(({ newMember }) => newMember);
    return { kind: 'decoded' as const, cipherSuite: welcome.cipherSuite, refs };
  });
}

/** Joins by a Welcome. Everything it brings is checked: its author, every leaf, every parent hash. */
export function joinGroup(context: MlsContext, parameters: JoinGroupParameters): JoinOutcome {
  return refusable(() => join(context, parameters));
}

function join(context: MlsContext, parameters: JoinGroupParameters): Exclude<JoinOutcome, Rejected> {
  const bundle = parameters.keyPackage;
  const welcome = readWelcomeMessage(parameters.welcome);
  const suite = findSuite(context.crypto, welcome.cipherSuite) ?? violated('welcomeSuite');
  const keyPackage = readKeyPackageMessage(bundle.keyPackage);
  demand(keyPackage.cipherSuite === welcome.cipherSuite, 'welcomeSuite');
  const ref = keyPackageRef(suite, keyPackage);
  const entry = welcome.secrets.find(({ newMember }) => equal(newMember, ref)) ?? violated('welcomeKeyPackage');

  const secretBytes =
    decryptWithLabel(
      suite,
      bundle.initPrivateKey,
      'Welcome',
      welcome.encryptedGroupInfo,
      entry.encryptedGroupSecrets,
    ) ?? violated('welcomeSecrets');
  return wipedOnRefusal(suite.crypto, (derived) => {
    derived.push(secretBytes);
    const groupSecrets = decode(readGroupSecrets, secretBytes);
    suite.crypto.wipe(secretBytes);
    derived.push(groupSecrets.joinerSecret, groupSecrets.pathSecret ?? EMPTY);
    const successorPsk = findSuccessorPsk(parameters.previous, groupSecrets.psks);
    const pskSecret = joinPskSecret(context, suite, groupSecrets.psks, successorPsk);
    derived.push(pskSecret);
    const groupInfo = openGroupInfo(suite, welcome, groupSecrets.joinerSecret, pskSecret);

    const { groupContext } = groupInfo;
    const { tree, signerLeaf } = verifyGroupInfo(context, suite, groupInfo, parameters);
    const ownLeaf = findOwnLeaf(tree, keyPackage);
    if (successorPsk !== undefined) checkSuccessor(context, parameters.previous!, successorPsk, { groupContext, tree });

    const contextBytes = encodeGroupContext(groupContext);
    const keys = epochKeys(suite, groupSecrets.joinerSecret, pskSecret, contextBytes);
    derived.push(...secretsOf(keys));
    suite.crypto.wipe(pskSecret);
    suite.crypto.wipe(groupSecrets.joinerSecret);
    const expectedTag = confirmationTag(suite, keys.secrets.confirmationKey, groupContext.confirmedTranscriptHash);
    demand(suite.crypto.equal(expectedTag, groupInfo.confirmationTag), 'confirmationTag');
    // Last of what may refuse: copies of the bundle's keys are made for a state that comes to be.
    const privateKeys = joinPrivateKeys(
      suite,
      tree,
      ownLeaf,
      groupInfo.signer,
      bundle.encryptionPrivateKey,
      groupSecrets,
    );

    const state: GroupState = {
      core: {
        status: 'active',
        reInit: undefined,
        config: { ...defaultConfig, ...parameters.config },
        context: groupContext,
        contextBytes,
        ownLeaf,
        signaturePrivateKey: bundle.signaturePrivateKey.slice(),
        privateKeys,
        secrets: keys.secrets,
        confirmationTag: expectedTag,
        interimTranscriptHash: interimTranscriptHash(suite, groupContext.confirmedTranscriptHash, expectedTag),
        resumptionPsks: [],
      },
      tree,
      secretTree: newSecretTree(keys.encryptionSecret, tree.leaves.length),
      proposals: [],
      pastEpochs: [],
    };
    return {
      kind: 'joined',
      state,
      inviter: memberOf(groupInfo.signer, signerLeaf),
      groupInfoExtensions: groupInfo.extensions.filter((each) => each.extensionType !== ExtensionType.RatchetTree),
    };
  });
}

/** What Welcome and external commit have in common: everything about a GroupInfo and its tree that a joiner can check. */
export function verifyGroupInfo(
  context: MlsContext,
  suite: Suite,
  groupInfo: GroupInfo,
  parameters: Pick<JoinGroupParameters, 'ratchetTree' | 'expectedGroupId' | 'groupExists'>,
): { readonly tree: RatchetTree; readonly signerLeaf: LeafNode } {
  const { groupContext } = groupInfo;
  demand(groupContext.version === ProtocolVersion.Mls10 && groupContext.cipherSuite === suite.id, 'welcomeSuite');
  const expected = parameters.expectedGroupId;
  demand(expected === undefined || equal(expected, groupContext.groupId), 'welcomeGroupUnique');
  demand(!parameters.groupExists?.(groupContext.groupId), 'welcomeGroupUnique');
  checkExtensionList(groupInfo.extensions, 'extensionsUnique');
  checkGroupExtensions(groupContext.extensions);

  const treeBytes =
    findExtension(groupInfo.extensions, ExtensionType.RatchetTree) ?? parameters.ratchetTree ?? violated('welcomeTree');
  const tree = decodeRatchetTree(treeBytes);
  demand(equal(treeHash(suite, tree), groupContext.treeHash), 'treeHash');
  const signerLeaf = leafAt(tree, groupInfo.signer) ?? violated('groupInfoSignature', 'no such member');
  const tbs = encode(writeUnsignedGroupInfo, groupInfo, treeBytes.length + 1024);
  demand(
    verifyWithLabel(suite, signerLeaf.signatureKey, 'GroupInfoTBS', tbs, groupInfo.signature),
    'groupInfoSignature',
  );
  validateTree(context, suite, tree, groupContext);
  return { tree, signerLeaf };
}

function joinPskSecret(
  context: MlsContext,
  suite: Suite,
  ids: readonly PreSharedKeyId[],
  successorPsk: SuccessorPsk | undefined,
): Uint8Array {
  for (const id of ids) demand(id.pskNonce.length === suite.hashLength, 'pskNonce');
  const psks = ids.map((id) => {
    const psk = id === successorPsk?.id ? successorPsk.psk : findPsk(context, id, undefined);
    return { id, psk: psk ?? violated('pskAvailable') };
  });
  return derivePskSecret(suite, psks);
}

function openGroupInfo(suite: Suite, welcome: Welcome, joiner: Uint8Array, pskSecret: Uint8Array): GroupInfo {
  const secret = welcomeSecret(suite, joiner, pskSecret);
  const { key, nonce } = welcomeKey(suite, secret);
  const bytes = suite.aead.open(key, nonce, EMPTY, welcome.encryptedGroupInfo);
  for (const used of [secret, key, nonce]) suite.crypto.wipe(used);
  return decode(readGroupInfo, bytes ?? violated('welcomeGroupInfo'));
}

function findOwnLeaf(tree: RatchetTree, keyPackage: KeyPackage): LeafIndex {
  const own = encode(writeLeafNode, keyPackage.leafNode);
  for (const [leafIndex, leaf] of occupiedLeaves(tree)) {
    if (!equal(leaf.encryptionKey, keyPackage.leafNode.encryptionKey)) continue;
    if (equal(encode(writeLeafNode, leaf), own)) return leafIndex;
  }
  return violated('welcomeLeaf');
}

/** Our leaf's key, and those the path secret gives for the nodes above the common ancestor with the committer. */
function joinPrivateKeys(
  suite: Suite,
  tree: RatchetTree,
  ownLeaf: LeafIndex,
  signer: LeafIndex,
  encryptionPrivateKey: Uint8Array,
  { pathSecret }: GroupSecrets,
): Map<number, Uint8Array> {
  if (pathSecret === undefined) return new Map([[nodeOfLeaf(ownLeaf), encryptionPrivateKey.slice()]]);
  demand(signer !== ownLeaf && pathSecret.length === suite.hashLength, 'welcomePathSecret');
  const path = treeDirectPath(tree, ownLeaf);
  const known = path
    .slice(path.indexOf(commonAncestor(ownLeaf, signer)))
    .filter((node) => parentAt(tree, node) !== undefined);
  demand(known[0] === commonAncestor(ownLeaf, signer), 'welcomePathSecret');
  const secrets = derivePathSecrets(suite, pathSecret, known.length);
  wipePathSecrets(suite, secrets);
  const match = known.every((node, i) => equal(secrets.keyPairs[i]!.publicKey, parentAt(tree, node)!.encryptionKey));
  if (!match) {
    for (const { privateKey } of secrets.keyPairs) suite.crypto.wipe(privateKey);
    return violated('welcomePathSecret');
  }
  const keys = new Map<number, Uint8Array>([[nodeOfLeaf(ownLeaf), encryptionPrivateKey.slice()]]);
  known.forEach((node, i) => keys.set(node, secrets.keyPairs[i]!.privateKey));
  return keys;
}
