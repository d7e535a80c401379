import { equal } from '@quicprochat/crypto';
import { RegisterDeviceBodySchema } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import { outOfDate } from '../../account-statement.ts';
import { currentCertificate } from '../../certificates.ts';
import { deviceName } from '../../checks.ts';
import { deviceHandler } from '../../handler.ts';
import { alreadyExists, conflict, deviceGone, exhausted } from '../../refusals.ts';
import { verifySignedRequest } from '../../signed-request.ts';

const method = methods.device.registerDevice;

export const registerDevice = deviceHandler(method, async ({ server, session, writes }, request) => {
  const { identityKey } = session.address;
  const { body, replay } = verifySignedRequest(
    server,
    method.id,
    RegisterDeviceBodySchema,
    request.signed,
    identityKey,
  );
  const certificate = currentCertificate(server, body.deviceCertificate, identityKey, session.username);
  const { deviceId, deviceKey } = certificate;
  const device = { deviceId, deviceKey, certificate: certificate.bytes, name: deviceName(body.name) };
  const nowMs = server.clock.wallMs();
  const outcome = await server.store.registerDevice({ identityKey, device, nowMs, replay }, writes);
  switch (outcome.kind) {
    case 'registered':
    case 'renewed':
    case 'exists':
      return {};
    case 'replayed': {
      // A retry of what took effect is answered like the first time; anything else is a replay.
      const there = await server.store.findDevice({ identityKey, deviceId });
      if (there !== undefined && equal(there.certificate, certificate.bytes)) return {};
      throw conflict('this signed request was used before', 'Sign a new one.');
    }
    case 'device_taken':
      throw alreadyExists('this device id has another certificate');
    case 'too_many':
      throw exhausted(`an account has at most ${outcome.max} devices`, 'Remove one first.');
    case 'stale_statement':
      throw outOfDate();
    case 'unknown_account':
      throw deviceGone();
  }
});
