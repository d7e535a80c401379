// The end of an account: what goes, what stays, and who may ask for it.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { KeyPair } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { DeleteAccountBodySchema, Status } from '@quicprochat/proto';
import { methods, RpcError } from '@quicprochat/transport';
import { envelope, messageId, World } from '../../testing/world.node.ts';
import type { Person, TestConnection } from '../../testing/world.node.ts';

let world: World;
let bob: Person;
let b: TestConnection;

before(async () => {
  world = await World.start();
  bob = await world.register('bob');
  b = await world.login(bob);
});
after(() => world.close());

async function status(promise: Promise<unknown>): Promise<number> {
  const error = await promise.then(
    () => assert.fail('was not refused'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof RpcError, String(error));
  return error.status;
}

async function deleteAccount(connection: TestConnection, of: Person, key: KeyPair, username: string, timeMs?: number) {
  const { id } = methods.account.deleteAccount;
  const accountStatement = await world.statement(of, { deleted: true });
  const signed = world.sign(key, id, DeleteAccountBodySchema, { username, accountStatement }, timeMs);
  return connection.call(methods.account.deleteAccount, { signed });
}

test('everything of the account goes, its connections end, its name stays taken', async () => {
  const alice = await world.register('alice');
  const tablet = await world.addDevice(alice);
  const a = await world.login(alice);
  const elsewhere = await world.login(alice);
  const t = await world.subscribe(tablet);
  const { identityKey } = alice.address;
  await deleteAccount(a, alice, alice.identity, 'alice');
  await Promise.all([t.closed, elsewhere.closed]);
  assert.equal(await status(a.call(methods.device.listDevices, {})), Status.UNAUTHENTICATED);
  await assert.rejects(world.login(alice));

  assert.equal((await b.call(methods.user.resolveUser, { username: 'alice' })).outcome.case, 'unknown');
  assert.equal((await b.call(methods.user.resolveIdentity, { identityKey })).outcome.case, 'unknown');
  const sent = await b.call(methods.delivery.enqueue, {
    recipientKey: identityKey,
    payload: envelope(1),
    messageId: messageId(),
  });
  assert.deepEqual(
    sent.results.map((result) => result.outcome.case),
    ['unknown'],
  );
  const fetch = b.call(methods.keys.fetchKeyPackage, { identityKey, suite: 1 });
  assert.equal(await status(fetch), Status.NOT_FOUND);
  await assert.rejects(world.register('alice'), /username_taken/);
});

test('only the identity key may ask for it, for its own account, and lately', async () => {
  const carol = await world.register('carol');
  const c = await world.login(carol);
  assert.equal(await status(deleteAccount(c, carol, carol.device, 'carol')), Status.UNAUTHENTICATED);
  assert.equal(await status(deleteAccount(c, carol, bob.identity, 'carol')), Status.UNAUTHENTICATED);
  assert.equal(await status(deleteAccount(c, carol, carol.identity, 'bob')), Status.INVALID_ARGUMENT);
  const longAgo = world.clock.wallMs() - 6 * 60_000;
  assert.equal(await status(deleteAccount(c, carol, carol.identity, 'carol', longAgo)), Status.INVALID_ARGUMENT);
  const signed = { body: crypto.random(9), timeMs: 0n, signature: crypto.random(64) };
  assert.equal(await status(c.call(methods.account.deleteAccount, { signed })), Status.UNAUTHENTICATED);
  assert.equal((await b.call(methods.user.resolveUser, { username: 'carol' })).outcome.case, 'found');
});
