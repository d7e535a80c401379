/**
 * From the outbox to the server (DESIGN sections 2 and 5): one payload, the whole channel, one in flight per conversation,
 * so that what one person says arrives in the order it was said. Repeats send the same bytes under the same message id,
 * which the server recognises; an entry never tried is protected anew when its epoch is over.
 */
import { decodeHex, EMPTY, encodeHex } from '@quicprochat/crypto';
import { type RecipientResult, Status } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import { checkReceipt } from './check-receipt.ts';
import type { Change, Engine } from './engine.ts';
import { type ClientError, toClientError } from './errors.ts';
import { createMessageId } from './message/index.ts';
import { canProtect, protect } from './send-message.ts';
import { statusOf } from './server-errors.ts';
import type { OutboxEntry, Protection } from './store/index.ts';
import { keepWhileDoubted } from './track.ts';
import { nameOf, storedMessageView, type Undelivered } from './views.ts';

const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 30_000;
/** Sent so often without an answer that says more than "not now": the message is shown as failed. */
const ATTEMPTS_MAX = 1_000;

export class OutboxDelivery {
  readonly #engine: Engine;
  /** Conversations with a send under way or waiting for its time. */
  readonly #busy: Set<string> = new Set();
  /** Those of them with a send under way. */
  readonly #sending: Set<string> = new Set();
  #stopped = false;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** Sends whatever can be sent now. Returns at once. */
  kick(): void {
    const { server, store, closed, hasSession } = this.#engine;
    if (closed || this.#stopped || server.state !== 'online' || !hasSession) return;
    for (const channelId of store.outbox.channels()) {
      const key = encodeHex(channelId);
      if (this.#busy.has(key)) continue;
      this.#busy.add(key);
      void this.#deliverAll(channelId, key);
    }
  }

  stop(): void {
    this.#stopped = true;
  }

  /** Whether a call is under way whose answer is not stored yet: an empty queue alone does not tell. */
  isSending(channelId: Uint8Array | undefined): boolean {
    return channelId === undefined ? this.#sending.size > 0 : this.#sending.has(encodeHex(channelId));
  }

  async #deliverAll(channelId: Uint8Array, key: string): Promise<void> {
    this.#sending.add(key);
    let waitMs = 0;
    let failures = 0;
    let answered: ((change: Change) => void) | undefined;
    try {
      for (;;) {
        const ready = this.#next(channelId, answered);
        answered = undefined;
        if (ready === undefined) break;
        try {
          answered = await this.#send(ready.entry, ready.protection);
          failures = 0;
        } catch (error) {
          failures += 1;
          waitMs = this.#afterFailure(ready.entry, toClientError(error), failures);
          if (waitMs > 0) break;
        }
        if (this.#engine.closed) return;
      }
    } catch (error) {
      if (this.#engine.closed) return;
      this.#engine.ports.log.warn('the outbox could not be read or written', { reason: toClientError(error).code });
      waitMs = RETRY_MAX_MS;
    }
    this.#sending.delete(key);
    if (waitMs > 0) {
      this.#engine.later(() => {
        this.#busy.delete(key);
        this.kick();
      }, waitMs);
    } else {
      this.#busy.delete(key);
    }
    this.#engine.conditions.check();
  }

  #sendable(channelId: Uint8Array): boolean {
    const { store } = this.#engine;
    const entry = store.outbox.first(channelId);
    if (entry === undefined) return false;
    if (entry.recipient !== undefined) return true;
    const conversation = store.conversations.get(channelId);
    return conversation !== undefined && conversation.paused === undefined && canProtect(this.#engine, conversation);
  }

  /**
   * What the last answer brought and the next entry's attempt, in one transaction. Returns the entry with the bytes to
   * send; undefined when nothing can be sent now.
   */
  #next(
    channelId: Uint8Array,
    answered: ((change: Change) => void) | undefined,
  ): { readonly entry: OutboxEntry; readonly protection: Protection } | undefined {
    const engine = this.#engine;
    if (answered === undefined) {
      if (engine.closed || engine.server.state !== 'online' || !this.#sendable(channelId)) return undefined;
      const entry = engine.store.outbox.first(channelId);
      // Counted when it was queued.
      if (entry?.protection !== undefined && entry.attempts > 0 && this.#isFresh(entry)) {
        return { entry, protection: entry.protection };
      }
    }
    return engine.change((change) => {
      answered?.(change);
      if (engine.server.state !== 'online' || !this.#sendable(channelId)) return undefined;
      const entry = change.store.outbox.first(channelId);
      if (entry === undefined) return undefined;
      const protection =
        entry.protection !== undefined && this.#isFresh(entry) ? entry.protection : protectAgain(change, entry);
      change.store.outbox.countAttempt(entry.id);
      return { entry: { ...entry, protection, attempts: entry.attempts + 1 }, protection };
    });
  }

  /** Whether the bytes at hand may be sent as they are. */
  #isFresh(entry: OutboxEntry): boolean {
    const { protection } = entry;
    if (protection === undefined) return false;
    if (entry.recipient !== undefined) return true;
    const { conversations } = this.#engine.store;
    const conversation = conversations.get(entry.channelId);
    if (conversation === undefined || protection.position === conversation.epochPosition) return true;
    // The server may have it already, under this id. But nobody reads it once its epoch is out of the window: then a
    // second copy under a new id is better, and whoever has both shows one (the content id is the same).
    return entry.attempts > 0 && conversations.envelopeKey(entry.channelId, protection.position) !== undefined;
  }

  /** Sends one entry. Returns what to store when the server has it. */
  async #send(entry: OutboxEntry, { messageId, envelope }: Protection): Promise<(change: Change) => void> {
    const { server } = this.#engine;
    const { channelId, recipient } = entry;
    if (recipient !== undefined) {
      const { results, deliveryProof } = await server.call(methods.delivery.enqueue, {
        recipientKey: recipient.identityKey,
        deviceId: recipient.deviceId,
        channelId,
        messageId,
        payload: envelope,
      });
      return (change) => delivered(change, entry, messageId, envelope, results, deliveryProof);
    }
    const request = { channelId, messageId, payload: envelope };
    const { results, deliveryProof } = await server.call(methods.delivery.batchEnqueue, request);
    return (change) => delivered(change, entry, messageId, envelope, results, deliveryProof);
  }

  /** What to do about a failed attempt: milliseconds to wait before the next, 0 to go on at once. */
  #afterFailure(entry: OutboxEntry, error: ClientError, failures: number): number {
    const status = statusOf(error);
    switch (status) {
      case Status.ALREADY_EXISTS:
        // Our message id with other bytes: another id, the content id keeps it one message.
        this.#engine.change((change) => {
          change.store.outbox.protect(entry.id, protectAgain(change, entry));
        });
        return failures > 3 ? RETRY_MAX_MS : 0;
      case Status.INVALID_ARGUMENT:
      case Status.TOO_LARGE:
      case Status.FORBIDDEN:
      case Status.NOT_FOUND:
        // Refused for good. If we were removed from the channel, the entry that says so is on its way to us.
        this.#fail(entry, error);
        return 0;
      default:
        break;
    }
    // Without a connection there is nothing to wait for: being online again starts the next round.
    if (error.code === 'connection-lost' || this.#engine.server.state !== 'online') return 0;
    if (entry.attempts > ATTEMPTS_MAX) this.#fail(entry, error);
    const backoff =
      Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** Math.min(failures, 10)) * (0.5 + this.#engine.uniform() / 2);
    return Math.max(error.retryAfterMs, backoff);
  }

  #fail(entry: OutboxEntry, error: ClientError): void {
    this.#engine.change((change) => failEntry(change, entry, error.message));
  }
}

/** The server has it on disk. */
function delivered(
  change: Change,
  entry: OutboxEntry,
  messageId: Uint8Array,
  payload: Uint8Array,
  results: readonly RecipientResult[],
  proof: Uint8Array,
): void {
  const { engine, store } = change;
  // Our own copy in the inbox may have told us already; then only the receipt is news.
  const isNews = store.outbox.get(entry.id) !== undefined;
  store.outbox.remove(entry.id);
  if (isNews && entry.recipient === undefined) keepWhileDoubted(change, entry);
  const receipt = checkReceipt(change, { channelId: entry.channelId, messageId, payload, results, proof }, 'a message');
  const undelivered = undeliveredOf(results);
  const { localId } = entry;
  if (localId !== undefined) {
    store.messages.setState(localId, {
      state: 'sent',
      messageId,
      acceptedAtMs: receipt?.acceptedAtMs ?? engine.nowMs(),
      ...(receipt === undefined ? {} : { receipt: receipt.bytes }),
      ...(undelivered.length === 0 ? {} : { undelivered: JSON.stringify(undelivered) }),
    });
    if (isNews || undelivered.length > 0) {
      change.emit(() => ({ type: 'message-state', message: storedMessageView(engine, localId) }));
    }
  }
  for (const { identityKey, reason } of undelivered) warnUndelivered(change, entry, identityKey, reason);
}

/** Takes an entry off the queue; its message, if it is one, is shown as failed. */
export function failEntry(change: Change, entry: OutboxEntry, reason: string): void {
  const { engine, store } = change;
  store.outbox.remove(entry.id);
  const { localId } = entry;
  if (localId === undefined) return;
  store.messages.setState(localId, { state: 'failed' });
  change.emit(() => ({ type: 'message-state', message: storedMessageView(engine, localId) }));
  change.emit({
    type: 'warning',
    code: 'undelivered',
    conversationId: encodeHex(entry.channelId),
    text: `a message could not be sent: ${reason}`,
  });
}

function protectAgain(change: Change, entry: OutboxEntry): Protection {
  if (entry.recipient !== undefined && entry.protection !== undefined) {
    const messageId = createMessageId(change.engine.nowMs(), change.engine.ports.random);
    return { ...entry.protection, messageId };
  }
  const conversation = change.store.conversations.get(entry.channelId);
  if (conversation === undefined) throw new Error('an outbox entry has no conversation');
  const protection = protect(change, conversation, entry.body);
  change.store.outbox.protect(entry.id, protection);
  if (entry.localId !== undefined) {
    change.store.messages.setState(entry.localId, { state: 'queued', messageId: protection.messageId });
  }
  return protection;
}

function undeliveredOf(results: readonly RecipientResult[]): readonly Undelivered[] {
  return results.flatMap(({ address, outcome }): Undelivered[] => {
    if (address === undefined) return [];
    const { case: reason } = outcome;
    return reason === 'full' || reason === 'unknown' || reason === 'blocked'
      ? [{ identityKey: encodeHex(address.identityKey), reason }]
      : [];
  });
}

function warnUndelivered(change: Change, entry: OutboxEntry, identityKey: string, reason: Undelivered['reason']): void {
  const { engine } = change;
  const words = {
    full: 'has a full inbox and did not get a message',
    unknown: 'has a device that no longer exists',
    blocked: 'does not accept messages from you',
  }[reason];
  const key = entry.recipient?.identityKey ?? decodeHex(identityKey) ?? EMPTY;
  change.emit(() => ({
    type: 'warning',
    code: 'undelivered',
    conversationId: encodeHex(entry.channelId),
    text: `${nameOf(engine, key, entry.channelId)} ${words}`,
  }));
}
