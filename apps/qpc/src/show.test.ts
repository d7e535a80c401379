import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ClientEvent, Conversation, Message } from '@quicprochat/client';
import { Output } from './output.ts';
import { clock, conversationLine, messageFields, printEvent, printMessage, time, typedName } from './show.ts';

const conversation: Conversation = {
  id: '00112233445566778899aabbccddeeff',
  kind: 'group',
  name: 'team',
  state: 'active',
  memberCount: 3,
  epoch: 2,
  suite: 1,
  suiteName: 'classical',
  paused: undefined,
  createdAtMs: 0,
  invitedBy: 'alice',
  isNew: true,
  unseenCount: 2,
  lastMessageAtMs: undefined,
};

const message: Message = {
  localId: 7,
  conversationId: conversation.id,
  contentId: 'ff'.repeat(16),
  sender: 'alice',
  senderIdentity: 'aa'.repeat(32),
  senderDevice: 'bb'.repeat(16),
  own: false,
  state: 'received',
  kind: 'text',
  text: 'one\ntwo',
  sentAtMs: Date.UTC(2026, 0, 2, 3, 4, 5, 678),
  acceptedAtMs: undefined,
  seen: false,
  undelivered: [],
};

function recorder(json: boolean): { out: Output; lines: string[] } {
  const lines: string[] = [];
  const sink = { write: (text: string) => lines.push(text) };
  return { out: new Output({ stdout: sink, stderr: sink, json, color: false }), lines };
}

const evil = '\u001b[2J\u202eevil\nbob: forged';
const id = conversation.id;

const EVENTS: readonly (readonly [ClientEvent, RegExp])[] = [
  [{ type: 'connection', state: 'offline', reason: 'lost' }, /connection lost: lost/u],
  [{ type: 'connection', state: 'online', reason: '' }, /connected/u],
  [{ type: 'joined', conversation, invitedBy: 'alice' }, /alice invited you to "team" \(3 people\)/u],
  [{ type: 'joined', conversation: { ...conversation, kind: 'direct' }, invitedBy: 'bob' }, /bob opened a direct/u],
  [{ type: 'member-added', conversationId: id, username: 'carol', by: 'alice' }, /alice added carol to "team"/u],
  [{ type: 'member-removed', conversationId: id, username: 'carol', by: 'alice' }, /alice removed carol from "team"/u],
  [{ type: 'member-left', conversationId: id, username: 'carol' }, /carol left "team"/u],
  [{ type: 'removed', conversation: { ...conversation, state: 'removed' }, by: 'bob' }, /bob removed you from "team"/u],
  [{ type: 'removed', conversation: { ...conversation, state: 'left' }, by: 'bob' }, /you have left "team"/u],
  [{ type: 'name-changed', conversationId: id, name: 'crew', by: 'alice' }, /alice named the group "crew"/u],
  [{ type: 'admin-changed', conversationId: id, username: 'bob', admin: true }, /bob is now an administrator/u],
  [{ type: 'gap', conversationId: id, username: 'bob', missing: 2, reason: 'two are missing' }, /two are missing/u],
  [{ type: 'warning', code: 'log-mismatch', conversationId: id, text: 'two logs' }, /warning: two logs/u],
  [{ type: 'server-notice', text: evil }, /the server says: .*evil bob: forged/u],
  [{ type: 'member-added', conversationId: id, username: evil, by: evil }, /evil bob: forged added/u],
];

for (const [event, shown] of EVENTS) {
  test(`${event.type} is one safe line for people and one object for programs`, () => {
    const people = recorder(false);
    printEvent(people.out, event, () => 'team');
    assert.equal(people.lines.length, 1);
    assert.match(people.lines[0] ?? '', shown);
    assert.doesNotMatch((people.lines[0] ?? '').trimEnd(), /[\p{Cc}\p{Bidi_Control}]/u);

    const programs = recorder(true);
    printEvent(programs.out, event, () => 'team');
    assert.equal(programs.lines.length, 1);
    const parsed: unknown = JSON.parse(programs.lines[0] ?? '');
    assert.equal(Reflect.get(parsed as object, 'type'), event.type);
  });
}

test('a message has its time, its author, and its lines under each other', () => {
  const { out, lines } = recorder(false);
  printMessage(out, message, 'team');
  assert.match(lines[0] ?? '', /^2026-01-0\d \d\d:\d\d \[team\] alice: one\n {4}two\n$/u);
  printMessage(out, { ...message, own: true, state: 'queued' }, undefined);
  assert.match(lines[1] ?? '', /alice: one\n {4}two \(waiting\)\n$/u);
  printMessage(out, { ...message, kind: 'unsupported' }, undefined);
  assert.match(lines[2] ?? '', /newer version/u);
});

test('a message for programs has ISO times and nothing undefined', () => {
  const fields = messageFields(message);
  assert.equal(fields['sentAt'], '2026-01-02T03:04:05.678Z');
  assert.ok(!('undelivered' in fields));
  assert.deepEqual(messageFields({ ...message, undelivered: [{ username: 'bob', reason: 'full' }] })['undelivered'], [
    { username: 'bob', reason: 'full' },
  ]);
});

test('today is a time, other days have their date', () => {
  const noon = new Date(2026, 4, 6, 12, 30).getTime();
  assert.equal(clock(noon, noon + 1000), '12:30');
  assert.equal(clock(noon, noon + 86_400_000), '2026-05-06 12:30');
});

test('a conversation shows what is new about it', () => {
  const { out, lines } = recorder(false);
  out.say(...conversationLine(conversation));
  out.say(
    ...conversationLine({ ...conversation, state: 'removed', isNew: false, unseenCount: 0, paused: 'check keys' }),
  );
  assert.match(lines[0] ?? '', /^#00112233 +team +3 people +2 unread invited by alice\n$/u);
  assert.match(lines[1] ?? '', /removed sending paused: check keys\n$/u);
});

test('a command to copy never holds words of others that a shell would run', () => {
  const typed = (name: string): string => typedName({ ...conversation, name });
  assert.equal(typed('team'), 'team');
  assert.equal(typed('équipe-2.b'), 'équipe-2.b');
  assert.equal(typedName({ ...conversation, kind: 'direct', name: 'bob' }), '@bob');
  for (const name of ['Book club', 'x;reboot', '$(reboot)', '-rf', "it's", '`id`', '~', '']) {
    assert.equal(typed(name), '"#00112233"', name);
  }
});

test('a conversation of two that moved is told apart from a group', () => {
  const { out, lines } = recorder(false);
  const moved = { type: 'suite-changed', conversationId: id, suiteName: 'post-quantum', by: 'alice' } as const;
  printEvent(out, moved, () => 'team');
  printEvent(out, moved, () => 'alice');
  assert.match(lines[0] ?? '', /alice moved "team" to post-quantum/u);
  assert.match(lines[1] ?? '', /alice moved the conversation with you to post-quantum/u);
});

test('a time that no calendar has is shown as none', () => {
  assert.equal(time(8_640_000_000_000_001), undefined);
  assert.equal(time(Number.NaN), undefined);
  assert.equal(time(undefined), undefined);
  assert.equal(time(0), '1970-01-01T00:00:00.000Z');
});
