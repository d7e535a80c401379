/** Groups from the outside: creating one (RFC 9420 section 11), and reading what its state says. */
import { EMPTY } from '@quicprochat/crypto';
import { freshKemKeyPair, suiteOf } from './cipher-suites.ts';
import { makeCommit } from './commit.ts';
import { MlsUsageError, refusable, usable } from './errors.ts';
import { greasedCapabilities, greaseExtension } from './grease.ts';
import { type CachedProposal, defaultConfig, type GroupState, memberOf, stateSuite, viewOf } from './group-state.ts';
import {
  confirmationTag,
  encodeGroupContext,
  interimTranscriptHash,
  keysOfEpochSecret,
  mlsExporter,
} from './key-schedule.ts';
import {
  checkGroupExtensions,
  checkOwnLeaf,
  completeCapabilities,
  defaultLifetime,
  meets,
  requirements,
  signLeafNode,
} from './leaf-node.ts';
import { ownResumptionPsk } from './proposals.ts';
import { encodeRatchetTree, leafAt, newTree, treeHash } from './ratchet-tree.ts';
import { newSecretTree } from './secret-tree.ts';
import {
  type CommitOutcome,
  type CommitParameters,
  type CreateGroupParameters,
  type GroupContext,
  type GroupView,
  type LeafIndex,
  type Member,
  type MlsContext,
  ProtocolVersion,
} from './types.ts';

/** @throws MlsUsageError when the creator does not meet what the group's own extensions require */
export function createGroup(context: MlsContext, parameters: CreateGroupParameters): GroupState {
  const suite = suiteOf(context.crypto, parameters.cipherSuite);
  const extensions = parameters.extensions ?? [];
  usable(() => checkGroupExtensions(extensions));
  const signaturePrivateKey = parameters.signatureKeyPair.privateKey.slice();
  const encryptionKeys = freshKemKeyPair(suite, context.random);
  const leafExtensions = [...(parameters.leafNodeExtensions ?? [])];
  if (parameters.grease) leafExtensions.push(greaseExtension(context));
  const leafNode = signLeafNode(suite, signaturePrivateKey, EMPTY, 0, {
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
  usable(() => checkOwnLeaf(suite, leafNode, 'keyPackage'));
  if (!meets(leafNode.capabilities, requirements(extensions))) {
    throw new MlsUsageError('the creator lacks capabilities the group requires');
  }
  const tree = newTree(leafNode);
  const groupContext: GroupContext = {
    version: ProtocolVersion.Mls10,
    cipherSuite: suite.id,
    groupId: parameters.groupId,
    epoch: 0n,
    treeHash: treeHash(suite, tree),
    confirmedTranscriptHash: EMPTY,
    extensions,
  };
  const epochSecret = context.random(suite.hashLength);
  const keys = keysOfEpochSecret(suite, epochSecret);
  suite.crypto.wipe(epochSecret);
  const tag = confirmationTag(suite, keys.secrets.confirmationKey, EMPTY);
  return {
    core: {
      status: 'active',
      reInit: undefined,
      config: { ...defaultConfig, ...parameters.config },
      context: groupContext,
      contextBytes: encodeGroupContext(groupContext),
      ownLeaf: 0 as LeafIndex,
      signaturePrivateKey,
      privateKeys: new Map([[0, encryptionKeys.privateKey]]),
      secrets: keys.secrets,
      confirmationTag: tag,
      interimTranscriptHash: interimTranscriptHash(suite, EMPTY, tag),
      resumptionPsks: [],
    },
    tree,
    secretTree: newSecretTree(keys.encryptionSecret, 1),
    proposals: [],
    pastEpochs: [],
  };
}

/**
 * A commit (RFC 9420 section 12.4) of proposals given here and of those received, and the Welcome of those it adds. The
 * group goes on only with `mergePendingCommit`; a commit that was not accepted is dropped with `wipePendingCommit`.
 * @throws MlsUsageError when we were removed, or the group was closed by a ReInit
 */
export function createCommit(context: MlsContext, state: GroupState, parameters: CommitParameters = {}): CommitOutcome {
  return refusable((): CommitOutcome => makeCommit(context, state, parameters));
}

/** Forgets the proposals waiting for a commit. */
export function clearProposals(state: GroupState): GroupState {
  return state.proposals.length === 0 ? state : { ...state, proposals: [] };
}

/** What all members know of the group in its current epoch. */
export function groupView(state: GroupState): GroupView {
  return viewOf(state.core.context, state.tree);
}

/** The GroupContext of the current epoch (RFC 9420 section 8.1). */
export function groupContext(state: GroupState): GroupContext {
  return state.core.context;
}

/** The members in order of their leaves. */
export function roster(state: GroupState): readonly Member[] {
  return groupView(state).members();
}

/** The member at a leaf, or undefined where it is blank. */
export function member(state: GroupState, leafIndex: number): Member | undefined {
  const leaf = leafAt(state.tree, leafIndex);
  return leaf && memberOf(leafIndex as LeafIndex, leaf);
}

/** Our own leaf. */
export function ownLeafIndex(state: GroupState): LeafIndex {
  return state.core.ownLeaf;
}

/** False after a commit removed us or closed the group. */
export function isActive(state: GroupState): boolean {
  return state.core.status === 'active';
}

/** Proposals of this epoch that wait for a commit, our own included, in the order they came. */
export function pendingProposals(state: GroupState): readonly Pick<CachedProposal, 'ref' | 'proposal' | 'sender'>[] {
  return state.proposals;
}

/** MLS-Exporter (RFC 9420 section 8.5). */
export function exportSecret(
  context: MlsContext,
  state: GroupState,
  label: string,
  exporterContext: Uint8Array,
  length: number,
): Uint8Array {
  return mlsExporter(stateSuite(context, state), state.core.secrets.exporterSecret, label, exporterContext, length);
}

/** A secret that all members share exactly when they agree on the whole history of the group (RFC 9420 section 8.7). */
export function epochAuthenticator(state: GroupState): Uint8Array {
  return state.core.secrets.epochAuthenticator.slice();
}

/** The resumption pre-shared key of the current or a retained past epoch. */
export function resumptionPsk(state: GroupState, epoch: bigint = state.core.context.epoch): Uint8Array | undefined {
  return ownResumptionPsk(state, epoch)?.slice();
}

/** The public tree as the ratchet_tree extension carries it (RFC 9420 section 12.4.3.3). */
export function exportRatchetTree(state: GroupState): Uint8Array {
  return encodeRatchetTree(state.tree);
}
