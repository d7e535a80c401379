// Compiles the packages people take on their own and writes them to out/<package> as they are published: exports turned to
// the compiled files, no "private". `npm pack out/mls` makes a tarball of one. (npm has no way to swap exports itself.)
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.join(import.meta.dirname, '..');
export const publishedPackages = ['crypto', 'mls'] as const;

interface Manifest {
  private?: boolean;
  readonly files: readonly string[];
  exports: Record<string, unknown>;
}

/** Writes the packages below `target`. */
export function stagePackages(target: string): void {
  const projects = ['packages/crypto/tsconfig.node.json', 'packages/mls'];
  const { status, stdout, error } = spawnSync('tsc', ['-b', ...projects], { cwd: root, encoding: 'utf8' });
  if (error) throw error;
  if (status !== 0) throw new Error(stdout);
  for (const name of publishedPackages) {
    const from = path.join(root, 'packages', name);
    const to = path.join(target, name);
    rmSync(to, { recursive: true, force: true });
    mkdirSync(to, { recursive: true });
    const manifest = JSON.parse(readFileSync(path.join(from, 'package.json'), 'utf8')) as Manifest;
    for (const entry of manifest.files.filter((file) => !file.startsWith('!'))) {
      cpSync(path.join(from, entry), path.join(to, entry), {
        recursive: true,
        filter: (source) => entry !== 'dist' || source === path.join(from, entry) || hasSource(from, source),
      });
    }
    cpSync(path.join(root, 'LICENSE'), path.join(to, 'LICENSE'));
    delete manifest.private;
    manifest.exports = Object.fromEntries(
      Object.entries(manifest.exports).map(([entry, source]) => [entry, compiled(String(source))]),
    );
    writeFileSync(path.join(to, 'package.json'), `${JSON.stringify(manifest, undefined, 2)}\n`);
  }
}

/** What the compiler made of a source that is gone stays in dist. */
function hasSource(folder: string, file: string): boolean {
  const name = path.relative(path.join(folder, 'dist'), file).replace(/(\.d)?\.[jt]s(\.map)?$/, '');
  return existsSync(path.join(folder, 'src', `${name}.ts`)) || statSync(file).isDirectory();
}

function compiled(source: string): { readonly types: string; readonly default: string } {
  const file = source.replace(/^\.\/src\//, './dist/').replace(/\.ts$/, '');
  return { types: `${file}.d.ts`, default: `${file}.js` };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) stagePackages(path.join(root, 'out'));
