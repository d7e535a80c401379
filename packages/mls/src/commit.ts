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
import { freshKemKeyPair, type Suite, suiteOf } from './cipher-suites.ts';
import { demand, MlsUsageError, usable, violated, wipedOnRefusal } from './errors.ts';
import { isSameClient } from './successor.ts';
import {
  type AuthenticatedContent,
  checkConfirmationTagPresent,
  encodePublicMessage,
  sealPrivateMessage,
  signContent,
  type VerifiedContent,
} from './framing.ts';
import {
  type GroupCore,
  type GroupState,
  memberOf,
  type PastEpoch,
  type PublicGroup,
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
  openExternalInit,
  type PskWithId,
  secretsOf,
} from './key-schedule.ts';
import {
  askForMember,
  checkGroupExtensions,
  checkOwnLeaf,
  checkLeafNode,
  checkLifetime,
  completeCapabilities,
  demandVerified,
  isDefaultProposal,
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
  addLeaf,
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
  ProtocolVersion,
  type ReInit,
  ResumptionPskUsage,
  type Sender,
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
  /** The PSK that makes this the first commit of a group that continues another. */
  successor?: CommittedProposal,
): Exclude<CommitOutcome, { kind: 'rejected' }> {
  demandActive(state);
  const suite = stateSuite(context, state);
  const { core } = state;
  const { ownLeaf } = core;
  const chosen = chooseProposals(context, suite, state, parameters);
  const proposals = successor === undefined ? chosen : [...chosen, successor];
  for (const { proposal } of proposals) {
    if (proposal.kind === 'add') checkLifetime(proposal.keyPackage.leafNode, context.now);
  }
  const evaluation = evaluateProposals(context, suite, state, state, proposals, ownLeaf);
  // A ReInit closes the group: a path would protect nothing.
  const withPath =
    evaluation.pathRequired ||
    parameters.leafNode !== undefined ||
    (parameters.path ?? evaluation.reInit === undefined);

  return wipedOnRefusal(suite.crypto, (derived) => {
    const current = leafAt(evaluation.tree, ownLeaf)!;
    const path = withPath
      ? makePath(
          context,
          suite,
          evaluation,
          {
            leafIndex: ownLeaf,
            groupId: core.context.groupId,
            signaturePrivateKey: parameters.leafNode?.signatureKeyPair?.privateKey ?? core.signaturePrivateKey,
            leaf: changedLeaf(current, parameters.leafNode),
            reason: 'commit',
          },
          derived,
        )
      : undefined;
    const provisional = provisionalContext(suite, core.context, evaluation);
    const updatePath = path && sealPath(suite, evaluation, path, provisional);
    const commit: Commit = {
      proposals: proposals.map(({ proposal, cached }) =>
        cached === undefined ? { kind: 'proposal', proposal } : { kind: 'reference', reference: cached.ref },
      ),
      path: updatePath,
    };
    const authenticatedData = parameters.authenticatedData ?? EMPTY;
    askForCommit(context, state, provisional, evaluation, proposals, ownLeaf, false, authenticatedData);

    const wireFormat = parameters.wireFormat === 'public' ? WireFormat.PublicMessage : WireFormat.PrivateMessage;
    const signed = signContent(
      suite,
      core.signaturePrivateKey,
      wireFormat,
      memberContent(core, authenticatedData, { contentType: ContentType.Commit, commit }),
      core.contextBytes,
    );
    const commitSecret = path?.secrets.commitSecret ?? new Uint8Array(suite.hashLength);
    const { initSecret } = core.secrets;
    const next = nextEpoch(
      suite,
      core,
      initSecret,
      provisional,
      commitSecret,
      evaluation.psks,
      signed,
      signed.signature,
    );
    derived.push(next.joinerSecret, ...secretsOf(next.keys));
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
      effects: effectsOf(state, evaluation, proposals, { leafIndex: ownLeaf, external: false }, withPath, ownLeaf),
    };
  });
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
    case 'reInit': {
      const extensions = input.extensions ?? [];
      usable(() => checkGroupExtensions(extensions));
      const { id: cipherSuite } = suiteOf(context.crypto, input.cipherSuite);
      return { kind: 'reInit', groupId: input.groupId, version: ProtocolVersion.Mls10, cipherSuite, extensions };
    }
    case 'custom':
      if (isDefaultProposal(input.proposalType)) throw new MlsUsageError('a proposal type of RFC 9420 itself');
      return { kind: 'custom', proposalType: input.proposalType, data: input.data };
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

/** Whose path, and what its leaf will say. */
export interface PathOwner {
  readonly leafIndex: LeafIndex;
  readonly groupId: Uint8Array;
  /** Of the leaf as it will be. */
  readonly signaturePrivateKey: Uint8Array;
  readonly leaf: Omit<LeafNode, 'signature' | 'source'>;
  readonly reason: 'add' | 'commit';
}

/** `tree` has the owner's leaf in its place; its contents are replaced. */
export function makePath(
  context: MlsContext,
  suite: Suite,
  { tree, extensions }: Evaluation,
  owner: PathOwner,
  /** Where to note what must be wiped when the commit is not made. */
  derived: Uint8Array[],
): OwnPath {
  const { leafIndex } = owner;
  const steps = filteredDirectPath(tree, leafIndex);
  const secrets = derivePathSecrets(suite, context.random(suite.hashLength), steps.length);
  const encryptionKeys = freshKemKeyPair(suite, context.random);
  derived.push(...secrets.pathSecrets, secrets.commitSecret);
  for (const { privateKey } of [...secrets.keyPairs, encryptionKeys]) derived.push(privateKey);
  blankDirectPath(tree, leafIndex);
  const parentHash = setPathKeys(
    suite,
    tree,
    steps,
    secrets.keyPairs.map(({ publicKey }) => publicKey),
  );
  const leafNode = signLeafNode(suite, owner.signaturePrivateKey, owner.groupId, leafIndex, {
    ...owner.leaf,
    encryptionKey: encryptionKeys.publicKey,
    source: { kind: 'commit', parentHash },
  });
  checkOwnLeaf(suite, leafNode, 'commit');
  const sameKey = findSignatureKey(tree, [leafNode.signatureKey], new Set([leafIndex]));
  demand(sameKey === undefined, 'pathLeafKeyUnique');
  setLeaf(tree, leafIndex, leafNode);
  checkPathLeafInGroup(context, tree, leafIndex, leafNode, extensions, owner.reason);
  return { steps, secrets, leafNode, encryptionPrivateKey: encryptionKeys.privateKey };
}

export function sealPath(suite: Suite, evaluation: Evaluation, path: OwnPath, provisional: GroupContext): UpdatePath {
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

/** `message` is of the current epoch. `committer` is undefined for an external commit, which has a path. */
export function applyCommit(
  context: MlsContext,
  state: GroupState,
  message: VerifiedContent,
  commit: Commit,
  committer: LeafIndex | undefined,
): { readonly state: GroupState; readonly effects: CommitEffects } {
  const suite = stateSuite(context, state);
  const { core } = state;
  // ValSem009
  checkConfirmationTagPresent(message);
  const resolve = resolveReferences(state);
  const external = committer === undefined;
  const sender: Sender = external ? { kind: 'newMemberCommit' } : { kind: 'member', leafIndex: committer };
  // ValSem244
  if (external) {
    demand(
      commit.proposals.every(({ kind }) => kind === 'proposal'),
      'externalByValue',
    );
  }
  const proposals = commit.proposals.map((each): CommittedProposal =>
    each.kind === 'proposal'
      ? { proposal: each.proposal, sender, cached: undefined }
      : committed(resolve(each.reference)),
  );
  const evaluation = evaluateProposals(context, suite, state, state, proposals, committer);
  // ValSem201
  demand(!evaluation.pathRequired || commit.path !== undefined, 'pathRequired');
  const leafIndex = committer ?? placeJoiner(context, state, evaluation, commit.path!.leafNode);
  const steps = commit.path && mergePath(context, suite, core, evaluation, commit.path, leafIndex, external);
  const provisional = provisionalContext(suite, core.context, evaluation);
  askForCommit(
    context,
    state,
    provisional,
    evaluation,
    proposals,
    leafIndex,
    external,
    message.content.authenticatedData.slice(),
  );
  const from = { leafIndex, external };
  const effects = effectsOf(state, evaluation, proposals, from, commit.path !== undefined, core.ownLeaf);
  if (effects.selfRemoved) {
    return { state: { ...state, core: { ...core, status: 'removed' }, proposals: [] }, effects };
  }

  return wipedOnRefusal(suite.crypto, (derived) => {
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
      const { from: first, secrets } = decryptPath(
        suite,
        evaluation.tree,
        steps,
        commit.path,
        privateKeys,
        core.ownLeaf,
        encodeGroupContext(provisional),
        addedLeaves(evaluation),
      );
      secrets.keyPairs.forEach((pair, i) => privateKeys.set(steps[first + i]!.node, pair.privateKey));
      for (const secret of secrets.pathSecrets) suite.crypto.wipe(secret);
      ({ commitSecret } = secrets);
      derived.push(commitSecret, ...secrets.keyPairs.map(({ privateKey }) => privateKey));
    }
    const initSecret =
      evaluation.externalInit === undefined
        ? core.secrets.initSecret
        : openExternalInit(suite, core.secrets.externalSecret, evaluation.externalInit);
    if (external) derived.push(initSecret);
    const { signature } = message.auth;
    const next = nextEpoch(suite, core, initSecret, provisional, commitSecret, evaluation.psks, message, signature);
    derived.push(next.joinerSecret, ...secretsOf(next.keys));
    if (external) suite.crypto.wipe(initSecret);
    suite.crypto.wipe(commitSecret);
    suite.crypto.wipe(next.joinerSecret);
    // ValSem205
    demand(suite.crypto.equal(next.confirmationTag, message.auth.confirmationTag ?? EMPTY), 'confirmationTag');
    const nextCore = newCore(core, next, { signaturePrivateKey, privateKeys, reInit: evaluation.reInit });
    return { state: enterEpoch(context, state, nextCore, evaluation.tree, next.keys.encryptionSecret), effects };
  });
}

/** Gives a joiner the leftmost free leaf, after the Remove of its former self (section 12.4.3.2). */
function placeJoiner(
  context: MlsContext,
  state: GroupState,
  { tree, removed }: Evaluation,
  leafNode: LeafNode,
): LeafIndex {
  const leafIndex = addLeaf(tree, leafNode);
  for (const former of removed) demandSameClient(context, state, former, memberOf(leafIndex, leafNode));
  return leafIndex;
}

/** ValSem243, and what an Update of the removed leaf would have to keep. */
export function demandSameClient(context: MlsContext, group: PublicGroup, former: LeafIndex, joiner: Member): void {
  const before = leafAt(group.tree, former) ?? violated('removeMember');
  demand(isSameClient(context, memberOf(former, before), joiner), 'externalRemove');
  demand(!equal(before.encryptionKey, joiner.encryptionKey), 'leafKeyReplaced');
}

/** Checks a commit's path against the tree with the proposals applied, and sets its keys there. */
function mergePath(
  context: MlsContext,
  suite: Suite,
  core: GroupCore,
  evaluation: Evaluation,
  path: UpdatePath,
  committer: LeafIndex,
  external: boolean,
): readonly PathStep[] {
  const { tree, extensions } = evaluation;
  const { leafNode } = path;
  const current = leafAt(tree, committer) ?? violated('senderMember');
  checkLeafNode(suite, leafNode, { source: 'commit', groupId: core.context.groupId, leafIndex: committer });
  // A joiner stands in the tree already, as `current`.
  const ignored = external ? new Set([nodeOfLeaf(committer)]) : undefined;
  demand(external || !equal(leafNode.encryptionKey, current.encryptionKey), 'leafKeyReplaced');
  const steps = filteredDirectPath(tree, committer);
  checkPathShape(tree, steps, path, addedLeaves(evaluation));
  const keys = path.nodes.map((node) => node.encryptionKey);
  demand(
    keys.every((key) => suite.kem.isPublicKey(key)),
    'leafKeysValid',
    'path',
  );
  // ValSem206, ValSem207
  demand(findEncryptionKey(tree, [leafNode.encryptionKey], ignored) === undefined, 'pathLeafKeyUnique');
  demand(findSignatureKey(tree, [leafNode.signatureKey], new Set([committer])) === undefined, 'pathLeafKeyUnique');
  demand(duplicate([...keys, leafNode.encryptionKey]) === undefined, 'pathKeysUnique');
  demand(keys.length === 0 || findEncryptionKey(tree, keys) === undefined, 'pathKeysUnique');

  blankDirectPath(tree, committer);
  const parentHash = setPathKeys(suite, tree, steps, keys);
  demand(leafNode.source.kind === 'commit' && equal(leafNode.source.parentHash, parentHash), 'pathParentHash');
  setLeaf(tree, committer, leafNode);
  checkPathLeafInGroup(context, tree, committer, leafNode, extensions, external ? 'add' : 'commit');
  return steps;
}

function checkPathLeafInGroup(
  context: MlsContext,
  tree: RatchetTree,
  leafIndex: LeafIndex,
  leafNode: LeafNode,
  extensions: GroupContext['extensions'],
  reason: 'add' | 'commit',
): void {
  demand(meets(leafNode.capabilities, requirements(extensions)), 'leafRequiredCapabilities');
  validateCredentialSupport(tree, [leafNode]);
  askForMember(context, leafIndex, leafNode, reason);
}

// ---- What both sides share ------------------------------------------------------------------------------------------

export function provisionalContext(suite: Suite, old: GroupContext, { tree, extensions }: Evaluation): GroupContext {
  return { ...old, epoch: old.epoch + 1n, treeHash: treeHash(suite, tree), extensions };
}

export function askForCommit(
  context: MlsContext,
  group: PublicGroup,
  provisional: GroupContext,
  evaluation: Evaluation,
  proposals: readonly CommittedProposal[],
  committer: LeafIndex,
  external: boolean,
  authenticatedData: Uint8Array,
): void {
  const verdict = context.hooks?.validateCommit?.({
    before: viewOf(group.core.context, group.tree),
    after: viewOf(provisional, evaluation.tree),
    proposals: proposals.map(sentProposal),
    committer,
    external,
    authenticatedData,
  });
  if (verdict?.kind === 'reject') violated('commitPolicy', verdict.reason);
}

function sentProposal({ proposal, sender, cached }: CommittedProposal): SentProposal {
  return { proposal, sender, byReference: cached !== undefined };
}

export interface NextEpoch {
  readonly context: GroupContext;
  readonly contextBytes: Uint8Array;
  readonly joinerSecret: Uint8Array;
  readonly keys: EpochKeys;
  readonly confirmationTag: Uint8Array;
  readonly interimTranscriptHash: Uint8Array;
}

export function nextEpoch(
  suite: Suite,
  old: Pick<GroupCore, 'interimTranscriptHash'>,
  initSecret: Uint8Array,
  provisional: GroupContext,
  commitSecret: Uint8Array,
  psks: readonly PskWithId[],
  message: { readonly wireFormat: WireFormat; readonly contentBytes: Uint8Array },
  signature: Uint8Array,
): NextEpoch {
  const confirmed = confirmedTranscriptHash(
    suite,
    old.interimTranscriptHash,
    message.wireFormat,
    message.contentBytes,
    signature,
  );
  const context: GroupContext = { ...provisional, confirmedTranscriptHash: confirmed };
  const contextBytes = encodeGroupContext(context);
  const joiner = joinerSecret(suite, initSecret, commitSecret, contextBytes);
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
    readonly reInit: ReInit | undefined;
  },
): GroupCore {
  return {
    status: own.reInit === undefined ? 'active' : 'reinitialized',
    reInit: own.reInit,
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

/**
 * Enters the epoch that our own commit leads to, once it was accepted. `state` may have received messages since the
 * commit was made, but no other commit.
 * @throws MlsUsageError when it has
 */
export function mergePendingCommit(context: MlsContext, state: GroupState, pending: PendingCommit): GroupState {
  if (!equal(state.core.contextBytes, pending.base)) {
    throw new MlsUsageError('this commit was made in another epoch');
  }
  const tree = pending.tree ?? applyTreeChanges(state.tree, pending.changes);
  return enterEpoch(context, state, pending.core, tree, pending.encryptionSecret);
}

export function effectsOf(
  group: PublicGroup,
  { tree, added, removed, updated, extensionsChanged }: Evaluation,
  proposals: readonly CommittedProposal[],
  committer: { readonly leafIndex: LeafIndex; readonly external: boolean },
  withPath: boolean,
  /** Undefined: we come in by this commit ourselves. */
  ownLeaf: LeafIndex | undefined,
): CommitEffects {
  const { leafIndex, external } = committer;
  const before = (leaf: LeafIndex): Member => memberOf(leaf, leafAt(group.tree, leaf)!);
  const after = (leaf: LeafIndex): Member => memberOf(leaf, leafAt(tree, leaf)!);
  const oldEpoch = group.core.context.epoch;
  return {
    committer: external ? after(leafIndex) : before(leafIndex),
    added: [...added.map((each) => after(each.leafIndex)), ...(external ? [after(leafIndex)] : [])],
    removed: removed.map(before),
    updated: [...updated, ...(withPath && !external ? [leafIndex] : [])].map((leaf) => ({
      before: before(leaf),
      after: after(leaf),
    })),
    extensionsChanged,
    selfRemoved: ownLeaf !== undefined && removed.includes(ownLeaf),
    external,
    proposals: proposals.map(sentProposal),
    oldEpoch,
    newEpoch: oldEpoch + 1n,
  };
}
