import { methods } from '@quicprochat/transport';
import { optionalChannelId, ownInbox, safeInteger } from '../../checks.ts';
import { deviceHandler } from '../../handler.ts';

/** Removes what the device has stored, and the gap it was told about before. */
export const ack = deviceHandler(methods.delivery.ack, async ({ server, session, writes }, request) => {
  const address = ownInbox(session, request.recipientKey, request.deviceId);
  const seqUpTo = safeInteger(request.seqUpTo, 'a position');
  const channelId = optionalChannelId(request.channelId);
  const { toldGap } = session;
  session.toldGap = undefined;
  const [removed] = await Promise.all([
    server.store.ack({ address, seqUpTo, channelId }, writes),
    toldGap === undefined ? undefined : server.store.clearGap(address, toldGap, writes),
  ]);
  return { removed };
});
