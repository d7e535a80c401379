/**
 * Endpoint statements: a device says where it can be reached directly, for a day at most.
 *
 *   label ‖ origin ‖ address 48 ‖ endpoint ‖ not-before u64 ‖ not-after u64 ‖ signature 64   (text behind a length byte)
 *
 * Signed by the device key. The endpoint is text for whoever connects, such as "192.0.2.7:4433"; nobody on the way reads
 * it, and what is found there proves itself by keys of its own.
 */
import { concat, equal, u64 } from '@quicprochat/crypto';
import type { CryptoProvider } from '@quicprochat/crypto';
import { validityAt } from './device-certificate.ts';
import type { Validity } from './device-certificate.ts';
import { ADDRESS_BYTES, addressesEqual, DEVICE_ID_BYTES, encodeAddress, IDENTITY_KEY_BYTES } from './identity.ts';
import type { DeviceAddress } from './identity.ts';
import { Label } from './labels.ts';
import { exactly, lengthPrefixedText, parseStatement, signStatement, verifyStatement } from './statement.ts';
import type { Unverified, Verified, VerifyOutcome } from './statement.ts';

/** An endpoint changes with its network: whoever is still there says so again. */
export const ENDPOINT_LIFETIME_SECS = 86_400;
/** Longest encoded statement: origin and endpoint of 255 bytes each. */
export const ENDPOINT_BYTES_MAX = 1_024;
const BACKDATE_SECS_MAX = 3_600;

export interface Endpoint {
  readonly origin: string;
  readonly address: DeviceAddress;
  /** Where, at most 255 bytes of UTF-8. */
  readonly endpoint: string;
  /** Seconds since 1970. */
  readonly notBeforeSecs: number;
  /** Seconds since 1970. */
  readonly notAfterSecs: number;
}

export type UnverifiedEndpoint = Unverified<Endpoint>;
export type VerifiedEndpoint = Verified<Endpoint>;

/** Signs a statement with the device's private key. @throws Misuse when a field has the wrong length. */
export function signEndpoint(crypto: CryptoProvider, devicePrivateKey: Uint8Array, endpoint: Endpoint): Uint8Array {
  return signStatement(
    crypto,
    devicePrivateKey,
    concat(
      Label.endpoint,
      lengthPrefixedText(endpoint.origin),
      exactly(encodeAddress(endpoint.address), ADDRESS_BYTES, 'an address'),
      lengthPrefixedText(endpoint.endpoint),
      u64(BigInt(endpoint.notBeforeSecs)),
      u64(BigInt(endpoint.notAfterSecs)),
    ),
  );
}

/** The statement's layout read, nothing checked; undefined when it is not an endpoint statement. */
export function parseEndpoint(bytes: Uint8Array): UnverifiedEndpoint | undefined {
  return parseStatement(bytes, Label.endpoint, ENDPOINT_BYTES_MAX, (reader) => ({
    origin: reader.text(),
    address: { identityKey: reader.take(IDENTITY_KEY_BYTES), deviceId: reader.take(DEVICE_ID_BYTES) },
    endpoint: reader.text(),
    notBeforeSecs: reader.time(),
    notAfterSecs: reader.time(),
  }));
}

/** What the verifier already knows; the key from a verified certificate of the device. */
export interface EndpointExpectation {
  readonly origin: string;
  readonly address: DeviceAddress;
  readonly deviceKey: Uint8Array;
}

/** Everything but the clock: server, device, lifetime, signature. */
export function verifyEndpoint(
  crypto: CryptoProvider,
  untrusted: UnverifiedEndpoint,
  expected: EndpointExpectation,
): VerifyOutcome<Endpoint> {
  const { claims } = untrusted;
  const invalid = (reason: string): VerifyOutcome<Endpoint> => ({ kind: 'invalid', reason });
  if (claims.origin !== expected.origin) return invalid('the endpoint is for another server');
  if (!equal(claims.address.identityKey, expected.address.identityKey)) {
    return invalid('the endpoint names another identity key');
  }
  if (!addressesEqual(claims.address, expected.address)) return invalid('the endpoint is for another device');
  if (claims.endpoint === '') return invalid('the endpoint is empty');
  const lifetimeSecs = claims.notAfterSecs - claims.notBeforeSecs;
  if (lifetimeSecs <= 0 || lifetimeSecs > ENDPOINT_LIFETIME_SECS + BACKDATE_SECS_MAX) {
    return invalid('the endpoint has an impossible lifetime');
  }
  return verifyStatement(crypto, expected.deviceKey, untrusted);
}

/** The local check against a clock, seconds since 1970. */
export function endpointValidity(endpoint: VerifiedEndpoint, nowSecs: number): Validity {
  return validityAt(endpoint, nowSecs);
}
