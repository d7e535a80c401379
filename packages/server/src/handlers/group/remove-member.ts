import { equal } from '@quicprochat/crypto';
import { MembershipHintEvent_Kind } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import { channelId, identityOrDevice } from '../../checks.ts';
import { deviceHandler } from '../../handler.ts';
import { ownChannel, pushHint, takeHint } from '../../membership-hints.ts';
import { notFound } from '../../refusals.ts';

/** Asks the group to commit a Remove. The roster changes in SubmitCommit only. */
export const removeMember = deviceHandler(methods.group.removeMember, async (call, request) => {
  const id = channelId(request.channelId);
  const { identityKey, deviceId } = identityOrDevice(request.address);
  takeHint(call);
  const { roster } = await ownChannel(call, id);
  const isMeant = roster.some(
    (each) => equal(each.identityKey, identityKey) && (deviceId === undefined || equal(each.deviceId, deviceId)),
  );
  if (!isMeant) throw notFound('whom to remove is not on the roster');
  const address = { identityKey, ...(deviceId === undefined ? {} : { deviceId }) };
  pushHint(call.server, roster, { channelId: id, kind: MembershipHintEvent_Kind.REMOVE_MEMBER, address });
  return {};
});
