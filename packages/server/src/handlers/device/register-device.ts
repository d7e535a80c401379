import { parseDeviceCertificate } from '@quicprochat/core';
import type { VerifiedDeviceCertificate } from '@quicprochat/core';
import { equal } from '@quicprochat/crypto';
import { RegisterDeviceBodySchema } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import { checkStatement, outOfDate, statementsOf } from '../../account-statement.ts';
import { currentCertificate } from '../../certificates.ts';
import { deviceName } from '../../checks.ts';
import { accountHandler, audit } from '../../handler.ts';
import { alreadyExists, conflict, deviceGone, exhausted } from '../../refusals.ts';
import { verifySignedRequest } from '../../signed-request.ts';
import type { Device } from '../../store/store.ts';

const method = methods.device.registerDevice;

/**
 * Adds a device; renews the certificate of one by a later certificate for the same key; or only states the account anew,
 * where the certificate is the one the device has. The identity key's signature authorises: a device that was recovered
 * from nothing but a password registers itself.
 */
export const registerDevice = accountHandler(method, async (call, request) => {
  const { server, session, writes } = call;
  const before = await server.store.findStatedAccount({ username: session.username });
  if (before === undefined) throw deviceGone();
  const { identityKey, devices } = before.account;
  const schema = RegisterDeviceBodySchema;
  const { body, replay } = verifySignedRequest(server, method.id, schema, request.signed, identityKey);
  const certificate = currentCertificate(server, body.deviceCertificate, identityKey, session.username);
  const { deviceId, deviceKey, bytes } = certificate;
  const name = deviceName(body.name);

  const present = devices.find((device) => equal(device.deviceId, deviceId));
  const isThere = present !== undefined && equal(present.certificate, bytes);
  const renews = present === undefined || isThere ? undefined : renewedBy(present, certificate);
  if (present === undefined && (await server.store.findRevocations([{ identityKey, deviceId }])).length > 0) {
    throw deviceTaken();
  }
  const certificates = devices.map((device) => (device === present ? bytes : device.certificate));
  if (present === undefined) certificates.push(bytes);
  const after = { kind: 'keys' as const, certificates, revocations: statementsOf(before) };
  const stated = await checkStatement(server, body.accountStatement, before, after);

  const device = { deviceId, deviceKey, certificate: bytes, name };
  const nowMs = server.clock.wallMs();
  const outcome = await server.store.registerDevice({ identityKey, device, renews, stated, nowMs, replay }, writes);
  switch (outcome.kind) {
    case 'registered':
    case 'renewed':
    case 'exists':
      server.keyTransparency.accepted();
      if (outcome.kind !== 'exists') {
        const event = outcome.kind === 'registered' ? 'device_registered' : 'device_renewed';
        audit(call, { event, outcome: 'ok', account: identityKey, device: deviceId });
      }
      return {};
    case 'replayed': {
      // A retry of what took effect is answered like the first time; anything else is a replay.
      const there = await server.store.findDevice({ identityKey, deviceId });
      if (there !== undefined && equal(there.certificate, bytes)) return {};
      throw conflict('this signed request was used before', 'Sign a new one.');
    }
    case 'stale_statement':
      throw outOfDate();
    case 'device_taken':
      throw deviceTaken();
    case 'too_many':
      throw exhausted(`an account has at most ${outcome.max} devices`, 'Remove one first.');
    case 'unknown_account':
      throw deviceGone();
  }
});

/** The certificate that gives way. @throws RpcError unless it is an earlier one for the same key */
function renewedBy(present: Device, certificate: VerifiedDeviceCertificate): Uint8Array {
  const earlier = parseDeviceCertificate(present.certificate)?.claims;
  const isLater = earlier !== undefined && certificate.serial > earlier.serial;
  if (!isLater || !equal(present.deviceKey, certificate.deviceKey)) throw deviceTaken();
  return present.certificate;
}

function deviceTaken(): Error {
  return alreadyExists('this device id has another certificate', 'A later one for the same key takes its place.');
}
