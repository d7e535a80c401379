/**
 * How a handler says no: an RpcError with a status, the cause, and the next step where there is one. No message carries
 * user data or says more about others than the method may.
 */
import { Status } from '@quicprochat/proto';
import { RpcError } from '@quicprochat/transport';
import type { Ban } from './store/store.ts';

export function invalidArgument(message: string, hint = ''): RpcError {
  return new RpcError(Status.INVALID_ARGUMENT, message, { hint });
}

export function unauthenticated(message: string, hint = ''): RpcError {
  return new RpcError(Status.UNAUTHENTICATED, message, { hint });
}

export function forbidden(message: string, hint = ''): RpcError {
  return new RpcError(Status.FORBIDDEN, message, { hint });
}

export function notFound(message: string, hint = ''): RpcError {
  return new RpcError(Status.NOT_FOUND, message, { hint });
}

export function alreadyExists(message: string, hint = ''): RpcError {
  return new RpcError(Status.ALREADY_EXISTS, message, { hint });
}

export function conflict(message: string, hint = ''): RpcError {
  return new RpcError(Status.CONFLICT, message, { hint });
}

export function exhausted(message: string, hint = ''): RpcError {
  return new RpcError(Status.EXHAUSTED, message, { hint });
}

export function tooLarge(message: string, hint = ''): RpcError {
  return new RpcError(Status.TOO_LARGE, message, { hint });
}

export function rateLimited(message: string, retryAfterMs: number): RpcError {
  const seconds = Math.max(1, Math.ceil(retryAfterMs / 1000));
  const when = seconds < 120 ? `${seconds} seconds` : `${Math.ceil(seconds / 60)} minutes`;
  return new RpcError(Status.RATE_LIMITED, message, {
    hint: `Try again in ${when}.`,
    retryAfterMs: Math.ceil(retryAfterMs),
  });
}

export function unavailable(message: string, retryAfterMs: number): RpcError {
  return new RpcError(Status.UNAVAILABLE, message, { hint: 'Try again.', retryAfterMs });
}

/** With the operator's own words; only the banned person hears them, after having proven who that is. */
export function banned({ reason, untilMs }: Ban): RpcError {
  const why = reason === '' ? 'this account is banned' : `this account is banned: ${reason}`;
  const until = untilMs === undefined ? 'for good' : `until ${new Date(untilMs).toISOString()}`;
  return forbidden(why, `The ban holds ${until}.`);
}

/** What was begun with the old password ends with it. */
export function passwordChanged(): RpcError {
  return unauthenticated('the password has changed meanwhile', 'Log in with the new one.');
}

/** The device of a session is gone: the client has to log in again. */
export function deviceGone(): RpcError {
  return unauthenticated('this device is no longer registered', 'Log in again.');
}

/** One answer for a channel that does not exist and one the caller is not in, so that neither can be probed. */
export function noSuchChannel(): RpcError {
  return notFound('there is no such channel, or this device is not on its roster');
}
