/** What a store that cannot be used means for a start, and what to do about it. */
import { StartupError } from './startup-error.ts';
import { StoreError } from './store/store.ts';
import type { StoreErrorKind } from './store/store.ts';

const HINTS: Partial<Record<StoreErrorKind, string>> = {
  in_use: 'Stop the other server, or give another folder with --data-dir.',
  wrong_key: 'Give the key the database was made with: --store-key-file.',
  newer_schema: 'Start the newer version of qpc-server.',
  disk_full: 'Make room on the disk.',
  corrupt: 'Restore the data folder from a backup.',
};

/** A failure of the store as a StartupError, whenever in a start it came; anything else as it is. */
export function inWordsOfStart(error: unknown, dataDir: string): unknown {
  if (!(error instanceof StoreError)) return error;
  const reason = error.message.replace(/\.$/, '');
  const hint = HINTS[error.kind] ?? 'Check the data folder and its owner.';
  return new StartupError('data', `the database in ${dataDir} cannot be used: ${reason}`, hint, { cause: error });
}
