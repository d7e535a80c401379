/**
 * One entry of a channel's commit log, built from a plan (PROTOCOL sections 4, 5 and 9). Pure: state and plan in, the
 * successor state, the pending commit and the finished SubmitCommit request out. Whoever calls it stores all of that in
 * one transaction before a byte is sent.
 *
 *   plan → proposals ─┬─ new salt → type-02 envelope for all who remain → its commitment → authenticated_data
 *                     └─ MLS commit (and Welcome) → handshake bundle → type-03 envelope = payload of the entry
 *                        payload → log_hash after it → Welcome body → type-01 or type-02 envelope
 */
import { create, toBinary } from '@bufbuild/protobuf';
import { encodeHex, equal } from '@quicprochat/crypto';
import {
  type DeviceAddress,
  encodeAddress,
  ExporterLabel,
  logHashNext,
  type VerifiedHybridKey,
} from '@quicprochat/core';
import {
  createCommit,
  createProposal,
  exportRatchetTree,
  exportSecret,
  findExtension,
  groupView,
  type GroupState,
  type LeafIndex,
  type LeafNodeChanges,
  mergePendingCommit,
  type MlsContext,
  ownLeafIndex,
  type PendingCommit,
  pendingProposals,
  type ProposalInput,
  type Rejected,
  roster,
  type VerifiedKeyPackage,
  wipePendingCommit,
} from '@quicprochat/mls';
import {
  type Address,
  SubmitCommitRequestSchema,
  type WelcomeDelivery,
  WelcomeDeliverySchema,
} from '@quicprochat/proto';
import {
  createMessageId,
  encodeHandshakeBundle,
  encodeWelcomeBody,
  GROUP_OVERHEAD,
  type HandshakeBundle,
  PayloadKind,
  PQ_SALT_LENGTH,
  sealDirect,
  sealGroup,
  sealShared,
  sealTree,
  SHARED_OVERHEAD,
  TREE_INLINE_BYTES_MAX,
  type TreeBlob,
  type TreeReference,
} from '../message/index.ts';
import { bodyBytesMax } from '../message/padding.ts';
import { encodeCommitAuthenticatedData, encodeMessageAuthenticatedData } from '../profile/authenticated-data.ts';
import { type ChannelExtension, encodeChannelExtension, QpcExtensionType } from '../profile/channel-extension.ts';
import { addressOf } from '../profile/member.ts';
import { isPostQuantum } from '../profile/suites.ts';
import { channelOf } from '../profile/validate-commit.ts';

/** A device to add: its KeyPackage and the key its Welcome is sealed to, both verified. */
export interface AddTarget {
  readonly address: DeviceAddress;
  readonly username: string;
  readonly keyPackage: VerifiedKeyPackage;
  readonly hybridKey: VerifiedHybridKey;
}

/** What a commit is to do. An empty plan is a commit that only updates the committer's leaf. */
export interface CommitPlan {
  readonly adds?: readonly AddTarget[];
  readonly removes?: readonly LeafIndex[];
  /** Also remove those who asked to leave. Only administrators may. */
  readonly coverLeaving?: boolean;
  /** The administrators afterwards, where they change. */
  readonly admins?: readonly Uint8Array[];
  readonly leafNode?: LeafNodeChanges;
}

/** Where the group stands on the server, as this device knows it. */
export interface LogPlace {
  readonly channelId: Uint8Array;
  /** Head of the log as far as it has been processed. */
  readonly position: bigint;
  /** log_hash at `position`. */
  readonly logHash: Uint8Array;
  /** The entry whose commit began the current epoch. */
  readonly epochPosition: bigint;
  /** k_n of the current epoch. */
  readonly envelopeKey: Uint8Array;
  /** pq_n of the current epoch; empty in post-quantum suites. */
  readonly pqSalt: Uint8Array;
  /** The newest key-transparency checkpoint this device knows, so that the others can compare; may be empty. */
  readonly checkpoint: Uint8Array;
}

export interface CommitSurroundings {
  /** Milliseconds since 1970. */
  readonly nowMs: number;
  /** Encoded GroupInfo for joiners; empty in direct conversations. */
  readonly metadata: Uint8Array;
  /** Hybrid keys of the devices in the group, by address in hex; those missing cannot follow a renewed salt. */
  readonly hybridKeys: ReadonlyMap<string, VerifiedHybridKey>;
  /** Trees above this go beside the Welcome, bytes. Default: TREE_INLINE_BYTES_MAX. */
  readonly treeInlineBytesMax?: number;
  /** The roster as the server has it, where it may differ from the tree. */
  readonly serverRoster?: readonly DeviceAddress[];
}

/** Ready to be stored and submitted; with a ReInit see build-reinit.ts. */
export interface BuiltEntry {
  readonly kind: 'built';
  /** The current epoch, its sending ratchet advanced. */
  readonly state: GroupState;
  /** Undefined for an entry without commit. */
  readonly pending: PendingCommit | undefined;
  readonly messageId: Uint8Array;
  readonly payload: Uint8Array;
  /** Encoded SubmitCommitRequest. */
  readonly request: Uint8Array;
  /** The group that the commit's ReInit opens. */
  readonly successor?: GroupState;
  /** The tree for the joiners, where the Welcome does not carry it: to be uploaded before the entry is submitted. */
  readonly tree?: TreeBlob;
  /** pq_n from this commit on. */
  readonly pqSalt: Uint8Array;
  /** Devices that will not be able to follow, because they published no hybrid key. */
  readonly leftBehind: readonly DeviceAddress[];
}

/** Largest encoded request (the method's own limit, less a margin for the frame). */
export const REQUEST_BYTES_MAX = 4 * 1024 * 1024 - 1024;

/** The commit would be larger than the server takes: do less at once. */
export class CommitTooLarge extends Error {
  override readonly name = 'CommitTooLarge';
}

/** Beside the MLS messages in the bodies of handshake and Welcome: more than their headers and metadata ever take. */
export const BODY_MARGIN_BYTES = 2_048;

/** @throws CommitTooLarge */
export function buildCommit(
  context: MlsContext,
  state: GroupState,
  place: LogPlace,
  plan: CommitPlan,
  surroundings: CommitSurroundings,
): BuiltEntry | Rejected {
  const view = groupView(state);
  const channel = channelOf(view);
  if (channel === undefined) throw new Error('a group of ours has qpc.channel');
  const adds = plan.adds ?? [];
  const leaving = plan.coverLeaving === true ? leavingProposals(state) : [];
  const removedLeaves = new Set<number>([...(plan.removes ?? []), ...leaving.map(({ leafIndex }) => leafIndex)]);
  const remaining = roster(state)
    .filter((member) => !removedLeaves.has(member.leafIndex))
    .flatMap((member) => addressOf(member) ?? []);
  const adminsAfter = plan.admins ?? adminsWhoStay(channel, [...remaining, ...adds.map(({ address }) => address)]);
  const proposals: ProposalInput[] = [
    ...(plan.removes ?? []).map((removed): ProposalInput => ({ kind: 'remove', removed })),
    ...adds.map(({ keyPackage }): ProposalInput => ({ kind: 'add', keyPackage })),
    ...(adminsAfter === undefined ? [] : [extensionsProposal(state, { ...channel, admins: adminsAfter })]),
  ];

  const renewal =
    removedLeaves.size > 0 && !isPostQuantum(view.cipherSuite)
      ? renewSalt(context, place.channelId, remaining, surroundings.hybridKeys)
      : undefined;
  const pqSalt = renewal?.pqSalt ?? place.pqSalt;

  const committed = createCommit(context, state, {
    proposals,
    byReference: leaving.map(({ ref }) => ref),
    path: true,
    ratchetTreeInWelcome: !isTreeLarge(state, adds, surroundings.treeInlineBytesMax),
    ...(plan.leafNode === undefined ? {} : { leafNode: plan.leafNode }),
    authenticatedData: encodeCommitAuthenticatedData({
      channelId: place.channelId,
      logHash: place.logHash,
      pqCommitment: renewal?.sealed.commitment,
      checkpoint: place.checkpoint,
    }),
  });
  if (committed.kind === 'rejected') return committed;
  const refuseSize = (): never => {
    wipePendingCommit(context, committed.state, committed.pending);
    throw new CommitTooLarge();
  };
  if (committed.commit.length > bodyBytesMax(GROUP_OVERHEAD) - BODY_MARGIN_BYTES) refuseSize();
  if ((committed.welcome?.length ?? 0) > bodyBytesMax(SHARED_OVERHEAD) - BODY_MARGIN_BYTES) refuseSize();

  const { ratchetTree } = committed;
  const tree = ratchetTree === undefined ? undefined : sealTree(context, place.channelId, ratchetTree);
  if (ratchetTree !== undefined && tree === undefined) refuseSize();

  const { payload, messageId } = sealEntry(context, place, surroundings.nowMs, {
    proposals: [],
    commit: committed.commit,
  });
  const welcomes =
    committed.welcome === undefined
      ? []
      : [sealWelcome(context, place, surroundings, adds, payload, pqSalt, tree?.reference, committed.welcome)];

  const next = mergePendingCommit(context, committed.state, committed.pending);
  const rosterAfter = roster(next).flatMap((member) => addressOf(member) ?? []);
  const rosterBefore = surroundings.serverRoster ?? roster(state).flatMap((member) => addressOf(member) ?? []);
  const sendToken = exportSecret(context, next, ExporterLabel.sendToken, place.channelId, 32);
  const request = toBinary(
    SubmitCommitRequestSchema,
    create(SubmitCommitRequestSchema, {
      channelId: place.channelId,
      after: place.position,
      messageId,
      payload,
      welcomes,
      rosterAdd: without(rosterAfter, rosterBefore),
      rosterRemove: without(rosterBefore, rosterAfter),
      sendTokenHash: context.crypto.hash('sha256', sendToken),
      adminsAdd: adminsAfter === undefined ? [] : keysWithout(adminsAfter, channel.admins),
      adminsRemove: adminsAfter === undefined ? [] : keysWithout(channel.admins, adminsAfter),
      ...(renewal === undefined
        ? {}
        : {
            pqRenewal: {
              envelope: renewal.sealed.envelope,
              recipients: renewal.sealed.wraps.map(({ address, wrap }) => ({ address: toProto(address), wrap })),
            },
          }),
    }),
  );
  context.crypto.wipe(sendToken);
  if (request.length > REQUEST_BYTES_MAX) refuseSize();
  return {
    kind: 'built',
    state: committed.state,
    pending: committed.pending,
    messageId,
    payload,
    request,
    ...(tree === undefined ? {} : { tree }),
    pqSalt,
    leftBehind: renewal?.leftBehind ?? [],
  };
}

/** Beside the keys and certificates of a leaf: capabilities, lifetime, signature, parents above it. */
const LEAF_MARGIN_BYTES = 256;

/** Whether the tree that joiners need is better carried beside the Welcome; estimated, before the commit is made. */
export function isTreeLarge(
  state: GroupState,
  adds: readonly Pick<AddTarget, 'keyPackage'>[],
  inlineBytesMax: number = TREE_INLINE_BYTES_MAX,
): boolean {
  if (adds.length === 0) return false;
  let bytes = exportRatchetTree(state).length;
  for (const { leafNode } of adds.map(({ keyPackage }) => keyPackage)) {
    const parts = [leafNode.encryptionKey, ...leafNode.extensions.map(({ extensionData }) => extensionData)];
    bytes += parts.reduce((sum, part) => sum + part.length, LEAF_MARGIN_BYTES);
  }
  return bytes > inlineBytesMax;
}

/** A role goes with the last device of its holder: the administrators afterwards, undefined when they stay the same. */
function adminsWhoStay(
  channel: ChannelExtension,
  members: readonly DeviceAddress[],
): readonly Uint8Array[] | undefined {
  if (channel.kind === 'direct') return undefined;
  const admins = channel.admins.filter((admin) => members.some(({ identityKey }) => equal(identityKey, admin)));
  return admins.length === channel.admins.length ? undefined : admins;
}

/** An entry without commit by which this device asks to be removed from the group (PROTOCOL section 9, "Leaving"). */
export function buildLeaveProposal(
  context: MlsContext,
  state: GroupState,
  place: LogPlace,
  nowMs: number,
): BuiltEntry | Rejected {
  const proposed = createProposal(
    context,
    state,
    { kind: 'remove', removed: ownLeafIndex(state) },
    { authenticatedData: encodeMessageAuthenticatedData(place.channelId) },
  );
  if (proposed.kind === 'rejected') return proposed;
  const { payload, messageId } = sealEntry(context, place, nowMs, {
    proposals: [proposed.message],
    commit: undefined,
  });
  const request = toBinary(
    SubmitCommitRequestSchema,
    create(SubmitCommitRequestSchema, { channelId: place.channelId, after: place.position, messageId, payload }),
  );
  return {
    kind: 'built',
    state: proposed.state,
    pending: undefined,
    messageId,
    payload,
    request,
    pqSalt: place.pqSalt,
    leftBehind: [],
  };
}

/** Members who asked to be removed, in this epoch, and the proposals by which they did; our own is not among them. */
export function leavingProposals(
  state: GroupState,
): readonly { readonly ref: Uint8Array; readonly leafIndex: LeafIndex }[] {
  const self = ownLeafIndex(state);
  const seen = new Set<number>();
  return pendingProposals(state).flatMap(({ ref, proposal, sender }) => {
    if (proposal.kind !== 'remove' || sender.kind !== 'member' || sender.leafIndex !== proposal.removed) return [];
    if (proposal.removed === self || seen.has(proposal.removed)) return [];
    seen.add(proposal.removed);
    return [{ ref, leafIndex: proposal.removed }];
  });
}

function toProto(address: DeviceAddress): Pick<Address, 'identityKey' | 'deviceId'> {
  return { identityKey: address.identityKey, deviceId: address.deviceId };
}

export function sealEntry(
  context: MlsContext,
  place: LogPlace,
  nowMs: number,
  bundle: HandshakeBundle,
): { payload: Uint8Array; messageId: Uint8Array } {
  const payload = sealGroup(
    context,
    { key: place.envelopeKey, position: place.epochPosition, channelId: place.channelId },
    PayloadKind.Handshake,
    encodeHandshakeBundle(bundle),
  );
  return { payload, messageId: createMessageId(nowMs, context.random) };
}

function renewSalt(
  context: MlsContext,
  channelId: Uint8Array,
  remaining: readonly DeviceAddress[],
  hybridKeys: ReadonlyMap<string, VerifiedHybridKey>,
) {
  const pqSalt = context.random(PQ_SALT_LENGTH);
  const leftBehind: DeviceAddress[] = [];
  const recipients = remaining.flatMap((address) => {
    const hybridKey = hybridKeys.get(encodeHex(encodeAddress(address)));
    if (hybridKey !== undefined) return [{ address, hybridKey: hybridKey.publicKey }];
    leftBehind.push(address);
    return [];
  });
  return { pqSalt, leftBehind, sealed: sealShared(context, recipients, channelId, PayloadKind.PqRenewal, pqSalt) };
}

function sealWelcome(
  context: MlsContext,
  place: LogPlace,
  surroundings: CommitSurroundings,
  adds: readonly AddTarget[],
  payload: Uint8Array,
  pqSalt: Uint8Array,
  tree: TreeReference | undefined,
  welcome: Uint8Array,
): WelcomeDelivery {
  const position = place.position + 1n;
  const body = encodeWelcomeBody({
    position,
    logHash: logHashNext(context.crypto, place.logHash, position, context.crypto.hash('sha256', payload)),
    pqSalt,
    metadata: surroundings.metadata,
    ...(tree === undefined ? {} : { tree }),
    welcome,
  });
  const recipients = adds.map(({ address, hybridKey }) => ({ address, hybridKey: hybridKey.publicKey }));
  const messageId = createMessageId(surroundings.nowMs, context.random);
  const [only] = recipients;
  try {
    if (recipients.length === 1 && only !== undefined) {
      const envelope = sealDirect(context, only, place.channelId, PayloadKind.Welcome, body);
      return create(WelcomeDeliverySchema, {
        payload: envelope,
        messageId,
        recipients: [{ address: toProto(only.address) }],
      });
    }
    const shared = sealShared(context, recipients, place.channelId, PayloadKind.Welcome, body);
    return create(WelcomeDeliverySchema, {
      payload: shared.envelope,
      messageId,
      recipients: shared.wraps.map(({ address, wrap }) => ({ address: toProto(address), wrap })),
    });
  } finally {
    context.crypto.wipe(body);
  }
}

function extensionsProposal(state: GroupState, channel: ChannelExtension): ProposalInput {
  const extensionData = encodeChannelExtension(channel);
  const { extensions } = groupView(state);
  if (findExtension(extensions, QpcExtensionType.Channel) === undefined) throw new Error('no qpc.channel to replace');
  return {
    kind: 'groupContextExtensions',
    extensions: extensions.map((extension) =>
      extension.extensionType === QpcExtensionType.Channel ? { ...extension, extensionData } : extension,
    ),
  };
}

export function without(addresses: readonly DeviceAddress[], others: readonly DeviceAddress[]) {
  const known = new Set(others.map((address) => encodeHex(encodeAddress(address))));
  return addresses.filter((address) => !known.has(encodeHex(encodeAddress(address)))).map(toProto);
}

function keysWithout(keys: readonly Uint8Array[], others: readonly Uint8Array[]): Uint8Array[] {
  return keys.filter((key) => !others.some((other) => equal(key, other)));
}
