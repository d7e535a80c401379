import { methods } from '@quicprochat/transport';
import { accountAnswer } from '../../account-answer.ts';
import { identityKey } from '../../checks.ts';
import { deviceHandler } from '../../handler.ts';

export const resolveIdentity = deviceHandler(methods.user.resolveIdentity, async ({ server }, request) => {
  const key = identityKey(request.identityKey);
  return accountAnswer(await server.keyTransparency.resolve({ identityKey: key }));
});
