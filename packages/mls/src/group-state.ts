/**
 * A group as one member holds it: an immutable value in five parts that change at different rates. `core` is replaced by
 * a commit, `tree` too; `secretTree` by every message of the epoch; `proposals` by proposals; `pastEpochs` by commits and
 * by late messages. What did not change is shared, by reference, between a state and its successor, which is how
 * `diffRows` and `wipeReplaced` find the difference without searching.
 */
import type { EpochSecrets } from './key-schedule.ts';
import { suiteOf, type Suite } from './cipher-suites.ts';
import { leafAt, occupiedLeaves, type RatchetTree } from './ratchet-tree.ts';
import type { SecretTree } from './secret-tree.ts';
import type {
  Extension,
  GroupConfig,
  GroupContext,
  GroupView,
  LeafIndex,
  LeafNode,
  Member,
  MlsContext,
  Proposal,
  ReInit,
  Sender,
} from './types.ts';

export interface GroupState {
  readonly core: GroupCore;
  readonly tree: RatchetTree;
  readonly secretTree: SecretTree;
  readonly proposals: readonly CachedProposal[];
  /** Newest first. */
  readonly pastEpochs: readonly PastEpoch[];
}

/** Active; or removed by a commit; or closed by a commit of a ReInit. Only an active group can send. */
export type GroupStatus = 'active' | 'removed' | 'reinitialized';

export interface GroupCore {
  readonly status: GroupStatus;
  /** What the ReInit said that closed the group. */
  readonly reInit: ReInit | undefined;
  readonly config: GroupConfig;
  readonly context: GroupContext;
  /** `context`, encoded: part of what every signature covers. */
  readonly contextBytes: Uint8Array;
  readonly ownLeaf: LeafIndex;
  readonly signaturePrivateKey: Uint8Array;
  /** By node index: one's own leaf, and the ancestors whose key one knows. */
  readonly privateKeys: ReadonlyMap<number, Uint8Array>;
  readonly secrets: EpochSecrets;
  readonly confirmationTag: Uint8Array;
  readonly interimTranscriptHash: Uint8Array;
  /** Of past epochs, newest first. */
  readonly resumptionPsks: readonly { readonly epoch: bigint; readonly psk: Uint8Array }[];
}

/** The public half, which a joiner has too. */
export interface PublicGroup {
  readonly core: Pick<GroupCore, 'context'>;
  readonly tree: RatchetTree;
}

/** A proposal of this epoch that was checked by itself and may be committed by reference. */
export interface CachedProposal {
  readonly ref: Uint8Array;
  readonly proposal: Proposal;
  readonly sender: Sender;
  /** The private keys of our own Update. */
  readonly own: { readonly encryptionPrivateKey: Uint8Array; readonly signaturePrivateKey: Uint8Array } | undefined;
}

/** What is needed to read late application messages of an earlier epoch. */
export interface PastEpoch {
  readonly epoch: bigint;
  /** When the epoch ended, in seconds since 1970. */
  readonly endedAt: number;
  readonly contextBytes: Uint8Array;
  readonly senderDataSecret: Uint8Array;
  readonly secretTree: SecretTree;
  readonly ownLeaf: LeafIndex;
  /** Leaves that the next epoch changed, as they were; undefined was blank. */
  readonly replacedLeaves: ReadonlyMap<number, LeafNode | undefined>;
}

/** The limits of a group that sets no others. */
export const defaultConfig: GroupConfig = {
  skipAheadMax: 2000,
  unusedKeysPerSenderMax: 256,
  unusedKeysPerGroupMax: 10_000,
  pastEpochsMax: 5,
  pastEpochSecondsMax: 7 * 24 * 3600,
  resumptionEpochsMax: 16,
  proposalsMax: 1024,
};

export function stateSuite(context: MlsContext, state: GroupState): Suite {
  return suiteOf(context.crypto, state.core.context.cipherSuite);
}

export function memberOf(leafIndex: LeafIndex, leaf: LeafNode): Member {
  const { credential, signatureKey, encryptionKey, extensions, capabilities, source } = leaf;
  return { leafIndex, credential, signatureKey, encryptionKey, extensions, capabilities, source };
}

export function viewOf(context: GroupContext, tree: RatchetTree): GroupView {
  return {
    groupId: context.groupId,
    epoch: context.epoch,
    cipherSuite: context.cipherSuite,
    extensions: context.extensions,
    member(leafIndex) {
      const leaf = leafAt(tree, leafIndex);
      return leaf && memberOf(leafIndex as LeafIndex, leaf);
    },
    members: () => Array.from(occupiedLeaves(tree), ([index, leaf]) => memberOf(index, leaf)),
  };
}

/** The data of the first extension of this type. */
export function findExtension(extensions: readonly Extension[], extensionType: number): Uint8Array | undefined {
  return extensions.find((extension) => extension.extensionType === extensionType)?.extensionData;
}

/** Unused keys that may still be kept in the whole group. */
export function unusedRoom(state: GroupState): number {
  let room = state.core.config.unusedKeysPerGroupMax - state.secretTree.unusedCount;
  for (const past of state.pastEpochs) room -= past.secretTree.unusedCount;
  return room;
}

/** The leaf as it was in a past epoch: the first epoch after it that replaced the leaf knows the old one. */
export function leafInPast(state: GroupState, pastIndex: number, leaf: number): LeafNode | undefined {
  for (let i = pastIndex; i >= 0; i--) {
    const { replacedLeaves } = state.pastEpochs[i]!;
    if (replacedLeaves.has(leaf)) return replacedLeaves.get(leaf);
  }
  return leafAt(state.tree, leaf);
}

/** Leaves that differ between two trees, as they are in the first. */
export function replacedLeaves(before: RatchetTree, after: RatchetTree): Map<number, LeafNode | undefined> {
  const replaced = new Map<number, LeafNode | undefined>();
  const count = Math.max(before.leaves.length, after.leaves.length);
  for (let i = 0; i < count; i++) if (before.leaves[i] !== after.leaves[i]) replaced.set(i, before.leaves[i]);
  return replaced;
}
