/**
 * SignedRequest (PROTOCOL 3): requests that change trust are signed by a key that a stolen session does not have. Order:
 * signature, then time, then the body is parsed; the single use is settled by the store, in the same transaction as the
 * change itself.
 */
import { fromBinary } from '@bufbuild/protobuf';
import type { DescMessage, MessageShape } from '@bufbuild/protobuf';
import { SIGNATURE_BYTES, SIGNED_REQUEST_SKEW_MS_MAX, verifyRequest } from '@quicprochat/core';
import { concat } from '@quicprochat/crypto';
import type { SignedRequest } from '@quicprochat/proto';
import { exactBytes } from './checks.ts';
import type { ServerContext } from './context.ts';
import { invalidArgument, unauthenticated } from './refusals.ts';
import type { ReplayGuard } from './store/store.ts';

/** A request may arrive this long after the earliest moment it was acceptable. */
const REMEMBERED_MS = 2 * SIGNED_REQUEST_SKEW_MS_MAX;

export interface VerifiedRequest<Body> {
  readonly body: Body;
  /** The one of the keys that signed. */
  readonly signer: Uint8Array;
  readonly replay: ReplayGuard;
}

/**
 * @param keys Ed25519; one of them has to have signed
 * @throws RpcError when none did, or not lately
 */
export function verifySignedRequest<D extends DescMessage>(
  server: ServerContext,
  methodId: number,
  bodySchema: D,
  signed: SignedRequest | undefined,
  ...keys: readonly Uint8Array[]
): VerifiedRequest<MessageShape<D>> {
  if (signed === undefined) throw invalidArgument('the signed request is missing');
  const signature = exactBytes(signed.signature, SIGNATURE_BYTES, 'a signature');
  const terms = { methodId, origin: server.origin, timeMs: signed.timeMs, body: signed.body };
  const signer = keys.find((key) => verifyRequest(server.crypto, key, terms, signature));
  if (signer === undefined) {
    throw unauthenticated('the request is not signed by the key it needs');
  }
  const nowMs = server.clock.wallMs();
  const skewMs = Math.abs(nowMs - Number(signed.timeMs));
  if (skewMs > SIGNED_REQUEST_SKEW_MS_MAX) {
    throw invalidArgument(
      'the clock of this device and the clock of the server are more than five minutes apart',
      'Set the clock of this device, then try again.',
    );
  }
  let body: MessageShape<D>;
  try {
    body = fromBinary(bodySchema, signed.body);
  } catch {
    throw invalidArgument('the signed body is not what its method expects');
  }
  // Verification is strict, so nobody but the signer can make another signature over the same request.
  const hash = server.crypto.hash('sha256', concat(signer, signature));
  return { body, signer, replay: { hash, expiresAtMs: nowMs + REMEMBERED_MS } };
}
