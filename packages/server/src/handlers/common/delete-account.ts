import { DeleteAccountBodySchema } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import { checkStatement, outOfDate } from '../../account-statement.ts';
import { audit, deviceHandler } from '../../handler.ts';
import { conflict, deviceGone, invalidArgument } from '../../refusals.ts';
import { endSession, expelDevice } from '../../sessions.ts';
import { verifySignedRequest } from '../../signed-request.ts';

const method = methods.account.deleteAccount;

/** Everything of the account goes; all its connections end but the caller's, which hears the answer without a session. */
export const deleteAccount = deviceHandler(method, async (call, request) => {
  const { server, connection, session, writes } = call;
  const { identityKey } = session.address;
  const verified = verifySignedRequest(server, method.id, DeleteAccountBodySchema, request.signed, identityKey);
  const { body, replay } = verified;
  if (body.username !== session.username) throw invalidArgument('the request names another account');
  const before = await server.store.findStatedAccount({ identityKey });
  if (before === undefined) throw deviceGone();
  const stated = await checkStatement(server, body.accountStatement, before, { kind: 'deleted' });
  const nowMs = server.clock.wallMs();
  const outcome = await server.store.deleteAccount({ identityKey, stated, nowMs, replay }, writes);
  switch (outcome.kind) {
    case 'deleted':
      server.keyTransparency.accepted();
      for (const address of outcome.devices) expelDevice(server, address, connection);
      endSession(server, connection);
      audit(call, { event: 'account_deleted', outcome: 'ok', account: identityKey });
      return {};
    case 'replayed':
      throw conflict('this signed request was used before', 'Sign a new one.');
    case 'stale_statement':
      throw outOfDate();
    case 'unknown_account':
      throw deviceGone();
  }
});
