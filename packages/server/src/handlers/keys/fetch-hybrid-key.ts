import { DEVICE_ID_BYTES } from '@quicprochat/core';
import { methods } from '@quicprochat/transport';
import { identityKey, optionalBytes } from '../../checks.ts';
import { deviceHandler } from '../../handler.ts';
import { hybridKeysAnswer } from '../../hybrid-keys-answer.ts';

export const fetchHybridKey = deviceHandler(methods.keys.fetchHybridKey, async ({ server }, request) => {
  const address = {
    identityKey: identityKey(request.identityKey),
    deviceId: optionalBytes(request.deviceId, DEVICE_ID_BYTES, 'a device id'),
  };
  const keys = await server.store.getHybridKeys([address]);
  return hybridKeysAnswer(keys, methods.keys.fetchHybridKey.responseMax);
});
