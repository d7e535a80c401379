/**
 * The rejoin request (PROTOCOL section 4): a device that lost its place in a channel asks every device of the roster, in a
 * direct envelope each, to be removed and added again in one commit.
 *
 *   channel id 16 ‖ nonce 16 ‖ time u64 (ms) ‖ certificate<u16> ‖ signature 64
 *   signature = DK over label ‖ all before it ‖ recipient address 48
 *
 * The recipient's address is signed but not sent, so a request can't be passed on to another device (THREATS 3). It
 * expires after 7 days.
 */
import {
  CERTIFICATE_BYTES_MAX,
  CHANNEL_ID_BYTES,
  type DeviceAddress,
  encodeAddress,
  Label,
  Misuse,
  SIGNATURE_BYTES,
} from '@quicprochat/core';
import { concat, type CryptoProvider, equal, SignatureSchemeId, u16, u64 } from '@quicprochat/crypto';
import { ByteReader } from './byte-reader.ts';

export const REJOIN_LIFETIME_MS = 7 * 86_400_000;
/** How far ahead of ours the requester's clock may be. */
const CLOCK_SKEW_MS_MAX = 5 * 60_000;
const NONCE_LENGTH = 16;

export interface RejoinRequest {
  readonly channelId: Uint8Array;
  /** 16 random bytes, the same in the requests to all devices. */
  readonly nonce: Uint8Array;
  /** The requester's clock, milliseconds since 1970. */
  readonly timeMs: number;
  /** The requester's device certificate, encoded. */
  readonly certificate: Uint8Array;
}

/** A request as received, nothing checked but its layout. */
export interface UnverifiedRejoinRequest {
  readonly kind: 'unverified';
  readonly request: RejoinRequest;
  readonly signature: Uint8Array;
}

export type RejoinOutcome =
  | { readonly kind: 'verified'; readonly request: RejoinRequest }
  | { readonly kind: 'refused'; readonly reason: 'channel' | 'expired' | 'signature' };

/** The request for one recipient, signed with this device's private key. @throws Misuse when a field is too long or short */
export function encodeRejoinRequest(
  crypto: CryptoProvider,
  devicePrivateKey: Uint8Array,
  recipient: DeviceAddress,
  request: RejoinRequest,
): Uint8Array {
  const body = encodeBody(request);
  const scheme = crypto.signature(SignatureSchemeId.Ed25519);
  return concat(body, scheme.sign(devicePrivateKey, signedBytes(body, recipient)));
}

/** The parts, or undefined when the layout is another. */
export function decodeRejoinRequest(bytes: Uint8Array): UnverifiedRejoinRequest | undefined {
  const reader = new ByteReader(bytes);
  const channelId = reader.take(CHANNEL_ID_BYTES);
  const nonce = reader.take(NONCE_LENGTH);
  const timeMs = reader.time();
  const certificateLength = reader.u16();
  if (certificateLength > CERTIFICATE_BYTES_MAX) return undefined;
  const certificate = reader.take(certificateLength);
  const signature = reader.take(SIGNATURE_BYTES);
  if (!reader.complete) return undefined;
  return { kind: 'unverified', request: { channelId, nonce, timeMs, certificate }, signature };
}

export interface RejoinExpectation {
  /** The channel the envelope came on. */
  readonly channelId: Uint8Array;
  /** This device. */
  readonly recipient: DeviceAddress;
  /** The device key in the request's certificate, which the caller has verified under a pinned identity key. */
  readonly deviceKey: Uint8Array;
  readonly nowMs: number;
}

export function verifyRejoinRequest(
  crypto: CryptoProvider,
  { request, signature }: UnverifiedRejoinRequest,
  { channelId, recipient, deviceKey, nowMs }: RejoinExpectation,
): RejoinOutcome {
  if (!equal(request.channelId, channelId)) return { kind: 'refused', reason: 'channel' };
  if (nowMs > request.timeMs + REJOIN_LIFETIME_MS || request.timeMs > nowMs + CLOCK_SKEW_MS_MAX) {
    return { kind: 'refused', reason: 'expired' };
  }
  const signed = signedBytes(encodeBody(request), recipient);
  if (!crypto.signature(SignatureSchemeId.Ed25519).verify(deviceKey, signed, signature)) {
    return { kind: 'refused', reason: 'signature' };
  }
  return { kind: 'verified', request };
}

function encodeBody({ channelId, nonce, timeMs, certificate }: RejoinRequest): Uint8Array {
  if (
    channelId.length !== CHANNEL_ID_BYTES ||
    nonce.length !== NONCE_LENGTH ||
    certificate.length > CERTIFICATE_BYTES_MAX
  ) {
    throw new Misuse('malformed rejoin request');
  }
  return concat(channelId, nonce, u64(BigInt(timeMs)), u16(certificate.length), certificate);
}

function signedBytes(body: Uint8Array, recipient: DeviceAddress): Uint8Array {
  return concat(Label.rejoinRequest, body, encodeAddress(recipient));
}
