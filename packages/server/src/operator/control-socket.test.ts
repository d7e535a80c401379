// The operator's door: only the server's user may open it, and whoever misbehaves at it harms nobody else.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { invalidArgument } from '../refusals.ts';
import { TestLog } from '../testing/world.node.ts';
import { callControl, ControlError, listenControl, OperatorRefusal } from './control-socket.node.ts';
import type { ControlListener } from './control-socket.node.ts';

let folder: string;
let given: AbortSignal | undefined;
const log = new TestLog();
const listeners: ControlListener[] = [];
before(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'qpc-control-'));
});
after(() => rmSync(folder, { recursive: true, force: true }));
afterEach(async () => {
  for (const listener of listeners.splice(0)) await listener.close();
});

async function listen(name: string): Promise<string> {
  const dataDir = path.join(folder, name);
  if (!existsSync(dataDir)) mkdirSync(dataDir, { mode: 0o755 });
  const listener = await listenControl(
    dataDir,
    new Map<string, (input: unknown, call: { progress(p: object): void; signal: AbortSignal }) => Promise<unknown>>([
      ['echo', (input) => Promise.resolve(input)],
      ['refuse', () => Promise.reject(invalidArgument('no', 'Say yes.'))],
      ['fail', () => Promise.reject(new Error('a secret detail'))],
      [
        'count',
        async (_, call) => {
          for (let at = 1; at <= 3; at++) call.progress({ at });
          return 'done';
        },
      ],
      [
        'wait',
        (_, { signal }) =>
          new Promise((_resolve, reject) => {
            given = signal;
            signal.addEventListener('abort', () => reject(signal.reason as Error));
          }),
      ],
    ]),
    log,
  );
  assert.ok(listener !== undefined);
  listeners.push(listener);
  return dataDir;
}

/** What a raw client hears until it is cut off. */
function say(dataDir: string, text: string): Promise<string> {
  return new Promise((resolve) => {
    let heard = '';
    const socket = net.createConnection(path.join(dataDir, 'control.sock'));
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => (heard += chunk));
    socket.on('error', () => {});
    socket.on('close', () => resolve(heard));
    socket.write(text);
  });
}

test('answers, progress and refusals come through; a fault says nothing of itself but in the log', async () => {
  const dataDir = await listen('plain');
  const request = { text: 'ä'.repeat(1_000), list: [1, { two: null }] };
  assert.deepEqual(await callControl(dataDir, 'echo', request), { kind: 'answer', answer: request });
  const seen: unknown[] = [];
  const counted = await callControl(dataDir, 'count', {}, { onProgress: (progress) => seen.push(progress) });
  assert.deepEqual([counted, seen], [{ kind: 'answer', answer: 'done' }, [{ at: 1 }, { at: 2 }, { at: 3 }]]);
  const refusal = (code: string, message: string) => (error: unknown) =>
    error instanceof OperatorRefusal && error.code === code && error.message === message;
  await assert.rejects(callControl(dataDir, 'refuse', {}), refusal('invalid-argument', 'no'));
  await assert.rejects(callControl(dataDir, 'fail', {}), refusal('internal', 'a fault of the server'));
  assert.ok(log.lines.some((line) => line.includes('a secret detail')));
  await assert.rejects(callControl(dataDir, 'nonsense', {}), (error: unknown) => {
    return error instanceof OperatorRefusal && error.code === 'unimplemented';
  });
});

test('only the owner may open it, even in a folder that others may enter', async () => {
  const dataDir = await listen('modes');
  assert.equal(statSync(path.join(dataDir, 'control.sock')).mode & 0o777, 0o600);
  assert.deepEqual(readdirSync(dataDir), ['control.sock']);
});

test('garbage, too much of it and silence after a request are cut off', async () => {
  const dataDir = await listen('garbage');
  for (const text of ['nonsense\n', '[]\n', '{"v":2,"operation":"echo","input":{}}\n', '{"v":1,"operation":"echo"']) {
    const heard = await say(dataDir, text.includes('\n') ? text : `${text}\n`);
    assert.match(heard, /"type":"refused","code":"unimplemented"/);
  }
  assert.equal(await say(dataDir, 'x'.repeat(70_000)), '');
  assert.equal(await say(dataDir, '{"v":1,"operation":"wait","input":{}}\nand more\n'), '');
  assert.deepEqual(await callControl(dataDir, 'echo', {}), { kind: 'answer', answer: {} });
});

test('who goes away gives up what was asked for, and a server that stops says so', async () => {
  const dataDir = await listen('leaving');
  const stop = new AbortController();
  const waiting = callControl(dataDir, 'wait', {}, { signal: stop.signal });
  await callControl(dataDir, 'echo', {});
  assert.equal(given?.aborted, false);
  const noticed = new Promise((resolve) => given?.addEventListener('abort', resolve));
  stop.abort(new Error('enough'));
  await assert.rejects(waiting, /enough/);
  await noticed;

  const cut = callControl(dataDir, 'wait', {});
  await callControl(dataDir, 'echo', {});
  await Promise.all([assert.rejects(cut, ControlError), listeners.pop()?.close()]);
  assert.equal(existsSync(path.join(dataDir, 'control.sock')), false);
  assert.deepEqual(await callControl(dataDir, 'echo', {}), { kind: 'not-running' });
});

test('a server that stops waits until what was asked for has been given up', async () => {
  const dataDir = path.join(folder, 'tidy');
  mkdirSync(dataDir);
  const begun = Promise.withResolvers<void>();
  let isTidy = false;
  const backUp = async (_: unknown, { signal }: { signal: AbortSignal }): Promise<never> => {
    begun.resolve();
    await new Promise((resolve) => signal.addEventListener('abort', resolve));
    rmSync(await mkdtemp(path.join(dataDir, 'half-')), { recursive: true });
    isTidy = true;
    throw signal.reason;
  };
  const listener = await listenControl(dataDir, new Map([['backUp', backUp]]), log);
  const asked = assert.rejects(callControl(dataDir, 'backUp', {}), ControlError);
  await begun.promise;
  await listener?.close();
  assert.ok(isTidy);
  await asked;
});

test('who has given up asks nothing', async () => {
  const dataDir = await listen('given-up');
  await assert.rejects(callControl(dataDir, 'echo', {}, { signal: AbortSignal.abort(new Error('enough')) }), /enough/);
});

test('what a killed server left is no server, and does not keep the next one from starting', async () => {
  const dataDir = path.join(folder, 'stale');
  mkdirSync(dataDir);
  writeFileSync(path.join(dataDir, 'control.sock'), '');
  mkdirSync(path.join(dataDir, `.c${process.pid}`));
  assert.deepEqual(await callControl(dataDir, 'echo', {}), { kind: 'not-running' });
  await listen('stale');
  assert.deepEqual(await callControl(dataDir, 'echo', {}), { kind: 'answer', answer: {} });
});

test('a name too long for a socket is gone without', async () => {
  const dataDir = path.join(folder, 'd'.repeat(120));
  mkdirSync(dataDir);
  assert.equal(await listenControl(dataDir, new Map(), log), undefined);
  assert.ok(log.lines.at(-1)?.includes('too long'));
  assert.deepEqual(await callControl(dataDir, 'echo', {}), { kind: 'not-running' });
});
