/**
 * From what was thrown to what is shown. The SDK's `ClientError` has a kind that decides the exit code; anything that is
 * neither it nor ours is a bug, and says so without showing internals to scripts.
 */
import type { ClientErrorKind } from '@quicprochat/client/node';
import { CliError, ExitCode } from './errors.ts';

const EXIT_CODES: Readonly<Record<ClientErrorKind, ExitCode>> = {
  usage: ExitCode.usage,
  'cannot-connect': ExitCode.unreachable,
  refused: ExitCode.refused,
  'verification-failed': ExitCode.unverified,
  'local-state': ExitCode.localState,
  timeout: ExitCode.timeout,
  bug: ExitCode.bug,
};

/** Next steps that only the command line can name: flags, and what it does with what was queued. */
const OUR_HINTS: Readonly<Record<string, string>> = {
  'server-away': 'check that qpc-server runs there, or name another with --server; what was queued is kept',
  'untrusted-certificate':
    "give its issuer's, or one that the server made (qpc-server prints its path when it starts), with --ca-cert FILE",
  'wrong-server-name': "give the name in the server's certificate with --server-name NAME",
  'profile-in-use': 'close the other qpc that uses this profile, or choose another with --profile NAME',
  'profile-missing': 'make an account with "qpc register-user NAME", or choose a profile with --profile or --state',
  'other-account': 'choose another profile with --profile NAME',
};

/** For errors that come without one. */
const DEFAULT_HINTS: Readonly<Record<string, string>> = {
  'wrong-credentials': 'check name and password and try again; the server does not say which of them is wrong',
  'name-taken': 'choose another name, or log in with "qpc login" if the account is yours',
  'device-unknown': 'use the profile the account was made with (--profile or --state)',
  'not-logged-in': 'log in again with "qpc login"',
  'unknown-conversation': 'see "qpc join" for your conversations, or start one with "qpc dm USER"',
  'not-admin': 'ask an administrator of the group',
  'inbox-full': 'the other person has to fetch messages first; try again later',
};

export function toCliError(error: unknown): CliError {
  if (error instanceof CliError) return error;
  if (isClientError(error)) {
    const hint =
      OUR_HINTS[error.code] ?? (error.hint || DEFAULT_HINTS[error.code] || 'run "qpc help" to see what is possible');
    return new CliError(EXIT_CODES[error.kind], error.code, error.message, hint);
  }
  const message = error instanceof Error ? error.message : String(error);
  return new CliError(
    ExitCode.bug,
    'bug',
    `this is a fault in qpc: ${message}`,
    'run it again with QPC_DEBUG=1 and report what it prints',
  );
}

interface ClientErrorShape extends Error {
  readonly kind: ClientErrorKind;
  readonly code: string;
  readonly hint: string;
}

// By shape: importing the class would load the SDK for every usage error.
function isClientError(error: unknown): error is ClientErrorShape {
  return (
    error instanceof Error &&
    error.name === 'ClientError' &&
    'kind' in error &&
    typeof error.kind === 'string' &&
    Object.hasOwn(EXIT_CODES, error.kind) &&
    'code' in error &&
    typeof error.code === 'string' &&
    'hint' in error &&
    typeof error.hint === 'string'
  );
}
