// ts-mls 1.6.4 as it comes from the registry, as one member: bytes in, bytes out, like ours.
import {
  type CiphersuiteImpl,
  type ClientState,
  type Credential,
  type KeyPackage,
  type MLSMessage,
  type PrivateKeyPackage,
  createApplicationMessage,
  createCommit,
  createGroup,
  decodeMlsMessage,
  defaultCapabilities,
  emptyPskIndex,
  encodeMlsMessage,
  generateKeyPackage,
  generateKeyPackageWithKey,
  getCiphersuiteFromName,
  getCiphersuiteImpl,
  joinGroup,
  processPrivateMessage,
} from 'ts-mls';

const DAY = 86_400n;

export interface PeerKeyPackage {
  readonly bytes: Uint8Array;
  readonly publicPackage: KeyPackage;
  readonly privatePackage: PrivateKeyPackage;
}

export class TsMls {
  readonly #suite: CiphersuiteImpl;

  static async load(): Promise<TsMls> {
    return new TsMls(await getCiphersuiteImpl(getCiphersuiteFromName('MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519')));
  }

  private constructor(suite: CiphersuiteImpl) {
    this.#suite = suite;
  }

  async newKeyPackage(name: string): Promise<PeerKeyPackage> {
    const pair = await generateKeyPackage(credential(name), defaultCapabilities(), lifetime(), [], this.#suite);
    return { ...pair, bytes: encodeMlsMessage(keyPackageMessage(pair.publicPackage)) };
  }

  /** Makes KeyPackages for one signature key, as a client does that keeps a stock of them. */
  async keyPackageMaker(name: string): Promise<() => Promise<Uint8Array>> {
    const signatureKeyPair = await this.#suite.signature.keygen();
    return async () => {
      const pair = await generateKeyPackageWithKey(
        credential(name),
        defaultCapabilities(),
        lifetime(),
        [],
        signatureKeyPair,
        this.#suite,
      );
      return encodeMlsMessage(keyPackageMessage(pair.publicPackage));
    };
  }

  async create(own: PeerKeyPackage): Promise<TsMlsMember> {
    const groupId = crypto.getRandomValues(new Uint8Array(32));
    const state = await createGroup(groupId, own.publicPackage, own.privatePackage, [], this.#suite);
    return new TsMlsMember(this.#suite, state);
  }

  async join(welcome: Uint8Array, own: PeerKeyPackage): Promise<TsMlsMember> {
    const message = decode(welcome);
    if (message.wireformat !== 'mls_welcome') throw new Error('not a Welcome');
    return new TsMlsMember(
      this.#suite,
      await joinGroup(message.welcome, own.publicPackage, own.privatePackage, emptyPskIndex, this.#suite),
    );
  }
}

export class TsMlsMember {
  readonly #suite: CiphersuiteImpl;
  #state: ClientState;

  constructor(suite: CiphersuiteImpl, state: ClientState) {
    this.#suite = suite;
    // Ours pads on request only.
    const paddingConfig = { kind: 'padUntilLength' as const, padUntilLength: 0 };
    this.#state = { ...state, clientConfig: { ...state.clientConfig, paddingConfig } };
  }

  get epochAuthenticator(): Uint8Array {
    return this.#state.keySchedule.epochAuthenticator;
  }

  async send(data: Uint8Array): Promise<Uint8Array> {
    const { newState, privateMessage } = await createApplicationMessage(this.#state, data, this.#suite);
    this.#state = newState;
    return encodeMlsMessage({ version: 'mls10', wireformat: 'mls_private_message', privateMessage });
  }

  /** The application data, or nothing for a commit. */
  async receive(bytes: Uint8Array): Promise<Uint8Array | undefined> {
    const message = decode(bytes);
    if (message.wireformat !== 'mls_private_message') throw new Error('not a PrivateMessage');
    const result = await processPrivateMessage(this.#state, message.privateMessage, emptyPskIndex, this.#suite);
    this.#state = result.newState;
    return result.kind === 'applicationMessage' ? result.message : undefined;
  }

  async commit(): Promise<Uint8Array> {
    const { newState, commit } = await createCommit({ state: this.#state, cipherSuite: this.#suite });
    this.#state = newState;
    return encodeMlsMessage(commit);
  }

  /** Decodes the KeyPackages, checks them and commits to adding them all; the state stays as it was. */
  async addAll(keyPackages: readonly Uint8Array[]): Promise<void> {
    const extraProposals = keyPackages.map((bytes) => {
      const message = decode(bytes);
      if (message.wireformat !== 'mls_key_package') throw new Error('not a KeyPackage');
      return { proposalType: 'add' as const, add: { keyPackage: message.keyPackage } };
    });
    const { commit, welcome } = await createCommit(
      { state: this.#state, cipherSuite: this.#suite },
      { extraProposals, ratchetTreeExtension: true },
    );
    encodeMlsMessage(commit);
    if (welcome?.secrets.length !== keyPackages.length) throw new Error('not all were added');
    encodeMlsMessage({ version: 'mls10', wireformat: 'mls_welcome', welcome });
  }
}

function credential(name: string): Credential {
  return { credentialType: 'basic', identity: new TextEncoder().encode(name) };
}

function lifetime(): { notBefore: bigint; notAfter: bigint } {
  const now = BigInt(Math.floor(Date.now() / 1000));
  return { notBefore: now - DAY, notAfter: now + 28n * DAY };
}

function keyPackageMessage(keyPackage: KeyPackage): MLSMessage {
  return { version: 'mls10', wireformat: 'mls_key_package', keyPackage };
}

function decode(bytes: Uint8Array): MLSMessage {
  const message = decodeMlsMessage(bytes, 0)?.[0];
  if (message === undefined) throw new Error('ts-mls cannot decode this');
  return message;
}
