/**
 * Whether this device is in step with a group. Anybody on the roster can claim, in clear bytes nobody vouches for, to be in
 * an epoch we never reached. Such a claim must not put a group out of action: it only holds back what we send, so that
 * nothing is said into an epoch that nobody listens to any more, until somebody is heard in ours (THREATS 30).
 */
import { encodeHex } from '@quicprochat/crypto';
import type { Change, Engine } from './engine.ts';

/** Somebody claims that the group has moved on: what is sent waits. */
export function doubtTrack(change: Change, channelId: Uint8Array): void {
  change.store.settings.set(doubtKey(channelId), '1');
}

/** Somebody was heard in our epoch, or we have joined anew: the doubt was wrong, or is over. */
export function trustTrack(change: Change, channelId: Uint8Array): void {
  if (!isTrackDoubted(change.engine, channelId)) return;
  change.store.settings.set(doubtKey(channelId), undefined);
  change.store.rejoinRequests.clearOwn(channelId);
  change.after(() => change.engine.reactions.outboxChanged());
}

export function isTrackDoubted(engine: Engine, channelId: Uint8Array): boolean {
  return engine.store.settings.get(doubtKey(channelId)) !== undefined;
}

function doubtKey(channelId: Uint8Array): string {
  return `track-doubted/${encodeHex(channelId)}`;
}

/** Set when this device is to commit an update: it joined by a last-resort KeyPackage, or an epoch has been used enough. */
export function updateDueKey(channelId: Uint8Array): string {
  return `update-due/${encodeHex(channelId)}`;
}
