import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { concat, encodeHex, u32 } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import {
  appendLeaves,
  assembleProof,
  EMPTY_FRONTIER,
  frontierPositions,
  inclusionPath,
  inclusionPathLength,
  leafHash,
  nodeCount,
  nodeHash,
  planConsistencyProof,
  planInclusionProof,
  planRoot,
  rootHash,
  TREE_SIZE_MAX,
  treeLevels,
  verifyConsistency,
  verifyInclusion,
} from './merkle.ts';
import type { Frontier, ProofPlan } from './merkle.ts';
import { randomFrom } from './testing/random.ts';

const vectors = new URL('../../../../tests/vectors/merkle/', import.meta.url);
const read = <T>(name: string) => JSON.parse(readFileSync(new URL(name, vectors), 'utf8')) as T[];
const base64 = (text: string) => new Uint8Array(Buffer.from(text, 'base64'));

interface Case {
  readonly name: string;
  readonly proof: string[] | null;
  readonly wantErr: boolean;
}

interface InclusionCase extends Case {
  readonly leafIdx: number;
  readonly treeSize: number;
  readonly root: string;
  readonly leafHash: string;
}

interface ConsistencyCase extends Case {
  readonly size1: number;
  readonly size2: number;
  readonly root1: string;
  readonly root2: string;
}

test('transparency-dev/merkle inclusion vectors', () => {
  const cases = read<InclusionCase>('inclusion.json');
  assert.ok(cases.some((one) => one.wantErr) && cases.some((one) => !one.wantErr));
  for (const one of cases) {
    const claim = {
      leafHash: base64(one.leafHash),
      index: one.leafIdx,
      size: one.treeSize,
      root: base64(one.root),
    };
    assert.equal(verifyInclusion(crypto, claim, (one.proof ?? []).map(base64)), !one.wantErr, one.name);
  }
});

test('transparency-dev/merkle consistency vectors', () => {
  const cases = read<ConsistencyCase>('consistency.json');
  assert.ok(cases.some((one) => one.wantErr) && cases.some((one) => !one.wantErr));
  for (const one of cases) {
    const claim = {
      first: one.size1,
      firstRoot: base64(one.root1),
      second: one.size2,
      secondRoot: base64(one.root2),
    };
    assert.equal(verifyConsistency(crypto, claim, (one.proof ?? []).map(base64)), !one.wantErr, one.name);
  }
});

// The definitions of RFC 9162 section 2.1, as they stand there: recursive, over all leaves.
const sha256 = (...parts: Uint8Array[]) => crypto.hash('sha256', concat(...parts));
const split = (n: number) => 2 ** Math.ceil(Math.log2(n) - 1);

function naiveRoot(d: readonly Uint8Array[]): Uint8Array {
  if (d.length === 0) return sha256();
  if (d.length === 1) return sha256(new Uint8Array([0]), d[0]!);
  const k = split(d.length);
  return sha256(new Uint8Array([1]), naiveRoot(d.slice(0, k)), naiveRoot(d.slice(k)));
}

function naivePath(m: number, d: readonly Uint8Array[]): Uint8Array[] {
  if (d.length === 1) return [];
  const k = split(d.length);
  return m < k
    ? [...naivePath(m, d.slice(0, k)), naiveRoot(d.slice(k))]
    : [...naivePath(m - k, d.slice(k)), naiveRoot(d.slice(0, k))];
}

function naiveSubproof(m: number, d: readonly Uint8Array[], complete: boolean): Uint8Array[] {
  if (m === d.length) return complete ? [] : [naiveRoot(d)];
  const k = split(d.length);
  return m <= k
    ? [...naiveSubproof(m, d.slice(0, k), complete), naiveRoot(d.slice(k))]
    : [...naiveSubproof(m - k, d.slice(k), false), naiveRoot(d.slice(0, k))];
}

function build(
  leaves: readonly Uint8Array[],
  pages: () => number = () => 1,
): { stored: Uint8Array[]; frontiers: Frontier[] } {
  const stored: Uint8Array[] = [];
  const frontiers = [EMPTY_FRONTIER];
  for (let at = 0; at < leaves.length;) {
    const page = leaves.slice(at, at + pages());
    const before = frontiers.at(-1)!;
    const appended = appendLeaves(
      crypto,
      before,
      page.map((leaf) => leafHash(crypto, leaf)),
    );
    assert.equal(stored.length, nodeCount(before.size));
    stored.push(...appended.hashes);
    frontiers.push(appended.frontier);
    at += page.length;
  }
  return { stored, frontiers };
}

const assembled = (stored: readonly Uint8Array[], plan: ProofPlan) =>
  assembleProof(
    crypto,
    plan,
    plan.positions.map((position) => stored[position]!),
  );

test('every proof of every tree of up to 34 leaves equals the definition and verifies', () => {
  const leaves = Array.from({ length: 34 }, (_, i) => u32(i));
  const { stored, frontiers } = build(leaves);
  const roots = leaves.map((_, i) => naiveRoot(leaves.slice(0, i + 1)));
  assert.deepEqual(rootHash(crypto, EMPTY_FRONTIER), naiveRoot([]));
  for (let size = 1; size <= leaves.length; size++) {
    const root = roots[size - 1]!;
    assert.deepEqual(rootHash(crypto, frontiers[size]!), root);
    assert.deepEqual(assembled(stored, planRoot(size)), [root]);
    assert.deepEqual(
      frontierPositions(size).map((position) => stored[position]),
      frontiers[size]!.peaks,
    );
    for (let index = 0; index < size; index++) {
      const proof = assembled(stored, planInclusionProof(index, size));
      assert.deepEqual(proof, naivePath(index, leaves.slice(0, size)));
      const claim = { leafHash: leafHash(crypto, leaves[index]!), index, size, root };
      assert.ok(verifyInclusion(crypto, claim, proof));
    }
    for (let first = 1; first <= size; first++) {
      const proof = assembled(stored, planConsistencyProof(first, size));
      assert.deepEqual(proof, naiveSubproof(first, leaves.slice(0, size), true));
      const claim = { first, firstRoot: roots[first - 1]!, second: size, secondRoot: root };
      assert.ok(verifyConsistency(crypto, claim, proof));
    }
  }
});

test('a tree held whole has the root and the paths of the definition', () => {
  const leaves = Array.from({ length: 130 }, (_, i) => u32(i));
  const hashes = leaves.map((leaf) => leafHash(crypto, leaf));
  for (const size of [...Array.from({ length: 20 }, (_, i) => i + 1), 63, 64, 65, 127, 128, 129, 130]) {
    const levels = treeLevels(crypto, hashes.slice(0, size));
    assert.deepEqual(levels.at(-1), [naiveRoot(leaves.slice(0, size))]);
    for (let index = size - 1; index >= 0; index -= size > 20 ? 9 : 1) {
      const path = inclusionPath(levels, index);
      assert.deepEqual(path, naivePath(index, leaves.slice(0, size)), `${index} of ${size}`);
      assert.equal(inclusionPathLength(index, size), path.length);
    }
  }
});

test('random trees in random pages: proofs verify, and nothing near them does', () => {
  const { next, seed } = randomFrom();
  for (let round = 0; round < 12; round++) {
    const at = `seed ${seed}, round ${round}`;
    const leaves = Array.from({ length: 2 + next(400) }, () => crypto.random(next(80)));
    const { stored, frontiers } = build(leaves, () => 1 + next(50));
    const size = leaves.length;
    const root = naiveRoot(leaves);
    assert.deepEqual(rootHash(crypto, frontiers.at(-1)!), root, at);
    const index = next(size);
    const claim = { leafHash: leafHash(crypto, leaves[index]!), index, size, root };
    const proof = assembled(stored, planInclusionProof(index, size));
    assert.ok(verifyInclusion(crypto, claim, proof), at);
    const near = (index + 1 + next(size - 1)) % size;
    assert.ok(!verifyInclusion(crypto, { ...claim, index: near }, proof), at);
    assert.ok(!verifyInclusion(crypto, claim, proof.slice(1)), at);
    assert.ok(!verifyInclusion(crypto, claim, [...proof, crypto.random(32)]), at);

    const first = 1 + next(size - 1);
    const firstRoot = naiveRoot(leaves.slice(0, first));
    const continuity = { first, firstRoot, second: size, secondRoot: root };
    const consistency = assembled(stored, planConsistencyProof(first, size));
    assert.ok(verifyConsistency(crypto, continuity, consistency), at);
    const other = naiveRoot(leaves.with(next(first), u32(round)).slice(0, first));
    assert.ok(!verifyConsistency(crypto, { ...continuity, firstRoot: other }, consistency), at);
    const bent = consistency.with(next(consistency.length), crypto.random(32));
    assert.ok(!verifyConsistency(crypto, continuity, bent), at);
  }
});

test('a proof reads few hashes, and sizes beyond 32 bits count right', () => {
  const size = 2 ** 40 + 12_345;
  const plan = planInclusionProof(2 ** 33 + 7, size);
  assert.ok(plan.runs.length <= 41 && plan.positions.length <= 80);
  assert.equal(new Set(plan.positions).size, plan.positions.length);
  assert.ok(plan.positions.every((position) => Number.isSafeInteger(position) && position < nodeCount(size)));
  assert.equal(nodeCount(2 ** 40), 2 ** 41 - 1);
  assert.deepEqual(frontierPositions(2 ** 40), [2 ** 41 - 2]);
});

test('numbers and hashes out of range are refused', () => {
  const root = crypto.random(32);
  for (const size of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, TREE_SIZE_MAX + 1, 2 ** 64]) {
    assert.ok(!verifyInclusion(crypto, { leafHash: root, index: 0, size, root }, []));
    assert.ok(!verifyConsistency(crypto, { first: 1, firstRoot: root, second: size, secondRoot: root }, []));
    assert.throws(() => planRoot(size), { name: 'Misuse' });
    assert.throws(() => nodeCount(size), { name: 'Misuse' });
  }
  assert.ok(!verifyConsistency(crypto, { first: 0, firstRoot: root, second: 1, secondRoot: root }, []));
  assert.ok(!verifyInclusion(crypto, { leafHash: root, index: 0, size: 2, root }, [crypto.random(31)]));
  assert.throws(() => planInclusionProof(3, 3), { name: 'Misuse' });
  assert.throws(() => planConsistencyProof(0, 3), { name: 'Misuse' });
  assert.throws(() => planConsistencyProof(4, 3), { name: 'Misuse' });
  assert.throws(() => assembleProof(crypto, planRoot(3), [root]), { name: 'Misuse' });
  assert.notEqual(encodeHex(leafHash(crypto, root)), encodeHex(root));
  assert.throws(() => nodeHash(crypto, root, crypto.random(31)), { name: 'Misuse' });
  assert.throws(() => nodeHash(crypto, crypto.random(33), root), { name: 'Misuse' });
});
