import { IDENTITY_KEY_BYTES } from '@quicprochat/core';
import { methods } from '@quicprochat/transport';
import { optionalBytes } from '../../checks.ts';
import { adminHandler, audit } from '../../handler.ts';

const LIMIT_DEFAULT = 100;
const LIMIT_MAX = 1_000;

export const listBanned = adminHandler(methods.moderation.listBanned, async (call, request) => {
  const { server, session } = call;
  audit(call, { event: 'bans_read', outcome: 'ok', by: session.address.identityKey });
  const bans = await server.store.listBans({
    afterIdentityKey: optionalBytes(request.afterIdentityKey, IDENTITY_KEY_BYTES, 'an identity key'),
    limit: Math.min(request.limit === 0 ? LIMIT_DEFAULT : request.limit, LIMIT_MAX),
    nowMs: server.clock.wallMs(),
  });
  return {
    bans: bans.map(({ identityKey, reason, untilMs }) => ({ identityKey, reason, untilMs: BigInt(untilMs ?? 0) })),
  };
});
