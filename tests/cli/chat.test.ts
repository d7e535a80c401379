// Writing to each other through the command line: direct, in groups, in pipes, while the server is away, and when others
// send what they should not.
import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { before, test } from 'node:test';
import { promisify } from 'node:util';
import { hears, QPC_MAIN, texts, World, type Person } from './world.ts';

const execFileAsync = promisify(execFile);
const world = new World(['--limits-inbox-envelopes', '20']);
let alice: Person;
let bob: Person;
let carol: Person;
let dave: Person;

before(async () => {
  await world.startServer();
  [alice, bob, carol, dave] = await world.people('alice', 'bob', 'carol', 'dave');
});

test('a first message arrives, once, and the answer comes back', async () => {
  const sent = await alice.result(['dm', 'bob', 'Hello,', 'Bob']);
  assert.equal(sent['state'], 'sent');
  assert.match(String(sent['sentAt']), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/u);
  assert.deepEqual(await bob.reads(), ['Hello, Bob']);
  assert.deepEqual(await bob.reads(), []);
  await bob.result(['send', '@alice'], 'two lines\nfrom a pipe\n');
  assert.deepEqual(await alice.reads(['--wait']), ['two lines\nfrom a pipe']);
  assert.deepEqual(await bob.history('@alice'), ['Hello, Bob', 'two lines\nfrom a pipe']);
});

test('what has no text, too much text or no conversation is refused before anything is sent', async () => {
  await alice.refused(2, 'empty-text', ['send', '@bob'], '');
  await alice.refused(2, 'too-long', ['send', '@bob'], 'x'.repeat(40_000));
  await alice.refused(2, 'text-too-long', ['send', '@bob'], 'x'.repeat(32_769));
  await alice.refused(2, 'unknown-conversation', ['send', 'nothing-of-the-kind', 'hi']);
  await alice.refused(2, 'invalid-hex', ['send', '#12zz', 'hi']);
  await alice.refused(2, 'bad-conversation', ['send', 'a\u001b[2Jb', 'hi']);
  await alice.refused(2, 'bad-group-name', ['group', 'create', 'evil\u202e']);
  await alice.refused(2, 'invalid-username', ['dm', 'b\u0007ob', 'hi']);
});

test('text of the greatest length arrives whole', async () => {
  const text = 'ü'.repeat(16_384);
  await alice.result(['send', '@bob'], text);
  assert.deepEqual(await bob.reads(), [text]);
});

test('a group: several invited at once, joined by themselves, everyone reads everyone', async () => {
  const created = await alice.result(['group', 'create', 'team', 'bob', 'carol']);
  assert.deepEqual([...(created['added'] as string[])].sort(), ['bob', 'carol']);
  for (const person of [bob, carol]) {
    const events = await person.events(['join']);
    const joined = events.find((event) => event.type === 'joined' && event['name'] === 'team');
    assert.deepEqual([joined?.['memberCount'], joined?.['invitedBy']], [3, 'alice']);
    assert.deepEqual((await person.result(['join']))['joined'], []);
  }
  await alice.result(['send', 'team', 'Hello, all']);
  await bob.result(['send', 'team', 'Hello, Alice']);
  assert.deepEqual(await carol.reads(['team']), ['Hello, all', 'Hello, Alice']);
  assert.deepEqual(await alice.reads(['team']), ['Hello, Alice']);
  const members = await carol.events(['group', 'members', 'team']);
  const names = members.filter((event) => event.type === 'member').map((event) => event['username']);
  assert.deepEqual(names.sort(), ['alice', 'bob', 'carol']);
});

test('only administrators invite and remove, and what is no group is none', async () => {
  await bob.refused(4, 'not-admin', ['group', 'invite', 'team', 'dave']);
  await bob.refused(4, 'not-admin', ['group', 'remove', 'team', 'carol']);
  await alice.refused(2, 'not-a-group', ['group', 'invite', '@bob', 'carol']);
  await alice.refused(2, 'not-a-member', ['group', 'remove', 'team', 'dave']);
  await alice.refused(4, 'unknown-user', ['group', 'invite', 'team', 'nobody']);
});

test('a group can be renamed; everyone sees it', async () => {
  await alice.result(['group', 'create', 'draft', 'bob']);
  await alice.result(['group', 'rename', 'draft', 'Final name']);
  await bob.result(['join']);
  const listed = await bob.events(['group', 'list']);
  assert.ok(listed.some((event) => event['name'] === 'Final name'));
});

test('whoever leaves is gone for the others, once an administrator is there', async () => {
  await alice.result(['group', 'create', 'leaving', 'bob', 'carol']);
  await carol.result(['join']);
  const [atAlice, atCarol] = await Promise.all([alice.chat('leaving'), carol.chat('leaving')]);
  atCarol.type('/group leave leaving');
  await atAlice.event('Carol left', (event) => event.type === 'member-left' && event['username'] === 'carol');
  await atCarol.event('Carol is out', (event) => event.type === 'removed');
  for (const chat of [atAlice, atCarol]) {
    chat.endInput();
    await chat.result();
  }
  await carol.refused(6, 'not-active', ['send', 'leaving', 'hi']);
});

test('in a chat: lines are sent, /commands run, // is a slash, a bad line does not end it', async () => {
  await bob.reads();
  const [atAlice, atBob] = await Promise.all([alice.chat('team'), bob.chat('team')]);
  atAlice.type('one');
  atAlice.type('/nonsense');
  atAlice.type('//slash');
  atAlice.type('');
  atAlice.type('/whoami');
  atAlice.type('/help');
  atAlice.type('x'.repeat(70_000));
  atAlice.type('two');
  await hears(atBob, 3);
  assert.deepEqual(texts(atBob.events), ['one', '/slash', 'two']);
  const failures = atAlice.events.filter((event) => event.type === 'failed').map((event) => event['code']);
  assert.deepEqual(failures, ['unknown-command', 'too-long']);
  assert.ok(atAlice.events.some((event) => event.type === 'done' && event['username'] === 'alice'));
  atAlice.type('/quit');
  await atAlice.result();
  atBob.kill('SIGINT');
  const failure = await atBob.failure();
  assert.deepEqual([failure.exitCode, failure['code']], [130, 'interrupted']);
  assert.deepEqual(await bob.reads(['team']), []);
});

test('Ctrl+C while waiting ends with 130, a termination signal with 143, and nothing is lost', async () => {
  for (const [signal, exitCode] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    const waiting = carol.start(['recv', '--follow']);
    await waiting.event('the connection', (event) => event.type === 'connection' && event['state'] === 'online');
    waiting.kill(signal);
    assert.equal((await waiting.failure()).exitCode, exitCode);
  }
  const failure = await bob.refused(124, 'timeout', ['recv', '--wait', '--count', '1', '--timeout', '500ms']);
  assert.equal(failure.exitCode, 124);
});

test('a message that is queued when its command is stopped is kept, and nobody is told to send it again', async () => {
  await bob.result(['dm', 'carol', 'first']);
  // Takes what comes and never answers.
  const silent = createSocket('udp4');
  silent.bind(0, '127.0.0.1');
  await once(silent, 'listening');
  const server = ['--server', `127.0.0.1:${silent.address().port}`, '--ca-cert', world.caCert];
  const send = ['--json', '--state', bob.profile, ...server, 'send', '@carol', 'second', '--timeout', '1s'];
  const failure = await world.run('bob', QPC_MAIN, send).failure();
  silent.close();
  assert.deepEqual([failure.exitCode, failure['code']], [124, 'timeout']);
  assert.match(String(failure['hint']), /is kept and goes out/);
  await bob.reads();
  assert.deepEqual(await carol.reads(['bob']), ['first', 'second']);
});

test('a note to oneself stays in the profile and needs no server', async () => {
  await alice.result(['dm', 'alice', 'buy bread']);
  const program = world.run('alice', QPC_MAIN, [
    '--json',
    '--state',
    alice.profile,
    '--server',
    '127.0.0.1:9',
    'send',
    '@alice',
    'and milk',
  ]);
  program.endInput();
  await program.result();
  assert.deepEqual(await alice.history('@alice'), ['buy bread', 'and milk']);
  assert.deepEqual(await alice.reads(['@alice']), []);
});

test('while the server is away a message is kept, and goes out with the next command', async () => {
  await alice.reads();
  await world.killServer();
  await alice.refused(3, 'server-away', ['resolve', 'bob']);
  const failure = await alice.refused(3, 'server-away', ['send', '@bob', 'written while away']);
  assert.match(String(failure['hint']), /kept/u);
  await world.startServer();
  await alice.reads();
  assert.deepEqual(await bob.reads(['@alice', '--wait']), ['written while away']);
});

test('a full inbox refuses a direct message with its cause, and does not hold up a group (THREATS 35)', async () => {
  await alice.result(['group', 'create', 'busy', 'dave', 'carol']);
  await dave.result(['join']);
  await carol.reads();
  await alice.result(['dm', 'dave', 'first']);
  const chat = await alice.chat('@dave');
  for (let i = 0; i < 25; i += 1) chat.type(`filler ${i}`);
  const settled = (): number => chat.events.filter(({ type }) => type === 'sent' || type === 'not-sent').length;
  await chat.event('all lines are settled', () => settled() === 25);
  chat.endInput();
  await chat.result();
  await alice.refused(4, 'inbox-full', ['send', '@dave', 'one too many']);
  const toGroup = await alice.result(['send', 'busy', 'still works']);
  assert.deepEqual(toGroup['undelivered'], [{ username: 'dave', reason: 'full' }]);
  assert.deepEqual(await carol.reads(['busy', '--wait']), ['still works']);
  const kept = await dave.reads(['@alice']);
  assert.equal(kept[0], 'first');
  assert.ok(kept.length > 1 && kept.every((text, i) => i === 0 || text === `filler ${i - 1}`), kept.join());
});

// THREATS 28
test('escape sequences in a message do not reach a terminal, and programs get them exactly, escaped', async () => {
  const evil = 'look \u001b]0;owned\u0007\u001b[2J\u009b31m\u202etxt.exe';
  await alice.result(['send', '@bob'], evil);
  const program = bob.start(['recv', '--wait']);
  await program.result();
  assert.deepEqual(texts(program.events), [evil]);
  const { screen, code } = await onTerminal(bob, ['history', '@alice', '--limit', '1']);
  assert.equal(code, 0);
  assert.match(screen, /look/u);
  // Colour is ours; everything else that is a control has gone.
  const withoutColor = screen.replaceAll(/\x1b\[(?:0|1|2|31|32|33|36)m/gu, ''); // oxlint-disable-line no-control-regex
  assert.doesNotMatch(withoutColor.replaceAll(/[\r\n]/gu, ''), /[\p{Cc}\p{Bidi_Control}]/u);
});

test('colour on a terminal, none with --no-color, NO_COLOR or in a pipe', async () => {
  const coloured = '\u001b[1malice\u001b[0m';
  const words = ['history', '@alice', '--limit', '1'];
  assert.ok((await onTerminal(bob, words)).screen.includes(coloured));
  assert.ok(!(await onTerminal(bob, [...words, '--no-color'])).screen.includes('\u001b['));
  assert.ok(!(await onTerminal(bob, words, { NO_COLOR: '1' })).screen.includes('\u001b['));
  const piped = execFileSync(process.execPath, [QPC_MAIN, '--state', bob.profile, ...words], {
    env: world.env,
    encoding: 'utf8',
  });
  assert.match(piped, /alice: /u);
  assert.ok(!piped.includes('\u001b'));
});

test('a person chats on a terminal: sees what comes, types, ends with Ctrl+D', async () => {
  await carol.reads();
  const screen = world.terminal(carol, ['recv', '--follow', 'team']);
  await screen.shows('(connected)');
  await alice.result(['send', 'team', 'are you there, Carol?']);
  await screen.shows('alice\u001b[0m: are you there, Carol?');
  screen.type('yes, here\r');
  assert.deepEqual(await bob.reads(['team', '--wait', '--count', '2']), ['are you there, Carol?', 'yes, here']);
  screen.type('/group members team\r');
  await screen.shows('administrator');
  screen.type('\u0004');
  assert.equal(await screen.ended, 0);
});

test('a reader that goes away while messages come ends the chat without a failure', async () => {
  const script = 'set -o pipefail; "$0" "$@" | head -1';
  const words = [process.execPath, QPC_MAIN, '--json', '--state', bob.profile, 'recv', '--follow'];
  const { stdout } = await execFileAsync('/bin/bash', ['-c', script, ...words], { env: world.env });
  assert.match(stdout, /^\{"v":1,"type":"\w+".*\}\n$/u);
  assert.deepEqual((await bob.result(['whoami']))['username'], 'bob');
});

test('a reader that goes away early is no failure', async () => {
  const script = 'set -o pipefail; "$0" "$@" | head -1';
  const words = [process.execPath, QPC_MAIN, '--state', bob.profile, 'history', '@alice'];
  const out = execFileSync('/bin/bash', ['-c', script, ...words], { env: world.env, encoding: 'utf8' });
  assert.equal(out.split('\n').length, 2);
});

test('what a profile has on disk cannot be read without its key', () => {
  const databases = readdirSync(alice.profile).filter((name) => /^profile-.*\.db/u.test(name));
  assert.ok(databases.length > 0);
  for (const name of databases) {
    const bytes = readFileSync(path.join(alice.profile, name));
    for (const word of ['SQLite format', 'Hello, all', 'written while away']) assert.ok(!bytes.includes(word), name);
  }
});

async function onTerminal(
  person: Person,
  words: readonly string[],
  env: NodeJS.ProcessEnv = {},
): Promise<{ screen: string; code: number }> {
  const screen = world.terminal(person, words, env);
  const code = await screen.ended;
  return { screen: screen.text, code };
}
