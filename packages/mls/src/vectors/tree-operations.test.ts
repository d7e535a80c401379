import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decode } from '../codec.ts';
import {
  addLeaf,
  decodeRatchetTree,
  editTree,
  encodeRatchetTree,
  removeLeaf,
  treeHash,
  truncate,
  updateLeaf,
} from '../ratchet-tree.ts';
import { readProposal } from '../structures.ts';
import { assertHex, loadVectors, providers, suiteCases, unhex } from '../testing/vectors.node.ts';

interface Vector {
  readonly cipher_suite: number;
  readonly tree_before: string;
  readonly proposal: string;
  readonly proposal_sender: number;
  readonly tree_hash_before: string;
  readonly tree_after: string;
  readonly tree_hash_after: string;
}

for (const crypto of providers) {
  test(`tree-operations (RFC 9420 sections 7.7, 12.1) on ${crypto.name}`, () => {
    const cases = suiteCases(loadVectors<Vector>('tree-operations'), crypto);
    assert.equal(cases.length, 5);
    for (const { suite, vector } of cases) {
      const before = decodeRatchetTree(unhex(vector.tree_before));
      assertHex(treeHash(suite, before), vector.tree_hash_before);
      const after = editTree(before);
      const proposal = decode(readProposal, unhex(vector.proposal));
      if (proposal.kind === 'add') addLeaf(after, proposal.keyPackage.leafNode);
      else if (proposal.kind === 'update') updateLeaf(after, vector.proposal_sender, proposal.leafNode);
      else if (proposal.kind === 'remove') {
        removeLeaf(after, proposal.removed);
        truncate(after);
      } else assert.fail(proposal.kind);
      assertHex(encodeRatchetTree(after), vector.tree_after);
      // Computed with the hashes cached before the change, so that forgetting too few would show.
      assertHex(treeHash(suite, after), vector.tree_hash_after);
      assertHex(treeHash(suite, before), vector.tree_hash_before, 'the tree before is as it was');
    }
  });
}
