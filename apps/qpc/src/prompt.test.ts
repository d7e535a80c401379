// Asking for a password on a real pseudo-terminal: what a person sees, types and gets back.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { spawn } from '@lydell/node-pty';

const PROMPT = new URL('./prompt.ts', import.meta.url).href;

/** Asks twice and prints the answers reversed, so that an echo of what was typed cannot be mistaken for the result. */
const PROGRAM = `
  import { askHidden, openTerminal } from ${JSON.stringify(PROMPT)};
  const terminal = openTerminal();
  try {
    for (const question of ['First: ', 'Second: ']) {
      const answer = await askHidden(terminal, question);
      console.log('got ' + [...answer].toReversed().join('') + ' ' + answer.length + ' raw=' + Boolean(process.stdin.isRaw) + '.');
    }
  } catch (error) {
    console.log('refused ' + error.code + ' raw=' + Boolean(process.stdin.isRaw) + '.');
  }
  terminal.close();
`;

interface Screen {
  readonly text: () => string;
  shows(wanted: string): Promise<void>;
  type(keys: string): void;
  readonly ended: Promise<number>;
}

function open(command: string, args: readonly string[]): Screen {
  const pty = spawn(command, [...args], { cols: 200, rows: 50 });
  let text = '';
  let wake = Promise.withResolvers<void>();
  const ended = Promise.withResolvers<number>();
  pty.onData((chunk) => {
    text += chunk;
    wake.resolve();
    wake = Promise.withResolvers();
  });
  pty.onExit(({ exitCode }) => {
    ended.resolve(exitCode);
    wake.resolve();
  });
  let over = false;
  void ended.promise.then(() => (over = true));
  return {
    text: () => text,
    shows: async (wanted) => {
      while (!text.includes(wanted)) {
        assert.ok(!over, `the program ended and had shown: ${text}`);
        await wake.promise;
      }
    },
    type: (keys) => pty.write(keys),
    ended: ended.promise,
  };
}

function ask(): Screen {
  return open(process.execPath, ['--input-type=module', '-e', PROGRAM]);
}

test('nothing typed is shown, and the terminal is as before', async () => {
  const screen = ask();
  await screen.shows('First: ');
  screen.type('s3cret-word\r');
  await screen.shows('got drow-terc3s 11 raw=false.');
  await screen.shows('Second: ');
  screen.type('another\n');
  await screen.shows('got rehtona 7 raw=false.');
  assert.equal(await screen.ended, 0);
  assert.ok(!screen.text().includes('s3cret'));
  assert.ok(!screen.text().includes('another'));
});

test('backspace, clear line, and characters of several bytes work as expected', async () => {
  const screen = ask();
  await screen.shows('First: ');
  screen.type('wrong\u0015abX\u007f\u001bc\r');
  await screen.shows('got cba 3');
  await screen.shows('Second: ');
  screen.type('pässwörd😀!\u007f\u007f\r');
  await screen.shows('got dröwssäp 8');
  assert.equal(await screen.ended, 0);
});

test('Ctrl+C interrupts, Ctrl+D on an empty line gives up, and both put the terminal back', async () => {
  const interrupted = ask();
  await interrupted.shows('First: ');
  interrupted.type('half\u0003');
  await interrupted.shows('refused interrupted raw=false.');
  const given = ask();
  await given.shows('First: ');
  given.type('\u0004');
  await given.shows('refused no-password raw=false.');
  assert.deepEqual([await interrupted.ended, await given.ended], [0, 0]);
});

test('with standard input in a pipe the question goes to the terminal itself', async () => {
  const script = `echo from-the-pipe | "$0" --input-type=module -e "$1"`;
  const screen = open('/bin/sh', ['-c', script, process.execPath, PROGRAM]);
  await screen.shows('First: ');
  screen.type('typed-one\r');
  await screen.shows('got eno-depyt 9');
  await screen.shows('Second: ');
  screen.type('typed-two\r');
  await screen.shows('got owt-depyt 9');
  assert.equal(await screen.ended, 0);
  assert.ok(!screen.text().includes('typed-'));
});
