/**
 * Other accounts: one identity key per name, pinned at first contact, and the verified keys of their devices. A name that
 * comes with another identity key, or a key statement with a lower serial, is refused by the caller; here it shows.
 */
import type { Driver, SqlRow } from './driver.ts';
import { bigintOf, bytesOf, columns, numberOf, optional, textOf } from './sql.ts';

interface StoredContact {
  readonly identityKey: Uint8Array;
  readonly username: string;
  /** When the user compared safety numbers. */
  readonly verifiedAtMs: number | undefined;
  readonly pinnedAtMs: number;
}

interface StoredContactDevice {
  readonly identityKey: Uint8Array;
  readonly deviceId: Uint8Array;
  readonly deviceKey: Uint8Array;
  /** Encoded, as verified. */
  readonly certificate: Uint8Array;
  readonly certificateSerial: bigint;
  /** The newest verified hybrid key; undefined while none is known. */
  readonly hybridKey:
    | {
        /** X-Wing public key. */
        readonly publicKey: Uint8Array;
        readonly statement: Uint8Array;
        readonly serial: bigint;
        readonly notAfterSecs: number;
      }
    | undefined;
  readonly revokedAtMs: number | undefined;
  readonly checkedAtMs: number;
}

/** `changed`: the name is pinned to another key, or the key to another name; nothing was stored. */
type PinOutcome = { readonly kind: 'new' | 'same' } | { readonly kind: 'changed'; readonly pinned: StoredContact };

export interface ContactStore {
  byIdentity(identityKey: Uint8Array): StoredContact | undefined;
  byUsername(username: string): StoredContact | undefined;
  /** In order of name. */
  all(): readonly StoredContact[];
  /** Stores the pair at first contact, afterwards compares. */
  pin(username: string, identityKey: Uint8Array, nowMs: number): PinOutcome;
  setVerified(identityKey: Uint8Array, atMs: number | undefined): void;
  devices(identityKey: Uint8Array): readonly StoredContactDevice[];
  device(identityKey: Uint8Array, deviceId: Uint8Array): StoredContactDevice | undefined;
  /**
   * Stores what was verified.
   * @returns false, with nothing stored, when the certificate's or hybrid key's serial is lower than what is known
   */
  saveDevice(device: StoredContactDevice): boolean;
}

const DEVICE = columns<StoredContactDevice>({
  identity_key: (device) => device.identityKey,
  device_id: (device) => device.deviceId,
  device_key: (device) => device.deviceKey,
  certificate: (device) => device.certificate,
  certificate_serial: (device) => device.certificateSerial,
  hybrid_key: (device) => device.hybridKey?.publicKey,
  hybrid_statement: (device) => device.hybridKey?.statement,
  hybrid_serial: (device) => device.hybridKey?.serial ?? 0n,
  hybrid_not_after_secs: (device) => device.hybridKey?.notAfterSecs ?? 0,
  revoked_at: (device) => device.revokedAtMs,
  checked_at: (device) => device.checkedAtMs,
});

export function contactStore(driver: Driver): ContactStore {
  const byIdentity = driver.prepare('SELECT * FROM contacts WHERE identity_key = ?');
  const byUsername = driver.prepare('SELECT * FROM contacts WHERE username = ?');
  const all = driver.prepare('SELECT * FROM contacts ORDER BY username');
  const insert = driver.prepare('INSERT INTO contacts (identity_key, username, pinned_at) VALUES (?, ?, ?)');
  const setVerified = driver.prepare('UPDATE contacts SET verified_at = ? WHERE identity_key = ?');
  const devices = driver.prepare('SELECT * FROM contact_devices WHERE identity_key = ? ORDER BY device_id');
  const device = driver.prepare('SELECT * FROM contact_devices WHERE identity_key = ? AND device_id = ?');
  const saveDevice = driver.prepare(
    `${DEVICE.upsert('contact_devices', ['identity_key', 'device_id'])}
     WHERE excluded.certificate_serial >= certificate_serial AND excluded.hybrid_serial >= hybrid_serial`,
  );

  return {
    byIdentity(identityKey) {
      const row = byIdentity.get(identityKey);
      return row && contactOf(row);
    },
    byUsername(username) {
      const row = byUsername.get(username);
      return row && contactOf(row);
    },
    all: () => all.all().map(contactOf),
    pin: (username, identityKey, nowMs) =>
      driver.transaction((): PinOutcome => {
        const named = byUsername.get(username);
        const keyed = byIdentity.get(identityKey);
        if (named === undefined && keyed === undefined) {
          insert.run(identityKey, username, nowMs);
          return { kind: 'new' };
        }
        // The same row when nothing changed: the key found by name has this name.
        if (keyed !== undefined && textOf(keyed, 'username') === username) return { kind: 'same' };
        return { kind: 'changed', pinned: contactOf((named ?? keyed)!) };
      }),
    setVerified(identityKey, atMs) {
      setVerified.run(atMs ?? null, identityKey);
    },
    devices: (identityKey) => devices.all(identityKey).map(deviceOf),
    device(identityKey, deviceId) {
      const row = device.get(identityKey, deviceId);
      return row && deviceOf(row);
    },
    saveDevice: (record) => saveDevice.run(...DEVICE.values(record)).changes === 1,
  };
}

function contactOf(row: SqlRow): StoredContact {
  return {
    identityKey: bytesOf(row, 'identity_key'),
    username: textOf(row, 'username'),
    verifiedAtMs: optional(numberOf, row, 'verified_at'),
    pinnedAtMs: numberOf(row, 'pinned_at'),
  };
}

function deviceOf(row: SqlRow): StoredContactDevice {
  const publicKey = optional(bytesOf, row, 'hybrid_key');
  return {
    identityKey: bytesOf(row, 'identity_key'),
    deviceId: bytesOf(row, 'device_id'),
    deviceKey: bytesOf(row, 'device_key'),
    certificate: bytesOf(row, 'certificate'),
    certificateSerial: bigintOf(row, 'certificate_serial'),
    hybridKey: publicKey && {
      publicKey,
      statement: bytesOf(row, 'hybrid_statement'),
      serial: bigintOf(row, 'hybrid_serial'),
      notAfterSecs: numberOf(row, 'hybrid_not_after_secs'),
    },
    revokedAtMs: optional(numberOf, row, 'revoked_at'),
    checkedAtMs: numberOf(row, 'checked_at'),
  };
}
