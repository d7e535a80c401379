import { DEVICE_ID_BYTES, SESSION_TOKEN_BYTES, SIGNATURE_BYTES, verifyResumeProof } from '@quicprochat/core';
import { equal } from '@quicprochat/crypto';
import { methods } from '@quicprochat/transport';
import type { AuditEvent, AuditReason } from '../../audit.ts';
import { exactBytes } from '../../checks.ts';
import { audit, handler } from '../../handler.ts';
import type { Call } from '../../handler.ts';
import { askAuth, tellRefused } from '../../plugins.ts';
import { unauthenticated } from '../../refusals.ts';
import { beginDeviceSession, deviceSession, refusalOf, SESSION_LIFETIME_MS } from '../../sessions.ts';
import { StoreError } from '../../store/store.ts';
import type { Address } from '../../store/store.ts';

/** A token and the device key together; each alone is worth nothing (THREATS 13, 37). */
export const resumeSession = handler(methods.auth.resumeSession, async (call, request) => {
  const { server, connection, writes } = call;
  const token = exactBytes(request.token, SESSION_TOKEN_BYTES, 'a session token');
  const deviceId = exactBytes(request.deviceId, DEVICE_ID_BYTES, 'a device id');
  const signature = exactBytes(request.deviceSignature, SIGNATURE_BYTES, 'a signature');
  server.rates.take('resumes', connection.state.network);

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
  if (!genuine) throw refused(call, deviceId, found.kind === 'found' ? found.address : undefined);
  try {
    await askAuth(call, 'resume', found.address);
  } catch (error) {
    audit(call, refusal('by_plugin', found.address));
    throw error;
  }

  const expiresAtMs = nowMs + SESSION_LIFETIME_MS;
  const resumed = await server.store
    .resumeSession({ tokenHash, nowMs, expiresAtMs }, writes)
    // Where nothing can be written, whoever comes may still read; only the token's end does not move on.
    .catch((error: unknown) => {
      if (error instanceof StoreError && (error.kind === 'disk_full' || error.kind === 'io')) return found;
      throw error;
    });
  if (resumed.kind === 'none') throw refused(call, deviceId, found.address);
  const { address, username, deviceKey } = resumed;
  const standing = await beginDeviceSession(server, connection, deviceSession({ address, username, deviceKey }));
  if (standing.kind !== 'good') {
    audit(call, refusal(standing.kind === 'banned' ? 'banned' : 'device_gone', address));
    throw refusalOf(standing);
  }
  audit(call, { event: 'resume', outcome: 'ok', account: address.identityKey, device: address.deviceId });
  return {
    session: { expiresAtMs: BigInt(resumed.expiresAtMs), identityKey: address.identityKey, username },
  };
});

// The same words for every reason, so that a stolen token cannot be told from an expired one.
function refused(call: Call, deviceId: Uint8Array, address: Address | undefined): Error {
  // Whose token it is does not make it theirs: the device named is the one that was tried.
  audit(call, refusal('wrong_credentials', { identityKey: address?.identityKey, deviceId }));
  tellRefused(call, 'resume', { identityKey: address?.identityKey, deviceId });
  return unauthenticated('the session has ended, or this is not its device', 'Log in again.');
}

function refusal(
  reason: AuditReason,
  { identityKey, deviceId }: { readonly identityKey: Uint8Array | undefined; readonly deviceId: Uint8Array },
): AuditEvent {
  return { event: 'resume', outcome: 'refused', reason, account: identityKey, device: deviceId };
}
