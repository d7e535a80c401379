/** Reading one's own inbox: what Fetch, FetchWait and Peek have in common. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { EnvelopeSchema, InboxGapSchema } from '@quicprochat/proto';
import { optionalChannelId, ownInbox } from './checks.ts';
import { ENVELOPE_BYTES_MAX } from './envelope-shape.ts';
import type { DeviceCall } from './handler.ts';
import { toEnvelope, toInboxGap } from './inbox-envelopes.ts';
import { deviceGone } from './refusals.ts';
import type { ReadInbox, ReadInboxOutcome } from './store/store.ts';

const ROWS_DEFAULT = 64;
const ROWS_MAX = 1_000;
const BYTES_DEFAULT = 256 * 1024;
// What an answer holds besides the envelopes' own bytes: about 200 bytes each.
const BYTES_MAX = ENVELOPE_BYTES_MAX - 200 * ROWS_MAX;

interface InboxRequest {
  readonly recipientKey: Uint8Array;
  readonly deviceId: Uint8Array;
  readonly channelId: Uint8Array;
  readonly limit: number;
  readonly maxBytes: number;
}

/** The read a request asks for. @throws RpcError when the inbox is another device's */
export function inboxRead(call: DeviceCall, request: InboxRequest, afterSeq = 0): ReadInbox {
  return {
    address: ownInbox(call.session, request.recipientKey, request.deviceId),
    afterSeq,
    channelId: optionalChannelId(request.channelId),
    maxRows: request.limit === 0 ? ROWS_DEFAULT : Math.min(request.limit, ROWS_MAX),
    maxBytes: request.maxBytes === 0 ? BYTES_DEFAULT : Math.min(request.maxBytes, BYTES_MAX),
  };
}

/** What Fetch, FetchWait and Peek answer alike. */
export interface InboxAnswer {
  envelopes: MessageInitShape<typeof EnvelopeSchema>[];
  gap?: MessageInitShape<typeof InboxGapSchema>;
}

export function inboxAnswer(call: DeviceCall, read: ReadInboxOutcome): InboxAnswer {
  if (read.kind === 'unknown_device') throw deviceGone();
  const envelopes = read.rows.map(toEnvelope);
  if (read.gap === undefined) return { envelopes };
  call.session.toldGap = read.gap;
  return { envelopes, gap: toInboxGap(read.gap) };
}
