// Stored records as the API shows them: hex ids, names instead of keys.
import { decodeHex, encodeHex, equal } from '@quicprochat/crypto';
import { groupView, roster } from '@quicprochat/mls';
import type { Engine } from './engine.ts';
import { ClientError } from './errors.ts';
import { addressOf, usernameOf } from './profile/member.ts';
import { nameOfSuite } from './profile/suites.ts';
import { channelOf, isAdmin } from './profile/validate-commit.ts';
import type { StoredConversation, StoredMessage } from './store/index.ts';
import type { Account, Conversation, ConversationMember, Message } from './types.ts';

/** What the engine writes into `undelivered`. */
export interface Undelivered {
  readonly identityKey: string;
  readonly reason: 'full' | 'unknown' | 'blocked';
}

/** @throws ClientError `unknown-conversation` unless it is 32 hex digits */
export function channelIdOf(conversationId: string): Uint8Array {
  const id = conversationId.length === 32 ? decodeHex(conversationId) : undefined;
  if (id !== undefined) return id;
  throw new ClientError('usage', 'unknown-conversation', 'that is not the id of a conversation', {
    hint: 'Ids are 32 hexadecimal digits.',
  });
}

/**
 * The name of an identity: the one pinned for it, else the one in its certificate in this group. A name that is pinned to
 * somebody else is never shown for this one (THREATS 2): then a piece of the key stands for it.
 */
export function nameOf(engine: Engine, identityKey: Uint8Array, channelId?: Uint8Array): string {
  const own = engine.account;
  if (own !== undefined && equal(own.identityKey, identityKey)) return own.username;
  const pinned = engine.store.contacts.byIdentity(identityKey);
  if (pinned !== undefined) return pinned.username;
  const claimed = channelId === undefined ? undefined : claimedName(engine, identityKey, channelId);
  if (claimed === undefined || engine.store.contacts.byUsername(claimed) !== undefined || claimed === own?.username) {
    return encodeHex(identityKey).slice(0, 12);
  }
  return claimed;
}

function claimedName(engine: Engine, identityKey: Uint8Array, channelId: Uint8Array): string | undefined {
  const state = engine.group(channelId);
  if (state === undefined) return undefined;
  for (const member of roster(state)) {
    const address = addressOf(member);
    if (address !== undefined && equal(address.identityKey, identityKey)) return usernameOf(member);
  }
  return undefined;
}

export function accountView(engine: Engine): Account | undefined {
  const { account } = engine;
  if (account === undefined || account.state !== 'registered') return undefined;
  return {
    username: account.username,
    identityKey: encodeHex(account.identityKey),
    deviceId: encodeHex(account.deviceId),
    serverOrigin: account.origin,
    loggedIn: engine.store.account.session() !== undefined,
  };
}

export function conversationView(engine: Engine, conversation: StoredConversation): Conversation {
  const { channelId, kind, state, paused, peerIdentity, epoch, suite, invitedBy } = conversation;
  const name =
    kind === 'direct' && peerIdentity !== undefined
      ? directName(engine, conversation, peerIdentity)
      : conversation.name;
  return {
    id: encodeHex(channelId),
    kind,
    name,
    state,
    memberCount: conversation.memberCount,
    epoch: epoch === undefined ? undefined : Number(epoch),
    suite,
    suiteName: suite === undefined ? undefined : nameOfSuite(suite),
    paused,
    createdAtMs: conversation.createdAtMs,
    invitedBy: invitedBy === undefined ? undefined : nameOf(engine, invitedBy, channelId),
    isNew: conversation.isNew,
    unseenCount: engine.store.messages.unseenCount(channelId),
    lastMessageAtMs: conversation.lastMessageAtMs,
  };
}

// Once the group is gone the certificate is gone with it; the name it gave is kept in the record.
function directName(engine: Engine, { channelId, name }: StoredConversation, peerIdentity: Uint8Array): string {
  const found = nameOf(engine, peerIdentity, channelId);
  const isKey = found === encodeHex(peerIdentity).slice(0, 12);
  return isKey && name !== '' && engine.store.contacts.byUsername(name) === undefined ? name : found;
}

export function messageView(engine: Engine, message: StoredMessage): Message {
  return {
    localId: message.localId,
    conversationId: encodeHex(message.channelId),
    contentId: encodeHex(message.contentId),
    sender: nameOf(engine, message.senderIdentity, message.channelId),
    senderIdentity: encodeHex(message.senderIdentity),
    senderDevice: encodeHex(message.senderDevice),
    own: message.own,
    state: message.state,
    kind: message.kind,
    text: message.text,
    sentAtMs: message.sentAtMs,
    acceptedAtMs: message.acceptedAtMs,
    seen: message.seen,
    undelivered: undeliveredOf(message.undelivered).map(({ identityKey, reason }) => ({
      username: nameOf(engine, decodeHex(identityKey) ?? new Uint8Array(0), message.channelId),
      reason,
    })),
  };
}

/** The message, which must be there. */
export function storedMessageView(engine: Engine, localId: number): Message {
  const stored = engine.store.messages.get(localId);
  if (stored === undefined) throw new ClientError('bug', 'bug', 'a stored message is not there');
  return messageView(engine, stored);
}

export function membersView(engine: Engine, channelId: Uint8Array): readonly ConversationMember[] {
  const state = engine.group(channelId);
  if (state === undefined) return [];
  const channel = channelOf(groupView(state));
  const checks = new Map(
    engine.store.conversations
      .memberChecks(channelId)
      .map((check) => [encodeHex(check.identityKey) + encodeHex(check.deviceId), check.outcome]),
  );
  const members = new Map<string, ConversationMember>();
  for (const member of roster(state)) {
    const address = addressOf(member);
    if (address === undefined) continue;
    const identityKey = encodeHex(address.identityKey);
    const deviceId = encodeHex(address.deviceId);
    const self = equal(address.identityKey, engine.self.identityKey);
    const check = self ? 'verified' : (checks.get(identityKey + deviceId) ?? 'unchecked');
    const known = members.get(identityKey);
    members.set(identityKey, {
      username: nameOf(engine, address.identityKey, channelId),
      identityKey,
      admin: channel !== undefined && isAdmin(channel, address),
      self,
      deviceIds: [...(known?.deviceIds ?? []), deviceId],
      check: known === undefined ? check : worse(known.check, check),
    });
  }
  return [...members.values()];
}

function worse(a: ConversationMember['check'], b: ConversationMember['check']): ConversationMember['check'] {
  if (a === 'failed' || b === 'failed') return 'failed';
  return a === 'unchecked' ? a : b;
}

function undeliveredOf(json: string | undefined): readonly Undelivered[] {
  return json === undefined ? [] : (JSON.parse(json) as readonly Undelivered[]);
}
