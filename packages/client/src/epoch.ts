/**
 * Where a conversation stands in its channel's log, and what an epoch brings: the key of its type-03 envelopes (PROTOCOL
 * section 4), the roster by which the server is watched (section 5).
 */
import { EMPTY, encodeHex } from '@quicprochat/crypto';
import { type DeviceAddress, ExporterLabel, logHashGenesis, rosterHash } from '@quicprochat/core';
import { exportSecret, groupView, type GroupState, roster } from '@quicprochat/mls';
import type { LogPlace } from './commit/build-commit.ts';
import type { Change, Engine } from './engine.ts';
import { ClientError } from './errors.ts';
import { deriveGroupKey } from './message/index.ts';
import { addressOf } from './profile/member.ts';
import { isPostQuantum } from './profile/suites.ts';
import type { StoredConversation } from './store/index.ts';

/** Past epochs whose messages can still be read, and for how long (PROTOCOL section 9). */
const PAST_EPOCHS_MAX = 5;
const PAST_EPOCH_MS_MAX = 7 * 86_400_000;

/** The conversation as stored. @throws ClientError `unknown-conversation` */
export function conversationOf(engine: Engine, channelId: Uint8Array): StoredConversation {
  const conversation = engine.store.conversations.get(channelId);
  if (conversation !== undefined) return conversation;
  throw new ClientError('usage', 'unknown-conversation', 'there is no such conversation', {
    hint: 'See qpc group list.',
  });
}

/** @throws ClientError `bug` when the conversation has no group */
export function logPlaceOf(engine: Engine, conversation: StoredConversation): LogPlace {
  const { channelId, position, logHash, epochPosition } = conversation;
  const key = engine.store.conversations.envelopeKey(channelId, epochPosition);
  if (key === undefined) throw new ClientError('bug', 'bug', 'the key of the current epoch is missing');
  const pqSalt = engine.store.conversations.pqSalt(channelId, epochPosition) ?? EMPTY;
  const { checkpoint } = engine.transparency;
  return { channelId, position, logHash, epochPosition, envelopeKey: key.key, pqSalt, checkpoint };
}

/**
 * Begins an epoch: hands over its state, stores its envelope key and its place.
 * @param conversation with the position and log hash of the entry that began it
 * @param pqSalt when it changes with this epoch; empty from a post-quantum suite's first epoch on
 * @returns the conversation as saved
 */
export function beginEpoch(
  change: Change,
  conversation: StoredConversation,
  state: GroupState,
  pqSalt: Uint8Array | undefined,
): StoredConversation {
  const { engine, store } = change;
  const { channelId, position } = conversation;
  const view = groupView(state);
  const saved: StoredConversation = {
    ...conversation,
    epochPosition: position,
    groupId: view.groupId,
    suite: view.cipherSuite,
    epoch: view.epoch,
    memberCount: identityCount(state),
  };
  store.conversations.save(saved);
  if (isPostQuantum(view.cipherSuite) && !wasPostQuantum(engine, channelId)) {
    store.settings.set(postQuantumKey(channelId), '1');
  }
  if (pqSalt !== undefined) store.conversations.setPqSalt(channelId, position, pqSalt);
  const context = engine.mls();
  const exporterSecret = exportSecret(context, state, ExporterLabel.envelope, channelId, 32);
  const salt = store.conversations.pqSalt(channelId, position) ?? EMPTY;
  const key = deriveGroupKey(context.crypto, exporterSecret, salt);
  context.crypto.wipe(exporterSecret);
  store.conversations.beginEpoch(channelId, { position, epoch: view.epoch, key }, engine.nowMs());
  store.conversations.deleteEnvelopeKeys(channelId, PAST_EPOCHS_MAX, engine.nowMs() - PAST_EPOCH_MS_MAX);
  store.conversations.deletePqSaltsBefore(channelId, position);
  const predecessor = store.conversations.predecessor(channelId);
  const oldest = store.conversations.oldestEnvelopeKey(channelId) ?? position;
  if (predecessor !== undefined && oldest >= predecessor.position) change.forgetPredecessor(channelId);
  return saved;
}

/**
 * Whether this channel ever had a post-quantum group here, also before this device was removed from it. Such a channel
 * never goes back to a classical suite: not by a ReInit (P27), and not by somebody's Welcome either.
 */
export function wasPostQuantum({ store }: Engine, channelId: Uint8Array): boolean {
  return store.settings.get(postQuantumKey(channelId)) !== undefined;
}

function postQuantumKey(channelId: Uint8Array): string {
  return `post-quantum/${encodeHex(channelId)}`;
}

/** Groups that a ReInit closed are kept no longer than past epochs, also where no further epoch begins. */
export function forgetPredecessors(engine: Engine): void {
  const beforeMs = engine.nowMs() - PAST_EPOCH_MS_MAX;
  for (const channelId of engine.store.conversations.predecessorsClosedBefore(beforeMs)) {
    engine.change((change) => {
      change.forgetPredecessor(channelId);
      change.store.conversations.deleteEnvelopeKeys(channelId, PAST_EPOCHS_MAX, beforeMs);
    });
  }
}

/** Device addresses of a group's members, in order of leaf index. */
export function addressesOf(state: GroupState): readonly DeviceAddress[] {
  return roster(state).flatMap((member) => addressOf(member) ?? []);
}

export function rosterHashOf(engine: Engine, state: GroupState): Uint8Array {
  return rosterHash(engine.crypto, addressesOf(state));
}

function identityCount(state: GroupState): number {
  return new Set(addressesOf(state).map(({ identityKey }) => identityKey.join())).size;
}

/** A conversation before anything is known of it. */
export function blankConversation(engine: Engine, channelId: Uint8Array): StoredConversation {
  return {
    channelId,
    kind: 'group',
    state: 'awaiting-welcome',
    paused: undefined,
    name: '',
    nameVersion: 0n,
    peerIdentity: undefined,
    position: 0n,
    logHash: logHashGenesis(engine.crypto, channelId),
    rosterHash: undefined,
    epochPosition: 0n,
    groupId: undefined,
    suite: undefined,
    epoch: undefined,
    memberCount: 0,
    deviceCounter: 0n,
    previousHash: undefined,
    invitedBy: undefined,
    isNew: false,
    createdAtMs: engine.nowMs(),
    lastMessageAtMs: undefined,
  };
}
