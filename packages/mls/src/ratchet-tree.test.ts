/** The cache of tree hashes never answers for a tree that has changed since, nor for another branch of the same tree. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { suiteOf } from './cipher-suites.ts';
import {
  addLeaf,
  blankDirectPath,
  editTree,
  newTree,
  occupiedLeaves,
  type RatchetTree,
  removeLeaf,
  setLeaf,
  setParent,
  subtreeHash,
  treeDirectPath,
  treeHash,
  TreeHashes,
  truncate,
  updateLeaf,
} from './ratchet-tree.ts';
import { readKeyPackageMessage } from './leaf-node.ts';
import { keyPackageOf, makeWorld, person, testSeed } from './testing/world.node.ts';
import type { LeafNode } from './types.ts';

test('the kept hashes are those of the tree as it is, in every branch of it', () => {
  const world = makeWorld(testSeed('tree hashes'));
  const { random } = world;
  const suite = suiteOf(world.context.crypto, 1);
  const { leafNode } = readKeyPackageMessage(keyPackageOf(world, person(world, 'Alice')).keyPackage);
  const leaf = (): LeafNode => ({ ...leafNode, encryptionKey: random.bytes(32) });
  const afresh = (tree: RatchetTree) => treeHash(suite, { ...tree, hashes: new TreeHashes() });

  const branches: RatchetTree[] = [newTree(leaf())];
  for (let step = 0; step < 400; step++) {
    const from = random.pick(branches);
    const before = treeHash(suite, from);
    const tree = editTree(from);
    for (let change = random.below(4); change >= 0; change--) {
      const occupied = [...occupiedLeaves(tree)].map(([at]) => at);
      const at = random.pick(occupied);
      const path = treeDirectPath(tree, at);
      const kind = random.below(6);
      if (kind <= 1 && tree.leaves.length < 64) addLeaf(tree, leaf());
      else if (kind === 2) updateLeaf(tree, at, leaf());
      else if (kind === 3) setLeaf(tree, at, leaf());
      else if (kind === 4) blankDirectPath(tree, at);
      else if (path.length > 0) {
        const parent = { encryptionKey: random.bytes(32), parentHash: random.bytes(32), unmergedLeaves: [] };
        setParent(tree, random.pick(path), parent);
      }
      if (random.below(3) === 0 && occupied.length > 1) {
        // Everything from one leaf on goes, so that trees shrink by halves.
        for (const each of occupied.slice(1 + random.below(occupied.length - 1))) removeLeaf(tree, each);
        truncate(tree);
      }
      // Fills the cache in the middle of an edit.
      if (random.below(2) === 0) subtreeHash(suite, tree, random.below(2 * tree.leaves.length - 1));
    }
    assert.deepEqual(treeHash(suite, tree), afresh(tree), `step ${step}`);
    assert.deepEqual(treeHash(suite, from), before);
    assert.deepEqual(before, afresh(from));
    if (branches.length < 8) branches.push(tree);
    else branches[random.below(8)] = tree;
  }
});
