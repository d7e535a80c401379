/**
 * Accepting envelopes (DESIGN 5): what Enqueue and BatchEnqueue have in common. Stored and fsynced first, then the pumps
 * are woken, then there is a receipt: one per request, over everyone who has it.
 */
import type { MessageInitShape } from '@bufbuild/protobuf';
import { deliveryListHash, encodeAddress } from '@quicprochat/core';
import type { Delivery } from '@quicprochat/core';
import { encodeHex, equal } from '@quicprochat/crypto';
import type { ReceiptTermsSchema } from '@quicprochat/proto';
import type { ServerContext } from './context.ts';
import { EnvelopeType } from './envelope-shape.ts';
import type { Call } from './handler.ts';
import { askEnqueue } from './plugins.ts';
import { alreadyExists, conflict, noSuchChannel } from './refusals.ts';
import type { Address, InboxRow, Payload, RecipientResult, Target, TargetRefusal } from './store/store.ts';

const EMPTY = new Uint8Array(0);
const ROWS_AT_HAND_MAX = 32;
const ROW_AT_HAND_BYTES_MAX = 64 * 1024;

export interface Submission {
  readonly target: Target;
  readonly channelId: Uint8Array | undefined;
  readonly messageId: Uint8Array;
  readonly data: Uint8Array;
  readonly ttlSecs: number;
  readonly ephemeral: boolean;
}

export interface Delivered {
  readonly results: readonly RecipientResult[];
  /** Empty when nobody has it on disk. */
  readonly proof: Uint8Array;
  readonly terms: MessageInitShape<typeof ReceiptTermsSchema> | undefined;
}

/**
 * What a group says comes from its members: an envelope from outside opens nowhere, but could make those who get it
 * doubt their place in the group. Others write to members of a channel in envelopes of type 01 and 02.
 * @throws RpcError when the sender is not on the roster
 */
export async function requireMember(
  { server }: Call,
  sender: Address,
  type: EnvelopeType,
  channelId: Uint8Array | undefined,
): Promise<void> {
  if (type !== EnvelopeType.group || channelId === undefined) return;
  const roster = await server.store.resolveTarget({ kind: 'roster', sender }, channelId);
  if (roster.kind !== 'resolved') throw noSuchChannel();
}

/** @throws RpcError when nobody could be addressed, or the message id is taken */
export async function deliver(call: Call, submission: Submission): Promise<Delivered> {
  if (call.server.plugins !== undefined) await askEnqueue(call, submission);
  if (submission.ephemeral) return deliverLive(call, submission);
  const { server } = call;
  const { target, channelId, messageId, data, ttlSecs } = submission;
  const payload = { data, hash: server.crypto.hash('sha256', data) };
  const nowMs = server.clock.wallMs();
  const outcome = await server.store.enqueue(
    { target, channelId, messageId, payload, ttlMs: ttlSecs * 1000, nowMs },
    call.writes,
  );
  if (outcome.kind === 'already_exists') throw messageIdTaken();
  if (outcome.kind !== 'enqueued') throw refusalOf(target, outcome);
  server.observer.enqueued(data.length);
  server.arrived(outcome.wake, rowsAtHand(submission, outcome));
  return { results: outcome.results, ...(await receiptFor(server, { channelId, messageId, payload, ...outcome })) };
}

/**
 * The rows just stored, so that the pumps of a few recipients need not read them back. Large fan-outs and payloads go the
 * usual way, which spreads them over many turns. So does the sender's own copy: it is of use only behind the answer.
 */
function rowsAtHand(
  { target, channelId, messageId, data }: Submission,
  { results, acceptedAtMs }: { readonly results: readonly RecipientResult[]; readonly acceptedAtMs: number },
): ReadonlyMap<Address, InboxRow> | undefined {
  if (target.kind === 'recipients' || results.length > ROWS_AT_HAND_MAX || data.length > ROW_AT_HAND_BYTES_MAX) {
    return undefined;
  }
  const rows = new Map<Address, InboxRow>();
  const rest = { wrap: undefined, entry: undefined, pqRenewal: undefined };
  for (const result of results) {
    if (result.kind !== 'queued') continue;
    const { address, seq } = result;
    if (target.kind === 'roster' && equal(address.deviceId, target.sender.deviceId)) continue;
    rows.set(address, { seq, data, channelId, messageId, acceptedAtMs, ...rest });
  }
  return rows;
}

/** Live subscribers only: no disk, no receipt, no promise. */
async function deliverLive({ server }: Call, submission: Submission): Promise<Delivered> {
  const { target, channelId, messageId, data } = submission;
  const outcome = await server.store.resolveTarget(target, channelId);
  if (outcome.kind !== 'resolved') throw refusalOf(target, outcome);
  const acceptedAtMs = BigInt(server.clock.wallMs());
  const envelope = { data, channelId: channelId ?? EMPTY, messageId, acceptedAtMs };
  for (const address of outcome.addresses) {
    for (const connection of server.live.connections(address)) connection.state.pump?.pushEphemeral(envelope);
  }
  const queued = outcome.addresses.map((address) => ({ address, kind: 'queued', seq: 0 }) as const);
  return { results: [...queued, ...unknownAmong(target, outcome.addresses)], proof: EMPTY, terms: undefined };
}

/** The recipients that stand for no device. */
function unknownAmong(target: Target, addresses: readonly Address[]): RecipientResult[] {
  if (target.kind !== 'recipients') return [];
  const identities = new Set(addresses.map((address) => encodeHex(address.identityKey)));
  const devices = new Set(addresses.map((address) => encodeHex(encodeAddress(address))));
  return target.recipients.flatMap(({ identityKey, deviceId }) => {
    const address = { identityKey, deviceId: deviceId ?? EMPTY };
    const known =
      deviceId === undefined ? identities.has(encodeHex(identityKey)) : devices.has(encodeHex(encodeAddress(address)));
    return known ? [] : [{ address, kind: 'unknown' }];
  });
}

export function messageIdTaken(): Error {
  return alreadyExists('this message id was used for other bytes; the first ones stand', 'Draw another message id.');
}

// A sealed sender hears the same whether the channel or the token is wrong, so that channels cannot be probed.
function refusalOf(target: Target, refusal: TargetRefusal): Error {
  if (target.kind === 'sealed') {
    return conflict('the send token is not in force', 'Catch up with the channel, then send with its newest token.');
  }
  return refusal.kind === 'stale_token' ? conflict('the send token is not in force') : noSuchChannel();
}

/** The server's receipt for what it has on disk (PROTOCOL 8), signed together with others that are due in this turn. */
export async function receiptFor(
  server: ServerContext,
  accepted: {
    readonly channelId: Uint8Array | undefined;
    readonly messageId: Uint8Array;
    readonly payload: Payload;
    readonly results: readonly RecipientResult[];
    readonly acceptedAtMs: number;
    readonly expiresAtMs: number;
  },
): Promise<Pick<Delivered, 'proof' | 'terms'>> {
  const deliveries = accepted.results.flatMap(deliveryOf);
  if (deliveries.length === 0) return { proof: EMPTY, terms: undefined };
  const { acceptedAtMs, expiresAtMs } = accepted;
  const proof = await server.receipts.sign({
    channelId: accepted.channelId ?? EMPTY,
    messageId: accepted.messageId,
    payloadHash: accepted.payload.hash,
    deliveriesHash: deliveryListHash(server.crypto, deliveries),
    acceptedAtMs,
    expiresAtMs,
  });
  const terms = {
    keyId: server.receipts.keyId,
    acceptedAtMs: BigInt(acceptedAtMs),
    expiresAtMs: BigInt(expiresAtMs),
  };
  return { proof, terms };
}

function deliveryOf(result: RecipientResult): Delivery[] {
  if (result.kind !== 'queued' && result.kind !== 'duplicate') return [];
  const address: Address = result.address;
  return [{ address, seq: BigInt(result.seq) }];
}
