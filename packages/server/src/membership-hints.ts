/** Hints to the devices of a channel (methods 410, 411, 413): look at the log before believing them. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import { create, toBinary } from '@bufbuild/protobuf';
import { addressesEqual, encodeAddress } from '@quicprochat/core';
import { encodeHex } from '@quicprochat/crypto';
import { MembershipHintEventSchema, PushEvent } from '@quicprochat/proto';
import type { ServerContext } from './context.ts';
import type { DeviceCall } from './handler.ts';
import { noSuchChannel } from './refusals.ts';
import type { Address, ChannelInfo } from './store/store.ts';

/** The channel, if the caller's device is on its roster. @throws RpcError with one answer for both other cases */
export async function ownChannel({ server, session }: DeviceCall, channelId: Uint8Array): Promise<ChannelInfo> {
  const channel = await server.store.findChannel(channelId);
  const onRoster = channel?.roster.some((address) => addressesEqual(address, session.address)) ?? false;
  if (channel === undefined || !onRoster) throw noSuchChannel();
  return channel;
}

export function takeHint({ server, session }: DeviceCall): void {
  server.rates.take('hints', encodeHex(encodeAddress(session.address)));
}

/** Pushes to the live devices of the roster; who is away learns from the log, or is asked again. */
export function pushHint(
  server: ServerContext,
  roster: readonly Address[],
  hint: MessageInitShape<typeof MembershipHintEventSchema>,
): void {
  const payload = toBinary(MembershipHintEventSchema, create(MembershipHintEventSchema, hint));
  for (const address of roster) server.live.push(address, PushEvent.MEMBERSHIP_HINT, payload);
}
