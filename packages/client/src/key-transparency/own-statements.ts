/**
 * Statements of our own account for the log (PROTOCOL section 7): what this account's keys are from a change on, signed by
 * the identity key. Each continues all before it, so none is signed on top of something that was not checked:
 *
 *   resolve ourselves ─▶ version n verified, vouched for, the newest ─▶ sign n + 1 ─▶ RegisterDevice, DeleteAccount, …
 *
 * The statement's hash is on disk before it leaves, so that its entry is known as ours when it comes back in the log.
 */
import { EMPTY } from '@quicprochat/crypto';
import { type AccountStatement, HISTORY_START, nextHistory, signAccountStatement } from '@quicprochat/core';
import { resolveSelf } from '../contacts.ts';
import type { Engine } from '../engine.ts';
import { ClientError } from '../errors.ts';
import type { StoredAccount } from '../store/index.ts';

/** What a statement says of an account that is not deleted. */
export interface AccountKeys {
  /** Certificates of all devices. */
  readonly certificates: readonly Uint8Array[];
  /** Signed revocations of former devices, all that the server shows. */
  readonly revocations: readonly Uint8Array[];
}

/** Version 0, for registration: the account with its first device. The same bytes each time. */
export function signFirstStatement(engine: Engine, account: StoredAccount): Uint8Array {
  const { origin, username, identityKey, certificate } = account;
  return sign(engine, account, {
    kind: 'keys',
    origin,
    username,
    identityKey,
    version: 0,
    history: HISTORY_START,
    certificates: [certificate],
    revocations: [],
  });
}

/**
 * The next statement of this account; empty where the server keeps no log, or when nothing changes.
 * @param next what the account is after the change, from what it is now
 * @throws ClientError `not-manager`; what stands in the way of verifying the newest one
 */
export async function signNextStatement(
  engine: Engine,
  next: (now: AccountKeys) => AccountKeys | 'deleted' | 'unchanged',
): Promise<Uint8Array> {
  const account = engine.self;
  requireIdentityKey(account);
  const { logged, keys } = await resolveSelf(engine);
  const after = next(keys);
  if (logged === undefined || after === 'unchanged') return EMPTY;
  await engine.transparency.noteOwn(logged);
  const { origin, username, identityKey } = account;
  const head = {
    origin,
    username,
    identityKey,
    version: logged.version + 1,
    history: nextHistory(engine.crypto, logged.statement.history, logged.entry.commitment),
  };
  return sign(engine, account, after === 'deleted' ? { ...head, kind: after } : { ...head, kind: 'keys', ...after });
}

/** @throws ClientError `not-manager` on a device that does not hold the account's identity key */
export function requireIdentityKey({ identityPrivateKey }: StoredAccount): Uint8Array {
  if (identityPrivateKey !== undefined) return identityPrivateKey;
  throw new ClientError('local-state', 'not-manager', 'this device does not manage the account', {
    hint: 'Do this on the device the account was made with.',
  });
}

function sign(engine: Engine, account: StoredAccount, statement: AccountStatement): Uint8Array {
  const signed = signAccountStatement(engine.crypto, requireIdentityKey(account), statement);
  const statementHash = engine.crypto.hash('sha256', signed);
  engine.change((change) => {
    change.store.log.saveOwnEntry({ version: statement.version, statementHash, seen: undefined });
  });
  return signed;
}
