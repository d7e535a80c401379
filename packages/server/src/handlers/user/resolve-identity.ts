import { encodeHex } from '@quicprochat/crypto';
import { methods } from '@quicprochat/transport';
import { accountAnswer } from '../../account-answer.ts';
import { identityKey } from '../../checks.ts';
import { deviceHandler } from '../../handler.ts';

export const resolveIdentity = deviceHandler(methods.user.resolveIdentity, async ({ server, session }, request) => {
  const key = identityKey(request.identityKey);
  server.rates.take('resolves', encodeHex(session.address.identityKey));
  return accountAnswer(await server.keyTransparency.resolve({ identityKey: key }));
});
