/**
 * The way of a message into this device, the mirror image of send-message.ts and the one function to read:
 *
 *   inbox row ─▶ own copy? matched by message id ─────────────────────────────────────────────┐
 *       │─▶ log entry? commit/receive-entry.ts                                                │
 *       │─▶ type 01 or 02? a Welcome (join-group.ts) or a rejoin request (rejoin.ts)          ├─ one transaction:
 *       └─▶ type 03: open envelope ─▶ MLS unprotect ─▶ Content ─▶ seen before? ─▶ in order? ──┤  state, message,
 *                                                                                             │  cursor
 *   inbox.ts acknowledges, only then ◀────────────────────────────────────────────────────────┘
 *
 * Nothing a row contains can stop the inbox: what cannot be used is passed over and the reason noted (THREATS 3, 12, 30).
 */
import { encodeHex, equal } from '@quicprochat/crypto';
import { addressesEqual, type DeviceAddress } from '@quicprochat/core';
import { groupView, processMessage } from '@quicprochat/mls';
import { loseTrack, receiveEntry } from './commit/receive-entry.ts';
import type { Change, Engine } from './engine.ts';
import { toClientError } from './errors.ts';
import { decodeRow, encodeRow, type InboxRow } from './inbox-row.ts';
import { openForDevice, receiveWelcome } from './join-group.ts';
import {
  type Content,
  contentHash,
  encodeTreeReference,
  EnvelopeType,
  envelopeType,
  groupPosition,
  type GroupInfo,
  kindAgrees,
  openGroup,
  parseContent,
  PayloadKind,
  type TreeReference,
} from './message/index.ts';
import { isMessageAuthenticatedData } from './profile/authenticated-data.ts';
import { addressOf } from './profile/member.ts';
import { channelOf, isAdmin } from './profile/validate-commit.ts';
import { receiveRejoinRequest } from './rejoin.ts';
import { LocalStateError, type StoredConversation } from './store/index.ts';
import { keepWhileDoubted, trustTrack } from './track.ts';
import { nameOf, storedMessageView } from './views.ts';
import { noteSkipped } from './watch-server.ts';

/**
 * Takes in rows in the order of the inbox, all in one transaction with the cursor behind them.
 * @throws ClientError when the profile cannot be written; then nothing happened
 */
export function receiveMessages(engine: Engine, rows: readonly InboxRow[]): void {
  const cursor = engine.inboxCursor;
  const fresh = rows.filter((row) => row.seq > cursor);
  const last = fresh.at(-1);
  if (last === undefined) return;
  // Copies of our own messages whose sending is settled: seeing them again after a crash would be no harm.
  if (fresh.every((row) => row.entry === undefined && isSettledCopy(engine, row))) {
    engine.inboxPassed = last.seq;
    return;
  }
  try {
    engine.change((change) => {
      for (const row of fresh) receiveOrHold(change, row);
      change.store.inbox.advance(last.seq);
    });
  } catch (error) {
    if (error instanceof LocalStateError || engine.closed) throw toClientError(error);
    // A fault of ours in one row must not take the others with it, nor come back for ever.
    for (const row of fresh) receiveAlone(engine, row);
  }
}

function receiveAlone(engine: Engine, row: InboxRow): void {
  try {
    engine.change((change) => {
      receiveOrHold(change, row);
      change.store.inbox.advance(row.seq);
    });
  } catch (error) {
    if (error instanceof LocalStateError || engine.closed) throw toClientError(error);
    engine.ports.log.warn('a row of the inbox made the client fail', { error: String(error).slice(0, 200) });
    engine.change((change) => {
      noteSkipped(change, 'skipped-envelope', row.channelId, row.data, 'this client has a fault');
      change.store.inbox.advance(row.seq);
    });
  }
}

/** One row; it waits where its channel waits for a tree (transfer-trees.ts), so that a channel's rows keep their order. */
function receiveOrHold(change: Change, row: InboxRow): void {
  const { trees } = change.store;
  const { channelId } = row;
  const isHeld = trees.wanted(channelId) !== undefined;
  const wanted = isHeld ? undefined : receiveMessage(change, row);
  if (!isHeld && wanted === undefined) return;
  if (wanted !== undefined) {
    trees.hold(channelId, encodeTreeReference(wanted), change.engine.nowMs());
    change.after(() => change.engine.reactions.treeWanted());
  }
  trees.addRow(channelId, encodeRow(row));
}

/** Takes in what waited in a channel, now that its tree is in `engine.trees`, or is known not to be had. */
export function receiveHeld(engine: Engine, channelId: Uint8Array): void {
  for (const { id, row: encoded } of engine.store.trees.rows(channelId)) {
    const row = decodeRow(encoded);
    let wanted: TreeReference | undefined;
    try {
      wanted = engine.change((change) => {
        const tree = receiveMessage(change, row);
        if (tree === undefined) change.store.trees.removeRow(id);
        else change.store.trees.hold(channelId, encodeTreeReference(tree), engine.nowMs());
        return tree;
      });
    } catch (error) {
      if (error instanceof LocalStateError || engine.closed) throw toClientError(error);
      engine.ports.log.warn('a row of the inbox made the client fail', { error: String(error).slice(0, 200) });
      engine.change((change) => {
        noteSkipped(change, 'skipped-envelope', channelId, row.data, 'this client has a fault');
        change.store.trees.removeRow(id);
      });
    }
    // It asks for another one, and what is behind it goes on waiting.
    if (wanted !== undefined) return;
  }
  engine.change((change) => change.store.trees.release(channelId));
}

/** One row. Returns the tree it needs first; then nothing was done. Throws only for faults of our own or of the disk. */
function receiveMessage(change: Change, row: InboxRow): TreeReference | undefined {
  const { channelId, data, messageId, wrap, entry, pqRenewal } = row;
  const skip = (reason: string): void => noteSkipped(change, 'skipped-envelope', channelId, data, reason);
  if (entry !== undefined) {
    return receiveEntry(change, { channelId, messageId, data, entry, pqRenewal });
  }
  if (isOwnCopy(change, row)) return undefined;
  switch (envelopeType(data)) {
    case EnvelopeType.Group:
      receiveApplication(change, row, skip);
      return undefined;
    case EnvelopeType.Direct:
    case EnvelopeType.Shared: {
      const opened = openForDevice(change, { channelId, data, wrap });
      if (opened.kind === 'refused') skip(opened.reason);
      else if (opened.payloadKind === PayloadKind.Welcome) {
        return receiveWelcome(change, { channelId, data, wrap }, opened.body);
      } else if (opened.payloadKind === PayloadKind.Rejoin) receiveRejoinRequest(change, channelId, opened.body, skip);
      else skip('this client does not know what it is');
      return undefined;
    }
    case undefined:
      skip('it is not an envelope');
      return undefined;
  }
}

/**
 * The copy of our own message that the server delivers to the whole roster: proof that it is on disk there. Known by its
 * message id, acknowledged, never decrypted.
 */
function isOwnCopy(change: Change, { channelId, messageId, acceptedAtMs }: InboxRow): boolean {
  const { store, engine } = change;
  const queued = store.outbox.list(channelId).find((entry) => equalIds(entry.protection?.messageId, messageId));
  if (queued !== undefined) {
    // The answer to our request was lost, or is behind this row on its way here.
    store.outbox.remove(queued.id);
    keepWhileDoubted(change, queued);
    const { localId } = queued;
    if (localId !== undefined) {
      store.messages.setState(localId, { state: 'sent', messageId, acceptedAtMs: acceptedAtMs ?? engine.nowMs() });
      change.emit(() => ({ type: 'message-state', message: storedMessageView(engine, localId) }));
    }
    return true;
  }
  return store.messages.isOwn(channelId, messageId);
}

function isSettledCopy({ store }: Engine, { channelId, messageId }: InboxRow): boolean {
  if (!store.messages.isOwn(channelId, messageId)) return false;
  return !store.outbox.list(channelId).some(({ protection }) => equalIds(protection?.messageId, messageId));
}

function receiveApplication(change: Change, row: InboxRow, skip: (reason: string) => void): void {
  const { engine, store } = change;
  const { channelId, data } = row;
  const conversation = store.conversations.get(channelId);
  const position = groupPosition(data);
  const predecessor = store.conversations.predecessor(channelId);
  // Said in the group that was there before a ReInit, by somebody who had not heard of it.
  const isLate = predecessor !== undefined && position !== undefined && position < predecessor.position;
  const state = isLate ? change.predecessor(channelId) : change.group(channelId);
  // Before its Welcome, and after it was removed, a device has no use for what the others say.
  if (conversation === undefined || state === undefined) return;
  if (position === undefined) return skip('it is malformed');
  const key = store.conversations.envelopeKey(channelId, position);
  if (key === undefined) {
    if (position <= conversation.epochPosition) return skip('its epoch is over, or was before this device joined');
    skip('it is of an epoch this device never reached');
    const certainty = position <= conversation.position ? 'suspected' : 'unchecked';
    return loseTrack(change, conversation, certainty, 'somebody is in an epoch this device never reached');
  }
  const opened = openGroup(engine.crypto, { key: key.key, channelId }, data);
  if (opened.kind === 'refused') return skip(`its envelope is ${opened.reason}`);
  if (!kindAgrees(opened.payloadKind, EnvelopeType.Group, 'message', opened.body)) {
    return skip('its contents are of another kind');
  }

  const outcome = processMessage(engine.mls(), state, opened.body);
  if (outcome.kind === 'rejected') return skip(`${outcome.rule} ${outcome.name}: ${outcome.reason}`);
  if (outcome.kind === 'own') return;
  if (outcome.kind !== 'application') return skip('its contents are of another kind');
  // From here on the key of this generation is used up, whatever becomes of the content.
  if (isLate) change.setPredecessor(channelId, outcome.state);
  else change.setGroup(channelId, outcome.state);
  if (!isMessageAuthenticatedData(outcome.authenticatedData, channelId)) return skip('it is for another channel');
  const sender = addressOf(outcome.sender);
  if (sender === undefined) return skip('its sender is not one of ours');
  // Who was left outside hears the old group for a while, and is no nearer to the new one for it.
  const isOurEpoch = position === conversation.epochPosition && conversation.state !== 'awaiting-welcome';
  if (isOurEpoch && !addressesEqual(sender, engine.address)) trustTrack(change, channelId);
  const parsed = parseContent(outcome.data);
  if (parsed.kind === 'malformed') return skip('what it says is malformed');
  const { content } = parsed;
  const hash = contentHash(engine.crypto, outcome.data);
  if (parsed.kind === 'content' && parsed.content.body.kind === 'groupInfo') {
    if (!store.messages.rememberContent(channelId, sender.identityKey, content.contentId)) return;
    checkOrder(change, conversation, sender, content, hash);
    receiveGroupInfo(change, conversation, sender, parsed.content.body.groupInfo);
    return;
  }
  const text = parsed.kind === 'content' && parsed.content.body.kind === 'text' ? parsed.content.body : undefined;
  const localId = store.messages.insert({
    channelId,
    senderIdentity: sender.identityKey,
    senderDevice: sender.deviceId,
    contentId: content.contentId,
    own: equal(sender.identityKey, engine.self.identityKey),
    state: 'received',
    kind: text === undefined ? 'unsupported' : 'text',
    text: text?.text ?? '',
    replyTo: text?.replyTo,
    sentAtMs: content.sentAtMs,
    storedAtMs: engine.nowMs(),
    acceptedAtMs: row.acceptedAtMs,
    seen: false,
    messageId: row.messageId,
  });
  // Taken in before: the same words under another message id.
  if (localId === undefined) return;
  checkOrder(change, conversation, sender, content, hash);
  change.emit(() => ({ type: 'message', message: storedMessageView(engine, localId) }));
}

/** Counter and hash of the sending device's previous content: a gap shows that something was withheld (PROTOCOL 8). */
function checkOrder(
  change: Change,
  { channelId }: StoredConversation,
  sender: DeviceAddress,
  content: Omit<Content, 'body'>,
  hash: Uint8Array,
): void {
  const { store, engine } = change;
  const { identityKey, deviceId } = sender;
  const chain = store.conversations.senderChain(channelId, identityKey, deviceId);
  if (chain !== undefined && content.deviceCounter <= chain.counter) return;
  store.conversations.saveSenderChain(channelId, identityKey, deviceId, { counter: content.deviceCounter, hash });
  // The first we hear of a device may be in the middle of what it says: we joined later.
  if (chain === undefined) return;
  const missing = Number(content.deviceCounter - chain.counter - 1n);
  const follows = content.previousHash !== undefined && equal(content.previousHash, chain.hash);
  if (missing === 0 && follows) return;
  change.emit(() => ({
    type: 'gap',
    conversationId: encodeHex(channelId),
    username: nameOf(engine, identityKey, channelId),
    missing: missing === 0 ? undefined : missing,
    reason: missing === 0 ? 'a message does not follow the one before it' : 'messages are missing before this one',
  }));
}

/**
 * The group's name: the highest version from an administrator wins, and of two names with one version, given by two
 * administrators at the same moment, the same one everywhere, whatever the order in which they arrive.
 */
function receiveGroupInfo(
  change: Change,
  conversation: StoredConversation,
  sender: DeviceAddress,
  { version, name }: GroupInfo,
): void {
  const { store, engine } = change;
  const { channelId } = conversation;
  const state = change.group(channelId);
  const channel = state === undefined ? undefined : channelOf(groupView(state));
  if (channel === undefined || !isAdmin(channel, sender) || version < conversation.nameVersion) return;
  if (version === conversation.nameVersion && name <= conversation.name) return;
  store.conversations.save({ ...conversation, name, nameVersion: version });
  change.emit(() => ({
    type: 'name-changed',
    conversationId: encodeHex(channelId),
    name,
    by: nameOf(engine, sender.identityKey, channelId),
  }));
}

function equalIds(a: Uint8Array | undefined, b: Uint8Array): boolean {
  return a !== undefined && equal(a, b);
}
