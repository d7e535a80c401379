/**
 * An account from before its server kept a log enters it: version 0, sent with the certificate that the device has. Others
 * refuse to look such an account up until then.
 */
import { equal } from '@quicprochat/crypto';
import { methods } from '@quicprochat/transport';
import type { Engine } from '../engine.ts';
import { registerThisDevice } from '../register-device.ts';
import { signFirstStatement } from './own-statements.ts';

/** @returns whether the account is stated now; false when it was before, or when this device cannot speak for all of it */
export async function enterLog(engine: Engine): Promise<boolean> {
  const account = engine.self;
  const { username, identityPrivateKey, certificate } = account;
  const wasSeen = engine.store.log.ownEntries().some(({ version, seen }) => version > 0 || seen !== undefined);
  if (wasSeen || identityPrivateKey === undefined) return false;
  const { outcome } = await engine.server.call(methods.user.resolveUser, { username });
  if (outcome.case !== 'found' || outcome.value.keyTransparency !== undefined) return false;
  // An account of that time has one device, and a statement has to name all of them.
  const { deviceCertificates, revocations } = outcome.value;
  const [only] = deviceCertificates;
  if (only === undefined || deviceCertificates.length > 1 || revocations.length > 0) return false;
  if (!equal(only, certificate)) return false;
  await registerThisDevice(engine, certificate, signFirstStatement(engine, account));
  return true;
}
