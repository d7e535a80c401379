// A large group in which everyone has committed: one state, everybody's private keys, and a view of that state from any
// leaf, so that a single process plays all members. `populated` gets there by real commits, a second or two for 1,000
// members. `grown` writes down the tree such commits leave, for larger groups and costlier keys: everybody's keys, parent
// hashes and signatures, made from the root down. What shows that it is one: the next member joins by a Welcome, which
// checks every leaf and every parent hash, and follows the commits after it.
import type { KeyPair } from '@quicprochat/crypto';
import {
  type CommitParameters,
  type GroupState,
  type KeyPackageBundle,
  type LeafIndex,
  type MlsContext,
  type VerifiedKeyPackage,
  createCommit,
  createGroup,
  generateKeyPackage,
  generateSignatureKeyPair,
  joinGroup,
  mergePendingCommit,
  processMessage,
  protectApplication,
  verifyKeyPackage,
} from '@quicprochat/mls';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { freshKemKeyPair, suiteOf } from '../packages/mls/src/cipher-suites.ts';
import { encodeGroupContext } from '../packages/mls/src/key-schedule.ts';
import { signLeafNode } from '../packages/mls/src/leaf-node.ts';
import { parentHash, type TreeEditor, TreeHashes, treeHash } from '../packages/mls/src/ratchet-tree.ts';
import { newSecretTree } from '../packages/mls/src/secret-tree.ts';
import { directPath, firstLeaf, isLeaf, left, nodeOfLeaf, right, root } from '../packages/mls/src/tree-math.ts';

export const CIPHER_SUITE = 0x0001;

export function mlsContext(): MlsContext {
  return { crypto: nodeCrypto, random: nodeCrypto.random, now: Math.floor(Date.now() / 1000) };
}

export type Committed = Exclude<ReturnType<typeof createCommit>, { kind: 'rejected' }>;

/** The outcome, unless it is a refusal, which no benchmark expects. */
export function accepted<T extends { readonly kind: string }>(outcome: T): Exclude<T, { kind: 'rejected' }> {
  if (outcome.kind === 'rejected') throw new Error(`refused: ${JSON.stringify(outcome)}`);
  return outcome as Exclude<T, { kind: 'rejected' }>;
}

export function newKeyPackage(context: MlsContext, name: string, cipherSuite: number = CIPHER_SUITE): KeyPackageBundle {
  return generateKeyPackage(context, {
    cipherSuite,
    credential: basic(name),
    signatureKeyPair: generateSignatureKeyPair(context, cipherSuite),
  });
}

function basic(name: string): { readonly credentialType: 1; readonly identity: Uint8Array } {
  return { credentialType: 1, identity: new TextEncoder().encode(name) };
}

export function newKeyPackages(context: MlsContext, count: number): KeyPackageBundle[] {
  return Array.from({ length: count }, (_, i) => newKeyPackage(context, `member ${i}`));
}

export function verified(context: MlsContext, keyPackage: Uint8Array): VerifiedKeyPackage {
  return accepted(verifyKeyPackage(context, keyPackage)).keyPackage;
}

export function newGroup(context: MlsContext, cipherSuite: number = CIPHER_SUITE): GroupState {
  return createGroup(context, {
    cipherSuite,
    groupId: context.random(32),
    credential: basic('creator'),
    signatureKeyPair: generateSignatureKeyPair(context, cipherSuite),
  });
}

export function commitAndMerge(
  context: MlsContext,
  state: GroupState,
  parameters: CommitParameters = {},
): { readonly committed: Committed; readonly next: GroupState } {
  const committed = accepted(createCommit(context, state, parameters));
  return { committed, next: mergePendingCommit(context, committed.state, committed.pending) };
}

export class WholeGroup {
  readonly #context: MlsContext;
  #state: GroupState;
  /** Encryption keys by node, signature keys by leaf. */
  readonly #privateKeys: Map<number, Uint8Array>;
  readonly #signaturePrivateKeys: Map<number, Uint8Array>;

  /** A group of `size` members at leaves 0 … size − 1, with no blank node between them. */
  static populated(context: MlsContext, size: number): WholeGroup {
    const creator = newGroup(context);
    const bundles = newKeyPackages(context, size - 1);
    const proposals = bundles.map(({ keyPackage }) => ({
      kind: 'add' as const,
      keyPackage: verified(context, keyPackage),
    }));
    const first = size === 1 ? creator : commitAndMerge(context, creator, { proposals }).next;
    const group = new WholeGroup(context, first, new Map(), new Map());
    bundles.forEach((bundle, i) => group.#remember(i + 1, bundle));
    // From the root downwards: each commit seals to subtrees, most of which have one key already.
    for (const leaf of bitReversed(first.tree.leaves.length)) {
      if (leaf < size && size > 1) group.adopt(commitAndMerge(context, group.seenBy(leaf)).next);
    }
    return group;
  }

  /**
   * The same, written down instead of committed. Each node's hash is found in its left child, as if the left half of
   * every subtree had committed after the right one; a parent hash whose node has since been replaced is random.
   */
  static grown(context: MlsContext, size: number, cipherSuite: number): WholeGroup {
    const suite = suiteOf(context.crypto, cipherSuite);
    const creator = newGroup(context, cipherSuite);
    const { core } = creator;
    let leafCount = 1;
    while (leafCount < size) leafCount *= 2;
    const blank = <T>(length: number): (T | undefined)[] => Array.from<T | undefined>({ length }).fill(undefined);
    const tree: TreeEditor = { leaves: blank(leafCount), parents: blank(leafCount - 1), hashes: new TreeHashes() };
    const privateKeys = new Map<number, Uint8Array>();
    const signaturePrivateKeys = new Map<number, Uint8Array>();
    const newKeys = (node: number): KeyPair => {
      const pair = freshKemKeyPair(suite, context.random);
      privateKeys.set(node, pair.privateKey);
      return pair;
    };
    const { capabilities, extensions } = creator.tree.leaves[0]!;
    const fill = (node: number, hash: Uint8Array): void => {
      if (isLeaf(node)) {
        const leaf = node / 2;
        const signatureKeyPair = generateSignatureKeyPair(context, cipherSuite);
        signaturePrivateKeys.set(leaf, signatureKeyPair.privateKey);
        tree.leaves[leaf] = signLeafNode(suite, signatureKeyPair.privateKey, core.context.groupId, leaf, {
          encryptionKey: newKeys(node).publicKey,
          signatureKey: signatureKeyPair.publicKey,
          credential: basic(`member ${leaf}`),
          capabilities,
          source: { kind: 'commit', parentHash: hash },
          extensions,
        });
        return;
      }
      const [one, other] = [left(node), right(node)];
      // A path has no node where the other side is empty.
      if (firstLeaf(other) >= size) return fill(one, hash);
      fill(other, context.random(suite.hashLength));
      const parent = { encryptionKey: newKeys(node).publicKey, parentHash: hash, unmergedLeaves: [] };
      tree.parents[node >>> 1] = parent;
      fill(one, parentHash(suite, tree, parent, other));
    };
    fill(root(leafCount), new Uint8Array());

    const groupContext = { ...core.context, treeHash: treeHash(suite, tree) };
    const state: GroupState = {
      ...creator,
      tree,
      secretTree: newSecretTree(context.random(suite.hashLength), leafCount),
      core: {
        ...core,
        context: groupContext,
        contextBytes: encodeGroupContext(groupContext),
        signaturePrivateKey: signaturePrivateKeys.get(0)!,
        privateKeys,
      },
    };
    return new WholeGroup(context, state, privateKeys, signaturePrivateKeys);
  }

  private constructor(
    context: MlsContext,
    state: GroupState,
    privateKeys: Map<number, Uint8Array>,
    signaturePrivateKeys: Map<number, Uint8Array>,
  ) {
    this.#context = context;
    this.#state = state;
    this.#privateKeys = privateKeys;
    this.#signaturePrivateKeys = signaturePrivateKeys;
    this.adopt(state);
  }

  /** The same group, to go on in another way. */
  branch(): WholeGroup {
    return new WholeGroup(this.#context, this.#state, new Map(this.#privateKeys), new Map(this.#signaturePrivateKeys));
  }

  /** The state as the member at this leaf has it. */
  seenBy(leaf: number): GroupState {
    const signaturePrivateKey = this.#signaturePrivateKeys.get(leaf);
    if (signaturePrivateKey === undefined) throw new Error(`nobody we know at leaf ${leaf}`);
    const { core, tree } = this.#state;
    const privateKeys = new Map<number, Uint8Array>();
    for (const node of [nodeOfLeaf(leaf), ...directPath(leaf, tree.leaves.length)]) {
      const key = this.#privateKeys.get(node);
      if (key !== undefined) privateKeys.set(node, key);
    }
    return {
      ...this.#state,
      pastEpochs: [],
      core: { ...core, ownLeaf: leaf as LeafIndex, signaturePrivateKey, privateKeys, resumptionPsks: [] },
    };
  }

  /** Goes on to the epoch of a member's state, and learns the keys it has. */
  adopt(state: GroupState): void {
    this.#state = state;
    for (const [node, key] of state.core.privateKeys) this.#privateKeys.set(node, key);
    this.#signaturePrivateKeys.set(state.core.ownLeaf, state.core.signaturePrivateKey);
  }

  /** Adds a member by a commit of its sibling's leaf, so that every node above it gets a fresh key. The Welcome. */
  add(keyPackage: Uint8Array, by: number): Uint8Array {
    const { committed, next } = commitAndMerge(this.#context, this.seenBy(by), {
      proposals: [{ kind: 'add', keyPackage: verified(this.#context, keyPackage) }],
    });
    this.adopt(next);
    if (committed.welcome === undefined) throw new Error('no Welcome');
    return committed.welcome;
  }

  /** As `add`, with one of ours, who joins. */
  addOurs(bundle: KeyPackageBundle, by: number): Uint8Array {
    const welcome = this.add(bundle.keyPackage, by);
    this.adopt(accepted(joinGroup(this.#context, { welcome, keyPackage: bundle })).state);
    return welcome;
  }

  #remember(leaf: number, bundle: KeyPackageBundle): void {
    this.#privateKeys.set(nodeOfLeaf(leaf), bundle.encryptionPrivateKey);
    this.#signaturePrivateKeys.set(leaf, bundle.signaturePrivateKey);
  }
}

/** One member of ours whose state moves on. */
export class OurMember {
  readonly context: MlsContext;
  state: GroupState;

  constructor(context: MlsContext, state: GroupState) {
    this.context = context;
    this.state = state;
  }

  send(data: Uint8Array): Uint8Array {
    const { state, message } = protectApplication(this.context, this.state, data);
    this.advance(state);
    return message;
  }

  /** The application data, or nothing for a commit. */
  receive(message: Uint8Array): Uint8Array | undefined {
    const outcome = accepted(processMessage(this.context, this.state, message));
    this.advance(outcome.state);
    return outcome.kind === 'application' ? outcome.data : undefined;
  }

  advance(next: GroupState): void {
    this.state = next;
  }
}

/** 0 … count − 1 with their bits reversed; `count` is a power of two. */
function bitReversed(count: number): number[] {
  const bits = Math.log2(count);
  return Array.from({ length: count }, (_, i) => {
    let reversed = 0;
    for (let bit = 0; bit < bits; bit += 1) reversed |= ((i >>> bit) & 1) << (bits - 1 - bit);
    return reversed;
  });
}
