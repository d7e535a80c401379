import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ristretto255, ristretto255_hasher } from '@noble/curves/ed25519.js';
import { concat, decodeHex, encodeHex, encodeUtf8 } from '@quicprochat/crypto';
import { nobleCrypto } from '@quicprochat/crypto/noble';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { generateVrfKeyPair, isVrfPublicKey, vrfProve, vrfPublicKey, vrfReady, vrfVerify } from './vrf.ts';

await vrfReady();

// The test vector of c2sp.org/vrf-r255 (C2SP/C2SP vrf-r255.md).
const vector = {
  SK: '3431c2b03533e280b23232e280b34e2c3132c2b03238e280b23131e280b34500',
  PK: '54136cd90d99fbd1d4e855d9556efea87ba0337f2a6ce22028d0f5726fcb854e',
  alpha: '633273702e6f72672f7672662d72323535',
  pi:
    '0a97d961262fb549b4175c5117860f42ae44a123f93c476c439eddd1c0cff926' +
    '5c805525233e2284dbed45e593b8eea31d5ca9734d72bcbba9738d5237f955f3b2422351149d1312503b6441a47c940c',
  beta:
    'dd653f0879b48c3ef69e13551239bec4cbcc1c18fe8894de2e9e1c790e182736' +
    '03bf1c6c25d7a797aeff3c43fd32b974d3fcbd4bcce916007097922a3ea3a794',
};
const bytes = (hex: string) => decodeHex(hex)!;

for (const crypto of [nodeCrypto, nobleCrypto]) {
  test(`vrf-r255 test vector, ${crypto.name}`, () => {
    assert.equal(encodeHex(vrfPublicKey(bytes(vector.SK))), vector.PK);
    const { proof, output } = vrfProve(crypto, bytes(vector.SK), bytes(vector.alpha));
    assert.equal(encodeHex(proof), vector.pi);
    assert.equal(encodeHex(output), vector.beta);
    const verified = vrfVerify(crypto, bytes(vector.PK), bytes(vector.alpha), bytes(vector.pi));
    assert.equal(verified && encodeHex(verified), vector.beta);
  });
}

const crypto = nodeCrypto;
const IDENTITY = new Uint8Array(32);
const ORDER_LITTLE_ENDIAN = bytes('edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010');

test('a fresh key proves every name once, and no proof fits another name or key', () => {
  const key = generateVrfKeyPair(crypto);
  const other = generateVrfKeyPair(crypto);
  for (const name of ['', 'alice', 'b'.repeat(300)]) {
    const input = encodeUtf8(name);
    const { proof, output } = vrfProve(crypto, key.privateKey, input);
    assert.deepEqual(vrfVerify(crypto, key.publicKey, input, proof), output);
    assert.deepEqual(vrfProve(crypto, key.privateKey, input).proof, proof);
    assert.equal(vrfVerify(crypto, key.publicKey, encodeUtf8(`${name}x`), proof), undefined);
    assert.equal(vrfVerify(crypto, other.publicKey, input, proof), undefined);
  }
});

test('every changed byte, every other length and every other encoding of a proof is refused', () => {
  const [PK, alpha, pi] = [bytes(vector.PK), bytes(vector.alpha), bytes(vector.pi)];
  for (let i = 0; i < pi.length; i++) {
    const tampered = pi.slice();
    tampered[i]! ^= 1 << (i % 8);
    assert.equal(vrfVerify(crypto, PK, alpha, tampered), undefined, `byte ${i}`);
  }
  for (const length of [0, 79, 81]) {
    const resized = new Uint8Array(length);
    resized.set(pi.subarray(0, length));
    assert.equal(vrfVerify(crypto, PK, alpha, resized), undefined);
  }
  // s + q means the same scalar.
  const wrapped = pi.slice();
  let carry = 0;
  for (let i = 0; i < 32; i++) {
    const sum = pi[48 + i]! + ORDER_LITTLE_ENDIAN[i]! + carry;
    wrapped[48 + i] = sum;
    carry = sum >> 8;
  }
  assert.equal(carry, 0);
  assert.equal(vrfVerify(crypto, PK, alpha, wrapped), undefined);
});

test('the key of which everyone knows the private half is refused, although its proofs add up', () => {
  const alpha = bytes(vector.alpha);
  const hash = (...parts: Uint8Array[]) =>
    crypto.hash('sha512', concat(new Uint8Array([0xff]), encodeUtf8('c2sp.org/vrf-r255'), ...parts));
  const h = ristretto255_hasher.deriveToCurve!(hash(new Uint8Array([0x82]), IDENTITY, alpha));
  const [u, v] = [ristretto255.Point.BASE.multiply(5n), h.multiply(5n)];
  const parts = [IDENTITY, h.toBytes(), IDENTITY, u.toBytes(), v.toBytes(), new Uint8Array(1)];
  const c = hash(new Uint8Array([0x02]), ...parts).subarray(0, 16);
  const s = new Uint8Array(32).with(0, 5);
  assert.equal(vrfVerify(crypto, IDENTITY, alpha, concat(IDENTITY, c, s)), undefined);
});

test('degenerate keys and proofs are refused, not fallen over', () => {
  const [PK, alpha, pi] = [bytes(vector.PK), bytes(vector.alpha), bytes(vector.pi)];
  const zeros = new Uint8Array(48);
  assert.equal(vrfVerify(crypto, IDENTITY, alpha, pi), undefined);
  assert.equal(vrfVerify(crypto, IDENTITY, alpha, concat(IDENTITY, zeros)), undefined);
  assert.equal(vrfVerify(crypto, PK, alpha, concat(IDENTITY, zeros)), undefined);
  assert.equal(vrfVerify(crypto, PK, alpha, concat(pi.subarray(0, 32), zeros)), undefined);
  assert.equal(vrfVerify(crypto, PK, alpha, concat(new Uint8Array(32).fill(0xff), pi.subarray(32))), undefined);
  assert.equal(vrfVerify(crypto, PK.subarray(1), alpha, pi), undefined);
  assert.equal(isVrfPublicKey(PK), true);
  assert.equal(isVrfPublicKey(IDENTITY), false);
  assert.equal(isVrfPublicKey(new Uint8Array(32).fill(0xff)), false);
  assert.equal(isVrfPublicKey(PK.subarray(1)), false);
  for (const bad of [new Uint8Array(32), ORDER_LITTLE_ENDIAN, new Uint8Array(31).fill(1)]) {
    assert.throws(() => vrfProve(crypto, bad, alpha), { name: 'Misuse' });
  }
});
