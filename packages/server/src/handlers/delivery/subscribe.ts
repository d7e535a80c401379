import { methods } from '@quicprochat/transport';
import { safeInteger } from '../../checks.ts';
import { deviceHandler } from '../../handler.ts';
import { InboxPump } from '../../inbox-pump.ts';
import { askFetch } from '../../plugins.ts';

/** A connection has one pump; subscribing again replaces it. */
export const subscribe = deviceHandler(methods.delivery.subscribe, async (call, request) => {
  const { server, connection, session } = call;
  const afterSeq = safeInteger(request.afterSeq, 'a position');
  if (server.plugins !== undefined) await askFetch(call, 'subscribe');
  const headSeq = await server.store.headSeq(session.address);
  // The session or the connection may have ended meanwhile.
  if (connection.closed === undefined && connection.state.session === session) {
    connection.state.pump?.stop();
    const pump = new InboxPump(server, connection, session, afterSeq);
    connection.state.pump = pump;
    pump.wake();
  }
  return { headSeq: BigInt(headSeq) };
});
