/**
 * Whether this device is in step with a group. Anybody on the roster can claim, in clear bytes nobody vouches for, to be in
 * an epoch we never reached. Such a claim must not put a group out of action (THREATS 30): everything goes on as before,
 * but what is sent meanwhile is kept. If the claim was true, and we are added again, it is sent once more; whoever has
 * read it knows it by its content id.
 */
import { decodeHex, encodeHex } from '@quicprochat/crypto';
import type { Change, Engine } from './engine.ts';
import { PayloadKind } from './message/index.ts';
import type { OutboxEntry } from './store/index.ts';

/** Beyond this the oldest are given up; they are in the history in any case. */
const KEPT_MAX = 200;

interface Kept {
  /** Content bytes, hex. */
  readonly body: string;
  readonly localId: number | undefined;
}

/** Somebody claims that the group has moved on without us. */
export function doubtTrack(change: Change, channelId: Uint8Array): void {
  if (isTrackDoubted(change.engine, channelId)) return;
  change.store.settings.set(doubtKey(channelId), '[]');
}

/** Somebody was heard in our epoch: the doubt was wrong. */
export function trustTrack(change: Change, channelId: Uint8Array): void {
  if (!isTrackDoubted(change.engine, channelId)) return;
  change.store.settings.set(doubtKey(channelId), undefined);
  change.store.rejoinRequests.clearOwn(channelId);
}

/** Notes what went out in an epoch that may be over. */
export function keepWhileDoubted(change: Change, { channelId, body, localId }: OutboxEntry): void {
  const kept = keptOf(change.engine, channelId);
  if (kept === undefined) return;
  const more: Kept[] = [...kept, { body: encodeHex(body), localId }];
  change.store.settings.set(doubtKey(channelId), JSON.stringify(more.slice(-KEPT_MAX)));
}

/** We have joined anew, so the doubt was right: what went out meanwhile is queued again, before what waits already. */
export function sendAgain(change: Change, channelId: Uint8Array): void {
  const { store, engine } = change;
  const kept = keptOf(engine, channelId) ?? [];
  store.settings.set(doubtKey(channelId), undefined);
  if (kept.length === 0) return;
  const waiting = store.outbox.list(channelId);
  for (const { id } of waiting) store.outbox.remove(id);
  for (const { body, localId } of kept) {
    store.outbox.add({
      channelId,
      recipient: undefined,
      payloadKind: PayloadKind.Application,
      body: decodeHex(body) ?? new Uint8Array(0),
      localId,
      protection: undefined,
      createdAtMs: engine.nowMs(),
    });
  }
  for (const entry of waiting) store.outbox.add(entry);
}

function isTrackDoubted(engine: Engine, channelId: Uint8Array): boolean {
  return engine.store.settings.get(doubtKey(channelId)) !== undefined;
}

function keptOf(engine: Engine, channelId: Uint8Array): readonly Kept[] | undefined {
  const json = engine.store.settings.get(doubtKey(channelId));
  return json === undefined ? undefined : (JSON.parse(json) as readonly Kept[]);
}

function doubtKey(channelId: Uint8Array): string {
  return `track-doubted/${encodeHex(channelId)}`;
}

/** Holds the position of an epoch in which this device has sealed its share: it seals nothing more before the next one. */
export function epochSpentKey(channelId: Uint8Array): string {
  return `epoch-spent/${encodeHex(channelId)}`;
}

/** Set when this device is to commit an update: it joined by a last-resort KeyPackage, or an epoch has been used enough. */
export function updateDueKey(channelId: Uint8Array): string {
  return `update-due/${encodeHex(channelId)}`;
}
