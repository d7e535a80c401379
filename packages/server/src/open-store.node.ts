/** Opening the database of a data folder, for the server and for the operator's commands without one. */
import { readFileSync } from 'node:fs';
import { decodeHex } from '@quicprochat/crypto';
import type { ServerConfig } from './config.ts';
import { reasonOf } from './data-directory.node.ts';
import type { DataDirectory } from './data-directory.node.ts';
import { StartupError } from './startup-error.ts';
import { openSqliteStore } from './store/sqlite.node.ts';
import { inWordsOfStart } from './store-failure.ts';
import type { Store, StoreLimits } from './store/store.ts';

/** What the server calls itself in every signed statement, settled once. */
export const ORIGIN_SETTING = 'origin';

/** @throws StartupError saying what to do about it */
export async function openStore(
  config: Pick<ServerConfig, 'storeKeyFile'>,
  directory: DataDirectory,
  limits: StoreLimits,
): Promise<Store> {
  const key = readStoreKey(config.storeKeyFile);
  try {
    return await openSqliteStore({ path: directory.file('qpc.db'), key, limits });
  } catch (error) {
    throw inWordsOfStart(error, directory.path);
  } finally {
    key?.fill(0);
  }
}

/** @throws StartupError when the file holds none */
export function readStoreKey(file: string | undefined): Uint8Array | undefined {
  if (file === undefined) return undefined;
  let content: string;
  try {
    content = readFileSync(file, 'utf8');
  } catch (error) {
    throw new StartupError('config', `${file} cannot be read: ${reasonOf(error)}`, 'Check --store-key-file.', {
      cause: error,
    });
  }
  const key = decodeHex(content.trim());
  if (key?.length !== 32) {
    throw new StartupError('config', `${file} does not hold 64 hex digits`, 'Make a key with: openssl rand -hex 32');
  }
  return key;
}
