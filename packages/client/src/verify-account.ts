/**
 * From what the server says about an account to what may be believed: IK → device certificates → hybrid keys (PROTOCOL
 * section 1, "First contact"). Pure. Pins are compared by the caller's data: a changed identity key or a serial lower
 * than one seen before is refused.
 */
import { type CryptoProvider, encodeHex, equal } from '@quicprochat/crypto';
import {
  deviceCertificateValidity,
  hybridKeyValidity,
  IDENTITY_KEY_BYTES,
  parseDeviceCertificate,
  parseHybridKey,
  parseRevocation,
  type VerifiedDeviceCertificate,
  type VerifiedHybridKey,
  verifyDeviceCertificate,
  verifyHybridKey,
  verifyRevocation,
} from '@quicprochat/core';
import type { Account, DeviceHybridKey } from '@quicprochat/proto';
import { ClientError } from './errors.ts';
import { isStorable } from './outside-numbers.ts';

const DEVICES_MAX = 64;
const REVOCATIONS_MAX = 256;

/** What this profile knows of a name or device from before. */
export interface Pins {
  /** The identity key pinned for the name. */
  readonly identityKey: Uint8Array | undefined;
  /** Highest certificate serial seen, by device id in hex. */
  certificateSerial(deviceId: string): bigint | undefined;
  /** Highest hybrid-key serial seen, by device id in hex. */
  hybridSerial(deviceId: string): bigint | undefined;
}

export interface VerifiedAccount {
  readonly username: string;
  readonly identityKey: Uint8Array;
  /** Verified and not expired. */
  readonly devices: readonly VerifiedDeviceCertificate[];
}

/** @throws ClientError `identity-changed`, `bad-certificate` */
export function verifyAccount(
  crypto: CryptoProvider,
  origin: string,
  nowSecs: number,
  asked: { readonly username?: string; readonly identityKey?: Uint8Array },
  account: Account,
  pins: Pins,
): VerifiedAccount {
  const { username, identityKey, deviceCertificates } = account;
  if (identityKey.length !== IDENTITY_KEY_BYTES) {
    throw badCertificate(username, 'the identity key is malformed');
  }
  if (asked.username !== undefined && asked.username !== username) {
    throw badCertificate(asked.username, 'the server answered about another account');
  }
  if (asked.identityKey !== undefined && !equal(asked.identityKey, identityKey)) {
    throw badCertificate(username, 'the server answered about another identity key');
  }
  if (pins.identityKey !== undefined && !equal(pins.identityKey, identityKey)) throw identityChanged(username);
  if (deviceCertificates.length > DEVICES_MAX) throw badCertificate(username, 'there are too many devices');
  const devices: VerifiedDeviceCertificate[] = [];
  const seen = new Set<string>();
  for (const bytes of deviceCertificates) {
    const parsed = parseDeviceCertificate(bytes);
    if (parsed === undefined) throw badCertificate(username, 'a device certificate is malformed');
    const outcome = verifyDeviceCertificate(crypto, parsed, { origin, identityKey, username });
    if (outcome.kind === 'invalid') throw badCertificate(username, outcome.reason);
    const certificate = outcome.statement;
    const deviceId = encodeHex(certificate.deviceId);
    if (seen.has(deviceId)) throw badCertificate(username, 'a device is listed twice');
    seen.add(deviceId);
    const serial = pins.certificateSerial(deviceId);
    if (!isStorable(certificate.serial)) throw badCertificate(username, 'its serial number is too large');
    if (serial !== undefined && certificate.serial < serial) {
      throw badCertificate(username, 'the server shows an old device certificate');
    }
    if (deviceCertificateValidity(certificate, nowSecs).kind === 'current') devices.push(certificate);
  }
  return { username, identityKey: identityKey.slice(), devices };
}

/**
 * The devices the server names against those of the statement in the log: undefined when they agree, else what does not.
 * A device may be missing whose certificate has expired, or which is shown to be revoked by its own key.
 */
export function compareWithLog(
  crypto: CryptoProvider,
  origin: string,
  nowSecs: number,
  { identityKey, devices }: VerifiedAccount,
  { revocations }: Pick<Account, 'revocations'>,
  logged: readonly VerifiedDeviceCertificate[],
): string | undefined {
  for (const device of devices) {
    if (!logged.some(({ bytes }) => equal(bytes, device.bytes)))
      return 'the server names a device that the log does not';
  }
  const isRevoked = ({ deviceId, deviceKey }: VerifiedDeviceCertificate): boolean =>
    revocations.slice(0, REVOCATIONS_MAX).some((bytes) => {
      const parsed = parseRevocation(bytes);
      if (parsed === undefined) return false;
      const outcome = verifyRevocation(crypto, parsed, { origin, identityKey, deviceId, deviceKey });
      return outcome.kind === 'verified';
    });
  for (const certificate of logged) {
    if (devices.some(({ bytes }) => equal(bytes, certificate.bytes))) continue;
    if (deviceCertificateValidity(certificate, nowSecs).kind === 'current' && !isRevoked(certificate)) {
      return 'the server withholds a device that the log names';
    }
  }
  return undefined;
}

/** @throws ClientError `bad-hybrid-key` */
export function verifyDeviceHybridKey(
  crypto: CryptoProvider,
  nowSecs: number,
  certificate: VerifiedDeviceCertificate,
  answer: DeviceHybridKey,
  pins: Pick<Pins, 'hybridSerial'>,
): VerifiedHybridKey {
  const parsed = parseHybridKey(answer.hybridKey);
  if (parsed === undefined) throw badHybridKey(certificate.username, 'it is malformed');
  const outcome = verifyHybridKey(crypto, parsed, certificate);
  if (outcome.kind === 'invalid') throw badHybridKey(certificate.username, outcome.reason);
  const key = outcome.statement;
  const serial = pins.hybridSerial(encodeHex(certificate.deviceId));
  if (!isStorable(key.serial) || !isStorable(certificate.serial)) {
    throw badHybridKey(certificate.username, 'a serial number is too large');
  }
  if (serial !== undefined && key.serial < serial) {
    throw badHybridKey(certificate.username, 'the server shows an old one');
  }
  if (hybridKeyValidity(key, nowSecs).kind !== 'current') {
    throw badHybridKey(certificate.username, 'it is not valid now (check the clock of this machine)');
  }
  return key;
}

export function identityChanged(username: string): ClientError {
  return new ClientError(
    'verification-failed',
    'identity-changed',
    `the identity key of ${username} is not the one this profile knows`,
    { hint: 'Somebody may be posing as them. Ask them over another channel before you go on.' },
  );
}

function badCertificate(username: string, reason: string): ClientError {
  return new ClientError('verification-failed', 'bad-certificate', `the keys of ${username} do not verify: ${reason}`, {
    hint: 'Nothing was sent. The server may be faulty or lying; tell its operator.',
  });
}

function badHybridKey(username: string, reason: string): ClientError {
  return new ClientError(
    'verification-failed',
    'bad-hybrid-key',
    `the hybrid key of ${username} is refused: ${reason}`,
    {
      hint: 'Nothing was sent. Ask them to start their client, then try again.',
    },
  );
}
