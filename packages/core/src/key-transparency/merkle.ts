/**
 * The Merkle tree of the key-transparency log and of batches of receipts (PROTOCOL 7, 8; RFC 9162 section 2.1): leaf =
 * SHA-256(00 ‖ entry), node = SHA-256(01 ‖ left ‖ right).
 *
 * Of a log only hashes of complete subtrees are ever stored, each once, in the order in which they become complete:
 *
 *   append   Frontier ─ appendLeaves ─▶ next Frontier + hashes to store at positions nodeCount(size), +1, +2, …
 *   prove    plan…Proof(…) ─ positions ─▶ the store reads those hashes ─ assembleProof ─▶ proof     (O(log n) each)
 *   verify   verifyInclusion, verifyConsistency
 *
 * So a store is one append-only table (position, hash) of fewer than 2n rows, and whether reading it is asynchronous is
 * nobody's business here. A small tree that is never appended to is held whole: `treeLevels`, `inclusionPath`.
 */
import { concat, equal } from '@quicprochat/crypto';
import type { CryptoProvider } from '@quicprochat/crypto';
import { Misuse } from '../errors.ts';

export const TREE_HASH_BYTES = 32;
/** Sizes beyond are refused; every count below stays exact in a double. */
export const TREE_SIZE_MAX = 2 ** 48;

export const LEAF_PREFIX = 0x00;
const NODE_PREFIX = 0x01;

export function leafHash(crypto: CryptoProvider, entry: Uint8Array): Uint8Array {
  return crypto.hash('sha256', concat(new Uint8Array([LEAF_PREFIX]), entry));
}

// One for all: trees are hashed by the million, and an array of this size costs nearly as much as its hash.
const node = new Uint8Array(1 + 2 * TREE_HASH_BYTES);
node[0] = NODE_PREFIX;

/** @throws Misuse unless both are hashes */
export function nodeHash(crypto: CryptoProvider, left: Uint8Array, right: Uint8Array): Uint8Array {
  if (left.length !== TREE_HASH_BYTES || right.length !== TREE_HASH_BYTES) {
    throw new Misuse('a node of a tree is made of two hashes');
  }
  node.set(left, 1);
  node.set(right, 1 + TREE_HASH_BYTES);
  return crypto.hash('sha256', node);
}

/** Whether this is a number of leaves that we handle. */
export function isTreeSize(size: number): boolean {
  return Number.isSafeInteger(size) && size >= 0 && size <= TREE_SIZE_MAX;
}

// Appending

/** A tree's right edge, all it takes to append and to know the root: one hash per bit set in `size`, largest first. */
export interface Frontier {
  readonly size: number;
  readonly peaks: readonly Uint8Array[];
}

export const EMPTY_FRONTIER: Frontier = { size: 0, peaks: [] };

export interface Appended {
  readonly frontier: Frontier;
  /** Hashes to store from position `nodeCount(old size)` on, in order. */
  readonly hashes: readonly Uint8Array[];
}

/** Appends leaves, given by their hashes. The frontier given is not changed. */
export function appendLeaves(crypto: CryptoProvider, frontier: Frontier, leaves: readonly Uint8Array[]): Appended {
  const peaks = [...frontier.peaks];
  const hashes: Uint8Array[] = [];
  let { size } = frontier;
  for (const leaf of leaves) {
    let hash = leaf;
    hashes.push(hash);
    for (let left = size; left % 2 === 1; left = (left - 1) / 2) {
      hash = nodeHash(crypto, peaks.pop()!, hash);
      hashes.push(hash);
    }
    peaks.push(hash);
    size++;
  }
  return { frontier: { size, peaks }, hashes };
}

/** The root hash, 32 bytes; SHA-256 of nothing for the empty tree. */
export function rootHash(crypto: CryptoProvider, frontier: Frontier): Uint8Array {
  return frontier.peaks.length === 0 ? crypto.hash('sha256', new Uint8Array(0)) : fold(crypto, frontier.peaks);
}

/** How many hashes a store holds for a tree of this size. */
export function nodeCount(size: number): number {
  return 2 * checkedSize(size) - bitsSet(size);
}

/** Where the hashes of a frontier are stored, in the order of its `peaks`. */
export function frontierPositions(size: number): number[] {
  return subtrees(0, checkedSize(size));
}

// Proving

/** Which stored hashes a proof is made of. */
export interface ProofPlan {
  /** Positions to read, in order; at most about 100. */
  readonly positions: readonly number[];
  /** How many of them, one run after the other, make each hash of the proof. */
  readonly runs: readonly number[];
}

/** Inclusion of leaf `index` in the tree of `size` leaves (RFC 9162 section 2.1.3.1). @throws Misuse out of range. */
export function planInclusionProof(index: number, size: number): ProofPlan {
  if (!isTreeSize(size) || !Number.isSafeInteger(index) || index < 0 || index >= size) {
    throw new Misuse('an inclusion proof needs a leaf inside the tree');
  }
  const ranges: Range[] = [];
  let start = 0;
  let end = size;
  while (end - start > 1) {
    const middle = start + largestPowerOfTwoBelow(end - start);
    if (index < middle) {
      ranges.push([middle, end]);
      end = middle;
    } else {
      ranges.push([start, middle]);
      start = middle;
    }
  }
  return planOf(ranges.toReversed());
}

/** That the tree of `first` leaves is the beginning of that of `second` (RFC 9162 section 2.1.4.1). @throws Misuse. */
export function planConsistencyProof(first: number, second: number): ProofPlan {
  if (!isTreeSize(first) || !isTreeSize(second) || first < 1 || first > second) {
    throw new Misuse('a consistency proof needs two sizes, 1 ≤ first ≤ second');
  }
  const ranges: Range[] = [];
  let start = 0;
  let end = second;
  while (end !== first) {
    const middle = start + largestPowerOfTwoBelow(end - start);
    if (first <= middle) {
      ranges.push([middle, end]);
      end = middle;
    } else {
      ranges.push([start, middle]);
      start = middle;
    }
  }
  // The first tree itself is known to the verifier; a part of it is not.
  if (start > 0) ranges.push([start, end]);
  return planOf(ranges.toReversed());
}

/** The root of the tree as it was at an earlier `size` ≥ 1: a plan whose proof is that one hash. */
export function planRoot(size: number): ProofPlan {
  if (!isTreeSize(size) || size < 1) throw new Misuse('a root is planned for trees of one leaf or more');
  return planOf([[0, size]]);
}

/** The proof, from the hashes at `plan.positions` in that order. @throws Misuse when their number does not fit. */
export function assembleProof(crypto: CryptoProvider, plan: ProofPlan, hashes: readonly Uint8Array[]): Uint8Array[] {
  if (hashes.length !== plan.positions.length)
    throw new Misuse('a proof is assembled from all hashes it is planned for');
  let at = 0;
  return plan.runs.map((length) => fold(crypto, hashes.slice(at, (at += length))));
}

/** Leaves from the first up to, not including, the second. */
type Range = readonly [start: number, end: number];

function planOf(ranges: readonly Range[]): ProofPlan {
  const parts = ranges.map(([start, end]) => subtrees(start, end));
  return { positions: parts.flat(), runs: parts.map((part) => part.length) };
}

/** Positions of the complete subtrees that cover leaves [start, end), from left to right, each as large as possible. */
function subtrees(start: number, end: number): number[] {
  const positions: number[] = [];
  for (let from = start; from < end;) {
    let level = 0;
    let leaves = 1;
    while (leaves * 2 <= end - from) {
      leaves *= 2;
      level++;
    }
    from += leaves;
    positions.push(positionOf(level, from - 1));
  }
  return positions;
}

/** A subtree is stored when its last leaf is: after all that came before, and above its own smaller ones. */
function positionOf(level: number, lastLeaf: number): number {
  return 2 * lastLeaf - bitsSet(lastLeaf) + level;
}

/** The root over neighbouring subtrees, the smallest of which is the last (RFC 9162 section 2.1.1). */
function fold(crypto: CryptoProvider, hashes: readonly Uint8Array[]): Uint8Array {
  return hashes.reduceRight((right, left) => nodeHash(crypto, left, right));
}

function largestPowerOfTwoBelow(n: number): number {
  let power = 1;
  while (power * 2 < n) power *= 2;
  return power;
}

/** Without bitwise operators, which see 32 bits only. */
function bitsSet(n: number): number {
  let bits = 0;
  for (let rest = n; rest > 0; rest = Math.floor(rest / 2)) bits += rest % 2;
  return bits;
}

function checkedSize(size: number): number {
  if (!isTreeSize(size)) throw new Misuse('the size of a tree is out of range');
  return size;
}

// Small trees

/**
 * A tree of one leaf or more by its levels: the hashes of the leaves first, the root last and alone. A subtree that has no
 * neighbour goes up as it is, which is the tree of RFC 9162 section 2.1.1.
 */
export function treeLevels(crypto: CryptoProvider, leaves: readonly Uint8Array[]): readonly (readonly Uint8Array[])[] {
  const levels = [leaves];
  for (let below = leaves; below.length > 1;) {
    const level: Uint8Array[] = [];
    for (let i = 0; i + 1 < below.length; i += 2) level.push(nodeHash(crypto, below[i]!, below[i + 1]!));
    if (below.length % 2 === 1) level.push(below.at(-1)!);
    levels.push(level);
    below = level;
  }
  return levels;
}

/** The hashes that prove inclusion of leaf `index`, as `verifyInclusion` wants them. */
export function inclusionPath(levels: readonly (readonly Uint8Array[])[], index: number): Uint8Array[] {
  const path: Uint8Array[] = [];
  let at = index;
  for (const level of levels) {
    const sibling = level[at % 2 === 1 ? at - 1 : at + 1];
    if (sibling !== undefined) path.push(sibling);
    at = Math.floor(at / 2);
  }
  return path;
}

/** How many hashes prove inclusion of leaf `index` in a tree of `size`. */
export function inclusionPathLength(index: number, size: number): number {
  let length = 0;
  let at = index;
  for (let last = size - 1; last > 0; last = Math.floor(last / 2)) {
    if (at % 2 === 1 || at < last) length++;
    at = Math.floor(at / 2);
  }
  return length;
}

// Verifying

export interface InclusionClaim {
  readonly leafHash: Uint8Array;
  readonly index: number;
  readonly size: number;
  readonly root: Uint8Array;
}

/** RFC 9162 section 2.1.3.2. Any number and any bytes may be given; false unless the proof fits exactly. */
export function verifyInclusion(crypto: CryptoProvider, claim: InclusionClaim, proof: readonly Uint8Array[]): boolean {
  const root = rootByInclusion(crypto, claim, proof);
  return root !== undefined && equal(root, claim.root);
}

/** The root that a proof of inclusion leads to. Any number and any bytes may be given; undefined when they do not fit. */
export function rootByInclusion(
  crypto: CryptoProvider,
  { leafHash: leaf, index, size }: Omit<InclusionClaim, 'root'>,
  proof: readonly Uint8Array[],
): Uint8Array | undefined {
  if (!isTreeSize(size) || !Number.isSafeInteger(index) || index < 0 || index >= size) return undefined;
  if (!areHashes(leaf) || !isProof(proof)) return undefined;
  let at = index;
  let last = size - 1;
  let hash = leaf;
  for (const sibling of proof) {
    if (last === 0) return undefined;
    if (at % 2 === 1 || at === last) {
      hash = nodeHash(crypto, sibling, hash);
      while (at % 2 === 0 && at !== 0) {
        at /= 2;
        last = Math.floor(last / 2);
      }
    } else {
      hash = nodeHash(crypto, hash, sibling);
    }
    at = Math.floor(at / 2);
    last = Math.floor(last / 2);
  }
  return last === 0 ? hash : undefined;
}

export interface ConsistencyClaim {
  readonly first: number;
  readonly firstRoot: Uint8Array;
  readonly second: number;
  readonly secondRoot: Uint8Array;
}

/** RFC 9162 section 2.1.4.2. Nothing is consistent with the empty tree by proof: compare with its root instead. */
export function verifyConsistency(
  crypto: CryptoProvider,
  claim: ConsistencyClaim,
  proof: readonly Uint8Array[],
): boolean {
  const { first, firstRoot, second, secondRoot } = claim;
  if (!isTreeSize(first) || !isTreeSize(second) || first < 1 || first > second) return false;
  if (first === second) return proof.length === 0 && equal(firstRoot, secondRoot);
  if (proof.length === 0 || !areHashes(firstRoot, secondRoot) || !isProof(proof)) return false;
  const path = bitsSet(first) === 1 ? [firstRoot, ...proof] : proof;
  let at = first - 1;
  let last = second - 1;
  while (at % 2 === 1) {
    at = Math.floor(at / 2);
    last = Math.floor(last / 2);
  }
  let one = path[0]!;
  let two = path[0]!;
  for (const sibling of path.slice(1)) {
    if (last === 0) return false;
    if (at % 2 === 1 || at === last) {
      one = nodeHash(crypto, sibling, one);
      two = nodeHash(crypto, sibling, two);
      while (at % 2 === 0 && at !== 0) {
        at /= 2;
        last = Math.floor(last / 2);
      }
    } else {
      two = nodeHash(crypto, two, sibling);
    }
    at = Math.floor(at / 2);
    last = Math.floor(last / 2);
  }
  return last === 0 && equal(one, firstRoot) && equal(two, secondRoot);
}

function isProof(proof: readonly Uint8Array[]): boolean {
  // No tree that we handle needs more than two hashes a level.
  return proof.length <= 100 && areHashes(...proof);
}

function areHashes(...hashes: readonly Uint8Array[]): boolean {
  return hashes.every((hash) => hash.length === TREE_HASH_BYTES);
}
