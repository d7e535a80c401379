import { NONCE_BYTES } from '@quicprochat/core';
import { methods } from '@quicprochat/transport';
import type { ServerContext } from '../../context.ts';
import { handler } from '../../handler.ts';

const NONCE_LIFETIME_MS = 60_000;
/** Drawn together: asking the system for each would cost more than the rest of the call. */
const NONCES_DRAWN = 64;

/** By server; what is left of its last drawing. */
const drawn = new WeakMap<ServerContext, { readonly bytes: Uint8Array; used: number }>();

function nextNonce(server: ServerContext): Uint8Array {
  let left = drawn.get(server);
  if (left === undefined || left.used === left.bytes.length) {
    left = { bytes: server.crypto.random(NONCES_DRAWN * NONCE_BYTES), used: 0 };
    drawn.set(server, left);
  }
  const nonce = left.bytes.slice(left.used, left.used + NONCE_BYTES);
  left.used += NONCE_BYTES;
  return nonce;
}

/** A connection has one nonce; asking again replaces it. */
export const getNonce = handler(methods.auth.getNonce, ({ server, connection }) => {
  const bytes = nextNonce(server);
  connection.state.nonce = { bytes, expiresAt: server.clock.now() + NONCE_LIFETIME_MS };
  return { nonce: bytes };
});
