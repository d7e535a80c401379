import { endpointValidity, parseEndpoint, verifyEndpoint } from '@quicprochat/core';
import { methods } from '@quicprochat/transport';
import { deviceHandler } from '../../handler.ts';
import { deviceGone, invalidArgument } from '../../refusals.ts';

/** Signed by the device key, for a day at most. An empty statement withdraws what is there. */
export const publishEndpoint = deviceHandler(methods.p2p.publishEndpoint, async (call, request) => {
  const { server, session, writes } = call;
  const { address, deviceKey } = session;
  const { crypto, clock, origin, store } = server;
  let endpoint: { statement: Uint8Array; expiresAtMs: number } | undefined;
  if (request.endpoint.length > 0) {
    const parsed = parseEndpoint(request.endpoint);
    if (parsed === undefined) throw invalidArgument('the endpoint cannot be read');
    const outcome = verifyEndpoint(crypto, parsed, { origin, address, deviceKey });
    if (outcome.kind === 'invalid') throw invalidArgument(`the endpoint is refused: ${outcome.reason}`);
    const { statement } = outcome;
    if (BigInt(statement.notAfterSecs) !== request.notAfter) {
      throw invalidArgument('the lifetime is not that of the endpoint');
    }
    const validity = endpointValidity(statement, Math.floor(clock.wallMs() / 1000));
    if (validity.kind !== 'current') {
      throw invalidArgument('the endpoint is not valid now', 'Check the clock of this device.');
    }
    endpoint = { statement: statement.bytes, expiresAtMs: statement.notAfterSecs * 1000 };
  }
  const stored = await store.putEndpoint({ address, endpoint }, writes);
  if (stored.kind === 'unknown_device') throw deviceGone();
  return {};
});
