// What can go wrong, by meaning. `kind` decides the exit code of the command line (DESIGN section 8), `code` names the
// cause for programs, `message` and `hint` are one line each for people: the cause and the next step. None of them
// carries a secret; text that came from a server has lost its control characters.

import { isQpcError } from '@quicprochat/core';
import { MlsStateError } from '@quicprochat/mls';
import { LocalStateError } from './store/local-state-error.ts';

/**
 * `usage`: the request makes no sense as given (exit 2). `cannot-connect`: no connection to the server (3). `refused`:
 * the server said no (4). `verification-failed`: somebody's keys, the server's or a member's, do not check out (5).
 * `local-state`: this profile is locked, damaged, or not in the state the call needs (6). `timeout`: it took too long;
 * what was queued stays queued (124). `bug`: our fault (1).
 */
export type ClientErrorKind =
  | 'usage'
  | 'cannot-connect'
  | 'refused'
  | 'verification-failed'
  | 'local-state'
  | 'timeout'
  | 'bug';

export type ClientErrorCode =
  // usage
  | 'invalid-username'
  | 'invalid-argument'
  | 'text-too-long'
  | 'not-a-group'
  | 'not-yourself'
  | 'unknown-conversation'
  | 'ambiguous-conversation'
  | 'not-a-member'
  | 'already-a-member'
  // cannot connect
  | 'server-away'
  | 'connection-lost'
  | 'untrusted-certificate'
  | 'wrong-server-name'
  | 'bad-trust-anchor'
  | 'bad-address'
  // refused
  | 'wrong-credentials'
  | 'name-taken'
  | 'device-unknown'
  | 'session-refused'
  | 'unknown-user'
  | 'no-key-package'
  | 'devices-not-ready'
  | 'inbox-full'
  | 'recipient-gone'
  | 'rate-limited'
  | 'too-large'
  | 'not-admin'
  | 'lost-race'
  | 'log-went-back'
  | 'no-log'
  | 'no-report-key'
  | 'refused'
  // verification failed
  | 'server-changed'
  | 'identity-changed'
  | 'bad-certificate'
  | 'bad-hybrid-key'
  | 'bad-key-package'
  | 'bad-receipt'
  | 'bad-log'
  | 'no-log-proof'
  | 'bad-log-proof'
  | 'log-finding'
  | 'commit-refused'
  | 'sending-paused'
  // local state
  | 'profile-in-use'
  | 'profile-damaged'
  | 'profile-newer'
  | 'profile-missing'
  | 'wrong-state-password'
  | 'profile-unwritable'
  | 'not-registered'
  | 'not-manager'
  | 'account-deleted'
  | 'other-account'
  | 'not-logged-in'
  | 'not-active'
  | 'awaiting-welcome'
  | 'closed'
  // timeout, bug
  | 'timeout'
  | 'bug';

export class ClientError extends Error {
  override readonly name = 'ClientError';
  readonly kind: ClientErrorKind;
  readonly code: ClientErrorCode;
  /** What to do next; empty when there is nothing to add. */
  readonly hint: string;
  /** For `rate-limited`: milliseconds after which a repeat makes sense; 0 when unknown. */
  readonly retryAfterMs: number;

  constructor(
    kind: ClientErrorKind,
    code: ClientErrorCode,
    message: string,
    options: { hint?: string; retryAfterMs?: number; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.kind = kind;
    this.code = code;
    this.hint = options.hint ?? '';
    this.retryAfterMs = options.retryAfterMs ?? 0;
  }
}

/** Any failure as the `ClientError` it is to be shown as. */
export function toClientError(error: unknown): ClientError {
  if (error instanceof ClientError) return error;
  if (error instanceof LocalStateError) {
    return new ClientError('local-state', error.code, error.message, { hint: error.hint, cause: error });
  }
  if (error instanceof MlsStateError) {
    return new ClientError('local-state', 'profile-damaged', 'the state of a conversation is damaged in this profile', {
      hint: 'Keep a copy of the profile; its other conversations and all history stay readable.',
      cause: error,
    });
  }
  if (isQpcError(error)) return new ClientError('bug', 'bug', error.message, { hint: error.hint, cause: error });
  return new ClientError('bug', 'bug', 'an unexpected fault in the client', { cause: error });
}
