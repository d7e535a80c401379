import { encodeAddress } from '@quicprochat/core';
import { encodeHex } from '@quicprochat/crypto';
import { methods } from '@quicprochat/transport';
import { atMost, deviceAddress } from '../../checks.ts';
import { deviceHandler } from '../../handler.ts';

const ADDRESSES_MAX = 1_000;
// A statement has at most 512 bytes; this many fit the answer whatever they are.
const REVOCATIONS_MAX = 100;

/** Whom the answer leaves out is in good standing, unless it says that there are more: then ask again without those named. */
export const checkRevocation = deviceHandler(methods.keys.checkRevocation, async ({ server }, request) => {
  const named = atMost(request.addresses, ADDRESSES_MAX, 'addresses').map(deviceAddress);
  const addresses = [...new Map(named.map((address) => [encodeHex(encodeAddress(address)), address])).values()];
  const found = await server.store.findRevocations(addresses);
  return {
    revocations: found.slice(0, REVOCATIONS_MAX).map(({ address, statement }) => ({ address, revocation: statement })),
    more: found.length > REVOCATIONS_MAX,
  };
});
