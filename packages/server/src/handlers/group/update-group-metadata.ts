import { MembershipHintEvent_Kind } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import { channelId, safeInteger } from '../../checks.ts';
import { deviceHandler } from '../../handler.ts';
import { ownChannel, pushHint, takeHint } from '../../membership-hints.ts';
import { forbidden, invalidArgument, noSuchChannel } from '../../refusals.ts';

// It comes back in answers of at most 64 KiB.
const METADATA_BYTES_MAX = 60_000;
const NONE = { version: 0n, metadata: new Uint8Array(0) };

/** Replaces the sealed blob, compare-and-swap on its version. */
export const updateGroupMetadata = deviceHandler(methods.group.updateGroupMetadata, async (call, request) => {
  const { server, session, writes } = call;
  const id = channelId(request.channelId);
  const { metadata: data } = request;
  if (data.length === 0 || data.length > METADATA_BYTES_MAX) {
    throw invalidArgument(`metadata has between 1 and ${METADATA_BYTES_MAX} bytes`);
  }
  const expectedVersion = safeInteger(request.expectedVersion, 'a version');
  takeHint(call);
  const put = { channelId: id, writer: session.address, expectedVersion, data };
  const outcome = await server.store.putChannelMetadata(put, writes);
  switch (outcome.kind) {
    case 'stored': {
      const { roster } = await ownChannel(call, id);
      pushHint(server, roster, { channelId: id, kind: MembershipHintEvent_Kind.METADATA });
      const value = { version: BigInt(outcome.version), metadata: data };
      return { outcome: { case: 'updated' as const, value } };
    }
    case 'conflict': {
      const { metadata } = outcome;
      const value = metadata === undefined ? NONE : { version: BigInt(metadata.version), metadata: metadata.data };
      return { outcome: { case: 'conflict' as const, value } };
    }
    case 'unknown_channel':
    case 'not_member':
      throw noSuchChannel();
    case 'admin_required':
      throw forbidden('only an administrator changes what this channel is called');
  }
});
