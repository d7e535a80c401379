// ts-mls 1.6.4 as a whole member, for the interoperability tests: bytes in, bytes out, any of its suites.
import {
  acceptAll,
  type CiphersuiteImpl,
  type CiphersuiteName,
  type ClientState,
  createApplicationMessage,
  createCommit,
  createGroup,
  createGroupInfoWithExternalPubAndRatchetTree,
  createProposal,
  decodeMlsMessage,
  defaultCapabilities,
  defaultLifetime,
  encodeMlsMessage,
  generateKeyPackage,
  getCiphersuiteFromName,
  getCiphersuiteImpl,
  joinGroup,
  joinGroupExternal,
  type KeyPackage,
  type MLSMessage,
  type PrivateKeyPackage,
  processMessage,
  processPrivateMessage,
  type Proposal,
  type PskIndex,
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
    const message = decode(welcome);
    if (message.wireformat !== 'mls_welcome') throw new Error('not a Welcome');
    const { publicPackage, privatePackage } = own;
    return new Peer(suite, await joinGroup(message.welcome, publicPackage, privatePackage, anyPsk, suite));
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

  async groupInfo(): Promise<Uint8Array> {
    const groupInfo = await createGroupInfoWithExternalPubAndRatchetTree(this.#state, [], this.#suite);
    return encodeMlsMessage({ version: 'mls10', wireformat: 'mls_group_info', groupInfo });
  }
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
  const message = decode(change.keyPackage);
  if (message.wireformat !== 'mls_key_package') throw new Error('not a KeyPackage');
  return { proposalType: 'add', add: { keyPackage: message.keyPackage } };
}

function decode(bytes: Uint8Array): MLSMessage {
  const message = decodeMlsMessage(bytes, 0)?.[0];
  if (message === undefined) throw new Error('ts-mls cannot decode this');
  return message;
}
