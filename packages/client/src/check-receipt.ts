/** The server's signed word that it accepted something of ours (PROTOCOL section 8), held against what it was told. */
import { encodeHex } from '@quicprochat/crypto';
import { type Delivery, parseReceipt, verifyReceipt } from '@quicprochat/core';
import type { RecipientResult } from '@quicprochat/proto';
import type { Change } from './engine.ts';
import { serverTime } from './outside-numbers.ts';

interface Accepted {
  readonly channelId: Uint8Array;
  readonly messageId: Uint8Array;
  readonly payload: Uint8Array;
  readonly results: readonly RecipientResult[];
  /** delivery_proof; not believed. */
  readonly proof: Uint8Array;
}

interface CheckedReceipt {
  readonly bytes: Uint8Array;
  /** When the server accepted it, as signed; milliseconds since 1970. */
  readonly acceptedAtMs: number | undefined;
}

/**
 * The receipt when it verifies; else a warning, and the statement is kept as evidence.
 * @param what was accepted, for the warning
 */
export function checkReceipt(
  change: Change,
  { channelId, messageId, payload, results, proof }: Accepted,
  what: 'a message' | 'a change of the group',
): CheckedReceipt | undefined {
  const { engine, store } = change;
  const { origin } = engine.self;
  const pin = store.account.serverPin(origin);
  const deliveries = results.flatMap(({ address, outcome }): Delivery[] =>
    address !== undefined && (outcome.case === 'queued' || outcome.case === 'duplicate')
      ? [{ address: { identityKey: address.identityKey, deviceId: address.deviceId }, seq: outcome.value.seq }]
      : [],
  );
  if (pin === undefined || pin.receiptKey.length === 0 || (proof.length === 0 && deliveries.length === 0))
    return undefined;
  const parsed = parseReceipt(proof);
  const outcome =
    parsed === undefined
      ? { kind: 'invalid' as const, reason: 'there is none, or it is malformed' }
      : verifyReceipt(engine.crypto, parsed, {
          origin,
          receiptKey: pin.receiptKey,
          channelId,
          messageId,
          payload,
          deliveries,
        });
  if (outcome.kind === 'verified') {
    return { bytes: proof.slice(), acceptedAtMs: serverTime(BigInt(outcome.statement.acceptedAtMs)) };
  }
  store.evidence.add({
    channelId,
    kind: 'bad-receipt',
    summary: outcome.reason,
    data: proof.slice(),
    atMs: engine.nowMs(),
  });
  change.emit({
    type: 'warning',
    code: 'bad-receipt',
    conversationId: encodeHex(channelId),
    text: `the server’s receipt for ${what} does not verify: ${outcome.reason}`,
  });
  return undefined;
}
