/**
 * What a joiner checks of a tree it was given (RFC 9420 sections 7.9.2 and 12.4.3.1): every leaf, every parent hash,
 * unmerged leaves, uniqueness of keys. Whether the tree hash is the one expected is the caller's first question.
 */
import { equal } from '@quicprochat/crypto';
import type { Suite } from './cipher-suites.ts';
import { demand } from './errors.ts';
import { askForMember, checkLeafNode, checkLifetime, meets, requirements } from './leaf-node.ts';
import {
  duplicate,
  encryptionKeyAt,
  leafAt,
  occupiedLeaves,
  parentAt,
  parentHash,
  type RatchetTree,
  resolution,
} from './ratchet-tree.ts';
import { inSubtree, isLeaf, left, level, nodeOfLeaf, parent, right } from './tree-math.ts';
import type { GroupContext, LeafNode, MlsContext, NodeIndex, ParentNode } from './types.ts';

export function validateTree(context: MlsContext, suite: Suite, tree: RatchetTree, group: GroupContext): void {
  validateKeysUnique(tree);
  validateUnmergedLeaves(tree);
  validateParentHashes(suite, tree);
  validateParentKeys(suite, tree);
  validateCredentialSupport(tree);
  const required = requirements(group.extensions);
  for (const [leafIndex, leaf] of occupiedLeaves(tree)) {
    checkLeafNode(suite, leaf, { source: undefined, groupId: group.groupId, leafIndex });
    demand(meets(leaf.capabilities, required), 'leafRequiredCapabilities');
    if (context.checkReceivedLifetimes) checkLifetime(leaf, context.now);
    askForMember(context, leafIndex, leaf, 'join');
  }
}

export function validateKeysUnique(tree: RatchetTree): void {
  demand(duplicate(encryptionKeys(tree)) === undefined, 'treeKeysUnique', 'encryption key');
  demand(duplicate(signatureKeys(tree)) === undefined, 'treeKeysUnique', 'signature key');
}

function* encryptionKeys(tree: RatchetTree): Generator<Uint8Array> {
  const count = 2 * tree.leaves.length - 1;
  for (let node = 0; node < count; node++) {
    const key = encryptionKeyAt(tree, node);
    if (key !== undefined) yield key;
  }
}

function* signatureKeys(tree: RatchetTree): Generator<Uint8Array> {
  for (const [, leaf] of occupiedLeaves(tree)) yield leaf.signatureKey;
}

function* occupiedParents(tree: RatchetTree): Generator<readonly [NodeIndex, ParentNode]> {
  for (let i = 0; i < tree.parents.length; i++) {
    const node = tree.parents[i];
    if (node !== undefined) yield [(2 * i + 1) as NodeIndex, node];
  }
}

export function validateUnmergedLeaves(tree: RatchetTree): void {
  for (const [index, { unmergedLeaves }] of occupiedParents(tree)) {
    let previous = -1;
    for (const leaf of unmergedLeaves) {
      demand(leaf > previous, 'treeUnmergedLeaves', 'not ascending');
      previous = leaf;
      demand(inSubtree(index, leaf) && leafAt(tree, leaf) !== undefined, 'treeUnmergedLeaves', 'not a descendant');
    }
  }
  for (const [index, { unmergedLeaves }] of occupiedParents(tree)) {
    for (const leaf of unmergedLeaves) {
      for (let between = parent(nodeOfLeaf(leaf)); between !== index; between = parent(between)) {
        const other = parentAt(tree, between);
        demand(
          other === undefined || includesSorted(other.unmergedLeaves, leaf),
          'treeUnmergedLeaves',
          'missing below',
        );
      }
    }
  }
}

function includesSorted(leaves: readonly number[], leaf: number): boolean {
  let low = 0;
  let high = leaves.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (leaves[middle]! < leaf) low = middle + 1;
    else high = middle;
  }
  return leaves[low] === leaf;
}

/** A member who cannot encrypt to a parent node cannot commit. Those of leaves are checked with the leaves. */
function validateParentKeys(suite: Suite, tree: RatchetTree): void {
  for (const [, { encryptionKey }] of occupiedParents(tree)) {
    demand(suite.kem.isPublicKey(encryptionKey), 'leafKeysValid', 'parent node');
  }
}

/**
 * Top down: for each non-blank parent P and child C there is at most one node D in the resolution of C that is not an
 * unmerged leaf of P. P is valid if exactly one such D carries P's parent hash. D is itself a leaf or a valid parent, so
 * by induction the chain ends at a leaf.
 */
export function validateParentHashes(suite: Suite, tree: RatchetTree): void {
  for (const [index, node] of occupiedParents(tree)) {
    const children = [
      { child: left(index), copath: right(index) },
      { child: right(index), copath: left(index) },
    ];
    const valid = children.filter(({ child, copath }) => {
      const claimed = parentHashOfSurvivor(tree, node, child);
      return claimed !== undefined && equal(claimed, parentHash(suite, tree, node, copath));
    });
    demand(valid.length === 1, 'treeParentHash');
  }
}

/** The parent_hash of the only node in the resolution of `child` that P did not leave unmerged. */
function parentHashOfSurvivor(tree: RatchetTree, node: ParentNode, child: NodeIndex): Uint8Array | undefined {
  const unmerged = new Set<number>(node.unmergedLeaves.filter((leaf) => inSubtree(child, leaf)));
  let survivor: NodeIndex | undefined;
  let unmergedSeen = 0;
  for (const each of resolution(tree, child)) {
    if (isLeaf(each) && unmerged.has(each >>> 1)) {
      unmergedSeen++;
      continue;
    }
    if (survivor !== undefined) return undefined;
    survivor = each;
  }
  if (survivor === undefined || unmergedSeen !== unmerged.size) return undefined;
  if (level(survivor) > 0) return parentAt(tree, survivor)?.parentHash;
  const leaf = leafAt(tree, survivor >>> 1);
  return leaf?.source.kind === 'commit' ? leaf.source.parentHash : undefined;
}

/** Section 7.3: every member supports every credential type in use. `changed`: only these leaves are new. */
export function validateCredentialSupport(tree: RatchetTree, changed?: readonly LeafNode[]): void {
  const inUse = new Set<number>();
  for (const [, leaf] of occupiedLeaves(tree)) inUse.add(leaf.credential.credentialType);
  if (changed === undefined) {
    for (const [, leaf] of occupiedLeaves(tree)) demandSupport(leaf, inUse);
    return;
  }
  for (const leaf of changed) demandSupport(leaf, inUse);
  const introduced = new Set(changed.map((leaf) => leaf.credential.credentialType));
  if (introduced.size === 0) return;
  for (const [, leaf] of occupiedLeaves(tree)) demandSupport(leaf, introduced);
}

function demandSupport(leaf: LeafNode, types: ReadonlySet<number>): void {
  for (const type of types) demand(leaf.capabilities.credentials.includes(type), 'leafCredentialSupport');
}
