// OPAQUE: the wrapper's outcomes, and RFC 9807's vectors as far as the library lets them run. It draws all its own
// randomness (blinds, nonces, key shares), stretches with Argon2id instead of the vectors' Identity, and has a fixed
// context string; so records, MACs and session keys of the vectors cannot come out. What is deterministic is checked:
// the server's public key, the whole RegistrationResponse, and the evaluated element of KE2, for real and made-up records.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { before, describe, test } from 'node:test';
import { concat, decodeHex } from '@quicprochat/crypto';
import {
  isOpaqueRecord,
  opaqueCreateSetup,
  opaqueLoginFinish,
  opaqueLoginStart,
  opaqueReady,
  opaqueRegisterFinish,
  opaqueRegisterStart,
  opaqueRegistrationResponse,
  opaqueServerLoginFinish,
  opaqueServerLoginStart,
  opaqueServerPublicKey,
} from './opaque.ts';
import type { OpaqueRegisterOutcome } from './opaque.ts';

const parties = { username: 'alice', origin: 'localhost:5001' };
const PASSWORD = 'correct horse battery staple';

await opaqueReady;
const setup = opaqueCreateSetup();
const pinned = opaqueServerPublicKey(setup)!;

describe('with one account', () => {
  let registered: OpaqueRegisterOutcome & { kind: 'registered' };

  before(() => {
    const { state, request } = opaqueRegisterStart(PASSWORD);
    const response = opaqueRegistrationResponse(setup, parties.username, request)!;
    const outcome = opaqueRegisterFinish(state, parties, response, pinned);
    assert.ok(outcome.kind === 'registered');
    registered = outcome;
  });

  test('registration gives a record, an export key and the server key', () => {
    assert.equal(registered.record.length, 192);
    assert.equal(registered.exportKey.length, 64);
    assert.deepEqual(registered.serverPublicKey, pinned);
    assert.ok(isOpaqueRecord(setup, parties.username, registered.record));
  });

  test('login with the right password proves it on both sides', () => {
    const { state, ke1 } = opaqueLoginStart(PASSWORD);
    const server = opaqueServerLoginStart(setup, parties, registered.record, ke1);
    assert.ok(server.kind === 'started');
    const client = opaqueLoginFinish(state, parties, server.ke2, pinned);
    assert.ok(client.kind === 'proven');
    assert.deepEqual(client.exportKey, registered.exportKey);
    const proven = opaqueServerLoginFinish(server.state, parties, client.ke3);
    assert.ok(proven.kind === 'proven');
    assert.deepEqual(proven.sessionKey, client.sessionKey);
    // A KE3 that is not the one for this state is refused.
    const tampered = client.ke3.slice();
    tampered[0]! ^= 1;
    assert.equal(opaqueServerLoginFinish(server.state, parties, tampered).kind, 'refused');
    assert.equal(opaqueServerLoginFinish(server.state, parties, client.ke3.subarray(1)).kind, 'refused');
  });

  test('another server key than the pinned one ends the login', () => {
    const { state, ke1 } = opaqueLoginStart(PASSWORD);
    const server = opaqueServerLoginStart(setup, parties, registered.record, ke1);
    assert.ok(server.kind === 'started');
    const outcome = opaqueLoginFinish(state, parties, server.ke2, new Uint8Array(32));
    assert.deepEqual(outcome, { kind: 'server-key-changed', serverPublicKey: pinned });
  });

  test('THREATS 20: wrong password and unknown account end alike', () => {
    const outcomes = [registered.record, undefined].map((record) => {
      const { state, ke1 } = opaqueLoginStart('not the password');
      const server = opaqueServerLoginStart(setup, parties, record, ke1);
      assert.ok(server.kind === 'started');
      assert.equal(server.ke2.length, 320);
      return opaqueLoginFinish(state, parties, server.ke2);
    });
    assert.deepEqual(outcomes, [{ kind: 'wrong-password' }, { kind: 'wrong-password' }]);
  });

  test('a record serves one name on one server', () => {
    const { state, ke1 } = opaqueLoginStart(PASSWORD);
    const elsewhere = { ...parties, origin: 'localhost:5002' };
    const server = opaqueServerLoginStart(setup, elsewhere, registered.record, ke1);
    assert.ok(server.kind === 'started');
    assert.equal(opaqueLoginFinish(state, elsewhere, server.ke2).kind, 'wrong-password');
  });
});

test('passwords that differ only in Unicode form are one password', () => {
  // e + combining acute, and the composed letter.
  assert.equal(opaqueRegisterStart('cafe\u0301').state.password, opaqueRegisterStart('caf\u00e9').state.password);
});

test('malformed messages are outcomes, not exceptions', () => {
  const { state, request } = opaqueRegisterStart(PASSWORD);
  assert.equal(opaqueRegistrationResponse(setup, 'alice', new Uint8Array(32)), undefined, 'the identity element');
  assert.equal(opaqueRegistrationResponse(setup, 'alice', request.subarray(1)), undefined);
  assert.equal(opaqueRegisterFinish(state, parties, new Uint8Array(64)).kind, 'bad-response');
  assert.equal(opaqueRegisterFinish(state, parties, new Uint8Array(63)).kind, 'bad-response');
  assert.equal(opaqueRegisterFinish(state, parties, new Uint8Array(64), pinned).kind, 'server-key-changed');
  assert.equal(opaqueServerLoginStart(setup, parties, undefined, new Uint8Array(96)).kind, 'malformed');
  assert.equal(opaqueServerLoginStart(setup, parties, undefined, new Uint8Array(0)).kind, 'malformed');
  const login = opaqueLoginStart(PASSWORD);
  assert.equal(opaqueLoginFinish(login.state, parties, new Uint8Array(320)).kind, 'bad-response');
  assert.equal(opaqueLoginFinish(login.state, parties, new Uint8Array(3)).kind, 'bad-response');
  assert.equal(opaqueServerPublicKey(new Uint8Array(5)), undefined);
  assert.ok(!isOpaqueRecord(setup, 'alice', new Uint8Array(192).fill(0xff)));
});

interface Vector {
  config: { Group: string; Fake: string };
  inputs: Record<string, string>;
  outputs: Record<string, string>;
}

describe('RFC 9807 appendix C, ristretto255', () => {
  const file = new URL('../../../tests/vectors/opaque/rfc9807.json', import.meta.url);
  const vectors = (JSON.parse(readFileSync(file, 'utf8')) as Vector[]).filter((v) => v.config.Group === 'ristretto255');

  for (const [index, { config, inputs, outputs }] of vectors.entries()) {
    const hex = (text: string | undefined): Uint8Array => decodeHex(text ?? '')!;
    const vectorSetup = concat(hex(inputs['oprf_seed']), hex(inputs['server_private_key']), setup.subarray(96));
    const username = new TextDecoder().decode(hex(inputs['credential_identifier']));

    test(`vector ${index} (${config.Fake === 'True' ? 'made-up' : 'real'} record)`, () => {
      assert.deepEqual(opaqueServerPublicKey(vectorSetup), hex(inputs['server_public_key']));
      if (outputs['registration_response'] !== undefined) {
        assert.deepEqual(
          opaqueRegistrationResponse(vectorSetup, username, hex(outputs['registration_request'])),
          hex(outputs['registration_response']),
        );
      }
      const record = config.Fake === 'True' ? undefined : hex(outputs['registration_upload']);
      const ke1 = hex(inputs['KE1'] ?? outputs['KE1']);
      const started = opaqueServerLoginStart(vectorSetup, { username, origin: '' }, record, ke1);
      assert.ok(started.kind === 'started');
      const evaluated = hex(outputs['KE2']).subarray(0, 32);
      assert.deepEqual(started.ke2.subarray(0, 32), evaluated);
    });
  }

  test('there are such vectors', () => assert.equal(vectors.length, 3));
});

test('used before it is loaded, it says so', async () => {
  // A second instance of the module, which nobody has awaited.
  const fresh = (await import(new URL('opaque.ts?fresh', import.meta.url).href)) as typeof import('./opaque.ts');
  assert.throws(() => fresh.opaqueLoginStart('x'), /opaqueReady/);
  assert.throws(() => fresh.opaqueRegistrationResponse(setup, 'alice', new Uint8Array(32)), /opaqueReady/);
  await fresh.opaqueReady;
  assert.equal(fresh.opaqueLoginStart('x').ke1.length, 96);
});
