import { methods } from '@quicprochat/transport';
import { identityKey, safeInteger } from '../../checks.ts';
import { adminHandler, audit } from '../../handler.ts';
import { banAccount } from '../../moderation.ts';

export const banUser = adminHandler(methods.moderation.banUser, async (call, request) => {
  const { server, session, writes } = call;
  const key = identityKey(request.identityKey);
  const durationSecs = safeInteger(request.durationSecs, 'a duration');
  await banAccount(server, { identityKey: key, reason: request.reason, durationSecs }, writes);
  audit(call, { event: 'ban', outcome: 'ok', account: key, by: session.address.identityKey });
  return {};
});
