// How failures of the transport and refusals of the server become what the user is told: the cause and the next step.
import { displayText } from '@quicprochat/core';
import { Status } from '@quicprochat/proto';
import { ConnectError, ConnectionLost, RpcError } from '@quicprochat/transport';
import { ClientError, type ClientErrorCode, type ClientErrorKind, toClientError } from './errors.ts';

/** A server may ask for patience, not for a time that a timer cannot count: those run out at once. */
const RETRY_AFTER_MS_MAX = 3_600_000;

/** Any failure of a call or of connecting, as a ClientError; ClientErrors stay what they are. */
export function connectionFailure(error: unknown, server: string): ClientError {
  if (error instanceof ClientError) return error;
  if (error instanceof RpcError) return refusal(error);
  if (error instanceof ConnectionLost) {
    return new ClientError('cannot-connect', 'connection-lost', `the connection to ${server} was lost`, {
      hint: 'Try again; nothing that was queued is lost.',
      cause: error,
    });
  }
  if (error instanceof ConnectError) return connectError(error, server);
  return toClientError(error);
}

function connectError(error: ConnectError, server: string): ClientError {
  const make = (code: ClientErrorCode, message: string, hint: string): ClientError =>
    new ClientError('cannot-connect', code, message, { hint, cause: error });
  switch (error.kind) {
    case 'untrusted-certificate':
      return make(
        'untrusted-certificate',
        `the certificate of ${server} is not trusted`,
        'Give the server’s certificate with --ca-cert, or use a server whose certificate your system trusts.',
      );
    case 'wrong-server-name':
      return make(
        'wrong-server-name',
        `the certificate of ${server} is for another name`,
        'Check the address, or give the name in the certificate with --server-name.',
      );
    case 'bad-trust-anchor':
      return make('bad-trust-anchor', error.message, 'Give a certificate in PEM or DER form with --ca-cert.');
    case 'bad-address':
      return make('bad-address', error.message, 'Give the server as host:port.');
    case 'unsupported':
      return make('server-away', error.message, 'See the README for supported machines.');
    case 'refused':
    case 'timeout':
    case 'handshake':
      return make(
        'server-away',
        `cannot reach a quicprochat server at ${server}`,
        'Check that the server is running there and that UDP traffic reaches it.',
      );
  }
}

const BY_STATUS: ReadonlyMap<number, readonly [ClientErrorKind, ClientErrorCode, string]> = new Map([
  [Status.INVALID_ARGUMENT, ['refused', 'refused', 'the server did not understand the request']],
  [Status.UNAUTHENTICATED, ['refused', 'not-logged-in', 'the server wants a session']],
  [Status.FORBIDDEN, ['refused', 'refused', 'the server does not permit this']],
  [Status.NOT_FOUND, ['refused', 'refused', 'the server does not know what was asked for']],
  [Status.ALREADY_EXISTS, ['refused', 'refused', 'the server has something else under this name']],
  [Status.CONFLICT, ['refused', 'lost-race', 'somebody else was faster']],
  [Status.EXHAUSTED, ['refused', 'rate-limited', 'a limit of the server is reached']],
  [Status.TOO_LARGE, ['refused', 'too-large', 'this is larger than the server takes']],
  [Status.RATE_LIMITED, ['refused', 'rate-limited', 'too many requests']],
  [Status.UNAVAILABLE, ['cannot-connect', 'server-away', 'the server cannot do this now']],
  [Status.UNIMPLEMENTED, ['refused', 'refused', 'the server does not offer this']],
  [Status.CANCELLED, ['timeout', 'timeout', 'the request was given up']],
  [Status.DEADLINE_EXCEEDED, ['timeout', 'timeout', 'the server did not answer in time']],
  [Status.INTERNAL, ['refused', 'refused', 'the server had a fault of its own']],
]);

const HINTS: Partial<Record<ClientErrorCode, string>> = {
  'rate-limited': 'Wait a while, then try again.',
  'server-away': 'Try again later.',
  'not-logged-in': 'Log in again: qpc login.',
};

function refusal(error: RpcError): ClientError {
  const [kind, code, words] = BY_STATUS.get(error.status) ?? ['refused', 'refused', 'the server refused'];
  // The server's own words are more precise than ours, but they are somebody else's text.
  const said = error.local ? '' : displayText(error.message, { charsMax: 200 });
  const hint = displayText(error.hint, { charsMax: 200 });
  return new ClientError(kind, code, said === '' ? words : said, {
    hint: hint === '' ? (HINTS[code] ?? '') : hint,
    retryAfterMs: Math.min(error.retryAfterMs, RETRY_AFTER_MS_MAX),
    cause: error,
  });
}

/** The status of a refusal, for callers to whom one of them means something. */
export function statusOf(error: unknown): number | undefined {
  const cause = error instanceof ClientError ? error.cause : error;
  return cause instanceof RpcError && !cause.local ? cause.status : undefined;
}
