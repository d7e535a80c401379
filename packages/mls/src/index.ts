/**
 * Messaging Layer Security (RFC 9420): the public API. Synchronous pure functions on immutable state. Bytes from outside
 * go into `joinGroup`, `processMessage` and the `decode…` functions; what breaks a rule comes back as a `Rejected` value,
 * never as an exception. Exceptions are misuse (`MlsUsageError`) or damaged storage (`MlsStateError`).
 */
import type { KeyPair } from '@quicprochat/crypto';
import type {
  CommitOutcome,
  CommitParameters,
  CreateGroupParameters,
  Extension,
  FramingOptions,
  GroupContext,
  GroupState,
  GroupView,
  HandshakeOptions,
  JoinGroupParameters,
  JoinOutcome,
  KeyPackage,
  KeyPackageBundle,
  KeyPackageOutcome,
  KeyPackageParameters,
  LeafIndex,
  Member,
  MlsContext,
  PendingCommit,
  ProcessOutcome,
  ProposalInput,
  ProposeOutcome,
  ProtectedMessage,
  Rejected,
  Row,
  RowChange,
  RowReader,
} from './types.ts';

export * from './types.ts';
export { type RuleName, type ValidationRule, validationRules } from './validation-rules.ts';

// KeyPackages
export declare function generateSignatureKeyPair(context: MlsContext, cipherSuite: number): KeyPair;
export declare function generateKeyPackage(context: MlsContext, parameters: KeyPackageParameters): KeyPackageBundle;
/** Decodes and checks MLSMessage(mls_key_package) from outside. */
export declare function verifyKeyPackage(context: MlsContext, bytes: Uint8Array): KeyPackageOutcome;
/** Decodes only; nothing in the result may be trusted. */
export declare function decodeKeyPackage(bytes: Uint8Array): { kind: 'decoded'; keyPackage: KeyPackage } | Rejected;

// Groups
export declare function createGroup(context: MlsContext, parameters: CreateGroupParameters): GroupState;
/** Cipher suite and KeyPackageRefs of a Welcome, to find the KeyPackage it was made for. */
export declare function welcomeKeyPackageRefs(
  bytes: Uint8Array,
): { kind: 'decoded'; cipherSuite: number; refs: readonly Uint8Array[] } | Rejected;
export declare function joinGroup(context: MlsContext, parameters: JoinGroupParameters): JoinOutcome;
export declare function createProposal(
  context: MlsContext,
  state: GroupState,
  proposal: ProposalInput,
  options?: HandshakeOptions,
): ProposeOutcome;
export declare function createCommit(
  context: MlsContext,
  state: GroupState,
  parameters?: CommitParameters,
): CommitOutcome;
/** @throws MlsUsageError when the state is not at the epoch the commit was made in. */
export declare function mergePendingCommit(context: MlsContext, state: GroupState, pending: PendingCommit): GroupState;
export declare function encodePendingCommit(pending: PendingCommit): Uint8Array;
export declare function decodePendingCommit(context: MlsContext, bytes: Uint8Array): PendingCommit;
/** Forgets the proposals waiting for a commit. */
export declare function clearProposals(state: GroupState): GroupState;
export declare function processMessage(context: MlsContext, state: GroupState, message: Uint8Array): ProcessOutcome;
export declare function protectApplication(
  context: MlsContext,
  state: GroupState,
  data: Uint8Array,
  options?: FramingOptions,
): ProtectedMessage;

// Reading a state
export declare function groupView(state: GroupState): GroupView;
export declare function groupContext(state: GroupState): GroupContext;
export declare function roster(state: GroupState): readonly Member[];
export declare function member(state: GroupState, leafIndex: number): Member | undefined;
export declare function ownLeafIndex(state: GroupState): LeafIndex;
/** False after a commit removed us. */
export declare function isActive(state: GroupState): boolean;
export declare function findExtension(extensions: readonly Extension[], extensionType: number): Uint8Array | undefined;
export declare function pendingProposals(
  state: GroupState,
): readonly { ref: Uint8Array; proposal: import('./types.ts').Proposal; sender: import('./types.ts').Sender }[];
/** MLS-Exporter (RFC 9420 section 8.5). */
export declare function exportSecret(
  context: MlsContext,
  state: GroupState,
  label: string,
  exporterContext: Uint8Array,
  length: number,
): Uint8Array;
export declare function epochAuthenticator(state: GroupState): Uint8Array;
/** The resumption pre-shared key of the current or a retained past epoch. */
export declare function resumptionPsk(state: GroupState, epoch?: bigint): Uint8Array | undefined;
export declare function exportRatchetTree(state: GroupState): Uint8Array;

// Rows
export declare function groupRows(state: GroupState): readonly Row[];
/** What changed from one stored state to its successor; with `undefined` the rows of a new group. */
export declare function diffRows(previous: GroupState | undefined, next: GroupState): readonly RowChange[];
/** @throws MlsStateError when rows are missing or damaged. */
export declare function restoreGroup(context: MlsContext, rows: RowReader): GroupState;

// Wiping
/** Overwrites the secrets `previous` holds and `next` does not. Call it once `next` is safely stored. */
export declare function wipeReplaced(context: MlsContext, previous: GroupState, next: GroupState): void;
/** Overwrites all secrets of a group that is no longer needed. */
export declare function wipeGroup(context: MlsContext, state: GroupState): void;
export declare function wipePendingCommit(context: MlsContext, pending: PendingCommit): void;

export class MlsUsageError extends Error {
  override readonly name = 'MlsUsageError';
}
export class MlsStateError extends Error {
  override readonly name = 'MlsStateError';
}
