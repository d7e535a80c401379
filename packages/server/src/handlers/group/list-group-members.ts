import { methods } from '@quicprochat/transport';
import { channelId } from '../../checks.ts';
import { deviceHandler } from '../../handler.ts';
import { ownChannel } from '../../membership-hints.ts';

export const listGroupMembers = deviceHandler(methods.group.listGroupMembers, async (call, request) => {
  const channel = await ownChannel(call, channelId(request.channelId));
  const { metadata } = channel;
  return {
    roster: [...channel.roster],
    admins: [...channel.admins],
    head: BigInt(channel.head),
    logHash: channel.logHash,
    rosterHash: channel.rosterHash,
    ...(metadata === undefined ? {} : { metadata: { version: BigInt(metadata.version), metadata: metadata.data } }),
  };
});
