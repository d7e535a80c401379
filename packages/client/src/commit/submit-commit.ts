/**
 * Commits of our own, from intent to decision (PROTOCOL section 5; THREATS 10, 32):
 *
 *   prepare (asks the server for keys) ─▶ build and store, one transaction ─▶ SubmitCommit
 *     accepted, or our own message id in the inbox ─▶ merged (receive-entry.ts)
 *     somebody else's entry at that position       ─▶ lost: drain, look whether the intent still stands, try again
 *     no answer                                    ─▶ the same bytes again, after a reconnect or a restart
 *
 * What decides is the log as it comes through the inbox, not the answer alone; whoever waits is told by `settlements`.
 */
import { fromBinary } from '@bufbuild/protobuf';
import { EMPTY, encodeHex, equal } from '@quicprochat/crypto';
import {
  diffRows,
  encodePendingCommit,
  groupView,
  type GroupState,
  type Rejected,
  wipeGroup,
  wipePendingCommit,
} from '@quicprochat/mls';
import { Status, SubmitCommitRequestSchema } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import { checkReceipt } from '../check-receipt.ts';
import { fetchHybridKeys } from '../contacts.ts';
import type { Change, CommitSettlement, Engine } from '../engine.ts';
import { addressesOf, conversationOf, logPlaceOf } from '../epoch.ts';
import { ClientError, toClientError } from '../errors.ts';
import { encodeGroupInfo } from '../message/index.ts';
import { isPostQuantum } from '../profile/suites.ts';
import { statusOf } from '../server-errors.ts';
import { uploadPendingTree } from '../transfer-trees.ts';
import type { StoredConversation } from '../store/index.ts';
import {
  buildCommit,
  buildLeaveProposal,
  type BuiltEntry,
  type CommitPlan,
  type CommitSurroundings,
  leavingProposals,
  type LogPlace,
} from './build-commit.ts';
import { buildReInit, type ReInitPlan } from './build-reinit.ts';
import { discardPending, dropGroup } from './new-epoch.ts';
import { isBeingCreated, mergePending, type PendingIntent } from './receive-entry.ts';

const RETRIES_MAX = 8;
const SETTLEMENT_TIMEOUT_MS = 60_000;
const RESUBMIT_MS = 1_000;

/** What to commit, given the group as it is now; undefined when there is nothing left to do. */
export type PrepareCommit = (
  state: GroupState,
  conversation: StoredConversation,
) => Promise<(CommitPlan & Pick<CommitSurroundings, 'serverRoster'>) | ReInitPlan | undefined>;

/**
 * Commits what `prepare` says, again after each lost race. Commits of one conversation go one after the other.
 * @returns `moot` when `prepare` found nothing to do
 * @throws ClientError `lost-race` after eight retries; what the server refuses; `timeout` (it stays pending)
 * @throws CommitTooLarge
 */
export async function commitWith(
  engine: Engine,
  channelId: Uint8Array,
  prepare: PrepareCommit,
): Promise<'committed' | 'moot'> {
  return engine.queue.run(`commit/${encodeHex(channelId)}`, async () => {
    for (let attempt = 0; ; attempt++) {
      await settlePending(engine, channelId);
      const { state, conversation } = activeGroup(engine, channelId);
      const plan = await prepare(state, conversation);
      if (plan === undefined) return 'moot';
      const build = await builder(engine, conversation, state, plan);
      const { epoch, groupId } = groupView(state);
      const messageId = engine.change((change) => {
        const now = activeGroup(engine, channelId);
        // Made for another epoch, or for the group before this one: the keys fetched may be for others than are in the group now.
        const view = groupView(now.state);
        if (view.epoch !== epoch || !equal(view.groupId, groupId)) return undefined;
        const place = logPlaceOf(engine, now.conversation);
        const built = build(now.state, place);
        if (built.kind === 'rejected') throw commitRefused(built.reason);
        const intent: PendingIntent = { kind: 'successor' in built ? 'reInit' : 'commit' };
        return storePending(change, channelId, place.position, built, intent, place.pqSalt);
      });
      const settlement: CommitSettlement =
        messageId === undefined ? { kind: 'lost' } : await submit(engine, channelId, messageId);
      if (settlement.kind === 'accepted') return 'committed';
      if (settlement.kind === 'refused') throw settlement.error;
      if (attempt >= RETRIES_MAX) {
        throw new ClientError('refused', 'lost-race', 'others kept changing the group at the same time', {
          hint: 'Nothing was changed. Try again.',
        });
      }
      await delay(engine, (50 + engine.uniform() * 450) * 2 ** attempt);
    }
  });
}

/** Asks to be removed (PROTOCOL section 9). Done once the proposal is in the log; an administrator commits it. */
export async function proposeLeaving(engine: Engine, channelId: Uint8Array): Promise<void> {
  await engine.queue.run(`commit/${encodeHex(channelId)}`, async () => {
    for (let attempt = 0; ; attempt++) {
      await settlePending(engine, channelId);
      const conversation = conversationOf(engine, channelId);
      if (conversation.groupId === undefined) return;
      const messageId = engine.change((change) => {
        const now = conversationOf(engine, channelId);
        const state = change.group(channelId);
        if (state === undefined) return undefined;
        const place = logPlaceOf(engine, now);
        const built = buildLeaveProposal(engine.mls(), state, place, engine.nowMs());
        if (built.kind === 'rejected') throw commitRefused(built.reason);
        return storePending(change, channelId, place.position, built, { kind: 'leave' }, place.pqSalt);
      });
      if (messageId === undefined) return;
      const settlement = await submit(engine, channelId, messageId);
      if (settlement.kind === 'accepted') return;
      if (settlement.kind === 'refused') throw settlement.error;
      if (attempt >= RETRIES_MAX) {
        throw new ClientError('refused', 'lost-race', 'others kept changing the group at the same time', {
          hint: 'Try again.',
        });
      }
      await delay(engine, (50 + engine.uniform() * 450) * 2 ** attempt);
    }
  });
}

/** Stores an entry of ours before it is submitted. Part of the transaction that stores the state it came from. */
export function storePending(
  change: Change,
  channelId: Uint8Array,
  after: bigint,
  built: BuiltEntry,
  intent: PendingIntent,
  pqSaltBefore: Uint8Array,
): Uint8Array {
  const { engine, store } = change;
  change.setGroup(channelId, built.state);
  const { pending, leftBehind, successor, tree } = built;
  const renewed = successor === undefined && !equal(built.pqSalt, pqSaltBefore);
  store.conversations.savePendingCommit(channelId, {
    messageId: built.messageId,
    after,
    request: built.request,
    pending: built.pending === undefined ? EMPTY : encodePendingCommit(built.pending),
    intent: JSON.stringify(renewed ? { ...intent, pqSalt: encodeHex(built.pqSalt) } : intent),
    attempts: 0,
    createdAtMs: engine.nowMs(),
  });
  store.trees.setPendingUpload(channelId, tree && { blobId: tree.reference.blobId, blob: tree.blob });
  if (successor !== undefined) {
    store.successorRows.clear(channelId);
    store.successorRows.apply(channelId, diffRows(undefined, successor));
    change.after(() => wipeGroup(engine.mls(), successor));
  }
  if (pending !== undefined) {
    // It is on disk; in memory it has no use until it is decided.
    change.after(() => wipePendingCommit(engine.mls(), engine.group(channelId) ?? built.state, pending));
  }
  if (leftBehind.length > 0) {
    engine.ports.log.warn('devices without a hybrid key cannot follow a commit', { devices: leftBehind.length });
  }
  return built.messageId;
}

/** Submits the pending entry with this id and waits for the decision. */
export async function submit(engine: Engine, channelId: Uint8Array, messageId: Uint8Array): Promise<CommitSettlement> {
  const key = encodeHex(messageId);
  let callOff = (): void => {};
  try {
    return await new Promise<CommitSettlement>((resolve, reject) => {
      engine.settlements.set(key, resolve);
      callOff = engine.later(() => {
        reject(
          new ClientError('timeout', 'timeout', 'the server did not decide on a change of the group in time', {
            hint: 'It stays pending and is decided when the connection is back.',
          }),
        );
      }, SETTLEMENT_TIMEOUT_MS);
      void submitPending(engine, channelId);
    });
  } finally {
    callOff();
    engine.settlements.delete(key);
  }
}

/** Submits whatever is pending in a channel, the same bytes as before. Called again when the connection is back. */
export async function submitPending(engine: Engine, channelId: Uint8Array): Promise<void> {
  if (engine.closed) return;
  let messageId: Uint8Array | undefined;
  try {
    const pending = engine.store.conversations.pendingCommit(channelId);
    if (pending === undefined) return;
    ({ messageId } = pending);
    await uploadPendingTree(engine, channelId);
    if (engine.closed) return;
    const { outcome } = await engine.server.call(
      methods.delivery.submitCommit,
      fromBinary(SubmitCommitRequestSchema, pending.request),
    );
    if (outcome.case === 'conflict' && outcome.value.head < pending.after) {
      refusePending(engine, channelId, messageId, wentBack());
      return;
    }
    // On any other conflict the entry that won is in our inbox, or on its way: it decides.
    if (outcome.case !== 'accepted' || outcome.value.entry === undefined) return;
    const { entry, results, deliveryProof } = outcome.value;
    engine.change((change) => {
      const { payload } = fromBinary(SubmitCommitRequestSchema, pending.request);
      const { messageId: id } = pending;
      checkReceipt(
        change,
        { channelId, messageId: id, payload, results, proof: deliveryProof },
        'a change of the group',
      );
      const conversation = change.store.conversations.get(channelId);
      const still = change.store.conversations.pendingCommit(channelId);
      if (conversation === undefined || still === undefined || !equal(still.messageId, pending.messageId)) return;
      if (conversation.position !== pending.after || entry.position !== pending.after + 1n) return;
      mergePending(change, conversation, still, entry);
    });
  } catch (error) {
    const failure = toClientError(error);
    if (engine.closed) return;
    if (messageId === undefined || failure.kind === 'local-state' || failure.kind === 'bug') {
      engine.ports.log.warn('a pending commit could not be looked after', { reason: failure.code });
    } else {
      afterFailure(engine, channelId, messageId, failure);
    }
  }
}

function afterFailure(engine: Engine, channelId: Uint8Array, messageId: Uint8Array, error: ClientError): void {
  switch (statusOf(error)) {
    case Status.INVALID_ARGUMENT:
    case Status.FORBIDDEN:
    case Status.NOT_FOUND:
    case Status.ALREADY_EXISTS:
    case Status.TOO_LARGE:
    case Status.EXHAUSTED:
      break;
    default:
      // Offline: being online again submits it. Else the server has a bad moment, or wants us to be slower.
      if (engine.server.state === 'online') {
        const waitMs = Math.max(error.retryAfterMs, RESUBMIT_MS);
        engine.later(() => void submitPending(engine, channelId), waitMs);
      }
      return;
  }
  refusePending(engine, channelId, messageId, error);
}

/** Nothing that others could have sent decides any more: the log ends before what this device, and others, have applied. */
function wentBack(): ClientError {
  return new ClientError(
    'refused',
    'log-went-back',
    'the server was put back to a state before the last change of this conversation, which cannot be changed since',
    { hint: 'Messages still go through; for a change of who is in it, make a new group.' },
  );
}

function refusePending(engine: Engine, channelId: Uint8Array, messageId: Uint8Array, error: ClientError): void {
  const settled = engine.settlements.get(encodeHex(messageId));
  engine.change((change) => {
    const still = change.store.conversations.pendingCommit(channelId);
    if (still === undefined || !equal(still.messageId, messageId)) return;
    const conversation = conversationOf(engine, channelId);
    // Told first: what follows would tell it as lost.
    settled?.({ kind: 'refused', error });
    if (isBeingCreated(conversation)) dropGroup(change, conversation);
    else discardPending(change, channelId, messageId);
  });
}

/** Sees an entry through that an earlier call, or an earlier process, left undecided. */
async function settlePending(engine: Engine, channelId: Uint8Array): Promise<void> {
  const pending = engine.store.conversations.pendingCommit(channelId);
  if (pending !== undefined) await submit(engine, channelId, pending.messageId);
}

/** @throws ClientError `not-active`, `awaiting-welcome` */
export function activeGroup(
  engine: Engine,
  channelId: Uint8Array,
): { readonly state: GroupState; readonly conversation: StoredConversation } {
  const conversation = conversationOf(engine, channelId);
  const state = engine.group(channelId);
  if (conversation.state === 'awaiting-welcome') {
    throw new ClientError(
      'local-state',
      'awaiting-welcome',
      'this device has not been let into this conversation yet',
      {
        hint: 'Try again when the other side has been online.',
      },
    );
  }
  if (state === undefined || (conversation.state !== 'active' && conversation.state !== 'leaving')) {
    throw new ClientError('local-state', 'not-active', 'this device is not in this conversation any more', {
      hint: 'Ask to be invited again.',
    });
  }
  return { state, conversation };
}

/** Metadata for joiners: the group's name as it is now. */
function metadataOf(conversation: StoredConversation): Uint8Array {
  if (conversation.kind === 'direct' || conversation.nameVersion < 1n) return EMPTY;
  return encodeGroupInfo({ version: conversation.nameVersion, name: conversation.name }) ?? EMPTY;
}

/** How the entry of a plan is built, once what it takes has been asked for. */
async function builder(
  engine: Engine,
  conversation: StoredConversation,
  state: GroupState,
  plan: NonNullable<Awaited<ReturnType<PrepareCommit>>>,
): Promise<(state: GroupState, place: LogPlace) => BuiltEntry | Rejected> {
  const { treeInlineBytesMax } = engine.ports;
  if ('successor' in plan) {
    const reInit = treeInlineBytesMax === undefined ? plan : { ...plan, treeInlineBytesMax };
    return (now, place) => buildReInit(engine.mls(), now, place, reInit, engine.nowMs());
  }
  const surroundings = await gather(engine, conversation, state, plan);
  return (now, place) => buildCommit(engine.mls(), now, place, plan, surroundings);
}

async function gather(
  engine: Engine,
  conversation: StoredConversation,
  state: GroupState,
  plan: CommitPlan & Pick<CommitSurroundings, 'serverRoster'>,
): Promise<CommitSurroundings> {
  const removes = (plan.removes?.length ?? 0) > 0 || (plan.coverLeaving === true && leavingProposals(state).length > 0);
  const hybridKeys =
    removes && !isPostQuantum(groupView(state).cipherSuite)
      ? await fetchHybridKeys(engine, addressesOf(state))
      : new Map();
  return {
    nowMs: engine.nowMs(),
    metadata: metadataOf(conversation),
    hybridKeys,
    ...(plan.serverRoster === undefined ? {} : { serverRoster: plan.serverRoster }),
    ...(engine.ports.treeInlineBytesMax === undefined ? {} : { treeInlineBytesMax: engine.ports.treeInlineBytesMax }),
  };
}

function commitRefused(reason: string): ClientError {
  return new ClientError('verification-failed', 'commit-refused', `the group does not allow this: ${reason}`);
}

/** Ends with the engine. */
async function delay(engine: Engine, ms: number): Promise<void> {
  await engine.conditions
    .until(() => false, ms, 'waiting')
    .catch((error: unknown) => {
      if (!(error instanceof ClientError) || error.code !== 'timeout') throw error;
    });
}
