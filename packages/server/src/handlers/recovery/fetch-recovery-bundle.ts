import type { MessageInitShape } from '@bufbuild/protobuf';
import type { FetchRecoveryBundleResponseSchema } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import { exactBytes, username } from '../../checks.ts';
import type { ServerContext } from '../../context.ts';
import { accountSession, audit, handler } from '../../handler.ts';
import type { Call, RouteMaker } from '../../handler.ts';
import { invalidArgument, notFound, rateLimited, unauthenticated } from '../../refusals.ts';
import { SlowDown } from '../../slow-down.ts';
import type { RecoveryBundle } from '../../store/store.ts';

const FETCH_TOKEN_BYTES = 32;
const HASH_BYTES = 32;

/** With a session, also one that is limited to this; or by name and phrase, on any connection. */
export const fetchRecoveryBundle: RouteMaker = (server) => {
  const slowDown = new SlowDown(server.clock);
  return handler(methods.recovery.fetchRecoveryBundle, async (call, request) => {
    if (request.username !== '') return answer(await byPhrase(call, slowDown, request.username, request.fetchToken));
    if (request.fetchToken.length > 0) throw invalidArgument('a fetch token goes with a username');
    const session = await accountSession(call);
    if (session === undefined) {
      throw unauthenticated('this connection has no session', 'Log in first, or give username and phrase.');
    }
    const bundle = await server.store.findRecovery(session.username);
    if (bundle === undefined) throw notFound('this account has no recovery bundle');
    const account = session.kind === 'device' ? session.address.identityKey : await accountOf(server, session.username);
    audit(call, { event: 'recovery_fetched', outcome: 'ok', account });
    return answer(bundle);
  })(server);
};

/** THREATS 20: an unknown name, one without a phrase and a wrong phrase are told apart by nothing. */
async function byPhrase(
  call: Call,
  slowDown: SlowDown,
  nameGiven: string,
  tokenGiven: Uint8Array,
): Promise<RecoveryBundle> {
  const { server, connection } = call;
  const name = username(nameGiven);
  const token = exactBytes(tokenGiven, FETCH_TOKEN_BYTES, 'a fetch token');
  const { network } = connection.state;
  server.rates.take('passwords', network);
  const key = `${name} ${network}`;
  const waitMs = slowDown.attempt(key);
  if (waitMs > 0) {
    server.observer.limited('recovery');
    audit(call, { event: 'recovery_fetched', outcome: 'refused', reason: 'too_many_attempts' });
    throw rateLimited('too many wrong attempts at this account from this network address', waitMs);
  }

  const { crypto, store } = server;
  const hash = crypto.hash('sha256', token);
  const expected = await store.findRecoveryTokenHash(name);
  // Nothing hashes to what was drawn just now.
  const isRight = crypto.equal(hash, expected ?? crypto.random(HASH_BYTES));
  const bundle = isRight ? await store.findRecovery(name) : undefined;
  if (bundle === undefined) {
    // Whose name it was is looked up for nobody: that would take longer than for no name at all.
    audit(call, { event: 'recovery_fetched', outcome: 'refused', reason: 'wrong_credentials' });
    throw unauthenticated('the username or the phrase is wrong', 'Check both, then try again.');
  }
  slowDown.succeeded(key);
  audit(call, { event: 'recovery_fetched', outcome: 'ok', account: await accountOf(server, name) });
  return bundle;
}

async function accountOf(server: ServerContext, name: string): Promise<Uint8Array | undefined> {
  return (await server.store.findOpaqueRecord(name))?.identityKey;
}

function answer({ sealedData, slots }: RecoveryBundle): MessageInitShape<typeof FetchRecoveryBundleResponseSchema> {
  return {
    sealedData,
    slots: slots.map(({ kind, sealedKey, fetchTokenHash }) => ({
      kind,
      sealedKey,
      fetchTokenHash: fetchTokenHash ?? new Uint8Array(0),
    })),
  };
}
