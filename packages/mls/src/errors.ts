/**
 * How failures travel. Inside the library a broken rule is thrown as a `RuleViolation` from wherever it is noticed; each
 * public function turns it into a `Rejected` value (`refusable`), so no caller ever sees it.
 */
import type { CryptoProvider } from '@quicprochat/crypto';
import type { Rejected } from './types.ts';
import { type RuleName, validationRules } from './validation-rules.ts';

/** A function was called with arguments or a state it cannot work on. A bug of the caller. */
export class MlsUsageError extends Error {
  override readonly name = 'MlsUsageError';
}

/** Stored rows are missing or damaged. */
export class MlsStateError extends Error {
  override readonly name = 'MlsStateError';
}

export class RuleViolation extends Error {
  override readonly name = 'RuleViolation';
  readonly rule: RuleName;

  constructor(rule: RuleName, detail?: string) {
    super(detail === undefined ? validationRules[rule].text : `${validationRules[rule].text} (${detail})`);
    this.rule = rule;
  }
}

export function violated(rule: RuleName, detail?: string): never {
  throw new RuleViolation(rule, detail);
}

/** Refuses by `rule` unless `condition` holds. */
export function demand(condition: boolean, rule: RuleName, detail?: string): asserts condition {
  if (!condition) throw new RuleViolation(rule, detail);
}

export function refusable<T>(body: () => T): T | Rejected {
  try {
    return body();
  } catch (error) {
    if (!(error instanceof RuleViolation)) throw error;
    return {
      kind: 'rejected',
      rule: validationRules[error.rule].number,
      name: error.rule,
      reason: error.message,
    };
  }
}

/** What the application asked for must keep the rules; else it is misuse. @throws MlsUsageError */
export function usable(check: () => void): void {
  const outcome = refusable(check);
  if (outcome !== undefined) throw new MlsUsageError(outcome.reason);
}

/** Runs a step that derives secrets; when it is refused they are wiped, since no state holds them. */
export function wipedOnRefusal<T>(crypto: Pick<CryptoProvider, 'wipe'>, body: (derived: Uint8Array[]) => T): T {
  const derived: Uint8Array[] = [];
  try {
    return body(derived);
  } catch (error) {
    for (const secret of derived) crypto.wipe(secret);
    throw error;
  }
}
