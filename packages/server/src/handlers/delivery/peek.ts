import { methods } from '@quicprochat/transport';
import { safeInteger } from '../../checks.ts';
import { deviceHandler, readInTurn } from '../../handler.ts';
import { askFetch } from '../../plugins.ts';
import { inboxAnswer, inboxRead } from '../../read-inbox.ts';

export const peek = deviceHandler(methods.delivery.peek, async (call, request) => {
  const afterSeq = safeInteger(request.afterSeq, 'a position');
  const read = inboxRead(call, request, afterSeq);
  if (call.server.plugins !== undefined) await askFetch(call, 'peek');
  return inboxAnswer(call, await readInTurn(call, () => call.server.store.readInbox(read)));
});
