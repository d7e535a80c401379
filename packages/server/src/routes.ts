/** Every method this server offers. What is not here answers `unimplemented`. */
import type { Route } from '@quicprochat/transport';
import type { ConnectionState, ServerContext } from './context.ts';
import type { RouteMaker } from './handler.ts';
import { getNonce } from './handlers/auth/get-nonce.ts';
import { logout } from './handlers/auth/logout.ts';
import { opaqueLoginFinish } from './handlers/auth/opaque-login-finish.ts';
import { opaqueLoginStart } from './handlers/auth/opaque-login-start.ts';
import { opaqueRegisterFinish } from './handlers/auth/opaque-register-finish.ts';
import { opaqueRegisterStart } from './handlers/auth/opaque-register-start.ts';
import { resumeSession } from './handlers/auth/resume-session.ts';
import { downloadBlob } from './handlers/blob/download-blob.ts';
import { uploadBlob } from './handlers/blob/upload-blob.ts';
import { createChannel } from './handlers/channel/create-channel.ts';
import { deleteAccount } from './handlers/common/delete-account.ts';
import { ack } from './handlers/delivery/ack.ts';
import { batchEnqueue } from './handlers/delivery/batch-enqueue.ts';
import { enqueue } from './handlers/delivery/enqueue.ts';
import { fetch } from './handlers/delivery/fetch.ts';
import { fetchWait } from './handlers/delivery/fetch-wait.ts';
import { peek } from './handlers/delivery/peek.ts';
import { submitCommit } from './handlers/delivery/submit-commit.ts';
import { subscribe } from './handlers/delivery/subscribe.ts';
import { listDevices } from './handlers/device/list-devices.ts';
import { registerPushToken } from './handlers/device/register-push-token.ts';
import { revokeDevice } from './handlers/device/revoke-device.ts';
import { registerDevice } from './handlers/device/register-device.ts';
import { listGroupMembers } from './handlers/group/list-group-members.ts';
import { removeMember } from './handlers/group/remove-member.ts';
import { rotateKeys } from './handlers/group/rotate-keys.ts';
import { updateGroupMetadata } from './handlers/group/update-group-metadata.ts';
import { auditKeyTransparency } from './handlers/keys/audit-key-transparency.ts';
import { checkRevocation } from './handlers/keys/check-revocation.ts';
import { countKeyPackages } from './handlers/keys/count-key-packages.ts';
import { fetchHybridKey } from './handlers/keys/fetch-hybrid-key.ts';
import { fetchHybridKeys } from './handlers/keys/fetch-hybrid-keys.ts';
import { fetchKeyPackage } from './handlers/keys/fetch-key-package.ts';
import { getConsistencyProof } from './handlers/keys/get-consistency-proof.ts';
import { getTreeHead } from './handlers/keys/get-tree-head.ts';
import { revokeKey } from './handlers/keys/revoke-key.ts';
import { uploadHybridKey } from './handlers/keys/upload-hybrid-key.ts';
import { uploadKeyPackage } from './handlers/keys/upload-key-package.ts';
import { banUser } from './handlers/moderation/ban-user.ts';
import { listBanned } from './handlers/moderation/list-banned.ts';
import { listReports } from './handlers/moderation/list-reports.ts';
import { reportMessage } from './handlers/moderation/report-message.ts';
import { unbanUser } from './handlers/moderation/unban-user.ts';
import { health } from './handlers/p2p/health.ts';
import { deleteRecoveryBundle } from './handlers/recovery/delete-recovery-bundle.ts';
import { fetchRecoveryBundle } from './handlers/recovery/fetch-recovery-bundle.ts';
import { storeRecoveryBundle } from './handlers/recovery/store-recovery-bundle.ts';
import { publishEndpoint } from './handlers/p2p/publish-endpoint.ts';
import { resolveEndpoint } from './handlers/p2p/resolve-endpoint.ts';
import { resolveIdentity } from './handlers/user/resolve-identity.ts';
import { resolveUser } from './handlers/user/resolve-user.ts';

const MAKERS: readonly RouteMaker[] = [
  opaqueRegisterStart,
  opaqueRegisterFinish,
  opaqueLoginStart,
  opaqueLoginFinish,
  resumeSession,
  logout,
  getNonce,
  enqueue,
  fetch,
  fetchWait,
  peek,
  ack,
  batchEnqueue,
  subscribe,
  submitCommit,
  uploadKeyPackage,
  fetchKeyPackage,
  uploadHybridKey,
  fetchHybridKey,
  fetchHybridKeys,
  countKeyPackages,
  revokeKey,
  checkRevocation,
  auditKeyTransparency,
  getTreeHead,
  getConsistencyProof,
  createChannel,
  removeMember,
  updateGroupMetadata,
  listGroupMembers,
  rotateKeys,
  storeRecoveryBundle,
  fetchRecoveryBundle,
  deleteRecoveryBundle,
  publishEndpoint,
  resolveEndpoint,
  uploadBlob,
  downloadBlob,
  reportMessage,
  banUser,
  unbanUser,
  listReports,
  listBanned,
  resolveUser,
  resolveIdentity,
  registerDevice,
  listDevices,
  deleteAccount,
  revokeDevice,
  registerPushToken,
  health,
];

export function routes(server: ServerContext): readonly Route<ConnectionState>[] {
  return MAKERS.map((make) => make(server));
}
