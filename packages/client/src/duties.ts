/**
 * What a group asks of its members without anybody typing a command (PROTOCOL sections 5, 8 and 9):
 *
 *   somebody asked to leave            administrators commit it, number r of them after 3r seconds plus 0–2 s
 *   somebody asked to be added again   whoever may commits Remove and Add, in the same order
 *   the server's roster is wrong       administrators restore it with an empty commit
 *   this device is leaving             it asks again in each epoch
 *   it joined by a last-resort package, sealed very much in one epoch, its leaf is half over, or its certificate was
 *   renewed: it commits an update
 *   it joined a group of eight or more  it commits an update when its turn comes (warm-up.ts)
 *
 * Everything is read off the stored state, so a restart forgets nothing; the order keeps them from all doing it at once.
 */
import { encodeHex, equal } from '@quicprochat/crypto';
import { addressesEqual, type DeviceAddress } from '@quicprochat/core';
import {
  groupView,
  type GroupState,
  type LeafNodeChanges,
  member,
  ownLeafIndex,
  pendingProposals,
  roster,
} from '@quicprochat/mls';
import { Status } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import { leavingProposals } from './commit/build-commit.ts';
import { memberAt } from './commit/new-epoch.ts';
import { commitWith, proposeLeaving } from './commit/submit-commit.ts';
import { fetchAddTargets, resolveIdentity } from './contacts.ts';
import type { Engine } from './engine.ts';
import { toClientError } from './errors.ts';
import { QpcExtensionType } from './profile/channel-extension.ts';
import { addressOf, certificateExtension } from './profile/member.ts';
import { channelOf, isAdmin } from './profile/validate-commit.ts';
import { statusOf } from './server-errors.ts';
import type { ReceivedRejoinRequest, StoredConversation } from './store/index.ts';
import { updateDueKey } from './track.ts';
import { keepsSlot, warmUpDelayMs, warmUpRank } from './warm-up.ts';

const RANK_DELAY_MS = 3_000;
const JITTER_MS = 2_000;
const RETRY_MS = 30_000;
const WARM_UP_RETRY_MS = 5 * 60_000;
/** A duty due within this time is waited for by whoever wants everything settled. */
const SOON_MS = 2_500;

type Duty =
  | { readonly kind: 'commit-leaving' }
  | { readonly kind: 'add-again'; readonly request: ReceivedRejoinRequest }
  | { readonly kind: 'restore-roster' }
  | { readonly kind: 'leave' }
  | { readonly kind: 'update' }
  | { readonly kind: 'warm-up'; readonly members: number };

interface Planned {
  readonly callOff: () => void;
  readonly dueAtMs: number;
  /** A warm-up, planned among so many members: it gives way to any other duty, and to having been done otherwise. */
  readonly warmUpAmong: number | undefined;
}

export class Duties {
  readonly #engine: Engine;
  readonly #planned: Map<string, Planned> = new Map();
  readonly #running: Set<string> = new Set();
  /** Requests to be added again that could not be served just now: they must not hold up what else there is to do. */
  readonly #postponed: Set<string> = new Set();

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** Looks at every conversation: after a start, and when the connection is back. */
  lookAtAll(): void {
    for (const { channelId, state, groupId } of this.#engine.store.conversations.all()) {
      if (groupId !== undefined && (state === 'active' || state === 'leaving')) this.look(channelId);
    }
  }

  /** Looks whether a group asks for something, and plans it. */
  look(channelId: Uint8Array): void {
    const key = encodeHex(channelId);
    if (this.#engine.closed || this.#running.has(key)) return;
    const planned = this.#planned.get(key);
    if (planned !== undefined && planned.warmUpAmong === undefined) return;
    const found = this.#duty(channelId);
    const among = found?.duty.kind === 'warm-up' ? found.duty.members : undefined;
    if (planned !== undefined) {
      if (among !== undefined && keepsSlot(planned.warmUpAmong, among)) return;
      planned.callOff();
      this.#planned.delete(key);
    }
    if (found === undefined) return;
    const uniform = this.#engine.uniform();
    const delayMs =
      among === undefined ? found.rank * RANK_DELAY_MS + uniform * JITTER_MS : warmUpDelayMs(found.rank, uniform);
    this.#plan(key, channelId, delayMs, among);
  }

  /** Whether something is being done or about to be. */
  get busy(): boolean {
    if (this.#running.size > 0) return true;
    const now = this.#engine.ports.clock.now();
    return [...this.#planned.values()].some(({ dueAtMs }) => dueAtMs - now <= SOON_MS);
  }

  stop(): void {
    for (const { callOff } of this.#planned.values()) callOff();
    this.#planned.clear();
  }

  #plan(key: string, channelId: Uint8Array, delayMs: number, warmUpAmong: number | undefined): void {
    const callOff = this.#engine.later(() => {
      this.#planned.delete(key);
      void this.#perform(key, channelId);
    }, delayMs);
    this.#planned.set(key, { callOff, dueAtMs: this.#engine.ports.clock.now() + delayMs, warmUpAmong });
  }

  async #perform(key: string, channelId: Uint8Array): Promise<void> {
    const engine = this.#engine;
    if (engine.closed || engine.server.state !== 'online' || !engine.hasSession) return;
    // Somebody else may have done it meanwhile.
    const found = this.#duty(channelId);
    if (found === undefined) {
      engine.conditions.check();
      return;
    }
    this.#running.add(key);
    let retry = false;
    try {
      await this.#do(channelId, found.duty);
    } catch (error) {
      if (found.duty.kind === 'add-again') this.#postpone(channelId, found.duty.request.device);
      else retry = true;
      engine.ports.log.debug('a duty could not be done', { duty: found.duty.kind, reason: toClientError(error).code });
    }
    this.#running.delete(key);
    if (engine.closed) return;
    const among = found.duty.kind === 'warm-up' ? found.duty.members : undefined;
    if (retry) this.#plan(key, channelId, among === undefined ? RETRY_MS : WARM_UP_RETRY_MS, among);
    else this.look(channelId);
    engine.conditions.check();
  }

  #postpone(channelId: Uint8Array, device: DeviceAddress): void {
    const key = requestKey(channelId, device);
    this.#postponed.add(key);
    this.#engine.later(() => {
      this.#postponed.delete(key);
      this.look(channelId);
    }, RETRY_MS);
  }

  /** The first thing the group asks of this device, and its rank among those who may do it. */
  #duty(channelId: Uint8Array): { readonly duty: Duty; readonly rank: number } | undefined {
    const engine = this.#engine;
    const { store } = engine;
    const conversation = store.conversations.get(channelId);
    if (conversation === undefined || store.conversations.pendingCommit(channelId) !== undefined) return undefined;
    const state = engine.group(channelId);
    if (state === undefined) return undefined;
    if (conversation.state === 'leaving') {
      return hasProposedLeaving(state) ? undefined : { duty: { kind: 'leave' }, rank: 0 };
    }
    if (conversation.state !== 'active') return undefined;
    const channel = channelOf(groupView(state));
    const admin = channel !== undefined && isAdmin(channel, engine.address);
    const leaving = leavingProposals(state);
    if (admin && leaving.length > 0) {
      const gone = new Set<number>(leaving.map(({ leafIndex }) => leafIndex));
      return { duty: { kind: 'commit-leaving' }, rank: rankOf(engine, state, (leaf) => gone.has(leaf)) };
    }
    for (const request of store.rejoinRequests.open(channelId)) {
      if (addressesEqual(request.device, engine.address)) continue;
      if (this.#postponed.has(requestKey(channelId, request.device))) continue;
      if (!admin && !equal(request.device.identityKey, engine.self.identityKey)) continue;
      const requester = memberAt(state, request.device)?.leafIndex;
      return { duty: { kind: 'add-again', request }, rank: rankOf(engine, state, (leaf) => leaf === requester) };
    }
    if (admin && isRosterWrong(engine, conversation)) {
      return { duty: { kind: 'restore-roster' }, rank: rankOf(engine, state, () => false) };
    }
    const isDue = store.settings.get(updateDueKey(channelId)) !== undefined;
    if (isDue || isOwnLeafHalfOver(engine, state) || renewedLeaf(engine, state) !== undefined) {
      return { duty: { kind: 'update' }, rank: 0 };
    }
    const rank = warmUpRankOf(conversation, state);
    return rank === undefined ? undefined : { duty: { kind: 'warm-up', members: roster(state).length }, rank };
  }

  async #do(channelId: Uint8Array, duty: Duty): Promise<void> {
    const engine = this.#engine;
    switch (duty.kind) {
      case 'leave':
        await proposeLeaving(engine, channelId);
        return;
      case 'commit-leaving':
        await commitWith(engine, channelId, async (state) =>
          leavingProposals(state).length === 0 ? undefined : { coverLeaving: true },
        );
        return;
      case 'add-again':
        await addAgain(engine, channelId, duty.request);
        return;
      case 'restore-roster':
        await commitWith(engine, channelId, async (_state, conversation) => {
          if (!isRosterWrong(engine, conversation)) return undefined;
          const answer = await engine.server.call(methods.group.listGroupMembers, { channelId });
          return {
            serverRoster: answer.roster.map(({ identityKey, deviceId }): DeviceAddress => ({ identityKey, deviceId })),
          };
        });
        return;
      case 'update':
        await commitWith(engine, channelId, async (state) => {
          const leafNode = renewedLeaf(engine, state);
          return leafNode === undefined ? {} : { leafNode };
        });
        engine.change((change) => change.store.settings.set(updateDueKey(channelId), undefined));
        return;
      case 'warm-up':
        await commitWith(engine, channelId, async (state, conversation) =>
          warmUpRankOf(conversation, state) === undefined ? undefined : {},
        );
    }
  }
}

async function addAgain(engine: Engine, channelId: Uint8Array, request: ReceivedRejoinRequest): Promise<void> {
  const { device } = request;
  const isOpen = (): boolean =>
    engine.store.rejoinRequests.open(channelId).some((open) => addressesEqual(open.device, device));
  try {
    await commitWith(engine, channelId, async (state, conversation) => {
      if (!isOpen()) return undefined;
      const account = await resolveIdentity(engine, device.identityKey);
      const suite = conversation.suite ?? groupView(state).cipherSuite;
      const targets = account === undefined ? [] : await fetchAddTargets(engine, account, suite);
      const target = targets.find(({ address }) => addressesEqual(address, device));
      if (target === undefined) return undefined;
      const leaf = memberAt(state, device)?.leafIndex;
      return { adds: [target], removes: leaf === undefined ? [] : [leaf] };
    });
  } catch (error) {
    const status = statusOf(error);
    // Not now is not never; but what the server refuses for good would be tried again for a week.
    if (status !== Status.FORBIDDEN && status !== Status.INVALID_ARGUMENT) throw error;
  }
  if (isOpen()) engine.change((change) => change.store.rejoinRequests.markHandled(channelId, device));
}

function requestKey(channelId: Uint8Array, { identityKey, deviceId }: DeviceAddress): string {
  return `${encodeHex(channelId)}/${encodeHex(identityKey)}/${encodeHex(deviceId)}`;
}

/** The number of this device among the devices of administrators, in order of leaf index. */
function rankOf(engine: Engine, state: GroupState, isOut: (leafIndex: number) => boolean): number {
  const channel = channelOf(groupView(state));
  const own = ownLeafIndex(state);
  let rank = 0;
  for (const leaf of roster(state)) {
    if (leaf.leafIndex >= own) break;
    const address = addressOf(leaf);
    if (channel === undefined || address === undefined || isOut(leaf.leafIndex)) continue;
    if (isAdmin(channel, address)) rank += 1;
  }
  engine.ports.log.debug('a duty was found', { rank });
  return rank;
}

function hasProposedLeaving(state: GroupState): boolean {
  const own = ownLeafIndex(state);
  return pendingProposals(state).some(
    ({ proposal, sender }) =>
      proposal.kind === 'remove' && proposal.removed === own && sender.kind === 'member' && sender.leafIndex === own,
  );
}

/** A leaf made from a KeyPackage has a lifetime and is renewed at half of it; a commit's leaf has none. */
function isOwnLeafHalfOver(engine: Engine, state: GroupState): boolean {
  const source = member(state, ownLeafIndex(state))?.source;
  if (source?.kind !== 'keyPackage') return false;
  const { notBefore, notAfter } = source.lifetime;
  return BigInt(engine.nowSecs()) >= (notBefore + notAfter) / 2n;
}

/** How our leaf has to change so that it carries our certificate; undefined when it does. */
function renewedLeaf(engine: Engine, state: GroupState): LeafNodeChanges | undefined {
  const extensions = member(state, ownLeafIndex(state))?.extensions;
  const { certificate } = engine.self;
  const carried = extensions && certificateExtension(extensions);
  if (extensions === undefined || carried === undefined || equal(carried, certificate)) return undefined;
  return {
    extensions: extensions.map((extension) =>
      extension.extensionType === QpcExtensionType.DeviceCertificate
        ? { ...extension, extensionData: certificate }
        : extension,
    ),
  };
}

function warmUpRankOf(conversation: StoredConversation, state: GroupState): number | undefined {
  // Who asked to leave would have to ask again in the next epoch.
  if (conversation.kind !== 'group' || conversation.paused !== undefined || pendingProposals(state).length > 0) {
    return undefined;
  }
  return warmUpRank(roster(state), ownLeafIndex(state));
}

function isRosterWrong(engine: Engine, conversation: StoredConversation): boolean {
  return (
    conversation.paused !== undefined &&
    engine.store.settings.get(`pause-cause/${encodeHex(conversation.channelId)}`) === 'roster'
  );
}
