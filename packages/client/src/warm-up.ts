/**
 * Which members commit an empty update soon after they joined, and when. After a large Add most of the ratchet tree is
 * blank, and a commit encrypts to every leaf below a blank node by itself; a commit fills the nodes above its committer
 * (RFC 9420 section 7.4). Whether it has committed shows in a member's leaf: until then it is the one of its KeyPackage.
 *
 *   up to 64 members   every member commits once
 *   more               one of each eight neighbouring leaves does, the last: 1,000 joiners are 125 commits, not 1,000,
 *                      and what stays blank costs later commits at most seven encryptions
 *
 * Whoever is due waits for those before it in the order of leaves, one slot each. All see the same tree, so nobody has to
 * ask; whoever is offline leaves its slot empty. When people come or go the slots are given anew, to all at that moment:
 * those of before were counted in another group, and two devices could have the same.
 */
import type { LeafIndex, LeafNodeSource } from '@quicprochat/mls';

/** Below this a commit is small in any case. */
const MEMBERS_MIN = 8;
const EVERYBODY_MAX = 64;
const NEIGHBOURS = 8;
/** Others may be added right after, or somebody commits for another reason. */
const QUIET_MS = 10_000;
const SLOT_MS = 5_000;

export interface WarmUpLeaf {
  readonly leafIndex: LeafIndex;
  readonly source: Pick<LeafNodeSource, 'kind'>;
}

/**
 * How many are due before this leaf, undefined when it is not due itself.
 * @param leaves all members in order of their leaf index
 */
export function warmUpRank(leaves: readonly WarmUpLeaf[], own: number): number | undefined {
  if (leaves.length < MEMBERS_MIN) return undefined;
  const neighbours = leaves.length > EVERYBODY_MAX ? NEIGHBOURS : 1;
  let rank = 0;
  for (const [i, { leafIndex, source }] of leaves.entries()) {
    const following = leaves[i + 1]?.leafIndex;
    const isLast = following === undefined || Math.floor(following / neighbours) !== Math.floor(leafIndex / neighbours);
    const isDue = isLast && source.kind === 'keyPackage';
    if (leafIndex === own) return isDue ? rank : undefined;
    if (isDue) rank += 1;
  }
  return undefined;
}

/** Whether a slot given among so many members still counts; an update of somebody else changes nobody's slot. */
export function keepsSlot(among: number | undefined, members: number): boolean {
  return among === members;
}

/** Milliseconds to wait; `uniform` is in [0, 1). Two ranks are never less than half a slot apart. */
export function warmUpDelayMs(rank: number, uniform: number): number {
  return QUIET_MS + (rank + uniform / 2) * SLOT_MS;
}
