/** What can be wrong with the state on this machine, by cause. `code` is what the SDK's `ClientError` shows. */
import { LocalState } from '@quicprochat/core';

export type LocalStateCode =
  | 'profile-in-use'
  | 'profile-missing'
  | 'wrong-state-password'
  | 'profile-damaged'
  | 'profile-newer'
  | 'profile-unwritable';

/** `message` names the cause, `hint` the next step, one line each; neither carries a secret. */
export class LocalStateError extends LocalState {
  readonly code: LocalStateCode;

  constructor(code: LocalStateCode, message: string, hint: string, options: { readonly cause?: unknown } = {}) {
    super(message, hint, options);
    this.code = code;
  }
}

export function damaged(message: string, cause?: unknown): LocalStateError {
  return new LocalStateError(
    'profile-damaged',
    message,
    'Move the profile folder away and start a new profile; keep the old folder, it may be possible to repair it.',
    cause === undefined ? {} : { cause },
  );
}
