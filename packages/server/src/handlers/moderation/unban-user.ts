import { methods } from '@quicprochat/transport';
import { identityKey } from '../../checks.ts';
import { adminHandler, audit } from '../../handler.ts';

export const unbanUser = adminHandler(methods.moderation.unbanUser, async (call, request) => {
  const { server, session, writes } = call;
  const key = identityKey(request.identityKey);
  const lifted = await server.store.liftBan(key, writes);
  if (lifted) audit(call, { event: 'unban', outcome: 'ok', account: key, by: session.address.identityKey });
  return {};
});
