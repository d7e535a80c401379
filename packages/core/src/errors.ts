/**
 * Failures by meaning (DESIGN 7). Expected outcomes of an operation are unions with a `kind`; these are for the rest.
 * `message` names the cause, `hint` the next step; both may be shown to the user and carry no secret and no user data
 * beyond what the user just typed.
 */
abstract class QpcError extends Error {
  /** What to do next, one sentence; empty when nothing can be done. */
  readonly hint: string;

  constructor(message: string, hint = '', options: { readonly cause?: unknown } = {}) {
    super(message, options);
    this.hint = hint;
  }
}

/** What was given cannot be used: malformed, out of range, unknown. */
export class BadInput extends QpcError {
  override readonly name = 'BadInput';
}

/** A call made in the wrong state or order: a mistake of the calling code. */
export class Misuse extends QpcError {
  override readonly name = 'Misuse';
}

/** A signature, hash, key or proof is not what it has to be. Nothing was accepted. */
export class VerificationFailed extends QpcError {
  override readonly name = 'VerificationFailed';
}

/** Somebody was faster, or the name, key or id belongs to something else. */
export class Conflict extends QpcError {
  override readonly name = 'Conflict';
}

/** The peer understood and said no: not permitted, not found, too often, used up. */
export class Refused extends QpcError {
  override readonly name = 'Refused';
}

/** Not possible now, for reasons of network or load; the same may work later. */
export class Unavailable extends QpcError {
  override readonly name = 'Unavailable';
}

/** State on this machine is locked, damaged or cannot be opened with what was given. */
export class LocalState extends QpcError {
  override readonly name = 'LocalState';
}

/** A fault of our own. */
export class Internal extends QpcError {
  override readonly name = 'Internal';
}

export type { QpcError };

/** Whether this is one of the classes above. */
export function isQpcError(error: unknown): error is QpcError {
  return error instanceof QpcError;
}
