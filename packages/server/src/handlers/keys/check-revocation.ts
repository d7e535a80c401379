import { methods } from '@quicprochat/transport';
import { atMost, deviceAddress } from '../../checks.ts';
import { deviceHandler } from '../../handler.ts';

const ADDRESSES_MAX = 1_000;
// A statement has at most 512 bytes; this many fit the answer whatever they are.
const REVOCATIONS_MAX = 100;

/** Whom the answer leaves out is in good standing, unless it is full: then ask again without those it names. */
export const checkRevocation = deviceHandler(methods.keys.checkRevocation, async ({ server }, request) => {
  const addresses = atMost(request.addresses, ADDRESSES_MAX, 'addresses').map(deviceAddress);
  const found = await server.store.findRevocations(addresses);
  return {
    revocations: found.slice(0, REVOCATIONS_MAX).map(({ address, statement }) => ({ address, revocation: statement })),
  };
});
