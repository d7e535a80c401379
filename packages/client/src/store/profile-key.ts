/**
 * The two files of which one lets a profile be opened (DESIGN section 6). Both name the database they belong to, so that
 * replacing one of them, an atomic rename, is what changes the key.
 *
 *   profile.kdf: "qpc-kdf1" ‖ database id 8 ‖ memory KiB u32 ‖ iterations u32 ‖ parallelism u8 ‖ salt 16
 *                ‖ commitment 32 ‖ SHA-256 of all before 32                                              105 bytes
 *   profile.key: "qpc-key1" ‖ database id 8 ‖ key 32 ‖ SHA-256 of all before 32                           80 bytes
 *
 *   (database key, commitment) = HKDF-SHA-256("", Argon2id(password, salt), label ‖ all before the commitment, 64)
 *
 * The commitment tells a wrong password from a damaged file, and makes one file fit one password: nobody can craft one
 * that opens under several and learn which it was (THREATS 19). The hash shows accidental damage. Both files are read as
 * if a stranger had written them: fixed lengths, and Argon2id's cost within bounds.
 */
import { Label } from '@quicprochat/core';
import { concat, type CryptoProvider, EMPTY, encodeUtf8, equal, readU32, u32 } from '@quicprochat/crypto';

export interface KdfParameters {
  readonly memoryKib: number;
  readonly iterations: number;
  readonly parallelism: number;
}

/** Argon2id; about 0.1 s. */
export const KDF_DEFAULT: KdfParameters = { memoryKib: 65_536, iterations: 3, parallelism: 1 };
const MEMORY_KIB_MIN = 8_192;
const MEMORY_KIB_MAX = 1_048_576;
const ITERATIONS_MAX = 16;
const PARALLELISM_MAX = 8;

export const DATABASE_ID_LENGTH = 8;
const SALT_LENGTH = 16;
const HASH_LENGTH = 32;
const KEY_LENGTH = 32;
const KDF_MAGIC = encodeUtf8('qpc-kdf1');
const KEY_MAGIC = encodeUtf8('qpc-key1');
const PREFIX_LENGTH = 8 + DATABASE_ID_LENGTH;
const KDF_HEADER_LENGTH = PREFIX_LENGTH + 9 + SALT_LENGTH;
export const KDF_FILE_LENGTH = KDF_HEADER_LENGTH + 2 * HASH_LENGTH;
const KEY_FILE_LENGTH = PREFIX_LENGTH + KEY_LENGTH + HASH_LENGTH;

export interface KdfFile {
  readonly databaseId: Uint8Array;
  readonly parameters: KdfParameters;
  readonly salt: Uint8Array;
  readonly commitment: Uint8Array;
  /** Everything before the commitment. */
  readonly header: Uint8Array;
}

export interface KeyFile {
  readonly databaseId: Uint8Array;
  /** 32 bytes. */
  readonly key: Uint8Array;
}

/** The start of a new profile.kdf: what the commitment will cover. */
export function kdfHeader(databaseId: Uint8Array, parameters: KdfParameters, salt: Uint8Array): Uint8Array {
  const { memoryKib, iterations, parallelism } = parameters;
  return concat(KDF_MAGIC, databaseId, u32(memoryKib), u32(iterations), new Uint8Array([parallelism]), salt);
}

/** @param stretched Argon2id's output; wiped here */
export function deriveProfileKey(
  crypto: CryptoProvider,
  stretched: Uint8Array,
  header: Uint8Array,
): { readonly key: Uint8Array; readonly commitment: Uint8Array } {
  const prk = crypto.hkdfExtract('sha256', EMPTY, stretched);
  const okm = crypto.hkdfExpand('sha256', prk, concat(Label.profileKey, header), KEY_LENGTH + HASH_LENGTH);
  const derived = { key: okm.slice(0, KEY_LENGTH), commitment: okm.slice(KEY_LENGTH) };
  for (const secret of [stretched, prk, okm]) crypto.wipe(secret);
  return derived;
}

export function encodeKdfFile(crypto: CryptoProvider, header: Uint8Array, commitment: Uint8Array): Uint8Array {
  return withHash(crypto, concat(header, commitment));
}

/** The file's fields, or undefined when it is damaged or its cost out of bounds. */
export function decodeKdfFile(crypto: CryptoProvider, bytes: Uint8Array): KdfFile | undefined {
  if (!isIntact(crypto, bytes, KDF_MAGIC, KDF_FILE_LENGTH)) return undefined;
  const parameters = {
    memoryKib: readU32(bytes, PREFIX_LENGTH),
    iterations: readU32(bytes, PREFIX_LENGTH + 4),
    parallelism: bytes[PREFIX_LENGTH + 8]!,
  };
  if (!isAffordable(parameters)) return undefined;
  return {
    databaseId: bytes.slice(8, PREFIX_LENGTH),
    parameters,
    salt: bytes.slice(PREFIX_LENGTH + 9, KDF_HEADER_LENGTH),
    commitment: bytes.slice(KDF_HEADER_LENGTH, KDF_HEADER_LENGTH + HASH_LENGTH),
    header: bytes.slice(0, KDF_HEADER_LENGTH),
  };
}

export function isAffordable({ memoryKib, iterations, parallelism }: KdfParameters): boolean {
  return (
    memoryKib >= MEMORY_KIB_MIN &&
    memoryKib <= MEMORY_KIB_MAX &&
    iterations >= 1 &&
    iterations <= ITERATIONS_MAX &&
    parallelism >= 1 &&
    parallelism <= PARALLELISM_MAX
  );
}

export function encodeKeyFile(crypto: CryptoProvider, { databaseId, key }: KeyFile): Uint8Array {
  return withHash(crypto, concat(KEY_MAGIC, databaseId, key));
}

/** The file's fields, or undefined when it is damaged. */
export function decodeKeyFile(crypto: CryptoProvider, bytes: Uint8Array): KeyFile | undefined {
  if (!isIntact(crypto, bytes, KEY_MAGIC, KEY_FILE_LENGTH)) return undefined;
  return {
    databaseId: bytes.slice(8, PREFIX_LENGTH),
    key: bytes.slice(PREFIX_LENGTH, PREFIX_LENGTH + KEY_LENGTH),
  };
}

export function randomSalt(crypto: CryptoProvider): Uint8Array {
  return crypto.random(SALT_LENGTH);
}

function withHash(crypto: CryptoProvider, body: Uint8Array): Uint8Array {
  return concat(body, crypto.hash('sha256', body));
}

function isIntact(crypto: CryptoProvider, bytes: Uint8Array, magic: Uint8Array, length: number): boolean {
  if (bytes.length !== length || !equal(bytes.subarray(0, magic.length), magic)) return false;
  const body = bytes.subarray(0, length - HASH_LENGTH);
  return equal(crypto.hash('sha256', body), bytes.subarray(body.length));
}
