import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { CliError } from './errors.ts';
import { LINE_BYTES_MAX, LineReader } from './line-reader.ts';

const isUsage = (error: unknown): boolean => error instanceof CliError && error.exitCode === 2;

test('lines come whole, however the pipe cut them, and the last needs no line break', async () => {
  const input = new PassThrough();
  const lines = new LineReader(input);
  const first = lines.next();
  input.write('pass');
  input.write('word\r\ntwo\n\nGr');
  assert.equal(await first, 'password');
  assert.equal(await lines.next(), 'two');
  assert.equal(await lines.next(), '');
  const bytes = Buffer.from('üße');
  input.write(bytes.subarray(0, 1));
  input.end(bytes.subarray(1));
  assert.equal(await lines.next(), 'Grüße');
  assert.equal(await lines.next(), undefined);
  assert.equal(await lines.next(), undefined);
});

test('a password line and the text after it share one pipe', async () => {
  const input = new PassThrough();
  const lines = new LineReader(input);
  input.end('secret\nline one\nline two\n');
  assert.equal(await lines.next(), 'secret');
  assert.equal(await lines.rest(100), 'line one\nline two\n');
});

test('a line without end is refused before it fills memory, and reading goes on after it', async () => {
  const input = new PassThrough();
  const lines = new LineReader(input);
  const refused = lines.next();
  for (let i = 0; i < 40; i += 1) input.write('x'.repeat(10_000));
  input.write('\nnext\n');
  await assert.rejects(refused, isUsage);
  assert.equal(await lines.next(), 'next');
  input.end('y'.repeat(LINE_BYTES_MAX));
  assert.equal((await lines.next())?.length, LINE_BYTES_MAX);
});

test('bytes that are not UTF-8 are refused, not guessed', async () => {
  const input = new PassThrough();
  const lines = new LineReader(input);
  input.end(Buffer.from([0x68, 0xff, 0x0a, 0x68, 0x0a]));
  await assert.rejects(lines.next(), isUsage);
  assert.equal(await lines.next(), 'h');
});

test('too much text is refused', async () => {
  const input = new PassThrough();
  const lines = new LineReader(input);
  input.end('x'.repeat(101));
  await assert.rejects(lines.rest(100), isUsage);
});

test('waiting ends when the command is stopped', async () => {
  const lines = new LineReader(new PassThrough());
  const stop = new AbortController();
  const waiting = lines.next(stop.signal);
  stop.abort(new Error('stopped'));
  await assert.rejects(waiting, /stopped/u);
});

test('a broken input is told as such', async () => {
  const input = new PassThrough();
  const lines = new LineReader(input);
  const waiting = lines.next();
  input.destroy(new Error('EIO'));
  await assert.rejects(waiting, (error) => error instanceof CliError && error.code === 'input-failed');
});

test('a line that the terminal has cut is refused, not taken for the whole', async () => {
  const input = Object.assign(new PassThrough(), { isTTY: true });
  const lines = new LineReader(input);
  input.end(`${'x'.repeat(4095)}\n${'y'.repeat(4094)}\n`);
  await assert.rejects(lines.next(), (error) => isUsage(error) && /nothing was sent/.test(String(error)));
  assert.equal(await lines.next(), 'y'.repeat(4094));
  const pipe = new PassThrough();
  pipe.end(`${'x'.repeat(4095)}\n`);
  assert.equal(await new LineReader(pipe).next(), 'x'.repeat(4095));
});
