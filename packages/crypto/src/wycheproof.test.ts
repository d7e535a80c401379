/** C2SP/wycheproof: edge cases of each primitive, on every provider (THREATS 25 for ML-KEM). Ed25519: ed25519.test.ts. */
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { concat } from './bytes.ts';
import { type Aead, AeadId, CryptoError, KemId } from './provider.ts';
import { hex, implementations, readWycheproof } from './testing/vectors.node.ts';

interface AeadCase {
  readonly key: string;
  readonly iv: string;
  readonly aad: string;
  readonly msg: string;
  readonly ct: string;
  readonly tag: string;
}

interface AeadGroup {
  readonly keySize: number;
  readonly ivSize: number;
  readonly tagSize: number;
}

const aesGcm = readWycheproof<AeadCase, AeadGroup>('aes_gcm_test');
const chacha20Poly1305 = readWycheproof<AeadCase, AeadGroup>('chacha20_poly1305_test');
const hkdfSha256 = readWycheproof<{ ikm: string; salt: string; info: string; size: number; okm: string }, unknown>(
  'hkdf_sha256_test',
);
const hmacSha256 = readWycheproof<{ key: string; msg: string; tag: string }, { tagSize: number }>('hmac_sha256_test');
const x25519 = readWycheproof<{ public: string; private: string; shared: string }, unknown>('x25519_test');
const mlKem = readWycheproof<{ seed: string; ek?: string; c: string; K: string }, unknown>('mlkem_768_test');
const mlKemEncaps = readWycheproof<{ ek: string; m: string; c: string; K: string }, unknown>('mlkem_768_encaps_test');

for (const { provider, primitives, derandomizes } of implementations) {
  suite(`wycheproof on ${provider.name}`, () => {
    /** Runs the cases with our key and nonce lengths; the others must be refused as misuse. */
    function checkAead(cases: typeof aesGcm, aeadOf: (keySize: number) => Aead | undefined) {
      const counts = { valid: 0, invalid: 0, refused: 0 };
      for (const { test, group } of cases) {
        const aead = aeadOf(group.keySize);
        const [key, iv, aad, msg] = [hex(test.key), hex(test.iv), hex(test.aad), hex(test.msg)];
        const ciphertext = concat(hex(test.ct), hex(test.tag));
        if (aead === undefined || group.ivSize !== 96 || group.tagSize !== 128) {
          const any = aead ?? provider.aead(AeadId.Aes256Gcm);
          assert.throws(() => any.seal(key, iv, aad, msg), CryptoError);
          assert.throws(() => any.open(key, iv, aad, ciphertext), CryptoError);
          counts.refused++;
        } else if (test.result === 'valid') {
          assert.deepEqual(aead.seal(key, iv, aad, msg), ciphertext, `case ${test.tcId}`);
          assert.deepEqual(aead.open(key, iv, aad, ciphertext), msg, `case ${test.tcId}`);
          counts.valid++;
        } else {
          assert.equal(aead.open(key, iv, aad, ciphertext), undefined, `case ${test.tcId}`);
          counts.invalid++;
        }
      }
      return counts;
    }

    test('AES-GCM', () => {
      const counts = checkAead(aesGcm, (keySize) => {
        if (keySize === 192) return undefined;
        return provider.aead(keySize === 128 ? AeadId.Aes128Gcm : AeadId.Aes256Gcm);
      });
      assert.deepEqual(counts, { valid: 79, invalid: 54, refused: 183 });
    });

    test('ChaCha20-Poly1305', () => {
      const counts = checkAead(chacha20Poly1305, () => provider.aead(AeadId.ChaCha20Poly1305));
      assert.deepEqual(counts, { valid: 256, invalid: 60, refused: 9 });
    });

    test('HKDF with SHA-256', () => {
      let cases = 0;
      for (const { test } of hkdfSha256) {
        const prk = provider.hkdfExtract('sha256', hex(test.salt), hex(test.ikm));
        const expand = () => provider.hkdfExpand('sha256', prk, hex(test.info), test.size);
        if (test.result === 'valid') assert.deepEqual(expand(), hex(test.okm), `case ${test.tcId}`);
        else assert.throws(expand, CryptoError, `case ${test.tcId}`);
        cases++;
      }
      assert.equal(cases, 86);
    });

    test('HMAC with SHA-256', () => {
      let cases = 0;
      for (const { test, group } of hmacSha256) {
        const mac = provider.hmac('sha256', hex(test.key), hex(test.msg)).subarray(0, group.tagSize / 8);
        assert.equal(provider.equal(mac, hex(test.tag)), test.result === 'valid', `case ${test.tcId}`);
        cases++;
      }
      assert.equal(cases, 174);
    });

    test('X25519, where a result of zero is refused', () => {
      let [cases, zero] = [0, 0];
      for (const { test } of x25519) {
        const shared = primitives.x25519.dh(hex(test.private), hex(test.public));
        if (test.flags.includes('ZeroSharedSecret')) {
          assert.equal(shared, undefined, `case ${test.tcId}`);
          zero++;
        } else {
          assert.deepEqual(shared, hex(test.shared), `case ${test.tcId}`);
        }
        cases++;
      }
      assert.deepEqual([cases, zero], [518, 31]);
    });

    test('ML-KEM-768: keys from seeds, decapsulation, implicit rejection', () => {
      const { mlKem768 } = primitives;
      const counts = { valid: 0, invalid: 0 };
      for (const { test } of mlKem) {
        const decapsulate = (): Uint8Array | undefined => {
          const privateKey = mlKem768.privateKey(hex(test.seed));
          if (test.ek !== undefined) assert.deepEqual(mlKem768.publicKey(privateKey), hex(test.ek));
          return mlKem768.decapsulate(privateKey, hex(test.c));
        };
        if (test.result === 'valid') assert.deepEqual(decapsulate(), hex(test.K), `case ${test.tcId}`);
        else if (test.seed.length !== 128) assert.throws(decapsulate, CryptoError, `case ${test.tcId}`);
        else assert.equal(decapsulate(), undefined, `case ${test.tcId}`);
        counts[test.result === 'valid' ? 'valid' : 'invalid']++;
      }
      assert.deepEqual(counts, { valid: 153, invalid: 40 });
    });

    test('ML-KEM-768: encapsulation, and public keys that fail the modulus check', () => {
      const counts = { valid: 0, invalid: 0 };
      for (const { test } of mlKemEncaps) {
        const publicKey = hex(test.ek);
        if (test.result === 'invalid') {
          assert.throws(() => primitives.mlKem768.encapsulate(publicKey), CryptoError, `case ${test.tcId}`);
          counts.invalid++;
          continue;
        }
        if (derandomizes) {
          const { sharedSecret, ciphertext } = primitives.mlKem768.encapsulate(publicKey, hex(test.m));
          assert.deepEqual([sharedSecret, ciphertext], [hex(test.K), hex(test.c)], `case ${test.tcId}`);
        } else {
          assert.equal(primitives.mlKem768.encapsulate(publicKey).ciphertext.length, 1088, `case ${test.tcId}`);
        }
        counts.valid++;
      }
      assert.deepEqual(counts, { valid: 133, invalid: 132 });
    });

    test('X-Wing refuses the malformed ML-KEM keys too', () => {
      const kem = provider.kem(KemId.XWing);
      const good = kem.deriveKeyPair(new Uint8Array(32).fill(7)).publicKey;
      let refused = 0;
      for (const { test } of mlKemEncaps) {
        if (test.result !== 'invalid') continue;
        assert.ok(!kem.isPublicKey(concat(hex(test.ek), good.subarray(1184))));
        assert.throws(() => kem.encapsulate(concat(hex(test.ek), good.subarray(1184))), CryptoError);
        refused++;
      }
      assert.equal(refused, 132);
    });
  });
}
