/**
 * This device's own key material that others use to reach it: hybrid keys (PROTOCOL section 1) and KeyPackages with their
 * private parts (PROTOCOL section 8).
 */
import type { KeyPackageBundle } from '@quicprochat/mls';
import type { Driver, SqlRow } from './driver.ts';
import { bigintOf, booleanOf, bytesOf, columns, numberOf, optional } from './sql.ts';

export interface StoredHybridKey {
  /** Grows with each key. */
  readonly serial: bigint;
  readonly publicKey: Uint8Array;
  /** 32-byte seed. */
  readonly privateKey: Uint8Array;
  /** The signed statement, as uploaded. */
  readonly statement: Uint8Array;
  readonly notBeforeSecs: number;
  readonly notAfterSecs: number;
  readonly uploaded: boolean;
  /** When its successor was uploaded. */
  readonly supersededAtMs: number | undefined;
}

/** The signature key is the device key and is not stored again: add it to make a `KeyPackageBundle`. */
export interface StoredKeyPackage extends Omit<KeyPackageBundle, 'signaturePrivateKey'> {
  readonly suite: number;
  readonly lastResort: boolean;
  readonly notAfterSecs: number;
  readonly uploaded: boolean;
  /** When a Welcome came for it: last-resort packages only, others are deleted then. */
  readonly usedAtMs: number | undefined;
  readonly createdAtMs: number;
}

export interface KeyStore {
  /** Newest first: the order to try them in when opening an envelope. */
  hybridKeys(): readonly StoredHybridKey[];
  newestHybridKey(): StoredHybridKey | undefined;
  saveHybridKey(key: StoredHybridKey): void;
  /** Marks a key as uploaded and all older ones as superseded now. */
  hybridKeyUploaded(serial: bigint, nowMs: number): void;
  /** Deletes keys whose successor was uploaded before `beforeMs`. Returns how many. */
  deleteHybridKeysSuperseded(beforeMs: number): number;

  saveKeyPackage(keyPackage: StoredKeyPackage): void;
  keyPackage(ref: Uint8Array): StoredKeyPackage | undefined;
  /** All that have not been confirmed by the server. */
  keyPackagesToUpload(): readonly StoredKeyPackage[];
  keyPackagesUploaded(refs: readonly Uint8Array[]): void;
  /** The last-resort package of a suite, the newest. */
  lastResort(suite: number): StoredKeyPackage | undefined;
  /** A Welcome was taken: deletes the package, or marks it as used when it is of last resort. */
  keyPackageUsed(ref: Uint8Array, nowMs: number): void;
  /** Deletes packages that ended before `nowSecs`. Returns how many. */
  deleteKeyPackagesExpired(nowSecs: number): number;
  deleteKeyPackage(ref: Uint8Array): void;
  /**
   * Remembers a Welcome taken with a last-resort package.
   * @param hash SHA-256 of the Welcome
   * @returns false when it was taken before: refuse it
   */
  rememberWelcome(hash: Uint8Array, ref: Uint8Array): boolean;
}

const HYBRID_KEY = columns<StoredHybridKey>({
  serial: (key) => key.serial,
  public_key: (key) => key.publicKey,
  private_key: (key) => key.privateKey,
  statement: (key) => key.statement,
  not_before_secs: (key) => key.notBeforeSecs,
  not_after_secs: (key) => key.notAfterSecs,
  uploaded: (key) => key.uploaded,
  superseded_at: (key) => key.supersededAtMs,
});

const KEY_PACKAGE = columns<StoredKeyPackage>({
  ref: (keyPackage) => keyPackage.keyPackageRef,
  suite: (keyPackage) => keyPackage.suite,
  key_package: (keyPackage) => keyPackage.keyPackage,
  init_private_key: (keyPackage) => keyPackage.initPrivateKey,
  encryption_private_key: (keyPackage) => keyPackage.encryptionPrivateKey,
  last_resort: (keyPackage) => keyPackage.lastResort,
  not_after_secs: (keyPackage) => keyPackage.notAfterSecs,
  uploaded: (keyPackage) => keyPackage.uploaded,
  used_at: (keyPackage) => keyPackage.usedAtMs,
  created_at: (keyPackage) => keyPackage.createdAtMs,
});

export function keyStore(driver: Driver): KeyStore {
  const hybridKeys = driver.prepare('SELECT * FROM hybrid_keys ORDER BY serial DESC');
  const newestHybridKey = driver.prepare('SELECT * FROM hybrid_keys ORDER BY serial DESC LIMIT 1');
  const saveHybridKey = driver.prepare(HYBRID_KEY.upsert('hybrid_keys', ['serial']));
  const markHybridKey = driver.prepare('UPDATE hybrid_keys SET uploaded = 1 WHERE serial = ?');
  const supersede = driver.prepare(
    'UPDATE hybrid_keys SET superseded_at = ? WHERE serial < ? AND superseded_at IS NULL',
  );
  const deleteSuperseded = driver.prepare('DELETE FROM hybrid_keys WHERE superseded_at < ?');

  const saveKeyPackage = driver.prepare(KEY_PACKAGE.upsert('key_packages', ['ref']));
  const keyPackage = driver.prepare('SELECT * FROM key_packages WHERE ref = ?');
  const toUpload = driver.prepare('SELECT * FROM key_packages WHERE uploaded = 0 ORDER BY created_at');
  const markUploaded = driver.prepare('UPDATE key_packages SET uploaded = 1 WHERE ref = ?');
  const lastResort = driver.prepare(
    'SELECT * FROM key_packages WHERE suite = ? AND last_resort = 1 ORDER BY created_at DESC LIMIT 1',
  );
  const markUsed = driver.prepare('UPDATE key_packages SET used_at = ? WHERE ref = ? AND last_resort = 1');
  const deleteUsed = driver.prepare('DELETE FROM key_packages WHERE ref = ? AND last_resort = 0');
  const deleteExpired = driver.prepare('DELETE FROM key_packages WHERE not_after_secs < ?');
  const deleteKeyPackage = driver.prepare('DELETE FROM key_packages WHERE ref = ?');
  const rememberWelcome = driver.prepare('INSERT INTO welcomes_seen (hash, ref) VALUES (?, ?) ON CONFLICT DO NOTHING');

  return {
    hybridKeys: () => hybridKeys.all().map(hybridKeyOf),
    newestHybridKey() {
      const row = newestHybridKey.get();
      return row && hybridKeyOf(row);
    },
    saveHybridKey(key) {
      saveHybridKey.run(...HYBRID_KEY.values(key));
    },
    hybridKeyUploaded(serial, nowMs) {
      driver.transaction(() => {
        markHybridKey.run(serial);
        supersede.run(nowMs, serial);
      });
    },
    deleteHybridKeysSuperseded: (beforeMs) => deleteSuperseded.run(beforeMs).changes,

    saveKeyPackage(record) {
      saveKeyPackage.run(...KEY_PACKAGE.values(record));
    },
    keyPackage(ref) {
      const row = keyPackage.get(ref);
      return row && keyPackageOf(row);
    },
    keyPackagesToUpload: () => toUpload.all().map(keyPackageOf),
    keyPackagesUploaded(refs) {
      driver.transaction(() => {
        for (const ref of refs) markUploaded.run(ref);
      });
    },
    lastResort(suite) {
      const row = lastResort.get(suite);
      return row && keyPackageOf(row);
    },
    keyPackageUsed(ref, nowMs) {
      driver.transaction(() => {
        markUsed.run(nowMs, ref);
        deleteUsed.run(ref);
      });
    },
    deleteKeyPackagesExpired: (nowSecs) => deleteExpired.run(nowSecs).changes,
    deleteKeyPackage(ref) {
      deleteKeyPackage.run(ref);
    },
    rememberWelcome: (hash, ref) => rememberWelcome.run(hash, ref).changes === 1,
  };
}

function hybridKeyOf(row: SqlRow): StoredHybridKey {
  return {
    serial: bigintOf(row, 'serial'),
    publicKey: bytesOf(row, 'public_key'),
    privateKey: bytesOf(row, 'private_key'),
    statement: bytesOf(row, 'statement'),
    notBeforeSecs: numberOf(row, 'not_before_secs'),
    notAfterSecs: numberOf(row, 'not_after_secs'),
    uploaded: booleanOf(row, 'uploaded'),
    supersededAtMs: optional(numberOf, row, 'superseded_at'),
  };
}

function keyPackageOf(row: SqlRow): StoredKeyPackage {
  return {
    keyPackageRef: bytesOf(row, 'ref'),
    suite: numberOf(row, 'suite'),
    keyPackage: bytesOf(row, 'key_package'),
    initPrivateKey: bytesOf(row, 'init_private_key'),
    encryptionPrivateKey: bytesOf(row, 'encryption_private_key'),
    lastResort: booleanOf(row, 'last_resort'),
    notAfterSecs: numberOf(row, 'not_after_secs'),
    uploaded: booleanOf(row, 'uploaded'),
    usedAtMs: optional(numberOf, row, 'used_at'),
    createdAtMs: numberOf(row, 'created_at'),
  };
}
