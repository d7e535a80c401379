import { DEVICE_ID_BYTES, SESSION_TOKEN_BYTES, SIGNATURE_BYTES, verifyResumeProof } from '@quicprochat/core';
import { equal } from '@quicprochat/crypto';
import { methods } from '@quicprochat/transport';
import { exactBytes } from '../../checks.ts';
import { handler } from '../../handler.ts';
import { networkOf } from '../../rate-limits.ts';
import { unauthenticated } from '../../refusals.ts';
import { beginDeviceSession, SESSION_LIFETIME_MS } from '../../sessions.ts';
import { StoreError } from '../../store/store.ts';

/** A token and the device key together; each alone is worth nothing (THREATS 13, 37). */
export const resumeSession = handler(methods.auth.resumeSession, async ({ server, connection, writes }, request) => {
  const token = exactBytes(request.token, SESSION_TOKEN_BYTES, 'a session token');
  const deviceId = exactBytes(request.deviceId, DEVICE_ID_BYTES, 'a device id');
  const signature = exactBytes(request.deviceSignature, SIGNATURE_BYTES, 'a signature');
  server.rates.take('resumes', networkOf(connection));

  // Single use, whatever comes of it.
  const { nonce } = connection.state;
  connection.state.nonce = undefined;
  if (nonce === undefined || nonce.expiresAt < server.clock.now()) {
    throw unauthenticated('the nonce of this connection is missing, used or too old', 'Call GetNonce first.');
  }
  const tokenHash = server.crypto.hash('sha256', token);
  const nowMs = server.clock.wallMs();
  const found = await server.store.findSession(tokenHash, nowMs);
  const proof = { origin: server.origin, nonce: nonce.bytes, deviceId, token };
  const genuine =
    found.kind === 'found' &&
    equal(found.address.deviceId, deviceId) &&
    verifyResumeProof(server.crypto, found.deviceKey, proof, signature);
  if (!genuine) throw refused();

  const expiresAtMs = nowMs + SESSION_LIFETIME_MS;
  const resumed = await server.store
    .resumeSession({ tokenHash, nowMs, expiresAtMs }, writes)
    // Where nothing can be written, whoever comes may still read; only the token's end does not move on.
    .catch((error: unknown) => {
      if (error instanceof StoreError && (error.kind === 'disk_full' || error.kind === 'io')) return found;
      throw error;
    });
  if (resumed.kind === 'none') throw refused();
  const { address, username, deviceKey } = resumed;
  await beginDeviceSession(server, connection, { kind: 'device', address, username, deviceKey });
  return {
    session: { expiresAtMs: BigInt(resumed.expiresAtMs), identityKey: address.identityKey, username },
  };
});

// The same words for every reason, so that a stolen token cannot be told from an expired one.
function refused(): Error {
  return unauthenticated('the session has ended, or this is not its device', 'Log in again.');
}
