/**
 * Other accounts: looked up at the server, verified, pinned (PROTOCOL section 1, "First contact"). Whatever leaves this
 * file has been checked: ResolveUser → identity key against the pin → device certificates → hybrid keys → KeyPackages.
 */
import { encodeHex, equal } from '@quicprochat/crypto';
import {
  checkUsername,
  type DeviceAddress,
  encodeAddress,
  encodeCredentialIdentity,
  parseDeviceCertificate,
  parseRevocation,
  type ResolvedAccount,
  type VerifiedDeviceCertificate,
  verifyDeviceCertificate,
  verifyRevocation,
  type VerifiedHybridKey,
} from '@quicprochat/core';
import { CredentialType, type LeafIndex, verifyKeyPackage } from '@quicprochat/mls';
import type { Account as ProtoAccount, DeviceHybridKey } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import type { AddTarget } from './commit/build-commit.ts';
import type { Engine } from './engine.ts';
import { ClientError } from './errors.ts';
import type { AccountKeys } from './key-transparency/own-statements.ts';
import type { Patience } from './patience.ts';
import { verifyMember } from './profile/member.ts';
import { nameOfSuite } from './profile/suites.ts';
import { lifetimeAllowed } from './profile/validate-commit.ts';
import type { Contact, KeyCheck } from './types.ts';
import {
  compareWithLog,
  identityChanged,
  type Pins,
  type VerifiedAccount,
  verifyAccount,
  verifyDeviceHybridKey,
} from './verify-account.ts';

const HYBRID_KEYS_PER_CALL = 1_000;
/** How often an account is asked for that changes under our hands. */
const LOOK_UPS_MAX = 4;

/** @throws ClientError `invalid-username` */
export function canonicalUsername(username: string): string {
  const name = username.startsWith('@') ? username.slice(1) : username;
  const check = checkUsername(name);
  if (check.kind === 'canonical') return check.username;
  throw new ClientError('usage', 'invalid-username', check.reason, {
    hint: 'Names are 2 to 32 of the characters a-z, 0-9, ".", "_" and "-".',
  });
}

/** An account by name, verified, its key pinned from now on. `pin` says whether it was before. */
export async function resolveUser(
  engine: Engine,
  username: string,
): Promise<{ readonly account: VerifiedAccount; readonly pin: 'new' | 'same' }> {
  const name = canonicalUsername(username);
  const found = await lookUp(engine, { username: name }, async () => {
    const { outcome } = await engine.server.call(methods.user.resolveUser, { username: name });
    return outcome.case === 'found' ? outcome.value : undefined;
  });
  if (found === undefined) throw unknownUser(name);
  return found;
}

/** An account by identity key, verified and pinned; undefined when the server knows none. */
export async function resolveIdentity(engine: Engine, identityKey: Uint8Array): Promise<VerifiedAccount | undefined> {
  const found = await lookUp(engine, { identityKey }, async () => {
    const { outcome } = await engine.server.call(methods.user.resolveIdentity, { identityKey });
    return outcome.case === 'found' ? outcome.value : undefined;
  });
  return found?.account;
}

/** Our own account: what it is now, and that as the log has it, undefined where the server keeps none. */
export async function resolveSelf(
  engine: Engine,
): Promise<{ readonly logged: ResolvedAccount | undefined; readonly keys: AccountKeys }> {
  const { username } = engine.self;
  const found = await lookUp(engine, { username }, async () => {
    const { outcome } = await engine.server.call(methods.user.resolveUser, { username });
    return outcome.case === 'found' ? outcome.value : undefined;
  });
  if (found === undefined) {
    throw new ClientError('verification-failed', 'no-log-proof', 'the server denies that this account exists', {
      hint: 'Log in again; if it stays, ask the operator of the server.',
    });
  }
  const { answer, logged } = found;
  const { deviceCertificates: certificates, revocations } = answer;
  if (logged !== undefined) refuseStrangeRevocations(engine, revocations, logged);
  return { logged, keys: { certificates, revocations } };
}

interface LookedUp {
  readonly account: VerifiedAccount;
  readonly pin: 'new' | 'same';
  /** Undefined where the server keeps no log. */
  readonly logged: ResolvedAccount | undefined;
  /** Its certificates verify; those that have expired are among them. */
  readonly answer: ProtoAccount;
}

/** Asks until the answer is the newest the log has; it may have grown while the answer was on its way. */
async function lookUp(
  engine: Engine,
  asked: { readonly username?: string; readonly identityKey?: Uint8Array },
  ask: () => Promise<ProtoAccount | undefined>,
): Promise<LookedUp | undefined> {
  for (let attempt = 0; attempt < LOOK_UPS_MAX; attempt++) {
    const sizeWhenAsked = engine.transparency.size;
    const answer = await ask();
    if (answer === undefined) return undefined;
    const verified = verifiedAnswer(engine, asked, answer);
    const { username, identityKey } = verified;
    const outcome = await engine.transparency.check(username, identityKey, answer.keyTransparency, sizeWhenAsked);
    if (outcome.kind === 'superseded') continue;
    const logged = outcome.kind === 'current' ? outcome.account : undefined;
    if (logged !== undefined) refuseUnlisted(engine, verified, answer, logged);
    return { account: verified, pin: pinAccount(engine, verified), logged, answer };
  }
  throw new ClientError('refused', 'lost-race', 'this account keeps changing', { hint: 'Try again.' });
}

/** Hybrid keys of devices, by address in hex; verified. Devices without one, or with one that is refused, are left out. */
export async function fetchHybridKeys(
  engine: Engine,
  addresses: readonly DeviceAddress[],
): Promise<ReadonlyMap<string, VerifiedHybridKey>> {
  const keys = new Map<string, VerifiedHybridKey>();
  const wanted = new Set(addresses.map((address) => encodeHex(encodeAddress(address))));
  for (let start = 0; start < addresses.length; start += HYBRID_KEYS_PER_CALL) {
    const answer = await engine.server.call(methods.keys.fetchHybridKeys, {
      addresses: addresses
        .slice(start, start + HYBRID_KEYS_PER_CALL)
        .map(({ identityKey, deviceId }) => ({ identityKey, deviceId })),
    });
    const verified: VerifiedDeviceKey[] = [];
    for (const entry of answer.keys) {
      try {
        const deviceKey = verifyHybridKeyAnswer(engine, entry);
        const key = encodeHex(encodeAddress(deviceKey.address));
        if (!wanted.has(key)) continue;
        keys.set(key, deviceKey.hybridKey);
        verified.push(deviceKey);
      } catch (error) {
        if (!(error instanceof ClientError)) throw error;
        engine.ports.log.warn('a hybrid key was refused', { reason: error.code });
      }
    }
    rememberDevices(engine, verified);
  }
  return keys;
}

/** What it takes to add all devices of an account to a group: consumes one KeyPackage of each. */
export async function fetchAddTargets(
  engine: Engine,
  account: VerifiedAccount,
  suite: number,
  patience?: Patience,
): Promise<readonly AddTarget[]> {
  const { username, identityKey, devices } = account;
  const addresses = devices.map(({ deviceId }) => ({ identityKey, deviceId }));
  const packages = () => fetchKeyPackages(engine, account, suite);
  const hybrids = () => fetchHybridKeys(engine, addresses);
  // Each for itself: what a KeyPackage cost is not to be paid again because the second question came too soon.
  const keyPackages = await (patience === undefined ? packages() : patience.ask(packages));
  const hybridKeys = await (patience === undefined ? hybrids() : patience.ask(hybrids));
  const targets: AddTarget[] = [];
  for (const { address, keyPackage } of keyPackages) {
    const hybridKey = hybridKeys.get(encodeHex(encodeAddress(address)));
    if (hybridKey !== undefined) targets.push({ address, username, hybridKey, keyPackage });
  }
  if (targets.length === 0) {
    throw new ClientError(
      'refused',
      'no-key-package',
      `${username} cannot be reached now: the server has no keys of theirs for ${nameOfSuite(suite)} conversations`,
      {
        hint: `Ask ${username} to start an up-to-date client once, then try again.`,
      },
    );
  }
  return targets;
}

/** One KeyPackage of each device of an account that has one at the server, verified; consumes them. */
export async function fetchKeyPackages(
  engine: Engine,
  { identityKey, devices }: VerifiedAccount,
  suite: number,
): Promise<readonly Pick<AddTarget, 'address' | 'keyPackage'>[]> {
  const answer = await engine.server.call(methods.keys.fetchKeyPackage, { identityKey, suite });
  return answer.keyPackages.flatMap((fetched) => {
    const certificate = devices.find((device) => equal(device.deviceId, fetched.deviceId));
    // A device the certificates do not know is not the account's, whatever the server says (THREATS 1).
    if (certificate === undefined) return [];
    const address = { identityKey, deviceId: certificate.deviceId };
    return [{ address, keyPackage: verifiedKeyPackage(engine, certificate, suite, fetched.keyPackage) }];
  });
}

export async function resolve(engine: Engine, username: string): Promise<Contact> {
  const { account, pin } = await resolveUser(engine, username);
  return contactOf(account, pin);
}

export async function checkKey(engine: Engine, username: string): Promise<KeyCheck> {
  const { account, pin } = await resolveUser(engine, username);
  const answer = await engine.server.call(methods.keys.fetchHybridKey, { identityKey: account.identityKey });
  const verified = answer.keys.map((entry) => verifyHybridKeyAnswer(engine, entry));
  rememberDevices(engine, verified);
  const found = new Map(verified.map(({ address, hybridKey }) => [encodeHex(address.deviceId), hybridKey]));
  return {
    contact: contactOf(account, pin),
    devices: account.devices.map((device) => {
      const deviceId = encodeHex(device.deviceId);
      const key = found.get(deviceId);
      return {
        deviceId,
        hybridKey: key === undefined ? undefined : { serial: Number(key.serial), notAfterMs: key.notAfterSecs * 1000 },
      };
    }),
  };
}

function verifiedAnswer(
  engine: Engine,
  asked: { readonly username?: string; readonly identityKey?: Uint8Array },
  answer: ProtoAccount,
): VerifiedAccount {
  const { store, crypto } = engine;
  const { origin, username: ownName, identityKey: ownKey } = engine.self;
  const pinned = answer.username === ownName ? ownKey : store.contacts.byUsername(answer.username)?.identityKey;
  return verifyAccount(crypto, origin, engine.nowSecs(), asked, answer, pinsOf(engine, answer.identityKey, pinned));
}

function pinAccount(engine: Engine, account: VerifiedAccount): 'new' | 'same' {
  const { store } = engine;
  if (account.username === engine.self.username) return 'same';
  return engine.change(() => {
    const outcome = store.contacts.pin(account.username, account.identityKey, engine.nowMs());
    if (outcome.kind === 'changed') throw identityChanged(account.username);
    for (const certificate of account.devices) saveDevice(engine, certificate, undefined);
    return outcome.kind;
  });
}

/** What our next statement is to repeat has to be in the log, or by a device that the log knows. */
function refuseStrangeRevocations(engine: Engine, revocations: readonly Uint8Array[], logged: ResolvedAccount): void {
  const { origin, identityKey } = engine.self;
  const isOurs = (bytes: Uint8Array): boolean => {
    if (logged.revocations.some((known) => equal(known.bytes, bytes))) return true;
    const parsed = parseRevocation(bytes);
    if (parsed === undefined) return false;
    const { deviceId } = parsed.claims.address;
    const deviceKey = logged.certificates.find((known) => equal(known.deviceId, deviceId))?.deviceKey;
    return verifyRevocation(engine.crypto, parsed, { origin, identityKey, deviceKey }).kind === 'verified';
  };
  if (revocations.every(isOurs)) return;
  throw new ClientError(
    'verification-failed',
    'bad-log-proof',
    'the server shows a revocation that is not of this account',
    {
      hint: 'Nothing was signed. The server may be faulty or lying; tell its operator.',
    },
  );
}

/**
 * The devices the server names have to be those of the logged statement (THREATS 1): none beside them, and none left out
 * but those whose certificate is over or that are revoked.
 */
function refuseUnlisted(
  engine: Engine,
  account: VerifiedAccount,
  answer: ProtoAccount,
  { certificates }: ResolvedAccount,
): void {
  const reason = compareWithLog(engine.crypto, engine.self.origin, engine.nowSecs(), account, answer, certificates);
  if (reason === undefined) return;
  throw new ClientError(
    'verification-failed',
    'bad-log-proof',
    `the keys of ${account.username} are refused: ${reason}`,
    {
      hint: 'Nothing was sent. The server may be faulty or lying; see qpc audit, and tell its operator.',
    },
  );
}

function pinsOf(engine: Engine, identityKey: Uint8Array, pinned: Uint8Array | undefined): Pins {
  const known = new Map(
    engine.store.contacts.devices(identityKey).map((device) => [encodeHex(device.deviceId), device]),
  );
  return {
    identityKey: pinned,
    certificateSerial: (deviceId) => known.get(deviceId)?.certificateSerial,
    hybridSerial: (deviceId) => known.get(deviceId)?.hybridKey?.serial,
  };
}

interface VerifiedDeviceKey {
  readonly address: DeviceAddress;
  readonly certificate: VerifiedDeviceCertificate;
  readonly hybridKey: VerifiedHybridKey;
}

/** IK → certificate → hybrid key, for one device of whoever. */
function verifyHybridKeyAnswer(engine: Engine, entry: DeviceHybridKey): VerifiedDeviceKey {
  const { crypto } = engine;
  const { address, deviceCertificate } = entry;
  const parsed = parseDeviceCertificate(deviceCertificate);
  if (address === undefined || parsed === undefined) {
    throw new ClientError('verification-failed', 'bad-certificate', 'the server sent a malformed device certificate');
  }
  const outcome = verifyDeviceCertificate(crypto, parsed, {
    origin: engine.self.origin,
    identityKey: address.identityKey,
    deviceId: address.deviceId,
  });
  if (outcome.kind === 'invalid') {
    throw new ClientError(
      'verification-failed',
      'bad-certificate',
      `a device certificate does not verify: ${outcome.reason}`,
    );
  }
  const certificate = outcome.statement;
  const pins = pinsOf(engine, address.identityKey, undefined);
  const hybridKey = verifyDeviceHybridKey(crypto, engine.nowSecs(), certificate, entry, pins);
  return {
    address: { identityKey: certificate.identityKey, deviceId: certificate.deviceId },
    certificate,
    hybridKey,
  };
}

/** What is newer than known is remembered for pinned accounts, so that nothing older is believed later. */
function rememberDevices(engine: Engine, verified: readonly VerifiedDeviceKey[]): void {
  const { contacts } = engine.store;
  const news = verified.filter(({ address, hybridKey }) => {
    if (contacts.byIdentity(address.identityKey) === undefined) return false;
    return contacts.device(address.identityKey, address.deviceId)?.hybridKey?.serial !== hybridKey.serial;
  });
  if (news.length === 0) return;
  engine.change(() => {
    for (const { certificate, hybridKey } of news) saveDevice(engine, certificate, hybridKey);
  });
}

function saveDevice(
  engine: Engine,
  certificate: VerifiedDeviceCertificate,
  hybridKey: VerifiedHybridKey | undefined,
): void {
  const known = engine.store.contacts.device(certificate.identityKey, certificate.deviceId);
  engine.store.contacts.saveDevice({
    identityKey: certificate.identityKey,
    deviceId: certificate.deviceId,
    deviceKey: certificate.deviceKey,
    certificate: certificate.bytes,
    certificateSerial: certificate.serial,
    hybridKey:
      hybridKey === undefined
        ? known?.hybridKey
        : {
            publicKey: hybridKey.publicKey,
            statement: hybridKey.bytes,
            serial: hybridKey.serial,
            notAfterSecs: hybridKey.notAfterSecs,
          },
    revokedAtMs: known?.revokedAtMs,
    checkedAtMs: engine.nowMs(),
  });
}

function verifiedKeyPackage(
  engine: Engine,
  certificate: VerifiedDeviceCertificate,
  suite: number,
  bytes: Uint8Array,
): AddTarget['keyPackage'] {
  const { username } = certificate;
  const refuse = (reason: string): ClientError =>
    new ClientError('verification-failed', 'bad-key-package', `the KeyPackage of ${username} is refused: ${reason}`, {
      hint: `Nothing was sent. Ask ${username} to run qpc refresh-keypackage, then try again.`,
    });
  const outcome = verifyKeyPackage(engine.mls(), bytes.slice());
  if (outcome.kind === 'rejected') throw refuse(outcome.reason);
  const { keyPackage } = outcome;
  const { leafNode } = keyPackage;
  if (keyPackage.cipherSuite !== suite) throw refuse('it is for another cipher suite');
  if (!equal(leafNode.signatureKey, certificate.deviceKey)) throw refuse('it is not signed by the device');
  const expected = encodeCredentialIdentity({ identityKey: certificate.identityKey, deviceId: certificate.deviceId });
  if (leafNode.credential.credentialType !== CredentialType.Basic || !equal(leafNode.credential.identity, expected)) {
    throw refuse('its credential names somebody else');
  }
  if (!lifetimeAllowed(leafNode)) throw refuse('its lifetime is longer than 90 days');
  const member = verifyMember(engine.crypto, engine.self.origin, { ...leafNode, leafIndex: 0 as LeafIndex });
  if (member.kind === 'invalid') throw refuse(member.reason);
  if (member.member.username !== username) throw refuse('its certificate is for another account');
  return keyPackage;
}

function contactOf(account: VerifiedAccount, pin: 'new' | 'same'): Contact {
  return {
    username: account.username,
    identityKey: encodeHex(account.identityKey),
    pin,
    devices: account.devices.map((device) => ({
      deviceId: encodeHex(device.deviceId),
      deviceKey: encodeHex(device.deviceKey),
      manager: device.manager,
      certificateSerial: Number(device.serial),
      certificateNotAfterMs: device.notAfterSecs * 1000,
    })),
  };
}

function unknownUser(username: string): ClientError {
  return new ClientError('refused', 'unknown-user', `there is no user ${username} on this server`, {
    hint: 'Check the spelling.',
  });
}
