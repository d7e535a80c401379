// Writes packages/proto/src/gen from proto/, or with --check says whether it is current.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const committed = 'packages/proto/src/gen';
const check = process.argv.includes('--check');
const scratch = check ? mkdtempSync(path.join(tmpdir(), 'qpc-generate-')) : undefined;

try {
  run('buf', ['lint']);
  run('buf', ['generate', ...(scratch ? ['--output', scratch] : [])]);
  if (scratch) {
    const fresh = path.join(scratch, committed);
    const stale = differences(fresh, committed);
    if (stale.length > 0) {
      console.error(`Generated code is not current: ${stale.join(', ')}. Run: npm run generate`);
      process.exitCode = 1;
    }
  }
} finally {
  if (scratch) rmSync(scratch, { recursive: true, force: true });
}

function differences(left: string, right: string): string[] {
  const names = new Set([...listFiles(left), ...listFiles(right)]);
  return [...names].filter((name) => read(path.join(left, name)) !== read(path.join(right, name)));
}

function listFiles(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(folder, path.join(entry.parentPath, entry.name)));
}

function read(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}

function run(command: string, args: string[]): void {
  const { status, error } = spawnSync(command, args, { stdio: 'inherit' });
  if (error) throw error;
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} failed`);
}
