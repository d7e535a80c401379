import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CliError, ExitCode } from './errors.ts';
import { column, Output, wantsColor } from './output.ts';

function recorder(options: { json?: boolean; color?: boolean; tty?: boolean }): {
  out: Output;
  stdout: string[];
  stderr: string[];
} {
  const stdout: string[] = [];
  const stderr: string[] = [];
  const out = new Output({
    stdout: { isTTY: options.tty, write: (text) => stdout.push(text) },
    stderr: { isTTY: options.tty, write: (text) => stderr.push(text) },
    json: options.json ?? false,
    color: options.color ?? true,
  });
  return { out, stdout, stderr };
}

const failure = new CliError(ExitCode.refused, 'name-taken', 'alice is taken', 'choose another name');

test('people read lines, programs read one object a line', () => {
  const people = recorder({});
  people.out.event('message', { text: 'hi' }, 'alice: ', { text: 'hi', style: 'bold' });
  people.out.finish({ count: 1 });
  assert.deepEqual(people.stdout, ['alice: hi\n']);

  const programs = recorder({ json: true });
  programs.out.event('message', { text: 'hi' }, 'alice: hi');
  programs.out.say('not for programs');
  programs.out.progress('not for programs either');
  programs.out.finish({ count: 1 });
  assert.deepEqual(programs.stdout, ['{"v":1,"type":"message","text":"hi"}\n', '{"v":1,"type":"result","count":1}\n']);
  assert.deepEqual(programs.stderr, []);
});

test('an error is one line with cause and next step, or the last JSON line', () => {
  const people = recorder({});
  people.out.fail(failure);
  assert.deepEqual(people.stderr, ['qpc: alice is taken; choose another name\n']);
  assert.deepEqual(people.stdout, []);

  const programs = recorder({ json: true });
  programs.out.fail(failure);
  assert.deepEqual(programs.stdout, [
    '{"v":1,"type":"error","code":"name-taken","message":"alice is taken","hint":"choose another name"}\n',
  ]);
});

test('sentences of the SDK become one line of the same look', () => {
  const { out, stderr } = recorder({});
  out.fail(new CliError(ExitCode.localState, 'x', 'The profile is in use.', 'Close the other qpc. Then try again.'));
  assert.deepEqual(stderr, ['qpc: The profile is in use; close the other qpc. Then try again\n']);
});

test('nothing follows the last line', () => {
  const { out, stdout } = recorder({ json: true });
  out.finish({});
  out.fail(failure);
  out.finish({});
  out.event('late', {});
  assert.equal(stdout.length, 1);
});

test('colour goes to a terminal only, and only when wanted', () => {
  const shown = (options: { color: boolean; tty: boolean }): string => {
    const { out, stdout } = recorder(options);
    out.say({ text: 'alice', style: 'bold' });
    return stdout.join('');
  };
  assert.equal(shown({ color: true, tty: true }), '\u001b[1malice\u001b[0m\n');
  assert.equal(shown({ color: true, tty: false }), 'alice\n');
  assert.equal(shown({ color: false, tty: true }), 'alice\n');
  assert.equal(wantsColor(true, {}), true);
  assert.equal(wantsColor(false, {}), false);
  assert.equal(wantsColor(true, { NO_COLOR: '1' }), false);
  assert.equal(wantsColor(true, { TERM: 'dumb' }), false);
});

// THREATS 28
test('no segment can bring an escape sequence of its own, coloured or not', () => {
  const { out, stdout, stderr } = recorder({ tty: true });
  const evil = '\u001b[2Jevil\u202e';
  out.say(evil, { text: evil, style: 'red' }, { text: `${evil}\n${evil}`, block: 2 });
  out.warn(evil);
  out.fail(new CliError(ExitCode.usage, 'usage', evil, evil));
  for (const text of [...stdout, ...stderr]) {
    const ours = ['0', '31', '33'].reduce((rest, code) => rest.replaceAll(`\u001b[${code}m`, ''), text);
    assert.doesNotMatch(ours.replaceAll('\n', ''), /[\p{Cc}\p{Bidi_Control}]/u);
  }
});

test('columns never run together', () => {
  assert.equal(column('bob', 6), 'bob   ');
  assert.equal(column('bartholomew', 6), 'bartholomew ');
});
