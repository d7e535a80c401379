// Bans and reports: who may, what happens at once, and what the banned person hears.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { generateSigningKey } from '@quicprochat/core';
import { encodeHex } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { Status } from '@quicprochat/proto';
import { methods, RpcError } from '@quicprochat/transport';
import { resume, World } from '../../testing/world.node.ts';
import type { Person, TestConnection } from '../../testing/world.node.ts';

const { moderation } = methods;

let world: World;
let admin: Person;
let bob: Person;
let operator: TestConnection;
let b: TestConnection;

before(async () => {
  const identity = generateSigningKey(crypto);
  world = await World.start({
    admins: [encodeHex(identity.publicKey)],
    limits: { reports: 4 },
    rates: { reports: { burst: 5, perHour: 5 } },
  });
  admin = await world.registerAs('admin', identity);
  bob = await world.register('bob');
  operator = await world.login(admin);
  b = await world.login(bob);
});
after(() => world.close());

async function refusal(promise: Promise<unknown>): Promise<RpcError> {
  const error = await promise.then(
    () => assert.fail('was not refused'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof RpcError, String(error));
  return error;
}

async function token(of: Person): Promise<Uint8Array> {
  const secret = crypto.random(32);
  const nowMs = world.clock.wallMs();
  const tokenHash = crypto.hash('sha256', secret);
  await world.store.putSession({ tokenHash, address: of.address, expiresAtMs: nowMs + 86_400_000, nowMs });
  return secret;
}

test('a ban ends live connections at once and says why at the next attempt, until it ends or is lifted', async () => {
  const alice = await world.register('alice');
  const tablet = await world.addDevice(alice);
  const [a, t] = [await world.subscribe(alice), await world.login(tablet)];
  const secret = await token(alice);
  const { identityKey } = alice.address;
  await operator.call(moderation.banUser, { identityKey, reason: 'sold umbrellas', durationSecs: 3_600n });
  await Promise.all([a.closed, t.closed]);

  const heard = await refusal(resume(world.connect(), alice, secret));
  assert.equal(heard.status, Status.FORBIDDEN);
  assert.match(heard.message, /banned: sold umbrellas/);
  assert.match(heard.hint, /until \d{4}-\d\d-\d\dT/);
  const stranger = await refusal(resume(world.connect(), { ...alice, device: generateSigningKey(crypto) }, secret));
  assert.equal(stranger.status, Status.UNAUTHENTICATED, 'a stolen token learns nothing of the ban');

  const { bans } = await operator.call(moderation.listBanned, {});
  assert.deepEqual(
    bans.map((ban) => [encodeHex(ban.identityKey), ban.reason, ban.untilMs > BigInt(world.clock.wallMs())]),
    [[encodeHex(identityKey), 'sold umbrellas', true]],
  );
  await operator.call(moderation.unbanUser, { identityKey });
  await operator.call(moderation.unbanUser, { identityKey });
  await resume(world.connect(), alice, secret);

  await operator.call(moderation.banUser, { identityKey, reason: '', durationSecs: 60n });
  assert.equal((await refusal(resume(world.connect(), alice, secret))).message, 'this account is banned');
  world.clock.advance(60_001);
  await resume(world.connect(), alice, secret);
  assert.equal((await operator.call(moderation.listBanned, {})).bans.length, 0);

  await operator.call(moderation.banUser, { identityKey, reason: '' });
  assert.match((await refusal(resume(world.connect(), alice, secret))).hint, /for good/);
  const page = { afterIdentityKey: identityKey, limit: 1 };
  assert.equal((await operator.call(moderation.listBanned, page)).bans.length, 0);
  assert.equal((await operator.call(moderation.listBanned, {})).bans[0]?.untilMs, 0n);
});

test('a session that begins while the ban is made does not outlive it', async () => {
  const carol = await world.register('carol');
  const { identityKey } = carol.address;
  const secrets = await Promise.all(Array.from({ length: 4 }, () => token(carol)));
  const connections = secrets.map(() => world.connect());
  const attempts = Promise.allSettled(connections.map((connection, i) => resume(connection, carol, secrets[i]!)));
  await operator.call(moderation.banUser, { identityKey, reason: 'x' });
  await attempts;
  for (const connection of connections) {
    await assert.rejects(connection.call(methods.device.listDevices, {}));
  }
});

test('nobody but the configured identities may moderate, and those can’t be banned', async () => {
  const { identityKey } = bob.address;
  for (const attempt of [
    () => b.call(moderation.banUser, { identityKey }),
    () => b.call(moderation.unbanUser, { identityKey }),
    () => b.call(moderation.listReports, {}),
    () => b.call(moderation.listBanned, {}),
    () => operator.call(moderation.banUser, { identityKey: admin.address.identityKey }),
  ]) {
    assert.equal((await refusal(attempt())).status, Status.FORBIDDEN);
  }
  const cases: [object, number][] = [
    [{ identityKey: crypto.random(32) }, Status.NOT_FOUND],
    [{ identityKey, reason: 'é'.repeat(257) }, Status.INVALID_ARGUMENT],
    [{ identityKey, reason: 'a\u001b[2J' }, Status.INVALID_ARGUMENT],
    [{ identityKey, durationSecs: 2n ** 60n }, Status.INVALID_ARGUMENT],
    [{ identityKey, durationSecs: 10_000_000_000n }, Status.INVALID_ARGUMENT],
  ];
  for (const [request, status] of cases) {
    assert.equal((await refusal(operator.call(moderation.banUser, request))).status, status);
  }
  await b.call(methods.device.listDevices, {});
});

test('reports come to the operator as they were sealed, by page, limited per account and in all', async () => {
  const report = (encryptedReport = crypto.random(200), conversationId = crypto.random(16)) =>
    b.call(moderation.reportMessage, { encryptedReport, conversationId });
  const [sealed, large] = [crypto.random(300), crypto.random(128_000)];
  await report(sealed);
  await report(large);
  assert.equal((await refusal(report(new Uint8Array(0)))).status, Status.INVALID_ARGUMENT);
  assert.equal((await refusal(report(sealed, crypto.random(15)))).status, Status.INVALID_ARGUMENT);
  const { reports } = await operator.call(moderation.listReports, {});
  assert.deepEqual(
    reports.map((each) => [each.id, encodeHex(each.encryptedReport), each.conversationId.length]),
    [
      [1n, encodeHex(sealed), 16],
      [2n, encodeHex(large), 16],
    ],
  );
  const next = await operator.call(moderation.listReports, { afterId: 1n, limit: 1 });
  assert.deepEqual(
    next.reports.map((each) => each.id),
    [2n],
  );
  await report();
  await report();
  assert.equal((await refusal(report())).status, Status.EXHAUSTED);
  assert.equal((await refusal(report())).status, Status.RATE_LIMITED);
});
