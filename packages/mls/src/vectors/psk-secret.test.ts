import assert from 'node:assert/strict';
import { test } from 'node:test';
import { derivePskSecret } from '../key-schedule.ts';
import { assertHex, loadVectors, providers, suiteCases, unhex } from '../testing/vectors.node.ts';

interface Vector {
  readonly cipher_suite: number;
  readonly psks: readonly { psk_id: string; psk: string; psk_nonce: string }[];
  readonly psk_secret: string;
}

for (const crypto of providers) {
  test(`psk_secret (RFC 9420 section 8.4) on ${crypto.name}`, () => {
    const cases = suiteCases(loadVectors<Vector>('psk_secret'), crypto);
    assert.equal(cases.length, 55);
    for (const { suite, vector } of cases) {
      const psks = vector.psks.map(({ psk_id: id, psk, psk_nonce: nonce }) => ({
        id: { kind: 'external' as const, pskId: unhex(id), pskNonce: unhex(nonce) },
        psk: unhex(psk),
      }));
      assertHex(derivePskSecret(suite, psks), vector.psk_secret);
    }
  });
}
