/** RegisterDevice for this very device (PROTOCOL sections 1 and 3): a later certificate, or the account stated anew. */
import { create, toBinary } from '@bufbuild/protobuf';
import { signRequest } from '@quicprochat/core';
import { RegisterDeviceBodySchema } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import type { Engine } from './engine.ts';
import { requireIdentityKey } from './key-transparency/own-statements.ts';

/** @param accountStatement what the account is afterwards */
export async function registerThisDevice(
  engine: Engine,
  deviceCertificate: Uint8Array,
  accountStatement: Uint8Array,
): Promise<void> {
  const method = methods.device.registerDevice;
  const account = engine.self;
  const body = toBinary(
    RegisterDeviceBodySchema,
    create(RegisterDeviceBodySchema, { deviceCertificate, accountStatement }),
  );
  const timeMs = BigInt(engine.nowMs());
  const terms = { methodId: method.id, origin: account.origin, timeMs, body };
  const signature = signRequest(engine.crypto, requireIdentityKey(account), terms);
  await engine.server.call(method, { signed: { body, timeMs, signature } });
}
