/**
 * Statements of which only the signature travels, because both sides know the rest (PROTOCOL 3). Each is a pair:
 * `sign…` returns 64 bytes, `verify…` a boolean.
 *
 *   registration    IK over label ‖ origin ‖ username ‖ SHA-256(OPAQUE record) ‖ certificate
 *   login proof     DK over label ‖ origin ‖ nonce 32 ‖ device id 16
 *   resume proof    DK over label ‖ origin ‖ nonce 32 ‖ device id 16 ‖ SHA-256(token)
 *   signed request  IK or DK over label ‖ method id u16 ‖ origin ‖ time u64 ms ‖ SHA-256(body)
 */
import { concat, SignatureSchemeId, u16, u64 } from '@quicprochat/crypto';
import type { CryptoProvider } from '@quicprochat/crypto';
import { DEVICE_ID_BYTES } from './identity.ts';
import { Label } from './labels.ts';
import { exactly, lengthPrefixedText, SIGNATURE_BYTES } from './statement.ts';

export const NONCE_BYTES = 32;
export const SESSION_TOKEN_BYTES = 32;
/** How far a SignedRequest's time may lie from the server's clock, either way. */
export const SIGNED_REQUEST_SKEW_MS_MAX = 5 * 60_000;

export interface Registration {
  readonly origin: string;
  readonly username: string;
  /** The OPAQUE RegistrationRecord as sent. */
  readonly record: Uint8Array;
  /** The first device's certificate as sent. */
  readonly certificate: Uint8Array;
}

export function signRegistration(
  crypto: CryptoProvider,
  identityPrivateKey: Uint8Array,
  registration: Registration,
): Uint8Array {
  return sign(crypto, identityPrivateKey, registrationBody(crypto, registration));
}

export function verifyRegistration(
  crypto: CryptoProvider,
  identityKey: Uint8Array,
  registration: Registration,
  signature: Uint8Array,
): boolean {
  return verify(crypto, identityKey, registrationBody(crypto, registration), signature);
}

function registrationBody(crypto: CryptoProvider, registration: Registration): Uint8Array {
  return concat(
    Label.registration,
    lengthPrefixedText(registration.origin),
    lengthPrefixedText(registration.username),
    crypto.hash('sha256', registration.record),
    registration.certificate,
  );
}

export interface LoginProof {
  readonly origin: string;
  /** From LoginStart; 32 bytes, bound to the connection. */
  readonly nonce: Uint8Array;
  /** 16 bytes. */
  readonly deviceId: Uint8Array;
}

export function signLoginProof(crypto: CryptoProvider, devicePrivateKey: Uint8Array, proof: LoginProof): Uint8Array {
  return sign(crypto, devicePrivateKey, loginBody(proof));
}

export function verifyLoginProof(
  crypto: CryptoProvider,
  deviceKey: Uint8Array,
  proof: LoginProof,
  signature: Uint8Array,
): boolean {
  return verify(crypto, deviceKey, loginBody(proof), signature);
}

function loginBody(proof: LoginProof): Uint8Array {
  return concat(
    Label.loginProof,
    lengthPrefixedText(proof.origin),
    exactly(proof.nonce, NONCE_BYTES, 'a nonce'),
    exactly(proof.deviceId, DEVICE_ID_BYTES, 'a device id'),
  );
}

export interface ResumeProof extends LoginProof {
  /** The session token, 32 bytes; `nonce` is from GetNonce here. */
  readonly token: Uint8Array;
}

export function signResumeProof(crypto: CryptoProvider, devicePrivateKey: Uint8Array, proof: ResumeProof): Uint8Array {
  return sign(crypto, devicePrivateKey, resumeBody(crypto, proof));
}

export function verifyResumeProof(
  crypto: CryptoProvider,
  deviceKey: Uint8Array,
  proof: ResumeProof,
  signature: Uint8Array,
): boolean {
  return verify(crypto, deviceKey, resumeBody(crypto, proof), signature);
}

function resumeBody(crypto: CryptoProvider, proof: ResumeProof): Uint8Array {
  return concat(
    Label.resumeProof,
    lengthPrefixedText(proof.origin),
    exactly(proof.nonce, NONCE_BYTES, 'a nonce'),
    exactly(proof.deviceId, DEVICE_ID_BYTES, 'a device id'),
    crypto.hash('sha256', exactly(proof.token, SESSION_TOKEN_BYTES, 'a session token')),
  );
}

export interface SignedRequestTerms {
  /** The method the request is for; a signature for one method is none for another. */
  readonly methodId: number;
  readonly origin: string;
  /** The caller's clock, milliseconds since 1970. */
  readonly timeMs: bigint;
  /** The body exactly as it travels. */
  readonly body: Uint8Array;
}

export function signRequest(crypto: CryptoProvider, privateKey: Uint8Array, terms: SignedRequestTerms): Uint8Array {
  return sign(crypto, privateKey, requestBody(crypto, terms));
}

/** Checks the signature only; time and replay are the server's to check. */
export function verifyRequest(
  crypto: CryptoProvider,
  publicKey: Uint8Array,
  terms: SignedRequestTerms,
  signature: Uint8Array,
): boolean {
  return verify(crypto, publicKey, requestBody(crypto, terms), signature);
}

function requestBody(crypto: CryptoProvider, terms: SignedRequestTerms): Uint8Array {
  return concat(
    Label.signedRequest,
    u16(terms.methodId),
    lengthPrefixedText(terms.origin),
    u64(terms.timeMs),
    crypto.hash('sha256', terms.body),
  );
}

function sign(crypto: CryptoProvider, privateKey: Uint8Array, body: Uint8Array): Uint8Array {
  return crypto.signature(SignatureSchemeId.Ed25519).sign(privateKey, body);
}

function verify(crypto: CryptoProvider, publicKey: Uint8Array, body: Uint8Array, signature: Uint8Array): boolean {
  return (
    signature.length === SIGNATURE_BYTES &&
    crypto.signature(SignatureSchemeId.Ed25519).verify(publicKey, body, signature)
  );
}
