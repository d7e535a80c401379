// What the operator does takes effect on the live server at once, and answers with no secret.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { encodeHex } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { Status } from '@quicprochat/proto';
import { methods, RpcError } from '@quicprochat/transport';
import { World } from '../testing/world.node.ts';
import type { Person } from '../testing/world.node.ts';
import { operationHandlers } from './operations.ts';

let world: World;
let alice: Person;
let handlers: ReturnType<typeof operationHandlers>;
const admin = crypto.random(32);
before(async () => {
  world = await World.start({ admins: [encodeHex(admin)] });
  alice = await world.register('alice');
  handlers = operationHandlers(world.server.operations);
});
after(() => world.close());

const key = (person: Person): string => encodeHex(person.address.identityKey);
const ask = (name: string, input: object): Promise<unknown> => handlers.get(name)!(input);
const refusedWith = (status: number) => (error: unknown) => error instanceof RpcError && error.status === status;

test('a ban by name ends live connections, shows in the lists, and is lifted by key', async () => {
  const connection = await world.login(alice);
  const request = { account: 'Alice', reason: 'sells umbrellas', durationSecs: 3_600 };
  const banned = (await ask('ban', request)) as { connectionsEnded: number; untilMs: number };
  assert.equal(banned.connectionsEnded, 1);
  await connection.closed;
  await assert.rejects(world.login(alice), refusedWith(Status.FORBIDDEN));
  assert.deepEqual(await ask('bans', { after: '' }), [
    { identityKey: key(alice), username: 'alice', reason: 'sells umbrellas', untilMs: banned.untilMs },
  ]);
  assert.deepEqual(await ask('bans', { after: key(alice) }), []);
  const lifted = { username: 'alice', identityKey: key(alice) };
  assert.deepEqual(await ask('unban', { account: key(alice) }), { ...lifted, lifted: true });
  assert.deepEqual(await ask('unban', { account: 'alice' }), { ...lifted, lifted: false });
  await world.login(alice);
});

test('an account is shown with its devices and without a secret', async () => {
  const bob = await world.register('bob');
  const phone = await world.addDevice(bob);
  await world.login(phone);
  const shown = await ask('account', { account: 'bob' });
  assert.deepEqual(
    (shown as { devices: { deviceId: string; connections: number }[] }).devices.map((each) => [
      each.deviceId,
      each.connections,
    ]),
    [
      [encodeHex(bob.address.deviceId), 0],
      [encodeHex(phone.address.deviceId), 1],
    ],
  );
  const fields = new Set(JSON.stringify(shown).match(/"\w+"(?=:)/g));
  assert.deepEqual(
    [...fields].sort(),
    [
      'connections',
      'createdAtMs',
      'deviceId',
      'deviceKey',
      'devices',
      'identityKey',
      'lastSeenDayMs',
      'name',
      'registeredAtMs',
      'username',
    ].map((name) => `"${name}"`),
  );
  const listed = (await ask('accounts', { after: 'alice' })) as { username: string; devices: number }[];
  assert.deepEqual(
    listed.map(({ username, devices }) => [username, devices]),
    [['bob', 2]],
  );
});

test('sessions end for one device or for all, and tokens with them', async () => {
  const carol = await world.register('carol');
  const phone = await world.addDevice(carol);
  const [one, two] = [await world.login(carol), await world.login(phone)];
  const only = { account: 'carol', deviceId: encodeHex(phone.address.deviceId) };
  const ended = (await ask('endSessions', only)) as { sessionsEnded: number; connectionsEnded: number };
  assert.deepEqual([ended.sessionsEnded, ended.connectionsEnded], [1, 1]);
  await two.closed;
  await one.call(methods.device.listDevices, {});
  await ask('endSessions', { account: 'carol' });
  await one.closed;
  await assert.rejects(ask('endSessions', { ...only, deviceId: '00'.repeat(16) }), refusedWith(Status.NOT_FOUND));
});

test('reports are listed by page and removed by number', async () => {
  const connection = await world.login(alice);
  for (let i = 0; i < 3; i++) {
    await connection.call(methods.moderation.reportMessage, {
      encryptedReport: crypto.random(200),
      conversationId: crypto.random(16),
    });
  }
  const list = async (afterId: number) => ((await ask('reports', { afterId })) as { id: number }[]).map(({ id }) => id);
  assert.deepEqual(await list(0), [1, 2, 3]);
  assert.deepEqual(await list(2), [3]);
  assert.deepEqual(await ask('deleteReports', { ids: [1, 3, 99] }), { deleted: 2 });
  assert.deepEqual(await list(0), [2]);
});

test('what is malformed, unknown or not allowed is refused', async () => {
  const cases: [string, object, number][] = [
    ['ban', { account: 'nobody', reason: '', durationSecs: 0 }, Status.NOT_FOUND],
    ['ban', { account: 'ff'.repeat(32), reason: '', durationSecs: 0 }, Status.NOT_FOUND],
    ['ban', { account: 'alice', reason: 'a\u001b[2J', durationSecs: 0 }, Status.INVALID_ARGUMENT],
    ['ban', { account: 'alice', reason: 'é'.repeat(300), durationSecs: 0 }, Status.INVALID_ARGUMENT],
    ['ban', { account: 'alice', reason: '', durationSecs: 1e12 }, Status.INVALID_ARGUMENT],
    ['ban', { account: 'alice', reason: '', durationSecs: -1 }, Status.INVALID_ARGUMENT],
    ['ban', { account: 'alice' }, Status.INVALID_ARGUMENT],
    ['ban', { account: 'x'.repeat(4_097), reason: '', durationSecs: 0 }, Status.INVALID_ARGUMENT],
    ['unban', { account: 'alice', more: 1 }, Status.INVALID_ARGUMENT],
    ['bans', { after: 'zz' }, Status.INVALID_ARGUMENT],
    ['reports', { afterId: 'x' }, Status.INVALID_ARGUMENT],
    ['deleteReports', { ids: [] }, Status.INVALID_ARGUMENT],
    ['deleteReports', { ids: [1.5] }, Status.INVALID_ARGUMENT],
  ];
  for (const [name, input, status] of cases) {
    await assert.rejects(ask(name, input), refusedWith(status), `${name} ${JSON.stringify(input)}`);
  }
});

test('an administrator of the configuration is not banned by mistake', async () => {
  const identity = { publicKey: admin, privateKey: admin };
  const root = world.newDevice({ username: 'root', identity: { ...alice.identity, ...identity } }, true);
  await world.store.createAccount({
    username: 'root',
    identityKey: admin,
    opaqueRecord: crypto.random(192),
    registrationSignature: crypto.random(64),
    firstDevice: {
      deviceId: root.address.deviceId,
      deviceKey: root.device.publicKey,
      certificate: root.certificate,
      name: '',
    },
    nowMs: world.clock.wallMs(),
  });
  const request = { account: 'root', reason: '', durationSecs: 0 };
  await assert.rejects(ask('ban', request), refusedWith(Status.FORBIDDEN));
});
