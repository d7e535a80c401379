import { RevokeDeviceBodySchema } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import { deviceId } from '../../checks.ts';
import { deviceHandler } from '../../handler.ts';
import { revoke } from '../../revoke.ts';
import { verifySignedRequest } from '../../signed-request.ts';

const method = methods.device.revokeDevice;

/** By the identity key, or by the device itself with its own key. Its last answer still reaches the caller. */
export const revokeDevice = deviceHandler(method, async (call, request) => {
  const { server, session } = call;
  const keys = [session.address.identityKey, session.deviceKey] as const;
  const verified = verifySignedRequest(server, method.id, RevokeDeviceBodySchema, request.signed, ...keys);
  const { body, signer, replay } = verified;
  await revoke(call, body, signer, replay, deviceId(body.deviceId));
  return {};
});
