import { methods } from '@quicprochat/transport';
import { identityOrDevice } from '../../checks.ts';
import { deviceHandler } from '../../handler.ts';

/** Shown to those on a common roster: to strangers a device without an endpoint and one they may not see are alike. */
export const resolveEndpoint = deviceHandler(methods.p2p.resolveEndpoint, async ({ server, session }, request) => {
  const of = identityOrDevice(request.address);
  const nowMs = server.clock.wallMs();
  const found = await server.store.findEndpoints({ of, requester: session.address, nowMs });
  return { endpoints: found.map(({ address, statement }) => ({ address, endpoint: statement })) };
});
