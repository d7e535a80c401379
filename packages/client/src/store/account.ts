/** Who this profile is: the account with its keys, the session, and what its server said of itself. */
import type { Driver, SqlRow } from './driver.ts';
import { bytesOf, columns, numberOf, optional, textOf, wordOf } from './sql.ts';

const STATES = ['registering', 'registered', 'deleted'] as const;

export interface StoredAccount {
  /** `registering`: keys are stored, the server has not yet confirmed. `deleted`: by us; the history stays. */
  readonly state: (typeof STATES)[number];
  readonly origin: string;
  readonly username: string;
  readonly identityKey: Uint8Array;
  /** Undefined on devices that do not manage the account. */
  readonly identityPrivateKey: Uint8Array | undefined;
  readonly deviceId: Uint8Array;
  readonly deviceKey: Uint8Array;
  readonly devicePrivateKey: Uint8Array;
  /** This device's certificate, encoded. */
  readonly certificate: Uint8Array;
  readonly createdAtMs: number;
}

interface StoredSession {
  /** 32 bytes. */
  readonly token: Uint8Array;
  readonly expiresAtMs: number | undefined;
  readonly createdAtMs: number;
}

/** Fields a server does not have are empty. */
export interface ServerPin {
  readonly origin: string;
  readonly receiptKey: Uint8Array;
  readonly opaqueKey: Uint8Array;
  readonly logOrigin: string;
  readonly logKey: Uint8Array;
  readonly logVrfKey: Uint8Array;
  readonly pinnedAtMs: number;
}

export interface AccountStore {
  get(): StoredAccount | undefined;
  /** Replaces the whole record. */
  save(account: StoredAccount): void;
  /** Forgets the account's keys: for a registration the server refused. */
  clear(): void;
  session(): StoredSession | undefined;
  saveSession(session: StoredSession): void;
  clearSession(): void;
  serverPin(origin: string): ServerPin | undefined;
  /** The pins of all servers ever met: in practice one. */
  serverPins(): readonly ServerPin[];
  saveServerPin(pin: ServerPin): void;
}

const ACCOUNT = columns<StoredAccount>({
  id: () => 1,
  state: (account) => account.state,
  origin: (account) => account.origin,
  username: (account) => account.username,
  identity_key: (account) => account.identityKey,
  identity_private_key: (account) => account.identityPrivateKey,
  device_id: (account) => account.deviceId,
  device_key: (account) => account.deviceKey,
  device_private_key: (account) => account.devicePrivateKey,
  certificate: (account) => account.certificate,
  created_at: (account) => account.createdAtMs,
});

const SESSION = columns<StoredSession>({
  id: () => 1,
  token: (session) => session.token,
  expires_at: (session) => session.expiresAtMs,
  created_at: (session) => session.createdAtMs,
});

const PIN = columns<ServerPin>({
  origin: (pin) => pin.origin,
  receipt_key: (pin) => pin.receiptKey,
  opaque_key: (pin) => pin.opaqueKey,
  log_origin: (pin) => pin.logOrigin,
  log_key: (pin) => pin.logKey,
  log_vrf_key: (pin) => pin.logVrfKey,
  pinned_at: (pin) => pin.pinnedAtMs,
});

export function accountStore(driver: Driver): AccountStore {
  const getAccount = driver.prepare('SELECT * FROM account');
  const saveAccount = driver.prepare(ACCOUNT.upsert('account', ['id']));
  const clearAccount = driver.prepare('DELETE FROM account');
  const getSession = driver.prepare('SELECT * FROM session');
  const saveSession = driver.prepare(SESSION.upsert('session', ['id']));
  const clearSession = driver.prepare('DELETE FROM session');
  const getPin = driver.prepare('SELECT * FROM server_pins WHERE origin = ?');
  const allPins = driver.prepare('SELECT * FROM server_pins ORDER BY pinned_at');
  const savePin = driver.prepare(PIN.upsert('server_pins', ['origin']));

  return {
    get() {
      const row = getAccount.get();
      return row && accountOf(row);
    },
    save(account) {
      saveAccount.run(...ACCOUNT.values(account));
    },
    clear() {
      clearAccount.run();
    },
    session() {
      const row = getSession.get();
      return (
        row && {
          token: bytesOf(row, 'token'),
          expiresAtMs: optional(numberOf, row, 'expires_at'),
          createdAtMs: numberOf(row, 'created_at'),
        }
      );
    },
    saveSession(session) {
      saveSession.run(...SESSION.values(session));
    },
    clearSession() {
      clearSession.run();
    },
    serverPin(origin) {
      const row = getPin.get(origin);
      return row && pinOf(row);
    },
    serverPins: () => allPins.all().map(pinOf),
    saveServerPin(pin) {
      savePin.run(...PIN.values(pin));
    },
  };
}

function accountOf(row: SqlRow): StoredAccount {
  return {
    state: wordOf(row, 'state', STATES),
    origin: textOf(row, 'origin'),
    username: textOf(row, 'username'),
    identityKey: bytesOf(row, 'identity_key'),
    identityPrivateKey: optional(bytesOf, row, 'identity_private_key'),
    deviceId: bytesOf(row, 'device_id'),
    deviceKey: bytesOf(row, 'device_key'),
    devicePrivateKey: bytesOf(row, 'device_private_key'),
    certificate: bytesOf(row, 'certificate'),
    createdAtMs: numberOf(row, 'created_at'),
  };
}

function pinOf(row: SqlRow): ServerPin {
  return {
    origin: textOf(row, 'origin'),
    receiptKey: bytesOf(row, 'receipt_key'),
    opaqueKey: bytesOf(row, 'opaque_key'),
    logOrigin: textOf(row, 'log_origin'),
    logKey: bytesOf(row, 'log_key'),
    logVrfKey: bytesOf(row, 'log_vrf_key'),
    pinnedAtMs: numberOf(row, 'pinned_at'),
  };
}
