/**
 * The way in from outside (RFC 9420 sections 8.3, 12.1.8, 12.4.3.2): a member publishes a GroupInfo with external_pub; a
 * client joins by a commit of its own, or asks to be added; a sender named in external_senders proposes.
 *
 *   GroupInfo → verifyGroupInfo → ExternalInit [+ Remove of the former self] → path at the first free leaf → epoch
 *
 * Members meet what is made here in process-message.ts.
 */
import { EMPTY } from '@quicprochat/crypto';
import { findSuite, type Suite, suiteOf } from './cipher-suites.ts';
import { decode, Writer } from './codec.ts';
import {
  askForCommit,
  effectsOf,
  demandActive,
  demandSameClient,
  makePath,
  nextEpoch,
  proposalOf,
  provisionalContext,
  sealPath,
} from './commit.ts';
import { demand, refusable, violated, wipedOnRefusal } from './errors.ts';
import { encodeOutsideMessage, signContent } from './framing.ts';
import {
  defaultConfig,
  findExtension,
  type GroupState,
  memberOf,
  type PublicGroup,
  stateSuite,
} from './group-state.ts';
import { encodeGroupContext, externalKeyPair, interimTranscriptHash, makeExternalInit } from './key-schedule.ts';
import { completeCapabilities, externalJoins, readKeyPackageMessage } from './leaf-node.ts';
import { type CommittedProposal, demandExternalJoin, evaluateProposals } from './proposals.ts';
import { addLeaf, encodeRatchetTree } from './ratchet-tree.ts';
import { newSecretTree } from './secret-tree.ts';
import {
  type Commit,
  type FramedContent,
  type GroupInfo,
  messageWriter,
  readMlsMessage,
  writeGroupInfo,
} from './structures.ts';
import { nodeOfLeaf } from './tree-math.ts';
import {
  ContentType,
  type Extension,
  ExtensionType,
  type ExternalCommitOutcome,
  type ExternalCommitParameters,
  type ExternalProposalParameters,
  type GroupInfoOptions,
  type LeafNode,
  type MlsContext,
  type NewMemberProposalParameters,
  type Proposal,
  type Rejected,
  type Sender,
  WireFormat,
} from './types.ts';
import { wipePathSecrets } from './update-path.ts';
import { signGroupInfo, verifyGroupInfo } from './welcome.ts';

/** MLSMessage with wire format mls_group_info, of the current epoch. */
export function createGroupInfo(context: MlsContext, state: GroupState, options: GroupInfoOptions = {}): Uint8Array {
  demandActive(state);
  const suite = stateSuite(context, state);
  const { core, tree } = state;
  const extensions: Extension[] = [];
  if (options.ratchetTree ?? true) {
    extensions.push({ extensionType: ExtensionType.RatchetTree, extensionData: encodeRatchetTree(tree) });
  }
  if (options.externalPub ?? externalJoins(core.context.extensions).commits) {
    const { publicKey, privateKey } = externalKeyPair(suite, core.secrets.externalSecret);
    suite.crypto.wipe(privateKey);
    const extensionData = new Writer(publicKey.length + 4).opaque(publicKey).finish();
    extensions.push({ extensionType: ExtensionType.ExternalPub, extensionData });
  }
  extensions.push(...(options.extensions ?? []));
  const writer = messageWriter(WireFormat.GroupInfo, 4096);
  writeGroupInfo(writer, signGroupInfo(suite, core, extensions));
  return writer.finish();
}

/** Joins a group by a commit of one's own. Nothing is certain before the group has accepted it. */
export function joinByExternalCommit(context: MlsContext, parameters: ExternalCommitParameters): ExternalCommitOutcome {
  return refusable(() => join(context, parameters));
}

function join(
  context: MlsContext,
  parameters: ExternalCommitParameters,
): Exclude<ExternalCommitOutcome, { kind: 'rejected' }> {
  const groupInfo = readGroupInfoMessage(parameters.groupInfo);
  const { groupContext } = groupInfo;
  const suite = findSuite(context.crypto, groupContext.cipherSuite) ?? violated('welcomeSuite');
  const { tree } = verifyGroupInfo(context, suite, groupInfo, parameters);
  const group: PublicGroup = { core: { context: groupContext }, tree };
  demandExternalJoin(context, group, 'commit');
  const externalPub = readExternalPub(suite, groupInfo);

  return wipedOnRefusal(suite.crypto, (derived) => {
    const { kemOutput, initSecret } = makeExternalInit(suite, externalPub);
    derived.push(initSecret);
    const sender: Sender = { kind: 'newMemberCommit' };
    const contents: Proposal[] = [{ kind: 'externalInit', kemOutput }];
    if (parameters.replaces !== undefined) contents.push({ kind: 'remove', removed: parameters.replaces });
    for (const psk of parameters.psks ?? []) contents.push(proposalOf(context, suite, psk));
    const proposals = contents.map((proposal): CommittedProposal => ({ proposal, sender, cached: undefined }));
    const evaluation = evaluateProposals(context, suite, group, undefined, proposals, undefined);

    const leaf = newLeaf();
    const leafIndex = addLeaf(evaluation.tree, {
      ...leaf,
      source: { kind: 'commit', parentHash: EMPTY },
      signature: EMPTY,
    });
    const path = makePath(
      context,
      suite,
      evaluation,
      {
        leafIndex,
        groupId: groupContext.groupId,
        signaturePrivateKey: parameters.signatureKeyPair.privateKey,
        leaf,
        reason: 'add',
      },
      derived,
    );
    if (parameters.replaces !== undefined) {
      demandSameClient(context, group, parameters.replaces, memberOf(leafIndex, path.leafNode));
    }
    const provisional = provisionalContext(suite, groupContext, evaluation);
    const commit: Commit = {
      proposals: contents.map((proposal) => ({ kind: 'proposal', proposal })),
      path: sealPath(suite, evaluation, path, provisional),
    };
    const authenticatedData = parameters.authenticatedData ?? EMPTY;
    askForCommit(context, group, provisional, evaluation, proposals, leafIndex, true, authenticatedData);

    const signed = signContent(
      suite,
      parameters.signatureKeyPair.privateKey,
      WireFormat.PublicMessage,
      {
        groupId: groupContext.groupId,
        epoch: groupContext.epoch,
        sender,
        authenticatedData,
        content: { contentType: ContentType.Commit, commit },
      },
      encodeGroupContext(groupContext),
    );
    const interim = interimTranscriptHash(suite, groupContext.confirmedTranscriptHash, groupInfo.confirmationTag);
    const next = nextEpoch(
      suite,
      { interimTranscriptHash: interim },
      initSecret,
      provisional,
      path.secrets.commitSecret,
      evaluation.psks,
      signed,
      signed.signature,
    );
    suite.crypto.wipe(initSecret);
    suite.crypto.wipe(next.joinerSecret);
    const privateKeys = new Map([[nodeOfLeaf(leafIndex) as number, path.encryptionPrivateKey]]);
    path.steps.forEach(({ node }, i) => privateKeys.set(node, path.secrets.keyPairs[i]!.privateKey));
    wipePathSecrets(suite, path.secrets);

    const { leaves, parents, hashes } = evaluation.tree;
    const state: GroupState = {
      core: {
        status: 'active',
        reInit: undefined,
        config: { ...defaultConfig, ...parameters.config },
        context: next.context,
        contextBytes: next.contextBytes,
        ownLeaf: leafIndex,
        signaturePrivateKey: parameters.signatureKeyPair.privateKey.slice(),
        privateKeys,
        secrets: next.keys.secrets,
        confirmationTag: next.confirmationTag,
        interimTranscriptHash: next.interimTranscriptHash,
        resumptionPsks: [],
      },
      tree: { leaves, parents, hashes },
      secretTree: newSecretTree(next.keys.encryptionSecret, leaves.length),
      proposals: [],
      pastEpochs: [],
    };
    return {
      kind: 'committed',
      commit: encodeOutsideMessage({
        ...signed,
        auth: { signature: signed.signature, confirmationTag: next.confirmationTag },
      }),
      state,
      effects: effectsOf(group, evaluation, proposals, { leafIndex, external: true }, true, undefined),
      groupInfoExtensions: groupInfo.extensions.filter(
        ({ extensionType }) =>
          extensionType !== ExtensionType.RatchetTree && extensionType !== ExtensionType.ExternalPub,
      ),
    };
  });

  function newLeaf(): Omit<LeafNode, 'signature' | 'source'> {
    const extensions = parameters.leafNodeExtensions ?? [];
    return {
      // Its own key comes with the path.
      encryptionKey: EMPTY,
      signatureKey: parameters.signatureKeyPair.publicKey,
      credential: parameters.credential,
      capabilities: completeCapabilities(parameters.capabilities, parameters.credential, extensions),
      extensions,
    };
  }
}

function readGroupInfoMessage(bytes: Uint8Array): GroupInfo {
  const message = decode(readMlsMessage, bytes);
  if (message.wireFormat !== WireFormat.GroupInfo) violated('wireFormat');
  return message.groupInfo;
}

function readExternalPub(suite: Suite, { extensions }: GroupInfo): Uint8Array {
  const data = findExtension(extensions, ExtensionType.ExternalPub) ?? violated('externalPub', 'there is none');
  const externalPub = decode((reader) => reader.opaque(), data);
  demand(suite.kem.isPublicKey(externalPub), 'externalPub');
  return externalPub;
}

// ---- Proposals from outside (section 12.1.8) ------------------------------------------------------------------------

/** A proposal of someone the group's external_senders extension names, as MLSMessage. */
export function createExternalProposal(context: MlsContext, parameters: ExternalProposalParameters): Uint8Array {
  const suite = suiteOf(context.crypto, parameters.cipherSuite);
  const sender: Sender = { kind: 'external', senderIndex: parameters.senderIndex };
  const proposal = proposalOf(context, suite, parameters.proposal);
  return proposeFromOutside(suite, parameters.signaturePrivateKey, parameters, sender, proposal);
}

/** A client's request to be added, as MLSMessage. */
export function createNewMemberProposal(
  context: MlsContext,
  parameters: NewMemberProposalParameters,
): { readonly kind: 'proposed'; readonly message: Uint8Array } | Rejected {
  return refusable(() => {
    const { keyPackage: bundle } = parameters;
    const keyPackage = readKeyPackageMessage(bundle.keyPackage);
    const suite = findSuite(context.crypto, keyPackage.cipherSuite) ?? violated('keyPackageSuite');
    const sender: Sender = { kind: 'newMemberProposal' };
    const proposal: Proposal = { kind: 'add', keyPackage };
    const message = proposeFromOutside(suite, bundle.signaturePrivateKey, parameters, sender, proposal);
    return { kind: 'proposed' as const, message };
  });
}

function proposeFromOutside(
  suite: Suite,
  signaturePrivateKey: Uint8Array,
  parameters: Pick<NewMemberProposalParameters, 'groupId' | 'epoch' | 'authenticatedData'>,
  sender: Sender,
  proposal: Proposal,
): Uint8Array {
  const content: FramedContent = {
    groupId: parameters.groupId,
    epoch: parameters.epoch,
    sender,
    authenticatedData: parameters.authenticatedData ?? EMPTY,
    content: { contentType: ContentType.Proposal, proposal },
  };
  const signed = signContent(suite, signaturePrivateKey, WireFormat.PublicMessage, content, undefined);
  return encodeOutsideMessage({ ...signed, auth: { signature: signed.signature, confirmationTag: undefined } });
}
