/**
 * The epoch our own commit leads to, kept apart until the commit was accepted. It holds only what is new; what late
 * messages of the current epoch still change (its ratchets) is taken from the state at the moment of merging.
 */
import type { GroupCore } from './group-state.ts';
import { type RatchetTree, TreeHashes } from './ratchet-tree.ts';
import type { LeafNode, ParentNode } from './types.ts';

export interface PendingCommit {
  /** The encoded GroupContext of the epoch the commit was made in. */
  readonly base: Uint8Array;
  readonly core: GroupCore;
  readonly encryptionSecret: Uint8Array;
  readonly changes: TreeChanges;
  /** The changed tree itself, when it was made in this process. */
  readonly tree: RatchetTree | undefined;
}

export interface TreeChanges {
  readonly leafCount: number;
  readonly leaves: ReadonlyMap<number, LeafNode | undefined>;
  /** By position in `parents`. */
  readonly parents: ReadonlyMap<number, ParentNode | undefined>;
}

export function treeChanges(before: RatchetTree, after: RatchetTree): TreeChanges {
  return {
    leafCount: after.leaves.length,
    leaves: changedEntries(before.leaves, after.leaves),
    parents: changedEntries(before.parents, after.parents),
  };
}

/** Entries of `after` that are not those of `before`; what lies beyond the end of `before` was blank. */
function changedEntries<T>(
  before: readonly (T | undefined)[],
  after: readonly (T | undefined)[],
): Map<number, T | undefined> {
  const changed = new Map<number, T | undefined>();
  for (let i = 0; i < after.length; i++) if (before[i] !== after[i]) changed.set(i, after[i]);
  return changed;
}

export function applyTreeChanges(tree: RatchetTree, changes: TreeChanges): RatchetTree {
  const apply = <T>(
    entries: readonly (T | undefined)[],
    length: number,
    changed: ReadonlyMap<number, T | undefined>,
  ) => {
    const next = entries.slice(0, length);
    while (next.length < length) next.push(undefined);
    for (const [i, value] of changed) next[i] = value;
    return next;
  };
  return {
    leaves: apply(tree.leaves, changes.leafCount, changes.leaves),
    parents: apply(tree.parents, changes.leafCount - 1, changes.parents),
    hashes: new TreeHashes(),
  };
}
