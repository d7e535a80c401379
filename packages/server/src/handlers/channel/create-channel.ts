import { CHANNEL_ID_BYTES } from '@quicprochat/core';
import { encodeHex, equal } from '@quicprochat/crypto';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { CreateChannelResponseSchema, NewDirectChannel, NewGroupChannel } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import { channelId, identityKey } from '../../checks.ts';
import { deviceHandler } from '../../handler.ts';
import type { DeviceCall } from '../../handler.ts';
import { askChannel } from '../../plugins.ts';
import { alreadyExists, deviceGone, invalidArgument, notFound } from '../../refusals.ts';

type Answer = MessageInitShape<typeof CreateChannelResponseSchema>;

export const createChannel = deviceHandler(methods.channel.createChannel, async (call, request) => {
  call.server.rates.take('channels', encodeHex(call.session.address.identityKey));
  switch (request.kind.case) {
    case 'group':
      return createGroup(call, request.kind.value);
    case 'direct':
      return createDirect(call, request.kind.value);
    case undefined:
      throw invalidArgument('say whether the channel is a group or direct');
  }
});

async function createGroup(call: DeviceCall, wanted: NewGroupChannel): Promise<Answer> {
  const { server, session, writes } = call;
  const id = channelId(wanted.channelId);
  if (server.plugins !== undefined) await askChannel(call, 'create_group', id, { added: 1, removed: 0 });
  const nowMs = server.clock.wallMs();
  const outcome = await server.store.createGroup({ channelId: id, creator: session.address, nowMs }, writes);
  switch (outcome.kind) {
    case 'created':
      return { outcome: { case: 'created', value: { channelId: id } } };
    case 'conflict':
      throw alreadyExists('this channel id is taken', 'Draw another one.');
    case 'unknown_device':
      throw deviceGone();
  }
}

async function createDirect(call: DeviceCall, wanted: NewDirectChannel): Promise<Answer> {
  const { server, session, writes } = call;
  const own = session.address.identityKey;
  const peer = identityKey(wanted.peerIdentityKey);
  if (equal(own, peer)) throw invalidArgument('a direct channel is between two accounts');
  if (server.plugins !== undefined) await askChannel(call, 'create_direct', undefined, { added: 0, removed: 0 });
  const fresh = server.crypto.random(CHANNEL_ID_BYTES);
  const nowMs = server.clock.wallMs();
  const outcome = await server.store.createDirect({ channelId: fresh, pair: [own, peer], nowMs }, writes);
  switch (outcome.kind) {
    case 'created':
      return { outcome: { case: 'created', value: { channelId: outcome.channelId } } };
    case 'exists':
      return { outcome: { case: 'exists', value: { channelId: outcome.channelId, head: BigInt(outcome.head) } } };
    case 'unknown_account':
      throw notFound('there is no account with this identity key');
  }
}
