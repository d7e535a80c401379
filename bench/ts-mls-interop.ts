// ts-mls 1.6.4 as a whole member, for the interoperability tests: bytes in, bytes out, any of its suites.
import { ECDH } from 'node:crypto';
import {
  acceptAll,
  branchGroup,
  type CiphersuiteImpl,
  type CiphersuiteName,
  type ClientState,
  createApplicationMessage,
  createCommit,
  createGroup,
  createGroupInfoWithExternalPubAndRatchetTree,
  type CreateCommitResult,
  createProposal,
  decodeMlsMessage,
  defaultCapabilities,
  defaultLifetime,
  encodeExternalSender,
  encodeMlsMessage,
  generateKeyPackage,
  getCiphersuiteFromName,
  getCiphersuiteImpl,
  joinGroup,
  joinGroupExternal,
  joinGroupFromBranch,
  joinGroupFromReinit,
  type KeyPackage,
  type MLSMessage,
  type PrivateKeyPackage,
  processMessage,
  processPrivateMessage,
  type Proposal,
  proposeAddExternal,
  type PskIndex,
  reinitCreateNewGroup,
  reinitGroup,
  type Welcome,
} from 'ts-mls';

export interface PeerKeys {
  readonly bytes: Uint8Array;
  readonly publicPackage: KeyPackage;
  readonly privatePackage: PrivateKeyPackage;
}

export interface PeerCommit {
  readonly commit: Uint8Array;
  readonly welcome: Uint8Array | undefined;
}

export type PeerChange =
  | { readonly kind: 'add'; readonly keyPackage: Uint8Array }
  | { readonly kind: 'remove'; readonly removed: number }
  | { readonly kind: 'psk'; readonly pskId: Uint8Array };

export class Peer {
  readonly #suite: CiphersuiteImpl;
  #state: ClientState;

  static suite(name: CiphersuiteName): Promise<CiphersuiteImpl> {
    return getCiphersuiteImpl(getCiphersuiteFromName(name));
  }

  /** A suite over a NIST curve, with its public keys written as RFC 9420 section 5.1.2 wants them. */
  static async suiteOverNistCurve(name: CiphersuiteName): Promise<CiphersuiteImpl> {
    const suite = await Peer.suite(name);
    const curve = { P256: 'prime256v1', P384: 'secp384r1', P521: 'secp521r1' }[name.split('_').at(-1) ?? ''] ?? '';
    const keygen = async (): Promise<{ publicKey: Uint8Array; signKey: Uint8Array }> => {
      const { publicKey, signKey } = await suite.signature.keygen();
      const point = ECDH.convertKey(publicKey, curve, undefined, undefined, 'uncompressed') as Buffer;
      return { signKey, publicKey: new Uint8Array(point) };
    };
    return { ...suite, signature: { ...suite.signature, keygen } };
  }

  static async keys(suite: CiphersuiteImpl, name: string): Promise<PeerKeys> {
    const credential = { credentialType: 'basic' as const, identity: new TextEncoder().encode(name) };
    const pair = await generateKeyPackage(credential, defaultCapabilities(), defaultLifetime, [], suite);
    const message: MLSMessage = { version: 'mls10', wireformat: 'mls_key_package', keyPackage: pair.publicPackage };
    return { ...pair, bytes: encodeMlsMessage(message) };
  }

  static async create(suite: CiphersuiteImpl, groupId: Uint8Array, own: PeerKeys): Promise<Peer> {
    return new Peer(suite, await createGroup(groupId, own.publicPackage, own.privatePackage, [], suite));
  }

  static async join(suite: CiphersuiteImpl, welcome: Uint8Array, own: PeerKeys): Promise<Peer> {
    const { publicPackage, privatePackage } = own;
    return new Peer(suite, await joinGroup(welcomeOf(welcome), publicPackage, privatePackage, anyPsk, suite));
  }

  /** Data of an external_senders extension as ts-mls has it. */
  static externalSenders(signaturePublicKey: Uint8Array, name: string): Uint8Array {
    const credential = { credentialType: 'basic' as const, identity: new TextEncoder().encode(name) };
    return encodeExternalSender({ signaturePublicKey, credential });
  }

  /** Asks to be added, with an Add of its own. */
  static async proposeItself(suite: CiphersuiteImpl, groupInfo: Uint8Array, own: PeerKeys): Promise<Uint8Array> {
    const message = decode(groupInfo);
    if (message.wireformat !== 'mls_group_info') throw new Error('not a GroupInfo');
    return encodeMlsMessage(await proposeAddExternal(message.groupInfo, own.publicPackage, own.privatePackage, suite));
  }

  /** Joins by external commit. */
  static async joinExternal(
    suite: CiphersuiteImpl,
    groupInfo: Uint8Array,
    own: PeerKeys,
  ): Promise<{ peer: Peer; commit: Uint8Array }> {
    const message = decode(groupInfo);
    if (message.wireformat !== 'mls_group_info') throw new Error('not a GroupInfo');
    const { publicPackage, privatePackage } = own;
    const { newState, publicMessage } = await joinGroupExternal(
      message.groupInfo,
      publicPackage,
      privatePackage,
      false,
      suite,
    );
    const commit = encodeMlsMessage({ version: 'mls10', wireformat: 'mls_public_message', publicMessage });
    return { peer: new Peer(suite, newState), commit };
  }

  private constructor(suite: CiphersuiteImpl, state: ClientState) {
    this.#suite = suite;
    this.#state = state;
  }

  get epochAuthenticator(): Uint8Array {
    return this.#state.keySchedule.epochAuthenticator;
  }

  async send(data: Uint8Array): Promise<Uint8Array> {
    const { newState, privateMessage } = await createApplicationMessage(this.#state, data, this.#suite);
    this.#state = newState;
    return encodeMlsMessage({ version: 'mls10', wireformat: 'mls_private_message', privateMessage });
  }

  /** The application data; undefined for a proposal or commit. */
  async receive(bytes: Uint8Array): Promise<Uint8Array | undefined> {
    const message = decode(bytes);
    if (message.wireformat !== 'mls_private_message' && message.wireformat !== 'mls_public_message') {
      throw new Error('not a message of a group');
    }
    // Its processMessage forgets the pre-shared keys on the way to a PrivateMessage.
    const result =
      message.wireformat === 'mls_private_message'
        ? await processPrivateMessage(this.#state, message.privateMessage, anyPsk, this.#suite)
        : await processMessage(message, this.#state, anyPsk, acceptAll, this.#suite);
    this.#state = result.newState;
    return result.kind === 'applicationMessage' ? result.message : undefined;
  }

  async propose(change: PeerChange, inPublic: boolean): Promise<Uint8Array> {
    const { newState, message } = await createProposal(this.#state, inPublic, proposalOf(change), this.#suite);
    this.#state = newState;
    return encodeMlsMessage(message);
  }

  /** Commits at once. */
  async commit(changes: readonly PeerChange[], inPublic: boolean): Promise<PeerCommit> {
    const { newState, commit, welcome } = await createCommit(
      { state: this.#state, cipherSuite: this.#suite, pskIndex: anyPsk },
      { extraProposals: changes.map(proposalOf), wireAsPublicMessage: inPublic, ratchetTreeExtension: true },
    );
    this.#state = newState;
    return {
      commit: encodeMlsMessage(commit),
      welcome: welcome && encodeMlsMessage({ version: 'mls10', wireformat: 'mls_welcome', welcome }),
    };
  }

  /** Closes the group for one with this id and suite. */
  async commitReInit(groupId: Uint8Array, cipherSuite: CiphersuiteName): Promise<Uint8Array> {
    const { newState, commit } = await reinitGroup(this.#state, groupId, 'mls10', cipherSuite, [], this.#suite);
    this.#state = newState;
    return encodeMlsMessage(commit);
  }

  /** The group this one was closed for, as its first member. The Welcome does not carry the tree. */
  async reinitialized(
    groupId: Uint8Array,
    cipherSuite: CiphersuiteName,
    own: PeerKeys,
    others: readonly Uint8Array[],
  ): Promise<PeerSuccessor> {
    const created = await reinitCreateNewGroup(
      this.#state,
      own.publicPackage,
      own.privatePackage,
      others.map(keyPackageOf),
      groupId,
      cipherSuite,
      [],
    );
    return Peer.#successor(await Peer.suite(cipherSuite), created);
  }

  async joinReinitialized(welcome: Uint8Array, cipherSuite: CiphersuiteName, own: PeerKeys): Promise<Peer> {
    const { publicPackage, privatePackage } = own;
    const message = welcomeOf(welcome);
    const state = await joinGroupFromReinit(this.#state, message, publicPackage, privatePackage, undefined);
    return new Peer(await Peer.suite(cipherSuite), state);
  }

  /** A new group with some members of this one, as its first member. The Welcome does not carry the tree. */
  async branch(groupId: Uint8Array, own: PeerKeys, others: readonly Uint8Array[]): Promise<PeerSuccessor> {
    const { publicPackage, privatePackage } = own;
    const keyPackages = others.map(keyPackageOf);
    return Peer.#successor(
      this.#suite,
      await branchGroup(this.#state, publicPackage, privatePackage, keyPackages, groupId, this.#suite),
    );
  }

  static async #successor(suite: CiphersuiteImpl, { newState, welcome }: CreateCommitResult): Promise<PeerSuccessor> {
    if (welcome === undefined) throw new Error('no Welcome');
    const peer = new Peer(suite, newState);
    return {
      peer,
      welcome: encodeMlsMessage({ version: 'mls10', wireformat: 'mls_welcome', welcome }),
      ratchetTree: await peer.ratchetTree(),
    };
  }

  async joinBranch(welcome: Uint8Array, own: PeerKeys): Promise<Peer> {
    const { publicPackage, privatePackage } = own;
    const message = welcomeOf(welcome);
    const state = await joinGroupFromBranch(
      this.#state,
      message,
      publicPackage,
      privatePackage,
      undefined,
      this.#suite,
    );
    return new Peer(this.#suite, state);
  }

  /** The tree as the ratchet_tree extension carries it. */
  async ratchetTree(): Promise<Uint8Array> {
    const { extensions } = await createGroupInfoWithExternalPubAndRatchetTree(this.#state, [], this.#suite);
    const tree = extensions.find(({ extensionType }) => extensionType === 'ratchet_tree');
    if (tree === undefined) throw new Error('no tree');
    return tree.extensionData;
  }

  async groupInfo(): Promise<Uint8Array> {
    const groupInfo = await createGroupInfoWithExternalPubAndRatchetTree(this.#state, [], this.#suite);
    return encodeMlsMessage({ version: 'mls10', wireformat: 'mls_group_info', groupInfo });
  }
}

export interface PeerSuccessor {
  readonly peer: Peer;
  readonly welcome: Uint8Array;
  readonly ratchetTree: Uint8Array;
}

function welcomeOf(bytes: Uint8Array): Welcome {
  const message = decode(bytes);
  if (message.wireformat !== 'mls_welcome') throw new Error('not a Welcome');
  return message.welcome;
}

function keyPackageOf(bytes: Uint8Array): KeyPackage {
  const message = decode(bytes);
  if (message.wireformat !== 'mls_key_package') throw new Error('not a KeyPackage');
  return message.keyPackage;
}

const anyPsk: PskIndex = {
  findPsk: (id) => (id.psktype === 'external' ? peerPsk(id.pskId) : undefined),
};

/** The pre-shared key that both sides of the tests have for this id. */
export function peerPsk(pskId: Uint8Array): Uint8Array {
  return new Uint8Array(32).fill(pskId[0] ?? 0);
}

function proposalOf(change: PeerChange): Proposal {
  if (change.kind === 'remove') return { proposalType: 'remove', remove: { removed: change.removed } };
  if (change.kind === 'psk') {
    const pskNonce = crypto.getRandomValues(new Uint8Array(32));
    return { proposalType: 'psk', psk: { preSharedKeyId: { psktype: 'external', pskId: change.pskId, pskNonce } } };
  }
  return { proposalType: 'add', add: { keyPackage: keyPackageOf(change.keyPackage) } };
}

function decode(bytes: Uint8Array): MLSMessage {
  const message = decodeMlsMessage(bytes, 0)?.[0];
  if (message === undefined) throw new Error('ts-mls cannot decode this');
  return message;
}
