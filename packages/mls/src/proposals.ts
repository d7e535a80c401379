/**
 * Lists of proposals (RFC 9420 sections 12.1–12.3): is each valid by itself, are they valid together, and what do they
 * make of tree and extensions. Sender and receiver of a commit call the same `evaluateProposals`.
 */
import { encodeHex, equal } from '@quicprochat/crypto';
import type { Suite } from './cipher-suites.ts';
import { encode } from './codec.ts';
import { demand, violated } from './errors.ts';
import { type CachedProposal, type GroupState, type PublicGroup, viewOf } from './group-state.ts';
import type { PskWithId } from './key-schedule.ts';
import {
  askForMember,
  checkGroupExtensions,
  checkKeyPackage,
  checkLeafNode,
  checkLifetime,
  externalJoins,
  isWithinLifetime,
  meets,
  requirements,
  supportsCustomProposal,
} from './leaf-node.ts';
import {
  addLeaf,
  duplicate,
  editTree,
  findEncryptionKey,
  findSignatureKey,
  leafAt,
  occupiedLeaves,
  removeLeaf,
  type TreeEditor,
  truncate,
  updateLeaf,
} from './ratchet-tree.ts';
import { writePreSharedKeyId } from './structures.ts';
import { nodeOfLeaf } from './tree-math.ts';
import { validateCredentialSupport } from './tree-validation.ts';
import {
  type Extension,
  type KeyPackage,
  type LeafIndex,
  type LeafNode,
  type MlsContext,
  type PreSharedKeyId,
  type Proposal,
  ProtocolVersion,
  type ReInit,
  ResumptionPskUsage,
  type Sender,
} from './types.ts';

export interface CommittedProposal {
  readonly proposal: Proposal;
  readonly sender: Sender;
  /** Set when it is committed by reference; it was then checked by itself when it arrived. */
  readonly cached: CachedProposal | undefined;
  /** The secret of a PSK with usage reinit or branch, in the first commit of a group that continues another. */
  readonly successorPsk?: Uint8Array;
}

/** The group after the proposals, before the commit's path. */
export interface Evaluation {
  readonly tree: TreeEditor;
  readonly extensions: readonly Extension[];
  readonly added: readonly { readonly leafIndex: LeafIndex; readonly keyPackage: KeyPackage }[];
  readonly removed: readonly LeafIndex[];
  readonly updated: readonly LeafIndex[];
  readonly psks: readonly PskWithId[];
  readonly extensionsChanged: boolean;
  readonly pathRequired: boolean;
  readonly reInit: ReInit | undefined;
  /** Of an external commit: kem_output. */
  readonly externalInit: Uint8Array | undefined;
}

// ---- A proposal by itself (section 12.1) ----------------------------------------------------------------------------

/** Everything that can be said of a proposal before it is known which others it is committed with. */
export function checkProposal(
  context: MlsContext,
  suite: Suite,
  group: PublicGroup,
  proposal: Proposal,
  sender: Sender,
): void {
  if (sender.kind === 'external') demand(isExternalProposal(proposal), 'externalProposalType');
  switch (proposal.kind) {
    case 'add':
      checkKeyPackage(suite, proposal.keyPackage);
      if (context.checkReceivedLifetimes) checkLifetime(proposal.keyPackage.leafNode, context.now);
      break;
    case 'update': {
      // ValSem112
      if (sender.kind !== 'member') return violated('updateSender');
      const { leafIndex } = sender;
      checkLeafNode(suite, proposal.leafNode, {
        source: 'update',
        groupId: group.core.context.groupId,
        leafIndex,
      });
      const current = leafAt(group.tree, leafIndex) ?? violated('senderMember');
      demand(!equal(proposal.leafNode.encryptionKey, current.encryptionKey), 'leafKeyReplaced');
      break;
    }
    case 'remove':
      // ValSem108
      demand(leafAt(group.tree, proposal.removed) !== undefined, 'removeMember');
      break;
    case 'preSharedKey':
      checkPskId(suite, proposal.psk);
      break;
    case 'reInit':
      demand(proposal.version >= ProtocolVersion.Mls10, 'reInitVersion');
      break;
    case 'externalInit':
      demand(sender.kind === 'newMemberCommit', 'externalInitMember');
      break;
    case 'groupContextExtensions':
      checkGroupExtensions(proposal.extensions);
      break;
    case 'custom':
      // Who must support its type depends on what it is committed with.
      break;
  }
}

/** Section 12.1.8. */
function isExternalProposal({ kind }: Proposal): boolean {
  switch (kind) {
    case 'add':
    case 'remove':
    case 'preSharedKey':
    case 'reInit':
    case 'groupContextExtensions':
      return true;
    case 'update':
    case 'externalInit':
    case 'custom':
      return false;
  }
}

/** Whether a client may come in, or ask to, by itself: the hook decides, else the group's extension. */
export function demandExternalJoin(context: MlsContext, group: PublicGroup, how: 'commit' | 'proposal'): void {
  const { context: groupContext } = group.core;
  if (context.hooks?.externalJoin !== undefined) {
    const verdict = context.hooks.externalJoin(viewOf(groupContext, group.tree), how);
    if (verdict.kind === 'reject') violated('senderType', verdict.reason);
    return;
  }
  const joins = externalJoins(groupContext.extensions);
  demand(how === 'commit' ? joins.commits : joins.proposals, 'senderType', 'the group does not allow it');
}

function checkPskId(suite: Suite, id: PreSharedKeyId): void {
  // ValSem401, ValSem402
  demand(id.pskNonce.length === suite.hashLength, 'pskNonce');
  demand(id.kind === 'external' || id.usage === ResumptionPskUsage.Application, 'pskType');
}

// ---- Proposals together (sections 12.2, 12.3) -----------------------------------------------------------------------

export function evaluateProposals(
  context: MlsContext,
  suite: Suite,
  group: PublicGroup,
  own: GroupState | undefined,
  proposals: readonly CommittedProposal[],
  committer: LeafIndex | undefined,
): Evaluation {
  for (const { proposal, sender, cached, successorPsk } of proposals) {
    if (cached === undefined && successorPsk === undefined) checkProposal(context, suite, group, proposal, sender);
  }
  if (committer === undefined) checkExternalList(proposals);
  checkList(proposals, committer);

  const newExtensions = proposals.find(({ proposal }) => proposal.kind === 'groupContextExtensions')?.proposal;
  const extensions =
    newExtensions?.kind === 'groupContextExtensions' ? newExtensions.extensions : group.core.context.extensions;
  const required = requirements(extensions);
  const tree = editTree(group.tree);

  // Section 12.3: first updates, then removes, then adds in their order.
  const updated = applyUpdates(proposals, tree);
  for (const leaf of updated) {
    demand(meets(tree.leaves[leaf]!.capabilities, required), 'updateCapabilities');
  }
  const removed: LeafIndex[] = [];
  for (const { proposal } of proposals) {
    if (proposal.kind !== 'remove') continue;
    removeLeaf(tree, proposal.removed);
    removed.push(proposal.removed);
  }
  truncate(tree);
  checkCustomSupport(proposals, tree);
  checkUpdatedKeys(tree, updated);

  const added = applyAdds(proposals, tree);
  for (const { keyPackage } of added) {
    demand(meets(keyPackage.leafNode.capabilities, required), 'addCapabilities');
  }
  if (newExtensions !== undefined) {
    for (const [, leaf] of occupiedLeaves(tree)) demand(meets(leaf.capabilities, required), 'extensionsSupported');
  }
  const changed: LeafNode[] = [
    ...updated.map((leaf) => tree.leaves[leaf]!),
    ...added.map(({ keyPackage }) => keyPackage.leafNode),
  ];
  if (changed.length > 0) validateCredentialSupport(tree, changed);
  for (const leaf of updated) askForMember(context, leaf, tree.leaves[leaf]!, 'update');
  for (const { leafIndex, keyPackage } of added) askForMember(context, leafIndex, keyPackage.leafNode, 'add');

  return {
    tree,
    extensions,
    added,
    removed,
    updated,
    psks: findPsks(context, own, proposals),
    extensionsChanged: newExtensions !== undefined,
    pathRequired: proposals.length === 0 || proposals.some(({ proposal }) => requiresPath(proposal)),
    reInit: reInitOf(proposals),
    externalInit: externalInitOf(proposals),
  };
}

function requiresPath(proposal: Proposal): boolean {
  return proposal.kind !== 'add' && proposal.kind !== 'preSharedKey' && proposal.kind !== 'reInit';
}

function reInitOf(proposals: readonly CommittedProposal[]): ReInit | undefined {
  for (const { proposal } of proposals) {
    if (proposal.kind !== 'reInit') continue;
    const { groupId, version, cipherSuite, extensions } = proposal;
    return { groupId, version, cipherSuite, extensions };
  }
  return undefined;
}

function externalInitOf(proposals: readonly CommittedProposal[]): Uint8Array | undefined {
  for (const { proposal } of proposals) if (proposal.kind === 'externalInit') return proposal.kemOutput;
  return undefined;
}

/** Members that process the commit support every type of proposal; whom it removes or adds need not. */
function checkCustomSupport(proposals: readonly CommittedProposal[], tree: TreeEditor): void {
  const types = new Set<number>();
  for (const { proposal } of proposals) if (proposal.kind === 'custom') types.add(proposal.proposalType);
  if (types.size === 0) return;
  for (const [, { capabilities }] of occupiedLeaves(tree)) {
    // ValSem113
    for (const type of types) demand(supportsCustomProposal(capabilities, type), 'proposalSupported');
  }
}

function checkExternalList(proposals: readonly CommittedProposal[]): void {
  let inits = 0;
  let removes = 0;
  for (const { proposal } of proposals) {
    if (proposal.kind === 'externalInit') inits++;
    else if (proposal.kind === 'remove') removes++;
    else demand(proposal.kind === 'preSharedKey', 'externalProposals');
  }
  // ValSem240, ValSem241, ValSem242
  demand(inits > 0, 'externalInitPresent');
  demand(inits === 1, 'externalInitOnce');
  demand(removes <= 1, 'externalProposals');
}

function checkList(proposals: readonly CommittedProposal[], committer: LeafIndex | undefined): void {
  const touched = new Set<number>();
  const psks: Uint8Array[] = [];
  let extensionsSeen = 0;
  let reInits = 0;
  for (const { proposal, sender } of proposals) {
    switch (proposal.kind) {
      case 'update':
        // ValSem112, ValSem111, ValSem107
        if (sender.kind !== 'member') return violated('updateSender');
        demand(sender.leafIndex !== committer, 'updateByCommitter');
        demand(!touched.has(sender.leafIndex), 'removeUnique');
        touched.add(sender.leafIndex);
        break;
      case 'remove':
        // ValSem200, ValSem107
        demand(proposal.removed !== committer, 'removeCommitter');
        demand(!touched.has(proposal.removed), 'removeUnique');
        touched.add(proposal.removed);
        break;
      case 'preSharedKey':
        psks.push(encode(writePreSharedKeyId, proposal.psk));
        break;
      case 'groupContextExtensions':
        extensionsSeen++;
        break;
      case 'reInit':
        reInits++;
        break;
      case 'externalInit':
        demand(committer === undefined, 'externalInitMember');
        break;
      case 'add':
      case 'custom':
    }
  }
  // ValSem403, ValSem208
  demand(duplicate(psks) === undefined, 'pskUnique');
  demand(extensionsSeen <= 1, 'extensionsOnce');
  demand(reInits === 0 || proposals.length === 1, 'reInitAlone');
}

function applyUpdates(proposals: readonly CommittedProposal[], tree: TreeEditor): LeafIndex[] {
  const updated: LeafIndex[] = [];
  for (const { proposal, sender } of proposals) {
    if (proposal.kind !== 'update' || sender.kind !== 'member') continue;
    updateLeaf(tree, sender.leafIndex, proposal.leafNode);
    updated.push(sender.leafIndex);
  }
  return updated;
}

/** ValSem110 and its like for signature keys, among all updates and everything they leave in the tree. */
function checkUpdatedKeys(tree: TreeEditor, updated: readonly LeafIndex[]): void {
  if (updated.length === 0) return;
  const leaves = updated.map((leaf) => tree.leaves[leaf]!);
  const encryptionKeys = leaves.map((leaf) => leaf.encryptionKey);
  const signatureKeys = leaves.map((leaf) => leaf.signatureKey);
  const nodes = new Set<number>(updated.map(nodeOfLeaf));
  demand(duplicate(encryptionKeys) === undefined, 'updateEncryptionKeyUnique');
  demand(findEncryptionKey(tree, encryptionKeys, nodes) === undefined, 'updateEncryptionKeyUnique');
  demand(duplicate(signatureKeys) === undefined, 'updateSignatureKeyUnique');
  demand(findSignatureKey(tree, signatureKeys, new Set(updated)) === undefined, 'updateSignatureKeyUnique');
}

function applyAdds(
  proposals: readonly CommittedProposal[],
  tree: TreeEditor,
): { leafIndex: LeafIndex; keyPackage: KeyPackage }[] {
  const keyPackages: KeyPackage[] = [];
  for (const { proposal } of proposals) if (proposal.kind === 'add') keyPackages.push(proposal.keyPackage);
  if (keyPackages.length === 0) return [];
  const signatureKeys = keyPackages.map((each) => each.leafNode.signatureKey);
  const encryptionKeys = keyPackages.map((each) => each.leafNode.encryptionKey);
  // ValSem101, ValSem102, ValSem103
  demand(duplicate(signatureKeys) === undefined, 'addSignatureKeyUnique');
  demand(findSignatureKey(tree, signatureKeys) === undefined, 'addSignatureKeyUnique');
  demand(duplicate(keyPackages.map((each) => each.initKey)) === undefined, 'addInitKeyUnique');
  demand(duplicate(encryptionKeys) === undefined, 'addEncryptionKeyUnique');
  demand(findEncryptionKey(tree, encryptionKeys) === undefined, 'addEncryptionKeyUnique');
  let searchFrom = 0;
  return keyPackages.map((keyPackage) => {
    const leafIndex = addLeaf(tree, keyPackage.leafNode, searchFrom);
    searchFrom = leafIndex + 1;
    return { leafIndex, keyPackage };
  });
}

// ---- Pre-shared keys (section 8.4) ----------------------------------------------------------------------------------

function findPsks(
  context: MlsContext,
  own: GroupState | undefined,
  proposals: readonly CommittedProposal[],
): PskWithId[] {
  const psks: PskWithId[] = [];
  for (const { proposal, successorPsk } of proposals) {
    if (proposal.kind !== 'preSharedKey') continue;
    const psk = successorPsk ?? findPsk(context, proposal.psk, own) ?? violated('pskAvailable');
    psks.push({ id: proposal.psk, psk });
  }
  return psks;
}

/** @param state the group at work, whose own resumption PSKs are at hand; undefined while joining */
export function findPsk(
  context: MlsContext,
  id: PreSharedKeyId,
  state: GroupState | undefined,
): Uint8Array | undefined {
  if (id.kind === 'external') return context.hooks?.externalPsk?.(id.pskId);
  if (state !== undefined && equal(id.pskGroupId, state.core.context.groupId)) {
    return ownResumptionPsk(state, id.pskEpoch);
  }
  return context.hooks?.resumptionPsk?.(id.pskGroupId, id.pskEpoch);
}

export function ownResumptionPsk(state: GroupState, epoch: bigint): Uint8Array | undefined {
  if (epoch === state.core.context.epoch) return state.core.secrets.resumptionPsk;
  return state.core.resumptionPsks.find((each) => each.epoch === epoch)?.psk;
}

// ---- Choosing what to commit (section 12.4) -------------------------------------------------------------------------

/**
 * Those of the cached proposals that can be committed together with `fixed`, in the order they came. A Remove is
 * preferred to an Update of the same leaf, a later Update to an earlier one, anything to a ReInit.
 */
export function selectProposals(
  context: MlsContext,
  suite: Suite,
  state: GroupState,
  fixed: readonly CommittedProposal[],
): CachedProposal[] {
  const { ownLeaf } = state.core;
  const candidates = state.proposals.filter(
    ({ proposal, sender }) =>
      !(proposal.kind === 'update' && sender.kind === 'member' && sender.leafIndex === ownLeaf) &&
      !(proposal.kind === 'remove' && proposal.removed === ownLeaf) &&
      !(proposal.kind === 'add' && !isWithinLifetime(proposal.keyPackage.leafNode, context.now)),
  );
  const fits = (chosen: readonly CachedProposal[]): boolean => {
    try {
      evaluateProposals(context, suite, state, state, [...fixed, ...chosen.map(committed)], ownLeaf);
      return true;
    } catch (error) {
      if (error instanceof Error && error.name === 'RuleViolation') return false;
      throw error;
    }
  };
  if (candidates.length === 0 || fits(candidates)) return candidates;
  const rank = ({ proposal }: CachedProposal): number =>
    proposal.kind === 'remove' ? 0 : proposal.kind === 'update' ? 1 : proposal.kind === 'reInit' ? 3 : 2;
  const byPreference = candidates
    .map((proposal, order) => ({ proposal, order, rank: rank(proposal) }))
    .sort((a, b) => a.rank - b.rank || (a.rank === 1 ? b.order - a.order : a.order - b.order));
  const chosen = new Set<CachedProposal>();
  for (const { proposal } of byPreference) {
    if (fits([...chosen, proposal])) chosen.add(proposal);
  }
  return candidates.filter((proposal) => chosen.has(proposal));
}

export function committed(cached: CachedProposal): CommittedProposal {
  return { proposal: cached.proposal, sender: cached.sender, cached };
}

/** The cached proposals a commit refers to. */
export function resolveReferences(state: GroupState): (reference: Uint8Array) => CachedProposal {
  const byRef = new Map(state.proposals.map((each) => [encodeHex(each.ref), each]));
  const used = new Set<string>();
  return (reference) => {
    const key = encodeHex(reference);
    demand(!used.has(key), 'proposalKnown');
    used.add(key);
    return byRef.get(key) ?? violated('proposalKnown');
  };
}
