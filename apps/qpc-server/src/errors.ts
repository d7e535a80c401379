/** What the program ends with, and how failures of every kind become one line with a cause, a next step and a code. */
import path from 'node:path';
import { ControlError, OperatorRefusal, RestoreError, StartupError } from '@quicprochat/server';
import type { StartupErrorKind } from '@quicprochat/server';

/** DESIGN section 8. For `start`, 3 is an address that can't be listened on. */
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
} as const;
export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode];

/** An expected failure. `code` is stable and machine readable, `hint` says what to do next. */
export class CliError extends Error {
  override readonly name = 'CliError';
  readonly exitCode: ExitCode;
  readonly code: string;
  readonly hint: string;

  constructor(exitCode: ExitCode, code: string, message: string, hint: string) {
    super(message);
    this.exitCode = exitCode;
    this.code = code;
    this.hint = hint;
  }
}

export function usageError(message: string, hint: string): CliError {
  return new CliError(ExitCode.usage, 'config', message, hint);
}

/** Of what only a server that runs can do. */
export function notRunning(dataDir: string): CliError {
  return new CliError(
    ExitCode.unreachable,
    'not-running',
    `no server runs on ${path.resolve(dataDir)}`,
    'Start it with qpc-server, or name its data folder with --data-dir.',
  );
}

const OF_STARTUP: Readonly<Record<StartupErrorKind, ExitCode>> = {
  config: ExitCode.usage,
  listen: ExitCode.unreachable,
  data: ExitCode.localState,
};

const OF_REFUSAL: Readonly<Record<string, ExitCode>> = {
  'invalid-argument': ExitCode.usage,
  'disk-full': ExitCode.localState,
  corrupt: ExitCode.localState,
  io: ExitCode.localState,
  internal: ExitCode.bug,
};

/** Undefined for a fault of ours. */
export function toCliError(error: unknown): CliError | undefined {
  if (error instanceof CliError) return error;
  if (error instanceof StartupError) {
    return new CliError(OF_STARTUP[error.kind], error.kind, error.message, error.hint);
  }
  if (error instanceof OperatorRefusal) {
    const exitCode = OF_REFUSAL[error.code] ?? ExitCode.refused;
    return new CliError(exitCode, error.code, error.message, error.hint);
  }
  if (error instanceof ControlError) {
    return new CliError(
      ExitCode.unreachable,
      'connection-lost',
      error.message,
      'See whether it still runs, and its log.',
    );
  }
  if (error instanceof RestoreError) {
    const exitCode = error.kind === 'verification' ? ExitCode.unverified : ExitCode.localState;
    const code = { verification: 'bad-backup', place: 'data-dir-in-use', key: 'wrong-key' }[error.kind];
    return new CliError(exitCode, code, error.message, error.hint);
  }
  return undefined;
}
