/** Rows of the store as messages of the contract. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import { InboxGap_Reason, RecipientResultSchema } from '@quicprochat/proto';
import type { EnvelopeSchema, InboxGapSchema, LogEntrySchema } from '@quicprochat/proto';
import type { InboxGap, InboxRow, LogEntry, RecipientResult } from './store/store.ts';

const EMPTY = new Uint8Array(0);

export function toEnvelope(row: InboxRow): MessageInitShape<typeof EnvelopeSchema> {
  return {
    seq: BigInt(row.seq),
    data: row.data,
    channelId: row.channelId ?? EMPTY,
    messageId: row.messageId,
    acceptedAtMs: BigInt(row.acceptedAtMs),
    wrap: row.wrap ?? EMPTY,
    ...(row.entry === undefined ? {} : { entry: toLogEntry(row.entry) }),
    ...(row.pqRenewal === undefined
      ? {}
      : { pqRenewal: { envelope: row.pqRenewal.envelope, wrap: row.pqRenewal.wrap ?? EMPTY } }),
  };
}

export function toLogEntry(entry: LogEntry): MessageInitShape<typeof LogEntrySchema> {
  return { position: BigInt(entry.position), logHash: entry.logHash, rosterHash: entry.rosterHash };
}

const GAP_REASONS = {
  full: InboxGap_Reason.FULL,
  expired: InboxGap_Reason.EXPIRED,
  damaged: InboxGap_Reason.DAMAGED,
  restored: InboxGap_Reason.RESTORED,
} as const;

export function toInboxGap(gap: InboxGap): MessageInitShape<typeof InboxGapSchema> {
  return {
    reason: GAP_REASONS[gap.reason],
    sinceSeq: BigInt(gap.sinceSeq),
  };
}

export function toRecipientResult(result: RecipientResult): MessageInitShape<typeof RecipientResultSchema> {
  return { address: result.address, outcome: outcomeOf(result) };
}

/** A result for a sealed sender, which is told nothing about anyone. */
export function outcomeOf(
  result: RecipientResult,
): NonNullable<MessageInitShape<typeof RecipientResultSchema>['outcome']> {
  switch (result.kind) {
    case 'queued':
      return { case: 'queued', value: { seq: BigInt(result.seq) } };
    case 'duplicate':
      return { case: 'duplicate', value: { seq: BigInt(result.seq) } };
    case 'full':
      return { case: 'full', value: {} };
    case 'unknown':
      return { case: 'unknown', value: {} };
  }
}
