import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { Misuse } from './errors.ts';
import {
  addressesEqual,
  compareAddresses,
  decodeAddress,
  decodeCredentialIdentity,
  encodeAddress,
  encodeCredentialIdentity,
  generateSigningKey,
} from './identity.ts';

const address = { identityKey: crypto.random(32), deviceId: crypto.random(16) };

test('an address is 48 bytes and reads back', () => {
  const encoded = encodeAddress(address);
  assert.equal(encoded.length, 48);
  assert.deepEqual(decodeAddress(encoded), address);
  assert.ok(addressesEqual(decodeAddress(encoded)!, address));
  assert.equal(decodeAddress(encoded.subarray(1)), undefined);
});

test('a credential identity is 01 and the address', () => {
  const encoded = encodeCredentialIdentity(address);
  assert.equal(encoded.length, 49);
  assert.equal(encoded[0], 1);
  assert.deepEqual(decodeCredentialIdentity(encoded), address);
});

test('THREATS 2: encodings of different kinds are never read as each other', () => {
  const identity = encodeCredentialIdentity(address);
  assert.equal(decodeAddress(identity), undefined);
  assert.equal(decodeCredentialIdentity(encodeAddress(address)), undefined);
  assert.equal(decodeCredentialIdentity(address.identityKey), undefined);
  const otherVersion = identity.slice();
  otherVersion[0] = 2;
  assert.equal(decodeCredentialIdentity(otherVersion), undefined);
  // A device id that repeats part of the identity key moves no boundary.
  const overlapping = { identityKey: address.identityKey, deviceId: address.identityKey.slice(0, 16) };
  assert.deepEqual(decodeAddress(encodeAddress(overlapping)), overlapping);
  assert.throws(() => encodeAddress({ identityKey: address.deviceId, deviceId: address.identityKey }), Misuse);
});

test('addresses sort like their encodings', () => {
  const low = { identityKey: new Uint8Array(32), deviceId: new Uint8Array(16).fill(9) };
  const high = { identityKey: new Uint8Array(32).fill(1), deviceId: new Uint8Array(16) };
  assert.ok(compareAddresses(low, high) < 0);
  assert.ok(compareAddresses(high, low) > 0);
  assert.equal(compareAddresses(low, { ...low }), 0);
});

test('signing keys are fresh', () => {
  const one = generateSigningKey(crypto);
  const other = generateSigningKey(crypto);
  assert.equal(one.publicKey.length, 32);
  assert.notDeepEqual(one.publicKey, other.publicKey);
});
