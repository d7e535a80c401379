import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { parseDeviceCertificate, signDeviceCertificate, verifyDeviceCertificate } from './device-certificate.ts';
import {
  HYBRID_KEY_LIFETIME_SECS,
  hybridKeyValidity,
  parseHybridKey,
  signHybridKey,
  verifyHybridKey,
} from './hybrid-key.ts';
import type { HybridKey } from './hybrid-key.ts';
import { generateSigningKey } from './identity.ts';

const identity = generateSigningKey(crypto);
const device = generateSigningKey(crypto);
const deviceId = crypto.random(16);
const origin = 'localhost:5001';
const NOW = 1_800_000_000;

const certificateOutcome = verifyDeviceCertificate(
  crypto,
  parseDeviceCertificate(
    signDeviceCertificate(crypto, identity.privateKey, {
      origin,
      username: 'alice',
      identityKey: identity.publicKey,
      deviceId,
      deviceKey: device.publicKey,
      manager: true,
      serial: 1n,
      notBeforeSecs: NOW,
      notAfterSecs: NOW + 86_400,
    }),
  )!,
  { origin, identityKey: identity.publicKey },
);
assert.ok(certificateOutcome.kind === 'verified');
const certificate = certificateOutcome.statement;

const key: HybridKey = {
  origin,
  address: { identityKey: identity.publicKey, deviceId },
  publicKey: crypto.random(1216),
  serial: 3n,
  notBeforeSecs: NOW,
  notAfterSecs: NOW + HYBRID_KEY_LIFETIME_SECS,
};

function verify(bytes: Uint8Array): string {
  const parsed = parseHybridKey(bytes);
  return parsed === undefined ? 'unreadable' : verifyHybridKey(crypto, parsed, certificate).kind;
}

test('a hybrid key verifies under the certificate of its device', () => {
  const parsed = parseHybridKey(signHybridKey(crypto, device.privateKey, key))!;
  const outcome = verifyHybridKey(crypto, parsed, certificate);
  assert.ok(outcome.kind === 'verified');
  assert.deepEqual(outcome.statement.publicKey, key.publicKey);
  assert.equal(outcome.statement.serial, 3n);
  assert.equal(hybridKeyValidity(outcome.statement, NOW).kind, 'current');
  assert.equal(hybridKeyValidity(outcome.statement, NOW + HYBRID_KEY_LIFETIME_SECS + 1).kind, 'expired');
});

test('changed bytes are refused', () => {
  const encoded = signHybridKey(crypto, device.privateKey, key);
  // Every field and both ends; a key of 1,216 bytes needs no test of each one.
  for (const at of [0, 20, 25, 40, 60, 100, 700, 1300, encoded.length - 90, encoded.length - 65, encoded.length - 1]) {
    const tampered = encoded.slice();
    tampered[at]! ^= 0x80;
    assert.notEqual(verify(tampered), 'verified', `byte ${at}`);
  }
  assert.equal(verify(encoded.subarray(0, encoded.length - 1)), 'unreadable');
  assert.equal(verify(new Uint8Array([...encoded, 1])), 'unreadable');
});

test('THREATS 1: a key the server made up for this device is refused', () => {
  assert.equal(verify(signHybridKey(crypto, generateSigningKey(crypto).privateKey, key)), 'invalid');
  assert.equal(verify(signHybridKey(crypto, identity.privateKey, key)), 'invalid');
});

test('a key for another server, account, device or eternity is refused', () => {
  const sign = (change: Partial<HybridKey>) => signHybridKey(crypto, device.privateKey, { ...key, ...change });
  assert.equal(verify(sign({ origin: 'elsewhere' })), 'invalid');
  assert.equal(verify(sign({ address: { identityKey: crypto.random(32), deviceId } })), 'invalid');
  assert.equal(verify(sign({ address: { ...key.address, deviceId: crypto.random(16) } })), 'invalid');
  assert.equal(verify(sign({ notAfterSecs: NOW + 10 * HYBRID_KEY_LIFETIME_SECS })), 'invalid');
  assert.equal(verify(sign({ notAfterSecs: NOW - 1 })), 'invalid');
});

test('THREATS 22: a certificate is never read as a hybrid key, nor the other way round', () => {
  assert.equal(parseHybridKey(certificate.bytes), undefined);
  assert.equal(parseDeviceCertificate(signHybridKey(crypto, device.privateKey, key)), undefined);
});
