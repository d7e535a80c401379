/**
 * The inbox as the server pushes it: rows in, effects stored, then and only then acknowledged (DESIGN sections 2 and 5).
 * One cursor for all channels; what lies at or below it has been seen, whoever sends it again.
 */
import { fromBinary } from '@bufbuild/protobuf';
import {
  type Envelope,
  EnvelopesEventSchema,
  type InboxGap,
  InboxGap_Reason,
  InboxGapEventSchema,
} from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import type { Engine } from './engine.ts';
import { toClientError } from './errors.ts';
import { rowOf } from './inbox-row.ts';
import { isStorable } from './outside-numbers.ts';
import { receiveMessages } from './receive-message.ts';

const GAP_REASONS: ReadonlyMap<InboxGap_Reason, string> = new Map([
  [InboxGap_Reason.FULL, 'the inbox of this device was full, and messages were refused'],
  [InboxGap_Reason.EXPIRED, 'messages waited too long at the server and were deleted'],
  [InboxGap_Reason.DAMAGED, 'the storage of the server is damaged, and messages in it cannot be read'],
  [InboxGap_Reason.RESTORED, 'the server was put back to an earlier state, and messages may be missing'],
]);

/** Acknowledging removes rows at the server; several batches share one call. */
const ACK_DELAY_MS = 20;

export class Inbox {
  readonly #engine: Engine;
  #callOffAck: (() => void) | undefined;
  #acking = false;
  /** What this process has acknowledged. Another one acknowledges once more, which is harmless. */
  #acked = 0n;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** An EnvelopesEvent. */
  receive(payload: Uint8Array): void {
    let envelopes: readonly Envelope[];
    try {
      ({ envelopes } = fromBinary(EnvelopesEventSchema, payload));
    } catch {
      this.#engine.ports.log.warn('the server pushed a malformed event');
      return;
    }
    try {
      receiveMessages(this.#engine, envelopes.filter(hasPosition).map(rowOf));
    } catch (error) {
      // The disk refuses: nothing was stored, nothing is acknowledged. The connection starts over from the cursor.
      this.#engine.ports.log.warn('the inbox could not be stored', { reason: toClientError(error).code });
      this.#engine.server.reset();
      return;
    }
    this.ackSoon();
    this.#engine.conditions.check();
  }

  /** An InboxGapEvent. */
  receiveGap(payload: Uint8Array): void {
    try {
      this.gap(fromBinary(InboxGapEventSchema, payload).gap);
    } catch {
      this.#engine.ports.log.warn('the server pushed a malformed event');
    }
  }

  /** The server lost something addressed to this device. If that was log entries, their absence shows by itself. */
  gap(gap: InboxGap | undefined): void {
    if (gap === undefined) return;
    const reason = GAP_REASONS.get(gap.reason) ?? 'the server has lost messages to this device';
    this.#engine.events.emit({
      type: 'gap',
      conversationId: undefined,
      username: undefined,
      missing: undefined,
      reason,
    });
    this.#engine.reactions.inboxGap();
    if (gap.reason === InboxGap_Reason.RESTORED) this.#engine.reactions.serverRestored();
  }

  ackSoon(): void {
    if (this.#callOffAck !== undefined || this.#engine.closed) return;
    this.#callOffAck = this.#engine.later(() => {
      this.#callOffAck = undefined;
      void this.#ack();
    }, ACK_DELAY_MS);
  }

  /** Acknowledges also where nothing new is stored: the server then knows that its gap has been heard of. */
  async ackGap(): Promise<void> {
    this.#acked = -1n;
    await this.flushAcks();
  }

  /** Acknowledges what is stored, now. */
  async flushAcks(): Promise<void> {
    this.#callOffAck?.();
    this.#callOffAck = undefined;
    await this.#ack();
  }

  async #ack(): Promise<void> {
    const { server, closed, hasSession } = this.#engine;
    if (closed || this.#acking || server.state !== 'online' || !hasSession) return;
    const cursor = this.#engine.inboxCursor;
    if (cursor <= this.#acked) return;
    this.#acking = true;
    try {
      const { identityKey, deviceId } = this.#engine.address;
      await server.call(methods.delivery.ack, { recipientKey: identityKey, deviceId, seqUpTo: cursor });
      this.#acked = cursor;
    } catch (error) {
      // Not acknowledged is delivered again, and passed over by the cursor.
      this.#engine.ports.log.debug('the inbox could not be acknowledged', { reason: toClientError(error).code });
    } finally {
      this.#acking = false;
    }
    if (!this.#engine.closed && this.#engine.inboxCursor > cursor) this.ackSoon();
  }

  /** Resolves when everything the server had for this device at this moment is stored. */
  async catchUp(timeoutMs: number): Promise<void> {
    const engine = this.#engine;
    const deadline = engine.ports.clock.now() + timeoutMs;
    const left = (): number => Math.max(1, deadline - engine.ports.clock.now());
    // The inbox's newest position says nothing: rows at the end of it may be acknowledged or expired. What is there does.
    for (;;) {
      const { identityKey, deviceId } = engine.address;
      const answer = await engine.server.call(
        methods.delivery.peek,
        { recipientKey: identityKey, deviceId, limit: 1, afterSeq: engine.inboxCursor },
        { timeoutMs: left() },
      );
      const next = answer.envelopes[0];
      if (next === undefined) return;
      await this.#until(next.seq, left());
    }
  }

  #until(seq: bigint, timeoutMs: number): Promise<void> {
    return this.#engine.conditions.until(() => this.#engine.inboxCursor >= seq, timeoutMs, 'receiving');
  }
}

/** Without a position that can be stored and acknowledged there is no row; no inbox grows that long. */
function hasPosition({ seq }: Envelope): boolean {
  return isStorable(seq);
}
