// The README's commands, run as they stand there. Only the ports differ (by QPC_LISTEN and QPC_SERVER), and the passwords
// come from QPC_PASSWORD, because nobody sits at a terminal here.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';

const root = path.join(import.meta.dirname, '..');
const readme = readFileSync(path.join(root, 'README.md'), 'utf8');
const folder = mkdtempSync(path.join(tmpdir(), 'qpc-readme-'));
const started: ChildProcess[] = [];
const environment: NodeJS.ProcessEnv = {
  ...process.env,
  XDG_DATA_HOME: path.join(folder, 'data'),
  QPC_LISTEN: '127.0.0.1:0',
  QPC_PASSWORD: 'the password of the readme',
};

after(async () => {
  for (const child of started) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    const gone = once(child, 'exit');
    child.kill('SIGTERM');
    await gone;
  }
  rmSync(folder, { recursive: true, force: true });
});

test('the set-up commands call scripts that exist, and CI calls them as they stand', () => {
  const { scripts } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>;
  };
  const setUp = commands().filter((command) => command.startsWith('npm ci &&'));
  assert.deepEqual(setUp, ['npm ci && npm run demo', 'npm ci && npm test']);
  assert.ok(scripts['demo'] && scripts['test'] && scripts['bench']);
  assert.match(readFileSync(path.join(root, '.ci/run'), 'utf8'), /^npm ci && npm test$/m);
});

test('the quick start works as written', { timeout: 120_000 }, async () => {
  const [serve, ...rest] = section('Quick start');
  assert.equal(serve, 'npx qpc-server');
  const server = start(serve);
  const ready = await firstLine(server, /is ready on .*:(\d+) /);
  environment['QPC_SERVER'] = `127.0.0.1:${ready[1]}`;
  assert.ok(rest.length >= 8, 'the quick start has its commands');
  const outputs = new Map<string, string>();
  for (const command of rest) outputs.set(command, await run(command));
  const said = (start: string): string => [...outputs].find(([command]) => command.startsWith(start))?.[1] ?? '';
  assert.match(said('npx qpc --profile alice recv --follow bob'), /bob: Hello Alice/);
  assert.match(said('npx qpc --profile bob recv'), /alice/);
  assert.match(said('npx qpc --profile bob send Harbour'), /Sent/);
  assert.match(said('npx qpc --profile alice group members'), /alice.*\n.*bob/);
  assert.match(said('npx qpc --profile alice audit'), /bob +verified, version 0\nThe log is consistent/);
});

test('what is said of hosting uses flags that exist', async () => {
  const help = await run('npx qpc-server --help');
  for (const command of section('Host it for others')) {
    if (!command.startsWith('npx qpc-server')) continue;
    for (const [flag] of command.matchAll(/--[a-z-]+/g)) assert.ok(help.includes(flag), flag);
  }
});

function commands(text = readme): string[] {
  return [...text.matchAll(/```sh\n([\s\S]*?)```/g)].flatMap((match) => (match[1] ?? '').trim().split('\n'));
}

function section(title: string): string[] {
  const found = readme.split(/^## /m).find((part) => part.startsWith(title));
  assert.ok(found, `the README has a section ${title}`);
  return commands(found);
}

function start(command: string): ChildProcess {
  const words = [...command.matchAll(/"([^"]*)"|(\S+)/g)].map((match) => match[1] ?? match[2] ?? '');
  const program = words[1] === 'qpc-server' ? 'apps/qpc-server/src/main.ts' : 'apps/qpc/src/main.ts';
  assert.equal(words[0], 'npx');
  const child = spawn(process.execPath, [path.join(root, program), ...words.slice(2)], {
    cwd: folder,
    env: environment,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  started.push(child);
  return child;
}

async function run(command: string): Promise<string> {
  const child = start(command);
  let stdout = '';
  let stderr = '';
  child.stdout?.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const [code] = (await once(child, 'close')) as [number];
  assert.equal(code, 0, `${command}\n${stdout}${stderr}`);
  return stdout;
}

async function firstLine(child: ChildProcess, pattern: RegExp): Promise<RegExpExecArray> {
  child.stderr?.resume();
  assert.ok(child.stdout);
  for await (const line of createInterface({ input: child.stdout })) {
    const match = pattern.exec(line);
    if (match) return match;
  }
  throw new Error('the server ended before it was ready');
}
