import { NONCE_BYTES, OPAQUE_KE1_BYTES, opaqueServerLoginStart } from '@quicprochat/core';
import { encodeHex } from '@quicprochat/crypto';
import { methods } from '@quicprochat/transport';
import { exactBytes, username } from '../../checks.ts';
import { handler } from '../../handler.ts';
import { invalidArgument } from '../../refusals.ts';
import { countPasswordAttempt } from './password-attempt.ts';

const LOGIN_LIFETIME_MS = 60_000;
const LOGINS_PER_CONNECTION_MAX = 8;
const LOGIN_ID_BYTES = 16;

/** Does the same work for an unknown name, from a made-up record (THREATS 20). */
export const opaqueLoginStart = handler(methods.auth.opaqueLoginStart, async (call, request) => {
  const { server, connection } = call;
  const name = username(request.username);
  exactBytes(request.ke1, OPAQUE_KE1_BYTES, 'an OPAQUE KE1');
  countPasswordAttempt(call, name);

  const account = await server.store.findOpaqueRecord(name);
  const parties = { username: name, origin: server.origin };
  const started = opaqueServerLoginStart(server.opaqueSetup, parties, account?.record, request.ke1);
  if (started.kind === 'malformed') throw invalidArgument('the OPAQUE KE1 is malformed');

  const loginId = server.crypto.random(LOGIN_ID_BYTES);
  const nonce = server.crypto.random(NONCE_BYTES);
  const { logins } = connection.state;
  logins.set(encodeHex(loginId), {
    username: name,
    identityKey: account?.identityKey,
    record: account?.record,
    opaqueState: started.state,
    nonce,
    expiresAt: server.clock.now() + LOGIN_LIFETIME_MS,
  });
  for (const oldest of logins.keys()) {
    if (logins.size <= LOGINS_PER_CONNECTION_MAX) break;
    logins.delete(oldest);
  }
  return { ke2: started.ke2, loginId, nonce };
});
