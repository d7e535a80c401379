/**
 * The public ratchet tree (RFC 9420 sections 4, 7.4–7.9, 12.4.3.3): nodes, resolutions, adding and removing leaves, tree
 * and parent hashes.
 *
 * A tree is two flat arrays of references, leaves and parents, and a cache of tree hashes filled on demand. A new epoch
 * copies the arrays of references once (`editTree`), changes a few entries and drops the cached hashes above them; nodes
 * themselves are never changed.
 */
import { EMPTY, encodeHex, equal } from '@quicprochat/crypto';
import { hash, type Suite } from './cipher-suites.ts';
import { decode, encode, type Reader, Writer } from './codec.ts';
import { demand, violated } from './errors.ts';
import { readLeafNode, readParentNode, writeLeafNode, writeParentNode } from './structures.ts';
import {
  childrenToward,
  directPath,
  firstLeaf,
  isLeaf,
  lastLeaf,
  left,
  leafOfNode,
  nodeOfLeaf,
  right,
  root,
} from './tree-math.ts';
import type { LeafIndex, LeafNode, NodeIndex, ParentNode } from './types.ts';

export interface RatchetTree {
  /** A power of two long; undefined is blank. */
  readonly leaves: readonly (LeafNode | undefined)[];
  /** Node 2i + 1 at i. */
  readonly parents: readonly (ParentNode | undefined)[];
  readonly hashes: TreeHashes;
}

/**
 * Tree hashes by node index, as far as they have been computed: in one array, since an array of its own for each of
 * 20,000 nodes costs eight times the hash.
 */
export class TreeHashes {
  #known: Uint8Array;
  #bytes: Uint8Array;

  constructor(known = EMPTY, bytes = EMPTY) {
    this.#known = known;
    this.#bytes = bytes;
  }

  copy(): TreeHashes {
    return new TreeHashes(this.#known.slice(), this.#bytes.slice());
  }

  /** A view, good until the node changes. */
  get(node: number, length: number): Uint8Array | undefined {
    return this.#known[node] === 1 ? this.#bytes.subarray(node * length, (node + 1) * length) : undefined;
  }

  /** @param nodeCount of the whole tree */
  set(node: number, value: Uint8Array, nodeCount: number): void {
    if (this.#known.length < nodeCount) {
      const [known, bytes] = [new Uint8Array(nodeCount), new Uint8Array(nodeCount * value.length)];
      known.set(this.#known);
      bytes.set(this.#bytes);
      [this.#known, this.#bytes] = [known, bytes];
    }
    this.#known[node] = 1;
    this.#bytes.set(value, node * value.length);
  }

  forget(node: number): void {
    this.#known[node] = 0;
  }

  /** Forgets all nodes from this one on. */
  forgetFrom(node: number): void {
    this.#known.fill(0, node);
  }
}

export interface TreeEditor extends RatchetTree {
  readonly leaves: (LeafNode | undefined)[];
  readonly parents: (ParentNode | undefined)[];
}

/** Every blank below the last member costs a hash, so the size of a tree is bounded apart from its members. */
export const TREE_LEAVES_MAX = 1 << 16;

export function newTree(leaf: LeafNode): RatchetTree {
  return { leaves: [leaf], parents: [], hashes: new TreeHashes() };
}

export function editTree(tree: RatchetTree): TreeEditor {
  return { leaves: tree.leaves.slice(), parents: tree.parents.slice(), hashes: tree.hashes.copy() };
}

export function leafAt(tree: RatchetTree, leaf: number): LeafNode | undefined {
  return tree.leaves[leaf];
}

export function parentAt(tree: RatchetTree, node: number): ParentNode | undefined {
  return tree.parents[node >>> 1];
}

export function encryptionKeyAt(tree: RatchetTree, node: number): Uint8Array | undefined {
  return isLeaf(node) ? tree.leaves[node >>> 1]?.encryptionKey : tree.parents[node >>> 1]?.encryptionKey;
}

function treeRoot(tree: RatchetTree): NodeIndex {
  return root(tree.leaves.length);
}

export function treeDirectPath(tree: RatchetTree, leaf: number): NodeIndex[] {
  return directPath(leaf, tree.leaves.length);
}

/** Members in order of leaf index. */
export function* occupiedLeaves(tree: RatchetTree): Generator<readonly [LeafIndex, LeafNode]> {
  const { leaves } = tree;
  for (let i = 0; i < leaves.length; i++) {
    const leaf = leaves[i];
    if (leaf !== undefined) yield [i as LeafIndex, leaf];
  }
}

// ---- Resolution and filtered direct path (sections 4.1.1, 4.1.2) ----------------------------------------------------

/** The non-blank nodes that together cover the subtree, `excluded` leaves left out. */
export function resolution(tree: RatchetTree, node: number, excluded?: ReadonlySet<number>): NodeIndex[] {
  const out: NodeIndex[] = [];
  collectResolution(tree, node, excluded, out);
  return out;
}

function collectResolution(
  tree: RatchetTree,
  node: number,
  excluded: ReadonlySet<number> | undefined,
  out: NodeIndex[],
): void {
  if (isLeaf(node)) {
    if (tree.leaves[node >>> 1] !== undefined && !excluded?.has(node >>> 1)) out.push(node as NodeIndex);
    return;
  }
  const parent = parentAt(tree, node);
  if (parent === undefined) {
    collectResolution(tree, left(node), excluded, out);
    collectResolution(tree, right(node), excluded, out);
    return;
  }
  out.push(node as NodeIndex);
  for (const leaf of parent.unmergedLeaves) if (!excluded?.has(leaf)) out.push(nodeOfLeaf(leaf));
}

function isEmptySubtree(tree: RatchetTree, node: number): boolean {
  const last = lastLeaf(node);
  for (let leaf: number = firstLeaf(node); leaf <= last; leaf++) if (tree.leaves[leaf] !== undefined) return false;
  return true;
}

export interface PathStep {
  readonly node: NodeIndex;
  /** The child of `node` off the path. */
  readonly copath: NodeIndex;
}

/** The direct path without the nodes whose other child has an empty resolution, leaf to root. */
export function filteredDirectPath(tree: RatchetTree, leaf: number): PathStep[] {
  const path: PathStep[] = [];
  for (const node of treeDirectPath(tree, leaf)) {
    const { away } = childrenToward(node, leaf);
    if (!isEmptySubtree(tree, away)) path.push({ node, copath: away });
  }
  return path;
}

// ---- Changing a tree (sections 7.7, 12.1) ---------------------------------------------------------------------------

function forgetHashes(tree: TreeEditor, leaf: number): void {
  tree.hashes.forget(nodeOfLeaf(leaf));
  for (const node of treeDirectPath(tree, leaf)) tree.hashes.forget(node);
}

export function setLeaf(tree: TreeEditor, leaf: number, value: LeafNode | undefined): void {
  tree.leaves[leaf] = value;
  forgetHashes(tree, leaf);
}

export function setParent(tree: TreeEditor, node: number, value: ParentNode | undefined): void {
  tree.parents[node >>> 1] = value;
  // Any leaf below has the same ancestors from here up; those further down are dropped for nothing, which is harmless.
  forgetHashes(tree, firstLeaf(node));
}

export function blankDirectPath(tree: TreeEditor, leaf: number): void {
  for (const node of treeDirectPath(tree, leaf)) tree.parents[node >>> 1] = undefined;
  forgetHashes(tree, leaf);
}

/** Puts a new member at the leftmost blank leaf, extending the tree when there is none (section 7.7). */
export function addLeaf(tree: TreeEditor, value: LeafNode, searchFrom = 0): LeafIndex {
  let leaf = searchFrom;
  while (leaf < tree.leaves.length && tree.leaves[leaf] !== undefined) leaf++;
  if (leaf === tree.leaves.length) {
    const count = tree.leaves.length;
    demand(2 * count <= TREE_LEAVES_MAX, 'treeSize');
    for (let i = 0; i < count; i++) tree.leaves.push(undefined);
    for (let i = 0; i < count; i++) tree.parents.push(undefined);
  }
  tree.leaves[leaf] = value;
  for (const node of treeDirectPath(tree, leaf)) {
    const parent = tree.parents[node >>> 1];
    if (parent !== undefined) {
      tree.parents[node >>> 1] = { ...parent, unmergedLeaves: insertSorted(parent.unmergedLeaves, leaf as LeafIndex) };
    }
  }
  forgetHashes(tree, leaf);
  return leaf as LeafIndex;
}

function insertSorted(leaves: readonly LeafIndex[], leaf: LeafIndex): LeafIndex[] {
  let at = leaves.length;
  while (at > 0 && leaves[at - 1]! > leaf) at--;
  return [...leaves.slice(0, at), leaf, ...leaves.slice(at)];
}

export function updateLeaf(tree: TreeEditor, leaf: number, value: LeafNode): void {
  tree.leaves[leaf] = value;
  blankDirectPath(tree, leaf);
}

export function removeLeaf(tree: TreeEditor, leaf: number): void {
  tree.leaves[leaf] = undefined;
  blankDirectPath(tree, leaf);
}

/** Halves the tree while its right half is empty; once after all removals comes to the same as after each. */
export function truncate(tree: TreeEditor): void {
  let count = tree.leaves.length;
  while (count > 1) {
    const half = count / 2;
    let empty = true;
    for (let leaf = half; leaf < count && empty; leaf++) empty = tree.leaves[leaf] === undefined;
    if (!empty) break;
    count = half;
  }
  if (count === tree.leaves.length) return;
  tree.leaves.length = count;
  tree.parents.length = count - 1;
  tree.hashes.forgetFrom(2 * count - 1);
}

// ---- Hashes (sections 7.8, 7.9) -------------------------------------------------------------------------------------

export function treeHash(suite: Suite, tree: RatchetTree): Uint8Array {
  return subtreeHash(suite, tree, treeRoot(tree)).slice();
}

/** A view of the cache, good until the tree changes. */
export function subtreeHash(suite: Suite, tree: RatchetTree, node: number): Uint8Array {
  const known = tree.hashes.get(node, suite.hashLength);
  if (known !== undefined) return known;
  const value = isLeaf(node)
    ? leafHash(suite, leafOfNode(node), leafAt(tree, node >>> 1))
    : parentNodeHash(
        suite,
        parentAt(tree, node),
        subtreeHash(suite, tree, left(node)),
        subtreeHash(suite, tree, right(node)),
      );
  tree.hashes.set(node, value, 2 * tree.leaves.length - 1);
  return value;
}

function leafHash(suite: Suite, leaf: number, value: LeafNode | undefined): Uint8Array {
  const writer = new Writer().u8(1).u32(leaf).optional(value, writeLeafNode);
  return writer.finishInto((bytes) => hash(suite, bytes));
}

function parentNodeHash(
  suite: Suite,
  value: ParentNode | undefined,
  leftHash: Uint8Array,
  rightHash: Uint8Array,
): Uint8Array {
  const writer = new Writer().u8(2).optional(value, writeParentNode).opaque(leftHash).opaque(rightHash);
  return writer.finishInto((bytes) => hash(suite, bytes));
}

/** The tree hash of a subtree as it would be had the `excluded` leaves (ascending) never been added. */
function subtreeHashWithout(suite: Suite, tree: RatchetTree, node: number, excluded: readonly LeafIndex[]): Uint8Array {
  const first = firstLeaf(node);
  const last = lastLeaf(node);
  const within = excluded.filter((leaf) => leaf >= first && leaf <= last);
  if (within.length === 0) return subtreeHash(suite, tree, node);
  if (isLeaf(node)) return leafHash(suite, node >>> 1, undefined);
  const parent = parentAt(tree, node);
  const gone = new Set<number>(within);
  return parentNodeHash(
    suite,
    parent && { ...parent, unmergedLeaves: parent.unmergedLeaves.filter((leaf) => !gone.has(leaf)) },
    subtreeHashWithout(suite, tree, left(node), within),
    subtreeHashWithout(suite, tree, right(node), within),
  );
}

/** The parent hash of P with copath child S. */
export function parentHash(suite: Suite, tree: RatchetTree, parent: ParentNode, copath: NodeIndex): Uint8Array {
  const siblingHash = subtreeHashWithout(suite, tree, copath, parent.unmergedLeaves);
  const writer = new Writer().opaque(parent.encryptionKey).opaque(parent.parentHash).opaque(siblingHash);
  return writer.finishInto((bytes) => hash(suite, bytes));
}

/**
 * Gives the nodes of a fresh path their keys and parent hashes, from the root down, and returns the parent hash for the
 * leaf. The direct path must be blank before.
 */
export function setPathKeys(
  suite: Suite,
  tree: TreeEditor,
  path: readonly PathStep[],
  keys: readonly Uint8Array[],
): Uint8Array {
  let above: Uint8Array = EMPTY;
  for (let i = path.length - 1; i >= 0; i--) {
    const { node, copath } = path[i]!;
    const parent: ParentNode = { encryptionKey: keys[i]!, parentHash: above, unmergedLeaves: [] };
    setParent(tree, node, parent);
    above = parentHash(suite, tree, parent, copath);
  }
  return above;
}

// ---- The ratchet_tree extension (section 12.4.3.3) ------------------------------------------------------------------

type Node = { kind: 'leaf'; leaf: LeafNode } | { kind: 'parent'; parent: ParentNode };

function readNode(reader: Reader): Node {
  switch (reader.u8()) {
    case 1:
      return { kind: 'leaf', leaf: readLeafNode(reader) };
    case 2:
      return { kind: 'parent', parent: readParentNode(reader) };
    default:
      return violated('malformed', 'unknown node type');
  }
}

export function decodeRatchetTree(bytes: Uint8Array): RatchetTree {
  const nodes = decode((reader) => reader.vector((r) => r.optional(readNode)), bytes);
  demand(nodes.length > 0 && nodes.at(-1) !== undefined, 'treeTrailingBlank');
  demand(nodes.length < 2 * TREE_LEAVES_MAX, 'treeSize');
  const leaves: (LeafNode | undefined)[] = [];
  const parents: (ParentNode | undefined)[] = [];
  for (let i = 0; i < nodes.length; i++) {
    const node = nodes[i];
    demand(node === undefined || (node.kind === 'leaf') === isLeaf(i), 'treeNodeType');
    if (isLeaf(i)) leaves.push(node?.kind === 'leaf' ? node.leaf : undefined);
    else parents.push(node?.kind === 'parent' ? node.parent : undefined);
  }
  let count = 1;
  while (2 * count - 1 < nodes.length) count *= 2;
  while (leaves.length < count) leaves.push(undefined);
  while (parents.length < count - 1) parents.push(undefined);
  return { leaves, parents, hashes: new TreeHashes() };
}

export function encodeRatchetTree(tree: RatchetTree): Uint8Array {
  let end = 2 * tree.leaves.length - 1;
  while (end > 0 && encryptionKeyAt(tree, end - 1) === undefined) end--;
  const nodes = Array.from({ length: end }, (_, node) => node);
  return encode(
    (w, list) => {
      w.vector(list, (inner, node) => {
        if (isLeaf(node)) inner.optional(leafAt(tree, node >>> 1), (w2, leaf) => writeLeafNode(w2.u8(1), leaf));
        else inner.optional(parentAt(tree, node), (w2, parent) => writeParentNode(w2.u8(2), parent));
      });
    },
    nodes,
    512 * tree.leaves.length,
  );
}

// ---- Looking for keys -----------------------------------------------------------------------------------------------

/** Finds which of some encryption keys the tree already has, without building an index when they are few. */
export function findEncryptionKey(
  tree: RatchetTree,
  keys: readonly Uint8Array[],
  ignored?: ReadonlySet<number>,
): Uint8Array | undefined {
  const wanted = keyMatcher(keys);
  const count = 2 * tree.leaves.length - 1;
  for (let node = 0; node < count; node++) {
    const key = encryptionKeyAt(tree, node);
    if (key !== undefined && wanted(key) && !ignored?.has(node)) return key;
  }
  return undefined;
}

export function findSignatureKey(
  tree: RatchetTree,
  keys: readonly Uint8Array[],
  ignored?: ReadonlySet<number>,
): LeafIndex | undefined {
  const wanted = keyMatcher(keys);
  for (const [leaf, node] of occupiedLeaves(tree)) {
    if (wanted(node.signatureKey) && !ignored?.has(leaf)) return leaf;
  }
  return undefined;
}

function keyMatcher(keys: readonly Uint8Array[]): (key: Uint8Array) => boolean {
  if (keys.length > 16) {
    const set = new Set(keys.map(encodeHex));
    return (key) => set.has(encodeHex(key));
  }
  return (key) => keys.some((each) => each[0] === key[0] && equal(each, key));
}

/** The first key that occurs twice. */
export function duplicate(keys: Iterable<Uint8Array>): Uint8Array | undefined {
  const seen = new Set<string>();
  for (const key of keys) {
    const text = encodeHex(key);
    if (seen.has(text)) return key;
    seen.add(text);
  }
  return undefined;
}
