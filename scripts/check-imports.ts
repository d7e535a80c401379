// The import table of ARCHITECTURE.md, enforced: who may import whom, which files may use Node's or the browser's APIs,
// and that every workspace a package imports stands in its package.json. The compiler notices none of this.
import { readdirSync, readFileSync } from 'node:fs';
import { builtinModules } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

interface Rule {
  /** Our packages it may import. */
  readonly ours: readonly string[];
  /** Every file may use Node's APIs. */
  readonly node?: boolean;
  /** What its sources must not name. */
  readonly never?: RegExp;
}

export const importTable: Readonly<Record<string, Rule>> = {
  'packages/proto': { ours: [] },
  'packages/crypto': { ours: [] },
  'packages/mls': { ours: ['crypto'], never: /\bDate\b|\bMath\.random\b|\bglobalThis\.crypto\b|\bperformance\.now\b/ },
  'packages/core': { ours: ['proto', 'crypto'] },
  'packages/transport': { ours: ['proto'] },
  'packages/client': { ours: ['proto', 'crypto', 'core', 'mls', 'transport'] },
  'packages/server': { ours: ['proto', 'crypto', 'core', 'transport'] },
  'apps/qpc': { ours: ['client'], node: true },
  'apps/qpc-server': { ours: ['server'], node: true },
};

/** Every breach of the table under `root`, one sentence each. */
export function importBreaches(root: string): string[] {
  // Types alone leave no import behind, so those the root brings for all packages will do.
  const rootTypes = [...declaredDependencies(root, ['devDependencies'])].filter((name) => name.startsWith('@types/'));
  return Object.entries(importTable).flatMap(([folder, rule]) => {
    const declared = new Set([...declaredDependencies(path.join(root, folder)), ...rootTypes]);
    return sourceFiles(path.join(root, folder, 'src')).flatMap((file) => {
      const name = path.relative(root, file);
      return fileBreaches(name, readFileSync(file, 'utf8'), rule, declared);
    });
  });
}

/** The breaches of one file; `name` is its path below the root. */
export function fileBreaches(name: string, source: string, rule: Rule, declared: ReadonlySet<string>): string[] {
  const isTest = /\.test\.tsx?$/.test(name);
  const mayUseNode = rule.node === true || isTest || /\.node\.tsx?$/.test(name);
  const breaches: string[] = [];
  for (const { specifier, typeOnly } of importSpecifiers(source)) {
    if (specifier.startsWith('node:') || builtinModules.includes(specifier)) {
      if (!mayUseNode) breaches.push(`${name} imports ${specifier}, but its name does not end in .node.ts`);
      continue;
    }
    if (specifier.startsWith('.')) {
      const target = path.posix.normalize(path.posix.join(path.posix.dirname(name), specifier));
      if (!target.startsWith(name.split('/').slice(0, 2).join('/') + '/') && !isTest)
        breaches.push(`${name} reaches out of its package: ${specifier}`);
      if (!mayUseNode && /\.node\.tsx?$/.test(specifier))
        breaches.push(`${name} runs anywhere, but imports ${specifier}`);
      continue;
    }
    const packageName = specifier
      .split('/')
      .slice(0, specifier.startsWith('@') ? 2 : 1)
      .join('/');
    // Tests may use what the root package.json brings for all of them.
    if (isTest) continue;
    const ours = /^@quicprochat\/(.+)$/.exec(packageName)?.[1];
    if (ours !== undefined && !rule.ours.includes(ours)) breaches.push(`${name} must not import ${packageName}`);
    if (!declared.has(packageName) && !(typeOnly && declared.has(`@types/${packageName}`)))
      breaches.push(`${name} imports ${packageName}, which its package.json does not declare`);
    if (ours !== undefined && !mayUseNode && /\/(node|quic)$/.test(specifier))
      breaches.push(`${name} runs anywhere, but imports ${specifier}`);
  }
  if (rule.never && !isTest && !name.includes('/src/testing/')) {
    const found = rule.never.exec(withoutComments(source));
    if (found) breaches.push(`${name} names ${found[0]}, which its package takes as a parameter`);
  }
  return breaches;
}

function importSpecifiers(source: string): { specifier: string; typeOnly: boolean }[] {
  const pattern =
    /(?:^|[\s;}])(?:import|export)\s(type\s)?(?:[^'";]*?\sfrom\s*)?['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]/g;
  return [...withoutComments(source).matchAll(pattern)].map((match) => ({
    specifier: match[2] ?? match[3] ?? '',
    typeOnly: match[1] !== undefined,
  }));
}

function withoutComments(source: string): string {
  return source.replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '');
}

function declaredDependencies(folder: string, fields = ['dependencies', 'peerDependencies']): Set<string> {
  const manifest = JSON.parse(readFileSync(path.join(folder, 'package.json'), 'utf8')) as Record<string, object>;
  return new Set(fields.flatMap((field) => Object.keys(manifest[field] ?? {})));
}

function sourceFiles(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.tsx?$/.test(entry.name))
    .map((entry) => path.join(entry.parentPath, entry.name));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const breaches = importBreaches(path.join(import.meta.dirname, '..'));
  for (const breach of breaches) console.error(breach);
  process.exitCode = breaches.length > 0 ? 1 : 0;
}
