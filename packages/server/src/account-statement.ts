/**
 * Account statements as requests bring them (PROTOCOL 7): the next one of the account, signed by its identity key, and
 * saying exactly what the account is after the call. Everything is checked here against one snapshot of the account; that
 * nothing has changed since, the store checks in the transaction of the call.
 */
import {
  decodeLogEntry,
  HISTORY_START,
  nextHistory,
  parseAccountStatement,
  verifyAccountStatement,
} from '@quicprochat/core';
import { encodeHex, equal } from '@quicprochat/crypto';
import type { ServerContext } from './context.ts';
import { conflict, invalidArgument } from './refusals.ts';
import { REVOCATIONS_SHOWN } from './store/store.ts';
import type { StatedAccount, StatedEntry } from './store/store.ts';

/** What the account is after the call. */
export type AccountAfter =
  | { readonly kind: 'keys'; readonly certificates: readonly Uint8Array[]; readonly revocations: readonly Uint8Array[] }
  | { readonly kind: 'deleted' };

/** What an account is before its first statement. */
type AccountBefore = Pick<StatedAccount, 'stated' | 'revocationCount'> & {
  readonly account: { readonly username: string; readonly identityKey: Uint8Array };
};

/**
 * The entry to store with the change, or undefined when this very statement is the account's newest already: then the
 * call is a retry.
 * @throws RpcError `conflict` where the caller's view of the account is out of date, else `invalid argument`
 */
export async function checkStatement(
  server: ServerContext,
  bytes: Uint8Array,
  before: AccountBefore,
  after: AccountAfter,
): Promise<StatedEntry | undefined> {
  const { crypto } = server;
  const { account, stated, revocationCount } = before;
  if (bytes.length === 0) throw invalidArgument('the account statement is missing', 'Update this client.');
  const parsed = parseAccountStatement(bytes);
  if (parsed === undefined) throw invalidArgument('the account statement cannot be read');
  const isNewest = stated !== undefined && equal(stated.statement, bytes);
  if (!isNewest) {
    const version = stated === undefined ? 0 : stated.version + 1;
    const history =
      stated === undefined
        ? HISTORY_START
        : nextHistory(crypto, stated.history, decodeLogEntry(stated.entry)!.commitment);
    if (parsed.claims.version !== version || !equal(parsed.claims.history, history)) throw outOfDate();
  }
  const { username, identityKey } = account;
  const { version } = parsed.claims;
  const outcome = verifyAccountStatement(crypto, parsed, { origin: server.origin, username, identityKey, version });
  if (outcome.kind === 'invalid') throw invalidArgument(`the account statement is refused: ${outcome.reason}`);
  const { statement } = outcome;
  const saysSo =
    statement.kind === 'keys' && after.kind === 'keys'
      ? sameSet(statement.certificates, after.certificates) && sameSet(statement.revocations, after.revocations)
      : statement.kind === after.kind;
  if (!saysSo) {
    throw conflict(
      'the account statement does not say what the account is after this call',
      'Look the account up, then sign a new one.',
    );
  }
  if (isNewest) return undefined;
  if (stated !== undefined) server.rates.take('statements', encodeHex(identityKey));
  return server.keyTransparency.enter(statement, stated, revocationCount);
}

/** Another device was faster, or the account has changed since the statement was made. */
export function outOfDate(): Error {
  return conflict('the account has changed since this was signed', 'Look the account up, then sign anew.');
}

/** What a statement lists of an account's revocations, with one more if there is one. */
export function statementsOf({ revocations }: Pick<StatedAccount, 'revocations'>, added?: Uint8Array): Uint8Array[] {
  const listed = revocations.map(({ statement }) => statement);
  return (added === undefined ? listed : [...listed, added]).slice(-REVOCATIONS_SHOWN);
}

function sameSet(a: readonly Uint8Array[], b: readonly Uint8Array[]): boolean {
  const left = new Set(a.map(encodeHex));
  return a.length === b.length && left.size === b.length && b.every((each) => left.has(encodeHex(each)));
}
