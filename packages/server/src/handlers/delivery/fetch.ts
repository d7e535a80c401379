import { methods } from '@quicprochat/transport';
import { deviceHandler } from '../../handler.ts';
import { askFetch } from '../../plugins.ts';
import { inboxAnswer, inboxRead } from '../../read-inbox.ts';

/** Reads and removes, the gap included: what is lost on the way is lost. Our client peeks and acknowledges instead. */
export const fetch = deviceHandler(methods.delivery.fetch, async (call, request) => {
  if (call.server.plugins !== undefined) await askFetch(call, 'fetch');
  const read = await call.server.store.drainInbox(inboxRead(call, request), call.writes);
  const answer = inboxAnswer(call, read);
  call.session.toldGap = undefined;
  return answer;
});
