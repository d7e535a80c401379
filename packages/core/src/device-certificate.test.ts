import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import {
  CERTIFICATE_BACKDATE_SECS,
  CERTIFICATE_LIFETIME_SECS,
  deviceCertificateValidity,
  parseDeviceCertificate,
  signDeviceCertificate,
  verifyDeviceCertificate,
} from './device-certificate.ts';
import type { DeviceCertificate } from './device-certificate.ts';
import { generateSigningKey } from './identity.ts';

const identity = generateSigningKey(crypto);
const device = generateSigningKey(crypto);
const NOW = 1_800_000_000;

const alice: DeviceCertificate = {
  origin: 'localhost:5001',
  username: 'alice',
  identityKey: identity.publicKey,
  deviceId: crypto.random(16),
  deviceKey: device.publicKey,
  manager: true,
  serial: 7n,
  notBeforeSecs: NOW,
  notAfterSecs: NOW + CERTIFICATE_LIFETIME_SECS,
};
const expected = { origin: alice.origin, identityKey: alice.identityKey };
const encoded = signDeviceCertificate(crypto, identity.privateKey, alice);

function verify(bytes: Uint8Array, expectation: Parameters<typeof verifyDeviceCertificate>[2] = expected) {
  const parsed = parseDeviceCertificate(bytes);
  return parsed === undefined
    ? ({ kind: 'unreadable' } as const)
    : verifyDeviceCertificate(crypto, parsed, expectation);
}

test('a certificate reads back and verifies against everything it says', () => {
  const outcome = verify(encoded, {
    ...expected,
    username: 'alice',
    deviceId: alice.deviceId,
    deviceKey: alice.deviceKey,
  });
  assert.equal(outcome.kind, 'verified');
  assert.deepEqual(outcome.kind === 'verified' && { ...outcome.statement }, { ...alice, bytes: encoded });
});

test('every single changed byte, every truncation and every extension is refused', () => {
  for (let i = 0; i < encoded.length; i++) {
    const tampered = encoded.slice();
    tampered[i]! ^= 0x01;
    assert.notEqual(verify(tampered).kind, 'verified', `byte ${i}`);
    assert.notEqual(verify(encoded.subarray(0, i)).kind, 'verified', `cut at ${i}`);
  }
  assert.equal(verify(new Uint8Array([...encoded, 0])).kind, 'unreadable');
});

test('a parsed certificate does not change when its source does', () => {
  const source = encoded.slice();
  const parsed = parseDeviceCertificate(source)!;
  source.fill(0);
  assert.equal(verifyDeviceCertificate(crypto, parsed, expected).kind, 'verified');
});

test('a certificate for something else is refused', () => {
  const other = crypto.random(32);
  assert.equal(verify(encoded, { ...expected, identityKey: other }).kind, 'invalid');
  assert.equal(verify(encoded, { ...expected, origin: 'localhost:5002' }).kind, 'invalid');
  assert.equal(verify(encoded, { ...expected, username: 'bob' }).kind, 'invalid');
  assert.equal(verify(encoded, { ...expected, deviceKey: other }).kind, 'invalid');
  assert.equal(verify(encoded, { ...expected, deviceId: other.subarray(16) }).kind, 'invalid');
});

test('THREATS 37: a certificate that names somebody else as identity does not verify under the signer', () => {
  const mallory = generateSigningKey(crypto);
  const forged = signDeviceCertificate(crypto, mallory.privateKey, alice);
  assert.equal(verify(forged).kind, 'invalid');
});

test('THREATS 2: a device key equal to the identity key is refused', () => {
  const twofold = signDeviceCertificate(crypto, identity.privateKey, { ...alice, deviceKey: alice.identityKey });
  assert.deepEqual(verify(twofold), { kind: 'invalid', reason: 'the device key equals the identity key' });
});

test('impossible lifetimes and names are refused', () => {
  const bad: Partial<DeviceCertificate>[] = [
    { notAfterSecs: alice.notBeforeSecs },
    { notAfterSecs: NOW + CERTIFICATE_LIFETIME_SECS + CERTIFICATE_BACKDATE_SECS + 1 },
    { username: 'Alice' },
    { username: 'a\u0007lice' },
  ];
  for (const change of bad) {
    const signed = signDeviceCertificate(crypto, identity.privateKey, { ...alice, ...change });
    assert.equal(verify(signed).kind, 'invalid', JSON.stringify(Object.keys(change)));
  }
});

test('the clock decides validity, and never the verification', () => {
  const outcome = verify(encoded);
  assert.ok(outcome.kind === 'verified');
  assert.equal(deviceCertificateValidity(outcome.statement, NOW - 1).kind, 'not-yet-valid');
  assert.equal(deviceCertificateValidity(outcome.statement, NOW).kind, 'current');
  assert.equal(deviceCertificateValidity(outcome.statement, NOW + CERTIFICATE_LIFETIME_SECS).kind, 'current');
  assert.equal(deviceCertificateValidity(outcome.statement, NOW + CERTIFICATE_LIFETIME_SECS + 1).kind, 'expired');
});
