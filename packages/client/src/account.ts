/**
 * Account and session (PROTOCOL section 3). Registration stores the keys before it tells the server, so a crash anywhere
 * in between is completed by doing it again: "already exists" is answered by trying to log in with the keys at hand.
 *
 *   keys made and stored ─▶ OPAQUE ─▶ RegisterFinish ─▶ OPAQUE login, proof by the device key ─▶ session ─▶ keys published
 */
import {
  CERTIFICATE_BACKDATE_SECS,
  CERTIFICATE_LIFETIME_SECS,
  generateSigningKey,
  DEVICE_ID_BYTES,
  opaqueLoginFinish,
  opaqueLoginStart,
  opaqueReady,
  opaqueRegisterFinish,
  opaqueRegisterStart,
  signDeviceCertificate,
  signLoginProof,
  signRegistration,
} from '@quicprochat/core';
import { equal } from '@quicprochat/crypto';
import { Status } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import { canonicalUsername } from './contacts.ts';
import type { Engine } from './engine.ts';
import { ClientError } from './errors.ts';
import { signFirstStatement } from './key-transparency/own-statements.ts';
import { serverTime } from './outside-numbers.ts';
import { statusOf } from './server-errors.ts';
import { currentPin } from './session.ts';
import type { StoredAccount } from './store/index.ts';

const DEVICE_NAME_BYTES_MAX = 64;

/** @throws ClientError as `Client.register` */
export async function register(engine: Engine, username: string, password: string, deviceName: string): Promise<void> {
  const name = canonicalUsername(username);
  refuseEmptyPassword(password);
  const existing = engine.account;
  if (existing !== undefined && existing.username !== name) throw otherAccount(existing.username);
  if (existing?.state === 'deleted') throw accountDeleted(name);
  if (existing?.state === 'registered') {
    await login(engine, name, password);
    return;
  }
  await opaqueReady;
  const account = existing ?? storeNewKeys(engine, name);
  if (await createAtServer(engine, account, password, deviceName)) {
    await login(engine, name, password);
    return;
  }
  // The name is taken: by somebody else, or by ourselves in a run that ended before the answer came.
  try {
    await login(engine, name, password);
  } catch (error) {
    if (!(error instanceof ClientError) || (error.code !== 'wrong-credentials' && error.code !== 'device-unknown')) {
      throw error;
    }
    // These keys belong to no account. Forgetting them lets the user choose another name.
    engine.change((change) => {
      change.store.account.clear();
      change.accountChanged = true;
    });
    throw new ClientError('refused', 'name-taken', `the name ${name} is taken`, {
      hint: 'Choose another name. If the account is yours, its keys are in another profile.',
    });
  }
}

/** @throws ClientError as `Client.login` */
export async function login(engine: Engine, username: string, password: string): Promise<void> {
  const name = canonicalUsername(username);
  refuseEmptyPassword(password);
  const { account } = engine;
  if (account !== undefined && account.username !== name) throw otherAccount(account.username);
  if (account?.state === 'deleted') throw accountDeleted(name);
  await opaqueReady;
  const { origin, opaqueKey } = currentPin(engine);
  const { state, ke1 } = opaqueLoginStart(password);
  const started = await engine.server.call(methods.auth.opaqueLoginStart, { username: name, ke1 });
  const { passwordStretching } = engine.ports;
  const finished = opaqueLoginFinish(state, { username: name, origin }, started.ke2, opaqueKey, passwordStretching);
  if (finished.kind === 'wrong-password') throw wrongCredentials();
  if (finished.kind !== 'proven') throw badLoginAnswer(finished.kind);
  // Without keys of the account the server can only tell us that it does not know this device. It is asked all the same:
  // a wrong password is worth knowing.
  const device = account ?? throwawayDevice(engine);
  const { outcome } = await engine.server
    .call(methods.auth.opaqueLoginFinish, {
      loginId: started.loginId,
      ke3: finished.ke3,
      deviceId: device.deviceId,
      deviceSignature: signLoginProof(engine.crypto, device.devicePrivateKey, {
        origin,
        nonce: started.nonce,
        deviceId: device.deviceId,
      }),
    })
    .catch((error: unknown) => {
      throw statusOf(error) === Status.UNAUTHENTICATED ? wrongCredentials() : error;
    });
  if (outcome.case !== 'session' || account === undefined) throw deviceUnknown(name);
  const session = outcome.value;
  if (!equal(session.identityKey, account.identityKey) || session.username !== name) throw deviceUnknown(name);
  engine.change((change) => {
    if (account.state !== 'registered') {
      change.store.account.save({ ...account, state: 'registered' });
      change.accountChanged = true;
    }
    change.store.account.saveSession({
      token: session.token.slice(),
      expiresAtMs: serverTime(session.expiresAtMs),
      createdAtMs: engine.nowMs(),
    });
  });
  engine.hasSession = true;
  engine.sessionRefusal = undefined;
}

/** Forgets the session here; at the server too when it can be reached. */
export async function logout(engine: Engine): Promise<void> {
  if (engine.hasSession && engine.server.state === 'online') {
    try {
      await engine.server.call(methods.auth.logout, {});
    } catch (error) {
      if (!(error instanceof ClientError)) throw error;
      engine.ports.log.debug('the server was not told of the logout', { reason: error.code });
    }
  }
  engine.hasSession = false;
  engine.sessionRefusal = undefined;
  engine.inboxHead = undefined;
  engine.change((change) => change.store.account.clearSession());
}

/** New identity, device and certificate, on disk before anything is sent. */
function storeNewKeys(engine: Engine, username: string): StoredAccount {
  const { crypto } = engine;
  const { origin } = currentPin(engine);
  const identity = generateSigningKey(crypto);
  const device = generateSigningKey(crypto);
  const deviceId = engine.ports.random(DEVICE_ID_BYTES);
  const notBeforeSecs = engine.nowSecs() - CERTIFICATE_BACKDATE_SECS;
  const certificate = signDeviceCertificate(crypto, identity.privateKey, {
    origin,
    username,
    identityKey: identity.publicKey,
    deviceId,
    deviceKey: device.publicKey,
    manager: true,
    serial: 1n,
    notBeforeSecs,
    notAfterSecs: notBeforeSecs + CERTIFICATE_BACKDATE_SECS + CERTIFICATE_LIFETIME_SECS,
  });
  const account: StoredAccount = {
    state: 'registering',
    origin,
    username,
    identityKey: identity.publicKey,
    identityPrivateKey: identity.privateKey,
    deviceId,
    deviceKey: device.publicKey,
    devicePrivateKey: device.privateKey,
    certificate,
    createdAtMs: engine.nowMs(),
  };
  engine.change((change) => {
    change.store.account.save(account);
    change.accountChanged = true;
  });
  return account;
}

/** Returns false when the name (or the identity key) is taken. */
async function createAtServer(
  engine: Engine,
  account: StoredAccount,
  password: string,
  deviceName: string,
): Promise<boolean> {
  const { username, origin, identityKey, identityPrivateKey, certificate } = account;
  if (identityPrivateKey === undefined) throw new ClientError('bug', 'bug', 'a registering device has no identity key');
  const { state, request } = opaqueRegisterStart(password);
  const started = await engine.server
    .call(methods.auth.opaqueRegisterStart, {
      username,
      registrationRequest: request,
    })
    .catch((error: unknown) => {
      if (statusOf(error) === Status.ALREADY_EXISTS) return undefined;
      throw error;
    });
  if (started === undefined) return false;
  const { opaqueKey } = currentPin(engine);
  const { passwordStretching } = engine.ports;
  const { registrationResponse } = started;
  const finished = opaqueRegisterFinish(
    state,
    { username, origin },
    registrationResponse,
    opaqueKey,
    passwordStretching,
  );
  if (finished.kind !== 'registered') throw badLoginAnswer(finished.kind);
  const { record } = finished;
  try {
    await engine.server.call(methods.auth.opaqueRegisterFinish, {
      username,
      registrationRecord: record,
      identityKey,
      registrationSignature: signRegistration(engine.crypto, identityPrivateKey, {
        origin,
        username,
        record,
        certificate,
      }),
      deviceCertificate: certificate,
      deviceName: shortened(deviceName),
      accountStatement: signFirstStatement(engine, account),
    });
    return true;
  } catch (error) {
    if (statusOf(error) === Status.ALREADY_EXISTS) return false;
    throw error;
  }
}

function throwawayDevice(engine: Engine): Pick<StoredAccount, 'deviceId' | 'devicePrivateKey'> {
  return {
    deviceId: engine.ports.random(DEVICE_ID_BYTES),
    devicePrivateKey: generateSigningKey(engine.crypto).privateKey,
  };
}

function shortened(deviceName: string): string {
  let name = deviceName;
  while (new TextEncoder().encode(name).length > DEVICE_NAME_BYTES_MAX) name = [...name].slice(0, -1).join('');
  return name;
}

function refuseEmptyPassword(password: string): void {
  if (password !== '') return;
  throw new ClientError('usage', 'invalid-argument', 'the password is empty');
}

function wrongCredentials(): ClientError {
  return new ClientError('refused', 'wrong-credentials', 'name or password is wrong', {
    hint: 'Check both; the server does not say which.',
  });
}

function deviceUnknown(username: string): ClientError {
  return new ClientError('refused', 'device-unknown', `the keys of ${username} are not in this profile`, {
    hint: 'The password is right. Log in from the profile the account was made in (--state).',
  });
}

function otherAccount(username: string): ClientError {
  return new ClientError('local-state', 'other-account', `this profile belongs to ${username}`, {
    hint: 'Use another profile for another account (--state).',
  });
}

function accountDeleted(username: string): ClientError {
  return new ClientError('local-state', 'account-deleted', `the account ${username} was deleted`, {
    hint: 'Its history stays readable here. For a new account use another profile and another name.',
  });
}

function badLoginAnswer(kind: 'bad-response' | 'server-key-changed'): ClientError {
  return kind === 'server-key-changed'
    ? new ClientError(
        'verification-failed',
        'server-changed',
        'the server’s login key is not the one this profile knows',
        {
          hint: 'Do not type your password again before you know why.',
        },
      )
    : new ClientError('refused', 'refused', 'the server’s answer to the login is malformed');
}
