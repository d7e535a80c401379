/**
 * The errors a person sees: one line that names the cause, one that names the next step, and an exit code
 * (DESIGN section 8). Commands throw `CliError`; what the SDK throws is translated in `sdk-errors.ts`.
 */

/** What the process ends with. Documented in docs/cli.md; scripts rely on them. */
export const ExitCode = {
  done: 0,
  bug: 1,
  usage: 2,
  unreachable: 3,
  refused: 4,
  unverified: 5,
  localState: 6,
  timeout: 124,
  interrupted: 130,
  terminated: 143,
} as const;
export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode];

/** An expected failure. `code` is stable and machine readable, `hint` says what to do next. */
export class CliError extends Error {
  readonly exitCode: ExitCode;
  readonly code: string;
  readonly hint: string;

  constructor(exitCode: ExitCode, code: string, message: string, hint: string) {
    super(message);
    this.name = 'CliError';
    this.exitCode = exitCode;
    this.code = code;
    this.hint = hint;
  }
}

/** What was typed cannot be understood. */
export function usageError(message: string, hint: string, code = 'usage'): CliError {
  return new CliError(ExitCode.usage, code, message, hint);
}

/** Something about the profile on this machine. */
export function localStateError(code: string, message: string, hint: string): CliError {
  return new CliError(ExitCode.localState, code, message, hint);
}

/** The next step when a message is queued and the server does not have it yet: sending it again would send it twice. */
export const KEPT_HINT = 'the message is kept and goes out with the next command that connects';

/** Why a command's signal was aborted before it was done. */
export function interruptedError(): CliError {
  return new CliError(ExitCode.interrupted, 'interrupted', 'interrupted', 'nothing was lost; run the command again');
}

export function terminatedError(): CliError {
  return new CliError(ExitCode.terminated, 'terminated', 'terminated', 'nothing was lost; run the command again');
}

export function timeoutError(timeoutMs: number): CliError {
  return new CliError(
    ExitCode.timeout,
    'timeout',
    `not done after ${timeoutMs / 1000} s`,
    'run the command again, or give it longer with --timeout',
  );
}

/** A Node system error's code (ENOENT, EACCES, …), if that is what this is. */
export function systemCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}
