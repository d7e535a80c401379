import { methods } from '@quicprochat/transport';
import { identityKey, safeInteger } from '../../checks.ts';
import { adminHandler } from '../../handler.ts';
import { banAccount } from '../../moderation.ts';

export const banUser = adminHandler(methods.moderation.banUser, async (call, request) => {
  const { server, connection, writes } = call;
  const key = identityKey(request.identityKey);
  const durationSecs = safeInteger(request.durationSecs, 'a duration');
  await banAccount(server, { identityKey: key, reason: request.reason, durationSecs }, writes);
  server.log.info({ connection: connection.id, account: server.reference(key), durationSecs }, 'account banned');
  return {};
});
