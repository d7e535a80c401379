/**
 * The structures of RFC 9420 in the RFC's own words (camelCase), and the types of this library's public functions.
 * Wire structures: sections 5.3 (credentials), 6 (framing), 7.1–7.2 (tree nodes), 8.1 (GroupContext), 10 (KeyPackage),
 * 12.1 (proposals), 12.4 (Commit, GroupInfo, Welcome), 13 (extensions).
 *
 * What came from outside and was only decoded has the plain type; what was checked has a `Verified…` type that only the
 * checking function can make. Everything is immutable: no function changes a value it was given.
 */
import type { CryptoProvider, KeyPair } from '@quicprochat/crypto';
import type { RuleName } from './validation-rules.ts';

declare const brand: unique symbol;
declare const verified: unique symbol;

/** Position of a member in the tree, counted over leaves: 0, 1, 2 … */
export type LeafIndex = number & { readonly [brand]: 'LeafIndex' };
/** Position of a node in the array representation of the tree (RFC 9420 Appendix C): leaf i is node 2i. */
export type NodeIndex = number & { readonly [brand]: 'NodeIndex' };

export const ProtocolVersion = { Mls10: 1 } as const;

export const WireFormat = { PublicMessage: 1, PrivateMessage: 2, Welcome: 3, GroupInfo: 4, KeyPackage: 5 } as const;
export type WireFormat = (typeof WireFormat)[keyof typeof WireFormat];

export const ContentType = { Application: 1, Proposal: 2, Commit: 3 } as const;
export type ContentType = (typeof ContentType)[keyof typeof ContentType];

export const CredentialType = { Basic: 1, X509: 2 } as const;

export const ProposalType = {
  Add: 1,
  Update: 2,
  Remove: 3,
  PreSharedKey: 4,
  ReInit: 5,
  ExternalInit: 6,
  GroupContextExtensions: 7,
} as const;
export type ProposalType = (typeof ProposalType)[keyof typeof ProposalType];

export const ExtensionType = {
  ApplicationId: 1,
  RatchetTree: 2,
  RequiredCapabilities: 3,
  ExternalPub: 4,
  ExternalSenders: 5,
  /**
   * Ours, in the private range: whom the group lets in without a member's commit (`encodeExternalJoins`). A group without
   * it lets nobody in.
   */
  ExternalJoins: 0xf0e1,
  /** draft-ietf-mls-extensions; marks a KeyPackage that may be used more than once. */
  LastResort: 10,
} as const;

export interface Extension {
  readonly extensionType: number;
  readonly extensionData: Uint8Array;
}

export type Credential =
  | { readonly credentialType: 1; readonly identity: Uint8Array }
  | { readonly credentialType: 2; readonly certificates: readonly Uint8Array[] };

export interface Capabilities {
  readonly versions: readonly number[];
  readonly cipherSuites: readonly number[];
  readonly extensions: readonly number[];
  readonly proposals: readonly number[];
  readonly credentials: readonly number[];
}

/** Seconds since 1970, both inclusive. */
export interface Lifetime {
  readonly notBefore: bigint;
  readonly notAfter: bigint;
}

export type LeafNodeSource =
  | { readonly kind: 'keyPackage'; readonly lifetime: Lifetime }
  | { readonly kind: 'update' }
  | { readonly kind: 'commit'; readonly parentHash: Uint8Array };

export interface LeafNode {
  readonly encryptionKey: Uint8Array;
  readonly signatureKey: Uint8Array;
  readonly credential: Credential;
  readonly capabilities: Capabilities;
  readonly source: LeafNodeSource;
  readonly extensions: readonly Extension[];
  readonly signature: Uint8Array;
}

export interface ParentNode {
  readonly encryptionKey: Uint8Array;
  readonly parentHash: Uint8Array;
  /** Ascending. */
  readonly unmergedLeaves: readonly LeafIndex[];
}

/** A decoded KeyPackage nobody has checked yet. */
export interface KeyPackage {
  readonly version: number;
  readonly cipherSuite: number;
  readonly initKey: Uint8Array;
  readonly leafNode: LeafNode;
  readonly extensions: readonly Extension[];
  readonly signature: Uint8Array;
}

/** A KeyPackage whose signatures, keys, lifetime and capabilities are valid at the time it was checked. */
export interface VerifiedKeyPackage extends KeyPackage {
  readonly [verified]: true;
}

export interface RequiredCapabilities {
  readonly extensionTypes: readonly number[];
  readonly proposalTypes: readonly number[];
  readonly credentialTypes: readonly number[];
}

export interface GroupContext {
  readonly version: number;
  readonly cipherSuite: number;
  readonly groupId: Uint8Array;
  readonly epoch: bigint;
  readonly treeHash: Uint8Array;
  readonly confirmedTranscriptHash: Uint8Array;
  readonly extensions: readonly Extension[];
}

export const ResumptionPskUsage = { Application: 1, ReInit: 2, Branch: 3 } as const;

/** Which pre-shared key (RFC 9420 section 8.4). `pskNonce` is fresh for each use. */
export type PreSharedKeyId =
  | { readonly kind: 'external'; readonly pskId: Uint8Array; readonly pskNonce: Uint8Array }
  | {
      readonly kind: 'resumption';
      readonly usage: number;
      readonly pskGroupId: Uint8Array;
      readonly pskEpoch: bigint;
      readonly pskNonce: Uint8Array;
    };

export type Proposal =
  | { readonly kind: 'add'; readonly keyPackage: KeyPackage }
  | { readonly kind: 'update'; readonly leafNode: LeafNode }
  | { readonly kind: 'remove'; readonly removed: LeafIndex }
  | { readonly kind: 'preSharedKey'; readonly psk: PreSharedKeyId }
  | {
      readonly kind: 'reInit';
      readonly groupId: Uint8Array;
      readonly version: number;
      readonly cipherSuite: number;
      readonly extensions: readonly Extension[];
    }
  | { readonly kind: 'externalInit'; readonly kemOutput: Uint8Array }
  | { readonly kind: 'groupContextExtensions'; readonly extensions: readonly Extension[] }
  /**
   * A proposal of a type that RFC 9420 does not define. On the wire its body is one `opaque data<V>`. What it does is the
   * application's business (`validateCommit`, `effects.proposals`); a commit that covers one has a path.
   */
  | { readonly kind: 'custom'; readonly proposalType: number; readonly data: Uint8Array };

export type ReInit = Omit<Extract<Proposal, { kind: 'reInit' }>, 'kind'>;

/** Who may come in, or ask to, without a member (RFC 9420 sections 12.1.8 and 12.4.3.2). */
export interface ExternalJoins {
  /** Clients may join by external commit. */
  readonly commits: boolean;
  /** Clients may propose their own Add. */
  readonly proposals: boolean;
}

/** An entry of the external_senders extension (RFC 9420 section 12.1.8.1). */
export interface ExternalSender {
  readonly signatureKey: Uint8Array;
  readonly credential: Credential;
}

export type Sender =
  | { readonly kind: 'member'; readonly leafIndex: LeafIndex }
  | { readonly kind: 'external'; readonly senderIndex: number }
  | { readonly kind: 'newMemberProposal' }
  | { readonly kind: 'newMemberCommit' };

// ---- What the caller supplies ---------------------------------------------------------------------------------------

/** Everything a function needs from the world. Make a fresh one per call when the clock matters. */
export interface MlsContext {
  readonly crypto: CryptoProvider;
  /** Cryptographically random bytes; in production `crypto.random`. */
  readonly random: (length: number) => Uint8Array;
  /** Seconds since 1970. */
  readonly now: number;
  readonly hooks?: MlsHooks;
  /**
   * Also refuse expired leaves that others committed or that stand in a tree one joins. Off by default: members' clocks
   * differ, and what one member refuses and another accepts splits the group. One's own choices (`verifyKeyPackage`,
   * Adds one makes) are always checked.
   */
  readonly checkReceivedLifetimes?: boolean;
}

export type Verdict = { readonly kind: 'accept' } | { readonly kind: 'reject'; readonly reason: string };

export interface MlsHooks {
  /**
   * The application's authentication service (RFC 9420 section 5.3.1): is this credential, with this signature key and
   * these leaf extensions, who it claims to be? Asked for every member when joining, and for each leaf that an Add, an
   * Update or a commit's path brings in; for a joiner by external commit the reason is 'add'. Without it every credential is accepted. It must answer alike for all members
   * of a group, so not depend on time or network.
   */
  validateMember?(member: Member, reason: 'join' | 'add' | 'update' | 'commit'): Verdict;
  /** Pure policy over a commit. Called with equal arguments for its sender and every receiver. */
  validateCommit?(commit: CommitToValidate): Verdict;
  /**
   * Whether a client may join by its own commit, or propose its own Add. Asked alike by the joiner and all members; must
   * answer alike for all. Without it the group's ExternalJoins extension decides, and a group without that says no.
   */
  externalJoin?(group: GroupView, how: 'commit' | 'proposal'): Verdict;
  /**
   * Whether two leaves present the same client to the application: asked when a joiner removes its old self, and when a
   * group is reinitialized or branched. Default: equal credentials. Must answer alike for all members.
   */
  sameClient?(one: Member, other: Member): boolean;
  /** The external pre-shared key with this id, if the application has it. */
  externalPsk?(pskId: Uint8Array): Uint8Array | undefined;
  /** The resumption pre-shared key of another group than the one at work (see `resumptionPsk`). */
  resumptionPsk?(groupId: Uint8Array, epoch: bigint): Uint8Array | undefined;
}

export interface CommitToValidate {
  readonly before: GroupView;
  /** The group as it will be, the committer's new leaf included. */
  readonly after: GroupView;
  readonly proposals: readonly SentProposal[];
  /** In an external commit the place of the joiner, where `before` has nobody, or its former self. */
  readonly committer: LeafIndex;
  readonly external: boolean;
  readonly authenticatedData: Uint8Array;
}

export interface SentProposal {
  readonly proposal: Proposal;
  readonly sender: Sender;
  readonly byReference: boolean;
}

export interface Member {
  readonly leafIndex: LeafIndex;
  readonly credential: Credential;
  readonly signatureKey: Uint8Array;
  readonly encryptionKey: Uint8Array;
  /** Leaf node extensions, custom ones included. */
  readonly extensions: readonly Extension[];
  readonly capabilities: Capabilities;
  readonly source: LeafNodeSource;
}

/** What everybody knows of a group at one epoch. */
export interface GroupView {
  readonly groupId: Uint8Array;
  readonly epoch: bigint;
  readonly cipherSuite: number;
  /** GroupContext extensions. */
  readonly extensions: readonly Extension[];
  member(leafIndex: number): Member | undefined;
  /** In order of leaf index. */
  members(): readonly Member[];
}

/** Limits of one group, kept in its state. */
export interface GroupConfig {
  /** How many generations one sender's ratchet may be advanced by a single message. */
  readonly skipAheadMax: number;
  readonly unusedKeysPerSenderMax: number;
  readonly unusedKeysPerGroupMax: number;
  /** Past epochs whose application messages can still be read. */
  readonly pastEpochsMax: number;
  readonly pastEpochSecondsMax: number;
  /** Past epochs whose resumption secret is kept. */
  readonly resumptionEpochsMax: number;
  /** Proposals kept for a later commit. */
  readonly proposalsMax: number;
}

// ---- Refusals -------------------------------------------------------------------------------------------------------

/** An expected failure: what was received (or asked for) breaks a rule. The state is as it was. */
export interface Rejected {
  readonly kind: 'rejected';
  /** Number in `validationRules`; OpenMLS's ValSem number where it has one. */
  readonly rule: number;
  readonly name: RuleName;
  readonly reason: string;
}

// ---- KeyPackages ----------------------------------------------------------------------------------------------------

export interface KeyPackageParameters {
  readonly cipherSuite: number;
  readonly credential: Credential;
  readonly signatureKeyPair: KeyPair;
  /** Default: from an hour ago to 84 days ahead. */
  readonly lifetime?: Lifetime;
  /** Lists left out get defaults; the types of extensions and credential given here are always added. */
  readonly capabilities?: Partial<Capabilities>;
  readonly extensions?: readonly Extension[];
  readonly leafNodeExtensions?: readonly Extension[];
  /** Marks it as one that may be used more than once, when no other is left (draft-ietf-mls-extensions). */
  readonly lastResort?: boolean;
  /** Adds random values that others must ignore (RFC 9420 section 13.5). Default false. */
  readonly grease?: boolean;
}

/** A KeyPackage and its secrets. All fields are bytes, to be stored as they are until a Welcome comes. */
export interface KeyPackageBundle {
  /** MLSMessage with wire format mls_key_package: what is published. */
  readonly keyPackage: Uint8Array;
  readonly keyPackageRef: Uint8Array;
  readonly initPrivateKey: Uint8Array;
  readonly encryptionPrivateKey: Uint8Array;
  readonly signaturePrivateKey: Uint8Array;
}

export type KeyPackageOutcome =
  | { readonly kind: 'verified'; readonly keyPackage: VerifiedKeyPackage; readonly keyPackageRef: Uint8Array }
  | Rejected;

// ---- Groups ---------------------------------------------------------------------------------------------------------

/** One group as one member sees it: a value. Its fields are the library's business; read it through the functions. */
export type { GroupState } from './group-state.ts';
import type { GroupState } from './group-state.ts';
export type { PendingCommit } from './pending-commit.ts';
import type { PendingCommit } from './pending-commit.ts';

export interface CreateGroupParameters {
  readonly cipherSuite: number;
  readonly groupId: Uint8Array;
  readonly credential: Credential;
  readonly signatureKeyPair: KeyPair;
  readonly capabilities?: Partial<Capabilities>;
  readonly lifetime?: Lifetime;
  readonly leafNodeExtensions?: readonly Extension[];
  /** GroupContext extensions. */
  readonly extensions?: readonly Extension[];
  /** As in `KeyPackageParameters`, for the creator's leaf. */
  readonly grease?: boolean;
  readonly config?: Partial<GroupConfig>;
}

export interface JoinGroupParameters {
  /** MLSMessage with wire format mls_welcome. */
  readonly welcome: Uint8Array;
  /** The KeyPackage this Welcome was made for (see `welcomeKeyPackageRefs`). */
  readonly keyPackage: KeyPackageBundle;
  /** The tree, when the Welcome does not carry it. */
  readonly ratchetTree?: Uint8Array;
  /** Refuse any other group. */
  readonly expectedGroupId?: Uint8Array;
  /** Whether a state for this group exists already; then the Welcome is refused. */
  readonly groupExists?: (groupId: Uint8Array) => boolean;
  /**
   * The group that this one continues: closed by a ReInit, or branched from. Then only a Welcome that continues exactly
   * that group is accepted; without it none that continues any.
   */
  readonly previous?: GroupState;
  readonly config?: Partial<GroupConfig>;
}

export type JoinOutcome =
  | {
      readonly kind: 'joined';
      readonly state: GroupState;
      /** Who committed the Add. */
      readonly inviter: Member;
      /** GroupInfo extensions beside the ratchet tree. */
      readonly groupInfoExtensions: readonly Extension[];
    }
  | Rejected;

export interface GroupInfoOptions {
  /** Default true. */
  readonly ratchetTree?: boolean;
  /** Whether one can join by external commit with it. Default: when the group lets clients do so. */
  readonly externalPub?: boolean;
  readonly extensions?: readonly Extension[];
}

export interface ExternalCommitParameters {
  /** MLSMessage with wire format mls_group_info. */
  readonly groupInfo: Uint8Array;
  /** The tree, when the GroupInfo does not carry it. */
  readonly ratchetTree?: Uint8Array;
  readonly credential: Credential;
  readonly signatureKeyPair: KeyPair;
  readonly capabilities?: Partial<Capabilities>;
  readonly leafNodeExtensions?: readonly Extension[];
  /** The leaf of one's former self, which is replaced. */
  readonly replaces?: LeafIndex;
  readonly psks?: readonly Extract<ProposalInput, { kind: 'externalPsk' | 'resumptionPsk' }>[];
  readonly authenticatedData?: Uint8Array;
  readonly expectedGroupId?: Uint8Array;
  readonly groupExists?: (groupId: Uint8Array) => boolean;
  readonly config?: Partial<GroupConfig>;
}

export type ExternalCommitOutcome =
  | {
      readonly kind: 'committed';
      /** MLSMessage for the group. */
      readonly commit: Uint8Array;
      /** The group as it is when this commit is accepted; else drop it (`wipeGroup`) and begin with a new GroupInfo. */
      readonly state: GroupState;
      readonly effects: CommitEffects;
      /** GroupInfo extensions beside the ratchet tree and external_pub. */
      readonly groupInfoExtensions: readonly Extension[];
    }
  | Rejected;

export interface ExternalProposalParameters {
  readonly cipherSuite: number;
  readonly groupId: Uint8Array;
  readonly epoch: bigint;
  /** Position in the group's external_senders. */
  readonly senderIndex: number;
  readonly signaturePrivateKey: Uint8Array;
  readonly proposal: Exclude<ProposalInput, { kind: 'update' | 'custom' }>;
  readonly authenticatedData?: Uint8Array;
}

export interface NewMemberProposalParameters {
  readonly groupId: Uint8Array;
  readonly epoch: bigint;
  readonly keyPackage: KeyPackageBundle;
  readonly authenticatedData?: Uint8Array;
}

/** What a group needs that continues another one. */
export interface SuccessorParameters extends Pick<
  CreateGroupParameters,
  'credential' | 'signatureKeyPair' | 'capabilities' | 'lifetime' | 'leafNodeExtensions' | 'config' | 'grease'
> {
  /** Of the members that come along, in the new group's cipher suite; one's own is not among them. */
  readonly keyPackages: readonly VerifiedKeyPackage[];
  /** Default true. */
  readonly ratchetTreeInWelcome?: boolean;
}

export interface BranchParameters extends SuccessorParameters {
  readonly groupId: Uint8Array;
  /** GroupContext extensions. */
  readonly extensions?: readonly Extension[];
}

export type SuccessorOutcome =
  | {
      readonly kind: 'created';
      /** In epoch 1. Nobody can have made another commit before, so there is nothing to wait for. */
      readonly state: GroupState;
      readonly welcome: Uint8Array;
      readonly ratchetTree: Uint8Array | undefined;
    }
  | Rejected;

/** Changes to one's own leaf, carried by an Update or by a commit's path. What is absent stays. */
export interface LeafNodeChanges {
  readonly credential?: Credential;
  readonly signatureKeyPair?: KeyPair;
  readonly capabilities?: Capabilities;
  readonly extensions?: readonly Extension[];
}

export type ProposalInput =
  | { readonly kind: 'add'; readonly keyPackage: VerifiedKeyPackage }
  | { readonly kind: 'update'; readonly leafNode?: LeafNodeChanges }
  | { readonly kind: 'remove'; readonly removed: LeafIndex }
  | { readonly kind: 'externalPsk'; readonly pskId: Uint8Array }
  | { readonly kind: 'resumptionPsk'; readonly groupId: Uint8Array; readonly epoch: bigint }
  | { readonly kind: 'groupContextExtensions'; readonly extensions: readonly Extension[] }
  /** Closes the group, for one with these parameters. Stands alone in its commit. */
  | {
      readonly kind: 'reInit';
      readonly groupId: Uint8Array;
      readonly cipherSuite: number;
      /** GroupContext extensions of the new group. */
      readonly extensions?: readonly Extension[];
    }
  | { readonly kind: 'custom'; readonly proposalType: number; readonly data: Uint8Array };

export interface FramingOptions {
  /** Authenticated, and sent in clear. Default empty. */
  readonly authenticatedData?: Uint8Array;
  /** Zero bytes appended to the plaintext of a PrivateMessage. Default 0. */
  readonly paddingLength?: number;
}

export interface HandshakeOptions extends FramingOptions {
  /** Default 'private'. */
  readonly wireFormat?: 'private' | 'public';
}

export type ProposeOutcome =
  | {
      readonly kind: 'proposed';
      /** Remembers the proposal, so that a later commit can refer to it. */
      readonly state: GroupState;
      readonly message: Uint8Array;
      readonly ref: Uint8Array;
    }
  | Rejected;

export interface CommitParameters extends HandshakeOptions {
  /** Carried by value, in this order. `update` is not allowed here: a commit updates its sender by its path. */
  readonly proposals?: readonly ProposalInput[];
  /** Which received proposals to cover: all that are valid together (default), none, or these references. */
  readonly byReference?: 'all' | 'none' | readonly Uint8Array[];
  /** A path is made whenever the proposals require one; true makes one anyway. Default true. */
  readonly path?: boolean;
  /** New contents of one's own leaf; implies a path. */
  readonly leafNode?: LeafNodeChanges;
  /** Whether the Welcome carries the tree. Default true. */
  readonly ratchetTreeInWelcome?: boolean;
  /** Further extensions of the Welcome's GroupInfo. */
  readonly groupInfoExtensions?: readonly Extension[];
}

export type CommitOutcome =
  | {
      readonly kind: 'committed';
      /** The current epoch, with the sending ratchet advanced: store it together with `pending`. */
      readonly state: GroupState;
      /** MLSMessage for the group. */
      readonly commit: Uint8Array;
      /** MLSMessage for all added members, when there are any. */
      readonly welcome: Uint8Array | undefined;
      /** The tree for the joiners, when the Welcome does not carry it. */
      readonly ratchetTree: Uint8Array | undefined;
      /** The next epoch: `mergePendingCommit` it when the commit was accepted, else drop it. */
      readonly pending: PendingCommit;
      readonly effects: CommitEffects;
    }
  | Rejected;

export interface CommitEffects {
  readonly committer: Member;
  readonly added: readonly Member[];
  readonly removed: readonly Member[];
  /** By an Update or by the commit's path. */
  readonly updated: readonly { readonly before: Member; readonly after: Member }[];
  readonly extensionsChanged: boolean;
  readonly selfRemoved: boolean;
  /** The committer came in by this commit; it is among `added`. */
  readonly external: boolean;
  readonly proposals: readonly SentProposal[];
  readonly oldEpoch: bigint;
  /** oldEpoch + 1. */
  readonly newEpoch: bigint;
}

export type ProcessOutcome =
  | {
      readonly kind: 'application';
      readonly state: GroupState;
      readonly sender: Member;
      readonly epoch: bigint;
      readonly generation: number;
      readonly data: Uint8Array;
      readonly authenticatedData: Uint8Array;
    }
  | {
      readonly kind: 'proposal';
      readonly state: GroupState;
      readonly ref: Uint8Array;
      readonly proposal: Proposal;
      readonly sender: Sender;
      readonly authenticatedData: Uint8Array;
    }
  | {
      readonly kind: 'commit';
      /** The next epoch; when `effects.selfRemoved`, the last epoch, which can read late messages but not send. */
      readonly state: GroupState;
      readonly effects: CommitEffects;
      readonly authenticatedData: Uint8Array;
    }
  | {
      /** A message of ours came back. The state is unchanged. */
      readonly kind: 'own';
      readonly state: GroupState;
      readonly contentType: ContentType;
      readonly epoch: bigint;
      /** Undefined for a PublicMessage. */
      readonly generation: number | undefined;
    }
  | Rejected;

export interface ProtectedMessage {
  readonly state: GroupState;
  /** MLSMessage with wire format mls_private_message. */
  readonly message: Uint8Array;
  readonly epoch: bigint;
  readonly generation: number;
}

// ---- Rows -----------------------------------------------------------------------------------------------------------

/** A piece of a group's state. Keys are short ASCII strings, unique within the group. */
export interface Row {
  readonly key: string;
  readonly bytes: Uint8Array;
}

export type RowChange =
  | { readonly kind: 'set'; readonly key: string; readonly bytes: Uint8Array }
  | { readonly kind: 'delete'; readonly key: string }
  /** Every row whose key starts with this. */
  | { readonly kind: 'deletePrefix'; readonly prefix: string };

/** One group's rows. Both are synchronous; a state restored from it reads further rows when it first needs them. */
export interface RowReader {
  get(key: string): Uint8Array | undefined;
  /** Rows whose key starts with `prefix`, in any order. */
  list(prefix: string): Iterable<Row>;
}

/** Where one group's rows are kept. The caller makes `apply` part of a transaction. */
export interface RowStore extends RowReader {
  apply(changes: readonly RowChange[]): void;
}
