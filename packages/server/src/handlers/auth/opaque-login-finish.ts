import {
  DEVICE_ID_BYTES,
  OPAQUE_KE3_BYTES,
  opaqueServerLoginFinish,
  SESSION_TOKEN_BYTES,
  SIGNATURE_BYTES,
  verifyLoginProof,
} from '@quicprochat/core';
import { encodeHex } from '@quicprochat/crypto';
import { methods } from '@quicprochat/transport';
import type { AuditReason } from '../../audit.ts';
import { exactBytes } from '../../checks.ts';
import { audit, handler } from '../../handler.ts';
import type { Call } from '../../handler.ts';
import { askAuth, tellRefused } from '../../plugins.ts';
import { banned, passwordChanged, unauthenticated } from '../../refusals.ts';
import {
  beginDeviceSession,
  deviceSession,
  endSession,
  isStillThePassword,
  refusalOf,
  SESSION_LIFETIME_MS,
} from '../../sessions.ts';
import type { Address } from '../../store/store.ts';

const LOGIN_ID_BYTES = 16;

export const opaqueLoginFinish = handler(methods.auth.opaqueLoginFinish, async (call, request) => {
  const { server, connection, writes } = call;
  const loginId = encodeHex(exactBytes(request.loginId, LOGIN_ID_BYTES, 'a login id'));
  const ke3 = exactBytes(request.ke3, OPAQUE_KE3_BYTES, 'an OPAQUE KE3');
  const deviceId = exactBytes(request.deviceId, DEVICE_ID_BYTES, 'a device id').slice();
  const signature = exactBytes(request.deviceSignature, SIGNATURE_BYTES, 'a signature');

  // Single use, whatever comes of it.
  const login = connection.state.logins.get(loginId);
  connection.state.logins.delete(loginId);
  const refuse = (reason: AuditReason, error: Error): Error => {
    const account = login?.identityKey;
    audit(call, { event: 'login', outcome: 'refused', reason, account, device: deviceId });
    tellRefused(call, 'login', { identityKey: account, deviceId });
    return error;
  };
  if (login === undefined || login.expiresAt < server.clock.now()) {
    throw refuse('attempt_over', unauthenticated('this login attempt is over', 'Start again.'));
  }
  const parties = { username: login.username, origin: server.origin };
  const proven = opaqueServerLoginFinish(login.opaqueState, parties, ke3);
  if (proven.kind === 'refused' || login.identityKey === undefined) {
    const wrong = unauthenticated('the username or the password is wrong', 'Check both, then try again.');
    throw refuse('wrong_credentials', wrong);
  }
  server.crypto.wipe(proven.sessionKey);
  const { username, record } = login;
  if (record === undefined || !(await isStillThePassword(server, { username, record }))) {
    throw refuse('password_changed_meanwhile', passwordChanged());
  }

  const address = { identityKey: login.identityKey, deviceId };
  const account = login.identityKey;
  const device = await server.store.findDevice(address);
  const nowMs = server.clock.wallMs();
  if (device !== undefined) {
    const proof = { origin: server.origin, nonce: login.nonce, deviceId };
    if (!verifyLoginProof(server.crypto, device.deviceKey, proof, signature)) {
      throw refuse('wrong_device_key', unauthenticated('the login is not signed by the key of this device'));
    }
    await ask(call, address);
    const token = server.crypto.random(SESSION_TOKEN_BYTES);
    const expiresAtMs = nowMs + SESSION_LIFETIME_MS;
    const tokenHash = server.crypto.hash('sha256', token);
    const stored = await server.store.putSession({ tokenHash, address, expiresAtMs, nowMs }, writes);
    if (stored.kind === 'stored') {
      const { deviceKey } = device;
      const standing = await beginDeviceSession(server, connection, deviceSession({ address, username, deviceKey }));
      if (standing.kind !== 'good') {
        throw refuse(standing.kind === 'banned' ? 'banned' : 'device_gone', refusalOf(standing));
      }
      // It may have changed while the session was stored; whoever changed it has ended what was there by then.
      if (!(await isStillThePassword(server, { username, record }))) {
        await server.store.revokeSessions(address, writes);
        endSession(server, connection);
        throw refuse('password_changed_meanwhile', passwordChanged());
      }
      audit(call, { event: 'login', outcome: 'ok', account, device: deviceId });
      const session = { token, expiresAtMs: BigInt(expiresAtMs), identityKey: account, username };
      return { outcome: { case: 'session' as const, value: session } };
    }
  }
  const ban = await server.store.findBan(account, nowMs);
  if (ban !== undefined) throw refuse('banned', banned(ban));
  await ask(call, address);
  endSession(server, connection);
  connection.state.session = { kind: 'recovery', username, record };
  connection.state.named = true;
  audit(call, { event: 'login', outcome: 'limited', account, device: deviceId });
  return { outcome: { case: 'deviceUnknown' as const, value: {} } };
});

async function ask(call: Call, address: Address): Promise<void> {
  try {
    await askAuth(call, 'login', address);
  } catch (error) {
    const { identityKey: account, deviceId: device } = address;
    audit(call, { event: 'login', outcome: 'refused', reason: 'by_plugin', account, device });
    throw error;
  }
}
