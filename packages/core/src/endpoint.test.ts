import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { ENDPOINT_LIFETIME_SECS, endpointValidity, parseEndpoint, signEndpoint, verifyEndpoint } from './endpoint.ts';
import type { Endpoint } from './endpoint.ts';
import { generateSigningKey } from './identity.ts';
import { parseRevocation } from './revocation.ts';

const device = generateSigningKey(crypto);
const address = { identityKey: generateSigningKey(crypto).publicKey, deviceId: crypto.random(16) };
const origin = 'localhost:5001';
const NOW = 1_800_000_000;
const endpoint: Endpoint = {
  origin,
  address,
  endpoint: '192.0.2.7:4433',
  notBeforeSecs: NOW,
  notAfterSecs: NOW + ENDPOINT_LIFETIME_SECS,
};
const expected = { origin, address, deviceKey: device.publicKey };

function verify(bytes: Uint8Array): string {
  const parsed = parseEndpoint(bytes);
  return parsed === undefined ? 'unreadable' : verifyEndpoint(crypto, parsed, expected).kind;
}

test('an endpoint verifies under the key of its device, for its time', () => {
  const outcome = verifyEndpoint(crypto, parseEndpoint(signEndpoint(crypto, device.privateKey, endpoint))!, expected);
  assert.ok(outcome.kind === 'verified');
  assert.equal(outcome.statement.endpoint, '192.0.2.7:4433');
  assert.equal(endpointValidity(outcome.statement, NOW - 1).kind, 'not-yet-valid');
  assert.equal(endpointValidity(outcome.statement, NOW + ENDPOINT_LIFETIME_SECS).kind, 'current');
  assert.equal(endpointValidity(outcome.statement, NOW + ENDPOINT_LIFETIME_SECS + 1).kind, 'expired');
});

test('changed bytes, another key, server, device, an empty one and an eternal one are refused', () => {
  const encoded = signEndpoint(crypto, device.privateKey, endpoint);
  for (let at = 0; at < encoded.length; at++) {
    const tampered = encoded.slice();
    tampered[at]! ^= 0x01;
    assert.notEqual(verify(tampered), 'verified', `byte ${at}`);
  }
  const sign = (change: Partial<Endpoint>, key = device) =>
    signEndpoint(crypto, key.privateKey, { ...endpoint, ...change });
  assert.equal(verify(sign({}, generateSigningKey(crypto))), 'invalid');
  assert.equal(verify(sign({ origin: 'elsewhere' })), 'invalid');
  assert.equal(verify(sign({ address: { ...address, deviceId: crypto.random(16) } })), 'invalid');
  assert.equal(verify(sign({ address: { ...address, identityKey: crypto.random(32) } })), 'invalid');
  assert.equal(verify(sign({ endpoint: '' })), 'invalid');
  assert.equal(verify(sign({ notAfterSecs: NOW })), 'invalid');
  assert.equal(verify(sign({ notAfterSecs: NOW + 2 * ENDPOINT_LIFETIME_SECS })), 'invalid');
  assert.throws(() => sign({ endpoint: 'x'.repeat(256) }), { name: 'Misuse' });
});

test('THREATS 22: an endpoint is never read as another statement', () => {
  assert.equal(parseRevocation(signEndpoint(crypto, device.privateKey, endpoint)), undefined);
});
