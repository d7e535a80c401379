/**
 * The one direct conversation of two accounts (PROTOCOL section 5): both may begin it, at the same moment even. While the
 * log is empty whoever submits the first commit wins; the other discards its group and joins by the winner's Welcome.
 */
import { EMPTY } from '@quicprochat/crypto';
import { type DeviceAddress, logHashGenesis } from '@quicprochat/core';
import { methods } from '@quicprochat/transport';
import { type AddTarget, buildCommit } from './commit/build-commit.ts';
import { loseTrack } from './commit/receive-entry.ts';
import { storePending, submit } from './commit/submit-commit.ts';
import { fetchAddTargets, resolveUser } from './contacts.ts';
import { newGroup, suiteOf } from './create-group.ts';
import type { Engine } from './engine.ts';
import { beginEpoch, blankConversation, conversationOf, logPlaceOf } from './epoch.ts';
import { ClientError } from './errors.ts';
import type { StoredConversation } from './store/index.ts';
import type { NewConversationOptions } from './types.ts';
import type { VerifiedAccount } from './verify-account.ts';

/** How long the loser of the race waits for the winner's Welcome before it returns the conversation as it is. */
const WELCOME_WAIT_MS = 10_000;

/** The channel id of the direct conversation with an account, made if need be. */
export async function openDirect(
  engine: Engine,
  username: string,
  options: NewConversationOptions,
  catchUp: () => Promise<void>,
): Promise<Uint8Array> {
  const own = engine.self;
  const suite = suiteOf(engine, options);
  if (username === own.username) return openNote(engine);
  const pinned = engine.store.contacts.byUsername(username);
  const known = pinned && engine.store.conversations.direct(pinned.identityKey);
  if (known !== undefined && known.groupId !== undefined && known.state === 'active') return known.channelId;
  const { account } = await resolveUser(engine, username);
  return engine.queue.run(`direct/${username}`, () => openWith(engine, account, suite, catchUp));
}

/** The note to self never leaves this profile: its channel is none of the server's. */
function openNote(engine: Engine): Uint8Array {
  const { identityKey, username } = engine.self;
  const existing = engine.store.conversations.all().find(({ kind }) => kind === 'note');
  if (existing !== undefined) return existing.channelId;
  const channelId = engine.ports.random(16);
  engine.change((change) =>
    change.store.conversations.save({
      ...blankConversation(engine, channelId),
      kind: 'note',
      state: 'active',
      name: username,
      peerIdentity: identityKey,
      memberCount: 1,
    }),
  );
  return channelId;
}

async function openWith(
  engine: Engine,
  peer: VerifiedAccount,
  suite: number,
  catchUp: () => Promise<void>,
): Promise<Uint8Array> {
  const { outcome } = await engine.server.call(methods.channel.createChannel, {
    kind: { case: 'direct', value: { peerIdentityKey: peer.identityKey } },
  });
  if (outcome.case === undefined) throw new ClientError('refused', 'refused', 'the server opened no channel');
  const channelId = outcome.value.channelId.slice();
  const head = outcome.case === 'exists' ? outcome.value.head : 0n;
  if (hasGroup(engine, channelId)) return channelId;
  if (head > 0n) return awaitWelcome(engine, peer, channelId, catchUp);

  const targets = await fetchAddTargets(engine, peer, suite);
  const roster = await engine.server.call(methods.group.listGroupMembers, { channelId });
  if (hasGroup(engine, channelId) || roster.head > 0n) return awaitWelcome(engine, peer, channelId, catchUp);
  const messageId = startConversation(
    engine,
    peer,
    channelId,
    suite,
    targets,
    roster.roster.map(({ identityKey, deviceId }) => ({ identityKey, deviceId })),
  );
  const settlement = await submit(engine, channelId, messageId);
  if (settlement.kind === 'refused') throw settlement.error;
  return settlement.kind === 'accepted' ? channelId : awaitWelcome(engine, peer, channelId, catchUp);
}

/** Group of one, then the commit that adds the other side: both stored in one transaction, the commit pending. */
function startConversation(
  engine: Engine,
  peer: VerifiedAccount,
  channelId: Uint8Array,
  suite: number,
  targets: readonly AddTarget[],
  serverRoster: readonly DeviceAddress[],
): Uint8Array {
  return engine.change((change) => {
    const known = change.store.conversations.get(channelId);
    const conversation: StoredConversation = {
      ...(known ?? blankConversation(engine, channelId)),
      kind: 'direct',
      state: 'awaiting-welcome',
      name: peer.username,
      peerIdentity: peer.identityKey,
      position: 0n,
      logHash: logHashGenesis(engine.crypto, channelId),
    };
    change.store.conversations.save(conversation);
    const { state, pqSalt } = newGroup(engine, suite, {
      channelId,
      kind: 'direct',
      hub: '',
      admins: [engine.self.identityKey, peer.identityKey],
      predecessor: EMPTY,
    });
    change.replaceGroup(channelId, state);
    const begun = beginEpoch(change, conversation, state, pqSalt);
    const place = logPlaceOf(engine, begun);
    const built = buildCommit(
      engine.mls(),
      state,
      place,
      { adds: targets },
      {
        nowMs: engine.nowMs(),
        metadata: EMPTY,
        hybridKeys: new Map(),
        serverRoster,
      },
    );
    if (built.kind === 'rejected') {
      throw new ClientError(
        'verification-failed',
        'commit-refused',
        `the conversation cannot be made: ${built.reason}`,
      );
    }
    return storePending(change, channelId, 0n, built, { kind: 'create' }, place.pqSalt);
  });
}

/**
 * The conversation exists and somebody else began it. Its Welcome is in our inbox or on its way; if it is neither, this
 * device lost its place and asks to be added again. What is written meanwhile waits.
 */
async function awaitWelcome(
  engine: Engine,
  peer: VerifiedAccount,
  channelId: Uint8Array,
  catchUp: () => Promise<void>,
): Promise<Uint8Array> {
  if (!hasGroup(engine, channelId)) await catchUp();
  if (!hasGroup(engine, channelId)) {
    engine.change((change) => {
      if (change.store.conversations.get(channelId) !== undefined) return;
      change.store.conversations.save({
        ...blankConversation(engine, channelId),
        kind: 'direct',
        state: 'awaiting-welcome',
        name: peer.username,
        peerIdentity: peer.identityKey,
      });
    });
    const { head } = await engine.server.call(methods.group.listGroupMembers, { channelId });
    await catchUp();
    if (head > 0n && !hasGroup(engine, channelId)) {
      engine.change((change) =>
        loseTrack(change, conversationOf(engine, channelId), 'certain', 'the Welcome is not here'),
      );
    }
    // The other side may answer at once; if not, the conversation is returned as it is.
    await engine.conditions
      .until(() => hasGroup(engine, channelId), WELCOME_WAIT_MS, 'waiting for the other side')
      .catch((error: unknown) => {
        if (!(error instanceof ClientError) || error.code !== 'timeout') throw error;
      });
  }
  return channelId;
}

function hasGroup(engine: Engine, channelId: Uint8Array): boolean {
  const conversation = engine.store.conversations.get(channelId);
  return conversation?.state === 'active' && conversation.groupId !== undefined;
}
