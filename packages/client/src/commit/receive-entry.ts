/**
 * An entry of a commit log out of the inbox, in position order (PROTOCOL section 5):
 *
 *   position? ── known: passed over ── missing ones: ask to be added again
 *      └─ our own pending commit ─▶ merge
 *      └─ somebody else's ─▶ our pending one has lost ─▶ open, process ─▶ next epoch, or skipped by all alike
 *                                                              └─ ReInit ─▶ join the group that follows (join-group.ts)
 *   and each time: log_hash, roster_hash, what the committer saw of the log (THREATS 30, 32, 33)
 */
import { concat, decodeHex, encodeHex, equal } from '@quicprochat/crypto';
import { addressesEqual, logHashNext } from '@quicprochat/core';
import { fromBinary } from '@bufbuild/protobuf';
import { decodePendingCommit, memoryRows, mergePendingCommit, restoreGroup } from '@quicprochat/mls';
import { type LogEntry, type PqRenewal, SubmitCommitRequestSchema } from '@quicprochat/proto';
import type { Change, LostTrack } from '../engine.ts';
import { logPlaceOf } from '../epoch.ts';
import { joinSuccessor } from '../join-group.ts';
import { EnvelopeType, kindAgrees, openShared, PQ_SALT_LENGTH, type TreeReference } from '../message/index.ts';
import { addressOf } from '../profile/member.ts';
import type { StoredConversation, StoredPendingCommit } from '../store/index.ts';
import { noteSkipped, pauseSending } from '../watch-server.ts';
import { compareRoster, discardPending, dropGroup, enterEpoch, enterSuccessor, leaveGroup } from './new-epoch.ts';
import { openEntry } from './open-entry.ts';

export interface EntryRow {
  readonly channelId: Uint8Array;
  readonly messageId: Uint8Array;
  readonly data: Uint8Array;
  readonly entry: LogEntry;
  readonly pqRenewal: PqRenewal | undefined;
}

/** What the engine writes into a pending commit's `intent`. */
export interface PendingIntent {
  readonly kind: 'commit' | 'leave' | 'create' | 'reInit';
  /** pq_n from the commit on, when it renews it; hex. */
  readonly pqSalt?: string;
}

/** Returns the tree that has to be here before the entry can be taken in; then nothing was done. */
export function receiveEntry(change: Change, row: EntryRow): TreeReference | undefined {
  const { store, engine } = change;
  const { channelId, entry } = row;
  const conversation = store.conversations.get(channelId);
  const state = change.group(channelId);
  // Of a channel we have no group of we learn by a Welcome, which says where to begin.
  if (conversation === undefined || state === undefined) return undefined;
  const { position } = entry;
  if (position <= conversation.position) {
    if (position === conversation.position && !equal(entry.logHash, conversation.logHash)) {
      tellLogMismatch(change, conversation, row, 'the server shows two different logs');
    }
    return undefined;
  }
  if (position > conversation.position + 1n) {
    loseTrack(change, conversation, 'certain', 'entries of the log are missing');
    return undefined;
  }

  const pending = store.conversations.pendingCommit(channelId);
  if (pending !== undefined && equal(pending.messageId, row.messageId) && equal(payloadOf(pending), row.data)) {
    mergePending(change, conversation, pending, entry);
    return undefined;
  }
  if (pending !== undefined) discardPending(change, channelId, pending.messageId);
  if (isBeingCreated(conversation)) {
    // The other side began the conversation first: theirs counts, and its Welcome is on the way.
    dropGroup(change, conversation);
    return undefined;
  }

  const place = logPlaceOf(engine, conversation);
  const outcome = openEntry(engine.mls(), state, place, row.data);
  const wanted = outcome.kind === 'commit' ? outcome.successor?.tree : undefined;
  if (wanted !== undefined && !engine.trees.has(encodeHex(wanted.blobId))) return wanted;
  const advanced = advance(change, conversation, row);
  switch (outcome.kind) {
    case 'skipped':
      store.conversations.save(advanced);
      noteSkipped(change, 'skipped-entry', channelId, row.data, outcome.reason);
      compareRoster(change, advanced, state, entry.rosterHash);
      // Did somebody apply an entry that we skipped? A claim about one that is yet to come is garbage like the rest.
      if (outcome.claimedPosition !== undefined && outcome.claimedPosition <= conversation.position) {
        loseTrack(change, advanced, 'suspected', 'somebody is in an epoch this device never reached');
      }
      return undefined;
    case 'proposals':
      change.setGroup(channelId, outcome.state);
      store.conversations.save(advanced);
      compareRoster(change, advanced, outcome.state, entry.rosterHash);
      change.after(() => engine.reactions.dutiesChanged(channelId));
      return undefined;
    case 'lost-own-commit':
      store.conversations.save(advanced);
      loseTrack(change, advanced, 'certain', 'a commit of this device was accepted, but what it led to is lost');
      return undefined;
    case 'commit': {
      const { effects, authenticatedData, successor } = outcome;
      const committer = addressOf(effects.committer);
      let current = advanced;
      store.conversations.save(current);
      if (!equal(authenticatedData.logHash, place.logHash)) {
        current = tellLogMismatch(change, current, row, 'the committer of a change saw another log than this device');
      }
      current = engine.transparency.witness(change, current, authenticatedData.checkpoint);
      if (successor !== undefined) {
        const joined = joinSuccessor(change, channelId, outcome.state, effects.committer, successor);
        if (joined.kind === 'refused') {
          // It is valid, so the group has moved for everyone; but this device was not let in. Closed it is here, too: a
          // commit that the others skip, because it comes after it, must not lead this device elsewhere.
          change.setGroup(channelId, outcome.state);
          noteSkipped(change, 'welcome-refused', channelId, row.data, joined.reason);
          const waiting: StoredConversation = { ...current, state: 'awaiting-welcome' };
          store.conversations.save(waiting);
          loseTrack(change, waiting, 'certain', 'the group has moved into another suite without this device');
          return undefined;
        }
        enterSuccessor(change, {
          conversation: current,
          closed: outcome.state,
          successor: joined.state,
          keyPackage: joined.keyPackage,
          committer,
          rosterHash: entry.rosterHash,
        });
        return undefined;
      }
      if (effects.selfRemoved) {
        const addedAgain = effects.added.some((member) => {
          const address = addressOf(member);
          return address !== undefined && addressesEqual(address, engine.address);
        });
        // Removed and added in one commit: somebody answered a request of ours, and the Welcome comes next.
        if (addedAgain) dropGroup(change, { ...current, state: 'awaiting-welcome' });
        else leaveGroup(change, current, committer);
        return undefined;
      }
      const pqSalt =
        authenticatedData.pqCommitment === undefined
          ? undefined
          : openRenewal(change, row, authenticatedData.pqCommitment);
      enterEpoch(change, {
        conversation: current,
        before: state,
        next: outcome.state,
        pqSalt,
        committer,
        rosterHash: entry.rosterHash,
      });
      // The commit is valid, so the epoch has begun for everyone; but nobody told us how to read in it.
      if (authenticatedData.pqCommitment !== undefined && pqSalt === undefined) {
        loseTrack(change, current, 'certain', 'the renewed key of the channel did not reach this device');
      }
      return undefined;
    }
  }
}

/**
 * Our pending entry is in the log: its state becomes ours.
 * @param entry as the server gave it, with its answer or in the inbox
 */
export function mergePending(
  change: Change,
  conversation: StoredConversation,
  pending: StoredPendingCommit,
  entry: LogEntry,
): void {
  const { engine, store } = change;
  const { channelId } = conversation;
  const intent = JSON.parse(pending.intent) as PendingIntent;
  const position = pending.after + 1n;
  const payload = payloadOf(pending);
  // Before the pending commit goes, and these with it.
  const successorRows = intent.kind === 'reInit' ? [...store.successorRows.reader(channelId).list('')] : [];
  const logHash = logHashNext(engine.crypto, conversation.logHash, position, engine.crypto.hash('sha256', payload));
  let current: StoredConversation = { ...conversation, position, logHash, rosterHash: entry.rosterHash };
  if (intent.kind === 'create') current = { ...current, state: 'active' };
  if (intent.kind === 'leave') current = { ...current, state: 'leaving' };
  store.conversations.save(current);
  store.conversations.clearPendingCommit(channelId);
  if (!equal(logHash, entry.logHash)) {
    current = tellLogMismatch(
      change,
      current,
      { channelId, messageId: pending.messageId, data: payload, entry, pqRenewal: undefined },
      'the server shows another log than the one this device wrote to',
    );
  }
  const before = change.group(channelId);
  if (before === undefined) throw new Error('a pending commit has no group');
  if (pending.pending.length > 0) {
    const context = engine.mls();
    const next = mergePendingCommit(context, before, decodePendingCommit(context, pending.pending));
    if (intent.kind === 'reInit') {
      enterSuccessor(change, {
        conversation: current,
        closed: next,
        successor: restoreGroup(context, memoryRows(successorRows)),
        keyPackage: undefined,
        committer: engine.address,
        rosterHash: entry.rosterHash,
      });
      change.after(() => {
        for (const { bytes } of successorRows) engine.crypto.wipe(bytes);
      });
    } else
      enterEpoch(change, {
        conversation: current,
        before,
        next,
        pqSalt: intent.pqSalt === undefined ? undefined : decodeHex(intent.pqSalt),
        committer: engine.address,
        rosterHash: entry.rosterHash,
      });
  } else {
    compareRoster(change, current, before, entry.rosterHash);
  }
  change.after(() => engine.settlements.get(encodeHex(pending.messageId))?.({ kind: 'accepted' }));
}

/** A direct conversation whose first commit, ours, is still to be decided. */
export function isBeingCreated(conversation: StoredConversation): boolean {
  return (
    conversation.kind === 'direct' &&
    conversation.state === 'awaiting-welcome' &&
    conversation.groupId !== undefined &&
    conversation.position === 0n
  );
}

/** The payload that a pending commit submits. */
function payloadOf(pending: StoredPendingCommit): Uint8Array {
  return fromBinary(SubmitCommitRequestSchema, pending.request).payload;
}

/** This device is out of step with its group, for sure or by the look of it: see rejoin.ts. */
export function loseTrack(
  change: Change,
  { channelId, epochPosition }: StoredConversation,
  certainty: LostTrack,
  reason: string,
): void {
  const { engine } = change;
  engine.ports.log.warn('a group may have moved on without this device', { certainty, reason });
  change.after(() => engine.reactions.trackLost(channelId, certainty, epochPosition));
}

function advance(change: Change, conversation: StoredConversation, row: EntryRow): StoredConversation {
  const { crypto } = change.engine;
  const { position, logHash: claimed, rosterHash } = row.entry;
  const logHash = logHashNext(crypto, conversation.logHash, position, crypto.hash('sha256', row.data));
  const advanced = { ...conversation, position, logHash, rosterHash };
  if (equal(logHash, claimed)) return advanced;
  return tellLogMismatch(change, advanced, row, 'the server’s log does not follow from what it delivered before');
}

function tellLogMismatch(
  change: Change,
  conversation: StoredConversation,
  row: EntryRow,
  reason: string,
): StoredConversation {
  const { logHash, rosterHash } = row.entry;
  const evidence = concat(conversation.logHash, logHash, rosterHash, change.engine.crypto.hash('sha256', row.data));
  return pauseSending(change, conversation, 'log', 'log-mismatch', reason, evidence);
}

/** pq_n that a commit brings along, from the type-02 envelope whose commitment it names. */
function openRenewal(change: Change, row: EntryRow, expectedCommitment: Uint8Array): Uint8Array | undefined {
  const { engine, store } = change;
  const { pqRenewal } = row;
  if (pqRenewal === undefined || pqRenewal.wrap.length === 0) return undefined;
  for (const { privateKey } of store.keys.hybridKeys()) {
    const opened = openShared(
      engine.crypto,
      {
        address: engine.address,
        hybridPrivateKey: privateKey,
        channelId: row.channelId,
        wrap: pqRenewal.wrap,
        expectedCommitment,
      },
      pqRenewal.envelope,
    );
    if (opened.kind === 'refused') continue;
    if (!kindAgrees(opened.payloadKind, EnvelopeType.Shared, 'pqRenewal') || opened.body.length !== PQ_SALT_LENGTH) {
      return undefined;
    }
    return opened.body;
  }
  return undefined;
}
