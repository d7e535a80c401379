import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import type { Command } from './command.ts';
import { COMMANDS } from './command-table.ts';
import { CliError } from './errors.ts';
import { GLOBAL_OPTIONS } from './global-options.ts';
import { chatHelp, commandHelp, overview } from './help.ts';
import { parseChatLine, parseCommandLine, splitWords, type Parsed } from './parse.ts';

function parsed(line: string): Extract<Parsed, { kind: 'command' }> {
  const result = parseCommandLine(splitWords(line), COMMANDS);
  assert.equal(result.kind, 'command');
  return result as Extract<Parsed, { kind: 'command' }>;
}

function refusal(body: () => unknown): CliError {
  try {
    body();
  } catch (error) {
    assert.ok(error instanceof CliError, String(error));
    assert.equal(error.exitCode, 2);
    assert.ok(error.hint.length > 0);
    assert.ok(!/\n/u.test(error.message + error.hint));
    return error;
  }
  throw new assert.AssertionError({ message: 'it was accepted' });
}

test('words, rest and flags arrive under the names of the table', () => {
  const { command, input, globals } = parsed('group invite team bob carol --server [::1]:7 --json');
  assert.equal(command.name, 'group invite');
  assert.equal(input.word('GROUP'), 'team');
  assert.deepEqual(input.words('USER'), ['bob', 'carol']);
  assert.equal(globals.value('server'), '[::1]:7');
  assert.ok(globals.has('json'));
  assert.ok(!globals.has('no-color'));
});

test('global flags may stand before the command, after it, and between', () => {
  for (const line of ['--timeout 5 send --no-color bob hi', 'send bob hi --timeout 5 --no-color']) {
    const { input, globals } = parsed(line);
    assert.equal(globals.value('timeout'), '5');
    assert.ok(globals.has('no-color'));
    assert.deepEqual(input.words('TEXT'), ['hi']);
  }
});

test('an optional value may be left out', () => {
  assert.equal(parsed('recv --follow team').input.value('follow'), 'team');
  const bare = parsed('recv --follow').input;
  assert.ok(bare.has('follow'));
  assert.equal(bare.value('follow'), undefined);
  assert.ok(!parsed('recv').input.has('follow'));
});

test('text after -- is text', () => {
  assert.deepEqual(parsed('send bob -- --json -5 --help').input.words('TEXT'), ['--json', '-5', '--help']);
  assert.ok(!parsed('send bob -- --json').globals.has('json'));
});

test('what cannot be understood is a usage error with a next step', () => {
  assert.match(refusal(() => parsed('sned bob hi')).hint, /send/u);
  assert.match(refusal(() => parsed('send')).message, /CONVERSATION/u);
  assert.match(refusal(() => parsed('group')).hint, /group/u);
  assert.match(refusal(() => parsed('group destroy x')).message, /destroy/u);
  assert.match(refusal(() => parsed('ping now')).message, /too many arguments/u);
  assert.match(refusal(() => parsed('send bob -x')).hint, /--/u);
  assert.match(refusal(() => parsed('ping --server')).message, /server/u);
  refusal(() => parsed(''));
  refusal(() => parsed('--json'));
  assert.match(refusal(() => parseCommandLine(['help', 'nonsense'], COMMANDS)).message, /nonsense/u);
});

test('help is asked for with help, --help or -h, for all and for one', () => {
  for (const line of ['--help', '-h', 'help', '--json --help']) {
    const help = parseCommandLine(splitWords(line), COMMANDS);
    assert.deepEqual(help, { kind: 'help', text: overview(COMMANDS, GLOBAL_OPTIONS) });
  }
  for (const line of ['help send', 'send --help', 'send -h bob', '--state folder --server a:1 send --help']) {
    const help = parseCommandLine(splitWords(line), COMMANDS);
    assert.ok(help.kind === 'help' && help.text.startsWith('Usage: qpc send CONVERSATION [TEXT...]'));
  }
  const group = parseCommandLine(['group', '--help'], COMMANDS);
  assert.ok(group.kind === 'help' && group.text.includes('qpc group remove GROUP USER'));
  assert.equal(parseCommandLine(['--version'], COMMANDS).kind, 'version');
});

test('every command of the table can be parsed and is explained', () => {
  const help = overview(COMMANDS, GLOBAL_OPTIONS);
  const width = Math.max(...help.split('\n').map((line) => line.length));
  assert.ok(width <= 110, `a line of ${width} characters`);
  for (const command of COMMANDS) {
    assert.ok(help.includes(`  ${command.name}`), command.name);
    const words = (command.args ?? []).filter((argument) => !argument.optional).map(() => 'x1');
    assert.equal(parsed([command.name, ...words].join(' ')).command, command);
    for (const line of command.examples ?? []) {
      const example = line
        .replace(/^.*\| /u, '')
        .replace(/ <.*$/u, '')
        .replace(/^qpc /u, '');
      assert.equal(parsed(example).command, command, line);
    }
    for (const option of command.options ?? []) assert.ok(commandHelp(command).includes(`--${option.name}`));
  }
});

test('the first steps and help name only commands that exist', async () => {
  const { firstSteps } = await import('./help.ts');
  for (const [, line] of firstSteps().matchAll(/^ {2}qpc (.*?) {2,}/gmu)) parsed(line ?? '');
});

test('names of commands and options are not used twice', () => {
  assert.equal(new Set(COMMANDS.map((command) => command.name)).size, COMMANDS.length);
  const globals = GLOBAL_OPTIONS.map((option) => option.name);
  assert.equal(new Set(globals).size, globals.length);
  for (const command of COMMANDS) {
    for (const option of command.options ?? [])
      assert.ok(!globals.includes(option.name), `${command.name} --${option.name}`);
  }
});

test('a chat runs the same commands, without those that ask or stay, and without the flags of the process', () => {
  const line = parseChatLine('group invite "Book club" bob', COMMANDS);
  assert.ok(line.kind === 'command' && line.input.word('GROUP') === 'Book club');
  for (const text of ['login', 'recv --follow', 'demo', 'register-user eve', 'whoami --password x', 'nonsense']) {
    refusal(() => parseChatLine(text, COMMANDS));
  }
  assert.match(refusal(() => parseChatLine('usr/bin is full', COMMANDS)).hint, /type \/help .* \/\/ to send a slash/);
  const shown = chatHelp(COMMANDS).join('\n');
  assert.ok(shown.includes('/group invite GROUP USER...') && !shown.includes('/login'));
});

test('chat lines are split as a shell would', () => {
  assert.deepEqual(splitWords(`  send  "two words" 'it''s' a\\ b "" "q\\"q"`), [
    'send',
    'two words',
    'its',
    'a b',
    '',
    'q"q',
  ]);
  refusal(() => splitWords('send "open'));
});

test('a row that declares nothing gets nothing', () => {
  const row: Command = { name: 'x', topic: 'Chat', summary: 'x', run: async () => ({}) };
  const result = parseCommandLine(['x'], [row]);
  assert.ok(result.kind === 'command');
  assert.throws(() => result.input.word('NAME'), /not declared/u);
  assert.deepEqual(result.input.words('NAME'), []);
});

test('the version is that of package.json', async () => {
  const { VERSION } = await import('./version.ts');
  const manifest: unknown = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
  assert.equal(Reflect.get(manifest as object, 'version'), VERSION);
});
