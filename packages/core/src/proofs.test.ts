import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { generateSigningKey } from './identity.ts';
import {
  signLoginProof,
  signRegistration,
  signRequest,
  signResumeProof,
  verifyLoginProof,
  verifyRegistration,
  verifyRequest,
  verifyResumeProof,
} from './proofs.ts';

const { publicKey, privateKey } = generateSigningKey(crypto);
const stranger = generateSigningKey(crypto);
const flipped = (bytes: Uint8Array): Uint8Array => {
  const out = bytes.slice();
  out[out.length - 1]! ^= 1;
  return out;
};

test('registration: bound to server, name, record and certificate', () => {
  const terms = {
    origin: 'localhost:5001',
    username: 'alice',
    record: crypto.random(192),
    certificate: crypto.random(250),
  };
  const signature = signRegistration(crypto, privateKey, terms);
  const check = (change: Partial<typeof terms>, key = publicKey, by = signature) =>
    verifyRegistration(crypto, key, { ...terms, ...change }, by);
  assert.ok(check({}));
  assert.ok(!check({ origin: 'localhost:5002' }));
  assert.ok(!check({ username: 'alicf' }));
  assert.ok(!check({ record: flipped(terms.record) }));
  assert.ok(!check({ certificate: flipped(terms.certificate) }));
  assert.ok(!check({}, stranger.publicKey), 'THREATS 37: not for another identity key');
  assert.ok(!check({}, publicKey, flipped(signature)));
  assert.ok(!check({}, publicKey, signature.subarray(1)));
});

test('login and resume proofs: bound to server, nonce, device and token, and never one for the other', () => {
  const terms = {
    origin: 'localhost:5001',
    nonce: crypto.random(32),
    deviceId: crypto.random(16),
    token: crypto.random(32),
  };
  const login = signLoginProof(crypto, privateKey, terms);
  const resume = signResumeProof(crypto, privateKey, terms);
  assert.ok(verifyLoginProof(crypto, publicKey, terms, login));
  assert.ok(verifyResumeProof(crypto, publicKey, terms, resume));
  assert.ok(!verifyLoginProof(crypto, publicKey, terms, resume), 'THREATS 22');
  assert.ok(!verifyResumeProof(crypto, publicKey, terms, login), 'THREATS 22');
  for (const change of [
    { origin: 'localhost:5002' },
    { nonce: flipped(terms.nonce) },
    { deviceId: flipped(terms.deviceId) },
  ]) {
    assert.ok(!verifyLoginProof(crypto, publicKey, { ...terms, ...change }, login));
    assert.ok(!verifyResumeProof(crypto, publicKey, { ...terms, ...change }, resume));
  }
  assert.ok(!verifyResumeProof(crypto, publicKey, { ...terms, token: flipped(terms.token) }, resume));
  assert.ok(
    !verifyResumeProof(crypto, stranger.publicKey, terms, resume),
    'THREATS 13: the token alone resumes nothing',
  );
});

test('signed request: bound to method, server, time and body', () => {
  const terms = { methodId: 302, origin: 'localhost:5001', timeMs: 1_800_000_000_000n, body: crypto.random(100) };
  const signature = signRequest(crypto, privateKey, terms);
  assert.ok(verifyRequest(crypto, publicKey, terms, signature));
  for (const change of [
    { methodId: 700 },
    { origin: 'localhost:5002' },
    { timeMs: terms.timeMs + 1n },
    { body: flipped(terms.body) },
    { body: new Uint8Array(0) },
  ]) {
    assert.ok(!verifyRequest(crypto, publicKey, { ...terms, ...change }, signature), Object.keys(change).join());
  }
});
