// A large group in which everyone has committed, made in a second or two: one state, everybody's private keys, and a view
// of that state from any leaf. All commits are real ones; only that a single process plays all members is not.
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
  verifyKeyPackage,
} from '@quicprochat/mls';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { directPath, nodeOfLeaf } from '../packages/mls/src/tree-math.ts';

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

export function newKeyPackage(context: MlsContext, name: string): KeyPackageBundle {
  return generateKeyPackage(context, {
    cipherSuite: CIPHER_SUITE,
    credential: { credentialType: 1, identity: new TextEncoder().encode(name) },
    signatureKeyPair: generateSignatureKeyPair(context, CIPHER_SUITE),
  });
}

export function newKeyPackages(context: MlsContext, count: number): KeyPackageBundle[] {
  return Array.from({ length: count }, (_, i) => newKeyPackage(context, `member ${i}`));
}

export function verified(context: MlsContext, keyPackage: Uint8Array): VerifiedKeyPackage {
  return accepted(verifyKeyPackage(context, keyPackage)).keyPackage;
}

export function newGroup(context: MlsContext): GroupState {
  return createGroup(context, {
    cipherSuite: CIPHER_SUITE,
    groupId: context.random(32),
    credential: { credentialType: 1, identity: new TextEncoder().encode('creator') },
    signatureKeyPair: generateSignatureKeyPair(context, CIPHER_SUITE),
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

/** 0 … count − 1 with their bits reversed; `count` is a power of two. */
function bitReversed(count: number): number[] {
  const bits = Math.log2(count);
  return Array.from({ length: count }, (_, i) => {
    let reversed = 0;
    for (let bit = 0; bit < bits; bit += 1) reversed |= ((i >>> bit) & 1) << (bits - 1 - bit);
    return reversed;
  });
}
