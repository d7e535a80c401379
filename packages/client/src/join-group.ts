/**
 * A Welcome out of the inbox: the way into a group (PROTOCOL sections 4, 5 and 9; THREATS 4).
 *
 *   envelope 01 or 02 ─▶ Welcome body ─▶ the KeyPackage it was made for ─▶ MLS join ─▶ our checks ─┐
 *                      one transaction: group rows, envelope key, conversation, KeyPackage gone ◀──┘
 *
 * Whatever is refused leaves nothing behind but a note of why. A conversation with a live group is never overwritten,
 * unless this device has asked to be added again.
 */
import { encodeHex, equal } from '@quicprochat/crypto';
import { addressesEqual, encodeAddress } from '@quicprochat/core';
import {
  findExtension,
  groupView,
  type GroupState,
  joinGroup,
  type Member,
  roster,
  welcomeKeyPackageRefs,
  wipeGroup,
} from '@quicprochat/mls';
import type { Change } from './engine.ts';
import { beginEpoch, blankConversation, wasPostQuantum } from './epoch.ts';
import {
  decodeGroupInfo,
  decodeWelcomeBody,
  EnvelopeType,
  envelopeType,
  type HandshakeBundle,
  kindAgrees,
  openDirect,
  openShared,
  PayloadKind,
  PQ_SALT_LENGTH,
  type TreeReference,
  type WelcomeBody,
} from './message/index.ts';
import { type ChannelExtension, decodeChannelExtension, QpcExtensionType } from './profile/channel-extension.ts';
import { GROUP_CONFIG } from './profile/group-parameters.ts';
import { addressOf, usernameOf } from './profile/member.ts';
import { isPostQuantum } from './profile/suites.ts';
import { lifetimeAllowed } from './profile/validate-commit.ts';
import { REQUEST_INTERVAL_MS } from './rejoin.ts';
import type { StoredConversation, StoredKeyPackage } from './store/index.ts';
import { sendAgain, updateDueKey } from './track.ts';
import { conversationView, nameOf } from './views.ts';
import { noteSkipped } from './watch-server.ts';

export interface DirectRow {
  readonly channelId: Uint8Array;
  readonly data: Uint8Array;
  /** Type 02: this device's wrap; else empty. */
  readonly wrap: Uint8Array;
}

export type OpenedRow =
  | { readonly kind: 'opened'; readonly payloadKind: PayloadKind; readonly body: Uint8Array }
  | { readonly kind: 'refused'; readonly reason: string };

/** Opens an envelope of type 01 or 02 with whichever of our hybrid keys it was sealed to. */
export function openForDevice(change: Change, { channelId, data, wrap }: DirectRow): OpenedRow {
  const { engine, store } = change;
  const type = envelopeType(data);
  let reason = 'malformed';
  for (const { privateKey } of store.keys.hybridKeys()) {
    const opening = { address: engine.address, hybridPrivateKey: privateKey, channelId };
    const opened =
      type === EnvelopeType.Shared
        ? openShared(engine.crypto, { ...opening, wrap }, data)
        : openDirect(engine.crypto, opening, data);
    if (opened.kind === 'opened') {
      if (type !== undefined && kindAgrees(opened.payloadKind, type, 'message')) return opened;
      return { kind: 'refused', reason: 'its contents are of another kind' };
    }
    reason = opened.reason;
  }
  return { kind: 'refused', reason: `its envelope is ${reason}` };
}

/** Returns the tree that has to be here before the Welcome can be taken; then nothing was done. */
export function receiveWelcome(change: Change, row: DirectRow, bytes: Uint8Array): TreeReference | undefined {
  const body = decodeWelcomeBody(bytes);
  const outcome = body === undefined ? 'it is malformed' : join(change, row, body);
  if (typeof outcome === 'string') noteSkipped(change, 'welcome-refused', row.channelId, row.data, outcome);
  return typeof outcome === 'string' ? undefined : outcome;
}

/** Returns why not, or the tree it takes first; undefined when this device has joined. */
function join(change: Change, { channelId }: DirectRow, body: WelcomeBody): string | TreeReference | undefined {
  const { engine, store } = change;
  const known = store.conversations.get(channelId);
  const rejoining = store.rejoinRequests.own(channelId) !== undefined;
  if (known?.groupId !== undefined && !rejoining) return 'this conversation is already there';

  const keyPackage = keyPackageFor(change, body);
  if (keyPackage === undefined) return 'the key it was made for is gone';
  const blob = body.tree && encodeHex(body.tree.blobId);
  if (blob !== undefined && !engine.trees.has(blob)) return body.tree;
  const ratchetTree = blob === undefined ? undefined : engine.trees.get(blob);
  if (blob !== undefined && ratchetTree === undefined) {
    askAgain(change, channelId, body, known);
    return 'the tree of its group is gone';
  }
  const welcomeHash = engine.crypto.hash('sha256', body.welcome);
  const context = engine.mls();
  const outcome = joinGroup(context, {
    welcome: body.welcome,
    keyPackage: { ...keyPackage, signaturePrivateKey: engine.self.devicePrivateKey },
    ...(ratchetTree === undefined ? {} : { ratchetTree }),
    groupExists: (groupId) => {
      const existing = store.conversations.byGroupId(groupId);
      return existing !== undefined && !(rejoining && equal(existing.channelId, channelId));
    },
    config: GROUP_CONFIG,
  });
  if (outcome.kind === 'rejected') return `${outcome.rule} ${outcome.name}: ${outcome.reason}`;
  const { state, inviter } = outcome;
  const extension = findExtension(groupView(state).extensions, QpcExtensionType.Channel);
  const channel = extension === undefined ? undefined : decodeChannelExtension(extension);
  const refusal =
    channel === undefined
      ? 'its group belongs to no channel'
      : whyRefused(change, { channelId, channel, state, inviter, body, known });
  if (channel === undefined || refusal !== undefined) return refusal;
  // Only now is anything written. A last-resort key outlives the Welcome, so the Welcome itself is remembered.
  if (keyPackage.lastResort && !store.keys.rememberWelcome(welcomeHash, keyPackage.keyPackageRef)) {
    return 'it was used before';
  }
  store.keys.keyPackageUsed(keyPackage.keyPackageRef, engine.nowMs());
  store.rejoinRequests.clearOwn(channelId);
  sendAgain(change, channelId);
  if (known !== undefined) {
    change.forgetPredecessor(channelId);
    store.conversations.clearEnvelopeKeys(channelId);
    store.conversations.clearPendingCommit(channelId);
  }
  const inviterAddress = addressOf(inviter);
  const conversation = conversationFor(change, { channelId, channel, state, body, known, inviterAddress, rejoining });
  // What is on disk is read when the first new state comes: the record may not speak of the new group before that.
  change.replaceGroup(channelId, state);
  store.conversations.save(conversation);
  beginEpoch(change, conversation, state, body.pqSalt);
  if (keyPackage.lastResort) store.settings.set(updateDueKey(channelId), '1');
  const invitedBy = (): string =>
    inviterAddress === undefined ? '' : nameOf(engine, inviterAddress.identityKey, channelId);
  change.emit(() => ({
    type: 'joined',
    conversation: conversationView(engine, store.conversations.get(channelId) ?? conversation),
    invitedBy: invitedBy(),
  }));
  change.after(() => {
    engine.reactions.outboxChanged();
    engine.reactions.membersChanged(channelId);
    engine.reactions.dutiesChanged(channelId);
    engine.reactions.keysUsed();
  });
  return undefined;
}

/** We are in the group, but cannot get in: somebody has to add this device once more. */
function askAgain(
  change: Change,
  channelId: Uint8Array,
  { metadata }: WelcomeBody,
  known: StoredConversation | undefined,
): void {
  const { engine, store } = change;
  const info = decodeGroupInfo(metadata);
  const waiting: StoredConversation = {
    ...(known ?? { ...blankConversation(engine, channelId), kind: info === undefined ? 'direct' : 'group' }),
    ...(known === undefined && info !== undefined ? { name: info.name, nameVersion: info.version } : {}),
    state: 'awaiting-welcome',
  };
  store.conversations.save(waiting);
  const open = store.rejoinRequests.own(channelId);
  const waitMs = open === undefined ? 0 : open.requestedAtMs + REQUEST_INTERVAL_MS + 1 - engine.nowMs();
  const { epochPosition } = waiting;
  const ask = (): void => engine.reactions.trackLost(channelId, 'certain', epochPosition);
  // Each request costs the group a commit, however often the server has lost the tree.
  change.after(() => (waitMs > 0 ? engine.later(ask, waitMs) : ask()));
}

interface Candidate {
  readonly channelId: Uint8Array;
  readonly channel: ChannelExtension;
  readonly state: GroupState;
  readonly inviter: Member;
  readonly body: WelcomeBody;
  readonly known: StoredConversation | undefined;
}

function whyRefused(
  change: Change,
  { channelId, channel, state, inviter, body, known }: Candidate,
): string | undefined {
  const { engine } = change;
  if (!equal(channel.channelId, channelId)) return 'its group belongs to another channel';
  if (channel.hub !== '') return 'its group is kept by another server';
  if (known !== undefined && known.kind !== channel.kind) return 'its group is of another kind than the conversation';
  if (body.position < 1n) return 'it comes before the first entry of the log';
  const isClassical = !isPostQuantum(groupView(state).cipherSuite);
  if (isClassical && wasPostQuantum(engine, channelId))
    return 'its group is classical, and the conversation no longer is';
  const saltLength = isClassical ? PQ_SALT_LENGTH : 0;
  if (body.pqSalt.length !== saltLength) return 'its post-quantum salt has the wrong length';
  const inviterAddress = addressOf(inviter);
  if (inviterAddress === undefined) return 'its inviter is not one of ours';
  const own = engine.self.identityKey;
  const mayInvite = channel.admins.some((admin) => equal(admin, inviterAddress.identityKey));
  if (!mayInvite && !equal(inviterAddress.identityKey, own)) return 'its inviter may not invite';
  if (channel.kind === 'group') return undefined;
  // Direct: the two of us, and nobody else.
  const peer = channel.admins.find((admin) => !equal(admin, own));
  if (channel.admins.length !== 2 || peer === undefined || !channel.admins.some((admin) => equal(admin, own))) {
    return 'its group is not a conversation of two';
  }
  const strangers = roster(state).some((member) => {
    const address = addressOf(member);
    return address === undefined || !channel.admins.some((admin) => equal(admin, address.identityKey));
  });
  if (strangers) return 'somebody else is in a direct conversation';
  if (known?.peerIdentity !== undefined && !equal(known.peerIdentity, peer)) return 'its group is with somebody else';
  return undefined;
}

export type SuccessorJoin =
  | { readonly kind: 'joined'; readonly state: GroupState; readonly keyPackage: StoredKeyPackage }
  | { readonly kind: 'refused'; readonly reason: string };

/**
 * The way from a group that a ReInit closed into the one that its entry opens (RFC 9420 sections 11.2 and 12.4.3.1): by
 * the Welcome beside the ReInit, bound to the closed group by its resumption PSK. Writes nothing.
 */
export function joinSuccessor(
  change: Change,
  channelId: Uint8Array,
  closed: GroupState,
  committer: Member,
  { welcome, tree }: NonNullable<HandshakeBundle['successor']>,
): SuccessorJoin {
  const { engine, store } = change;
  const refuse = (reason: string): SuccessorJoin => ({ kind: 'refused', reason });
  const keyPackage = keyPackageFor(change, { welcome });
  if (keyPackage === undefined) return refuse('the key it was made for is gone');
  const ratchetTree = tree && engine.trees.get(encodeHex(tree.blobId));
  if (tree !== undefined && ratchetTree === undefined) return refuse('the tree of its group is gone');
  const outcome = joinGroup(engine.mls(), {
    welcome,
    keyPackage: { ...keyPackage, signaturePrivateKey: engine.self.devicePrivateKey },
    ...(ratchetTree === undefined ? {} : { ratchetTree }),
    previous: closed,
    groupExists: (groupId) => store.conversations.byGroupId(groupId) !== undefined,
    config: GROUP_CONFIG,
  });
  if (outcome.kind === 'rejected') return refuse(`${outcome.rule} ${outcome.name}: ${outcome.reason}`);
  // MLS has checked that nobody is missing and that the group is the one announced. Nobody comes in by the way, either.
  const { state, inviter } = outcome;
  const [before, after] = [closed, state].map((group) =>
    roster(group)
      .flatMap((member) => addressOf(member) ?? [])
      .map((address) => encodeHex(encodeAddress(address))),
  );
  const strangers = after!.filter((address) => !before!.includes(address));
  const maker = addressOf(inviter);
  const closer = addressOf(committer);
  let reason: string | undefined;
  if (strangers.length > 0 || after!.length !== before!.length) reason = 'others are in the group it opens';
  else if (maker === undefined || closer === undefined || !addressesEqual(maker, closer)) {
    reason = 'somebody else made the group it opens';
  } else if (roster(state).some((member) => !lifetimeAllowed(member))) {
    reason = 'the lifetime of a leaf is longer than 90 days';
  } else if (keyPackage.lastResort) {
    const hash = engine.crypto.hash('sha256', welcome);
    if (!store.keys.rememberWelcome(hash, keyPackage.keyPackageRef)) reason = 'it was used before';
  }
  if (reason === undefined) return { kind: 'joined', state, keyPackage };
  wipeGroup(engine.mls(), state);
  return refuse(reason);
}

function keyPackageFor(change: Change, { welcome }: Pick<WelcomeBody, 'welcome'>): StoredKeyPackage | undefined {
  const decoded = welcomeKeyPackageRefs(welcome);
  if (decoded.kind === 'rejected') return undefined;
  for (const ref of decoded.refs) {
    const keyPackage = change.store.keys.keyPackage(ref);
    if (keyPackage !== undefined && keyPackage.suite === decoded.cipherSuite) return keyPackage;
  }
  return undefined;
}

function conversationFor(
  change: Change,
  {
    channelId,
    channel,
    state,
    body,
    known,
    inviterAddress,
    rejoining,
  }: Omit<Candidate, 'inviter'> & {
    readonly inviterAddress: { readonly identityKey: Uint8Array } | undefined;
    readonly rejoining: boolean;
  },
): StoredConversation {
  const { engine } = change;
  const view = groupView(state);
  const info = channel.kind === 'group' ? decodeGroupInfo(body.metadata) : undefined;
  const keepName = known !== undefined && (info === undefined || known.nameVersion > info.version);
  const peerIdentity =
    channel.kind === 'direct' ? channel.admins.find((admin) => !equal(admin, engine.self.identityKey)) : undefined;
  const peerName = peerIdentity === undefined ? '' : certificateName(state, peerIdentity);
  return {
    channelId,
    kind: channel.kind,
    state: 'active',
    paused: undefined,
    name: channel.kind === 'direct' ? peerName : keepName ? known.name : (info?.name ?? ''),
    nameVersion: keepName ? known.nameVersion : (info?.version ?? 0n),
    peerIdentity,
    position: body.position,
    logHash: body.logHash,
    rosterHash: undefined,
    epochPosition: body.position,
    groupId: view.groupId,
    suite: view.cipherSuite,
    epoch: view.epoch,
    memberCount: 0,
    // A device's counter goes on through leaving and joining again, or its messages would look like a gap or a repeat.
    deviceCounter: known?.deviceCounter ?? 0n,
    previousHash: known?.previousHash,
    invitedBy: inviterAddress?.identityKey ?? known?.invitedBy,
    isNew: known === undefined ? true : known.isNew || (!rejoining && known.state !== 'awaiting-welcome'),
    createdAtMs: known?.createdAtMs ?? engine.nowMs(),
    lastMessageAtMs: known?.lastMessageAtMs,
  };
}

function certificateName(state: GroupState, identityKey: Uint8Array): string {
  for (const member of roster(state)) {
    const address = addressOf(member);
    if (address !== undefined && equal(address.identityKey, identityKey)) return usernameOf(member) ?? '';
  }
  return '';
}
