/**
 * Messages of a group, outwards (`protectApplication`, `createProposal`) and inwards (`processMessage`, RFC 9420 sections
 * 6, 12.4.2, 14). A message passes, in this order: form → group → epoch → sender → key → decryption → signature → what
 * its content says. Whoever fails is refused with the rule's number, and the state stays as it was.
 */
import { EMPTY, equal } from '@quicprochat/crypto';
import { freshKemKeyPair, type Suite } from './cipher-suites.ts';
import { applyCommit, changedLeaf, demandActive, frame, livePastEpochs, memberContent, proposalOf } from './commit.ts';
import { Reader } from './codec.ts';
import { demand, refusable, violated } from './errors.ts';
import {
  type AuthenticatedContent,
  openPrivateMessage,
  openPublicMessage,
  openSenderData,
  proposalRef,
  sealPrivateMessage,
  signApplication,
  signContent,
  type VerifiedContent,
  verifyContent,
} from './framing.ts';
import {
  type CachedProposal,
  type GroupState,
  leafInPast,
  memberOf,
  type PastEpoch,
  stateSuite,
  unusedRoom,
} from './group-state.ts';
import { checkLifetime, externalSenders, signLeafNode, supportsCustomProposal } from './leaf-node.ts';
import { checkProposal, demandExternalJoin } from './proposals.ts';
import { leafAt } from './ratchet-tree.ts';
import { peekRatchets, type SecretTree, takeKey, takeNextKey } from './secret-tree.ts';
import { type PrivateMessage, type PublicMessage, readMlsMessage } from './structures.ts';
import {
  ContentType,
  type FramingOptions,
  type HandshakeOptions,
  type LeafIndex,
  type LeafNode,
  type LeafNodeChanges,
  type MlsContext,
  type ProcessOutcome,
  type Proposal,
  type ProposalInput,
  type ProposeOutcome,
  type ProtectedMessage,
  type Sender,
  WireFormat,
} from './types.ts';
import { wipeDiscarded } from './wipe.ts';

// ---- Outwards -------------------------------------------------------------------------------------------------------

/**
 * Application data as a PrivateMessage. Store the new state before the message leaves: a key used twice is a key lost.
 * @throws MlsUsageError when we were removed, or the group was closed by a ReInit
 */
export function protectApplication(
  context: MlsContext,
  state: GroupState,
  data: Uint8Array,
  options: FramingOptions = {},
): ProtectedMessage {
  demandActive(state);
  const suite = stateSuite(context, state);
  const { core } = state;
  const content = memberContent(core, options.authenticatedData ?? EMPTY, {
    contentType: ContentType.Application,
    applicationData: data,
  });
  const signature = signApplication(suite, core.signaturePrivateKey, content, core.contextBytes);
  const taken = takeNextKey(suite, state.secretTree, core.ownLeaf, 'application');
  const message = sealPrivateMessage(
    suite,
    { content, auth: { signature, confirmationTag: undefined } },
    {
      key: taken.key,
      senderDataSecret: core.secrets.senderDataSecret,
      leafIndex: core.ownLeaf,
      reuseGuard: context.random(4),
      paddingLength: options.paddingLength ?? 0,
    },
  );
  suite.crypto.wipe(taken.key.key);
  return {
    state: { ...state, secretTree: taken.tree },
    message,
    epoch: core.context.epoch,
    generation: taken.key.generation,
  };
}

/**
 * A proposal (RFC 9420 section 12.1) as a message for the group; the new state remembers it, for a commit by reference.
 * @throws MlsUsageError when we were removed, or the group was closed by a ReInit
 */
export function createProposal(
  context: MlsContext,
  state: GroupState,
  input: ProposalInput,
  options: HandshakeOptions = {},
): ProposeOutcome {
  return refusable((): ProposeOutcome => {
    demandActive(state);
    const suite = stateSuite(context, state);
    const { core } = state;
    const sender: Sender = { kind: 'member', leafIndex: core.ownLeaf };
    const update = input.kind === 'update' ? ownUpdate(context, suite, state, input.leafNode) : undefined;
    const proposal = input.kind === 'update' ? update!.proposal : proposalOf(context, suite, input);
    checkProposal(context, suite, state, proposal, sender);
    demandOwnSupport(state, proposal);
    if (proposal.kind === 'add') checkLifetime(proposal.keyPackage.leafNode, context.now);
    const signed = signContent(
      suite,
      core.signaturePrivateKey,
      options.wireFormat === 'public' ? WireFormat.PublicMessage : WireFormat.PrivateMessage,
      memberContent(core, options.authenticatedData ?? EMPTY, { contentType: ContentType.Proposal, proposal }),
      core.contextBytes,
    );
    const message = { ...signed, auth: { signature: signed.signature, confirmationTag: undefined } };
    const framed = frame(context, suite, state, message, options);
    const ref = proposalRef(suite, message);
    const next = remember(framed.state, { ref, proposal, sender, own: update?.own });
    return { kind: 'proposed', state: next, message: framed.message, ref };
  });
}

function ownUpdate(
  context: MlsContext,
  suite: Suite,
  state: GroupState,
  changes: LeafNodeChanges | undefined,
): { readonly proposal: Proposal; readonly own: NonNullable<CachedProposal['own']> } {
  const { core } = state;
  const keys = freshKemKeyPair(suite, context.random);
  const signaturePrivateKey = changes?.signatureKeyPair?.privateKey.slice() ?? core.signaturePrivateKey;
  const leafNode = signLeafNode(suite, signaturePrivateKey, core.context.groupId, core.ownLeaf, {
    ...changedLeaf(leafAt(state.tree, core.ownLeaf)!, changes),
    encryptionKey: keys.publicKey,
    source: { kind: 'update' },
  });
  return {
    proposal: { kind: 'update', leafNode },
    own: { encryptionPrivateKey: keys.privateKey, signaturePrivateKey },
  };
}

function remember(state: GroupState, proposal: CachedProposal): GroupState {
  if (state.proposals.some((each) => equal(each.ref, proposal.ref))) return state;
  demand(state.proposals.length < state.core.config.proposalsMax, 'proposalsLimit');
  return { ...state, proposals: [...state.proposals, proposal] };
}

// ---- Inwards --------------------------------------------------------------------------------------------------------

/**
 * A message of the group, of any kind: application data, a proposal, a commit. When it is refused the state stays as
 * it was. Commits take effect at once: the caller decides which commit of an epoch it gives.
 */
export function processMessage(context: MlsContext, state: GroupState, bytes: Uint8Array): ProcessOutcome {
  return refusable((): ProcessOutcome => {
    const reader = new Reader(bytes);
    const message = readMlsMessage(reader);
    reader.finish();
    switch (message.wireFormat) {
      case WireFormat.PrivateMessage:
        return processPrivate(context, state, message.privateMessage);
      case WireFormat.PublicMessage:
        return processPublic(context, state, message.publicMessage);
      default:
        return violated('wireFormat');
    }
  });
}

function processPublic(context: MlsContext, state: GroupState, message: PublicMessage): ProcessOutcome {
  const suite = stateSuite(context, state);
  const { core } = state;
  const { content } = message;
  // ValSem002, ValSem003
  demand(equal(content.groupId, core.context.groupId), 'groupId');
  demand(content.epoch <= core.context.epoch, 'epochFuture');
  demand(content.epoch === core.context.epoch, 'epochPast');
  // ValSem005
  demand(content.content.contentType !== ContentType.Application, 'applicationEncrypted');
  if (content.sender.kind !== 'member') return processOutside(context, suite, state, message, content.sender);
  const { leafIndex } = content.sender;
  // ValSem004, ValSem007, ValSem008, ValSem010
  const leaf = leafAt(state.tree, leafIndex) ?? violated('senderMember');
  const opened = openPublicMessage(suite, core.secrets.membershipKey, message, core.contextBytes);
  const verified = verifyContent(suite, leaf.signatureKey, opened, core.contextBytes);
  if (leafIndex === core.ownLeaf) {
    const { contentType } = content.content;
    return { kind: 'own', state, contentType, epoch: content.epoch, generation: undefined };
  }
  return handle(context, suite, state, verified, leafIndex, leaf, 0);
}

/** A PublicMessage of someone who is no member: a proposal from outside, or an external commit. */
function processOutside(
  context: MlsContext,
  suite: Suite,
  state: GroupState,
  { content, contentBytes, auth }: PublicMessage,
  sender: Exclude<Sender, { kind: 'member' }>,
): ProcessOutcome {
  demand(state.core.status === 'active', 'epochPast', 'the group has ended');
  const message: AuthenticatedContent = { wireFormat: WireFormat.PublicMessage, content, contentBytes, auth };
  const body = content.content;
  switch (sender.kind) {
    case 'external': {
      demand(body.contentType === ContentType.Proposal, 'senderType');
      const senders = externalSenders(state.core.context.extensions);
      const { signatureKey } = senders[sender.senderIndex] ?? violated('senderType', 'no such external sender');
      const verified = verifyContent(suite, signatureKey, message, undefined);
      return rememberProposal(context, suite, state, verified, body.proposal);
    }
    case 'newMemberProposal': {
      demand(body.contentType === ContentType.Proposal, 'senderType');
      demandExternalJoin(context, state, 'proposal');
      const { proposal } = body;
      if (proposal.kind !== 'add') return violated('externalProposalType');
      const verified = verifyContent(suite, proposal.keyPackage.leafNode.signatureKey, message, undefined);
      return rememberProposal(context, suite, state, verified, proposal);
    }
    case 'newMemberCommit': {
      demand(body.contentType === ContentType.Commit, 'senderType');
      demandExternalJoin(context, state, 'commit');
      const { commit } = body;
      // ValSem245, ValSem246
      if (commit.path === undefined) return violated('externalPath');
      const { signatureKey } = commit.path.leafNode;
      const verified = verifyContent(suite, signatureKey, message, state.core.contextBytes, 'externalSignature');
      const applied = applyCommit(context, state, verified, commit, undefined);
      return { kind: 'commit', ...applied, authenticatedData: content.authenticatedData.slice() };
    }
  }
}

/** What we do not understand ourselves we neither propose nor keep. Of the others the commit decides. */
function demandOwnSupport(state: GroupState, proposal: Proposal): void {
  if (proposal.kind !== 'custom') return;
  const { capabilities } = leafAt(state.tree, state.core.ownLeaf)!;
  demand(supportsCustomProposal(capabilities, proposal.proposalType), 'proposalSupported');
}

function rememberProposal(
  context: MlsContext,
  suite: Suite,
  state: GroupState,
  message: VerifiedContent,
  proposal: Proposal,
): ProcessOutcome {
  const { sender } = message.content;
  checkProposal(context, suite, state, proposal, sender);
  demandOwnSupport(state, proposal);
  const ref = proposalRef(suite, message);
  const next = remember(state, { ref, proposal, sender, own: undefined });
  const authenticatedData = message.content.authenticatedData.slice();
  return { kind: 'proposal', state: next, ref, proposal, sender, authenticatedData };
}

function processPrivate(context: MlsContext, state: GroupState, message: PrivateMessage): ProcessOutcome {
  const suite = stateSuite(context, state);
  const { core } = state;
  // ValSem002, ValSem003
  demand(equal(message.groupId, core.context.groupId), 'groupId');
  demand(message.epoch <= core.context.epoch, 'epochFuture');
  const pastIndex = message.epoch === core.context.epoch ? undefined : findPastEpoch(context, state, message);
  const past = pastIndex === undefined ? undefined : state.pastEpochs[pastIndex];
  const secretTree = past?.secretTree ?? state.secretTree;

  // ValSem006, ValSem004
  const sender = openSenderData(suite, past?.senderDataSecret ?? core.secrets.senderDataSecret, message);
  const { leafIndex, generation } = sender;
  const leaf =
    (pastIndex === undefined ? leafAt(state.tree, leafIndex) : leafInPast(state, pastIndex, leafIndex)) ??
    violated('senderMember');
  demand(leafIndex < secretTree.leafCount, 'senderMember');
  const kind = message.contentType === ContentType.Application ? 'application' : 'handshake';
  if (leafIndex === (past?.ownLeaf ?? core.ownLeaf)) {
    // Our own keys are gone, so this cannot be opened: someone says that we sent it, and we did send one of this number.
    demand(generation < (peekRatchets(secretTree, leafIndex)?.[kind].generation ?? 0), 'ownGeneration');
    return { kind: 'own', state, contentType: message.contentType, epoch: message.epoch, generation };
  }

  const taken = takeKey(suite, secretTree, leafIndex, kind, generation, core.config, unusedRoom(state));
  try {
    // ValSem006, ValSem010, ValSem011
    const opened = openPrivateMessage(suite, message, sender, taken.key);
    const verified = verifyContent(suite, leaf.signatureKey, opened, past?.contextBytes ?? core.contextBytes);
    const advanced = withSecretTree(state, pastIndex, taken.tree);
    return handle(context, suite, advanced, verified, leafIndex, leaf, generation);
  } catch (error) {
    wipeDiscarded(suite.crypto, taken.tree, secretTree);
    throw error;
  } finally {
    if (taken.fresh) suite.crypto.wipe(taken.key.key);
  }
}

/** Application messages may be late; handshakes may not. */
function findPastEpoch(context: MlsContext, state: GroupState, message: PrivateMessage): number {
  demand(message.contentType === ContentType.Application, 'epochPast');
  const { core, pastEpochs } = state;
  const index = livePastEpochs(core, pastEpochs, context.now).findIndex(({ epoch }) => epoch === message.epoch);
  demand(index >= 0, 'epochPast');
  return index;
}

function withSecretTree(state: GroupState, pastIndex: number | undefined, secretTree: SecretTree): GroupState {
  if (pastIndex === undefined) return { ...state, secretTree };
  return {
    ...state,
    pastEpochs: state.pastEpochs.map((past, i): PastEpoch => (i === pastIndex ? { ...past, secretTree } : past)),
  };
}

/** `state` has the sender's ratchet advanced already. */
function handle(
  context: MlsContext,
  suite: Suite,
  state: GroupState,
  message: VerifiedContent,
  leafIndex: LeafIndex,
  leaf: LeafNode,
  generation: number,
): ProcessOutcome {
  const { content } = message;
  const authenticatedData = content.authenticatedData.slice();
  switch (content.content.contentType) {
    case ContentType.Application:
      return {
        kind: 'application',
        state,
        sender: memberOf(leafIndex, leaf),
        epoch: content.epoch,
        generation,
        data: content.content.applicationData,
        authenticatedData,
      };
    case ContentType.Proposal: {
      demand(state.core.status === 'active', 'epochPast', 'the group has ended');
      return rememberProposal(context, suite, state, message, content.content.proposal);
    }
    case ContentType.Commit: {
      demand(state.core.status === 'active', 'epochPast', 'the group has ended');
      const applied = applyCommit(context, state, message, content.content.commit, leafIndex);
      return { kind: 'commit', ...applied, authenticatedData };
    }
  }
}

/** Forgets past epochs that are too old by now. */
export function dropExpiredEpochs(context: MlsContext, state: GroupState): GroupState {
  const pastEpochs = livePastEpochs(state.core, state.pastEpochs, context.now);
  return pastEpochs.length === state.pastEpochs.length ? state : { ...state, pastEpochs };
}
