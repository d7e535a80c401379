import { NONCE_BYTES } from '@quicprochat/core';
import { methods } from '@quicprochat/transport';
import { handler } from '../../handler.ts';

const NONCE_LIFETIME_MS = 60_000;

/** A connection has one nonce; asking again replaces it. */
export const getNonce = handler(methods.auth.getNonce, ({ server, connection }) => {
  const bytes = server.crypto.random(NONCE_BYTES);
  connection.state.nonce = { bytes, expiresAt: server.clock.now() + NONCE_LIFETIME_MS };
  return { nonce: bytes };
});
