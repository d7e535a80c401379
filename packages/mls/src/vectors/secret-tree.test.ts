import assert from 'node:assert/strict';
import { test } from 'node:test';
import { expandWithLabel } from '../cipher-suites.ts';
import { defaultConfig } from '../group-state.ts';
import { newSecretTree, takeKey } from '../secret-tree.ts';
import { assertHex, loadVectors, providers, suiteCases, unhex } from '../testing/vectors.node.ts';

interface Vector {
  readonly cipher_suite: number;
  readonly sender_data: { sender_data_secret: string; ciphertext: string; key: string; nonce: string };
  readonly encryption_secret: string;
  readonly leaves: readonly (readonly {
    generation: number;
    handshake_key: string;
    handshake_nonce: string;
    application_key: string;
    application_nonce: string;
  }[])[];
}

for (const crypto of providers) {
  test(`secret-tree (RFC 9420 sections 6.3.2, 9) on ${crypto.name}`, () => {
    const cases = suiteCases(loadVectors<Vector>('secret-tree'), crypto);
    assert.equal(cases.length, 15);
    for (const { suite, vector } of cases) {
      const data = vector.sender_data;
      const sample = unhex(data.ciphertext).subarray(0, suite.hashLength);
      const secret = unhex(data.sender_data_secret);
      assertHex(expandWithLabel(suite, secret, 'key', sample, suite.aead.keyLength), data.key);
      assertHex(expandWithLabel(suite, secret, 'nonce', sample, suite.aead.nonceLength), data.nonce);

      let tree = newSecretTree(unhex(vector.encryption_secret), vector.leaves.length);
      vector.leaves.forEach((generations, leaf) => {
        for (const expected of generations) {
          for (const kind of ['handshake', 'application'] as const) {
            const taken = takeKey(suite, tree, leaf, kind, expected.generation, defaultConfig, 10_000);
            assertHex(taken.key.key, expected[`${kind}_key`]);
            assertHex(taken.key.nonce, expected[`${kind}_nonce`]);
            ({ tree } = taken);
          }
        }
      });
    }
  });
}
