import { encodeAddress } from '@quicprochat/core';
import { encodeHex, equal } from '@quicprochat/crypto';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { PqRenewalDelivery, SubmitCommitResponseSchema, WelcomeDelivery } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import {
  atMost,
  channelId,
  deviceAddress,
  exactBytes,
  identityKey,
  messageId,
  optionalBytes,
  safeInteger,
} from '../../checks.ts';
import type { ServerContext } from '../../context.ts';
import { messageIdTaken, receiptFor } from '../../deliver.ts';
import { EnvelopeType, envelopeType, WRAP_BYTES, wrapFor } from '../../envelope-shape.ts';
import { deviceHandler } from '../../handler.ts';
import { toLogEntry, toRecipientResult } from '../../inbox-envelopes.ts';
import { askChannel } from '../../plugins.ts';
import { exhausted, forbidden, invalidArgument, noSuchChannel, notFound } from '../../refusals.ts';
import type { Address, Payload, SubmitCommit, SubmitCommitOutcome } from '../../store/store.ts';

const HASH_BYTES = 32;
const WELCOMES_MAX = 1_000;
const DEVICES_MAX = 10_000;
// It holds 32 bytes, sealed and padded to the smallest bucket.
const PQ_RENEWAL_BYTES_MAX = 4_096;

/** Appends iff `after` is the head: whoever comes second learns the head and tries again (THREATS 10, 32). */
export const submitCommit = deviceHandler(methods.delivery.submitCommit, async (call, request) => {
  const { server, session, writes } = call;
  envelopeType(request.payload, EnvelopeType.group);
  const commit: SubmitCommit = {
    channelId: channelId(request.channelId),
    submitter: session.address,
    after: safeInteger(request.after, 'a position'),
    messageId: messageId(request.messageId),
    payload: payloadOf(server, request.payload),
    welcomes: atMost(request.welcomes, WELCOMES_MAX, 'Welcomes').map((welcome) => welcomeOf(server, welcome)),
    rosterRemove: atMost(request.rosterRemove, DEVICES_MAX, 'devices to remove').map(deviceAddress),
    rosterAdd: atMost(request.rosterAdd, DEVICES_MAX, 'devices to add').map(deviceAddress),
    sendTokenHash: optionalBytes(request.sendTokenHash, HASH_BYTES, 'the hash of a send token'),
    pqRenewal: pqRenewalOf(request.pqRenewal),
    adminsAdd: atMost(request.adminsAdd, DEVICES_MAX, 'administrators').map(identityKey),
    adminsRemove: atMost(request.adminsRemove, DEVICES_MAX, 'administrators').map(identityKey),
    nowMs: server.clock.wallMs(),
  };
  server.rates.take('commits', encodeHex(encodeAddress(session.address)));
  server.rates.take('commitKib', encodeHex(session.address.identityKey), Math.ceil(storedBytes(commit) / 1024));
  if (server.plugins !== undefined) {
    const roster = { added: commit.rosterAdd.length, removed: commit.rosterRemove.length };
    await askChannel(call, 'commit', commit.channelId, roster);
  }
  const outcome = (await whyNotAlone(server, commit)) ?? (await server.store.submitCommit(commit, writes));
  if (outcome.kind === 'accepted') {
    server.observer.enqueued(request.payload.length);
    server.arrived(outcome.wake);
  }
  return answerOf(server, commit, outcome);
});

/**
 * Both sides administer a direct channel, there is one for each pair, and who is off its roster cannot even ask to come
 * back: so neither side takes the other's last device off, unless it is revoked. Returns the answer when the head is not
 * there yet, because the roster is judged as it is at this head, and changes with every entry.
 */
async function whyNotAlone(
  server: ServerContext,
  { channelId: id, submitter, after, rosterRemove }: SubmitCommit,
): Promise<Extract<SubmitCommitOutcome, { kind: 'conflict' }> | undefined> {
  const other = rosterRemove.find(({ identityKey }) => !equal(identityKey, submitter.identityKey))?.identityKey;
  const channel = other === undefined ? undefined : await server.store.findChannel(id);
  if (other === undefined || channel?.kind !== 'direct' || after < channel.head) return undefined;
  if (after > channel.head) return { kind: 'conflict', head: channel.head };
  const theirs = channel.roster.filter(({ identityKey }) => equal(identityKey, other));
  const isRemoved = ({ deviceId }: Address): boolean =>
    rosterRemove.some((removed) => equal(removed.identityKey, other) && equal(removed.deviceId, deviceId));
  if (!theirs.every(isRemoved)) return undefined;
  const account = await server.store.findAccountByIdentity(other);
  const isAlive = theirs.some(({ deviceId }) => account?.devices.some((device) => equal(device.deviceId, deviceId)));
  if (isAlive) throw forbidden('a direct channel keeps a device of each side');
  return undefined;
}

/** What the store keeps of it for ninety days: payloads once for all who get them, and a wrap for each at most. */
function storedBytes({ payload, welcomes, pqRenewal }: SubmitCommit): number {
  const welcomeBytes = welcomes.reduce(
    (sum, welcome) => sum + welcome.payload.data.length + welcome.recipients.length * WRAP_BYTES,
    0,
  );
  return payload.data.length + welcomeBytes + (pqRenewal?.wraps.length ?? 0) * WRAP_BYTES;
}

function payloadOf(server: ServerContext, data: Uint8Array): Payload {
  return { data, hash: server.crypto.hash('sha256', data) };
}

function welcomeOf(server: ServerContext, welcome: WelcomeDelivery): SubmitCommit['welcomes'][number] {
  const type = envelopeType(welcome.payload, EnvelopeType.direct, EnvelopeType.shared);
  const recipients = atMost(welcome.recipients, DEVICES_MAX, 'recipients').map((recipient) => ({
    address: deviceAddress(recipient.address),
    wrap: wrapFor(type, recipient),
  }));
  if (recipients.length === 0) throw invalidArgument('a Welcome has no recipient');
  if (type === EnvelopeType.direct && recipients.length > 1) {
    throw invalidArgument('an envelope of type 01 is for one device');
  }
  return { messageId: messageId(welcome.messageId), payload: payloadOf(server, welcome.payload), recipients };
}

function pqRenewalOf(renewal: PqRenewalDelivery | undefined): SubmitCommit['pqRenewal'] {
  if (renewal === undefined) return undefined;
  envelopeType(renewal.envelope, EnvelopeType.shared);
  if (renewal.envelope.length > PQ_RENEWAL_BYTES_MAX) {
    throw invalidArgument(`a renewal has at most ${PQ_RENEWAL_BYTES_MAX} bytes`);
  }
  const wraps = atMost(renewal.recipients, DEVICES_MAX, 'recipients').map((recipient) => ({
    address: deviceAddress(recipient.address),
    wrap: exactBytes(recipient.wrap, WRAP_BYTES, 'a wrap'),
  }));
  return { envelope: renewal.envelope, wraps };
}

const INVALID: Record<(SubmitCommitOutcome & { kind: 'invalid' })['reason'], string> = {
  stranger_in_direct_channel: 'a direct channel has devices of its two accounts only',
  admins_of_direct_channel: 'both accounts administer a direct channel',
  admin_not_on_roster: 'an administrator has a device on the roster',
  welcome_not_on_roster: 'a Welcome is for a device on the roster',
};

async function answerOf(
  server: ServerContext,
  commit: SubmitCommit,
  outcome: SubmitCommitOutcome,
): Promise<MessageInitShape<typeof SubmitCommitResponseSchema>> {
  switch (outcome.kind) {
    case 'accepted': {
      const { proof, terms } = await receiptFor(server, { ...commit, ...outcome });
      const value = {
        entry: toLogEntry(outcome.entry),
        deliveryProof: proof,
        results: outcome.results.map(toRecipientResult),
        ...(terms === undefined ? {} : { receipt: terms }),
      };
      return { outcome: { case: 'accepted', value } };
    }
    case 'conflict':
      return { outcome: { case: 'conflict', value: { head: BigInt(outcome.head) } } };
    case 'already_exists':
      throw messageIdTaken();
    case 'unknown_channel':
    case 'not_member':
      throw noSuchChannel();
    case 'admin_required':
      throw forbidden('only an administrator changes who is in this channel');
    case 'last_admin':
      throw forbidden('a channel keeps at least one administrator', 'Make somebody else administrator first.');
    case 'unknown_device':
      throw notFound('a device to add is not registered here');
    case 'roster_full':
      throw exhausted(`a channel has at most ${outcome.max} devices`);
    case 'invalid':
      throw invalidArgument(INVALID[outcome.reason]);
  }
}
