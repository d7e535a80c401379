import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { parseHybridKey } from './hybrid-key.ts';
import { generateSigningKey } from './identity.ts';
import { parseRevocation, signRevocation, verifyRevocation } from './revocation.ts';
import type { Revocation, RevocationExpectation } from './revocation.ts';

const identity = generateSigningKey(crypto);
const device = generateSigningKey(crypto);
const origin = 'localhost:5001';
const address = { identityKey: identity.publicKey, deviceId: crypto.random(16) };
const byIdentity: Revocation = {
  origin,
  address,
  deviceKey: device.publicKey,
  signer: 'identity',
  revokedAtSecs: 1_800_000_000,
};
const expected: RevocationExpectation = {
  origin,
  identityKey: identity.publicKey,
  deviceId: address.deviceId,
  deviceKey: device.publicKey,
};

function verify(bytes: Uint8Array, expectation = expected): string {
  const parsed = parseRevocation(bytes);
  return parsed === undefined ? 'unreadable' : verifyRevocation(crypto, parsed, expectation).kind;
}

test('the identity key and the device key itself revoke', () => {
  for (const [signer, key] of [
    ['identity', identity],
    ['device', device],
  ] as const) {
    const revocation = { ...byIdentity, signer };
    const parsed = parseRevocation(signRevocation(crypto, key.privateKey, revocation))!;
    const outcome = verifyRevocation(crypto, parsed, expected);
    assert.ok(outcome.kind === 'verified');
    const { bytes: _, ...claims } = outcome.statement;
    assert.deepEqual(claims, revocation);
  }
});

test('without a certificate only the identity key is believed', () => {
  const unknown = { origin, identityKey: identity.publicKey };
  assert.equal(verify(signRevocation(crypto, identity.privateKey, byIdentity), unknown), 'verified');
  const own = signRevocation(crypto, device.privateKey, { ...byIdentity, signer: 'device' });
  assert.equal(verify(own, unknown), 'invalid');
});

test('changed bytes, another signer, server, account, device or key are refused', () => {
  const encoded = signRevocation(crypto, identity.privateKey, byIdentity);
  for (let at = 0; at < encoded.length; at++) {
    const tampered = encoded.slice();
    tampered[at]! ^= 0x01;
    assert.notEqual(verify(tampered), 'verified', `byte ${at}`);
  }
  assert.equal(verify(encoded.subarray(0, encoded.length - 1)), 'unreadable');
  assert.equal(verify(new Uint8Array([...encoded, 1])), 'unreadable');
  assert.equal(verify(signRevocation(crypto, device.privateKey, byIdentity)), 'invalid');
  assert.equal(verify(signRevocation(crypto, identity.privateKey, { ...byIdentity, signer: 'device' })), 'invalid');
  for (const other of [
    { origin: 'elsewhere' },
    { identityKey: crypto.random(32) },
    { deviceId: crypto.random(16) },
    { deviceKey: crypto.random(32) },
  ]) {
    assert.equal(verify(encoded, { ...expected, ...other }), 'invalid');
  }
});

test('THREATS 22: a revocation is never read as another statement', () => {
  assert.equal(parseHybridKey(signRevocation(crypto, identity.privateKey, byIdentity)), undefined);
});
