/** Numbered forward migrations. Migration n takes a database from version n - 1 to n; `user_version` holds the number. */
import type { Driver } from './driver.ts';
import { damaged, LocalStateError } from './local-state-error.ts';
import { SCHEMA_EVIDENCE_BOUND, SCHEMA_LOG, SCHEMA_REINIT, SCHEMA_TREES, SCHEMA_V1 } from './schema.ts';
import { numberOf } from './sql.ts';

export const MIGRATIONS: readonly string[] = [
  SCHEMA_V1,
  SCHEMA_LOG,
  SCHEMA_REINIT,
  SCHEMA_TREES,
  SCHEMA_EVIDENCE_BOUND,
];

/** "qpcp": tells a profile from any other SQLite file. */
const APPLICATION_ID = 0x71706370;

/**
 * Brings the database to the newest version, each step in a transaction of its own.
 * @throws LocalStateError `profile-newer` when a newer program has written it, `profile-damaged` when it is no profile
 */
export function migrate(driver: Driver, migrations: readonly string[] = MIGRATIONS): void {
  const version = pragma(driver, 'user_version');
  if (version > migrations.length) {
    throw new LocalStateError(
      'profile-newer',
      `This profile was written by a newer version of the program (schema ${version}, known ${migrations.length}).`,
      'Update the program, or choose another profile.',
    );
  }
  if (version > 0 && pragma(driver, 'application_id') !== APPLICATION_ID) {
    throw damaged('The database in the profile folder is not a profile.');
  }
  for (let next = version; next < migrations.length; next++) {
    driver.transaction(() => {
      driver.exec(migrations[next]!);
      driver.exec(`PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${next + 1}`);
    });
  }
}

function pragma(driver: Driver, name: 'user_version' | 'application_id'): number {
  return numberOf(driver.prepare(`PRAGMA ${name}`).get() ?? {}, name);
}
