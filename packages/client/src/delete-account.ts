/**
 * The end of an account (PROTOCOL section 7): the identity key signs the request and the log's last entry for it. What was
 * said stays readable in this profile; nothing more is sent or received, and the name is never given out again.
 */
import { create, toBinary } from '@bufbuild/protobuf';
import { signRequest } from '@quicprochat/core';
import { DeleteAccountBodySchema, Status } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import { failEntry } from './deliver-outbox.ts';
import type { Engine } from './engine.ts';
import { ClientError } from './errors.ts';
import { requireIdentityKey, signNextStatement } from './key-transparency/own-statements.ts';
import { statusOf } from './server-errors.ts';

/** Another device of the account may change it at the same moment. */
const ATTEMPTS_MAX = 3;

/** @throws ClientError `not-manager`, `lost-race` */
export async function deleteAccount(engine: Engine): Promise<void> {
  const method = methods.account.deleteAccount;
  const account = engine.self;
  const { username, origin } = account;
  const identityPrivateKey = requireIdentityKey(account);
  for (let attempt = 1; ; attempt++) {
    const accountStatement = await signNextStatement(engine, () => 'deleted');
    const body = toBinary(DeleteAccountBodySchema, create(DeleteAccountBodySchema, { username, accountStatement }));
    const timeMs = BigInt(engine.nowMs());
    const terms = { methodId: method.id, origin, timeMs, body };
    const signature = signRequest(engine.crypto, identityPrivateKey, terms);
    try {
      await engine.server.call(method, { signed: { body, timeMs, signature } });
      break;
    } catch (error) {
      if (statusOf(error) !== Status.CONFLICT) throw error;
      if (attempt >= ATTEMPTS_MAX) {
        throw new ClientError('refused', 'lost-race', 'another device keeps changing the account', {
          hint: 'Nothing was deleted. Try again.',
        });
      }
    }
  }
  engine.hasSession = false;
  engine.inboxHead = undefined;
  engine.change((change) => {
    const { store } = change;
    for (const channelId of store.outbox.channels()) {
      for (const entry of store.outbox.list(channelId)) failEntry(change, entry, 'the account was deleted');
    }
    store.account.clearSession();
    store.account.save({ ...account, state: 'deleted' });
    change.accountChanged = true;
  });
}
