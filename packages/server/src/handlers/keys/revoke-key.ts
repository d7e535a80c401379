import { RevokeKeyBodySchema } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import { deviceHandler } from '../../handler.ts';
import { revoke } from '../../revoke.ts';
import { verifySignedRequest } from '../../signed-request.ts';

const method = methods.keys.revokeKey;

/** As RevokeDevice where the key is a registered device's; also takes statements about devices never registered here. */
export const revokeKey = deviceHandler(method, async (call, request) => {
  const { server, session } = call;
  const keys = [session.address.identityKey, session.deviceKey] as const;
  const { body, signer, replay } = verifySignedRequest(server, method.id, RevokeKeyBodySchema, request.signed, ...keys);
  await revoke(call, body, signer, replay);
  return {};
});
