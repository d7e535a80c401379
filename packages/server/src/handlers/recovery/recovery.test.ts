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
import { DeleteRecoveryBundleBodySchema, Status, StoreRecoveryBundleBodySchema } from '@quicprochat/proto';
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

test('a change of password: the new one logs in, the old one does not, all other sessions end', async () => {
  const bob = await world.register('bob');
  const tablet = await world.addDevice(bob);
  const [b, t] = [await world.login(bob), await world.login(tablet)];
  const parties = { username: 'bob', origin: ORIGIN };
  const start = async (connection: TestConnection, password: string) => {
    const { state, ke1 } = opaqueLoginStart(password);
    const answer = await connection.call(auth.opaqueLoginStart, { username: 'bob', ke1 });
    return { ...answer, finished: opaqueLoginFinish(state, parties, answer.ke2) };
  };
  const newRecord = async (password: string) => {
    const { state, request } = opaqueRegisterStart(password);
    const { registrationResponse } = await b.call(auth.opaqueRegisterStart, {
      username: 'bob',
      registrationRequest: request,
    });
    const finished = opaqueRegisterFinish(state, parties, registrationResponse);
    assert.ok(finished.kind === 'registered');
    return finished.record;
  };
  const finish = async (connection: TestConnection, login: Awaited<ReturnType<typeof start>>) => {
    assert.ok(login.finished.kind === 'proven');
    const { deviceId } = bob.address;
    const proof = { origin: ORIGIN, nonce: login.nonce, deviceId };
    const deviceSignature = signLoginProof(crypto, bob.device.privateKey, proof);
    const { loginId } = login;
    return connection.call(auth.opaqueLoginFinish, { loginId, ke3: login.finished.ke3, deviceId, deviceSignature });
  };

  await store(b, bob.identity, { ...body(), registrationRecord: await newRecord('first') });
  await t.closed;
  await b.call(methods.device.listDevices, {});
  // Begun with the old password, finished after the change: too late.
  const late = world.connect();
  const begun = await start(late, 'first');
  await store(b, bob.identity, { ...body(), registrationRecord: await newRecord('second') });
  assert.equal((await refusal(finish(late, begun))).status, Status.UNAUTHENTICATED);
  assert.equal((await start(late, 'first')).finished.kind, 'wrong-password');
  const fresh = world.connect();
  assert.equal((await finish(fresh, await start(fresh, 'second'))).outcome.case, 'session');
  assert.equal((await fresh.call(recovery.fetchRecoveryBundle, {})).slots.length, 2);
});
