/**
 * Full binary trees in an array (RFC 9420 Appendix C): leaf i at node 2i, a parent of level k between its subtrees. A
 * tree of n leaves, n a power of two, has nodes 0 … 2n − 2 and its root at n − 1. 32-bit arithmetic suffices for
 * any tree that fits in a message; an index from outside is looked up in the tree before anything is computed with it.
 */
import type { LeafIndex, NodeIndex } from './types.ts';

export function nodeOfLeaf(leaf: number): NodeIndex {
  return (2 * leaf) as NodeIndex;
}

export function isLeaf(node: number): boolean {
  return (node & 1) === 0;
}

export function leafOfNode(node: number): LeafIndex {
  return (node >>> 1) as LeafIndex;
}

/** 0 for leaves: the number of trailing one bits. */
export function level(node: number): number {
  return 31 - Math.clz32(~node & (node + 1));
}

export function root(leafCount: number): NodeIndex {
  return (leafCount - 1) as NodeIndex;
}

export function left(node: number): NodeIndex {
  return (node ^ (1 << (level(node) - 1))) as NodeIndex;
}

export function right(node: number): NodeIndex {
  return (node ^ (3 << (level(node) - 1))) as NodeIndex;
}

/** Of any node but the root. */
export function parent(node: number): NodeIndex {
  const k = level(node);
  return ((node | (1 << k)) & ~(1 << (k + 1))) as NodeIndex;
}

export function sibling(node: number): NodeIndex {
  const up = parent(node);
  return node < up ? right(up) : left(up);
}

/** The ancestors of a leaf from its parent to the root. */
export function directPath(leaf: number, leafCount: number): NodeIndex[] {
  const path: NodeIndex[] = [];
  const top = root(leafCount);
  let node: number = nodeOfLeaf(leaf);
  while (node !== top) {
    node = parent(node);
    path.push(node as NodeIndex);
  }
  return path;
}

/** The child of `ancestor` on the way to `leaf`, and the other one. */
export function childrenToward(ancestor: number, leaf: number): { toward: NodeIndex; away: NodeIndex } {
  const l = left(ancestor);
  const r = right(ancestor);
  return 2 * leaf < ancestor ? { toward: l, away: r } : { toward: r, away: l };
}

export function firstLeaf(node: number): LeafIndex {
  return ((node - ((1 << level(node)) - 1)) >>> 1) as LeafIndex;
}

export function lastLeaf(node: number): LeafIndex {
  return ((node + ((1 << level(node)) - 1)) >>> 1) as LeafIndex;
}

export function inSubtree(node: number, leaf: number): boolean {
  return leaf >= firstLeaf(node) && leaf <= lastLeaf(node);
}

/** The lowest node with both leaves below it; the leaf itself when they are the same. */
export function commonAncestor(a: number, b: number): NodeIndex {
  const x = 2 * a;
  const y = 2 * b;
  if (x === y) return x as NodeIndex;
  const k = 32 - Math.clz32(x ^ y);
  return (((x >>> k) << k) | ((1 << (k - 1)) - 1)) as NodeIndex;
}
