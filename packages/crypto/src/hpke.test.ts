/**
 * HPKE and its KEMs on every provider.
 *
 * rfc9180.json.gz: all modes of all suites but those of KEM 0x21 (X448), which no MLS suite of ours uses.
 * hpke-pq.json: the entries of KEM 0x647a; of the other entries the KEM half where the KEM is ours. Left out: KEMs 0x40
 * to 0x42 (ML-KEM alone), 0x50 and 0x51 (P-256 and P-384 hybrids) and 0x21, and the key schedule of the one-stage KDFs
 * 0x10 to 0x13 (SHAKE, TurboSHAKE): MLS suites use HKDF.
 */
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { encodeUtf8 } from './bytes.ts';
import { createHpke, EXPORT_ONLY, type HpkePsk } from './hpke.ts';
import { nobleCrypto } from './provider-noble.ts';
import { nodeCrypto } from './provider.node.ts';
import { AeadId, CryptoError, KdfId, KemId } from './provider.ts';
import { hex, ikm, implementations, readVectors } from './testing/vectors.node.ts';

interface HpkeVector {
  readonly mode: number;
  readonly kem_id: number;
  readonly kdf_id: number;
  readonly aead_id: number;
  readonly info: string;
  readonly ikmR: string;
  readonly ikmE: string;
  readonly skRm: string;
  readonly pkRm: string;
  readonly ikmS?: string;
  readonly skSm?: string;
  readonly pkSm?: string;
  readonly psk?: string;
  readonly psk_id?: string;
  readonly enc: string;
  readonly shared_secret: string;
  readonly encryptions: readonly { readonly aad: string; readonly pt: string; readonly ct: string }[];
  readonly exports: readonly {
    readonly exporter_context: string;
    readonly L: number;
    readonly exported_value: string;
  }[];
}

interface XWingVector {
  readonly seed: string;
  readonly eseed: string;
  readonly ss: string;
  readonly sk: string;
  readonly pk: string;
  readonly ct: string;
}

const rfc9180 = readVectors<HpkeVector[]>('hpke/rfc9180.json.gz');
const hpkePq = readVectors<HpkeVector[]>('hpke/hpke-pq.json');
const xWing = readVectors<XWingVector[]>('hpke/x-wing.json');

const KEMS: readonly number[] = Object.values(KemId);
const KDFS: readonly number[] = Object.values(KdfId);

for (const { provider, derandomizes } of implementations) {
  suite(`HPKE on ${provider.name}`, () => {
    /** Both directions of a vector; the sender's only where its randomness can be fixed. */
    function checkVector(vector: HpkeVector): number {
      const kemId = vector.kem_id as KemId;
      const hpke = createHpke(provider, {
        kem: kemId,
        kdf: vector.kdf_id as KdfId,
        aead: vector.aead_id as AeadId | typeof EXPORT_ONLY,
      });
      const info = hex(vector.info);
      const { privateKey, publicKey } = hpke.kem.deriveKeyPair(hex(vector.ikmR));
      assert.deepEqual(publicKey, hex(vector.pkRm));
      const psk: { psk?: HpkePsk } =
        vector.psk === undefined ? {} : { psk: { psk: hex(vector.psk), pskId: hex(vector.psk_id ?? '') } };
      const auth = vector.skSm !== undefined && vector.pkSm !== undefined;

      const receiver = hpke.setupReceiver(privateKey, hex(vector.enc), info, {
        ...psk,
        ...(auth && { senderPublicKey: hex(vector.pkSm ?? '') }),
      });
      assert.ok(receiver);
      const sender =
        kemId === KemId.XWing && !derandomizes
          ? undefined
          : hpke.setupSender(publicKey, info, {
              ...psk,
              ...(auth && { senderPrivateKey: hex(vector.skSm ?? '') }),
              ikmE: hex(vector.ikmE),
            });
      if (sender) assert.deepEqual(sender.enc, hex(vector.enc));

      let checked = 0;
      for (const { aad, pt, ct } of vector.encryptions) {
        assert.deepEqual(receiver.open(hex(aad), hex(ct)), hex(pt));
        if (sender) assert.deepEqual(sender.context.seal(hex(aad), hex(pt)), hex(ct));
        checked++;
      }
      for (const { exporter_context, L, exported_value } of vector.exports) {
        assert.deepEqual(receiver.export(hex(exporter_context), L), hex(exported_value));
        if (sender) assert.deepEqual(sender.context.export(hex(exporter_context), L), hex(exported_value));
        checked++;
      }
      return checked;
    }

    test('RFC 9180 vectors: base, psk, auth and auth_psk', () => {
      const counts = { vectors: 0, checked: 0 };
      for (const vector of rfc9180) {
        if (!KEMS.includes(vector.kem_id)) continue;
        counts.checked += checkVector(vector);
        counts.vectors++;
      }
      assert.deepEqual(counts, { vectors: 96, checked: 72 * 257 + 96 * 3 });
    });

    test('hpke-pq vectors: KEM 0x647a with HKDF', () => {
      const vectors = hpkePq.filter(({ kem_id, kdf_id }) => kem_id === KemId.XWing && KDFS.includes(kdf_id));
      assert.equal(vectors.length, 1);
      for (const vector of vectors) assert.equal(checkVector(vector), 15);
    });

    test('hpke-pq vectors: the KEM half of every KEM of ours', () => {
      const kemIds: number[] = [];
      for (const vector of hpkePq) {
        if (!KEMS.includes(vector.kem_id)) continue;
        const kem = provider.kem(vector.kem_id as KemId);
        const { privateKey, publicKey } = kem.deriveKeyPair(hex(vector.ikmR));
        assert.deepEqual([privateKey, publicKey], [hex(vector.skRm), hex(vector.pkRm)]);
        assert.deepEqual(kem.publicKey(hex(vector.skRm)), publicKey);
        assert.deepEqual(kem.decapsulate(privateKey, hex(vector.enc)), hex(vector.shared_secret));
        if (kem.id !== KemId.XWing || derandomizes) {
          const { enc, sharedSecret } = kem.encapsulate(publicKey, hex(vector.ikmE));
          assert.deepEqual([enc, sharedSecret], [hex(vector.enc), hex(vector.shared_secret)]);
        } else {
          assert.throws(() => kem.encapsulate(publicKey, hex(vector.ikmE)), CryptoError);
        }
        kemIds.push(vector.kem_id);
      }
      assert.deepEqual(kemIds, [0x647a, 0x10, 0x11, 0x20, 0x647a]);
    });

    test('X-Wing vectors of the draft', () => {
      const kem = provider.kem(KemId.XWing);
      let cases = 0;
      for (const { seed, eseed, ss, sk, pk, ct } of xWing) {
        assert.equal(seed, sk);
        assert.deepEqual(kem.publicKey(hex(sk)), hex(pk));
        assert.deepEqual(kem.decapsulate(hex(sk), hex(ct)), hex(ss));
        if (derandomizes) {
          assert.deepEqual(kem.encapsulate(hex(pk), hex(eseed)), { sharedSecret: hex(ss), enc: hex(ct) });
        }
        cases++;
      }
      assert.equal(cases, 3);
    });

    test('a message opens only with its own key, enc, info, aad and bytes', () => {
      for (const kem of Object.values(KemId)) {
        const hpke = createHpke(provider, { kem, kdf: KdfId.HkdfSha256, aead: AeadId.Aes128Gcm });
        const { privateKey, publicKey } = hpke.kem.deriveKeyPair(ikm(1));
        const other = hpke.kem.deriveKeyPair(ikm(2));
        const [info, aad, plaintext] = [encodeUtf8('info'), encodeUtf8('aad'), encodeUtf8('plaintext')];
        const { enc, ciphertext } = hpke.sealBase(publicKey, info, aad, plaintext);
        assert.deepEqual([enc.length, ciphertext.length], [hpke.kem.encLength, plaintext.length + 16]);
        assert.deepEqual(hpke.openBase(privateKey, enc, info, aad, ciphertext), plaintext);
        const otherEnc = hpke.sealBase(publicKey, info, aad, plaintext).enc;
        assert.equal(hpke.openBase(other.privateKey, enc, info, aad, ciphertext), undefined);
        assert.equal(hpke.openBase(privateKey, otherEnc, info, aad, ciphertext), undefined);
        assert.equal(hpke.openBase(privateKey, enc, aad, aad, ciphertext), undefined);
        assert.equal(hpke.openBase(privateKey, enc, info, info, ciphertext), undefined);
        assert.equal(hpke.openBase(privateKey, enc, info, aad, flipped(ciphertext)), undefined);
        for (const malformed of [new Uint8Array(0), enc.subarray(1), new Uint8Array([...enc, 0])]) {
          assert.equal(hpke.openBase(privateKey, malformed, info, aad, ciphertext), undefined);
        }
        assert.ok(hpke.kem.isPublicKey(publicKey));
        for (const malformed of [new Uint8Array(0), publicKey.subarray(1), new Uint8Array([...publicKey, 0])]) {
          assert.ok(!hpke.kem.isPublicKey(malformed));
          assert.throws(() => hpke.sealBase(malformed, info, aad, plaintext), CryptoError);
        }
      }
    });

    test('X25519 points of small order are refused, alone and in X-Wing', () => {
      const smallOrder = [
        hex('0000000000000000000000000000000000000000000000000000000000000000'),
        hex('0100000000000000000000000000000000000000000000000000000000000000'),
        hex('e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800'),
      ];
      for (const id of [KemId.X25519HkdfSha256, KemId.XWing]) {
        const kem = provider.kem(id);
        const { privateKey, publicKey } = kem.deriveKeyPair(ikm(1));
        const { enc } = kem.encapsulate(publicKey);
        for (const point of smallOrder) {
          assert.ok(!kem.isPublicKey(withEnding(publicKey, point)));
          assert.throws(() => kem.encapsulate(withEnding(publicKey, point)), CryptoError);
          assert.equal(kem.decapsulate(privateKey, withEnding(enc, point)), undefined);
        }
      }
    });

    test('as much keying material as the hash has bytes is enough for every KEM', () => {
      for (const id of Object.values(KemId)) {
        const kem = provider.kem(id);
        const { privateKey, publicKey } = kem.deriveKeyPair(ikm(1).subarray(0, kem.secretLength));
        assert.deepEqual([privateKey.length, publicKey.length], [kem.privateKeyLength, kem.publicKeyLength]);
        assert.throws(() => kem.deriveKeyPair(ikm(1).subarray(0, kem.secretLength - 1)), CryptoError);
      }
    });

    test('points off the NIST curves and compressed points are refused', () => {
      for (const id of [KemId.P256HkdfSha256, KemId.P384HkdfSha384, KemId.P521HkdfSha512]) {
        const kem = provider.kem(id);
        const { privateKey, publicKey } = kem.deriveKeyPair(ikm(1));
        const compressed = publicKey.slice(0, 1 + kem.privateKeyLength);
        compressed[0] = 2 + (publicKey.at(-1)! & 1);
        const hybridForm = publicKey.slice();
        hybridForm[0] = 6 + (publicKey.at(-1)! & 1);
        for (const malformed of [flipped(publicKey), compressed, hybridForm, new Uint8Array(publicKey.length)]) {
          assert.ok(!kem.isPublicKey(malformed));
          assert.throws(() => kem.encapsulate(malformed), CryptoError);
          assert.equal(kem.decapsulate(privateKey, malformed), undefined);
        }
        for (const scalar of [new Uint8Array(kem.privateKeyLength), new Uint8Array(kem.privateKeyLength).fill(0xff)]) {
          assert.throws(() => kem.publicKey(scalar), CryptoError);
          assert.throws(() => kem.decapsulate(scalar, publicKey), CryptoError);
        }
      }
    });

    test('a receiver keeps its place when a message does not open', () => {
      const hpke = createHpke(provider, {
        kem: KemId.X25519HkdfSha256,
        kdf: KdfId.HkdfSha256,
        aead: AeadId.Aes256Gcm,
      });
      const { privateKey, publicKey } = hpke.kem.deriveKeyPair(ikm(1));
      const info = encodeUtf8('info');
      const { enc, context } = hpke.setupSender(publicKey, info);
      const receiver = hpke.setupReceiver(privateKey, enc, info);
      assert.ok(receiver);
      const [first, second] = [context.seal(info, hex('01')), context.seal(info, hex('02'))];
      assert.equal(receiver.open(info, second), undefined);
      assert.deepEqual(receiver.open(info, first), hex('01'));
      assert.equal(receiver.open(info, first), undefined);
      assert.deepEqual(receiver.open(info, second), hex('02'));
    });

    test('misuse is an error: export-only contexts, weak pre-shared keys, authentication with X-Wing', () => {
      const kem = KemId.X25519HkdfSha256;
      const exporting = createHpke(provider, { kem, kdf: KdfId.HkdfSha512, aead: EXPORT_ONLY });
      const { privateKey, publicKey } = exporting.kem.deriveKeyPair(ikm(1));
      const { enc, context } = exporting.setupSender(publicKey, hex(''));
      const receiver = exporting.setupReceiver(privateKey, enc, hex(''));
      assert.deepEqual(receiver?.export(hex('01'), 40), context.export(hex('01'), 40));
      assert.throws(() => context.seal(hex(''), hex('')), CryptoError);
      assert.throws(() => receiver?.open(hex(''), hex('')), CryptoError);
      for (const psk of [
        { psk: new Uint8Array(31), pskId: hex('01') },
        { psk: new Uint8Array(32), pskId: hex('') },
      ]) {
        assert.throws(() => exporting.setupSender(publicKey, hex(''), { psk }), CryptoError);
      }
      const hybrid = createHpke(provider, { kem: KemId.XWing, kdf: KdfId.HkdfSha384, aead: AeadId.Aes256Gcm });
      const pair = hybrid.kem.deriveKeyPair(ikm(1));
      const options = { senderPrivateKey: pair.privateKey };
      assert.throws(() => hybrid.setupSender(pair.publicKey, hex(''), options), CryptoError);
    });
  });
}

test('what one provider seals the other opens, for every KEM and AEAD', () => {
  let opened = 0;
  for (const [sender, receiver] of [
    [nodeCrypto, nobleCrypto],
    [nobleCrypto, nodeCrypto],
  ] as const) {
    for (const kem of Object.values(KemId)) {
      for (const aead of Object.values(AeadId)) {
        const suiteOf = { kem, kdf: KdfId.HkdfSha384, aead };
        const [sealing, opening] = [createHpke(sender, suiteOf), createHpke(receiver, suiteOf)];
        const { privateKey, publicKey } = opening.kem.deriveKeyPair(ikm(1));
        const { enc, ciphertext } = sealing.sealBase(publicKey, hex('01'), hex('02'), hex('03'));
        assert.deepEqual(opening.openBase(privateKey, enc, hex('01'), hex('02'), ciphertext), hex('03'));
        opened++;
      }
    }
  }
  assert.equal(opened, 30);
});

function flipped(bytes: Uint8Array): Uint8Array {
  const copy = bytes.slice();
  copy[copy.length - 1]! ^= 1;
  return copy;
}

function withEnding(bytes: Uint8Array, ending: Uint8Array): Uint8Array {
  const copy = bytes.slice();
  copy.set(ending, copy.length - ending.length);
  return copy;
}
