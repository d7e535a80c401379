/**
 * Device certificates (PROTOCOL 1): the identity key says which device keys are its own.
 *
 *   label ‖ origin ‖ username ‖ IK 32 ‖ device id 16 ‖ DK 32 ‖ manager u8 ‖ serial u64 ‖ not-before u64 ‖ not-after u64
 *   ‖ signature 64                                                                   (text behind a length byte)
 *
 * Two kinds of check (PROTOCOL 2), kept apart: `verifyDeviceCertificate` gives the same answer for ever and may decide
 * a commit; `deviceCertificateValidity` depends on the clock and never may.
 */
import { concat, equal, u64 } from '@quicprochat/crypto';
import type { CryptoProvider } from '@quicprochat/crypto';
import { DEVICE_ID_BYTES, DEVICE_KEY_BYTES, IDENTITY_KEY_BYTES } from './identity.ts';
import { Label } from './labels.ts';
import { exactly, lengthPrefixedText, parseStatement, signStatement, verifyStatement } from './statement.ts';
import type { Unverified, Verified, VerifyOutcome } from './statement.ts';
import { isUsername } from './username.ts';

/** A certificate is issued for one year and renewed at half of it. */
export const CERTIFICATE_LIFETIME_SECS = 365 * 86_400;
/** How far before the issuer's clock `notBeforeSecs` is set, for receivers whose clock is behind. */
export const CERTIFICATE_BACKDATE_SECS = 3_600;
/** Longest encoded certificate. */
export const CERTIFICATE_BYTES_MAX = 1_024;

export interface DeviceCertificate {
  /** The server's origin, as Health gives it. */
  readonly origin: string;
  /** Canonical account name. */
  readonly username: string;
  /** Ed25519, 32 bytes; signs this certificate. */
  readonly identityKey: Uint8Array;
  /** 16 bytes. */
  readonly deviceId: Uint8Array;
  /** Ed25519, 32 bytes; the device's MLS leaf key. */
  readonly deviceKey: Uint8Array;
  /** Whether the device holds the identity key. */
  readonly manager: boolean;
  /** Grows with each certificate of the same device. */
  readonly serial: bigint;
  /** Seconds since 1970. */
  readonly notBeforeSecs: number;
  /** Seconds since 1970. */
  readonly notAfterSecs: number;
}

export type UnverifiedDeviceCertificate = Unverified<DeviceCertificate>;
export type VerifiedDeviceCertificate = Verified<DeviceCertificate>;

/** Signs a certificate with the identity's private key. @throws Misuse when a field has the wrong length. */
export function signDeviceCertificate(
  crypto: CryptoProvider,
  identityPrivateKey: Uint8Array,
  certificate: DeviceCertificate,
): Uint8Array {
  return signStatement(
    crypto,
    identityPrivateKey,
    concat(
      Label.deviceCertificate,
      lengthPrefixedText(certificate.origin),
      lengthPrefixedText(certificate.username),
      exactly(certificate.identityKey, IDENTITY_KEY_BYTES, 'an identity key'),
      exactly(certificate.deviceId, DEVICE_ID_BYTES, 'a device id'),
      exactly(certificate.deviceKey, DEVICE_KEY_BYTES, 'a device key'),
      new Uint8Array([certificate.manager ? 1 : 0]),
      u64(certificate.serial),
      u64(BigInt(certificate.notBeforeSecs)),
      u64(BigInt(certificate.notAfterSecs)),
    ),
  );
}

/** The certificate's layout read, nothing checked; undefined when it is not a certificate. */
export function parseDeviceCertificate(bytes: Uint8Array): UnverifiedDeviceCertificate | undefined {
  return parseStatement(bytes, Label.deviceCertificate, CERTIFICATE_BYTES_MAX, (reader) => ({
    origin: reader.text(),
    username: reader.text(),
    identityKey: reader.take(IDENTITY_KEY_BYTES),
    deviceId: reader.take(DEVICE_ID_BYTES),
    deviceKey: reader.take(DEVICE_KEY_BYTES),
    manager: reader.flag(),
    serial: reader.u64(),
    notBeforeSecs: reader.time(),
    notAfterSecs: reader.time(),
  }));
}

/** What the verifier already knows. Everything given must match. */
export interface DeviceCertificateExpectation {
  readonly origin: string;
  readonly identityKey: Uint8Array;
  readonly username?: string;
  readonly deviceId?: Uint8Array;
  readonly deviceKey?: Uint8Array;
}

/** The deterministic check: signature by the expected identity key, expected fields, a sane name and lifetime. */
export function verifyDeviceCertificate(
  crypto: CryptoProvider,
  untrusted: UnverifiedDeviceCertificate,
  expected: DeviceCertificateExpectation,
): VerifyOutcome<DeviceCertificate> {
  const { claims } = untrusted;
  const invalid = (reason: string): VerifyOutcome<DeviceCertificate> => ({ kind: 'invalid', reason });
  if (!equal(claims.identityKey, expected.identityKey)) return invalid('the certificate names another identity key');
  if (claims.origin !== expected.origin) return invalid('the certificate is for another server');
  if (!isUsername(claims.username)) return invalid('the certificate names an impossible username');
  if (expected.username !== undefined && claims.username !== expected.username) {
    return invalid('the certificate is for another account');
  }
  if (expected.deviceId !== undefined && !equal(claims.deviceId, expected.deviceId)) {
    return invalid('the certificate is for another device');
  }
  if (expected.deviceKey !== undefined && !equal(claims.deviceKey, expected.deviceKey)) {
    return invalid('the certificate is for another device key');
  }
  // One key must not serve two purposes, or a signature made in one could be shown in the other.
  if (equal(claims.deviceKey, claims.identityKey)) return invalid('the device key equals the identity key');
  const lifetimeSecs = claims.notAfterSecs - claims.notBeforeSecs;
  if (lifetimeSecs <= 0 || lifetimeSecs > CERTIFICATE_LIFETIME_SECS + CERTIFICATE_BACKDATE_SECS) {
    return invalid('the certificate has an impossible lifetime');
  }
  return verifyStatement(crypto, expected.identityKey, untrusted);
}

export type Validity = { readonly kind: 'current' } | { readonly kind: 'not-yet-valid' } | { readonly kind: 'expired' };

/** The local check against a clock, seconds since 1970. Never part of commit validation. */
export function deviceCertificateValidity(certificate: VerifiedDeviceCertificate, nowSecs: number): Validity {
  return validityAt(certificate, nowSecs);
}

export function validityAt(
  period: { readonly notBeforeSecs: number; readonly notAfterSecs: number },
  nowSecs: number,
): Validity {
  if (nowSecs < period.notBeforeSecs) return { kind: 'not-yet-valid' };
  return nowSecs > period.notAfterSecs ? { kind: 'expired' } : { kind: 'current' };
}
