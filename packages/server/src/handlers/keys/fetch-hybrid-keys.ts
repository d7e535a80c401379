import { methods } from '@quicprochat/transport';
import { atMost, identityOrDevice } from '../../checks.ts';
import { deviceHandler, readInTurn } from '../../handler.ts';
import { hybridKeysAnswer } from '../../hybrid-keys-answer.ts';

const ADDRESSES_MAX = 1_000;

export const fetchHybridKeys = deviceHandler(methods.keys.fetchHybridKeys, async (call, request) => {
  const addresses = atMost(request.addresses, ADDRESSES_MAX, 'addresses').map(identityOrDevice);
  const keys = await readInTurn(call, () => call.server.store.getHybridKeys(addresses));
  return hybridKeysAnswer(keys, methods.keys.fetchHybridKeys.responseMax);
});
