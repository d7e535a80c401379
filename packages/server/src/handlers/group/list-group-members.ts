import { addressesEqual } from '@quicprochat/core';
import { methods } from '@quicprochat/transport';
import { channelId } from '../../checks.ts';
import { deviceHandler } from '../../handler.ts';
import { noSuchChannel } from '../../refusals.ts';

export const listGroupMembers = deviceHandler(methods.group.listGroupMembers, async ({ server, session }, request) => {
  const channel = await server.store.findChannel(channelId(request.channelId));
  const onRoster = channel?.roster.some((address) => addressesEqual(address, session.address)) ?? false;
  if (channel === undefined || !onRoster) throw noSuchChannel();
  return {
    roster: [...channel.roster],
    admins: [...channel.admins],
    head: BigInt(channel.head),
    logHash: channel.logHash,
    rosterHash: channel.rosterHash,
  };
});
