import { DeleteRecoveryBundleBodySchema } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import { audit, deviceHandler } from '../../handler.ts';
import { conflict } from '../../refusals.ts';
import { verifySignedRequest } from '../../signed-request.ts';

const method = methods.recovery.deleteRecoveryBundle;

export const deleteRecoveryBundle = deviceHandler(method, async (call, request) => {
  const { server, session, writes } = call;
  const { identityKey } = session.address;
  const schema = DeleteRecoveryBundleBodySchema;
  const { replay } = verifySignedRequest(server, method.id, schema, request.signed, identityKey);
  const outcome = await server.store.deleteRecovery({ identityKey, replay }, writes);
  if (outcome.kind === 'deleted') {
    audit(call, { event: 'recovery_deleted', outcome: 'ok', account: identityKey });
    return {};
  }
  // A retry of what took effect is answered like the first time; anything else is a replay.
  if ((await server.store.findRecovery(session.username)) === undefined) return {};
  throw conflict('this signed request was used before', 'Sign a new one.');
});
