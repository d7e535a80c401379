/**
 * The way of a message out of this device, the one function to read (DESIGN section 2):
 *
 *   words ─▶ Content ─▶ MLS protect ─▶ pad ─▶ envelope 03 ─┐
 *                                                          ├─ one transaction: ratchet rows + message + outbox entry
 *   deliver-outbox.ts ◀── wakes ───────────────────────────┘
 *
 * Nothing here waits for anything, so it works without a server and no two sends start from one ratchet. A conversation
 * whose group is not there yet (awaiting a Welcome) takes the message as it is; it is protected when it can be.
 */
import { protectApplication, roster } from '@quicprochat/mls';
import type { Change, Engine } from './engine.ts';
import { conversationOf, logPlaceOf } from './epoch.ts';
import { ClientError } from './errors.ts';
import {
  buildContent,
  CONTENT_ID_BYTES,
  type ContentBody,
  contentHash,
  createMessageId,
  GROUP_ENVELOPES_PER_EPOCH_MAX,
  PayloadKind,
  sealGroup,
  TEXT_BYTES_MAX,
} from './message/index.ts';
import { encodeMessageAuthenticatedData } from './profile/authenticated-data.ts';
import type { Protection, StoredConversation } from './store/index.ts';
import { epochSpentKey, updateDueKey } from './track.ts';
import type { Message } from './types.ts';
import { conversationView, storedMessageView } from './views.ts';

/** A device that has sealed so many messages in an epoch commits an update, long before its share of them is used up. */
const GENERATIONS_BEFORE_UPDATE = GROUP_ENVELOPES_PER_EPOCH_MAX / 256;

/**
 * One key seals at most 2^24 envelopes (PROTOCOL section 4), of which each device may seal its share; one share is left
 * for the entries of the log. Counted in generations, which begin at 0.
 */
export function epochUse(generation: number, devices: number): 'fresh' | 'update-due' | 'spent' {
  const share = Math.floor(GROUP_ENVELOPES_PER_EPOCH_MAX / (devices + 1));
  if (generation + 1 >= share) return 'spent';
  return generation >= Math.min(GENERATIONS_BEFORE_UPDATE, Math.floor(share / 2)) ? 'update-due' : 'fresh';
}

/** @throws ClientError `not-active`, `sending-paused`, `text-too-long`, `unknown-conversation` */
export function sendText(engine: Engine, channelId: Uint8Array, text: string): Message {
  const localId = sendContent(engine, channelId, { kind: 'text', text });
  if (localId === undefined) throw new ClientError('bug', 'bug', 'a text made no message');
  return storedMessageView(engine, localId);
}

/** Sends any content. Returns the id of the message it makes; undefined for content that is not shown as one. */
export function sendContent(engine: Engine, channelId: Uint8Array, body: ContentBody): number | undefined {
  const localId = engine.change((change) => {
    const before = conversationOf(engine, channelId);
    refuseUnlessSendable(engine, before);
    const contentId = engine.ports.random(CONTENT_ID_BYTES);
    const deviceCounter = before.deviceCounter + 1n;
    const sentAtMs = engine.nowMs();
    const built = buildContent({ contentId, sentAtMs, deviceCounter, previousHash: before.previousHash, body });
    if (built.kind === 'refused') throw contentRefused(built.reason);

    const conversation = { ...before, deviceCounter, previousHash: contentHash(engine.crypto, built.bytes) };
    change.store.conversations.save(conversation);
    const protection = canProtect(engine, conversation) ? protect(change, conversation, built.bytes) : undefined;
    const { identityKey, deviceId } = engine.address;
    const isNote = conversation.kind === 'note';
    const message =
      body.kind === 'text'
        ? change.store.messages.insert({
            channelId,
            senderIdentity: identityKey,
            senderDevice: deviceId,
            contentId,
            own: true,
            state: isNote ? 'sent' : 'queued',
            kind: 'text',
            text: body.text,
            replyTo: body.replyTo,
            sentAtMs,
            storedAtMs: sentAtMs,
            acceptedAtMs: isNote ? sentAtMs : undefined,
            seen: true,
            messageId: protection?.messageId,
          })
        : undefined;
    if (!isNote) {
      const queueWasEmpty = change.store.outbox.count(channelId) === 0;
      const entry = change.store.outbox.add({
        channelId,
        recipient: undefined,
        payloadKind: PayloadKind.Application,
        body: built.bytes,
        localId: message,
        protection,
        createdAtMs: sentAtMs,
      });
      // It leaves right after this transaction, so the attempt is counted in it and costs no second one.
      if (queueWasEmpty && protection !== undefined && engine.server.state === 'online') {
        change.store.outbox.countAttempt(entry);
      }
    }
    if (message !== undefined) change.emit(() => ({ type: 'message', message: storedMessageView(engine, message) }));
    return message;
  });
  engine.reactions.outboxChanged();
  return localId;
}

/** Content → MLS PrivateMessage → padded envelope 03. The successor of the ratchet joins the change. */
export function protect(change: Change, conversation: StoredConversation, content: Uint8Array): Protection {
  const { engine, store } = change;
  const { channelId } = conversation;
  const context = engine.mls();
  const state = change.group(channelId);
  if (state === undefined) throw new ClientError('bug', 'bug', 'an active conversation has no group');
  const {
    state: next,
    message,
    generation,
  } = protectApplication(context, state, content, {
    authenticatedData: encodeMessageAuthenticatedData(channelId),
  });
  change.setGroup(channelId, next);
  const place = logPlaceOf(engine, conversation);
  const envelope = sealGroup(
    context,
    { key: place.envelopeKey, position: place.epochPosition, channelId },
    PayloadKind.Application,
    message,
  );
  const use = epochUse(generation, roster(next).length);
  if (use !== 'fresh') {
    store.settings.set(updateDueKey(channelId), '1');
    if (use === 'spent') store.settings.set(epochSpentKey(channelId), String(place.epochPosition));
    change.after(() => engine.reactions.dutiesChanged(channelId));
  }
  const messageId = createMessageId(engine.nowMs(), engine.ports.random);
  return { messageId, envelope, position: place.epochPosition };
}

/** Whether there is a group to protect a message in, and its epoch has room for one; else the message waits. */
export function canProtect(engine: Engine, conversation: StoredConversation): boolean {
  const { channelId, kind, state, groupId, epochPosition } = conversation;
  if (kind === 'note' || state !== 'active' || groupId === undefined) return false;
  return engine.store.settings.get(epochSpentKey(channelId)) !== String(epochPosition);
}

function refuseUnlessSendable(engine: Engine, conversation: StoredConversation): void {
  const { state, paused } = conversation;
  if (state === 'left' || state === 'removed' || state === 'leaving') {
    const { name } = conversationView(engine, conversation);
    const words = { left: 'has been left', removed: 'is over: you were removed', leaving: 'is being left' }[state];
    throw new ClientError('local-state', 'not-active', `${name} ${words}`, {
      hint: 'Its history stays readable. Ask to be invited again to go on.',
    });
  }
  if (paused !== undefined) {
    throw new ClientError('verification-failed', 'sending-paused', `sending is paused here: ${paused}`, {
      hint: 'Look into it with the others; then lift the pause, or remove the member in question.',
    });
  }
}

function contentRefused(reason: string): ClientError {
  if (reason === 'textTooLong') {
    return new ClientError('usage', 'text-too-long', `a message has at most ${TEXT_BYTES_MAX} bytes of UTF-8`, {
      hint: 'Send it in several messages.',
    });
  }
  const words =
    reason === 'emptyText' ? 'a message has at least one character' : 'the name is empty or longer than 256 bytes';
  return new ClientError('usage', 'invalid-argument', words);
}
