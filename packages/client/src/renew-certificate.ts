/**
 * This device's certificate, renewed at half of its year by a device that holds the identity key (PROTOCOL section 1):
 *
 *   half over ─▶ next serial signed, on disk ─▶ the account's next statement, RegisterDevice ─▶ ours from now on
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
/** Another device of the account may change it at the same moment. */
const ATTEMPTS_MAX = 3;

/** Renews the certificate if it is time and this device can. @returns whether there is a new one */
export async function renewCertificate(engine: Engine): Promise<boolean> {
  return engine.queue.run('renew-certificate', async () => {
    const account = engine.self;
    const { identityPrivateKey } = account;
    const current = parseDeviceCertificate(account.certificate)?.claims;
    if (identityPrivateKey === undefined || current === undefined || !isHalfOver(current, engine.nowSecs()))
      return false;
    const renewed = successorOf(engine, account, identityPrivateKey, current);
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
      change.accountChanged = true;
      for (const { channelId, groupId } of change.store.conversations.all()) {
        if (groupId !== undefined) change.after(() => engine.reactions.dutiesChanged(channelId));
      }
    });
    return true;
  });
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
    const isOwn = (bytes: Uint8Array): boolean => {
      const deviceId = parseDeviceCertificate(bytes)?.claims.deviceId;
      return deviceId !== undefined && equal(deviceId, account.deviceId);
    };
    if (!certificates.some(isOwn)) {
      throw new ClientError('refused', 'device-unknown', 'this device is not one of the account’s any more');
    }
    return { certificates: certificates.map((bytes) => (isOwn(bytes) ? renewed : bytes)), revocations };
  });
  if (isThere) return;
  await registerThisDevice(engine, renewed, accountStatement);
}
