import { MembershipHintEvent_Kind } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import { channelId } from '../../checks.ts';
import { deviceHandler } from '../../handler.ts';
import { ownChannel, pushHint, takeHint } from '../../membership-hints.ts';

/** Asks every device of the group to update its leaf. */
export const rotateKeys = deviceHandler(methods.group.rotateKeys, async (call, request) => {
  const id = channelId(request.channelId);
  takeHint(call);
  const { roster } = await ownChannel(call, id);
  pushHint(call.server, roster, { channelId: id, kind: MembershipHintEvent_Kind.ROTATE_KEYS });
  return {};
});
