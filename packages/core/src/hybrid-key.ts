/**
 * Hybrid-key statements (PROTOCOL 1): the device key says which X-Wing key receives the device's direct envelopes.
 *
 *   label ‖ origin ‖ address 48 ‖ X-Wing key 1216 ‖ serial u64 ‖ not-before u64 ‖ not-after u64 ‖ signature 64
 *
 * The X-Wing key is ML-KEM-768 1184 ‖ X25519 32. A receiver pins the highest serial it has seen per device.
 */
import { concat, equal, u64 } from '@quicprochat/crypto';
import type { CryptoProvider } from '@quicprochat/crypto';
import { validityAt } from './device-certificate.ts';
import type { Validity, VerifiedDeviceCertificate } from './device-certificate.ts';
import { ADDRESS_BYTES, DEVICE_ID_BYTES, encodeAddress, IDENTITY_KEY_BYTES } from './identity.ts';
import type { DeviceAddress } from './identity.ts';
import { Label } from './labels.ts';
import { exactly, lengthPrefixedText, parseStatement, signStatement, verifyStatement } from './statement.ts';
import type { Unverified, Verified, VerifyOutcome } from './statement.ts';

export const HYBRID_PUBLIC_KEY_BYTES = 1_216;
/** Longest encoded statement: an origin of 255 bytes. */
export const HYBRID_KEY_STATEMENT_BYTES_MAX = 2_048;
/** A key is renewed weekly but stays acceptable for a device that was away. */
export const HYBRID_KEY_LIFETIME_SECS = 90 * 86_400;
const BACKDATE_SECS_MAX = 86_400;

export interface HybridKey {
  readonly origin: string;
  readonly address: DeviceAddress;
  /** ML-KEM-768 1184 ‖ X25519 32. */
  readonly publicKey: Uint8Array;
  /** Higher than any before it. */
  readonly serial: bigint;
  /** Seconds since 1970. */
  readonly notBeforeSecs: number;
  /** Seconds since 1970. */
  readonly notAfterSecs: number;
}

export type UnverifiedHybridKey = Unverified<HybridKey>;
export type VerifiedHybridKey = Verified<HybridKey>;

/** Signs a statement with the device's private key. @throws Misuse when a field has the wrong length. */
export function signHybridKey(crypto: CryptoProvider, devicePrivateKey: Uint8Array, key: HybridKey): Uint8Array {
  return signStatement(
    crypto,
    devicePrivateKey,
    concat(
      Label.hybridKey,
      lengthPrefixedText(key.origin),
      exactly(encodeAddress(key.address), ADDRESS_BYTES, 'an address'),
      exactly(key.publicKey, HYBRID_PUBLIC_KEY_BYTES, 'a hybrid key'),
      u64(key.serial),
      u64(BigInt(key.notBeforeSecs)),
      u64(BigInt(key.notAfterSecs)),
    ),
  );
}

/** The statement's layout read, nothing checked; undefined when it is not a hybrid-key statement. */
export function parseHybridKey(bytes: Uint8Array): UnverifiedHybridKey | undefined {
  return parseStatement(bytes, Label.hybridKey, HYBRID_KEY_STATEMENT_BYTES_MAX, (reader) => ({
    origin: reader.text(),
    address: { identityKey: reader.take(IDENTITY_KEY_BYTES), deviceId: reader.take(DEVICE_ID_BYTES) },
    publicKey: reader.take(HYBRID_PUBLIC_KEY_BYTES),
    serial: reader.u64(),
    notBeforeSecs: reader.time(),
    notAfterSecs: reader.time(),
  }));
}

/** The deterministic check, under a certificate that has been verified itself. */
export function verifyHybridKey(
  crypto: CryptoProvider,
  untrusted: UnverifiedHybridKey,
  certificate: VerifiedDeviceCertificate,
): VerifyOutcome<HybridKey> {
  const { claims } = untrusted;
  const invalid = (reason: string): VerifyOutcome<HybridKey> => ({ kind: 'invalid', reason });
  if (claims.origin !== certificate.origin) return invalid('the hybrid key is for another server');
  if (!equal(claims.address.identityKey, certificate.identityKey)) {
    return invalid('the hybrid key names another identity key');
  }
  if (!equal(claims.address.deviceId, certificate.deviceId)) return invalid('the hybrid key is for another device');
  const lifetimeSecs = claims.notAfterSecs - claims.notBeforeSecs;
  if (lifetimeSecs <= 0 || lifetimeSecs > HYBRID_KEY_LIFETIME_SECS + BACKDATE_SECS_MAX) {
    return invalid('the hybrid key has an impossible lifetime');
  }
  return verifyStatement(crypto, certificate.deviceKey, untrusted);
}

/** The local check against a clock, seconds since 1970. */
export function hybridKeyValidity(key: VerifiedHybridKey, nowSecs: number): Validity {
  return validityAt(key, nowSecs);
}
