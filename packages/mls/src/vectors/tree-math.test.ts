import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadVectors } from '../testing/vectors.node.ts';
import { isLeaf, left, parent, right, root, sibling } from '../tree-math.ts';

interface Vector {
  readonly n_leaves: number;
  readonly n_nodes: number;
  readonly root: number;
  readonly left: (number | null)[];
  readonly right: (number | null)[];
  readonly parent: (number | null)[];
  readonly sibling: (number | null)[];
}

test('tree-math (RFC 9420 Appendix C)', () => {
  const cases = loadVectors<Vector>('tree-math');
  assert.equal(cases.length, 10);
  for (const vector of cases) {
    const count = 2 * vector.n_leaves - 1;
    assert.equal(count, vector.n_nodes);
    assert.equal(root(vector.n_leaves), vector.root);
    for (let node = 0; node < count; node++) {
      assert.equal(isLeaf(node) ? null : left(node), vector.left[node]);
      assert.equal(isLeaf(node) ? null : right(node), vector.right[node]);
      assert.equal(node === vector.root ? null : parent(node), vector.parent[node]);
      assert.equal(node === vector.root ? null : sibling(node), vector.sibling[node]);
    }
  }
});
