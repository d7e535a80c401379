import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkLeafNode } from '../leaf-node.ts';
import { decodeRatchetTree, occupiedLeaves, resolution, subtreeHash } from '../ratchet-tree.ts';
import { assertHex, loadVectors, suiteCases, unhex } from '../testing/vectors.node.ts';
import {
  validateCredentialSupport,
  validateKeysUnique,
  validateParentHashes,
  validateUnmergedLeaves,
} from '../tree-validation.ts';

interface Vector {
  readonly cipher_suite: number;
  readonly tree: string;
  readonly group_id: string;
  readonly resolutions: readonly (readonly number[])[];
  readonly tree_hashes: readonly string[];
}

test('tree-validation (RFC 9420 sections 7.8, 7.9, 12.4.3.1)', () => {
  const cases = suiteCases(loadVectors<Vector>('tree-validation'));
  assert.equal(cases.length, 70);
  for (const { suite, vector } of cases) {
    const tree = decodeRatchetTree(unhex(vector.tree));
    vector.resolutions.forEach((expected, node) => assert.deepEqual(resolution(tree, node), expected));
    vector.tree_hashes.forEach((expected, node) => assertHex(subtreeHash(suite, tree, node), expected));
    validateKeysUnique(tree);
    validateUnmergedLeaves(tree);
    validateParentHashes(suite, tree);
    validateCredentialSupport(tree);
    for (const [leafIndex, leaf] of occupiedLeaves(tree)) {
      checkLeafNode(suite, leaf, { source: undefined, groupId: unhex(vector.group_id), leafIndex });
    }
  }
});
