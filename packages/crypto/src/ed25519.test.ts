/**
 * Ed25519 has one verdict for every signature, whatever the provider (PROTOCOL section 11, THREATS 7): C2SP/CCTV covers
 * torsion and encodings, C2SP/wycheproof malleability and malformed input.
 */
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { ed25519 as nobleEd25519, ED25519_TORSION_SUBGROUP } from '@noble/curves/ed25519.js';
import { bytesToBigInt, encodeHex, encodeUtf8 } from './bytes.ts';
import { nobleCrypto } from './provider-noble.ts';
import { nodeCrypto } from './provider.node.ts';
import { CryptoError, SignatureSchemeId } from './provider.ts';
import { hex, implementations, readVectors, readWycheproof } from './testing/vectors.node.ts';

interface CctvCase {
  readonly number: number;
  readonly key: string;
  readonly sig: string;
  readonly msg: string;
  readonly flags: readonly string[] | null;
}

/** What makes a signature invalid for us; torsion that cancels is valid. */
const REFUSED = ['low_order_A', 'low_order_R', 'low_order_residue', 'non_canonical_A', 'non_canonical_R'];

const cctv = readVectors<CctvCase[]>('ed25519/cctv.json');
const wycheproof = readWycheproof<{ msg: string; sig: string }, { publicKey: { pk: string } }>('ed25519_test');

for (const { provider } of implementations) {
  const ed25519 = provider.signature(SignatureSchemeId.Ed25519);

  suite(`Ed25519 on ${provider.name}`, () => {
    test('CCTV', () => {
      const counts = { valid: 0, invalid: 0 };
      for (const { number, key, sig, msg, flags } of cctv) {
        const expected = !(flags ?? []).some((flag) => REFUSED.includes(flag));
        assert.equal(ed25519.verify(hex(key), encodeUtf8(msg), hex(sig)), expected, `case ${number}`);
        if (expected) assert.ok(ed25519.isPublicKey(hex(key)), `case ${number}`);
        counts[expected ? 'valid' : 'invalid']++;
      }
      assert.deepEqual(counts, { valid: 43, invalid: 871 });
    });

    test('wycheproof', () => {
      let cases = 0;
      for (const { test, group } of wycheproof) {
        const verdict = ed25519.verify(hex(group.publicKey.pk), hex(test.msg), hex(test.sig));
        assert.equal(verdict, test.result === 'valid', `case ${test.tcId}`);
        cases++;
      }
      assert.equal(cases, 151);
    });

    test('RFC 8032 section 7.1, test 2', () => {
      const seed = hex('4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb');
      const { privateKey, publicKey } = ed25519.deriveKeyPair(seed);
      assert.equal(encodeHex(publicKey), '3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c');
      const signature = ed25519.sign(privateKey, hex('72'));
      assert.equal(
        encodeHex(signature),
        '92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da' +
          '085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00',
      );
      assert.ok(ed25519.verify(publicKey, hex('72'), signature));
      assert.ok(!ed25519.verify(publicKey, hex('73'), signature));
    });

    test('a public key is canonical, on the curve and not of small order', () => {
      const { BASE, ZERO } = nobleEd25519.Point;
      const torsion = ED25519_TORSION_SUBGROUP.map((point) => nobleEd25519.Point.fromHex(point));
      assert.equal(torsion.length, 8);
      for (const point of torsion) {
        assert.ok(!ed25519.isPublicKey(point.toBytes()), 'small order');
        assert.ok(ed25519.isPublicKey(BASE.add(point).toBytes()), 'large order, with or without torsion');
      }
      const [p, zeroWithSign] = [2n ** 255n - 19n, ZERO.toBytes()];
      zeroWithSign[31]! |= 0x80;
      assert.ok(!ed25519.isPublicKey(zeroWithSign), '−0');
      for (let y = p; y < 2n ** 255n; y++) {
        for (const sign of [0n, 1n]) assert.ok(!ed25519.isPublicKey(littleEndian(y + (sign << 255n))), 'y ≥ p');
      }
      for (const length of [0, 31, 33]) assert.ok(!ed25519.isPublicKey(new Uint8Array(length).fill(9)), 'length');
      let onCurve = 0;
      for (let y = 2n; y < 202n; y++) {
        const bytes = littleEndian(y);
        const decodes = nobleDecodes(bytes);
        assert.equal(ed25519.isPublicKey(bytes), decodes, `y = ${y}`);
        if (decodes) onCurve++;
      }
      assert.ok(onCurve > 60 && onCurve < 140, `${onCurve} of 200`);
    });

    test('a key array is judged once and wiped for good', () => {
      const { privateKey, publicKey } = ed25519.deriveKeyPair(new Uint8Array(32).fill(3));
      const before = ed25519.sign(privateKey, hex('00'));
      assert.ok(ed25519.verify(publicKey, hex('00'), before));
      provider.wipe(privateKey);
      assert.deepEqual(privateKey, new Uint8Array(32));
      assert.notDeepEqual(ed25519.sign(privateKey, hex('00')), before);
      for (const length of [0, 31, 33, 64]) {
        assert.throws(() => ed25519.sign(new Uint8Array(length), hex('00')), CryptoError);
        assert.throws(() => ed25519.deriveKeyPair(new Uint8Array(length)), CryptoError);
      }
    });
  });
}

test('both providers make the same signatures, with keys new and known', () => {
  const schemes = [nodeCrypto, nobleCrypto].map((provider) => provider.signature(SignatureSchemeId.Ed25519));
  const [node, noble] = schemes as [(typeof schemes)[0], (typeof schemes)[0]];
  for (let seed = 0; seed < 20; seed++) {
    const { privateKey, publicKey } = noble.deriveKeyPair(new Uint8Array(32).fill(seed));
    assert.deepEqual(node.publicKey(privateKey), publicKey);
    for (const length of [0, 1, 63, 64, 65, 200]) {
      const message = new Uint8Array(length).fill(seed + length);
      assert.deepEqual(noble.sign(privateKey, message), node.sign(privateKey, message));
    }
  }
});

test('both providers agree on signatures with torsion and changed bits', () => {
  const schemes = [nodeCrypto, nobleCrypto].map((provider) => provider.signature(SignatureSchemeId.Ed25519));
  const [node, noble] = schemes as [(typeof schemes)[0], (typeof schemes)[0]];
  const { privateKey, publicKey } = node.deriveKeyPair(new Uint8Array(32).fill(0x2a));
  const message = encodeUtf8('the same verdict everywhere');
  const signature = node.sign(privateKey, message);
  assert.deepEqual(noble.sign(privateKey, message), signature);
  let refused = 0;
  for (let bit = 0; bit < 512; bit++) {
    const changed = signature.slice();
    changed[bit >> 3]! ^= 1 << (bit & 7);
    assert.equal(node.verify(publicKey, message, changed), false, `bit ${bit}`);
    if (bit % 16 === 0) assert.equal(noble.verify(publicKey, message, changed), false, `bit ${bit}`);
    refused++;
  }
  assert.equal(refused, 512);
});

function littleEndian(value: bigint): Uint8Array {
  return hex(value.toString(16).padStart(64, '0')).reverse();
}

function nobleDecodes(publicKey: Uint8Array): boolean {
  try {
    return bytesToBigInt(nobleEd25519.Point.fromBytes(publicKey).toBytes()) === bytesToBigInt(publicKey);
  } catch {
    return false;
  }
}
