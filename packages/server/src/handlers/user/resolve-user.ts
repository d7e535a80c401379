import { encodeHex } from '@quicprochat/crypto';
import { methods } from '@quicprochat/transport';
import { accountAnswer } from '../../account-answer.ts';
import { username } from '../../checks.ts';
import { deviceHandler } from '../../handler.ts';

export const resolveUser = deviceHandler(methods.user.resolveUser, async ({ server, session }, request) => {
  const name = username(request.username);
  server.rates.take('resolves', encodeHex(session.address.identityKey));
  return accountAnswer(await server.keyTransparency.resolve({ username: name }));
});
