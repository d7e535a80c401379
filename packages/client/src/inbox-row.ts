/** A row of the inbox: from what the server pushed, and to disk and back for one that has to wait (transfer-trees.ts). */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { type Envelope, EnvelopeSchema } from '@quicprochat/proto';
import { serverTime } from './outside-numbers.ts';

/** One inbox row, its bytes its own. */
export interface InboxRow {
  readonly seq: bigint;
  readonly data: Uint8Array;
  readonly channelId: Uint8Array;
  readonly messageId: Uint8Array;
  /** The server's clock; undefined when it told no possible time. */
  readonly acceptedAtMs: number | undefined;
  readonly wrap: Uint8Array;
  readonly entry: Envelope['entry'];
  readonly pqRenewal: Envelope['pqRenewal'];
}

/** Decoded bytes share the event's buffer; what is kept long is copied here. */
export function rowOf(envelope: Envelope): InboxRow {
  return {
    seq: envelope.seq,
    data: envelope.data.slice(),
    channelId: envelope.channelId.slice(),
    messageId: envelope.messageId.slice(),
    acceptedAtMs: serverTime(envelope.acceptedAtMs),
    wrap: envelope.wrap.slice(),
    entry: envelope.entry && {
      ...envelope.entry,
      logHash: envelope.entry.logHash.slice(),
      rosterHash: envelope.entry.rosterHash.slice(),
    },
    pqRenewal: envelope.pqRenewal && {
      ...envelope.pqRenewal,
      envelope: envelope.pqRenewal.envelope.slice(),
      wrap: envelope.pqRenewal.wrap.slice(),
    },
  };
}

export function encodeRow({ acceptedAtMs, ...row }: InboxRow): Uint8Array {
  const { entry, pqRenewal, ...fields } = row;
  return toBinary(
    EnvelopeSchema,
    create(EnvelopeSchema, {
      ...fields,
      acceptedAtMs: BigInt(acceptedAtMs ?? 0),
      ...(entry === undefined ? {} : { entry }),
      ...(pqRenewal === undefined ? {} : { pqRenewal }),
    }),
  );
}

export function decodeRow(bytes: Uint8Array): InboxRow {
  return rowOf(fromBinary(EnvelopeSchema, bytes));
}
