/**
 * An attacker who is a member: has a member's keys, makes what it sends consistent in every respect but the one it is
 * told to break, and checks nothing. Without a fault (`forgeCommit(…, {})`) receivers accept what it makes.
 */
import { EMPTY, type KeyPair } from '@quicprochat/crypto';
import { encryptWithLabel, freshKemKeyPair, signWithLabel, type Suite, suiteOf } from '../cipher-suites.ts';
import { frame, memberContent } from '../commit.ts';
import { encode, Writer } from '../codec.ts';
import { encodeOutsideMessage, encodePublicMessage, sealPrivateMessage, signContent } from '../framing.ts';
import { type GroupState, stateSuite } from '../group-state.ts';
import {
  confirmationTag,
  confirmedTranscriptHash,
  derivePskSecret,
  encodeGroupContext,
  epochKeys,
  externalKeyPair,
  joinerSecret,
  makeExternalInit,
  type PskWithId,
  welcomeKey,
  welcomeSecret,
} from '../key-schedule.ts';
import { keyPackageRef, readKeyPackageMessage, signLeafNode } from '../leaf-node.ts';
import {
  addLeaf,
  blankDirectPath,
  editTree,
  encodeRatchetTree,
  filteredDirectPath,
  leafAt,
  type RatchetTree,
  removeLeaf,
  setLeaf,
  setPathKeys,
  type TreeEditor,
  treeHash,
  truncate,
  updateLeaf,
} from '../ratchet-tree.ts';
import { takeKey, takeNextKey } from '../secret-tree.ts';
import {
  type Commit,
  type Content,
  type GroupInfo,
  type GroupSecrets,
  messageWriter,
  type UnsignedLeafNode,
  type UpdatePath,
  writeGroupInfo,
  writeGroupSecrets,
  writeKeyPackage,
  writeUnsignedGroupInfo,
  writeUnsignedKeyPackage,
  writeWelcome,
} from '../structures.ts';
import {
  ContentType,
  type Extension,
  type GroupContext,
  type KeyPackage,
  type KeyPackageBundle,
  type LeafIndex,
  type MlsContext,
  type Proposal,
  type Sender,
  WireFormat,
} from '../types.ts';
import { derivePathSecrets, encryptPath, type PathSecrets } from '../update-path.ts';
import { signGroupInfo } from '../welcome.ts';

export const EXTERNAL_PSK = new Uint8Array(32).fill(9);

// ---- KeyPackages ----------------------------------------------------------------------------------------------------

export interface KeyPackageForgery {
  readonly leaf?: (leaf: UnsignedLeafNode) => UnsignedLeafNode;
  readonly keyPackage?: (keyPackage: Omit<KeyPackage, 'signature'>) => Omit<KeyPackage, 'signature'>;
  readonly leafSigner?: KeyPair;
  readonly signer?: KeyPair;
}

/** Takes an honest KeyPackage apart, changes it, and signs it again. */
export function forgeKeyPackage(
  context: MlsContext,
  bundle: KeyPackageBundle,
  signatureKeyPair: KeyPair,
  forgery: KeyPackageForgery,
): KeyPackageBundle {
  const honest = readKeyPackageMessage(bundle.keyPackage);
  const suite = suiteOf(context.crypto, honest.cipherSuite);
  const { signature: _leafSignature, ...leaf } = honest.leafNode;
  const leafNode = signLeafNode(
    suite,
    (forgery.leafSigner ?? signatureKeyPair).privateKey,
    EMPTY,
    0,
    forgery.leaf?.(leaf) ?? leaf,
  );
  const { signature: _signature, ...rest } = { ...honest, leafNode };
  const unsigned = forgery.keyPackage?.(rest) ?? rest;
  const signature = signWithLabel(
    suite,
    (forgery.signer ?? signatureKeyPair).privateKey,
    'KeyPackageTBS',
    encode(writeUnsignedKeyPackage, unsigned),
  );
  const keyPackage = { ...unsigned, signature };
  const writer = messageWriter(WireFormat.KeyPackage);
  writeKeyPackage(writer, keyPackage);
  return { ...bundle, keyPackage: writer.finish(), keyPackageRef: keyPackageRef(suite, keyPackage) };
}

export function addOf(bundle: KeyPackageBundle): Proposal {
  return { kind: 'add', keyPackage: readKeyPackageMessage(bundle.keyPackage) };
}

// ---- Messages -------------------------------------------------------------------------------------------------------

export interface MessageForgery {
  readonly wireFormat?: 'private' | 'public';
  /** Whose leaf is named, and whose ratchet used. */
  readonly leafIndex?: number;
  readonly sender?: Sender;
  readonly signer?: KeyPair;
  readonly generation?: number;
  /** Bytes where only padding belongs. */
  readonly padding?: Uint8Array;
  readonly membershipTag?: (tag: Uint8Array) => Uint8Array;
  readonly epoch?: bigint;
}

export function forgeMessage(
  context: MlsContext,
  state: GroupState,
  content: Content,
  forgery: MessageForgery = {},
): Uint8Array {
  const suite = stateSuite(context, state);
  const { core } = state;
  const leafIndex = (forgery.leafIndex ?? core.ownLeaf) as LeafIndex;
  const wireFormat = forgery.wireFormat === 'public' ? WireFormat.PublicMessage : WireFormat.PrivateMessage;
  const signed = signContent(
    suite,
    forgery.signer?.privateKey ?? core.signaturePrivateKey,
    wireFormat,
    {
      ...memberContent(core, EMPTY, content),
      sender: forgery.sender ?? { kind: 'member', leafIndex },
      epoch: forgery.epoch ?? core.context.epoch,
    },
    core.contextBytes,
  );
  const message = { ...signed, auth: { signature: signed.signature, confirmationTag: forgery.padding } };
  if (wireFormat === WireFormat.PublicMessage) {
    const bytes = encodePublicMessage(suite, core.secrets.membershipKey, message, core.contextBytes);
    // The tag is the last field: one length byte and the hash.
    const start = bytes.length - suite.hashLength;
    if (forgery.sender !== undefined && forgery.sender.kind !== 'member') return bytes.slice(0, start - 1);
    if (forgery.membershipTag === undefined) return bytes;
    const tag = forgery.membershipTag(bytes.slice(start));
    return new Writer()
      .bytes(bytes.subarray(0, start - 1))
      .opaque(tag)
      .finish();
  }
  const kind = content.contentType === ContentType.Application ? 'application' : 'handshake';
  const room = { ...core.config, skipAheadMax: 1_000_000 };
  const taken =
    forgery.generation === undefined
      ? takeNextKey(suite, state.secretTree, Math.min(leafIndex, state.secretTree.leafCount - 1), kind)
      : takeKey(suite, state.secretTree, leafIndex, kind, forgery.generation, room, 1000);
  return sealPrivateMessage(suite, message, {
    key: taken.key,
    senderDataSecret: core.secrets.senderDataSecret,
    leafIndex,
    reuseGuard: context.random(4),
    paddingLength: 0,
  });
}

// ---- Commits --------------------------------------------------------------------------------------------------------

export interface CommitForgery {
  /** Proposals by value; a byte string is a reference. */
  readonly proposals?: readonly (Proposal | Uint8Array)[];
  /** Default true. */
  readonly path?: boolean;
  readonly leaf?: (leaf: UnsignedLeafNode) => UnsignedLeafNode;
  readonly leafSigner?: KeyPair;
  /** Key pairs that take the place of the derived ones. */
  readonly keyPairs?: (keyPairs: readonly KeyPair[]) => readonly KeyPair[];
  /** Changes the path after it was encrypted. */
  readonly updatePath?: (path: UpdatePath) => UpdatePath;
  readonly confirmationTag?: (tag: Uint8Array) => Uint8Array;
  readonly wireFormat?: 'private' | 'public';
  readonly encryptionKeyPair?: KeyPair;
}

export function forgeCommit(context: MlsContext, state: GroupState, forgery: CommitForgery): Uint8Array {
  const suite = stateSuite(context, state);
  const { core } = state;
  const given = forgery.proposals ?? [];
  const known = given.map((each) => {
    if (!(each instanceof Uint8Array)) {
      return { proposal: each, sender: { kind: 'member' as const, leafIndex: core.ownLeaf } };
    }
    return state.proposals.find(({ ref }) => Buffer.from(ref).equals(each));
  });
  const { tree, added, extensions, psks } = applyUnchecked(
    state,
    known.filter((each) => each !== undefined),
  );
  const withPath = forgery.path ?? true;
  const path = withPath && leafAt(tree, core.ownLeaf) ? setForgedPath(context, suite, state, tree, forgery) : undefined;
  const provisional: GroupContext = {
    ...core.context,
    epoch: core.context.epoch + 1n,
    treeHash: treeHash(suite, tree),
    extensions,
  };
  let updatePath: UpdatePath | undefined;
  if (path !== undefined) {
    const nodes = encryptPath(suite, tree, path.steps, path.secrets, encodeGroupContext(provisional), added);
    updatePath = { leafNode: path.leafNode, nodes };
    updatePath = forgery.updatePath?.(updatePath) ?? updatePath;
  }
  const commit: Commit = {
    proposals: given.map((each) =>
      each instanceof Uint8Array ? { kind: 'reference', reference: each } : { kind: 'proposal', proposal: each },
    ),
    path: updatePath,
  };
  const signed = signContent(
    suite,
    core.signaturePrivateKey,
    forgery.wireFormat === 'public' ? WireFormat.PublicMessage : WireFormat.PrivateMessage,
    memberContent(core, EMPTY, { contentType: ContentType.Commit, commit }),
    core.contextBytes,
  );
  const confirmed = confirmedTranscriptHash(
    suite,
    core.interimTranscriptHash,
    signed.wireFormat,
    signed.contentBytes,
    signed.signature,
  );
  const next = encodeGroupContext({ ...provisional, confirmedTranscriptHash: confirmed });
  const commitSecret = path?.secrets.commitSecret ?? new Uint8Array(suite.hashLength);
  const joiner = joinerSecret(suite, core.secrets.initSecret, commitSecret, next);
  const { secrets } = epochKeys(suite, joiner, derivePskSecret(suite, psks), next);
  const tag = confirmationTag(suite, secrets.confirmationKey, confirmed);
  const auth = { signature: signed.signature, confirmationTag: forgery.confirmationTag?.(tag) ?? tag };
  return frame(context, suite, state, { ...signed, auth }, {}).message;
}

function applyUnchecked(
  state: GroupState,
  proposals: readonly { readonly proposal: Proposal; readonly sender: Sender }[],
): { tree: TreeEditor; added: Set<number>; extensions: readonly Extension[]; psks: PskWithId[] } {
  const tree = editTree(state.tree);
  const added = new Set<number>();
  let { extensions } = state.core.context;
  const psks: PskWithId[] = [];
  for (const { proposal, sender } of proposals) {
    if (proposal.kind === 'groupContextExtensions') ({ extensions } = proposal);
    if (proposal.kind === 'update' && sender.kind === 'member') updateLeaf(tree, sender.leafIndex, proposal.leafNode);
    if (proposal.kind === 'preSharedKey') psks.push({ id: proposal.psk, psk: EXTERNAL_PSK });
  }
  for (const { proposal } of proposals) {
    if (proposal.kind === 'remove' && proposal.removed < tree.leaves.length) removeLeaf(tree, proposal.removed);
  }
  truncate(tree);
  for (const { proposal } of proposals) {
    if (proposal.kind === 'add') added.add(addLeaf(tree, proposal.keyPackage.leafNode));
  }
  return { tree, added, extensions, psks };
}

function setForgedPath(context: MlsContext, suite: Suite, state: GroupState, tree: TreeEditor, forgery: CommitForgery) {
  const { core } = state;
  const steps = filteredDirectPath(tree, core.ownLeaf);
  const derived = derivePathSecrets(suite, context.random(suite.hashLength), steps.length);
  const keyPairs = forgery.keyPairs?.(derived.keyPairs) ?? derived.keyPairs;
  const secrets: PathSecrets = { ...derived, keyPairs };
  const { signature: _signature, ...current } = leafAt(tree, core.ownLeaf)!;
  blankDirectPath(tree, core.ownLeaf);
  const parentHash = setPathKeys(
    suite,
    tree,
    steps,
    keyPairs.map(({ publicKey }) => publicKey),
  );
  const encryptionKeys = forgery.encryptionKeyPair ?? freshKemKeyPair(suite, context.random);
  const leaf: UnsignedLeafNode = {
    ...current,
    encryptionKey: encryptionKeys.publicKey,
    source: { kind: 'commit', parentHash },
  };
  const leafNode = signLeafNode(
    suite,
    forgery.leafSigner?.privateKey ?? core.signaturePrivateKey,
    core.context.groupId,
    core.ownLeaf,
    forgery.leaf?.(leaf) ?? leaf,
  );
  setLeaf(tree, core.ownLeaf, leafNode);
  return { steps, secrets, leafNode };
}

// ---- External commits -----------------------------------------------------------------------------------------------

export interface ExternalCommitForgery {
  /** Beside or instead of the ExternalInit; a byte string is a reference. */
  readonly proposals?: (externalInit: Proposal) => readonly (Proposal | Uint8Array)[];
  /** Default true. */
  readonly path?: boolean;
  readonly leaf?: (leaf: UnsignedLeafNode) => UnsignedLeafNode;
  /** Who signs the message; the leaf is signed by the joiner. */
  readonly signer?: KeyPair;
  readonly sender?: Sender;
  readonly confirmationTag?: (tag: Uint8Array) => Uint8Array;
}

/** Joins the group of `insider`, from whom it takes what a GroupInfo would tell. */
export function forgeExternalCommit(
  context: MlsContext,
  insider: GroupState,
  joiner: KeyPackageBundle,
  forgery: ExternalCommitForgery = {},
): Uint8Array {
  const suite = stateSuite(context, insider);
  const { core } = insider;
  const { publicKey } = externalKeyPair(suite, core.secrets.externalSecret);
  const { kemOutput, initSecret } = makeExternalInit(suite, publicKey);
  const externalInit: Proposal = { kind: 'externalInit', kemOutput };
  const given = forgery.proposals?.(externalInit) ?? [externalInit];
  const sender = forgery.sender ?? { kind: 'newMemberCommit' };
  const byValue = given.flatMap((each) => (each instanceof Uint8Array ? [] : [{ proposal: each, sender }]));
  const { tree, added, extensions, psks } = applyUnchecked(insider, byValue);
  const { leafNode } = readKeyPackageMessage(joiner.keyPackage);
  const ownLeaf = addLeaf(tree, leafNode);
  const as: GroupState = {
    ...insider,
    core: { ...core, ownLeaf, signaturePrivateKey: joiner.signaturePrivateKey },
  };
  const path = setForgedPath(context, suite, as, tree, forgery.leaf === undefined ? {} : { leaf: forgery.leaf });
  const provisional: GroupContext = {
    ...core.context,
    epoch: core.context.epoch + 1n,
    treeHash: treeHash(suite, tree),
    extensions,
  };
  const nodes = encryptPath(suite, tree, path.steps, path.secrets, encodeGroupContext(provisional), added);
  const commit: Commit = {
    proposals: given.map((each) =>
      each instanceof Uint8Array ? { kind: 'reference', reference: each } : { kind: 'proposal', proposal: each },
    ),
    path: (forgery.path ?? true) ? { leafNode: path.leafNode, nodes } : undefined,
  };
  const signed = signContent(
    suite,
    forgery.signer?.privateKey ?? joiner.signaturePrivateKey,
    WireFormat.PublicMessage,
    { ...memberContent(as.core, EMPTY, { contentType: ContentType.Commit, commit }), sender },
    core.contextBytes,
  );
  const confirmed = confirmedTranscriptHash(
    suite,
    core.interimTranscriptHash,
    1,
    signed.contentBytes,
    signed.signature,
  );
  const next = encodeGroupContext({ ...provisional, confirmedTranscriptHash: confirmed });
  const secret = joinerSecret(suite, initSecret, path.secrets.commitSecret, next);
  const { secrets } = epochKeys(suite, secret, derivePskSecret(suite, psks), next);
  const tag = confirmationTag(suite, secrets.confirmationKey, confirmed);
  const auth = { signature: signed.signature, confirmationTag: forgery.confirmationTag?.(tag) ?? tag };
  return encodeOutsideMessage({ ...signed, auth });
}

/** A GroupInfo signed by a member, with anything in it. */
export function forgeGroupInfo(context: MlsContext, state: GroupState, extensions: readonly Extension[]): Uint8Array {
  const suite = stateSuite(context, state);
  const writer = messageWriter(WireFormat.GroupInfo);
  writeGroupInfo(writer, signGroupInfo(suite, state.core, extensions));
  return writer.finish();
}

// ---- Welcomes -------------------------------------------------------------------------------------------------------

export interface WelcomeForgery {
  /** The tree as the joiner shall see it; the signer is leaf 0. */
  readonly tree: RatchetTree;
  readonly signer: KeyPair;
  readonly signerLeaf?: number;
  readonly treeBytes?: (bytes: Uint8Array) => Uint8Array;
  readonly treeInside?: boolean;
  readonly context?: (context: GroupContext) => GroupContext;
  readonly groupInfo?: (groupInfo: GroupInfo) => GroupInfo;
  readonly groupInfoExtensions?: readonly Extension[];
  readonly groupSecrets?: (secrets: GroupSecrets) => GroupSecrets;
  readonly confirmationTag?: (tag: Uint8Array) => Uint8Array;
  readonly groupInfoKey?: Uint8Array;
  readonly cipherSuite?: number;
  readonly psks?: readonly PskWithId[];
}

/** A Welcome into a group that exists only in the attacker's mind. */
export function forgeWelcome(context: MlsContext, bundle: KeyPackageBundle, forgery: WelcomeForgery): Uint8Array {
  const keyPackage = readKeyPackageMessage(bundle.keyPackage);
  const suite = suiteOf(context.crypto, keyPackage.cipherSuite);
  const honest: GroupContext = {
    version: 1,
    cipherSuite: suite.id,
    groupId: context.random(32),
    epoch: 5n,
    treeHash: treeHash(suite, forgery.tree),
    confirmedTranscriptHash: context.random(suite.hashLength),
    extensions: [],
  };
  const groupContext = forgery.context?.(honest) ?? honest;
  const joiner = context.random(suite.hashLength);
  const pskSecret = derivePskSecret(suite, forgery.psks ?? []);
  const { secrets } = epochKeys(suite, joiner, pskSecret, encodeGroupContext(groupContext));
  const tag = confirmationTag(suite, secrets.confirmationKey, groupContext.confirmedTranscriptHash);
  const honestTree = encodeRatchetTree(forgery.tree);
  const ratchetTree = { extensionType: 2, extensionData: forgery.treeBytes?.(honestTree) ?? honestTree };
  const unsigned = {
    groupContext,
    extensions: [...((forgery.treeInside ?? true) ? [ratchetTree] : []), ...(forgery.groupInfoExtensions ?? [])],
    confirmationTag: forgery.confirmationTag?.(tag) ?? tag,
    signer: (forgery.signerLeaf ?? 0) as LeafIndex,
  };
  const signature = signWithLabel(
    suite,
    forgery.signer.privateKey,
    'GroupInfoTBS',
    encode(writeUnsignedGroupInfo, unsigned),
  );
  const info: GroupInfo = { ...unsigned, signature };
  const { key, nonce } = welcomeKey(suite, welcomeSecret(suite, joiner, pskSecret));
  const encryptedGroupInfo = suite.aead.seal(
    forgery.groupInfoKey ?? key,
    nonce,
    EMPTY,
    encode(writeGroupInfo, forgery.groupInfo?.(info) ?? info),
  );
  const plain: GroupSecrets = {
    joinerSecret: joiner,
    pathSecret: undefined,
    psks: (forgery.psks ?? []).map(({ id }) => id),
  };
  const writer = messageWriter(WireFormat.Welcome);
  writeWelcome(writer, {
    cipherSuite: forgery.cipherSuite ?? suite.id,
    secrets: [
      {
        newMember: keyPackageRef(suite, keyPackage),
        encryptedGroupSecrets: encryptWithLabel(
          suite,
          keyPackage.initKey,
          'Welcome',
          encryptedGroupInfo,
          encode(writeGroupSecrets, forgery.groupSecrets?.(plain) ?? plain),
        ),
      },
    ],
    encryptedGroupInfo,
  });
  return writer.finish();
}
