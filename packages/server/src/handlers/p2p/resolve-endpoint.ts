import { methods } from '@quicprochat/transport';
import { identityOrDevice } from '../../checks.ts';
import { deviceHandler, readInTurn } from '../../handler.ts';

/**
 * Shown to those in a channel that its account takes part in: to strangers a device without an endpoint and one they may
 * not see are alike.
 */
export const resolveEndpoint = deviceHandler(methods.p2p.resolveEndpoint, async (call, request) => {
  const { server, session } = call;
  const of = identityOrDevice(request.address);
  const nowMs = server.clock.wallMs();
  // It may have to look through long logs.
  const found = await readInTurn(call, () => server.store.findEndpoints({ of, requester: session.address, nowMs }));
  return { endpoints: found.map(({ address, statement }) => ({ address, endpoint: statement })) };
});
