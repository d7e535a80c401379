/** Why a server does not start, for the person who started it: the cause and the next step, in words of the command line. */
export type StartupErrorKind =
  /** The configuration, or a file it names, cannot be used. */
  | 'config'
  /** The address cannot be listened on. */
  | 'listen'
  /** The data folder, the database or a secret in it is missing, locked, damaged or unreadable. */
  | 'data';

export class StartupError extends Error {
  override readonly name = 'StartupError';
  readonly kind: StartupErrorKind;
  readonly hint: string;

  constructor(kind: StartupErrorKind, message: string, hint: string, options: { readonly cause?: unknown } = {}) {
    super(message, options);
    this.kind = kind;
    this.hint = hint;
  }
}
