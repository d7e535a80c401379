import { methods } from '@quicprochat/transport';
import { safeInteger } from '../../checks.ts';
import { deviceHandler } from '../../handler.ts';
import { inboxAnswer, inboxRead } from '../../read-inbox.ts';

export const peek = deviceHandler(methods.delivery.peek, async (call, request) => {
  const afterSeq = safeInteger(request.afterSeq, 'a position');
  return inboxAnswer(call, await call.server.store.readInbox(inboxRead(call, request, afterSeq)));
});
