/**
 * Being added again (PROTOCOL sections 4 and 5): a device that cannot follow its group any more asks every device of the
 * roster, in a direct envelope each; somebody who may commits its Remove and Add, and it joins by the Welcome. What it
 * writes meanwhile waits in the outbox. History stays, because conversations are keyed by channel.
 */
import { encodeHex, equal } from '@quicprochat/crypto';
import {
  addressesEqual,
  type DeviceAddress,
  encodeAddress,
  parseDeviceCertificate,
  verifyDeviceCertificate,
} from '@quicprochat/core';
import { groupView } from '@quicprochat/mls';
import { Status } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import { memberAt } from './commit/new-epoch.ts';
import { fetchHybridKeys } from './contacts.ts';
import type { Change, Engine, LostTrack } from './engine.ts';
import { toClientError } from './errors.ts';
import {
  createMessageId,
  decodeRejoinRequest,
  encodeRejoinRequest,
  PayloadKind,
  REJOIN_LIFETIME_MS,
  sealDirect,
  verifyRejoinRequest,
} from './message/index.ts';
import { channelOf } from './profile/validate-commit.ts';
import { statusOf } from './server-errors.ts';
import { doubtTrack } from './track.ts';

const NONCE_BYTES = 16;
/** Whatever makes us ask, we do not ask more often: each request costs the group a commit. */
export const REQUEST_INTERVAL_MS = 10 * 60_000;

/** Asks to be added again, unless that was asked lately. Safe to call for whatever state the conversation is in. */
export async function requestRejoin(
  engine: Engine,
  channelId: Uint8Array,
  certainty: LostTrack,
  epochPosition: bigint,
): Promise<void> {
  await engine.queue.run(`rejoin/${encodeHex(channelId)}`, async () => {
    const conversation = engine.store.conversations.get(channelId);
    if (conversation === undefined || conversation.state === 'left' || conversation.state === 'removed') return;
    // Somebody was faster than we could ask: a Welcome, or the entry that was missing.
    if (conversation.epochPosition !== epochPosition) return;
    const open = engine.store.rejoinRequests.own(channelId);
    if (open === undefined || engine.nowMs() - open.requestedAtMs > REQUEST_INTERVAL_MS) {
      engine.change((change) => {
        change.store.rejoinRequests.saveOwn(channelId, {
          nonce: engine.ports.random(NONCE_BYTES),
          requestedAtMs: engine.nowMs(),
        });
        change.store.settings.set(unsentKey(channelId), '1');
        // On a mere suspicion the group stays as it is, or one member's garbage could put all of them out of action.
        if (certainty === 'certain') change.store.conversations.save({ ...conversation, state: 'awaiting-welcome' });
        else doubtTrack(change, channelId);
        change.emit({
          type: 'warning',
          code: 'rejoin-requested',
          conversationId: encodeHex(channelId),
          text:
            certainty === 'certain'
              ? 'this device lost track of the conversation and has asked the others to add it again'
              : 'this device may have lost track of the conversation and has asked the others to add it again',
        });
      });
    }
    await sendRequests(engine, channelId);
  });
}

/** Looks whether the server's log is longer than what we were given of it. */
export async function isLogLonger(
  engine: Engine,
  channelId: Uint8Array,
  catchUp: () => Promise<void>,
): Promise<boolean> {
  await catchUp();
  const { head } = await engine.server.call(methods.group.listGroupMembers, { channelId });
  // What the server wrote between the two questions is on its way to us.
  await catchUp();
  const conversation = engine.store.conversations.get(channelId);
  return conversation !== undefined && conversation.state === 'active' && conversation.position < head;
}

/** Sends the requests that could not be sent when they were made. */
export async function sendUnsentRequests(engine: Engine): Promise<void> {
  for (const { channelId } of engine.store.conversations.all()) {
    await engine.queue.run(`rejoin/${encodeHex(channelId)}`, () => sendRequests(engine, channelId));
  }
}

async function sendRequests(engine: Engine, channelId: Uint8Array): Promise<void> {
  const open = engine.store.rejoinRequests.own(channelId);
  if (open === undefined || engine.store.settings.get(unsentKey(channelId)) === undefined) return;
  try {
    const { roster } = await engine.server.call(methods.group.listGroupMembers, { channelId });
    const others = roster
      .map(({ identityKey, deviceId }): DeviceAddress => ({ identityKey, deviceId }))
      .filter((address) => !addressesEqual(address, engine.address));
    const hybridKeys = await fetchHybridKeys(engine, others);
    for (const recipient of others) {
      const hybridKey = hybridKeys.get(encodeHex(encodeAddress(recipient)));
      if (hybridKey === undefined) continue;
      const body = encodeRejoinRequest(engine.crypto, engine.self.devicePrivateKey, recipient, {
        channelId,
        nonce: open.nonce,
        timeMs: open.requestedAtMs,
        certificate: engine.self.certificate,
      });
      const payload = sealDirect(
        engine.mls(),
        { address: recipient, hybridKey: hybridKey.publicKey },
        channelId,
        PayloadKind.Rejoin,
        body,
      );
      await engine.server.call(methods.delivery.enqueue, {
        recipientKey: recipient.identityKey,
        deviceId: recipient.deviceId,
        channelId,
        messageId: createMessageId(engine.nowMs(), engine.ports.random),
        payload,
      });
    }
    engine.change((change) => change.store.settings.set(unsentKey(channelId), undefined));
  } catch (error) {
    const status = statusOf(error);
    if (status === Status.FORBIDDEN || status === Status.NOT_FOUND) {
      // Not on the roster: nobody took us out by a commit we could read, but out we are.
      engine.change((change) => {
        const conversation = change.store.conversations.get(channelId);
        change.store.rejoinRequests.clearOwn(channelId);
        change.store.settings.set(unsentKey(channelId), undefined);
        if (conversation === undefined) return;
        // Of a Welcome for a channel that never was ours nothing need be left.
        const isUnknown = conversation.position === 0n && conversation.kind === 'group';
        if (isUnknown) change.store.conversations.delete(channelId);
        else change.store.conversations.save({ ...conversation, state: 'removed' });
      });
      return;
    }
    // It stays noted as unsent; being online again sends it.
    engine.ports.log.debug('a rejoin request could not be sent', { reason: toClientError(error).code });
  }
}

/** Somebody else's request out of the inbox: verified, remembered, and dealt with by duties.ts. */
export function receiveRejoinRequest(
  change: Change,
  channelId: Uint8Array,
  body: Uint8Array,
  skip: (reason: string) => void,
): void {
  const { engine, store } = change;
  const untrusted = decodeRejoinRequest(body);
  const state = change.group(channelId);
  if (untrusted === undefined) return skip('it is malformed');
  if (state === undefined || store.conversations.get(channelId)?.state !== 'active') return;
  const parsed = parseDeviceCertificate(untrusted.request.certificate);
  if (parsed === undefined) return skip('its certificate is malformed');
  const device: DeviceAddress = { identityKey: parsed.claims.identityKey, deviceId: parsed.claims.deviceId };
  const channel = channelOf(groupView(state));
  const known =
    memberAt(state, device) !== undefined ||
    (channel?.kind === 'direct' && channel.admins.some((admin) => equal(admin, device.identityKey)));
  if (!known) return skip('it comes from somebody who is not in the group');
  const certificate = verifyDeviceCertificate(engine.crypto, parsed, {
    origin: engine.self.origin,
    identityKey: device.identityKey,
    deviceId: device.deviceId,
  });
  if (certificate.kind === 'invalid') return skip(`its certificate does not verify: ${certificate.reason}`);
  const outcome = verifyRejoinRequest(engine.crypto, untrusted, {
    channelId,
    recipient: engine.address,
    deviceKey: certificate.statement.deviceKey,
    nowMs: engine.nowMs(),
  });
  if (outcome.kind === 'refused') return skip(`it is refused: ${outcome.reason}`);
  const { nonce, timeMs } = outcome.request;
  store.rejoinRequests.deleteExpired(engine.nowMs() - REJOIN_LIFETIME_MS);
  if (!store.rejoinRequests.receive({ channelId, device, nonce, requestedAtMs: timeMs })) return;
  change.after(() => engine.reactions.dutiesChanged(channelId));
}

function unsentKey(channelId: Uint8Array): string {
  return `rejoin-unsent/${encodeHex(channelId)}`;
}
