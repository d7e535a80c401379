/**
 * Profiles on disk (DESIGN section 6): a folder, mode 0700, with one encrypted database and one key file, mode 0600.
 *
 *   profile-<id>.db   the database; <id> is named in the key file
 *   profile.kdf       the key comes from the state password, or
 *   profile.key       the key is random and stands here; counts only while there is no profile.kdf
 *
 * Every change of files has one instant at which it counts, a link, rename or unlink of a key file; a crash before it
 * leaves the old state, a crash after it the new one, and the next opening tidies up:
 *   creating         new database → link the key file → name the database
 *   password change  copy of the database under the new key → rename (or, to none, unlink) the key file → name the copy
 */
import {
  chmodSync,
  closeSync,
  existsSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { BadInput, Misuse } from '@quicprochat/core';
import { type CryptoProvider, encodeHex, encodeUtf8 } from '@quicprochat/crypto';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { hashRaw } from '@node-rs/argon2';
import { damaged, LocalStateError } from './local-state-error.ts';
import {
  DATABASE_ID_LENGTH,
  decodeKdfFile,
  decodeKeyFile,
  deriveProfileKey,
  encodeKdfFile,
  encodeKeyFile,
  isAffordable,
  KDF_DEFAULT,
  KDF_FILE_LENGTH,
  type KdfFile,
  kdfHeader,
  type KdfParameters,
  randomSalt,
} from './profile-key.ts';
import { openMemoryStore, openSqlite, rekeySqlite } from './sqlite.node.ts';
import { openStore, type Store } from './store.ts';

const KDF_NAME = 'profile.kdf';
const KEY_NAME = 'profile.key';
/** A database or key file that does not count yet. */
const NEW_SUFFIX = '.new';
const ARGON2ID = 2;

export interface OpenProfileOptions {
  /** Made with mode 0700 if missing. `:memory:` keeps nothing. */
  readonly folder: string;
  /** Required when the profile has one, refused when it has none. For a new profile: set. */
  readonly statePassword?: string;
  /** Refuse to make a new profile. Default false. */
  readonly mustExist?: boolean;
  /** Cost of a new password's Argon2id. Default KDF_DEFAULT. */
  readonly kdf?: KdfParameters;
}

export interface Profile {
  readonly store: Store;
  /** Made by this call. */
  readonly created: boolean;
}

/** `none`: no profile there. */
export type ProfileProtection = 'none' | 'password' | 'key-file';

/** How a profile is protected, without opening it: whether to ask for a password. @throws LocalStateError */
export function profileProtection(folder: string): ProfileProtection {
  return onDisk(() => protectionOf(folder));
}

/**
 * Opens a profile, or makes one, and takes it for this process.
 * @throws LocalStateError `profile-in-use`, `profile-missing`, `wrong-state-password` (also: one is needed, or given
 *   where there is none), `profile-damaged`, `profile-newer`, `profile-unwritable`
 */
export async function openProfile(options: OpenProfileOptions): Promise<Profile> {
  if (options.folder === ':memory:') return { store: openMemoryStore(), created: true };
  checkPassword(options.statePassword);
  const created = protectionOnDisk(options) === 'none' && (await createProfile(options));
  return { store: await openExisting(options.folder, options.statePassword), created };
}

export interface ChangeStatePasswordOptions {
  readonly folder: string;
  /** The present one; undefined when there is none. */
  readonly statePassword?: string;
  /** The new one; undefined for none: a random key beside the database instead. */
  readonly newStatePassword?: string;
  readonly kdf?: KdfParameters;
  /** Tests stop here at each step, as a crash would. */
  readonly onStep?: (step: string) => void;
}

/**
 * Encrypts a closed profile anew under a new password, or under none. After a crash at any point the profile opens with
 * the old password or the new one, and nothing is lost.
 * @throws LocalStateError as `openProfile`
 */
export async function changeStatePassword(options: ChangeStatePasswordOptions): Promise<void> {
  const { folder, onStep = () => {} } = options;
  checkPassword(options.statePassword);
  checkPassword(options.newStatePassword);
  const old = await unlock(folder, options.statePassword);
  // Holding the old database keeps every other process out until the change counts.
  const driver = openSqlite(databasePath(folder, old.databaseId), { key: old.key });
  const next = await newKey(nodeCrypto, options.newStatePassword, options.kdf);
  try {
    onDisk(() => {
      tidyUp(folder, old.databaseId);
      const copy = databasePath(folder, next.databaseId) + NEW_SUFFIX;
      createFile(copy, new Uint8Array(0));
      driver.prepare('VACUUM INTO ?').run(copy);
      onStep('copied');
      rekeySqlite(copy, old.key, next.key);
      syncFile(copy);
      onStep('rekeyed');
      const file = join(folder, next.fileName);
      createFile(file + NEW_SUFFIX, next.fileBytes);
      syncFolder(folder);
      onStep('key file written');
      renameSync(file + NEW_SUFFIX, file);
      syncFolder(folder);
      onStep('key file named');
      if (next.fileName === KEY_NAME) {
        rmSync(join(folder, KDF_NAME), { force: true });
        syncFolder(folder);
      }
      onStep('counts');
      nameDatabase(folder, next.databaseId);
      onStep('database named');
      driver.close();
      tidyUp(folder, next.databaseId);
    });
  } finally {
    driver.close();
    for (const secret of [old.key, next.key, next.fileBytes]) nodeCrypto.wipe(secret);
  }
}

// ---- Opening --------------------------------------------------------------------------------------------------------

interface UnlockedKey {
  readonly databaseId: Uint8Array;
  readonly key: Uint8Array;
}

async function openExisting(folder: string, statePassword: string | undefined): Promise<Store> {
  const { databaseId, key } = await unlock(folder, statePassword);
  try {
    return onDisk(() => {
      const driver = openSqlite(databasePath(folder, databaseId), { key });
      try {
        // The lock is ours: nobody else is creating or changing anything here.
        tidyUp(folder, databaseId);
        return openStore(driver);
      } catch (error) {
        driver.close();
        throw error;
      }
    });
  } finally {
    nodeCrypto.wipe(key);
  }
}

/** The database's id and key, its file in place. */
async function unlock(folder: string, statePassword: string | undefined): Promise<UnlockedKey> {
  const kdfFile = onDisk(() => readKdfFile(folder));
  const unlocked =
    kdfFile === undefined
      ? onDisk(() => keyWithoutPassword(folder, statePassword))
      : await keyFromPassword(kdfFile, statePassword);
  onDisk(() => nameDatabase(folder, unlocked.databaseId));
  return unlocked;
}

async function keyFromPassword(file: KdfFile, statePassword: string | undefined): Promise<UnlockedKey> {
  if (statePassword === undefined) {
    throw new LocalStateError(
      'wrong-state-password',
      'This profile is protected by a state password, and none was given.',
      'Give the state password of this profile.',
    );
  }
  const stretched = await stretch(statePassword, file.salt, file.parameters);
  const { key, commitment } = deriveProfileKey(nodeCrypto, stretched, file.header);
  if (!nodeCrypto.equal(commitment, file.commitment)) {
    nodeCrypto.wipe(key);
    throw new LocalStateError(
      'wrong-state-password',
      'The state password is wrong.',
      "Try again; it is the profile's password, not the account's.",
    );
  }
  return { databaseId: file.databaseId, key };
}

function keyWithoutPassword(folder: string, statePassword: string | undefined): UnlockedKey {
  const bytes = readFile(join(folder, KEY_NAME));
  if (bytes === undefined) throw missing(folder);
  const file = decodeKeyFile(nodeCrypto, bytes);
  nodeCrypto.wipe(bytes);
  if (file === undefined) throw damaged(`The file ${KEY_NAME} of this profile is damaged.`);
  if (statePassword !== undefined) {
    nodeCrypto.wipe(file.key);
    throw new LocalStateError(
      'wrong-state-password',
      'This profile has no state password, but one was given.',
      'Leave the state password out, or set one for this profile first.',
    );
  }
  return file;
}

function readKdfFile(folder: string): KdfFile | undefined {
  const bytes = readFile(join(folder, KDF_NAME));
  if (bytes === undefined) return undefined;
  const file = decodeKdfFile(nodeCrypto, bytes);
  if (file === undefined) throw damaged(`The file ${KDF_NAME} of this profile is damaged.`);
  return file;
}

function protectionOf(folder: string): ProfileProtection {
  if (existsSync(join(folder, KDF_NAME))) return 'password';
  if (existsSync(join(folder, KEY_NAME))) return 'key-file';
  if (namesIn(folder).some((name) => DATABASE_NAME.test(name))) {
    throw new LocalStateError(
      'profile-damaged',
      'The profile folder holds a database but neither profile.key nor profile.kdf.',
      'Put the missing key file back; without it the database cannot be read.',
    );
  }
  return 'none';
}

function protectionOnDisk({ folder, mustExist }: OpenProfileOptions): ProfileProtection {
  return onDisk(() => {
    const protection = protectionOf(folder);
    if (protection === 'none' && mustExist === true) throw missing(folder);
    return protection;
  });
}

// ---- Creating -------------------------------------------------------------------------------------------------------

interface NewKey extends UnlockedKey {
  readonly fileName: typeof KDF_NAME | typeof KEY_NAME;
  readonly fileBytes: Uint8Array;
}

/** @returns false when another process was faster; its profile is there then */
async function createProfile({ folder, statePassword, kdf }: OpenProfileOptions): Promise<boolean> {
  onDisk(() => {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    chmodSync(folder, 0o700);
  });
  const made = await newKey(nodeCrypto, statePassword, kdf);
  try {
    return onDisk(() => {
      const database = databasePath(folder, made.databaseId) + NEW_SUFFIX;
      createFile(database, new Uint8Array(0));
      openStore(openSqlite(database, { key: made.key })).close();
      // A name of its own: two processes may be at this at once.
      const file = `${join(folder, made.fileName)}-${encodeHex(made.databaseId)}${NEW_SUFFIX}`;
      createFile(file, made.fileBytes);
      syncFolder(folder);
      const isFirst = linkIfAbsent(file, join(folder, made.fileName));
      rmSync(file, { force: true });
      if (!isFirst) rmSync(database, { force: true });
      syncFolder(folder);
      return isFirst;
    });
  } catch (error) {
    // The faster process may have tidied up under our hands.
    if (protectionOf(folder) !== 'none') return false;
    throw error;
  } finally {
    nodeCrypto.wipe(made.key);
    nodeCrypto.wipe(made.fileBytes);
  }
}

async function newKey(
  crypto: CryptoProvider,
  statePassword: string | undefined,
  parameters: KdfParameters = KDF_DEFAULT,
): Promise<NewKey> {
  const databaseId = crypto.random(DATABASE_ID_LENGTH);
  if (statePassword === undefined) {
    const key = crypto.random(32);
    return { databaseId, key, fileName: KEY_NAME, fileBytes: encodeKeyFile(crypto, { databaseId, key }) };
  }
  if (!isAffordable(parameters)) throw new Misuse('Argon2id parameters out of bounds');
  const salt = randomSalt(crypto);
  const header = kdfHeader(databaseId, parameters, salt);
  const { key, commitment } = deriveProfileKey(crypto, await stretch(statePassword, salt, parameters), header);
  return { databaseId, key, fileName: KDF_NAME, fileBytes: encodeKdfFile(crypto, header, commitment) };
}

/** Argon2id, 32 bytes. The same password typed on another keyboard may come decomposed: NFC. */
async function stretch(password: string, salt: Uint8Array, parameters: KdfParameters): Promise<Uint8Array> {
  const bytes = encodeUtf8(password.normalize('NFC'));
  try {
    return await hashRaw(bytes, {
      algorithm: ARGON2ID,
      memoryCost: parameters.memoryKib,
      timeCost: parameters.iterations,
      parallelism: parameters.parallelism,
      outputLen: 32,
      salt,
    });
  } finally {
    nodeCrypto.wipe(bytes);
  }
}

function checkPassword(password: string | undefined): void {
  if (password === '') throw new BadInput('The state password is empty.', 'Choose one with at least one character.');
}

function missing(folder: string): LocalStateError {
  return new LocalStateError(
    'profile-missing',
    `There is no profile in ${folder}.`,
    'Register or log in first, or choose another profile with --state.',
  );
}

// ---- Files ----------------------------------------------------------------------------------------------------------

const DATABASE_NAME = /^profile-[0-9a-f]{16}\.db$/;
/** Databases with what SQLite puts beside them, and files that do not count yet. */
const OUR_NAMES = /^(profile-[0-9a-f]{16}\.db(\.new)?(-wal|-shm|-journal)?|profile\.(kdf|key)(-[0-9a-f]{16})?\.new)$/;

function databasePath(folder: string, databaseId: Uint8Array): string {
  return join(folder, `profile-${encodeHex(databaseId)}.db`);
}

/** Gives the database its final name, if a crash came before that. */
function nameDatabase(folder: string, databaseId: Uint8Array): void {
  const path = databasePath(folder, databaseId);
  if (existsSync(path)) return;
  try {
    renameSync(path + NEW_SUFFIX, path);
    syncFolder(folder);
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
    // Another process may have named it in between.
    if (!existsSync(path)) throw damaged("The profile's database is missing.", error);
  }
}

/** Removes what interrupted creations and password changes left. Only with the lock of the database that counts. */
function tidyUp(folder: string, databaseId: Uint8Array): void {
  const current = `profile-${encodeHex(databaseId)}.db`;
  const isCurrent = (name: string): boolean => name.startsWith(current) && !name.includes(NEW_SUFFIX);
  for (const name of namesIn(folder)) {
    if (OUR_NAMES.test(name) && !isCurrent(name)) rmSync(join(folder, name), { force: true });
  }
  if (existsSync(join(folder, KDF_NAME))) rmSync(join(folder, KEY_NAME), { force: true });
}

function namesIn(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return [];
    throw error;
  }
}

/** At most a few bytes more than a key file has; undefined when there is none. */
function readFile(path: string): Uint8Array | undefined {
  let file: number;
  try {
    file = openSync(path, 'r');
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
  try {
    const bytes = new Uint8Array(KDF_FILE_LENGTH + 1);
    return bytes.subarray(0, readSync(file, bytes, 0, bytes.length, 0));
  } finally {
    closeSync(file);
  }
}

/** A new file with mode 0600, on disk when this returns. */
function createFile(path: string, bytes: Uint8Array): void {
  rmSync(path, { force: true });
  const file = openSync(path, 'wx', 0o600);
  try {
    writeSync(file, bytes);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

function linkIfAbsent(from: string, to: string): boolean {
  try {
    linkSync(from, to);
    return true;
  } catch (error) {
    if (isErrno(error, 'EEXIST') || existsSync(to)) return false;
    if (!['EPERM', 'ENOTSUP', 'ENOSYS'].some((code) => isErrno(error, code))) throw error;
    // A file system without hard links. Two processes making one profile there at once end with the later key file,
    // and the earlier one's database, still empty, is tidied up.
    renameSync(from, to);
    return true;
  }
}

function syncFile(path: string): void {
  const file = openSync(path, 'r+');
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

/** Makes renames and removals in a folder durable, where the system can. */
function syncFolder(folder: string): void {
  if (process.platform === 'win32') return;
  const file = openSync(folder, 'r');
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

/** Runs file operations; what the system reports becomes a LocalStateError. */
function onDisk<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof Error) || !('code' in error) || error instanceof LocalStateError) throw error;
    const reason = ERRNO_REASONS[String(error.code)];
    if (reason === undefined) throw error;
    throw new LocalStateError(
      'profile-unwritable',
      `The profile folder cannot be used: ${reason}.`,
      'Repair it, or choose another folder with --state.',
      { cause: error },
    );
  }
}

const ERRNO_REASONS: Readonly<Record<string, string>> = {
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EROFS: 'the file system is read-only',
  ENOSPC: 'the disk is full',
  EDQUOT: 'the disk quota is used up',
  ENOTDIR: 'it is not a folder',
  EEXIST: 'it is not a folder',
  EISDIR: 'a file of the profile is a folder',
  EIO: 'the disk reports an error',
  EMFILE: 'too many files are open',
  ENAMETOOLONG: 'its name is too long',
  ELOOP: 'its name leads in a circle',
};

function isErrno(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}
