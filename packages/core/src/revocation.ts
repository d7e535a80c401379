/**
 * Revocations (PROTOCOL 1): a device key is no longer to be trusted, said by the identity key or by that key itself.
 *
 *   label ‖ origin ‖ address 48 ‖ DK 32 ‖ signer u8 ‖ revoked-at u64 ‖ signature 64     (origin behind a length byte)
 *
 * Signer 0 is the identity key, 1 the device key. A statement by the device key counts only for a verifier who knows
 * from a certificate that the key is that device's; one by the identity key needs nothing else. There is no way back:
 * a revoked device stays revoked, and whoever sees the statement needs no clock to believe it.
 */
import { concat, equal, u64 } from '@quicprochat/crypto';
import type { CryptoProvider } from '@quicprochat/crypto';
import { ADDRESS_BYTES, DEVICE_ID_BYTES, DEVICE_KEY_BYTES, encodeAddress, IDENTITY_KEY_BYTES } from './identity.ts';
import type { DeviceAddress } from './identity.ts';
import { Label } from './labels.ts';
import { exactly, lengthPrefixedText, parseStatement, signStatement, verifyStatement } from './statement.ts';
import type { Unverified, Verified, VerifyOutcome } from './statement.ts';

/** Longest encoded statement: an origin of 255 bytes. */
export const REVOCATION_BYTES_MAX = 512;

export type RevocationSigner = 'identity' | 'device';

export interface Revocation {
  readonly origin: string;
  readonly address: DeviceAddress;
  /** The revoked Ed25519 key, 32 bytes. */
  readonly deviceKey: Uint8Array;
  readonly signer: RevocationSigner;
  /** Seconds since 1970, by the signer's clock: for display only. */
  readonly revokedAtSecs: number;
}

export type UnverifiedRevocation = Unverified<Revocation>;
export type VerifiedRevocation = Verified<Revocation>;

/** Signs a revocation with the key that `signer` names. @throws Misuse when a field has the wrong length. */
export function signRevocation(crypto: CryptoProvider, privateKey: Uint8Array, revocation: Revocation): Uint8Array {
  return signStatement(
    crypto,
    privateKey,
    concat(
      Label.revocation,
      lengthPrefixedText(revocation.origin),
      exactly(encodeAddress(revocation.address), ADDRESS_BYTES, 'an address'),
      exactly(revocation.deviceKey, DEVICE_KEY_BYTES, 'a device key'),
      new Uint8Array([revocation.signer === 'device' ? 1 : 0]),
      u64(BigInt(revocation.revokedAtSecs)),
    ),
  );
}

/** The statement's layout read, nothing checked; undefined when it is not a revocation. */
export function parseRevocation(bytes: Uint8Array): UnverifiedRevocation | undefined {
  return parseStatement(bytes, Label.revocation, REVOCATION_BYTES_MAX, (reader) => ({
    origin: reader.text(),
    address: { identityKey: reader.take(IDENTITY_KEY_BYTES), deviceId: reader.take(DEVICE_ID_BYTES) },
    deviceKey: reader.take(DEVICE_KEY_BYTES),
    signer: reader.flag() ? ('device' as const) : ('identity' as const),
    revokedAtSecs: reader.time(),
  }));
}

/** What the verifier already knows. Everything given must match. */
export interface RevocationExpectation {
  readonly origin: string;
  readonly identityKey: Uint8Array;
  readonly deviceId?: Uint8Array;
  /** From the device's certificate. Without it a statement by the device key itself is refused. */
  readonly deviceKey?: Uint8Array | undefined;
}

/** The same answer for ever: expected fields, then the signature by the key it names. */
export function verifyRevocation(
  crypto: CryptoProvider,
  untrusted: UnverifiedRevocation,
  expected: RevocationExpectation,
): VerifyOutcome<Revocation> {
  const { claims } = untrusted;
  const invalid = (reason: string): VerifyOutcome<Revocation> => ({ kind: 'invalid', reason });
  if (claims.origin !== expected.origin) return invalid('the revocation is for another server');
  if (!equal(claims.address.identityKey, expected.identityKey)) {
    return invalid('the revocation names another identity key');
  }
  if (expected.deviceId !== undefined && !equal(claims.address.deviceId, expected.deviceId)) {
    return invalid('the revocation is for another device');
  }
  if (expected.deviceKey !== undefined && !equal(claims.deviceKey, expected.deviceKey)) {
    return invalid('the revocation is for another device key');
  }
  if (claims.signer === 'device' && expected.deviceKey === undefined) {
    return invalid('the revocation is signed by a device key that nobody vouches for');
  }
  const signer = claims.signer === 'device' ? claims.deviceKey : expected.identityKey;
  return verifyStatement(crypto, signer, untrusted);
}
