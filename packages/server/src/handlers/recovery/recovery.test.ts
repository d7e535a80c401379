// Recovery bundles: who may fetch them, what guessing costs, and how a password changes.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import {
  opaqueLoginFinish,
  opaqueLoginStart,
  opaqueRegisterFinish,
  opaqueRegisterStart,
  signLoginProof,
} from '@quicprochat/core';
import { encodeHex } from '@quicprochat/crypto';
import type { KeyPair } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import {
  DeleteRecoveryBundleBodySchema,
  RegisterDeviceBodySchema,
  Status,
  StoreRecoveryBundleBodySchema,
} from '@quicprochat/proto';
import { methods, RpcError } from '@quicprochat/transport';
import { ORIGIN, World } from '../../testing/world.node.ts';
import type { Person, TestConnection } from '../../testing/world.node.ts';

const { auth, recovery } = methods;
interface Body {
  readonly sealedData: Uint8Array;
  readonly slots: { kind: string; sealedKey: Uint8Array; fetchTokenHash?: Uint8Array }[];
  readonly registrationRecord?: Uint8Array;
}

let world: World;
let alice: Person;
let a: TestConnection;

before(async () => {
  world = await World.start();
  alice = await world.register('alice');
  a = await world.login(alice);
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

const phraseToken = crypto.random(32);
const body = (): Body => ({
  sealedData: crypto.random(2_000),
  slots: [
    { kind: 'password', sealedKey: crypto.random(92) },
    { kind: 'phrase', sealedKey: crypto.random(92), fetchTokenHash: crypto.hash('sha256', phraseToken) },
  ],
});

function store(connection: TestConnection, key: KeyPair, content: Body) {
  const signed = world.sign(key, recovery.storeRecoveryBundle.id, StoreRecoveryBundleBodySchema, content);
  return connection.call(recovery.storeRecoveryBundle, { signed });
}

const byPhrase = (username: string, fetchToken: Uint8Array = phraseToken, connection = world.connect()) =>
  connection.call(recovery.fetchRecoveryBundle, { username, fetchToken });

test('stored by the identity key; fetched with a session, or by name and phrase; deleted', async () => {
  assert.equal((await refusal(a.call(recovery.fetchRecoveryBundle, {}))).status, Status.NOT_FOUND);
  const content = body();
  await store(a, alice.identity, content);
  const own = await a.call(recovery.fetchRecoveryBundle, {});
  const fetched = await byPhrase('alice');
  for (const bundle of [own, fetched]) {
    assert.equal(encodeHex(bundle.sealedData), encodeHex(content.sealedData));
    assert.deepEqual(
      bundle.slots.map((slot) => [slot.kind, slot.sealedKey.length, slot.fetchTokenHash.length]),
      [
        ['password', 92, 0],
        ['phrase', 92, 32],
      ],
    );
  }
  const nobody = await refusal(world.connect().call(recovery.fetchRecoveryBundle, {}));
  assert.equal(nobody.status, Status.UNAUTHENTICATED);

  assert.equal((await refusal(store(a, alice.device, body()))).status, Status.UNAUTHENTICATED);
  const { id } = recovery.deleteRecoveryBundle;
  const signed = world.sign(alice.identity, id, DeleteRecoveryBundleBodySchema, {});
  await a.call(recovery.deleteRecoveryBundle, { signed });
  await a.call(recovery.deleteRecoveryBundle, { signed });
  assert.equal((await refusal(byPhrase('alice'))).status, Status.UNAUTHENTICATED);
  await store(a, alice.identity, content);
  const replayed = await refusal(a.call(recovery.deleteRecoveryBundle, { signed }));
  assert.equal(replayed.status, Status.CONFLICT, 'an old deletion does not delete the new one');
});

test('THREATS 20: an unknown name, one without a phrase and a wrong phrase are answered and slowed alike', async () => {
  await world.register('nophrase');
  const guessed = await world.register('guessed');
  await store(await world.login(guessed), guessed.identity, body());
  const guess = async (name: string) => {
    const heard: string[] = [];
    for (let i = 0; i < 5; i++) {
      const error = await refusal(byPhrase(name, crypto.random(32)));
      heard.push(`${error.status} ${error.message} ${error.hint}`);
    }
    return heard;
  };
  const [known, unknown, without] = [await guess('guessed'), await guess('nobody'), await guess('nophrase')];
  assert.deepEqual(known, unknown);
  assert.deepEqual(known, without);
  assert.match(known[0] ?? '', new RegExp(`^${Status.UNAUTHENTICATED} `));
  assert.match(known[4] ?? '', new RegExp(`^${Status.RATE_LIMITED} .* Try again in 1 seconds`));
  // Slowed, not locked out: right is right as soon as the wait is over, and then all is forgotten.
  assert.equal((await refusal(byPhrase('guessed'))).status, Status.RATE_LIMITED);
  world.clock.advance(1_001);
  await byPhrase('guessed');
  await byPhrase('guessed');
});

test('attempts at once are counted before any is answered', async () => {
  await world.register('parallel');
  const guesses = Array.from({ length: 20 }, () => refusal(byPhrase('parallel', crypto.random(32))));
  const statuses = (await Promise.all(guesses)).map((error) => error.status);
  assert.equal(statuses.filter((status) => status === Status.UNAUTHENTICATED).length, 3);
});

test('bundles, slots and records are checked', async () => {
  const good = body();
  const hash = crypto.random(32);
  const cases: Body[] = [
    { ...good, sealedData: new Uint8Array(0) },
    { ...good, sealedData: crypto.random(200_001) },
    { ...good, slots: [] },
    { ...good, slots: [good.slots[0]!, good.slots[0]!] },
    { ...good, slots: [...good.slots, good.slots[0]!] },
    { ...good, slots: [{ kind: 'pin', sealedKey: crypto.random(9) }] },
    { ...good, slots: [{ kind: 'password', sealedKey: crypto.random(9), fetchTokenHash: hash }] },
    { ...good, slots: [{ kind: 'phrase', sealedKey: crypto.random(9) }] },
    { ...good, slots: [{ kind: 'password', sealedKey: crypto.random(1_025) }] },
    { ...good, registrationRecord: crypto.random(191) },
  ];
  for (const [i, content] of cases.entries()) {
    assert.equal((await refusal(store(a, alice.identity, content))).status, Status.INVALID_ARGUMENT, `case ${i}`);
  }
  const session = world.connect();
  assert.equal((await refusal(byPhrase('Not A Name', phraseToken, session))).status, Status.INVALID_ARGUMENT);
  assert.equal((await refusal(byPhrase('alice', crypto.random(31), session))).status, Status.INVALID_ARGUMENT);
  const tokenAlone = session.call(recovery.fetchRecoveryBundle, { fetchToken: phraseToken });
  assert.equal((await refusal(tokenAlone)).status, Status.INVALID_ARGUMENT);
});

/** The client's half of OPAQUE, for a name that has an account. */
async function newRecord(username: string, password: string): Promise<Uint8Array> {
  const { state, request } = opaqueRegisterStart(password);
  const { registrationResponse } = await world.connect().call(auth.opaqueRegisterStart, {
    username,
    registrationRequest: request,
  });
  const finished = opaqueRegisterFinish(state, { username, origin: ORIGIN }, registrationResponse);
  assert.ok(finished.kind === 'registered');
  return finished.record;
}

async function startLogin(connection: TestConnection, username: string, password: string) {
  const { state, ke1 } = opaqueLoginStart(password);
  const answer = await connection.call(auth.opaqueLoginStart, { username, ke1 });
  return { ...answer, finished: opaqueLoginFinish(state, { username, origin: ORIGIN }, answer.ke2) };
}

async function finishLogin(connection: TestConnection, of: Person, login: Awaited<ReturnType<typeof startLogin>>) {
  assert.ok(login.finished.kind === 'proven');
  const { deviceId } = of.address;
  const proof = { origin: ORIGIN, nonce: login.nonce, deviceId };
  const deviceSignature = signLoginProof(crypto, of.device.privateKey, proof);
  const { loginId } = login;
  return connection.call(auth.opaqueLoginFinish, { loginId, ke3: login.finished.ke3, deviceId, deviceSignature });
}

const login = async (connection: TestConnection, of: Person, password: string) =>
  (await finishLogin(connection, of, await startLogin(connection, of.username, password))).outcome.case;

test('a change of password: the new one logs in, the old one does not, all other sessions end', async () => {
  const bob = await world.register('bob');
  const tablet = await world.addDevice(bob);
  const [b, t] = [await world.login(bob), await world.login(tablet)];
  await store(b, bob.identity, { ...body(), registrationRecord: await newRecord('bob', 'first') });
  await t.closed;
  await b.call(methods.device.listDevices, {});
  // Begun with the old password, finished after the change: too late.
  const late = world.connect();
  const begun = await startLogin(late, 'bob', 'first');
  await store(b, bob.identity, { ...body(), registrationRecord: await newRecord('bob', 'second') });
  assert.equal((await refusal(finishLogin(late, bob, begun))).status, Status.UNAUTHENTICATED);
  assert.equal((await startLogin(late, 'bob', 'first')).finished.kind, 'wrong-password');
  const fresh = world.connect();
  assert.equal(await login(fresh, bob, 'second'), 'session');
  assert.equal((await fresh.call(recovery.fetchRecoveryBundle, {})).slots.length, 2);
});

/** StoreRecoveryBundle without a session. */
function storeByKey(key: KeyPair, identityKey: Uint8Array, content: Body, connection = world.connect()) {
  const signed = world.sign(key, recovery.storeRecoveryBundle.id, StoreRecoveryBundleBodySchema, content);
  return connection.call(recovery.storeRecoveryBundle, { signed, identityKey });
}

function registerDevice(connection: TestConnection, key: KeyPair, certificate: Uint8Array, statement: Uint8Array) {
  const { id } = methods.device.registerDevice;
  const content = { deviceCertificate: certificate, name: 'new phone', accountStatement: statement };
  const signed = world.sign(key, id, RegisterDeviceBodySchema, content);
  return connection.call(methods.device.registerDevice, { signed });
}

test('everything lost but the phrase: a new password, a new device, by the identity key alone', async () => {
  const carol = await world.register('carol');
  const c = await world.login(carol);
  await store(c, carol.identity, body());
  await byPhrase('carol');
  // The bundle opened with the phrase; it holds the identity key.
  const content = { ...body(), registrationRecord: await newRecord('carol', 'fresh') };
  await storeByKey(carol.identity, carol.address.identityKey, content);
  await c.closed;

  const phone = world.newDevice(carol, true);
  const connection = world.connect();
  assert.equal(await login(connection, phone, 'fresh'), 'deviceUnknown');
  assert.equal((await connection.call(recovery.fetchRecoveryBundle, {})).slots.length, 2);
  const own = await connection.call(methods.user.resolveUser, { username: 'carol' });
  assert.ok(own.outcome.case === 'found' && own.outcome.value.keyTransparency !== undefined);
  const statement = await world.statement(carol, { add: phone.certificate });
  await registerDevice(connection, carol.identity, phone.certificate, statement);
  assert.equal(await login(connection, phone, 'fresh'), 'session');
  assert.equal((await connection.call(methods.device.listDevices, {})).devices.length, 2);
});

test('THREATS 13, 37: the password alone adds no device, changes no password and looks up nobody else', async () => {
  const dave = await world.register('dave');
  const d = await world.login(dave);
  await store(d, dave.identity, { ...body(), registrationRecord: await newRecord('dave', 'guessed') });
  const mallory = await world.register('mallory');
  const device = world.newDevice({ username: 'dave', identity: mallory.identity }, true);
  const thief = world.connect();
  assert.equal(await login(thief, device, 'guessed'), 'deviceUnknown');

  const byStranger = await world.statement(
    { username: 'dave', identity: mallory.identity },
    { add: device.certificate },
  );
  const withOwnKey = registerDevice(thief, mallory.identity, device.certificate, byStranger);
  assert.equal((await refusal(withOwnKey)).status, Status.UNAUTHENTICATED);
  const withDeviceKey = registerDevice(thief, device.device, device.certificate, byStranger);
  assert.equal((await refusal(withDeviceKey)).status, Status.UNAUTHENTICATED);
  // Her own device, for her own account, in the session of his.
  const own = world.newDevice(mallory);
  const ownStatement = await world.statement(mallory, { add: own.certificate });
  const elsewhere = registerDevice(thief, mallory.identity, own.certificate, ownStatement);
  assert.equal((await refusal(elsewhere)).status, Status.UNAUTHENTICATED);

  const { user } = methods;
  assert.equal((await refusal(thief.call(user.resolveUser, { username: 'alice' }))).status, Status.FORBIDDEN);
  const { identityKey } = dave.address;
  assert.equal((await refusal(thief.call(user.resolveIdentity, { identityKey }))).status, Status.FORBIDDEN);
  assert.equal((await refusal(thief.call(methods.device.listDevices, {}))).status, Status.FORBIDDEN);
  const taken = { ...body(), registrationRecord: await newRecord('dave', 'mine') };
  const byThief = storeByKey(mallory.identity, identityKey, taken, thief);
  assert.equal((await refusal(byThief)).status, Status.UNAUTHENTICATED);
  const unnamed = storeByKey(mallory.identity, new Uint8Array(0), taken, thief);
  assert.equal((await refusal(unnamed)).status, Status.INVALID_ARGUMENT);
  assert.equal(await login(world.connect(), dave, 'guessed'), 'session', 'it still is his password');
});

test('a session that the old password has opened, and nothing else, ends with that password', async () => {
  const grace = await world.register('grace');
  const g = await world.login(grace);
  await store(g, grace.identity, { ...body(), registrationRecord: await newRecord('grace', 'old') });
  const thief = world.connect();
  assert.equal(await login(thief, world.newDevice(grace), 'old'), 'deviceUnknown');
  await thief.call(recovery.fetchRecoveryBundle, {});
  await store(g, grace.identity, { ...body(), registrationRecord: await newRecord('grace', 'new') });
  const fetched = thief.call(recovery.fetchRecoveryBundle, {});
  assert.match((await refusal(fetched)).message, /password has changed/);
  const looked = thief.call(methods.user.resolveUser, { username: 'grace' });
  assert.equal((await refusal(looked)).status, Status.UNAUTHENTICATED);
});

test('StoreRecoveryBundle without a session: the account’s own identity key, once, and not often', async () => {
  const erin = await world.register('erin');
  const { identityKey } = erin.address;
  const content = body();
  const { id } = recovery.storeRecoveryBundle;
  const signed = world.sign(erin.identity, id, StoreRecoveryBundleBodySchema, content);
  await world.connect().call(recovery.storeRecoveryBundle, { signed, identityKey });
  await world.connect().call(recovery.storeRecoveryBundle, { signed, identityKey });
  await storeByKey(erin.identity, identityKey, body());
  const replayed = world.connect().call(recovery.storeRecoveryBundle, { signed, identityKey });
  assert.equal((await refusal(replayed)).status, Status.CONFLICT, 'the older one does not come back');
  assert.equal((await refusal(storeByKey(erin.device, identityKey, body()))).status, Status.UNAUTHENTICATED);
  const nobody = world.newPerson('nobody');
  const unknown = storeByKey(nobody.identity, nobody.address.identityKey, body());
  assert.equal((await refusal(unknown)).status, Status.UNAUTHENTICATED);
  const e = await world.login(erin);
  const twice = storeByKey(erin.identity, identityKey, body(), e);
  assert.equal((await refusal(twice)).status, Status.INVALID_ARGUMENT, 'a session says who it is');

  const strict = await World.start({ rates: { passwords: { burst: 2, perHour: 3_600 } } });
  try {
    const frank = await strict.register('frank');
    const put = () => {
      const request = strict.sign(frank.identity, id, StoreRecoveryBundleBodySchema, body());
      const named = frank.address.identityKey;
      return strict.connect().call(recovery.storeRecoveryBundle, { signed: request, identityKey: named });
    };
    await put();
    await put();
    assert.equal((await refusal(put())).status, Status.RATE_LIMITED);
  } finally {
    await strict.close();
  }
});
