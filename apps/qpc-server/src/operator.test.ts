// An operator's day: status, accounts, a ban, reports, a backup and its restoration, first on a
// server that runs, then on the folder it leaves.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { decodeBase64Url, sealReport } from '../../../packages/core/src/index.ts';
import { nodeCrypto } from '../../../packages/crypto/src/provider.node.ts';
import { openSqliteStore } from '../../../packages/server/src/store/sqlite.node.ts';
import { run as runCommand } from './run.ts';

const main = fileURLToPath(new URL('main.ts', import.meta.url));
let folder: string;
let server: ChildProcess;
let serverLog = '';
const at = (...parts: string[]): string => path.join(folder, ...parts);
before(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'qpc-operator-'));
  server = spawn(
    process.execPath,
    [main, 'start', '--data-dir', 'data', '--listen', '127.0.0.1:0', '--metrics-listen', 'off', '--json'],
    {
      cwd: folder,
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
  server.stderr?.on('data', (chunk: Buffer) => (serverLog += chunk.toString()));
  assert.ok(server.stdout);
  const [line] = (await once(createInterface({ input: server.stdout }), 'line')) as [string];
  assert.equal((JSON.parse(line) as { type: string }).type, 'ready');
});
after(() => {
  server.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

interface Result {
  readonly code: number;
  readonly out: string;
  readonly err: string;
  /** With --json: the last line. */
  readonly last: Record<string, unknown>;
}

/** A command in this process: the server is in one of its own, and that is what matters. */
async function run(...words: string[]): Promise<Result> {
  let out = '';
  let err = '';
  const streams = {
    stdout: { write: (text: string) => (out += text) },
    stderr: { write: (text: string) => (err += text) },
  };
  const code = await runCommand(words, { QPC_DATA_DIR: at('data') }, streams);
  const lines = words.includes('--json')
    ? out
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as Record<string, unknown>)
    : [];
  for (const line of lines) assert.equal(line['v'], 1);
  return { code, out, err, last: lines.at(-1) ?? {} };
}

test('a server that runs is asked through its socket', async () => {
  const status = await run('status', '--json');
  const text = await run('status');
  const accounts = await run('admin', 'accounts', '--json');
  const nobody = await run('admin', 'ban', 'nobody', '--for', '7d', '--json');
  const key = await run('admin', 'report-key', '--out', at('report-key'), '--json');
  assert.equal(status.code, 0, status.err);
  assert.equal(status.last['type'], 'result');
  assert.equal(status.last['pid'], server.pid);
  assert.match(String(status.last['startedAt']), /^\d{4}-\d\d-\d\dT/);
  assert.match(text.out, /^server +qpc-server 0\.1\.0, process \d+, running for /);
  assert.match(text.out, /^warning: +the database is not encrypted: see --store-key-file$/m);
  assert.deepEqual([accounts.code, accounts.last], [0, { v: 1, type: 'result', count: 0 }]);
  assert.deepEqual([nobody.code, nobody.last['type'], nobody.last['code']], [4, 'error', 'not-found']);
  assert.equal(key.code, 0, key.out);
  assert.equal(statSync(at('report-key')).mode & 0o777, 0o600);
  assert.ok(existsSync(at('report-key.pub')));
  const again = await run('admin', 'report-key', '--out', at('another'));
  assert.deepEqual([again.code, existsSync(at('another'))], [2, false]);
});

test('what is too long or not there is said in words, in one line', async () => {
  const long = 'x'.repeat(600);
  const cases: readonly (readonly [string[], number, RegExp])[] = [
    [['ban', 'nobody', '--reason', long], 4, /there is no account "nobody"/],
    [['account', long], 4, /there is no account "x+"/],
    [['account', ''], 4, /there is no account ""/],
    [['ban', 'nobody', '--for', '999999d'], 2, /a ban ends within a hundred years\. Leave --for out for good/],
    [['end-sessions', 'nobody'], 4, /there is no account "nobody"/],
  ];
  for (const [words, expected, message] of cases) {
    const { code, out, err } = await run('admin', ...words);
    assert.deepEqual([code, out], [expected, ''], words.join(' '));
    assert.match(err, message);
    assert.match(err, /^qpc-server: [^\n]+\n$/);
  }
  const many = Array.from({ length: 2_500 }, (_, i) => String(i + 1));
  const { code, last } = await run('admin', 'delete-reports', ...many, '--json');
  assert.deepEqual([code, last['deleted']], [0, 0]);
});

test('SIGHUP is a look at the certificate, not the end', async () => {
  server.kill('SIGHUP');
  const reloaded = await run('admin', 'reload-certificate', '--json');
  assert.equal(reloaded.last['replaced'], false);
  assert.ok(server.stderr);
  while (!serverLog.includes('certificate looked at, as SIGHUP asks')) await once(server.stderr, 'data');
});

test('a backup of the running server is made, checked and restored; wrong ones are told apart by exit code', async () => {
  const made = await run('backup', at('backup'), '--with-secrets', '--json');
  assert.deepEqual([made.code, made.last['withSecrets']], [0, true], made.err + made.out);
  assert.match(made.err, /guard it like the server itself/);
  const twice = await run('backup', at('backup'));
  const checked = await run('restore', at('backup'), '--check', '--json');
  const restored = await run('restore', at('backup'), '--data-dir', at('restored'), '--json');
  const absent = await run('restore', at('nowhere'), '--check');
  assert.equal(twice.code, 4);
  assert.deepEqual([checked.code, checked.last['restored']], [0, false]);
  assert.deepEqual([restored.code, restored.last['restored'], restored.last['secretsMissing']], [0, true, []]);
  assert.match(restored.err, /the key-transparency log goes back to \d+ entr/);
  assert.equal(absent.code, 5);
  const audited = readFileSync(at('data', 'audit.log'), 'utf8');
  for (const event of ['report_key_set', 'backup_made'])
    assert.match(audited, new RegExp(`"event":"${event}".*"by":"operator"`));
  const manifest = JSON.parse(readFileSync(at('backup', 'manifest.json'), 'utf8')) as { origin: string };
  assert.equal(manifest.origin, status(await run('status', '--json')));
});

test('without a server, its folder is opened instead; what needs one says so', async () => {
  server.kill('SIGTERM');
  await once(server, 'close');
  const status = await run('status', '--json');
  const bans = await run('admin', 'bans', '--json', '--data-dir', at('restored'));
  const reload = await run('admin', 'reload-certificate');
  const sealed = await run('admin', 'delete-reports', 'x');
  const read = await run('admin', 'reports', '--key', at('report-key.pub'), '--data-dir', at('restored'));
  const nothing = await run('admin', 'accounts', '--data-dir', at('elsewhere'));
  assert.deepEqual([status.code, status.last['code']], [3, 'not-running']);
  assert.deepEqual([bans.code, bans.last['count']], [0, 0], bans.out);
  assert.equal(reload.code, 3);
  assert.match(reload.err, /no server runs on/);
  const device = await run('admin', 'end-sessions', 'alice', '--device', 'zz', '--data-dir', at('restored'));
  assert.equal(device.code, 2);
  assert.match(device.err, /^qpc-server: --device takes an id of 32 hex digits, not "zz"\. [^\n]*\n$/);
  assert.deepEqual([sealed.code, read.code, nothing.code], [2, 6, 6]);
  assert.match(nothing.err, /there is no server in .*elsewhere/);
  assert.equal(existsSync(at('elsewhere')), false);
});

test('a report with an absurd date is read like any other, and tells a terminal nothing', async () => {
  const publicKey = decodeBase64Url(readFileSync(at('report-key.pub'), 'utf8').trim());
  assert.ok(publicKey !== undefined);
  const channelId = nodeCrypto.random(16);
  const [identityKey, deviceId, contentId] = [nodeCrypto.random(32), nodeCrypto.random(16), nodeCrypto.random(16)];
  const text = 'first line\n    2026-01-01T00:00:00.000Z alice: forged\u001b[2J\u009b2J\u202e';
  const message = { senderUsername: 'm\u001b[31m', senderIdentity: identityKey, contentId, text };
  const reporter = { identityKey, deviceId };
  const times = { reportedAtMs: Number.MAX_SAFE_INTEGER, sentAtMs: Number.MAX_SAFE_INTEGER };
  const report = sealReport(nodeCrypto, {
    reportKey: publicKey,
    origin: await originOf('restored'),
    channelId,
    content: {
      reporterUsername: 'mallory\u0007',
      reporter,
      reason: 'a\rb',
      messages: [{ ...message, ...times }],
      ...times,
    },
    devicePrivateKey: nodeCrypto.random(32),
  });
  const store = await openSqliteStore({ path: at('restored', 'qpc.db') });
  await store.addReport({ report, conversationId: channelId, receivedAtMs: Date.now() });
  await store.close();
  const words = ['admin', 'reports', '--key', at('report-key'), '--data-dir', at('restored')];
  const plain = await run(...words);
  const json = await run(...words, '--json');
  assert.deepEqual([plain.code, json.code, json.last['unreadable']], [0, 0, 0], plain.err + json.err);
  assert.match(plain.out, /\(no such date\) m: first line {5}2026-01-01T00:00:00\.000Z alice: forged$/m);
  for (const out of [plain.out, json.out]) assert.doesNotMatch(out.replaceAll('\n', ''), /\p{Cc}|\p{Bidi_Control}/u);
});

test('a report key that is refused leaves no files that look like one', async () => {
  writeFileSync(at('config.toml'), `report_key_file = "${at('report-key.pub')}"\n`);
  const words = ['--out', at('orphan'), '--replace', '--config', at('config.toml'), '--data-dir', at('restored')];
  const { code, err } = await run('admin', 'report-key', ...words);
  assert.equal(code, 4, err);
  assert.match(err, /the configuration names the report key/);
  assert.deepEqual([existsSync(at('orphan')), existsSync(at('orphan.pub'))], [false, false]);
});

test('a server that hangs keeps nobody: an interrupt ends the command', async () => {
  mkdirSync(at('hung'));
  const hung = net.createServer(() => process.emit('SIGINT', 'SIGINT')).listen(at('hung', 'control.sock'));
  await once(hung, 'listening');
  for (const words of [['status'], ['admin', 'accounts'], ['backup', at('never')]]) {
    const { code, last } = await run(...words, '--json', '--data-dir', at('hung'));
    assert.deepEqual([code, last['code']], [130, 'interrupted'], words.join(' '));
  }
  hung.close();
});

test('every command has help, and an unknown one is a usage error', async () => {
  const group = await run('admin');
  const ban = await run('admin', 'ban', '--help');
  const unknown = await run('admin', 'nope', '--json');
  assert.match(group.out, /admin ban ACCOUNT +shut an account out/);
  assert.match(ban.out, /--reason <TEXT>/);
  assert.deepEqual([unknown.code, unknown.last['code']], [2, 'config']);
});

async function originOf(dataDir: string): Promise<string> {
  const store = await openSqliteStore({ path: at(dataDir, 'qpc.db') });
  const origin = await store.getSetting('origin');
  await store.close();
  return new TextDecoder().decode(origin);
}

function status({ last }: Result): unknown {
  return last['origin'];
}
