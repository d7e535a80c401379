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
import { exactBytes } from '../../checks.ts';
import { handler } from '../../handler.ts';
import { banned, passwordChanged, unauthenticated } from '../../refusals.ts';
import { beginDeviceSession, endSession, isStillThePassword, SESSION_LIFETIME_MS } from '../../sessions.ts';

const LOGIN_ID_BYTES = 16;

export const opaqueLoginFinish = handler(
  methods.auth.opaqueLoginFinish,
  async ({ server, connection, writes }, request) => {
    const loginId = encodeHex(exactBytes(request.loginId, LOGIN_ID_BYTES, 'a login id'));
    const ke3 = exactBytes(request.ke3, OPAQUE_KE3_BYTES, 'an OPAQUE KE3');
    const deviceId = exactBytes(request.deviceId, DEVICE_ID_BYTES, 'a device id').slice();
    const signature = exactBytes(request.deviceSignature, SIGNATURE_BYTES, 'a signature');

    // Single use, whatever comes of it.
    const login = connection.state.logins.get(loginId);
    connection.state.logins.delete(loginId);
    if (login === undefined || login.expiresAt < server.clock.now()) {
      throw unauthenticated('this login attempt is over', 'Start again.');
    }
    const parties = { username: login.username, origin: server.origin };
    const proven = opaqueServerLoginFinish(login.opaqueState, parties, ke3);
    if (proven.kind === 'refused' || login.identityKey === undefined) {
      server.log.info({ connection: connection.id }, 'login refused');
      throw unauthenticated('the username or the password is wrong', 'Check both, then try again.');
    }
    server.crypto.wipe(proven.sessionKey);
    const { username, record } = login;
    if (record === undefined || !(await isStillThePassword(server, { username, record }))) throw passwordChanged();

    const address = { identityKey: login.identityKey, deviceId };
    const device = await server.store.findDevice(address);
    const nowMs = server.clock.wallMs();
    if (device !== undefined) {
      const proof = { origin: server.origin, nonce: login.nonce, deviceId };
      if (!verifyLoginProof(server.crypto, device.deviceKey, proof, signature)) {
        throw unauthenticated('the login is not signed by the key of this device');
      }
      const token = server.crypto.random(SESSION_TOKEN_BYTES);
      const expiresAtMs = nowMs + SESSION_LIFETIME_MS;
      const tokenHash = server.crypto.hash('sha256', token);
      const stored = await server.store.putSession({ tokenHash, address, expiresAtMs, nowMs }, writes);
      if (stored.kind === 'stored') {
        await beginDeviceSession(server, connection, {
          kind: 'device',
          address,
          username,
          deviceKey: device.deviceKey,
        });
        // It may have changed while the session was stored; whoever changed it has ended what was there by then.
        if (!(await isStillThePassword(server, { username, record }))) {
          await server.store.revokeSessions(address, writes);
          endSession(server, connection);
          throw passwordChanged();
        }
        server.log.info({ connection: connection.id, account: server.reference(login.identityKey) }, 'logged in');
        const session = { token, expiresAtMs: BigInt(expiresAtMs), identityKey: login.identityKey, username };
        return { outcome: { case: 'session' as const, value: session } };
      }
    }
    const ban = await server.store.findBan(login.identityKey, nowMs);
    if (ban !== undefined) throw banned(ban);
    endSession(server, connection);
    connection.state.session = { kind: 'recovery', username, record };
    return { outcome: { case: 'deviceUnknown' as const, value: {} } };
  },
);
