import { displayText } from '@quicprochat/core';
import { methods } from '@quicprochat/transport';
import { deviceHandler } from '../../handler.ts';
import { deviceGone, invalidArgument } from '../../refusals.ts';

const TOKEN_CHARACTERS_MAX = 2_048;

/** Where to knock when something arrives and no connection is open. An empty token removes it. */
export const registerPushToken = deviceHandler(methods.device.registerPushToken, async (call, request) => {
  const { server, session, writes } = call;
  const { kind, token } = request;
  if (token !== '') {
    if (token.length > TOKEN_CHARACTERS_MAX) {
      throw invalidArgument(`a push token has at most ${TOKEN_CHARACTERS_MAX} characters`);
    }
    if (displayText(token) !== token) throw invalidArgument('a push token has no control characters');
    const notifier = server.notifiers.get(kind);
    if (notifier === undefined) {
      const known = [...server.notifiers.keys()].join(', ');
      throw invalidArgument('this server has no such notifier', known === '' ? 'It has none.' : `It has: ${known}.`);
    }
    const objection = notifier.objectionTo(token);
    if (objection !== undefined) throw invalidArgument(`the push token is refused: ${objection}`);
  }
  const stored = await server.store.putPushToken(
    { address: session.address, token: token === '' ? undefined : { kind, token } },
    writes,
  );
  if (stored.kind === 'unknown_device') throw deviceGone();
  return {};
});
