/**
 * What follows from a commit, whoever made it: the next epoch begins, what changed is told, what waited for the old epoch
 * is sorted out (PROTOCOL sections 5 and 9).
 */
import { EMPTY, encodeHex, equal } from '@quicprochat/crypto';
import { addressesEqual, type DeviceAddress } from '@quicprochat/core';
import { groupView, type GroupState, type Member, pendingProposals, roster } from '@quicprochat/mls';
import type { Change } from '../engine.ts';
import { beginEpoch, rosterHashOf } from '../epoch.ts';
import { failEntry } from '../deliver-outbox.ts';
import { addressOf } from '../profile/member.ts';
import { nameOfSuite } from '../profile/suites.ts';
import { channelOf } from '../profile/validate-commit.ts';
import type { StoredConversation, StoredKeyPackage } from '../store/index.ts';
import { conversationView, nameOf } from '../views.ts';
import { trustTrack, updateDueKey } from '../track.ts';
import { pauseSending, unpauseSending } from '../watch-server.ts';

export interface NewEpoch {
  /** With the position and log hash of the entry. */
  readonly conversation: StoredConversation;
  readonly before: GroupState;
  readonly next: GroupState;
  /** When it changes with this epoch. */
  readonly pqSalt: Uint8Array | undefined;
  readonly committer: DeviceAddress | undefined;
  /** roster_hash the server gave with the entry. */
  readonly rosterHash: Uint8Array | undefined;
}

export function enterEpoch(
  change: Change,
  { conversation, before, next, pqSalt, committer, rosterHash }: NewEpoch,
): void {
  const { engine, store } = change;
  const { channelId } = conversation;
  // Names are looked up in the group as it was: those who left are only there.
  const name = (address: DeviceAddress | undefined): string =>
    address === undefined ? '' : nameOf(engine, address.identityKey, channelId);
  const by = name(committer);
  const membersBefore = identities(before);
  const membersAfter = identities(next);
  const left = leavers(before);
  const id = encodeHex(channelId);
  for (const [key, address] of membersBefore) {
    if (membersAfter.has(key)) continue;
    const username = name(address);
    change.emit(
      left.has(key)
        ? { type: 'member-left', conversationId: id, username }
        : { type: 'member-removed', conversationId: id, username, by },
    );
  }

  change.setGroup(channelId, next);
  let saved = beginEpoch(change, { ...conversation, rosterHash }, next, pqSalt);
  for (const [key, address] of membersAfter) {
    if (membersBefore.has(key)) continue;
    change.emit(() => ({ type: 'member-added', conversationId: id, username: name(address), by }));
  }
  tellAdminChanges(change, id, before, next, name);
  settleRejoinRequests(change, channelId, before, next);
  saved = forgetGoneMembers(change, saved, membersAfter);
  saved = compareRoster(change, saved, next, rosterHash);

  // Somebody else's commit that we could follow: whoever claimed that we were left behind was wrong.
  if (committer !== undefined && !addressesEqual(committer, engine.address)) trustTrack(change, channelId);

  store.outbox.dropUnsentProtection(channelId, saved.epochPosition);
  change.after(() => {
    engine.reactions.outboxChanged();
    engine.reactions.dutiesChanged(channelId);
    if ([...membersAfter.keys()].some((key) => !membersBefore.has(key))) engine.reactions.membersChanged(channelId);
  });
}

export interface NewSuccessor {
  /** With the position and log hash of the entry. */
  readonly conversation: StoredConversation;
  /** The group as the ReInit left it. */
  readonly closed: GroupState;
  readonly successor: GroupState;
  /** By which this device came in; undefined when it made the new group. */
  readonly keyPackage: Pick<StoredKeyPackage, 'keyPackageRef' | 'lastResort'> | undefined;
  readonly committer: DeviceAddress | undefined;
  readonly rosterHash: Uint8Array | undefined;
}

/**
 * A ReInit: the same people go on in another group on the same channel. Positions, history, counters and open requests to
 * be added again stay as they are; what is still under way in the old group is read for as long as past epochs are.
 */
export function enterSuccessor(
  change: Change,
  { conversation, closed, successor, keyPackage, committer, rosterHash }: NewSuccessor,
): void {
  const { engine, store } = change;
  const { channelId, position } = conversation;
  change.succeedGroup(channelId, closed, successor, position);
  const saved = compareRoster(
    change,
    // No salt in a post-quantum suite: the suite itself is what the salt was for.
    beginEpoch(change, { ...conversation, rosterHash }, successor, EMPTY),
    successor,
    rosterHash,
  );
  if (keyPackage !== undefined) {
    store.keys.keyPackageUsed(keyPackage.keyPackageRef, engine.nowMs());
    if (keyPackage.lastResort) store.settings.set(updateDueKey(channelId), '1');
    trustTrack(change, channelId);
  }
  const { cipherSuite } = groupView(successor);
  change.emit(() => ({
    type: 'suite-changed',
    conversationId: encodeHex(channelId),
    suiteName: nameOfSuite(cipherSuite),
    by: committer === undefined ? '' : nameOf(engine, committer.identityKey, channelId),
  }));
  store.outbox.dropUnsentProtection(channelId, saved.epochPosition);
  change.after(() => {
    engine.reactions.outboxChanged();
    engine.reactions.dutiesChanged(channelId);
    if (keyPackage !== undefined) engine.reactions.keysUsed();
  });
}

/** A commit took us out: the group's secrets go, the history stays. */
export function leaveGroup(change: Change, conversation: StoredConversation, by: DeviceAddress | undefined): void {
  const { engine, store } = change;
  const { channelId } = conversation;
  const byName = by === undefined ? '' : nameOf(engine, by.identityKey, channelId);
  const before = change.group(channelId);
  const asked = conversation.state === 'leaving' || (before !== undefined && leavers(before).has(ownKey(change)));
  for (const entry of store.outbox.list(channelId)) failEntry(change, entry, 'you are no longer in this conversation');
  dropGroup(change, { ...conversation, state: asked ? 'left' : 'removed', paused: undefined });
  change.emit(() => ({
    type: 'removed',
    conversation: conversationView(engine, store.conversations.get(channelId) ?? conversation),
    by: byName,
  }));
}

/** Deletes the group state of a conversation and all that goes with it; the conversation stays as given. */
export function dropGroup(change: Change, conversation: StoredConversation): StoredConversation {
  const { store, engine } = change;
  const { channelId } = conversation;
  const saved = { ...conversation, groupId: undefined, suite: undefined, epoch: undefined, memberCount: 0 };
  if (change.group(channelId) !== undefined) change.replaceGroup(channelId, undefined);
  change.forgetPredecessor(channelId);
  store.conversations.save(saved);
  store.conversations.clearEnvelopeKeys(channelId);
  const pending = store.conversations.pendingCommit(channelId);
  if (pending !== undefined) discardPending(change, channelId, pending.messageId);
  engine.ports.log.debug('a group state was deleted');
  return saved;
}

/** The pending commit has lost: somebody else's entry has its place. */
export function discardPending(change: Change, channelId: Uint8Array, messageId: Uint8Array): void {
  change.store.conversations.clearPendingCommit(channelId);
  change.after(() => change.engine.settlements.get(encodeHex(messageId))?.({ kind: 'lost' }));
}

/** THREATS 33: what the server says of the roster against the tree; a difference pauses sending until it is repaired. */
export function compareRoster(
  change: Change,
  conversation: StoredConversation,
  state: GroupState,
  rosterHash: Uint8Array | undefined,
): StoredConversation {
  if (rosterHash === undefined) return conversation;
  if (equal(rosterHash, rosterHashOf(change.engine, state))) return unpauseSending(change, conversation, 'roster');
  const paused = pauseSending(
    change,
    conversation,
    'roster',
    'roster-mismatch',
    'the server delivers to other devices than the group has',
    rosterHash,
  );
  change.after(() => change.engine.reactions.dutiesChanged(conversation.channelId));
  return paused;
}

/** Identities that asked to leave in this epoch, in hex. */
function leavers(state: GroupState): ReadonlySet<string> {
  const members = new Map(roster(state).map((member) => [member.leafIndex as number, member]));
  const keys = pendingProposals(state).flatMap(({ proposal, sender }) => {
    if (proposal.kind !== 'remove' || sender.kind !== 'member' || sender.leafIndex !== proposal.removed) return [];
    const member = members.get(proposal.removed);
    const address = member === undefined ? undefined : addressOf(member);
    return address === undefined ? [] : [encodeHex(address.identityKey)];
  });
  return new Set(keys);
}

function identities(state: GroupState): ReadonlyMap<string, DeviceAddress> {
  return new Map(
    roster(state).flatMap((member) => {
      const address = addressOf(member);
      return address === undefined ? [] : [[encodeHex(address.identityKey), address] as const];
    }),
  );
}

function tellAdminChanges(
  change: Change,
  conversationId: string,
  before: GroupState,
  next: GroupState,
  name: (address: DeviceAddress) => string,
): void {
  const adminsBefore = adminSet(before);
  const adminsAfter = adminSet(next);
  for (const [key, address] of identities(next)) {
    const admin = adminsAfter.has(key);
    if (admin === adminsBefore.has(key)) continue;
    change.emit(() => ({ type: 'admin-changed', conversationId, username: name(address), admin }));
  }
}

function adminSet(state: GroupState): ReadonlySet<string> {
  return new Set((channelOf(groupView(state))?.admins ?? []).map(encodeHex));
}

/** A request is answered when its device has a new leaf, or none any more. */
function settleRejoinRequests(change: Change, channelId: Uint8Array, before: GroupState, next: GroupState): void {
  for (const { device } of change.store.rejoinRequests.open(channelId)) {
    const old = memberAt(before, device);
    const now = memberAt(next, device);
    if (now === undefined || old === undefined || !equal(old.encryptionKey, now.encryptionKey)) {
      change.store.rejoinRequests.markHandled(channelId, device);
    }
  }
}

export function memberAt(state: GroupState, device: DeviceAddress): Member | undefined {
  return roster(state).find((member) => {
    const address = addressOf(member);
    return address !== undefined && addressesEqual(address, device);
  });
}

function forgetGoneMembers(
  change: Change,
  conversation: StoredConversation,
  members: ReadonlyMap<string, DeviceAddress>,
): StoredConversation {
  const { store } = change;
  let failed = false;
  for (const check of store.conversations.memberChecks(conversation.channelId)) {
    if (!members.has(encodeHex(check.identityKey))) {
      store.conversations.deleteMemberCheck(conversation.channelId, check.identityKey, check.deviceId);
    } else if (check.outcome === 'failed') failed = true;
  }
  return failed ? conversation : unpauseSending(change, conversation, 'member');
}

function ownKey(change: Change): string {
  return encodeHex(change.engine.self.identityKey);
}
