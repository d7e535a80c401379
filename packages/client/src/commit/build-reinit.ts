/**
 * The log entry by which a group goes over into the post-quantum suite on the same channel (RFC 9420 section 11.2,
 * PROTOCOL section 9; THREATS 31). The ReInit that closes the old group and the Welcome to the new one are one entry, so
 * nobody is ever between the two.
 *
 *   ReInit ─▶ MLS commit ─▶ the closed group ─▶ the new group, bound to it by its resumption PSK ─▶ Welcome
 *                └──────────────── one type-03 envelope under the old epoch's key ────────────────────┘
 */
import { create, toBinary } from '@bufbuild/protobuf';
import { EMPTY } from '@quicprochat/crypto';
import { ExporterLabel } from '@quicprochat/core';
import {
  createCommit,
  createReinitializedGroup,
  exportSecret,
  groupView,
  type GroupState,
  mergePendingCommit,
  type MlsContext,
  type PendingCommit,
  type Rejected,
  roster,
  type SuccessorParameters,
  wipePendingCommit,
} from '@quicprochat/mls';
import { SubmitCommitRequestSchema } from '@quicprochat/proto';
import { GROUP_OVERHEAD, sealTree } from '../message/index.ts';
import { bodyBytesMax } from '../message/padding.ts';
import { encodeCommitAuthenticatedData } from '../profile/authenticated-data.ts';
import { addressOf } from '../profile/member.ts';
import { GROUP_ID_BYTES, successorExtensions } from '../profile/validate-commit.ts';
import {
  BODY_MARGIN_BYTES,
  type BuiltEntry,
  CommitTooLarge,
  isTreeLarge,
  type LogPlace,
  REQUEST_BYTES_MAX,
  sealEntry,
  without,
} from './build-commit.ts';

/** What the new group is made from. */
export interface ReInitPlan {
  readonly cipherSuite: number;
  /** One's own leaf, and the KeyPackages of all other members, verified, in the new suite. */
  readonly successor: SuccessorParameters;
  /** As for a commit. */
  readonly treeInlineBytesMax?: number;
}

export interface BuiltReInit extends BuiltEntry {
  readonly pending: PendingCommit;
  /** The new group, in epoch 1. */
  readonly successor: GroupState;
}

/** @throws CommitTooLarge */
export function buildReInit(
  context: MlsContext,
  state: GroupState,
  place: LogPlace,
  { cipherSuite, successor: parameters, treeInlineBytesMax }: ReInitPlan,
  nowMs: number,
): BuiltReInit | Rejected {
  const extensions = successorExtensions(groupView(state));
  if (extensions === undefined) throw new Error('a group of ours has qpc.channel');
  const committed = createCommit(context, state, {
    proposals: [{ kind: 'reInit', groupId: context.random(GROUP_ID_BYTES), cipherSuite, extensions }],
    byReference: 'none',
    path: true,
    authenticatedData: encodeCommitAuthenticatedData({
      channelId: place.channelId,
      logHash: place.logHash,
      pqCommitment: undefined,
      checkpoint: place.checkpoint,
    }),
  });
  if (committed.kind === 'rejected') return committed;
  const { pending, commit } = committed;
  const closed = mergePendingCommit(context, committed.state, pending);
  const adds = parameters.keyPackages.map((keyPackage) => ({ keyPackage }));
  // The tree of the group that is left stands for what the maker's own leaf takes.
  const ratchetTreeInWelcome = !isTreeLarge(state, adds, treeInlineBytesMax);
  const created = createReinitializedGroup(context, closed, { ...parameters, ratchetTreeInWelcome });
  if (created.kind === 'rejected') {
    wipePendingCommit(context, committed.state, pending);
    return created;
  }
  const { state: successor, welcome, ratchetTree } = created;
  const tree = ratchetTree === undefined ? undefined : sealTree(context, place.channelId, ratchetTree);
  if (
    commit.length + welcome.length > bodyBytesMax(GROUP_OVERHEAD) - BODY_MARGIN_BYTES ||
    (ratchetTree !== undefined && tree === undefined)
  ) {
    wipePendingCommit(context, committed.state, pending);
    throw new CommitTooLarge();
  }
  const { payload, messageId } = sealEntry(context, place, nowMs, {
    proposals: [],
    commit,
    successor: { tree: tree?.reference, welcome },
  });
  const addresses = roster(successor).flatMap((member) => addressOf(member) ?? []);
  const before = roster(state).flatMap((member) => addressOf(member) ?? []);
  if (addresses.length !== before.length || without(addresses, before).length > 0) {
    throw new Error('a ReInit takes along exactly the members of the group');
  }
  const sendToken = exportSecret(context, successor, ExporterLabel.sendToken, place.channelId, 32);
  const request = toBinary(
    SubmitCommitRequestSchema,
    create(SubmitCommitRequestSchema, {
      channelId: place.channelId,
      after: place.position,
      messageId,
      payload,
      sendTokenHash: context.crypto.hash('sha256', sendToken),
    }),
  );
  context.crypto.wipe(sendToken);
  if (request.length > REQUEST_BYTES_MAX) {
    wipePendingCommit(context, committed.state, pending);
    throw new CommitTooLarge();
  }
  return {
    kind: 'built',
    state: committed.state,
    pending,
    successor,
    messageId,
    payload,
    request,
    ...(tree === undefined ? {} : { tree }),
    pqSalt: EMPTY,
    leftBehind: [],
  };
}
