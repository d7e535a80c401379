// A folder that is gone when the benchmark has ended, however it ends.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

export function temporaryFolder(): { readonly path: string; readonly remove: () => void } {
  const folder = mkdtempSync(path.join(tmpdir(), 'qpc-bench-'));
  const clear = (): void => rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  process.on('exit', clear);
  return {
    path: folder,
    remove: () => {
      process.off('exit', clear);
      clear();
    },
  };
}
