/**
 * Commits (RFC 9420 section 12.4), made and processed. Both sides run the same steps on the same values:
 *
 *   proposals → evaluateProposals → tree and extensions
 *   path      → new keys in the tree → provisional GroupContext → path secrets
 *   content   → transcript hash → GroupContext → key schedule → confirmation tag
 *
 * The sender's result is a `PendingCommit`, the receiver's the next state.
 */
import { EMPTY, equal } from '@quicprochat/crypto';
import { freshKemKeyPair, type Suite } from './cipher-suites.ts';
import { demand, MlsUsageError, violated } from './errors.ts';
import {
  type AuthenticatedContent,
  checkConfirmationTagPresent,
  encodePublicMessage,
  sealPrivateMessage,
  signContent,
} from './framing.ts';
import {
  type GroupCore,
  type GroupState,
  memberOf,
  type PastEpoch,
  replacedLeaves,
  stateSuite,
  viewOf,
} from './group-state.ts';
import {
  confirmationTag,
  confirmedTranscriptHash,
  derivePskSecret,
  encodeGroupContext,
  type EpochKeys,
  epochKeys,
  interimTranscriptHash,
  joinerSecret,
  type PskWithId,
} from './key-schedule.ts';
import {
  askForMember,
  checkLeafForm,
  checkLeafNode,
  checkLifetime,
  completeCapabilities,
  demandVerified,
  meets,
  requirements,
  signLeafNode,
} from './leaf-node.ts';
import { applyTreeChanges, type PendingCommit, treeChanges } from './pending-commit.ts';
import {
  type CommittedProposal,
  committed,
  type Evaluation,
  evaluateProposals,
  resolveReferences,
  selectProposals,
} from './proposals.ts';
import {
  blankDirectPath,
  duplicate,
  filteredDirectPath,
  findEncryptionKey,
  findSignatureKey,
  leafAt,
  parentAt,
  type PathStep,
  type RatchetTree,
  setLeaf,
  setPathKeys,
  treeHash,
} from './ratchet-tree.ts';
import { newSecretTree, takeNextKey } from './secret-tree.ts';
import type { Commit, FramedContent, UpdatePath } from './structures.ts';
import { isLeaf, nodeOfLeaf } from './tree-math.ts';
import { validateCredentialSupport } from './tree-validation.ts';
import {
  type CommitEffects,
  type CommitOutcome,
  type CommitParameters,
  ContentType,
  type GroupContext,
  type HandshakeOptions,
  type LeafIndex,
  type LeafNode,
  type LeafNodeChanges,
  type Member,
  type MlsContext,
  type Proposal,
  type ProposalInput,
  ResumptionPskUsage,
  type SentProposal,
  WireFormat,
} from './types.ts';
import {
  decryptPath,
  derivePathSecrets,
  encryptPath,
  checkPathShape,
  type PathSecrets,
  wipePathSecrets,
} from './update-path.ts';
import { createWelcome } from './welcome.ts';

// ---- Making a commit (section 12.4.1) -------------------------------------------------------------------------------

export function makeCommit(
  context: MlsContext,
  state: GroupState,
  parameters: CommitParameters,
): Exclude<CommitOutcome, { kind: 'rejected' }> {
  demandActive(state);
  const suite = stateSuite(context, state);
  const { core } = state;
  const { ownLeaf } = core;
  const proposals = chooseProposals(context, suite, state, parameters);
  for (const { proposal } of proposals) {
    if (proposal.kind === 'add') checkLifetime(proposal.keyPackage.leafNode, context.now);
  }
  const evaluation = evaluateProposals(context, suite, state, proposals, ownLeaf);
  // A ReInit closes the group: a path would protect nothing.
  const withPath =
    evaluation.pathRequired || parameters.leafNode !== undefined || (parameters.path ?? !evaluation.reInit);

  const path = withPath ? makePath(context, suite, state, evaluation, parameters.leafNode) : undefined;
  const provisional = provisionalContext(suite, core.context, evaluation);
  const updatePath = path && sealPath(suite, evaluation, path, provisional);
  const commit: Commit = {
    proposals: proposals.map(({ proposal, cached }) =>
      cached === undefined ? { kind: 'proposal', proposal } : { kind: 'reference', reference: cached.ref },
    ),
    path: updatePath,
  };
  const authenticatedData = parameters.authenticatedData ?? EMPTY;
  askForCommit(context, state, provisional, evaluation, proposals, ownLeaf, authenticatedData);

  const wireFormat = parameters.wireFormat === 'public' ? WireFormat.PublicMessage : WireFormat.PrivateMessage;
  const signed = signContent(
    suite,
    core.signaturePrivateKey,
    wireFormat,
    memberContent(core, authenticatedData, { contentType: ContentType.Commit, commit }),
    core.contextBytes,
  );
  const commitSecret = path?.secrets.commitSecret ?? new Uint8Array(suite.hashLength);
  const next = nextEpoch(suite, core, provisional, commitSecret, evaluation.psks, signed, signed.signature);
  const message = { ...signed, auth: { signature: signed.signature, confirmationTag: next.confirmationTag } };
  const framed = frame(context, suite, state, message, parameters);

  const signaturePrivateKey = parameters.leafNode?.signatureKeyPair?.privateKey.slice() ?? core.signaturePrivateKey;
  const privateKeys = keptPrivateKeys(
    core.privateKeys,
    evaluation.tree,
    path ? new Set(path.steps.map(({ node }) => node)) : undefined,
  );
  if (path !== undefined) {
    privateKeys.set(nodeOfLeaf(ownLeaf), path.encryptionPrivateKey);
    path.steps.forEach(({ node }, i) => privateKeys.set(node, path.secrets.keyPairs[i]!.privateKey));
  }
  const nextCore = newCore(core, next, { signaturePrivateKey, privateKeys, reInit: evaluation.reInit });
  const ratchetTreeInside = parameters.ratchetTreeInWelcome ?? true;
  const welcome = createWelcome(context, suite, {
    core: nextCore,
    tree: evaluation.tree,
    joinerSecret: next.joinerSecret,
    psks: evaluation.psks,
    added: evaluation.added,
    path,
    ratchetTreeInside,
    extensions: parameters.groupInfoExtensions ?? [],
  });
  suite.crypto.wipe(next.joinerSecret);
  if (path !== undefined) wipePathSecrets(suite, path.secrets);

  const pending: PendingCommit = {
    base: core.contextBytes,
    core: nextCore,
    encryptionSecret: next.keys.encryptionSecret,
    changes: treeChanges(state.tree, evaluation.tree),
    tree: evaluation.tree,
  };
  return {
    kind: 'committed',
    state: framed.state,
    commit: framed.message,
    welcome: welcome?.welcome,
    ratchetTree: welcome?.ratchetTree,
    pending,
    effects: effectsOf(state, evaluation, proposals, ownLeaf, withPath),
  };
}

export function demandActive(state: GroupState): void {
  if (state.core.status !== 'active')
    throw new MlsUsageError(`this group is ${state.core.status}: nothing can be sent`);
}

function chooseProposals(
  context: MlsContext,
  suite: Suite,
  state: GroupState,
  parameters: CommitParameters,
): CommittedProposal[] {
  const sender = { kind: 'member', leafIndex: state.core.ownLeaf } as const;
  const byValue = (parameters.proposals ?? []).map((input): CommittedProposal => {
    if (input.kind === 'update') throw new MlsUsageError('a commit updates its sender by its path');
    return { proposal: proposalOf(context, suite, input), sender, cached: undefined };
  });
  const byReference = parameters.byReference ?? 'all';
  if (byReference === 'none') return byValue;
  if (byReference === 'all') {
    return [...selectProposals(context, suite, state, byValue).map(committed), ...byValue];
  }
  const resolve = resolveReferences(state);
  return [...byReference.map((ref) => committed(resolve(ref))), ...byValue];
}

/** The proposal an application asks for. An Update is made by `ownUpdate`. */
export function proposalOf(
  context: MlsContext,
  suite: Suite,
  input: Exclude<ProposalInput, { kind: 'update' }>,
): Proposal {
  switch (input.kind) {
    case 'add':
      demandVerified(input.keyPackage);
      return { kind: 'add', keyPackage: input.keyPackage };
    case 'remove':
      return { kind: 'remove', removed: input.removed };
    case 'externalPsk':
      return {
        kind: 'preSharedKey',
        psk: { kind: 'external', pskId: input.pskId, pskNonce: context.random(suite.hashLength) },
      };
    case 'resumptionPsk':
      return {
        kind: 'preSharedKey',
        psk: {
          kind: 'resumption',
          usage: ResumptionPskUsage.Application,
          pskGroupId: input.groupId,
          pskEpoch: input.epoch,
          pskNonce: context.random(suite.hashLength),
        },
      };
    case 'groupContextExtensions':
      return { kind: 'groupContextExtensions', extensions: input.extensions };
  }
}

/** One's own leaf with the changes asked for, without keys and signature. */
export function changedLeaf(
  current: LeafNode,
  changes: LeafNodeChanges | undefined,
): Omit<LeafNode, 'signature' | 'source'> {
  const credential = changes?.credential ?? current.credential;
  const extensions = changes?.extensions ?? current.extensions;
  const capabilities = changes?.capabilities ?? current.capabilities;
  return {
    encryptionKey: current.encryptionKey,
    signatureKey: changes?.signatureKeyPair?.publicKey ?? current.signatureKey,
    credential,
    capabilities: completeCapabilities(capabilities, credential, extensions),
    extensions,
  };
}

/** A fresh path of ours, set in the tree but not encrypted yet. */
export interface OwnPath {
  readonly steps: readonly PathStep[];
  readonly secrets: PathSecrets;
  readonly leafNode: LeafNode;
  readonly encryptionPrivateKey: Uint8Array;
}

function makePath(
  context: MlsContext,
  suite: Suite,
  state: GroupState,
  { tree, extensions }: Evaluation,
  changes: LeafNodeChanges | undefined,
): OwnPath {
  const { core } = state;
  const steps = filteredDirectPath(tree, core.ownLeaf);
  const secrets = derivePathSecrets(suite, context.random(suite.hashLength), steps.length);
  const encryptionKeys = freshKemKeyPair(suite, context.random);
  const current = leafAt(tree, core.ownLeaf)!;
  blankDirectPath(tree, core.ownLeaf);
  const parentHash = setPathKeys(
    suite,
    tree,
    steps,
    secrets.keyPairs.map(({ publicKey }) => publicKey),
  );
  const leafNode = signLeafNode(
    suite,
    changes?.signatureKeyPair?.privateKey ?? core.signaturePrivateKey,
    core.context.groupId,
    core.ownLeaf,
    {
      ...changedLeaf(current, changes),
      encryptionKey: encryptionKeys.publicKey,
      source: { kind: 'commit', parentHash },
    },
  );
  checkLeafForm(suite, leafNode, 'commit');
  const sameKey = findSignatureKey(tree, [leafNode.signatureKey], new Set([core.ownLeaf]));
  demand(sameKey === undefined, 'pathLeafKeyUnique');
  setLeaf(tree, core.ownLeaf, leafNode);
  checkPathLeafInGroup(context, tree, core.ownLeaf, leafNode, extensions);
  return { steps, secrets, leafNode, encryptionPrivateKey: encryptionKeys.privateKey };
}

function sealPath(suite: Suite, evaluation: Evaluation, path: OwnPath, provisional: GroupContext): UpdatePath {
  return {
    leafNode: path.leafNode,
    nodes: encryptPath(
      suite,
      evaluation.tree,
      path.steps,
      path.secrets,
      encodeGroupContext(provisional),
      addedLeaves(evaluation),
    ),
  };
}

function addedLeaves(evaluation: Evaluation): Set<number> {
  return new Set<number>(evaluation.added.map(({ leafIndex }) => leafIndex));
}

export function memberContent(
  core: GroupCore,
  authenticatedData: Uint8Array,
  content: FramedContent['content'],
): FramedContent {
  return {
    groupId: core.context.groupId,
    epoch: core.context.epoch,
    sender: { kind: 'member', leafIndex: core.ownLeaf },
    authenticatedData,
    content,
  };
}

/** Puts a signed handshake message into its wire format; a PrivateMessage advances the handshake ratchet. */
export function frame(
  context: MlsContext,
  suite: Suite,
  state: GroupState,
  message: AuthenticatedContent,
  options: HandshakeOptions,
): { readonly state: GroupState; readonly message: Uint8Array } {
  const { core } = state;
  if (message.wireFormat === WireFormat.PublicMessage) {
    return { state, message: encodePublicMessage(suite, core.secrets.membershipKey, message, core.contextBytes) };
  }
  const taken = takeNextKey(suite, state.secretTree, core.ownLeaf, 'handshake');
  const sealed = sealPrivateMessage(suite, message, {
    key: taken.key,
    senderDataSecret: core.secrets.senderDataSecret,
    leafIndex: core.ownLeaf,
    reuseGuard: context.random(4),
    paddingLength: options.paddingLength ?? 0,
  });
  suite.crypto.wipe(taken.key.key);
  return { state: { ...state, secretTree: taken.tree }, message: sealed };
}

// ---- Processing a commit (section 12.4.2) ---------------------------------------------------------------------------

/** `message` is of the current epoch, decrypted, its signature verified. */
export function applyCommit(
  context: MlsContext,
  state: GroupState,
  message: AuthenticatedContent,
  commit: Commit,
  committer: LeafIndex,
): { readonly state: GroupState; readonly effects: CommitEffects } {
  const suite = stateSuite(context, state);
  const { core } = state;
  // ValSem009
  checkConfirmationTagPresent(message);
  const resolve = resolveReferences(state);
  const sender = { kind: 'member', leafIndex: committer } as const;
  const proposals = commit.proposals.map((each): CommittedProposal =>
    each.kind === 'proposal'
      ? { proposal: each.proposal, sender, cached: undefined }
      : committed(resolve(each.reference)),
  );
  const evaluation = evaluateProposals(context, suite, state, proposals, committer);
  // ValSem201
  demand(!evaluation.pathRequired || commit.path !== undefined, 'pathRequired');
  const steps = commit.path && mergePath(context, suite, core, evaluation, commit.path, committer);
  const provisional = provisionalContext(suite, core.context, evaluation);
  askForCommit(
    context,
    state,
    provisional,
    evaluation,
    proposals,
    committer,
    message.content.authenticatedData.slice(),
  );
  const effects = effectsOf(state, evaluation, proposals, committer, commit.path !== undefined);
  if (effects.selfRemoved) {
    return { state: { ...state, core: { ...core, status: 'removed' }, proposals: [] }, effects };
  }

  const privateKeys = keptPrivateKeys(
    core.privateKeys,
    evaluation.tree,
    steps && new Set(steps.map(({ node }) => node)),
  );
  let { signaturePrivateKey } = core;
  for (const { cached } of proposals) {
    if (cached?.own === undefined) continue;
    privateKeys.set(nodeOfLeaf(core.ownLeaf), cached.own.encryptionPrivateKey);
    ({ signaturePrivateKey } = cached.own);
  }
  let commitSecret: Uint8Array = new Uint8Array(suite.hashLength);
  if (commit.path !== undefined && steps !== undefined) {
    const { from, secrets } = decryptPath(
      suite,
      evaluation.tree,
      steps,
      commit.path,
      privateKeys,
      core.ownLeaf,
      encodeGroupContext(provisional),
      addedLeaves(evaluation),
    );
    secrets.keyPairs.forEach((pair, i) => privateKeys.set(steps[from + i]!.node, pair.privateKey));
    for (const secret of secrets.pathSecrets) suite.crypto.wipe(secret);
    ({ commitSecret } = secrets);
  }
  const next = nextEpoch(suite, core, provisional, commitSecret, evaluation.psks, message, message.auth.signature);
  suite.crypto.wipe(commitSecret);
  suite.crypto.wipe(next.joinerSecret);
  // ValSem205
  demand(suite.crypto.equal(next.confirmationTag, message.auth.confirmationTag ?? EMPTY), 'confirmationTag');
  const nextCore = newCore(core, next, { signaturePrivateKey, privateKeys, reInit: evaluation.reInit });
  return { state: enterEpoch(context, state, nextCore, evaluation.tree, next.keys.encryptionSecret), effects };
}

/** Checks a commit's path against the tree with the proposals applied, and sets its keys there. */
function mergePath(
  context: MlsContext,
  suite: Suite,
  core: GroupCore,
  evaluation: Evaluation,
  path: UpdatePath,
  committer: LeafIndex,
): readonly PathStep[] {
  const { tree, extensions } = evaluation;
  const { leafNode } = path;
  const current = leafAt(tree, committer) ?? violated('senderMember');
  checkLeafNode(suite, leafNode, { source: 'commit', groupId: core.context.groupId, leafIndex: committer });
  demand(!equal(leafNode.encryptionKey, current.encryptionKey), 'leafKeyReplaced');
  const steps = filteredDirectPath(tree, committer);
  checkPathShape(tree, steps, path, addedLeaves(evaluation));
  const keys = path.nodes.map((node) => node.encryptionKey);
  demand(
    keys.every((key) => suite.kem.isPublicKey(key)),
    'leafKeysValid',
    'path',
  );
  // ValSem206, ValSem207
  demand(findEncryptionKey(tree, [leafNode.encryptionKey]) === undefined, 'pathLeafKeyUnique');
  demand(findSignatureKey(tree, [leafNode.signatureKey], new Set([committer])) === undefined, 'pathLeafKeyUnique');
  demand(duplicate([...keys, leafNode.encryptionKey]) === undefined, 'pathKeysUnique');
  demand(keys.length === 0 || findEncryptionKey(tree, keys) === undefined, 'pathKeysUnique');

  blankDirectPath(tree, committer);
  const parentHash = setPathKeys(suite, tree, steps, keys);
  demand(leafNode.source.kind === 'commit' && equal(leafNode.source.parentHash, parentHash), 'pathParentHash');
  setLeaf(tree, committer, leafNode);
  checkPathLeafInGroup(context, tree, committer, leafNode, extensions);
  return steps;
}

function checkPathLeafInGroup(
  context: MlsContext,
  tree: RatchetTree,
  leafIndex: LeafIndex,
  leafNode: LeafNode,
  extensions: GroupContext['extensions'],
): void {
  demand(meets(leafNode.capabilities, requirements(extensions)), 'leafRequiredCapabilities');
  validateCredentialSupport(tree, [leafNode]);
  askForMember(context, leafIndex, leafNode, 'commit');
}

// ---- What both sides share ------------------------------------------------------------------------------------------

function provisionalContext(suite: Suite, old: GroupContext, { tree, extensions }: Evaluation): GroupContext {
  return { ...old, epoch: old.epoch + 1n, treeHash: treeHash(suite, tree), extensions };
}

function askForCommit(
  context: MlsContext,
  state: GroupState,
  provisional: GroupContext,
  evaluation: Evaluation,
  proposals: readonly CommittedProposal[],
  committer: LeafIndex,
  authenticatedData: Uint8Array,
): void {
  const verdict = context.hooks?.validateCommit?.({
    before: viewOf(state.core.context, state.tree),
    after: viewOf(provisional, evaluation.tree),
    proposals: proposals.map(sentProposal),
    committer,
    authenticatedData,
  });
  if (verdict?.kind === 'reject') violated('commitPolicy', verdict.reason);
}

function sentProposal({ proposal, sender, cached }: CommittedProposal): SentProposal {
  return { proposal, sender, byReference: cached !== undefined };
}

interface NextEpoch {
  readonly context: GroupContext;
  readonly contextBytes: Uint8Array;
  readonly joinerSecret: Uint8Array;
  readonly keys: EpochKeys;
  readonly confirmationTag: Uint8Array;
  readonly interimTranscriptHash: Uint8Array;
}

function nextEpoch(
  suite: Suite,
  core: GroupCore,
  provisional: GroupContext,
  commitSecret: Uint8Array,
  psks: readonly PskWithId[],
  message: { readonly wireFormat: WireFormat; readonly contentBytes: Uint8Array },
  signature: Uint8Array,
): NextEpoch {
  const confirmed = confirmedTranscriptHash(
    suite,
    core.interimTranscriptHash,
    message.wireFormat,
    message.contentBytes,
    signature,
  );
  const context: GroupContext = { ...provisional, confirmedTranscriptHash: confirmed };
  const contextBytes = encodeGroupContext(context);
  const joiner = joinerSecret(suite, core.secrets.initSecret, commitSecret, contextBytes);
  const pskSecret = derivePskSecret(suite, psks);
  const keys = epochKeys(suite, joiner, pskSecret, contextBytes);
  suite.crypto.wipe(pskSecret);
  const tag = confirmationTag(suite, keys.secrets.confirmationKey, confirmed);
  return {
    context,
    contextBytes,
    joinerSecret: joiner,
    keys,
    confirmationTag: tag,
    interimTranscriptHash: interimTranscriptHash(suite, confirmed, tag),
  };
}

/**
 * The private keys that survive a commit: those of nodes that are neither blank nor (`replaced`) on the new path. Keys of
 * nodes cut off or blanked must go, lest they be taken for those of a later node at the same place.
 */
function keptPrivateKeys(
  keys: ReadonlyMap<number, Uint8Array>,
  tree: RatchetTree,
  replaced: ReadonlySet<number> | undefined,
): Map<number, Uint8Array> {
  const kept = new Map<number, Uint8Array>();
  for (const [node, key] of keys) {
    if (isLeaf(node) || (parentAt(tree, node) !== undefined && !replaced?.has(node))) kept.set(node, key);
  }
  return kept;
}

function newCore(
  core: GroupCore,
  next: NextEpoch,
  own: {
    readonly signaturePrivateKey: Uint8Array;
    readonly privateKeys: ReadonlyMap<number, Uint8Array>;
    readonly reInit: boolean;
  },
): GroupCore {
  return {
    status: own.reInit ? 'reinitialized' : 'active',
    config: core.config,
    context: next.context,
    contextBytes: next.contextBytes,
    ownLeaf: core.ownLeaf,
    signaturePrivateKey: own.signaturePrivateKey,
    privateKeys: own.privateKeys,
    secrets: next.keys.secrets,
    confirmationTag: next.confirmationTag,
    interimTranscriptHash: next.interimTranscriptHash,
    resumptionPsks: [{ epoch: core.context.epoch, psk: core.secrets.resumptionPsk }, ...core.resumptionPsks].slice(
      0,
      core.config.resumptionEpochsMax,
    ),
  };
}

function enterEpoch(
  context: MlsContext,
  state: GroupState,
  core: GroupCore,
  tree: RatchetTree,
  encryptionSecret: Uint8Array,
): GroupState {
  const ended: PastEpoch = {
    epoch: state.core.context.epoch,
    endedAt: Math.floor(context.now),
    contextBytes: state.core.contextBytes,
    senderDataSecret: state.core.secrets.senderDataSecret,
    secretTree: state.secretTree,
    ownLeaf: state.core.ownLeaf,
    replacedLeaves: replacedLeaves(state.tree, tree),
  };
  return {
    core,
    tree: { leaves: tree.leaves, parents: tree.parents, hashes: tree.hashes },
    secretTree: newSecretTree(encryptionSecret, tree.leaves.length),
    proposals: [],
    pastEpochs: livePastEpochs(core, [ended, ...state.pastEpochs], context.now),
  };
}

export function livePastEpochs(core: GroupCore, epochs: readonly PastEpoch[], now: number): readonly PastEpoch[] {
  const { pastEpochsMax, pastEpochSecondsMax } = core.config;
  return epochs.slice(0, pastEpochsMax).filter(({ endedAt }) => now - endedAt <= pastEpochSecondsMax);
}

export function mergePendingCommit(context: MlsContext, state: GroupState, pending: PendingCommit): GroupState {
  if (!equal(state.core.contextBytes, pending.base)) {
    throw new MlsUsageError('this commit was made in another epoch');
  }
  const tree = pending.tree ?? applyTreeChanges(state.tree, pending.changes);
  return enterEpoch(context, state, pending.core, tree, pending.encryptionSecret);
}

function effectsOf(
  state: GroupState,
  { tree, added, removed, updated, extensionsChanged }: Evaluation,
  proposals: readonly CommittedProposal[],
  committer: LeafIndex,
  withPath: boolean,
): CommitEffects {
  const before = (leaf: LeafIndex): Member => memberOf(leaf, leafAt(state.tree, leaf)!);
  const after = (leaf: LeafIndex): Member => memberOf(leaf, leafAt(tree, leaf)!);
  const oldEpoch = state.core.context.epoch;
  return {
    committer: before(committer),
    added: added.map(({ leafIndex }) => after(leafIndex)),
    removed: removed.map(before),
    updated: [...updated, ...(withPath ? [committer] : [])].map((leaf) => ({
      before: before(leaf),
      after: after(leaf),
    })),
    extensionsChanged,
    selfRemoved: removed.includes(state.core.ownLeaf),
    proposals: proposals.map(sentProposal),
    oldEpoch,
    newEpoch: oldEpoch + 1n,
  };
}
