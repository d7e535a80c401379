// Runs every test, or those named: `npm test`, `npm test -- packages/mls tests/cli`.
import { spawnSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import path from 'node:path';

const everything = ['packages/*/src/**/*.test.ts', 'apps/*/src/**/*.test.ts', 'tests/**/*.test.ts'];
const patterns = process.argv.slice(2).filter((argument) => !argument.startsWith('-'));
const flags = process.argv.slice(2).filter((argument) => argument.startsWith('-'));
const files = patterns.map((pattern) => {
  const isFolder = statSync(pattern, { throwIfNoEntry: false })?.isDirectory() ?? false;
  return isFolder ? `${pattern.replace(/\/$/, '')}/**/*.test.ts` : pattern;
});

// Every file is a process of its own that loads much the same modules.
const compileCache = path.resolve('node_modules/.cache/compile');

const { status, error } = spawnSync(
  process.execPath,
  [
    '--test',
    `--test-concurrency=${Math.max(2, availableParallelism())}`,
    '--test-timeout=180000',
    ...flags,
    ...(files.length > 0 ? files : everything),
  ],
  { stdio: 'inherit', env: { NODE_COMPILE_CACHE: compileCache, ...process.env } },
);
if (error) console.error(error.message);
process.exitCode = status ?? 1;
