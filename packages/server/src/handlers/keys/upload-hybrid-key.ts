import { parseHybridKey, verifyHybridKey } from '@quicprochat/core';
import { equal } from '@quicprochat/crypto';
import { UploadHybridKeyBodySchema } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import { verifiedCertificate } from '../../certificates.ts';
import { safeInteger } from '../../checks.ts';
import { audit, deviceHandler } from '../../handler.ts';
import { conflict, deviceGone, invalidArgument } from '../../refusals.ts';
import { verifySignedRequest } from '../../signed-request.ts';

const method = methods.keys.uploadHybridKey;

export const uploadHybridKey = deviceHandler(method, async (call, request) => {
  const { server, session, writes } = call;
  const { address, deviceKey, username } = session;
  const { body, replay } = verifySignedRequest(server, method.id, UploadHybridKeyBodySchema, request.signed, deviceKey);

  const device = await server.store.findDevice(address);
  if (device === undefined) throw deviceGone();
  const certificate = verifiedCertificate(server, device.certificate, address.identityKey, username);
  const parsed = parseHybridKey(body.hybridKey);
  if (parsed === undefined) throw invalidArgument('the hybrid key cannot be read');
  const verified = verifyHybridKey(server.crypto, parsed, certificate);
  if (verified.kind === 'invalid') throw invalidArgument(`the hybrid key is refused: ${verified.reason}`);
  const { statement } = verified;
  const serial = safeInteger(body.serial, 'a serial number');
  if (statement.serial !== body.serial || BigInt(statement.notAfterSecs) !== body.notAfter) {
    throw invalidArgument('serial number and lifetime are not those of the hybrid key');
  }
  const notAfterMs = statement.notAfterSecs * 1000;
  const nowMs = server.clock.wallMs();
  if (notAfterMs <= nowMs) throw invalidArgument('the hybrid key has expired');

  const key = { address, hybridKey: statement.bytes, serial, notAfterMs, nowMs, replay };
  const outcome = await server.store.putHybridKey(key, writes);
  switch (outcome.kind) {
    case 'stored':
      audit(call, {
        event: 'hybrid_key_published',
        outcome: 'ok',
        account: address.identityKey,
        device: address.deviceId,
      });
      return {};
    case 'replayed': {
      // A retry of what took effect is answered like the first time; anything else is a replay.
      const [there] = await server.store.getHybridKeys([address]);
      if (there !== undefined && equal(there.hybridKey, statement.bytes)) return {};
      throw conflict('this signed request was used before', 'Sign a new one.');
    }
    case 'stale':
      throw conflict('the server has a hybrid key with this serial number or a higher one', 'Make a newer key.');
    case 'unknown_device':
      throw deviceGone();
  }
});
