/**
 * This device's certificate, renewed at half of its year, or where the server lists another one (it was put back to an
 * earlier state), by a device that holds the identity key (PROTOCOL section 1):
 *
 *   half over, or not ours ─▶ next serial signed, on disk ─▶ the account's next statement, RegisterDevice ─▶ ours from now on
 *     ─▶ fresh KeyPackages ─▶ an update commit in each group, so that the leaf carries it (duties.ts)
 *
 * A repeat after a crash sends the same certificate, which the server knows again.
 */
import { decodeHex, encodeHex, equal } from '@quicprochat/crypto';
import {
  CERTIFICATE_BACKDATE_SECS,
  CERTIFICATE_LIFETIME_SECS,
  type DeviceCertificate,
  parseDeviceCertificate,
  signDeviceCertificate,
} from '@quicprochat/core';
import { Status } from '@quicprochat/proto';
import type { Engine } from './engine.ts';
import { ClientError } from './errors.ts';
import { signNextStatement } from './key-transparency/own-statements.ts';
import { registerThisDevice } from './register-device.ts';
import { statusOf } from './server-errors.ts';
import type { StoredAccount } from './store/index.ts';

const PENDING_KEY = 'certificate-renewal';
/** The certificate that the server lists in place of ours, hex. */
const LISTED_OTHERWISE_KEY = 'certificate-listed-otherwise';
/** Another device of the account may change it at the same moment. */
const ATTEMPTS_MAX = 3;

/** Renews the certificate if it is time and this device can. @returns whether there is a new one */
export async function renewCertificate(engine: Engine): Promise<boolean> {
  return engine.queue.run('renew-certificate', async () => {
    const account = engine.self;
    const { identityPrivateKey } = account;
    const current = parseDeviceCertificate(account.certificate)?.claims;
    if (identityPrivateKey === undefined || current === undefined) return false;
    const listed = listedOtherwise(engine)?.serial ?? 0n;
    if (!isHalfOver(current, engine.nowSecs()) && listed === 0n) return false;
    const highest = listed > current.serial ? listed : current.serial;
    const renewed = successorOf(engine, account, identityPrivateKey, { ...current, serial: highest });
    for (let attempt = 1; ; attempt++) {
      try {
        await register(engine, account, renewed);
        break;
      } catch (error) {
        if (statusOf(error) !== Status.CONFLICT || attempt >= ATTEMPTS_MAX) throw error;
      }
    }
    engine.change((change) => {
      change.store.account.save({ ...account, certificate: renewed });
      change.store.settings.set(PENDING_KEY, undefined);
      change.store.settings.set(LISTED_OTHERWISE_KEY, undefined);
      change.accountChanged = true;
      for (const { channelId, groupId } of change.store.conversations.all()) {
        if (groupId !== undefined) change.after(() => engine.reactions.dutiesChanged(channelId));
      }
    });
    return true;
  });
}

/**
 * Takes down whether the account, as verified, has this device with another certificate than its own: then the server was
 * put back to an earlier state. Others who have seen ours refuse an earlier one, so there has to be one above both.
 * @returns whether that is so
 */
export function noteListed(engine: Engine, certificates: readonly Uint8Array[]): boolean {
  const account = engine.self;
  if (account.identityPrivateKey === undefined) return false;
  const { settings } = engine.store;
  const listed = certificates.find((bytes) => isOf(account, bytes));
  // One whose answer was lost is sent again at its time. A device without any is none of the account's any more.
  const isOurs =
    listed === undefined || equal(listed, account.certificate) || settings.get(PENDING_KEY) === encodeHex(listed);
  const value = isOurs ? undefined : encodeHex(listed);
  if (settings.get(LISTED_OTHERWISE_KEY) !== value) {
    engine.change((change) => change.store.settings.set(LISTED_OTHERWISE_KEY, value));
  }
  return !isOurs;
}

function listedOtherwise({ store }: Engine): DeviceCertificate | undefined {
  const bytes = decodeHex(store.settings.get(LISTED_OTHERWISE_KEY) ?? '');
  return bytes && parseDeviceCertificate(bytes)?.claims;
}

function isOf({ deviceId }: StoredAccount, certificate: Uint8Array): boolean {
  const claims = parseDeviceCertificate(certificate)?.claims;
  return claims !== undefined && equal(claims.deviceId, deviceId);
}

function isHalfOver({ notBeforeSecs, notAfterSecs }: DeviceCertificate, nowSecs: number): boolean {
  return nowSecs >= notBeforeSecs + (notAfterSecs - notBeforeSecs) / 2;
}

/** The certificate to come, on disk before anybody sees it. */
function successorOf(
  engine: Engine,
  account: StoredAccount,
  identityPrivateKey: Uint8Array,
  current: DeviceCertificate,
): Uint8Array {
  const { settings } = engine.store;
  const begun = decodeHex(settings.get(PENDING_KEY) ?? '');
  const claims = begun && parseDeviceCertificate(begun)?.claims;
  // One that was begun long ago would be over soon; whether it was accepted shows when it is sent again.
  if (begun !== undefined && claims?.serial === current.serial + 1n && !isHalfOver(claims, engine.nowSecs()))
    return begun;
  const notBeforeSecs = engine.nowSecs() - CERTIFICATE_BACKDATE_SECS;
  const renewed = signDeviceCertificate(engine.crypto, identityPrivateKey, {
    origin: account.origin,
    username: account.username,
    identityKey: account.identityKey,
    deviceId: account.deviceId,
    deviceKey: account.deviceKey,
    manager: current.manager,
    // Above that of one that was begun, too: the server may have it.
    serial: (claims?.serial ?? current.serial) + 1n,
    notBeforeSecs,
    notAfterSecs: notBeforeSecs + CERTIFICATE_BACKDATE_SECS + CERTIFICATE_LIFETIME_SECS,
  });
  engine.change((change) => change.store.settings.set(PENDING_KEY, encodeHex(renewed)));
  return renewed;
}

async function register(engine: Engine, account: StoredAccount, renewed: Uint8Array): Promise<void> {
  let isThere = false;
  const accountStatement = await signNextStatement(engine, ({ certificates, revocations }) => {
    isThere = certificates.some((bytes) => equal(bytes, renewed));
    if (isThere) return 'unchanged';
    const isOwn = (bytes: Uint8Array): boolean => isOf(account, bytes);
    if (!certificates.some(isOwn)) {
      throw new ClientError('refused', 'device-unknown', 'this device is not one of the account’s any more');
    }
    return { certificates: certificates.map((bytes) => (isOwn(bytes) ? renewed : bytes)), revocations };
  });
  if (isThere) return;
  await registerThisDevice(engine, renewed, accountStatement);
}
