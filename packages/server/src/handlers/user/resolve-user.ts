import { methods } from '@quicprochat/transport';
import { accountAnswer } from '../../account-answer.ts';
import { username } from '../../checks.ts';
import { accountHandler } from '../../handler.ts';
import { forbidden } from '../../refusals.ts';

/** In a session limited to recovery one's own name only: to see what the next statement has to continue. */
export const resolveUser = accountHandler(methods.user.resolveUser, async ({ server, session }, request) => {
  const name = username(request.username);
  if (session.kind === 'recovery') {
    if (name !== session.username) {
      throw forbidden('before this device is registered it may look up its own account only');
    }
    server.rates.take('resolves', `recovery ${name}`);
  }
  return accountAnswer(await server.keyTransparency.resolve({ username: name }));
});
