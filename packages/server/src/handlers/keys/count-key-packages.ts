import { methods } from '@quicprochat/transport';
import { deviceHandler } from '../../handler.ts';

export const countKeyPackages = deviceHandler(methods.keys.countKeyPackages, async ({ server, session }) => ({
  counts: [...(await server.store.countKeyPackages(session.address, server.clock.wallMs()))],
}));
