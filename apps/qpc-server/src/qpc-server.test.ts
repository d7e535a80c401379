// The program as people and scripts see it: its ready line, its exit codes, its one-line errors.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { makeTestCertificate } from '../../../packages/server/src/testing/certificates.node.ts';
import { run as runHere } from './run.ts';

const main = fileURLToPath(new URL('main.ts', import.meta.url));
let folder: string;
before(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'qpc-server-program-'));
});
after(() => rmSync(folder, { recursive: true, force: true }));

interface Result {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

class Program {
  readonly child: ChildProcess;
  readonly ended: Promise<Result>;
  #out = '';
  #err = '';
  #lines: (() => void)[] = [];

  constructor(args: readonly string[], environment: Record<string, string> = {}) {
    this.child = spawn(process.execPath, [main, ...args], {
      cwd: folder,
      env: { ...process.env, ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.child.stdout?.on('data', (data: Buffer) => {
      this.#out += data.toString();
      for (const wake of this.#lines.splice(0)) wake();
    });
    this.child.stderr?.on('data', (data: Buffer) => {
      this.#err += data.toString();
    });
    this.ended = new Promise((resolve) => {
      this.child.on('close', (code) => {
        resolve({ code, out: this.#out, err: this.#err });
        for (const wake of this.#lines.splice(0)) wake();
      });
    });
  }

  /** The first complete line of standard output. */
  async firstLine(): Promise<string> {
    while (!this.#out.includes('\n')) {
      assert.equal(this.child.exitCode, null, this.#err);
      await new Promise<void>((resolve) => this.#lines.push(resolve));
    }
    return this.#out.slice(0, this.#out.indexOf('\n'));
  }
}

const run = (args: readonly string[], environment?: Record<string, string>) => new Program(args, environment).ended;

test('ready line, SIGTERM, and a restart on the same folder', async () => {
  const args = ['--data-dir', 'data', '--listen', '127.0.0.1:0', '--json'];
  const program = new Program(args);
  const ready = JSON.parse(await program.firstLine()) as Record<string, unknown>;
  assert.equal(ready['v'], 1);
  assert.equal(ready['type'], 'ready');
  assert.ok(Number(ready['port']) > 0);
  assert.equal(ready['origin'], `localhost:${String(ready['port'])}`);
  assert.equal(ready['pid'], program.child.pid);
  assert.match(readFileSync(String(ready['caCert']), 'utf8'), /BEGIN CERTIFICATE/);

  const second = await run(args);
  assert.equal(second.code, 6);
  assert.equal((JSON.parse(second.out) as Record<string, unknown>)['code'], 'data');
  const samePort = await run(['--data-dir', 'other', '--listen', `127.0.0.1:${String(ready['port'])}`]);
  assert.equal(samePort.code, 3);
  assert.match(samePort.err, /^qpc-server: UDP port \d+ is in use on 127\.0\.0\.1\. Stop .*\n$/m);

  program.child.kill('SIGTERM');
  const { code, out, err } = await program.ended;
  assert.equal(code, 0, err);
  assert.deepEqual(JSON.parse(out.trim().split('\n').at(-1) ?? ''), { v: 1, type: 'result', stopped: true });

  const again = new Program(args.slice(0, -1));
  const line = await again.firstLine();
  assert.match(
    line,
    /^qpc-server 0\.1\.0 is ready on 127\.0\.0\.1:\d+ \(UDP\)\. Try: qpc health --server 127\.0\.0\.1:\d+ --ca-cert /,
  );
  again.child.kill('SIGINT');
  assert.equal((await again.ended).code, 0);
});

test('a certificate that was given is not what clients are told to trust', async () => {
  const { certificate, privateKey } = await makeTestCertificate(['chat.example.org']);
  writeFileSync(path.join(folder, 'given.pem'), certificate);
  writeFileSync(path.join(folder, 'given.key'), privateKey, { mode: 0o600 });
  const tls = ['--origin', 'chat.example.org', '--tls-cert', 'given.pem', '--tls-key', 'given.key'];
  const program = new Program(['--data-dir', 'given', '--listen', '127.0.0.1:0', ...tls]);
  assert.match(
    await program.firstLine(),
    /Try: qpc health --server 127\.0\.0\.1:\d+ --server-name chat\.example\.org$/,
  );
  program.child.kill('SIGTERM');
  assert.equal((await program.ended).code, 0);
});

test('help and version', async () => {
  const help = await run(['--help']);
  assert.equal(help.code, 0);
  for (const part of ['--data-dir', '--listen', '(default: 0.0.0.0:5001)', '--rates-commits', 'Exit codes']) {
    assert.ok(help.out.includes(part), part);
  }
  assert.deepEqual(await run(['--version']), { code: 0, out: '0.1.0\n', err: '' });
});

test('a bad configuration is one line that names the setting, and exit code 2', async () => {
  writeFileSync(path.join(folder, 'bad.toml'), 'listen = "nowhere"\ncolour = "red"\n');
  writeFileSync(path.join(folder, 'broken.toml'), 'listen = \n');
  const cases: [string[], Record<string, string>, RegExp][] = [
    [['--nope'], {}, /unknown option '--nope'/],
    [['extra'], {}, /there is no command "extra"/],
    [['start', 'extra'], {}, /too many arguments/],
    [['status', 'extra'], {}, /too many arguments/],
    [['admin', 'ban'], {}, /missing required argument 'ACCOUNT'/],
    [['status', '--rates-commits', '1'], {}, /unknown option '--rates-commits'/],
    [['--listen', 'x'], {}, /--listen must be/],
    [['--config', path.join(folder, 'bad.toml')], {}, /unknown setting "colour"; listen in \S*bad\.toml must be/],
    [['--config', path.join(folder, 'broken.toml')], {}, /broken\.toml cannot be used/],
    [['--config', path.join(folder, 'missing.toml')], {}, /missing\.toml cannot be read/],
    [[], { QPC_CONNECTIONS_MAX: 'x' }, /QPC_CONNECTIONS_MAX must be a whole number/],
  ];
  for (const [args, environment, expected] of cases) {
    // In this process: a start each would take longer than all the rest.
    let out = '';
    let err = '';
    const stdout = { write: (text: string) => (out += text) };
    const stderr = { write: (text: string) => (err += text) };
    const code = await runHere(args, environment, { stdout, stderr });
    assert.equal(code, 2, args.join(' '));
    assert.equal(out, '');
    assert.match(err, expected);
    assert.match(err, /^qpc-server: [^\n]+\n$/);
  }
});

test('a folder that cannot be used is exit code 6', async () => {
  writeFileSync(path.join(folder, 'file'), '');
  const { code, err } = await run(['--data-dir', 'file/below']);
  assert.equal(code, 6);
  assert.match(err, /^qpc-server: the data folder \S+ cannot be used: .*--data-dir\.\n$/);
});
