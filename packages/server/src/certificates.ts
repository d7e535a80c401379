/** Certificates as requests bring them: verified under the account's key, and in force now. */
import { deviceCertificateValidity, parseDeviceCertificate, verifyDeviceCertificate } from '@quicprochat/core';
import type { VerifiedDeviceCertificate } from '@quicprochat/core';
import type { ServerContext } from './context.ts';
import { invalidArgument } from './refusals.ts';

/** @throws RpcError unless this is a current certificate of this server, account and identity key */
export function currentCertificate(
  server: ServerContext,
  bytes: Uint8Array,
  identityKey: Uint8Array,
  username: string,
): VerifiedDeviceCertificate {
  const certificate = verifiedCertificate(server, bytes, identityKey, username);
  const validity = deviceCertificateValidity(certificate, Math.floor(server.clock.wallMs() / 1000));
  if (validity.kind === 'current') return certificate;
  throw invalidArgument(
    validity.kind === 'expired' ? 'the device certificate has expired' : 'the device certificate is not valid yet',
    'Check the clock of this device.',
  );
}

/** @throws RpcError unless this is a certificate of this server, account and identity key, at whatever time */
export function verifiedCertificate(
  server: ServerContext,
  bytes: Uint8Array,
  identityKey: Uint8Array,
  username: string,
): VerifiedDeviceCertificate {
  const parsed = parseDeviceCertificate(bytes);
  if (parsed === undefined) throw invalidArgument('the device certificate cannot be read');
  const outcome = verifyDeviceCertificate(server.crypto, parsed, { origin: server.origin, identityKey, username });
  if (outcome.kind === 'invalid') throw invalidArgument(`the device certificate is refused: ${outcome.reason}`);
  return outcome.statement;
}
