import { methods } from '@quicprochat/transport';
import { identityKey } from '../../checks.ts';
import { adminHandler } from '../../handler.ts';

export const unbanUser = adminHandler(methods.moderation.unbanUser, async (call, request) => {
  const { server, connection, writes } = call;
  const key = identityKey(request.identityKey);
  const lifted = await server.store.liftBan(key, writes);
  if (lifted) server.log.info({ connection: connection.id, account: server.reference(key) }, 'ban lifted');
  return {};
});
