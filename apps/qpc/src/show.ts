/** How accounts, conversations, messages and events look: as JSON fields and as lines for people. */
import type {
  Account,
  ClientEvent,
  Contact,
  Conversation,
  ConversationMember,
  Message,
} from '@quicprochat/client/node';
import type { JsonFields, Output, Segment } from './output.ts';
import { column } from './output.ts';

export function accountFields(account: Account): JsonFields {
  return {
    username: account.username,
    identityKey: account.identityKey,
    deviceId: account.deviceId,
    serverOrigin: account.serverOrigin,
    loggedIn: account.loggedIn,
  };
}

export function contactFields(contact: Contact): JsonFields {
  return {
    username: contact.username,
    identityKey: contact.identityKey,
    pin: contact.pin,
    devices: contact.devices.map((device) => ({
      deviceId: device.deviceId,
      deviceKey: device.deviceKey,
      manager: device.manager,
      certificateSerial: device.certificateSerial,
      certificateNotAfter: time(device.certificateNotAfterMs),
    })),
  };
}

export function conversationFields(conversation: Conversation): JsonFields {
  const { createdAtMs, lastMessageAtMs, ...rest } = conversation;
  return { ...rest, createdAt: time(createdAtMs), lastMessageAt: time(lastMessageAtMs) };
}

export function messageFields(message: Message): JsonFields {
  return {
    conversationId: message.conversationId,
    localId: message.localId,
    contentId: message.contentId,
    sender: message.sender,
    senderIdentity: message.senderIdentity,
    senderDevice: message.senderDevice,
    own: message.own,
    state: message.state,
    kind: message.kind,
    text: message.text,
    sentAt: time(message.sentAtMs),
    acceptedAt: time(message.acceptedAtMs),
    ...(message.undelivered.length > 0 ? { undelivered: message.undelivered } : {}),
  };
}

/** ISO 8601 in UTC; undefined for what is no time (others choose some of these numbers). */
export function time(ms: number | undefined): string | undefined {
  const date = new Date(ms ?? Number.NaN);
  return Number.isNaN(date.getTime()) ? undefined : date.toISOString();
}

/** `14:05`, or with the day when it was not today; in the person's own time zone. */
export function clock(ms: number, nowMs: number): string {
  const at = new Date(ms);
  const two = (n: number): string => String(n).padStart(2, '0');
  const minute = `${two(at.getHours())}:${two(at.getMinutes())}`;
  if (at.toDateString() === new Date(nowMs).toDateString()) return minute;
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${minute}`;
}

/** `14:05 alice: text`; with a label when lines of several conversations mix. */
export function messageLine(message: Message, label: string | undefined): Segment[] {
  const at = clock(message.acceptedAtMs ?? message.sentAtMs, Date.now());
  const text =
    message.kind === 'text' ? message.text : '(sent with a newer version of qpc, which this one cannot show)';
  const mark = message.state === 'failed' ? ' (not sent)' : message.state === 'queued' ? ' (waiting)' : '';
  return [
    { text: `${at} `, style: 'dim' },
    ...(label === undefined ? [] : [{ text: `[${label}] `, style: 'dim' } as const]),
    { text: message.sender, style: message.own ? 'dim' : 'bold' },
    ': ',
    { text: text, block: 4 },
    { text: mark, style: 'yellow' },
  ];
}

export function printMessage(out: Output, message: Message, label: string | undefined): void {
  out.event('message', messageFields(message), ...messageLine(message, label));
}

/** `#1a2b3c4d team (3 people)`. */
export function conversationLine(conversation: Conversation): Segment[] {
  const people = conversation.kind === 'group' ? headCount(conversation) : conversation.kind;
  const state = conversation.state === 'active' ? '' : ` ${conversation.state}`;
  const unseen = conversation.unseenCount > 0 ? ` ${conversation.unseenCount} unread` : '';
  return [
    { text: column(`#${conversation.id.slice(0, 8)}`, 11), style: 'dim' },
    { text: column(conversation.name, 20), style: 'bold' },
    column(people, 12),
    { text: state, style: 'yellow' },
    { text: unseen, style: 'green' },
    conversation.isNew && conversation.invitedBy !== undefined ? ` invited by ${conversation.invitedBy}` : '',
    conversation.paused === undefined ? '' : ` sending paused: ${conversation.paused}`,
  ];
}

/**
 * What to type for it in a shell. The names of groups are others' words: one that a shell would take for more than a word
 * is not put into a command that somebody may copy.
 */
export function typedName({ id, kind, name }: Pick<Conversation, 'id' | 'kind' | 'name'>): string {
  if (kind !== 'group') return `@${name}`;
  return /^[\p{L}\p{N}][\p{L}\p{N}_.-]*$/u.test(name) ? name : `"#${id.slice(0, 8)}"`;
}

function headCount({ memberCount }: Conversation): string {
  return memberCount === 1 ? 'only you' : `${memberCount} people`;
}

export function memberLine(member: ConversationMember): Segment[] {
  return [
    { text: column(member.username, 20), style: 'bold' },
    { text: column(member.identityKey.slice(0, 16), 18), style: 'dim' },
    column(member.admin ? 'administrator' : 'member', 15),
    member.check === 'verified'
      ? { text: 'keys checked', style: 'green' }
      : member.check === 'failed'
        ? { text: 'KEYS DO NOT CHECK OUT', style: 'red' }
        : { text: 'keys not yet checked', style: 'yellow' },
    member.self ? ' (you)' : '',
  ];
}

/** Prints what is worth a line while one is listening. Messages are the caller's: they are marked as seen. */
export function printEvent(out: Output, event: ClientEvent, nameOf: (conversationId: string) => string): void {
  switch (event.type) {
    case 'message':
    case 'message-state':
    case 'caught-up':
      return;
    case 'connection':
      if (out.json) out.event('connection', { state: event.state, reason: event.reason });
      else if (event.state === 'offline')
        out.progress({ text: `(connection lost: ${event.reason}; trying again)`, style: 'dim' });
      else if (event.state === 'online') out.progress({ text: '(connected)', style: 'dim' });
      return;
    case 'joined':
      out.event(
        'joined',
        { conversation: conversationFields(event.conversation), invitedBy: event.invitedBy },
        { text: '* ', style: 'cyan' },
        event.conversation.kind === 'direct'
          ? `${event.invitedBy} opened a direct conversation with you`
          : `${event.invitedBy} invited you to "${event.conversation.name}" (${headCount(event.conversation)})`,
      );
      return;
    case 'member-added':
      return notice(out, event, `${event.by} added ${event.username} to "${nameOf(event.conversationId)}"`);
    case 'member-removed':
      return notice(out, event, `${event.by} removed ${event.username} from "${nameOf(event.conversationId)}"`);
    case 'member-left':
      return notice(out, event, `${event.username} left "${nameOf(event.conversationId)}"`);
    case 'removed':
      out.event(
        'removed',
        { conversation: conversationFields(event.conversation), by: event.by },
        { text: '* ', style: 'cyan' },
        event.conversation.state === 'left'
          ? `you have left "${event.conversation.name}"`
          : `${event.by} removed you from "${event.conversation.name}"; what was said before stays readable`,
      );
      return;
    case 'name-changed':
      return notice(out, event, `${event.by} named the group "${event.name}"`);
    case 'admin-changed':
      return notice(
        out,
        event,
        `${event.username} is ${event.admin ? 'now' : 'no longer'} an administrator of "${nameOf(event.conversationId)}"`,
      );
    case 'suite-changed':
      return notice(out, event, suiteChangedText(event.by, nameOf(event.conversationId), event.suiteName));
    case 'upgrade-progress':
      if (out.json) out.event(event.type, { ...event });
      else out.progress({ text: `(asked for the keys of ${event.done} of ${event.total} people)`, style: 'dim' });
      return;
    case 'gap':
      return alarm(out, event, event.reason);
    case 'warning':
      return alarm(out, event, event.text);
    case 'server-notice':
      return notice(out, event, `the server says: ${event.text}`);
    default:
      return event satisfies never;
  }
}

function suiteChangedText(by: string, name: string, suiteName: NonNullable<Conversation['suiteName']>): string {
  // A conversation of two goes by the name of the other.
  const what = name === by ? 'the conversation with you' : `"${name}"`;
  return suiteName === 'post-quantum'
    ? `${by} moved ${what} to post-quantum keys: from now on it is protected against quantum computers too`
    : `${by} moved ${what} to ${suiteName} keys`;
}

function notice(out: Output, event: ClientEvent, text: string): void {
  const { type, ...fields } = event;
  out.event(type, fields, { text: '* ', style: 'cyan' }, text);
}

function alarm(out: Output, event: ClientEvent, text: string): void {
  const { type, ...fields } = event;
  if (out.json) out.event(type, fields);
  else out.warn(text);
}
