// Runs every test, or those named: `npm test`, `npm test -- packages/mls tests/cli`.
import { spawnSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { availableParallelism } from 'node:os';

const everything = ['packages/*/src/**/*.test.ts', 'apps/*/src/**/*.test.ts', 'tests/**/*.test.ts'];
const patterns = process.argv.slice(2).filter((argument) => !argument.startsWith('-'));
const flags = process.argv.slice(2).filter((argument) => argument.startsWith('-'));
const files = patterns.map((pattern) => {
  const isFolder = statSync(pattern, { throwIfNoEntry: false })?.isDirectory() ?? false;
  return isFolder ? `${pattern.replace(/\/$/, '')}/**/*.test.ts` : pattern;
});

const { status, error } = spawnSync(
  process.execPath,
  [
    '--test',
    // One more than there are cores: some tests mostly wait, for a server that is lost to be noticed, for instance.
    `--test-concurrency=${availableParallelism() + 1}`,
    '--test-timeout=180000',
    ...flags,
    ...(files.length > 0 ? files : everything),
  ],
  { stdio: 'inherit' },
);
if (error) console.error(error.message);
process.exitCode = status ?? 1;
