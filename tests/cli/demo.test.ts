// `qpc demo`, as `npm run demo` starts it: every step holds, and nothing is left behind.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { connect } from 'node:net';
import path from 'node:path';
import { test } from 'node:test';
import { QPC_MAIN, World } from './world.ts';

const world = new World();

function temporary(name: string): NodeJS.ProcessEnv {
  const folder = path.join(world.folder, name);
  mkdirSync(folder);
  return { ...world.env, TMPDIR: folder };
}

test('all steps succeed, with their times, and the folder is gone afterwards', async () => {
  const env = temporary('whole');
  const demo = world.run('demo', QPC_MAIN, ['demo', '--json'], env);
  const result = await demo.result();
  const steps = demo.events.filter((event) => event.type === 'step');
  assert.ok(steps.every((step) => step['ok'] === true && typeof step['ms'] === 'number'));
  const names = ['server', 'register', 'restart', 'direct', 'group', 'chat', 'race', 'crash', 'remove', 'blind'];
  assert.deepEqual(
    steps.map((step) => step['name']),
    names,
  );
  assert.equal(result['steps'], names.length);
  assert.deepEqual(readdirSync(String(env['TMPDIR'])), []);
});

test('interrupted, it ends what it started and removes its folder', async () => {
  const env = temporary('interrupted');
  const demo = world.run('demo', QPC_MAIN, ['demo', '--json'], env);
  await demo.event('the first step', (event) => event.type === 'step');
  demo.kill('SIGINT');
  const failure = await demo.failure();
  assert.equal(failure.exitCode, 130);
  assert.deepEqual(readdirSync(String(env['TMPDIR'])), []);
});

test('--keep leaves the folder, with what the server has', async () => {
  const env = temporary('kept');
  const demo = world.run('demo', QPC_MAIN, ['demo', '--json', '--keep'], env);
  await demo.event('the first step', (event) => event.type === 'step');
  demo.kill('SIGINT');
  await demo.failure();
  const [folder = ''] = readdirSync(String(env['TMPDIR']));
  assert.ok(existsSync(path.join(world.folder, 'kept', folder, 'server')));
});

test('killed, it leaves no server behind', async () => {
  const env = temporary('killed');
  const demo = world.run('demo', QPC_MAIN, ['demo', '--json'], env);
  await demo.event('the first step', (event) => event.type === 'step');
  const [folder = ''] = readdirSync(String(env['TMPDIR']));
  // A server that stops removes it, and then ends who is connected to it.
  const socket = path.join(world.folder, 'killed', folder, 'server', 'control.sock');
  const toServer = connect(socket);
  await once(toServer, 'connect');
  // The server may be gone before we hear that the demo is.
  const ended = once(toServer, 'close');
  demo.kill('SIGKILL');
  await Promise.all([demo.exited, ended]);
  assert.equal(existsSync(socket), false);
});
