import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  decryptWithLabel,
  deriveSecret,
  deriveTreeSecret,
  encryptWithLabel,
  expandWithLabel,
  refHash,
  signWithLabel,
  verifyWithLabel,
} from '../cipher-suites.ts';
import { assertHex, loadVectors, providers, suiteCases, unhex } from '../testing/vectors.node.ts';

interface Vector {
  readonly cipher_suite: number;
  readonly ref_hash: { label: string; value: string; out: string };
  readonly expand_with_label: { secret: string; label: string; context: string; length: number; out: string };
  readonly derive_secret: { secret: string; label: string; out: string };
  readonly derive_tree_secret: { secret: string; label: string; generation: number; length: number; out: string };
  readonly sign_with_label: { priv: string; pub: string; content: string; label: string; signature: string };
  readonly encrypt_with_label: {
    priv: string;
    pub: string;
    label: string;
    context: string;
    plaintext: string;
    kem_output: string;
    ciphertext: string;
  };
}

for (const crypto of providers) {
  test(`crypto-basics (RFC 9420 section 5) on ${crypto.name}`, () => {
    const cases = suiteCases(loadVectors<Vector>('crypto-basics'), crypto);
    assert.equal(cases.length, 5);
    for (const { suite, vector } of cases) {
      const r = vector.ref_hash;
      assertHex(refHash(suite, r.label, unhex(r.value)), r.out);
      const e = vector.expand_with_label;
      assertHex(expandWithLabel(suite, unhex(e.secret), e.label, unhex(e.context), e.length), e.out);
      const d = vector.derive_secret;
      assertHex(deriveSecret(suite, unhex(d.secret), d.label), d.out);
      const t = vector.derive_tree_secret;
      assertHex(deriveTreeSecret(suite, unhex(t.secret), t.label, t.generation, t.length), t.out);

      const s = vector.sign_with_label;
      const publicKey = unhex(s.pub);
      assert.ok(verifyWithLabel(suite, publicKey, s.label, unhex(s.content), unhex(s.signature)));
      const signature = signWithLabel(suite, unhex(s.priv), s.label, unhex(s.content));
      assert.ok(verifyWithLabel(suite, publicKey, s.label, unhex(s.content), signature));
      assert.ok(!verifyWithLabel(suite, publicKey, `${s.label}x`, unhex(s.content), signature));

      const h = vector.encrypt_with_label;
      const sealed = { kemOutput: unhex(h.kem_output), ciphertext: unhex(h.ciphertext) };
      assertHex(decryptWithLabel(suite, unhex(h.priv), h.label, unhex(h.context), sealed), h.plaintext);
      const own = encryptWithLabel(suite, unhex(h.pub), h.label, unhex(h.context), unhex(h.plaintext));
      assertHex(decryptWithLabel(suite, unhex(h.priv), h.label, unhex(h.context), own), h.plaintext);
    }
  });
}
