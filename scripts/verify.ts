// Everything a change must pass besides the tests: format, lint, types, generated code, import table, unused code.
import { spawnSync } from 'node:child_process';

const steps: [name: string, command: string, ...args: string[]][] = [
  ['format', 'oxfmt', '--check', '.'],
  ['lint', 'oxlint', '--deny-warnings'],
  ['types', 'tsc', '-b'],
  ['generated code', process.execPath, 'scripts/generate.ts', '--check'],
  ['API documentation', process.execPath, 'scripts/api-docs.ts', '--check'],
  ['import table', process.execPath, 'scripts/check-imports.ts'],
  ['unused code', 'knip', '--no-progress'],
];

const failed: string[] = [];
for (const [name, command, ...args] of steps) {
  const start = performance.now();
  const { status, error, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8' });
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`${status === 0 ? 'ok    ' : 'FAILED'} ${name} (${seconds} s)`);
  if (status !== 0) {
    failed.push(name);
    console.log(error?.message ?? `${stdout}${stderr}`.trim());
  }
}
if (failed.length > 0) {
  console.log(`\nverify failed: ${failed.join(', ')}`);
  process.exitCode = 1;
}
