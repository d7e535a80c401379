/** What the interface promises beyond the vectors, on every provider; and that both agree. */
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { p256, p384, p521 } from '@noble/curves/nist.js';
import { concat, encodeHex, encodeUtf8 } from './bytes.ts';
import { NIST_CURVES, scalarFromSeed } from './nist.ts';
import { nobleCrypto, noblePrimitives } from './provider-noble.ts';
import { nodeCrypto } from './provider.node.ts';
import { AeadId, CryptoError, type HashName, hashOfKdf, KdfId, KemId, SignatureSchemeId } from './provider.ts';
import { hex, ikm, implementations } from './testing/vectors.node.ts';
import { xWing } from './x-wing.ts';

const HASHES: readonly HashName[] = ['sha256', 'sha384', 'sha512'];

/** FIPS 180-4 of "abc". */
const ABC: Record<HashName, string> = {
  sha256: 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad',
  sha384: 'cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7',
  sha512:
    'ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a' +
    '2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f',
};

/** RFC 4231 section 4.3 (test case 2). */
const HMAC_JEFE: Record<HashName, string> = {
  sha256: '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843',
  sha384: 'af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649',
  sha512:
    '164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554' +
    '9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737',
};

for (const { provider } of implementations) {
  suite(`provider ${provider.name}`, () => {
    test('hashes and HMACs', () => {
      for (const hash of HASHES) {
        assert.equal(encodeHex(provider.hash(hash, encodeUtf8('abc'))), ABC[hash]);
        assert.equal(provider.hashLength(hash), ABC[hash].length / 2);
        const mac = provider.hmac(hash, encodeUtf8('Jefe'), encodeUtf8('what do ya want for nothing?'));
        assert.equal(encodeHex(mac), HMAC_JEFE[hash]);
      }
      assert.deepEqual(Object.values(KdfId).map(hashOfKdf), HASHES);
    });

    test('HKDF-Expand at every boundary of its blocks is a prefix of a longer output', () => {
      const [prk, info] = [new Uint8Array(32).fill(1), encodeUtf8('info')];
      for (const hash of HASHES) {
        const length = provider.hashLength(hash);
        const long = provider.hkdfExpand(hash, prk, info, 255 * length);
        assert.deepEqual(long.subarray(0, length), provider.hmac(hash, prk, concat(info, hex('01'))));
        for (const wanted of [0, 1, length - 1, length, length + 1, 2 * length, 255 * length]) {
          assert.deepEqual(provider.hkdfExpand(hash, prk, info, wanted), long.slice(0, wanted));
        }
        for (const none of [255 * length + 1, -1, 0.5, Number.NaN]) {
          assert.throws(() => provider.hkdfExpand(hash, prk, info, none), CryptoError);
        }
      }
    });

    test('results are plain byte arrays, whose slices are copies', () => {
      const { publicKey, privateKey } = provider.signature(SignatureSchemeId.Ed25519).deriveKeyPair(new Uint8Array(32));
      const aead = provider.aead(AeadId.Aes128Gcm);
      const sealed = aead.seal(new Uint8Array(16), new Uint8Array(12), hex(''), hex('010203'));
      const encapsulated = provider
        .kem(KemId.XWing)
        .encapsulate(provider.kem(KemId.XWing).deriveKeyPair(new Uint8Array(32)).publicKey);
      for (const bytes of [
        provider.random(8),
        provider.hash('sha256', hex('')),
        provider.hmac('sha256', hex(''), hex('')),
        provider.hkdfExtract('sha256', hex(''), hex('')),
        provider.hkdfExpand('sha256', new Uint8Array(32), hex(''), 32),
        provider.signature(SignatureSchemeId.Ed25519).sign(privateKey, hex('')),
        publicKey,
        sealed,
        aead.open(new Uint8Array(16), new Uint8Array(12), hex(''), sealed),
        encapsulated.enc,
        encapsulated.sharedSecret,
      ]) {
        assert.equal(Object.getPrototypeOf(bytes), Uint8Array.prototype);
      }
    });

    test('random bytes: any length, never the same', () => {
      for (const length of [0, 1, 32, 65536, 65537]) assert.equal(provider.random(length).length, length);
      assert.notDeepEqual(provider.random(32), provider.random(32));
      assert.ok(
        provider
          .random(70_000)
          .subarray(65_600)
          .some((byte) => byte !== 0),
      );
    });

    test('random bytes: a length that is none is an error and uses nothing up', () => {
      provider.random(4);
      for (const length of [-1, -8, -1000, 0.5, 2.5, Number.NaN, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY]) {
        assert.throws(() => provider.random(length), CryptoError, `${length}`);
      }
      const zero = encodeHex(new Uint8Array(8));
      const drawn = Array.from({ length: 200 }, () => encodeHex(provider.random(8)));
      assert.equal(new Set([...drawn, zero]).size, 201);
    });

    test('equal compares contents and lengths', () => {
      assert.ok(provider.equal(hex(''), hex('')));
      assert.ok(provider.equal(hex('0102'), hex('0102')));
      assert.ok(!provider.equal(hex('0102'), hex('0103')));
      assert.ok(!provider.equal(hex('0102'), hex('010200')));
    });

    test('wipe overwrites a private key and forgets what was imported from it', () => {
      for (const id of Object.values(KemId)) {
        const kem = provider.kem(id);
        const { privateKey, publicKey } = kem.deriveKeyPair(ikm(1));
        const { enc, sharedSecret } = kem.encapsulate(publicKey);
        assert.deepEqual(kem.decapsulate(privateKey, enc), sharedSecret);
        provider.wipe(privateKey);
        assert.ok(privateKey.every((byte) => byte === 0));
        try {
          assert.notDeepEqual(kem.decapsulate(privateKey, enc), sharedSecret);
        } catch (error) {
          assert.ok(error instanceof CryptoError);
        }
      }
      for (const id of Object.values(SignatureSchemeId)) {
        const scheme = provider.signature(id);
        const { privateKey, publicKey } = scheme.deriveKeyPair(
          ikm(1).slice(0, id === SignatureSchemeId.Ed25519 ? 32 : 80),
        );
        assert.ok(scheme.verify(publicKey, hex('00'), scheme.sign(privateKey, hex('00'))));
        provider.wipe(privateKey);
        try {
          assert.ok(!scheme.verify(publicKey, hex('00'), scheme.sign(privateKey, hex('00'))));
        } catch (error) {
          assert.ok(error instanceof CryptoError);
        }
      }
    });

    test('results are the caller’s: what it does with a public key changes no later call', () => {
      for (const id of Object.values(KemId)) {
        const kem = provider.kem(id);
        const { privateKey, publicKey } = kem.deriveKeyPair(ikm(3));
        const [original, again] = [publicKey.slice(), kem.publicKey(privateKey)];
        const { enc, sharedSecret } = kem.encapsulate(publicKey);
        publicKey.fill(0);
        again.fill(0);
        assert.deepEqual(kem.publicKey(privateKey), original);
        assert.deepEqual(kem.decapsulate(privateKey, enc), sharedSecret);
      }
      for (const id of Object.values(SignatureSchemeId)) {
        const scheme = provider.signature(id);
        const seed = ikm(3).slice(0, id === SignatureSchemeId.Ed25519 ? 32 : 80);
        const { privateKey, publicKey } = scheme.deriveKeyPair(seed);
        const [original, again] = [publicKey.slice(), scheme.publicKey(privateKey)];
        publicKey.fill(0);
        again.fill(0);
        assert.deepEqual(scheme.publicKey(privateKey), original);
        assert.ok(scheme.verify(original, hex('00'), scheme.sign(privateKey, hex('00'))));
      }
    });

    test('AEADs refuse what is too short', () => {
      for (const id of Object.values(AeadId)) {
        const aead = provider.aead(id);
        const [key, nonce] = [ikm(1).slice(0, aead.keyLength), ikm(2).slice(0, aead.nonceLength)];
        for (let length = 0; length < aead.tagLength; length++) {
          assert.equal(aead.open(key, nonce, hex(''), new Uint8Array(length)), undefined);
        }
        assert.deepEqual(aead.open(key, nonce, hex(''), aead.seal(key, nonce, hex(''), hex(''))), hex(''));
      }
    });

    test('identifiers this provider does not have are an error', () => {
      assert.throws(() => provider.kem(0x21 as KemId), CryptoError);
      assert.throws(() => provider.aead(0xffff as AeadId), CryptoError);
      assert.throws(() => provider.signature(0x0808 as SignatureSchemeId), CryptoError);
    });
  });
}

suite('both providers', () => {
  test('HMAC and HKDF agree for keys and data of every length around blocks and the short form', () => {
    const bytes = Uint8Array.from({ length: 600 }, (_, i) => i * 7);
    for (const hash of HASHES) {
      for (const keyLength of [0, 1, 63, 64, 65, 127, 128, 129, 200]) {
        for (const dataLength of [0, 1, 55, 56, 64, 383, 384, 385, 600]) {
          const [key, data] = [bytes.subarray(0, keyLength), bytes.subarray(0, dataLength)];
          const at = `${hash}, key ${keyLength}, data ${dataLength}`;
          assert.deepEqual(nodeCrypto.hmac(hash, key, data), nobleCrypto.hmac(hash, key, data), at);
          for (const length of [16, nobleCrypto.hashLength(hash)]) {
            const [ours, theirs] = [nodeCrypto, nobleCrypto].map((each) => each.hkdfExpand(hash, key, data, length));
            assert.deepEqual(ours, theirs, at);
          }
        }
      }
    }
  });

  test('a few random bytes at a time are as good as many', () => {
    for (const { random } of [nodeCrypto, nobleCrypto]) {
      const seen = new Set(Array.from({ length: 2000 }, () => encodeHex(random(8))));
      assert.equal(seen.size, 2000);
      for (let length = 0; length < 20; length++) assert.equal(random(length).length, length);
    }
  });
});

test('wiping an X-Wing key overwrites the ML-KEM key expanded from it', () => {
  const expanded: Uint8Array[] = [];
  const { mlKem768 } = noblePrimitives;
  const kem = xWing({
    ...noblePrimitives,
    mlKem768: {
      ...mlKem768,
      privateKey(seed) {
        const pair = mlKem768.privateKey(seed);
        expanded.push(pair.secretKey);
        return pair;
      },
    },
  });
  const { privateKey } = kem.deriveKeyPair(ikm(1));
  assert.ok(expanded[0]?.some((byte) => byte !== 0));
  kem.forget(privateKey);
  assert.ok(expanded.length === 1 && expanded.flatMap((each) => [...each]).every((byte) => byte === 0));
});

suite('ECDSA on both providers', () => {
  const message = encodeUtf8('message');

  for (const curve of NIST_CURVES) {
    const [node, noble] = [nodeCrypto.signature(curve.signature), nobleCrypto.signature(curve.signature)];
    const seed = new Uint8Array(curve.scalarLength + 8).fill(0xa5);

    test(`${curve.name}: the same keys, and each verifies the other`, () => {
      assert.deepEqual(node.deriveKeyPair(seed), noble.deriveKeyPair(seed));
      const { privateKey, publicKey } = node.deriveKeyPair(seed);
      assert.ok(noble.verify(publicKey, message, node.sign(privateKey, message)));
      assert.ok(node.verify(publicKey, message, noble.sign(privateKey, message)));
      for (const scheme of [node, noble]) {
        assert.ok(!scheme.verify(publicKey, encodeUtf8('other'), node.sign(privateKey, message)));
        assert.throws(() => scheme.deriveKeyPair(seed.subarray(1)), CryptoError);
        assert.throws(() => scheme.sign(new Uint8Array(curve.scalarLength), message), CryptoError);
      }
    });

    test(`${curve.name}: high S is valid, every other encoding of a signature is not`, () => {
      const { privateKey, publicKey } = node.deriveKeyPair(seed);
      const { Signature, Point } = NOBLE[curve.name];
      const { r, s } = Signature.fromBytes(node.sign(privateKey, message), 'der');
      const otherS = new Signature(r, curve.order - s).toBytes('der');
      const good = new Signature(r, s).toBytes('der');
      const malformed = [
        hex(''),
        hex('3000'),
        good.subarray(1),
        good.subarray(0, -1),
        concat(good, hex('00')),
        new Signature(r, s).toBytes('compact'),
        der(0n, s),
        der(r, 0n),
        der(r, s + curve.order),
        der(r + curve.order, s),
        paddedInteger(good),
      ];
      assert.equal(Point.Fn.ORDER, curve.order);
      for (const scheme of [node, noble]) {
        assert.ok(scheme.verify(publicKey, message, good));
        assert.ok(scheme.verify(publicKey, message, otherS));
        for (const [index, bytes] of malformed.entries()) {
          assert.ok(!scheme.verify(publicKey, message, bytes), `${index}: ${encodeHex(bytes)}`);
        }
      }
    });

    test(`${curve.name}: public keys are uncompressed points of the curve`, () => {
      const { publicKey } = node.deriveKeyPair(seed);
      const off = publicKey.slice();
      off[off.length - 1]! ^= 1;
      const compressed = concat(
        new Uint8Array([2 + (publicKey.at(-1)! & 1)]),
        publicKey.subarray(1, 1 + curve.scalarLength),
      );
      for (const scheme of [node, noble]) {
        assert.ok(scheme.isPublicKey(publicKey));
        for (const bad of [
          off,
          compressed,
          hex(''),
          hex('00'),
          new Uint8Array(publicKey.length),
          publicKey.subarray(1),
        ]) {
          assert.ok(!scheme.isPublicKey(bad));
          assert.ok(!scheme.verify(bad, message, hex('3006020101020101')));
        }
      }
    });

    test(`${curve.name}: keying material of all ones and all zeros gives a scalar`, () => {
      for (const fill of [0, 0xff]) {
        const scalar = scalarFromSeed(curve, new Uint8Array(curve.scalarLength + 8).fill(fill));
        assert.deepEqual(nodeCrypto.kem(curve.kem).publicKey(scalar), nobleCrypto.kem(curve.kem).publicKey(scalar));
      }
    });
  }
});

const NOBLE = { 'P-256': p256, 'P-384': p384, 'P-521': p521 };

function der(r: bigint, s: bigint): Uint8Array {
  const body = concat(derInteger(r), derInteger(s));
  return concat(hex('30'), derLength(body.length), body);
}

function derInteger(value: bigint): Uint8Array {
  const digits = value.toString(16);
  const even = digits.padStart(digits.length + (digits.length % 2), '0');
  const bytes = hex(Number.parseInt(even.slice(0, 2), 16) >= 0x80 ? `00${even}` : even);
  return concat(hex('02'), derLength(bytes.length), bytes);
}

function derLength(length: number): Uint8Array {
  return length < 0x80 ? new Uint8Array([length]) : new Uint8Array([0x81, length]);
}

/** The same r with a needless zero in front: BER, not DER. */
function paddedInteger(signature: Uint8Array): Uint8Array {
  const start = signature[1]! >= 0x80 ? 3 : 2;
  const rLength = signature[start + 1]!;
  const r = signature.subarray(start + 2, start + 2 + rLength);
  const body = concat(new Uint8Array([2, rLength + 2]), hex('0000'), r, signature.subarray(start + 2 + rLength));
  return concat(hex('30'), derLength(body.length), body);
}
