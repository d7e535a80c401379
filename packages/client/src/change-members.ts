/** Who is in a group: inviting, removing, leaving, and who administers it (PROTOCOL sections 5 and 9). */
import { encodeHex, equal } from '@quicprochat/crypto';
import { addressesEqual } from '@quicprochat/core';
import { groupView, type GroupState, type LeafIndex, ownLeafIndex, roster } from '@quicprochat/mls';
import { type AddTarget, type CommitPlan, CommitTooLarge } from './commit/build-commit.ts';
import { dropGroup, memberAt } from './commit/new-epoch.ts';
import { splitAdds } from './commit/split-adds.ts';
import { activeGroup, commitWith, proposeLeaving } from './commit/submit-commit.ts';
import { canonicalUsername, fetchAddTargets, resolveUser } from './contacts.ts';
import type { Engine } from './engine.ts';
import { conversationOf } from './epoch.ts';
import { ClientError, toClientError } from './errors.ts';
import { Patience } from './patience.ts';
import type { ChannelExtension } from './profile/channel-extension.ts';
import { addressOf } from './profile/member.ts';
import { isPostQuantum } from './profile/suites.ts';
import { ADDS_MAX_POST_QUANTUM, channelOf, isAdmin } from './profile/validate-commit.ts';
import type { StoredConversation } from './store/index.ts';
import type { InviteOptions, InviteResult } from './types.ts';
import { nameOf } from './views.ts';

/** The server answers a few at once faster than one after the other, and more would crowd out everything else. */
const LOOK_UPS_AT_ONCE = 16;

/** Adds several accounts in one commit; in more when it would be too large. */
export async function invite(
  engine: Engine,
  channelId: Uint8Array,
  usernames: readonly string[],
  options: InviteOptions = {},
): Promise<InviteResult> {
  const { conversation, state } = administered(engine, channelId);
  const suite = conversation.suite ?? groupView(state).cipherSuite;
  const failed: { username: string; code: string; reason: string; error: ClientError }[] = [];
  const targets: AddTarget[] = [];
  const names = [...new Set(usernames.map(canonicalUsername))];
  const patience = new Patience(engine, options);
  const lookUp = async (username: string): Promise<void> => {
    try {
      const { account } = await patience.ask(() => resolveUser(engine, username));
      if (identityLeaves(activeGroup(engine, channelId).state, account.identityKey).length > 0) {
        throw new ClientError('usage', 'already-a-member', `${username} is in this group already`);
      }
      targets.push(...(await fetchAddTargets(engine, account, suite, patience)));
    } catch (error) {
      const failure = toClientError(error);
      const { kind } = failure;
      if (kind === 'cannot-connect' || kind === 'bug' || options.signal?.aborted === true) throw failure;
      failed.push({ username, code: failure.code, reason: failure.message, error: failure });
    }
  };
  for (let start = 0; start < names.length; start += LOOK_UPS_AT_ONCE) {
    await Promise.all(names.slice(start, start + LOOK_UPS_AT_ONCE).map(lookUp));
  }
  const added = new Set<string>();
  try {
    await splitAdds(targets, suite, async (part) => {
      await addAll(engine, channelId, part);
      for (const { username } of part) added.add(username);
    });
  } catch (error) {
    const failure =
      error instanceof CommitTooLarge
        ? new ClientError('refused', 'too-large', 'this invitation is larger than the server takes')
        : toClientError(error);
    if (added.size === 0) throw failure;
    // Those of earlier commits are in for good.
    for (const username of new Set(targets.map((target) => target.username))) {
      if (!added.has(username)) {
        failed.push({ username, code: failure.code, reason: failure.message, error: failure });
      }
    }
  }
  const first = failed[0];
  if (added.size === 0 && first !== undefined) throw first.error;
  return { added: [...added], failed: failed.map(({ username, code, reason }) => ({ username, code, reason })) };
}

async function addAll(engine: Engine, channelId: Uint8Array, targets: readonly AddTarget[]): Promise<void> {
  await commitWith(engine, channelId, async (state) => {
    requireAdmin(engine, state);
    // Somebody else may have added some of them while we were losing a race.
    const adds = targets.filter(({ address }) => memberAt(state, address) === undefined);
    return adds.length === 0 ? undefined : { adds: await inSuite(engine, adds, groupView(state).cipherSuite) };
  });
}

/** Somebody else may have moved the group into another suite since these were fetched: then they are fetched for that. */
async function inSuite(engine: Engine, targets: readonly AddTarget[], suite: number): Promise<readonly AddTarget[]> {
  if (targets.every(({ keyPackage }) => keyPackage.cipherSuite === suite)) return targets;
  // It takes fewer at once.
  if (isPostQuantum(suite) && targets.length > ADDS_MAX_POST_QUANTUM) throw new CommitTooLarge();
  const names = [...new Set(targets.map(({ username }) => username))];
  const fetched: AddTarget[] = [];
  for (let start = 0; start < names.length; start += LOOK_UPS_AT_ONCE) {
    const some = names.slice(start, start + LOOK_UPS_AT_ONCE).map(async (username) => {
      const { account } = await resolveUser(engine, username);
      return fetchAddTargets(engine, account, suite);
    });
    fetched.push(...(await Promise.all(some)).flat());
  }
  return fetched.filter(({ address }) => targets.some((target) => addressesEqual(target.address, address)));
}

export async function removeMember(engine: Engine, channelId: Uint8Array, username: string): Promise<void> {
  const { state } = administered(engine, channelId);
  const name = canonicalUsername(username);
  if (name === engine.self.username) {
    throw new ClientError('usage', 'not-yourself', 'nobody removes themselves', { hint: 'Leave the group instead.' });
  }
  const identityKey = memberNamed(engine, channelId, state, name);
  await commitWith(engine, channelId, async (now): Promise<CommitPlan | undefined> => {
    requireAdmin(engine, now);
    const removes = identityLeaves(now, identityKey);
    if (removes.length === 0) return undefined;
    return { removes };
  });
}

/** @returns `left` when nobody else was in the group, else `leaving` */
export async function leave(engine: Engine, channelId: Uint8Array): Promise<'left' | 'leaving'> {
  const { state, conversation } = activeGroup(engine, channelId);
  if (conversation.kind !== 'group') {
    throw new ClientError('usage', 'not-a-group', 'only groups can be left');
  }
  if (conversation.state === 'leaving') return 'leaving';
  const own = engine.self.identityKey;
  if (othersIn(state, own).length === 0) {
    engine.change((change) => {
      dropGroup(change, { ...conversationOf(engine, channelId), state: 'left', paused: undefined });
    });
    return 'left';
  }
  // The last administrator promotes another first, or nobody could commit the departure.
  await commitWith(engine, channelId, async (now) => {
    const { admins } = channelIn(now);
    if (!admins.some((admin) => equal(admin, own)) || admins.length > 1) return undefined;
    const successor = othersIn(now, own)[0];
    return successor === undefined ? undefined : { admins: [...admins, successor] };
  });
  await proposeLeaving(engine, channelId);
  return conversationOf(engine, channelId).state === 'left' ? 'left' : 'leaving';
}

export async function setAdmin(engine: Engine, channelId: Uint8Array, username: string, admin: boolean): Promise<void> {
  const { state } = administered(engine, channelId);
  const identityKey = memberNamed(engine, channelId, state, canonicalUsername(username));
  await commitWith(engine, channelId, async (now) => {
    requireAdmin(engine, now);
    const { admins } = channelIn(now);
    const isNow = admins.some((key) => equal(key, identityKey));
    if (isNow === admin) return undefined;
    const after = admin ? [...admins, identityKey] : admins.filter((key) => !equal(key, identityKey));
    if (after.length === 0) {
      throw new ClientError('usage', 'invalid-argument', 'a group has at least one administrator', {
        hint: 'Make somebody else an administrator first.',
      });
    }
    return { admins: after };
  });
}

/** @throws ClientError `not-a-group`, `not-admin` */
export function administered(
  engine: Engine,
  channelId: Uint8Array,
): { readonly state: GroupState; readonly conversation: StoredConversation } {
  const group = activeGroup(engine, channelId);
  if (group.conversation.kind !== 'group') {
    throw new ClientError('usage', 'not-a-group', 'this is a conversation of two', {
      hint: 'Make a group for more people.',
    });
  }
  requireAdmin(engine, group.state);
  return group;
}

export function requireAdmin(engine: Engine, state: GroupState): void {
  if (isAdmin(channelIn(state), engine.address)) return;
  throw new ClientError('refused', 'not-admin', 'only an administrator of the group can do this', {
    hint: 'Ask an administrator of the group.',
  });
}

function memberNamed(engine: Engine, channelId: Uint8Array, state: GroupState, username: string): Uint8Array {
  for (const member of roster(state)) {
    const address = addressOf(member);
    if (address !== undefined && nameOf(engine, address.identityKey, channelId) === username)
      return address.identityKey;
  }
  throw new ClientError('usage', 'not-a-member', `${username} is not in this group`, {
    hint: 'See qpc group members.',
  });
}

function identityLeaves(state: GroupState, identityKey: Uint8Array): readonly LeafIndex[] {
  return roster(state).flatMap((member) => {
    const address = addressOf(member);
    return address !== undefined && equal(address.identityKey, identityKey) ? [member.leafIndex] : [];
  });
}

/** Identity keys of the other accounts, in order of their first leaf. */
function othersIn(state: GroupState, own: Uint8Array): readonly Uint8Array[] {
  const keys = new Map<string, Uint8Array>();
  for (const member of roster(state)) {
    const address = addressOf(member);
    if (address === undefined || member.leafIndex === ownLeafIndex(state) || equal(address.identityKey, own)) continue;
    keys.set(encodeHex(address.identityKey), address.identityKey);
  }
  return [...keys.values()];
}

function channelIn(state: GroupState): ChannelExtension {
  const channel = channelOf(groupView(state));
  if (channel === undefined) throw new ClientError('bug', 'bug', 'a group has no channel');
  return channel;
}
