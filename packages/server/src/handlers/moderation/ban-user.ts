import { displayText } from '@quicprochat/core';
import { encodeHex, encodeUtf8 } from '@quicprochat/crypto';
import { methods } from '@quicprochat/transport';
import { identityKey, safeInteger } from '../../checks.ts';
import { adminHandler } from '../../handler.ts';
import { forbidden, invalidArgument, notFound } from '../../refusals.ts';
import { expelDevice } from '../../sessions.ts';

const REASON_BYTES_MAX = 512;
// A hundred years: beyond, a date can't be written any more.
const DURATION_SECS_MAX = 100 * 365 * 86_400;

/** In force when it answers: the store refuses new sessions first, then the live ones end. */
export const banUser = adminHandler(methods.moderation.banUser, async (call, request) => {
  const { server, connection, writes } = call;
  const key = identityKey(request.identityKey);
  const { reason } = request;
  if (encodeUtf8(reason).length > REASON_BYTES_MAX) {
    throw invalidArgument(`a reason has at most ${REASON_BYTES_MAX} bytes`);
  }
  if (displayText(reason) !== reason) throw invalidArgument('a reason has no control characters');
  const durationSecs = safeInteger(request.durationSecs, 'a duration');
  if (durationSecs > DURATION_SECS_MAX) throw invalidArgument('a ban ends within a hundred years', 'Give 0: for good.');
  if (server.admins.has(encodeHex(key))) {
    throw forbidden('an administrator can’t be banned', 'Take them out of the configuration first.');
  }
  const untilMs = durationSecs === 0 ? undefined : server.clock.wallMs() + durationSecs * 1000;
  const outcome = await server.store.putBan({ identityKey: key, reason, untilMs }, writes);
  if (outcome.kind === 'unknown_account') throw notFound('there is no account with this identity key');
  for (const address of await server.store.listDevices(key)) {
    expelDevice(server, address, undefined, 'this account is banned');
  }
  server.log.info({ connection: connection.id, account: server.reference(key), durationSecs }, 'account banned');
  return {};
});
