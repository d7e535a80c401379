/**
 * The secret tree and its ratchets (RFC 9420 section 9), as a persistent value.
 *
 * It starts as the encryption secret at the root. What a sender's key needs is derived when first needed: the nodes on
 * the way to its leaf are split, each parent's secret giving way to its two children's, so a secret whose descendants
 * were used is never kept. A step copies the O(log n) nodes on the way to one leaf; all else is shared between the old
 * value and the new. The old value still holds what the step consumed: `wipeReplaced` (wipe.ts) overwrites that once the
 * new one is stored.
 *
 * A tree restored from rows begins as one `stored` node; a leaf's row is read when that leaf is first used.
 */
import { deriveTreeSecret, expandWithLabel, type Suite } from './cipher-suites.ts';
import { demand, MlsStateError, MlsUsageError, violated } from './errors.ts';
import { isLeaf, left, right, root } from './tree-math.ts';
import type { GroupConfig } from './types.ts';

export interface RatchetKey {
  readonly generation: number;
  readonly key: Uint8Array;
  readonly nonce: Uint8Array;
}

export interface Ratchet {
  /** The generation `secret` stands for: the next one not derived yet. */
  readonly generation: number;
  readonly secret: Uint8Array;
  /** Keys that were passed over and not used, ascending by generation. */
  readonly unused: readonly RatchetKey[];
}

export type RatchetKind = 'handshake' | 'application';

export const RATCHETS: readonly RatchetKind[] = ['handshake', 'application'];

export interface LeafRatchets {
  readonly kind: 'leaf';
  readonly handshake: Ratchet;
  readonly application: Ratchet;
}

export interface SecretNode {
  readonly kind: 'secret';
  readonly secret: Uint8Array;
}

interface SplitNode {
  readonly kind: 'split';
  readonly left: SecretTreeNode;
  readonly right: SecretTreeNode;
}

/** In the rows, not read yet. `loaded` keeps the answer, so that this value means the same for ever after. */
interface StoredNode {
  readonly kind: 'stored';
  loaded: LoadedNode | undefined;
}

export type LoadedNode = LeafRatchets | SecretNode | SplitNode;
export type SecretTreeNode = LoadedNode | StoredNode;

/** Reads what the rows have at one node: its secret, a leaf's ratchets, or nothing, which means it was split. */
export type SecretTreeLoader = (node: number) => LeafRatchets | SecretNode | undefined;

export interface SecretTree {
  readonly leafCount: number;
  readonly root: SecretTreeNode;
  /** Unused keys in all ratchets. */
  readonly unusedCount: number;
  readonly load: SecretTreeLoader | undefined;
}

export function newSecretTree(encryptionSecret: Uint8Array, leafCount: number): SecretTree {
  return { leafCount, root: { kind: 'secret', secret: encryptionSecret }, unusedCount: 0, load: undefined };
}

export function storedSecretTree(leafCount: number, unusedCount: number, load: SecretTreeLoader): SecretTree {
  return { leafCount, root: { kind: 'stored', loaded: undefined }, unusedCount, load };
}

/** What a node is, read from the rows if need be. */
export function loadedNode(tree: SecretTree, node: SecretTreeNode, index: number): LoadedNode {
  if (node.kind !== 'stored') return node;
  node.loaded ??= tree.load?.(index) ?? splitStored(index);
  return node.loaded;
}

function splitStored(index: number): SplitNode {
  if (isLeaf(index)) throw new MlsStateError('the secrets of a leaf are missing from the rows');
  return { kind: 'split', left: { kind: 'stored', loaded: undefined }, right: { kind: 'stored', loaded: undefined } };
}

/**
 * Replaces the ratchets of one leaf by what `change` makes of them. Secrets that are derived on the way and given up again
 * belong to no state, neither the old one nor the new, so they are wiped here; all of them when `change` refuses.
 */
function withLeaf(
  suite: Suite,
  tree: SecretTree,
  leaf: number,
  change: (ratchets: LeafRatchets) => LeafRatchets,
): SecretTreeNode {
  const { wipe } = suite.crypto;
  const changeLeaf = (node: LoadedNode): LeafRatchets => {
    if (node.kind === 'leaf') return change(node);
    const fresh = leafRatchets(suite, secretOf(node));
    let changed: LeafRatchets | undefined;
    try {
      changed = change(fresh);
      return changed;
    } finally {
      for (const kind of RATCHETS) if (changed?.[kind] !== fresh[kind]) wipe(fresh[kind].secret);
    }
  };
  const descend = (node: SecretTreeNode, index: number): SecretTreeNode => {
    const loaded = loadedNode(tree, node, index);
    if (isLeaf(index)) return changeLeaf(loaded);
    const toLeft = 2 * leaf < index;
    const next = toLeft ? left(index) : right(index);
    if (loaded.kind === 'split') {
      return toLeft
        ? { kind: 'split', left: descend(loaded.left, next), right: loaded.right }
        : { kind: 'split', left: loaded.left, right: descend(loaded.right, next) };
    }
    const fresh = splitSecret(suite, secretOf(loaded));
    const [through, aside] = toLeft ? [fresh.left, fresh.right] : [fresh.right, fresh.left];
    let below: SecretTreeNode | undefined;
    try {
      below = descend(through, next);
    } finally {
      wipe(through.secret);
      if (below === undefined) wipe(aside.secret);
    }
    return toLeft ? { kind: 'split', left: below, right: aside } : { kind: 'split', left: aside, right: below };
  };
  return descend(tree.root, root(tree.leafCount));
}

function secretOf(node: LoadedNode): Uint8Array {
  if (node.kind !== 'secret') throw new MlsStateError('the secret tree does not have the shape of its group');
  return node.secret;
}

const LEFT = new Uint8Array([0x6c, 0x65, 0x66, 0x74]);
const RIGHT = new Uint8Array([0x72, 0x69, 0x67, 0x68, 0x74]);
const NONE = new Uint8Array(0);

function splitSecret(suite: Suite, secret: Uint8Array): { readonly left: SecretNode; readonly right: SecretNode } {
  return {
    left: { kind: 'secret', secret: expandWithLabel(suite, secret, 'tree', LEFT, suite.hashLength) },
    right: { kind: 'secret', secret: expandWithLabel(suite, secret, 'tree', RIGHT, suite.hashLength) },
  };
}

function leafRatchets(suite: Suite, secret: Uint8Array): LeafRatchets {
  const ratchet = (kind: RatchetKind): Ratchet => ({
    generation: 0,
    secret: expandWithLabel(suite, secret, kind, NONE, suite.hashLength),
    unused: [],
  });
  return { kind: 'leaf', handshake: ratchet('handshake'), application: ratchet('application') };
}

/** The ratchets of a leaf as they stand, without advancing anything. */
export function peekRatchets(tree: SecretTree, leaf: number): LeafRatchets | undefined {
  let index: number = root(tree.leafCount);
  let node = loadedNode(tree, tree.root, index);
  while (node.kind === 'split') {
    const toLeft = 2 * leaf < index;
    index = toLeft ? left(index) : right(index);
    node = loadedNode(tree, toLeft ? node.left : node.right, index);
  }
  return node.kind === 'leaf' ? node : undefined;
}

function keyOf(suite: Suite, secret: Uint8Array, generation: number): RatchetKey {
  return {
    generation,
    key: deriveTreeSecret(suite, secret, 'key', generation, suite.aead.keyLength),
    nonce: deriveTreeSecret(suite, secret, 'nonce', generation, suite.aead.nonceLength),
  };
}

function nextSecret(suite: Suite, secret: Uint8Array, generation: number): Uint8Array {
  return deriveTreeSecret(suite, secret, 'secret', generation, suite.hashLength);
}

const GENERATION_MAX = 0xffff_ffff;

export interface TakenKey {
  readonly tree: SecretTree;
  readonly key: RatchetKey;
  /** The key was derived just now and belongs to no state: to be wiped after use. */
  readonly fresh: boolean;
}

/** The next key for sending. */
export function takeNextKey(suite: Suite, tree: SecretTree, leaf: number, kind: RatchetKind): TakenKey {
  let taken: RatchetKey | undefined;
  const newRoot = withLeaf(suite, tree, leaf, (ratchets) => {
    const ratchet = ratchets[kind];
    if (ratchet.generation >= GENERATION_MAX) throw new MlsUsageError('too many messages in one epoch');
    taken = keyOf(suite, ratchet.secret, ratchet.generation);
    return {
      ...ratchets,
      [kind]: {
        generation: ratchet.generation + 1,
        secret: nextSecret(suite, ratchet.secret, ratchet.generation),
        unused: ratchet.unused,
      },
    };
  });
  return { tree: { ...tree, root: newRoot }, key: taken!, fresh: true };
}

/**
 * The key of a given generation for receiving. Those passed over are kept within the limits of `config`: at most
 * `unusedKeysPerSenderMax` of the newest, and no new ones beyond `unusedRoom`, the oldest going first.
 */
export function takeKey(
  suite: Suite,
  tree: SecretTree,
  leaf: number,
  kind: RatchetKind,
  generation: number,
  config: GroupConfig,
  unusedRoom: number,
): TakenKey {
  let taken: RatchetKey | undefined;
  let unusedCount = tree.unusedCount;
  let fresh = true;
  const newRoot = withLeaf(suite, tree, leaf, (ratchets) => {
    const ratchet = ratchets[kind];
    const next =
      generation < ratchet.generation
        ? takeUnused(ratchet, generation)
        : advance(suite, ratchet, generation, config, unusedRoom);
    taken = next.key;
    fresh = generation >= ratchet.generation;
    unusedCount += next.ratchet.unused.length - ratchet.unused.length;
    return { ...ratchets, [kind]: next.ratchet };
  });
  return { tree: { ...tree, root: newRoot, unusedCount }, key: taken!, fresh };
}

function takeUnused(ratchet: Ratchet, generation: number): { ratchet: Ratchet; key: RatchetKey } {
  const at = ratchet.unused.findIndex((key) => key.generation === generation);
  if (at < 0) violated('generationUsed');
  return { ratchet: { ...ratchet, unused: ratchet.unused.toSpliced(at, 1) }, key: ratchet.unused[at]! };
}

function advance(
  suite: Suite,
  ratchet: Ratchet,
  generation: number,
  config: GroupConfig,
  unusedRoom: number,
): { ratchet: Ratchet; key: RatchetKey } {
  demand(generation - ratchet.generation <= config.skipAheadMax && generation < GENERATION_MAX, 'generationAhead');
  const kept = Math.min(config.unusedKeysPerSenderMax, ratchet.unused.length + Math.max(0, unusedRoom));
  const keptFrom = Math.max(ratchet.generation, generation - kept);
  const skipped: RatchetKey[] = [];
  let { secret } = ratchet;
  for (let g = ratchet.generation; g < generation; g++) {
    if (g >= keptFrom) skipped.push(keyOf(suite, secret, g));
    const next = nextSecret(suite, secret, g);
    if (g > ratchet.generation) suite.crypto.wipe(secret);
    secret = next;
  }
  const key = keyOf(suite, secret, generation);
  const after = nextSecret(suite, secret, generation);
  if (generation > ratchet.generation) suite.crypto.wipe(secret);
  return {
    ratchet: { generation: generation + 1, secret: after, unused: keepNewest(ratchet.unused, skipped, kept) },
    key,
  };
}

function keepNewest(older: readonly RatchetKey[], newer: readonly RatchetKey[], max: number): readonly RatchetKey[] {
  if (newer.length === 0) return older;
  const all = [...older, ...newer];
  return all.length > max ? all.slice(all.length - max) : all;
}

/** Visits every node that holds secrets, with its index, reading all rows. */
export function* secretNodes(tree: SecretTree): Generator<readonly [number, LeafRatchets | SecretNode]> {
  const stack: [number, SecretTreeNode][] = [[root(tree.leafCount), tree.root]];
  for (let entry = stack.pop(); entry !== undefined; entry = stack.pop()) {
    const [index, node] = entry;
    const loaded = loadedNode(tree, node, index);
    if (loaded.kind === 'split') stack.push([right(index), loaded.right], [left(index), loaded.left]);
    else yield [index, loaded];
  }
}
