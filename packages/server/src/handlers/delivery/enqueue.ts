import { DEVICE_ID_BYTES } from '@quicprochat/core';
import { methods } from '@quicprochat/transport';
import { identityKey, messageId, optionalBytes, optionalChannelId } from '../../checks.ts';
import { deliver, requireMember } from '../../deliver.ts';
import { EnvelopeType, envelopeType } from '../../envelope-shape.ts';
import { deviceHandler } from '../../handler.ts';
import { toRecipientResult } from '../../inbox-envelopes.ts';

export const enqueue = deviceHandler(methods.delivery.enqueue, async (call, request) => {
  const recipient = {
    identityKey: identityKey(request.recipientKey),
    deviceId: optionalBytes(request.deviceId, DEVICE_ID_BYTES, 'a device id'),
  };
  // Type 02 needs wraps, which only a batch can carry.
  const type = envelopeType(request.payload, EnvelopeType.direct, EnvelopeType.group);
  const channel = optionalChannelId(request.channelId);
  await requireMember(call, call.session.address, type, channel);
  const { results, proof } = await deliver(call, {
    target: { kind: 'recipients', recipients: [recipient] },
    channelId: channel,
    messageId: messageId(request.messageId),
    data: request.payload,
    ttlSecs: request.ttlSecs,
    ephemeral: request.ephemeral,
  });
  const held = results.filter((result) => result.kind === 'queued' || result.kind === 'duplicate');
  const [only] = held;
  return {
    seq: recipient.deviceId !== undefined && only !== undefined ? BigInt(only.seq) : 0n,
    deliveryProof: proof,
    duplicate: held.length > 0 && held.every((result) => result.kind === 'duplicate'),
    results: results.map(toRecipientResult),
  };
});
