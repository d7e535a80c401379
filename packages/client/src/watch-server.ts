/**
 * What members see of a server or member that misbehaves (PROTOCOL sections 2 and 5; THREATS 33): the state is kept, the
 * evidence stored, sending paused and the reason shown. None of it decides whether a commit is valid.
 */
import { encodeHex } from '@quicprochat/crypto';
import type { Change } from './engine.ts';
import type { StoredConversation } from './store/index.ts';
import type { WarningCode } from './types.ts';

/** Why sending is paused. `roster` ends by itself when the roster is right again, `member` when the member is gone. */
export type PauseCause = 'log' | 'roster' | 'member' | 'identity' | 'transparency';

/** Stops sending until the cause is gone or the user has decided. The first cause stays. */
export function pauseSending(
  change: Change,
  conversation: StoredConversation,
  cause: PauseCause,
  code: WarningCode,
  reason: string,
  evidence: Uint8Array,
): StoredConversation {
  const { store, engine } = change;
  const { channelId } = conversation;
  store.evidence.add({ channelId, kind: code, summary: reason, data: evidence, atMs: engine.nowMs() });
  change.emit({ type: 'warning', code, conversationId: encodeHex(channelId), text: reason });
  if (conversation.paused !== undefined) return conversation;
  const paused = { ...conversation, paused: reason };
  store.conversations.save(paused);
  store.settings.set(causeKey(channelId), cause);
  return paused;
}

/** Lets sending go on when it was paused for this cause; `undefined` whatever the cause: the user's decision. */
export function unpauseSending(
  change: Change,
  conversation: StoredConversation,
  cause: PauseCause | undefined,
): StoredConversation {
  const { store, engine } = change;
  if (conversation.paused === undefined) return conversation;
  if (cause !== undefined && store.settings.get(causeKey(conversation.channelId)) !== cause) return conversation;
  const resumed = { ...conversation, paused: undefined };
  store.conversations.save(resumed);
  store.settings.set(causeKey(conversation.channelId), undefined);
  change.after(() => engine.reactions.outboxChanged());
  return resumed;
}

/** Something was received that nobody can use. It is passed over, and why is written down. */
export function noteSkipped(
  change: Change,
  code: 'skipped-envelope' | 'skipped-entry' | 'welcome-refused',
  channelId: Uint8Array,
  data: Uint8Array,
  reason: string,
): void {
  const { store, engine } = change;
  const known = channelId.length === 16 && store.conversations.get(channelId) !== undefined;
  store.evidence.add({
    // Channels that are none of ours can be named without end: what comes in them counts together.
    channelId: known ? channelId : undefined,
    kind: code,
    summary: reason,
    // The hash names the bytes without keeping megabytes of garbage.
    data: engine.crypto.hash('sha256', data),
    atMs: engine.nowMs(),
  });
  engine.ports.log.debug('received something that cannot be used', { code, reason });
  const words = { 'skipped-envelope': 'a message', 'skipped-entry': 'a log entry', 'welcome-refused': 'an invitation' };
  change.emit({
    type: 'warning',
    code,
    conversationId: known ? encodeHex(channelId) : undefined,
    text: `${words[code]} could not be used and was passed over: ${reason}`,
  });
}

function causeKey(channelId: Uint8Array): string {
  return `pause-cause/${encodeHex(channelId)}`;
}
