// @quicprochat/crypto and @quicprochat/mls as others get them: packed, installed in a folder of its own, type-checked and
// run there. Nothing comes from a registry: what they depend on is copied from here.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { publishedPackages, stagePackages } from '../scripts/stage.ts';

const root = path.join(import.meta.dirname, '..');
const folder = mkdtempSync(path.join(tmpdir(), 'qpc-packages-'));
after(() => rmSync(folder, { recursive: true, force: true }));

test('the packed packages install, type-check and run the examples', { timeout: 120_000 }, () => {
  stagePackages(path.join(folder, 'out'));
  const app = path.join(folder, 'app');
  cpSync(path.join(root, 'packages/mls/examples'), app, { recursive: true });
  writeFileSync(path.join(app, 'package.json'), '{ "type": "module" }');
  const staged = publishedPackages.map((name) => path.join(folder, 'out', name));
  const packed = run('npm', ['pack', '--silent', '--offline', ...staged], app)
    .trim()
    .split('\n');
  const tarballs = packed.map((file) => `./${file}`);
  const noble = ['ciphers', 'curves', 'hashes', 'post-quantum'].map((name) =>
    path.join(root, 'node_modules/@noble', name),
  );
  const options = ['--offline', '--install-links', '--no-audit', '--no-fund', '--ignore-scripts'];
  run('npm', ['install', ...options, ...tarballs, ...noble], app);

  const installed = path.join(app, 'node_modules/@quicprochat/mls');
  assert.deepEqual(Object.keys(manifestOf(installed).dependencies), ['@quicprochat/crypto']);
  assert.equal(manifestOf(installed).private, undefined);
  const files = readdirSync(installed, { recursive: true, encoding: 'utf8' });
  for (const file of [
    'README.md',
    'API.md',
    'LICENSE',
    'dist/index.js',
    'dist/index.d.ts',
    'examples/two-members.ts',
  ]) {
    assert.ok(files.includes(file), `${file} is missing`);
  }
  assert.deepEqual(
    files.filter((file) => /\.test\.|testing|vectors|tsbuildinfo/.test(file)),
    [],
  );

  // Strictly, and the packages' own declarations too.
  symlinkSync(path.join(root, 'node_modules/@types'), path.join(app, 'node_modules/@types'));
  const compilerOptions = {
    module: 'nodenext',
    target: 'es2024',
    lib: ['es2024', 'esnext.disposable'],
    types: ['node'],
    strict: true,
    noEmit: true,
    allowImportingTsExtensions: true,
    skipLibCheck: false,
  };
  writeFileSync(path.join(app, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['*.ts'] }));
  run('tsc', ['-p', app], app);
  const program = path.join(app, 'all.mjs');
  const examples = readdirSync(app).filter((file) => file.endsWith('.ts'));
  writeFileSync(program, examples.map((file) => `await import('./${file}');\n`).join(''));
  const said = run(process.execPath, [program], app);
  assert.match(said, /Bob reads: Hello, Bob/);
  assert.match(said, /in suite 0xf0a1/);
});

interface InstalledManifest {
  readonly private?: boolean;
  readonly dependencies: Record<string, string>;
}

function manifestOf(packageFolder: string): InstalledManifest {
  return JSON.parse(readFileSync(path.join(packageFolder, 'package.json'), 'utf8')) as InstalledManifest;
}

function run(command: string, args: readonly string[], cwd: string): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd, encoding: 'utf8' });
  if (error) throw error;
  assert.equal(status, 0, `${command} ${args.join(' ')}\n${stdout}${stderr}`);
  return stdout;
}
