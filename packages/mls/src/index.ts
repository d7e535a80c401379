/**
 * Messaging Layer Security (RFC 9420): the public API. Synchronous pure functions on immutable state. Bytes from outside
 * go into `joinGroup`, `processMessage`, `verifyKeyPackage` and `welcomeKeyPackageRefs`; what breaks a rule comes back as
 * a `Rejected` value, never as an exception. Exceptions are misuse (`MlsUsageError`) or damaged storage
 * (`MlsStateError`).
 */
export { type CipherSuite, CipherSuiteId, cipherSuites } from './cipher-suites.ts';
export { mergePendingCommit } from './commit.ts';
export { MlsStateError, MlsUsageError } from './errors.ts';
export {
  clearProposals,
  createCommit,
  createGroup,
  epochAuthenticator,
  exportRatchetTree,
  exportSecret,
  groupContext,
  groupView,
  isActive,
  member,
  ownLeafIndex,
  pendingProposals,
  resumptionPsk,
  roster,
} from './group.ts';
export {
  createExternalProposal,
  createGroupInfo,
  createNewMemberProposal,
  joinByExternalCommit,
} from './external-join.ts';
export { greaseExtension } from './grease.ts';
export { defaultConfig, findExtension } from './group-state.ts';
export {
  decodeKeyPackage,
  generateKeyPackage,
  generateSignatureKeyPair,
  isLastResort,
  verifyKeyPackage,
} from './leaf-node.ts';
export { createProposal, dropExpiredEpochs, processMessage, protectApplication } from './process-message.ts';
export { decodePendingCommit, diffRows, encodePendingCommit, groupRows, memoryRows, restoreGroup } from './rows.ts';
export { type SqlDatabase, type SqlRows, sqlRows, type SqlStatement } from './sql-rows.ts';
export { encodeExternalJoins, encodeExternalSenders, encodeRequiredCapabilities } from './structures.ts';
export { createBranch, createReinitializedGroup, reInitOf } from './successor.ts';
export * from './types.ts';
export { type RuleName, type ValidationRule, validationRules } from './validation-rules.ts';
export { joinGroup, welcomeKeyPackageRefs } from './welcome.ts';
export { wipeGroup, wipePendingCommit, wipeReplaced } from './wipe.ts';
