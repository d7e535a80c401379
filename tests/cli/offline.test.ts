// What `qpc` does without a server: first steps, help, bad input, and how it behaves in a pipe.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { QPC_MAIN, World } from './world.ts';

const world = new World();
const QPC_BIN = fileURLToPath(new URL('../../apps/qpc/bin/qpc.js', import.meta.url));

interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function run(command: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Outcome> {
  const { promise, resolve } = Promise.withResolvers<Outcome>();
  const options = { env: { ...world.env, ...env }, cwd: world.folder };
  const child = execFile(command, args, options, (error, stdout, stderr) => {
    resolve({ code: typeof error?.code === 'number' ? error.code : error ? -1 : 0, stdout, stderr });
  });
  child.stdin?.end();
  return promise;
}

const qpc = (...words: string[]): Promise<Outcome> => run(process.execPath, [QPC_MAIN, ...words]);

function lastLine(stdout: string): Record<string, unknown> {
  const value: unknown = JSON.parse(stdout.trimEnd().split('\n').at(-1) ?? '');
  assert.ok(typeof value === 'object' && value !== null);
  return { ...value };
}

test('without arguments it shows three commands to begin with', async () => {
  const { code, stdout, stderr } = await qpc();
  assert.deepEqual([code, stderr], [0, '']);
  assert.match(stdout, /qpc demo[\s\S]*qpc register-user[\s\S]*qpc dm bob/u);
  assert.ok(stdout.split('\n').length <= 12);
});

test('help needs neither the SDK nor a profile, and makes none', async () => {
  const probe = `
    import { registerHooks } from 'node:module';
    registerHooks({ load: (url, context, next) => { process.stderr.write(url + '\\n'); return next(url, context); } });`;
  const { code, stdout, stderr } = await run(process.execPath, [
    '--import',
    `data:text/javascript,${encodeURIComponent(probe)}`,
    QPC_MAIN,
    '--help',
  ]);
  assert.equal(code, 0);
  assert.match(stdout, /group create/u);
  assert.match(stderr, /command-table/u);
  assert.doesNotMatch(stderr, /packages\/|sqlite|http3|argon2/u);
  assert.deepEqual(
    readdirSync(world.folder).filter((name) => name.startsWith('.local')),
    [],
  );
});

const USAGE: readonly (readonly [name: string, code: string, words: readonly string[]])[] = [
  ['an unknown command', 'unknown-command', ['sned', 'bob']],
  ['a missing argument', 'usage', ['send']],
  ['an unknown flag', 'usage', ['ping', '--fast']],
  ['an address that is none', 'bad-server', ['ping', '--server', 'host:99999']],
  ['an IP address without a name', 'server-name-needed', ['ping', '--server', '192.0.2.1']],
  ['a duration that is none', 'bad-duration', ['ping', '--timeout', 'soon']],
  ['a certificate that is not there', 'bad-ca-cert', ['ping', '--ca-cert', 'absent.pem']],
  ['a certificate that is none', 'bad-ca-cert', ['ping', '--ca-cert', QPC_MAIN]],
  ['a profile name that leaves its folder', 'bad-profile', ['whoami', '--profile', '../other']],
  ['a username with control characters', 'invalid-username', ['register-user', 'al\u001b[2Jice']],
  ['a username with capitals', 'invalid-username', ['register-user', 'Alice']],
  ['two names', 'usage', ['register-user', 'alice', '--username', 'bob']],
  ['a count that is none', 'usage', ['recv', '--wait', '--count', 'many']],
];

for (const [name, code, words] of USAGE) {
  test(`${name} is a usage error, exit code 2, in one line`, async () => {
    const people = await qpc(...words);
    assert.equal(people.code, 2, people.stderr);
    assert.equal(people.stdout, '');
    assert.match(people.stderr, /^qpc: [^\n]+; [^\n]+\n$/u);
    assert.doesNotMatch(people.stderr.trimEnd(), /[\p{Cc}\p{Bidi_Control}]/u);
    const programs = await qpc('--json', ...words);
    assert.equal(programs.code, 2);
    const line = lastLine(programs.stdout);
    assert.deepEqual([line['v'], line['type'], line['code']], [1, 'error', code]);
  });
}

test('a profile that is not there says how to make one, exit code 6, and is not made', async () => {
  for (const words of [['whoami'], ['send', 'bob', 'hi'], ['recv'], ['login', 'alice']]) {
    const { code, stdout } = await qpc('--json', '--profile', 'nobody', ...words);
    assert.deepEqual([code, lastLine(stdout)['code']], [6, 'profile-missing'], words.join(' '));
  }
  assert.throws(() => statSync(path.join(world.folder, '.local/share/quicprochat/nobody')));
});

test('a server that is away is exit code 3, within a bounded time', async () => {
  const cert = path.join(world.folder, 'some.pem');
  writeFileSync(cert, SOME_CERTIFICATE);
  const { code, stdout } = await qpc('--json', 'ping', '--server', '127.0.0.1:9', '--ca-cert', cert);
  const line = lastLine(stdout);
  assert.deepEqual([code, line['code']], [3, 'server-away']);
  assert.match(String(line['hint']), /qpc-server/u);
});

test('--timeout ends a command with 124', async () => {
  const cert = path.join(world.folder, 'some.pem');
  writeFileSync(cert, SOME_CERTIFICATE);
  // Takes what comes and never answers.
  const silent = createSocket('udp4');
  silent.bind(0, '127.0.0.1');
  await once(silent, 'listening');
  const server = `127.0.0.1:${silent.address().port}`;
  const { code, stdout } = await qpc('--json', 'ping', '--server', server, '--ca-cert', cert, '--timeout', '700ms');
  silent.close();
  assert.deepEqual([code, lastLine(stdout)['code']], [124, 'timeout']);
});

test('a reader that goes away early is no failure', async () => {
  const script = `set -o pipefail; "$0" "$1" --help | head -1`;
  const { code, stdout, stderr } = await run('/bin/bash', ['-c', script, process.execPath, QPC_MAIN]);
  assert.deepEqual([code, stdout.split('\n').length, stderr], [0, 2, '']);
});

test('the launcher keeps its compile cache in a private folder of the user', async () => {
  const cache = path.join(world.folder, 'xdg-cache');
  mkdirSync(cache);
  const { code, stdout } = await run(process.execPath, [QPC_BIN, '--version'], { XDG_CACHE_HOME: cache });
  assert.equal(code, 0);
  assert.match(stdout, /^qpc \d+\.\d+\.\d+\n$/u);
  assert.equal(statSync(path.join(cache, 'quicprochat/compile-cache')).mode & 0o777, 0o700);
});

test('on an old Node the launcher says which one it needs', async () => {
  const old = `data:text/javascript,Object.defineProperty(process.versions,'node',{value:'20.1.0'});Object.defineProperty(process,'version',{value:'v20.1.0'})`;
  const { code, stdout, stderr } = await run(process.execPath, ['--import', old, QPC_BIN, 'ping'], {
    QPC_RELAUNCHED: '1',
  });
  assert.deepEqual([code, stdout], [1, '']);
  assert.equal(
    stderr,
    'qpc needs Node 24 or newer; this is v20.1.0. Install it from https://nodejs.org, then run qpc again.\n',
  );
});

test('on an old Node the launcher uses the platform package, and passes words and exit code on', async () => {
  // The preload pretends to be old only for the process that was not started anew.
  const old = `data:text/javascript,if(!process.env.QPC_RELAUNCHED)Object.defineProperty(process.versions,'node',{value:'20.1.0'})`;
  const { code, stdout } = await run(process.execPath, ['--import', old, QPC_BIN, '--json', 'sned']);
  assert.deepEqual([code, lastLine(stdout)['code']], [2, 'unknown-command']);
});

/** Self-signed by nobody in particular; vouches for no server. */
const SOME_CERTIFICATE = `-----BEGIN CERTIFICATE-----
MIIBlTCCATugAwIBAgIUe3CP7qxKCgUXcJlRB+kUcPt9wc0wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTEyMTA0MloYDzIxMjYxMDI4
MTIxMDQyWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAT3BvZggnWfIjEE+PJ8kmOkJld/GW/mNmo+92GxBhEiVdTLY2fGYURO
aSwpGC5e6PZAxwOssDgaPg0RcTRVVzLDo2kwZzAdBgNVHQ4EFgQU3a4ZV+FOfwyF
heQZKUonjiMm2DEwHwYDVR0jBBgwFoAU3a4ZV+FOfwyFheQZKUonjiMm2DEwDwYD
VR0TAQH/BAUwAwEB/zAUBgNVHREEDTALgglsb2NhbGhvc3QwCgYIKoZIzj0EAwID
SAAwRQIhAILleSTT4w78Tl+t8rsFKfPsJI0NAt3wA4huNIhUBHr/AiBzqVeaNITJ
whc5T7y8EpsX2TQX39tqUL1Supar1KsJjw==
-----END CERTIFICATE-----
`;
