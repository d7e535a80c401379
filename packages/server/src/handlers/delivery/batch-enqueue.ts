import { methods } from '@quicprochat/transport';
import { encodeHex } from '@quicprochat/crypto';
import type { BatchEnqueueRequest } from '@quicprochat/proto';
import {
  atMost,
  channelId,
  deviceId,
  exactBytes,
  identityOrDevice,
  messageId,
  optionalChannelId,
} from '../../checks.ts';
import { deliver, requireMember } from '../../deliver.ts';
import type { Delivered } from '../../deliver.ts';
import { EnvelopeType, envelopeType, wrapFor } from '../../envelope-shape.ts';
import { handler } from '../../handler.ts';
import type { Call } from '../../handler.ts';
import { outcomeOf, toRecipientResult } from '../../inbox-envelopes.ts';
import { networkOf } from '../../rate-limits.ts';
import { invalidArgument, unauthenticated } from '../../refusals.ts';
import type { Target } from '../../store/store.ts';

const RECIPIENTS_MAX = 10_000;
const SEND_TOKEN_BYTES = 32;
/** So many devices' inboxes are one message to the limit `sends`. */
const INBOXES_OF_ONE = 100;

/** One payload to many: with a session to a channel's roster or to those named, without one sealed to a roster. */
export const batchEnqueue = handler(methods.delivery.batchEnqueue, async (call, request) => {
  const { session } = call.connection.state;
  if (session === undefined) return sealed(call, request);
  if (session.kind !== 'device') throw unauthenticated('this connection has no session of a device');
  // The two must never meet on one connection: together they name the sender.
  if (request.sendToken.length > 0) throw invalidArgument('a send token belongs on a connection without a session');

  const toRoster = request.recipients.length === 0;
  const type = toRoster
    ? envelopeType(request.payload, EnvelopeType.group)
    : envelopeType(request.payload, EnvelopeType.direct, EnvelopeType.shared, EnvelopeType.group);
  const target: Target = toRoster
    ? { kind: 'roster', sender: session.address }
    : {
        kind: 'recipients',
        recipients: atMost(request.recipients, RECIPIENTS_MAX, 'recipients').map((recipient) => {
          const wrap = wrapFor(type, recipient);
          const address = identityOrDevice(recipient.address);
          // A wrap opens with one device's key only.
          if (wrap !== undefined) deviceId(address.deviceId ?? new Uint8Array(0));
          return { ...address, wrap };
        }),
      };
  const channel = toRoster ? channelId(request.channelId) : optionalChannelId(request.channelId);
  if (!toRoster) await requireMember(call, session.address, type, channel);
  const delivered = await submit(call, request, target, channel);
  // The first of them was taken before: how many it would be, nobody knew then.
  const more = delivered.results.length / INBOXES_OF_ONE - 1;
  if (more > 0) call.server.rates.charge('sends', session.device, more);
  return {
    results: delivered.results.map(toRecipientResult),
    deliveryProof: delivered.proof,
    ...(delivered.terms === undefined ? {} : { receipt: delivered.terms }),
  };
});

/** THREATS 36: nothing here can name the sender. The network address serves as key of a limit and is not kept. */
async function sealed(call: Call, request: BatchEnqueueRequest) {
  const { server, connection } = call;
  if (!server.allowSealedSender) {
    throw unauthenticated('this server takes messages with a session only', 'Log in first.');
  }
  if (request.sendToken.length === 0) throw unauthenticated('this connection has no session', 'Log in first.');
  if (connection.state.named) throw invalidArgument('a send token belongs on a connection that never had a session');
  const token = exactBytes(request.sendToken, SEND_TOKEN_BYTES, 'a send token');
  const channel = channelId(request.channelId);
  if (request.recipients.length > 0) throw invalidArgument('a sealed message goes to the whole channel');
  envelopeType(request.payload, EnvelopeType.group);
  const sendTokenHash = server.crypto.hash('sha256', token);
  server.rates.take('sealedPerAddress', networkOf(connection));
  // By token as well: who knows the channel's id but not its token uses up nobody's share but their own.
  server.rates.take('sealedPerChannel', `${encodeHex(channel)}:${encodeHex(sendTokenHash)}`);

  const target: Target = { kind: 'sealed', sendTokenHash, nowMs: server.clock.wallMs() };
  const delivered = await submit(call, request, target, channel);
  const { results } = delivered;
  const telling =
    results.find((result) => result.kind === 'queued') ??
    results.find((result) => result.kind === 'duplicate') ??
    results[0];
  // Positions in other people's inboxes are theirs.
  const outcome = telling === undefined ? undefined : outcomeOf('seq' in telling ? { ...telling, seq: 0 } : telling);
  return {
    results: outcome === undefined ? [] : [{ outcome }],
    deliveryProof: delivered.proof,
    ...(delivered.terms === undefined ? {} : { receipt: delivered.terms }),
  };
}

function submit(
  call: Call,
  request: BatchEnqueueRequest,
  target: Target,
  channel: Uint8Array | undefined,
): Promise<Delivered> {
  const { payload, ttlSecs, ephemeral } = request;
  const id = messageId(request.messageId);
  return deliver(call, { target, channelId: channel, messageId: id, data: payload, ttlSecs, ephemeral });
}
