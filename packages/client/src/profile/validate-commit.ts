/**
 * The rules of our groups on top of RFC 9420 (PROTOCOL sections 2, 4, 5 and 9): the `validateCommit` hook of mls. Pure
 * and deterministic: it looks at the commit and the group before and after, at nothing else, so every member reaches the
 * same verdict. Whatever depends on clock, network or server is a local check and stands elsewhere (PROTOCOL section 2).
 *
 * Rules are numbered in the order in which they are checked; a test breaks each.
 */
import { compare, encodeHex, equal } from '@quicprochat/crypto';
import { addressesEqual, type DeviceAddress, encodeAddress } from '@quicprochat/core';
import {
  type CommitToValidate,
  type Extension,
  findExtension,
  type GroupView,
  type Member,
  ProtocolVersion,
  ResumptionPskUsage,
  type SentProposal,
  type Verdict,
} from '@quicprochat/mls';
import { decodeCommitAuthenticatedData } from './authenticated-data.ts';
import {
  type ChannelExtension,
  decodeChannelExtension,
  encodeChannelExtension,
  QpcExtensionType,
} from './channel-extension.ts';
import { addressOf, sameIdentity } from './member.ts';
import { isPostQuantum, SUITE_POST_QUANTUM } from './suites.ts';

/** Adds in one commit (PROTOCOL section 9). */
export const ADDS_MAX_CLASSICAL = 1_000;
export const ADDS_MAX_POST_QUANTUM = 200;
export const GROUP_ID_BYTES = 32;
const LEAF_LIFETIME_SECS_MAX = 90n * 86_400n;

export function validateCommit(commit: CommitToValidate): Verdict {
  const channel = channelOf(commit.before);
  if (channel === undefined) return reject('P00', 'the group has no qpc.channel');
  const committer = addressAt(commit.before, commit.committer);
  // Whatever the group's extensions or another hook would allow, and also in the place of somebody's former leaf.
  if (commit.external) return reject('P01', 'nobody comes in by a commit of their own');
  if (committer === undefined) return reject('P01', 'the committer is not a member of ours');
  if (opensSuccessor(commit)) {
    return checkExtensions(commit, channel) ?? checkMembersAfter(commit) ?? { kind: 'accept' };
  }
  const actor: Actor = { address: committer, isAdmin: isAdmin(channel, committer) };
  return (
    checkAuthenticatedData(commit, channel) ??
    checkProposals(commit, channel, actor) ??
    checkExtensions(commit, channel) ??
    checkMembersAfter(commit) ??
    checkReInit(commit, channel, actor) ?? { kind: 'accept' }
  );
}

/**
 * The first commit of a group that a ReInit opens. Its maker is alone in epoch 0 and nobody else ever processes it: the
 * others join by its Welcome, and look at what it made (join-group.ts).
 */
function opensSuccessor({ before, proposals }: CommitToValidate): boolean {
  return (
    before.epoch === 0n &&
    before.members().length === 1 &&
    proposals.some(
      ({ proposal }) =>
        proposal.kind === 'preSharedKey' &&
        proposal.psk.kind === 'resumption' &&
        proposal.psk.usage === ResumptionPskUsage.ReInit,
    )
  );
}

interface Actor {
  readonly address: DeviceAddress;
  readonly isAdmin: boolean;
}

/** P02–P05: authenticated_data names this channel, and renews the salt exactly when a classical group loses a leaf. */
function checkAuthenticatedData(commit: CommitToValidate, channel: ChannelExtension): Verdict | undefined {
  const data = decodeCommitAuthenticatedData(commit.authenticatedData);
  if (data === undefined) return reject('P02', 'authenticated_data is malformed');
  if (!equal(data.channelId, channel.channelId)) return reject('P03', 'authenticated_data names another channel');
  const renews =
    !isPostQuantum(commit.before.cipherSuite) && commit.proposals.some(({ proposal }) => proposal.kind === 'remove');
  if (renews && data.pqCommitment === undefined) {
    return reject('P04', 'a commit that removes a member does not renew the post-quantum salt');
  }
  if (!renews && data.pqCommitment !== undefined) {
    return reject('P05', 'a commit renews the post-quantum salt without removing a member');
  }
  return undefined;
}

/** P06–P14: who proposed may propose it, and who commits may commit it. */
function checkProposals(commit: CommitToValidate, channel: ChannelExtension, committer: Actor): Verdict | undefined {
  let adds = 0;
  for (const sent of commit.proposals) {
    const proposer = proposerOf(commit, channel, sent);
    if (proposer === undefined) return reject('P06', 'a proposal does not come from a member');
    const { proposal } = sent;
    switch (proposal.kind) {
      case 'add': {
        adds += 1;
        const added = addressOf(proposal.keyPackage.leafNode);
        if (added === undefined) return reject('P07', 'an added credential is not one of ours');
        if (channel.kind === 'direct' && !channel.admins.some((admin) => equal(admin, added.identityKey))) {
          return reject('P08', 'somebody else is added to a direct conversation');
        }
        if (!mayChange(proposer, added) || !mayChange(committer, added)) {
          return reject('P09', 'only an administrator adds other people');
        }
        break;
      }
      case 'remove': {
        const removed = addressAt(commit.before, proposal.removed);
        if (removed === undefined) return reject('P10', 'a removed leaf is not a member of ours');
        if (!mayChange(proposer, removed) || !mayChange(committer, removed)) {
          return reject('P11', 'only an administrator removes other people');
        }
        break;
      }
      case 'groupContextExtensions':
        if (!proposer.isAdmin || !committer.isAdmin) {
          return reject('P12', 'only an administrator changes the extensions of the group');
        }
        break;
      case 'update':
      case 'reInit':
        break;
      case 'preSharedKey':
      case 'externalInit':
      case 'custom':
        return reject('P13', `proposals of kind ${proposal.kind} are not used in our groups`);
    }
  }
  const addsMax = isPostQuantum(commit.before.cipherSuite) ? ADDS_MAX_POST_QUANTUM : ADDS_MAX_CLASSICAL;
  return adds > addsMax ? reject('P14', `more than ${addsMax} members are added at once`) : undefined;
}

/** P15–P20: qpc.channel stays what it is but for its roles, and nothing else in the GroupContext changes. */
function checkExtensions(commit: CommitToValidate, before: ChannelExtension): Verdict | undefined {
  const after = channelOf(commit.after);
  if (after === undefined) return reject('P15', 'the commit takes qpc.channel away');
  if (
    !equal(after.channelId, before.channelId) ||
    after.kind !== before.kind ||
    after.hub !== before.hub ||
    !equal(after.predecessor, before.predecessor)
  ) {
    return reject('P16', 'the commit changes the channel of the group');
  }
  if (!sameExtensionsBesideChannel(commit.before.extensions, commit.after.extensions)) {
    return reject('P17', 'the commit changes other extensions of the group');
  }
  const adminsChanged =
    after.admins.length !== before.admins.length || after.admins.some((admin, i) => !equal(admin, before.admins[i]!));
  if (after.kind === 'direct' && adminsChanged) {
    return reject('P18', 'the roles of a direct conversation do not change');
  }
  const present = new Set(
    commit.after.members().map((member) => {
      const address = addressOf(member);
      return address === undefined ? '' : encodeHex(address.identityKey);
    }),
  );
  // A role given to somebody outside would be one nobody can use or take back.
  if (adminsChanged && after.admins.some((admin) => !present.has(encodeHex(admin)))) {
    return reject('P19', 'an administrator is not a member');
  }
  if (after.kind === 'group' && !after.admins.some((admin) => present.has(encodeHex(admin)))) {
    return reject('P20', 'the group would be left without an administrator');
  }
  return undefined;
}

/** P21–P25: every device once, each leaf the successor of its own, lifetimes bounded. */
function checkMembersAfter(commit: CommitToValidate): Verdict | undefined {
  const seen = new Set<string>();
  const replaced = new Set<number>();
  for (const { proposal } of commit.proposals) if (proposal.kind === 'remove') replaced.add(proposal.removed);
  for (const member of commit.after.members()) {
    const address = addressOf(member);
    if (address === undefined) return reject('P21', 'a credential is not one of ours');
    const key = encodeHex(encodeAddress(address));
    if (seen.has(key)) return reject('P22', 'one device would be in the group twice');
    seen.add(key);
    const before = replaced.has(member.leafIndex) ? undefined : addressAt(commit.before, member.leafIndex);
    if (before !== undefined && !addressesEqual(before, address)) {
      return reject('P23', 'an update changes the identity or the device of a leaf');
    }
    if (!lifetimeAllowed(member)) return reject('P24', 'the lifetime of a leaf is longer than 90 days');
    if (findExtension(member.extensions, QpcExtensionType.DeviceCertificate) === undefined) {
      return reject('P25', 'a leaf carries no device certificate');
    }
  }
  return undefined;
}

/** P26–P28: an administrator moves a classical group into the post-quantum suite, on the same channel, as it is. */
function checkReInit(commit: CommitToValidate, channel: ChannelExtension, committer: Actor): Verdict | undefined {
  const { before } = commit;
  for (const sent of commit.proposals) {
    const { proposal } = sent;
    if (proposal.kind !== 'reInit') continue;
    if (!committer.isAdmin || proposerOf(commit, channel, sent)?.isAdmin !== true) {
      return reject('P26', 'only an administrator moves the group into another suite');
    }
    // Never downwards: a group that was protected must not lose that by anybody's commit.
    if (
      proposal.version !== ProtocolVersion.Mls10 ||
      proposal.cipherSuite !== SUITE_POST_QUANTUM ||
      isPostQuantum(before.cipherSuite)
    ) {
      return reject('P27', 'a group moves from a classical suite into the post-quantum one only');
    }
    if (proposal.groupId.length !== GROUP_ID_BYTES || equal(proposal.groupId, before.groupId)) {
      return reject('P28', 'the new group has no id of its own');
    }
    const expected = successorExtensions(before);
    if (
      expected === undefined ||
      proposal.extensions.length !== expected.length ||
      !proposal.extensions.every((extension, i) => sameExtension(extension, expected[i]!))
    ) {
      return reject('P28', 'the new group is not the successor of this one');
    }
  }
  return undefined;
}

/** The GroupContext extensions of the group after a ReInit: those of this one, which is named as its predecessor. */
export function successorExtensions(before: Pick<GroupView, 'extensions' | 'groupId'>): Extension[] | undefined {
  const channel = channelOf(before);
  if (channel === undefined) return undefined;
  const extensionData = encodeChannelExtension({ ...channel, predecessor: before.groupId });
  return before.extensions.map((extension) =>
    extension.extensionType === QpcExtensionType.Channel ? { ...extension, extensionData } : extension,
  );
}

/** The qpc.channel of a group, or undefined when it has none or a malformed one. */
export function channelOf(view: Pick<GroupView, 'extensions'>): ChannelExtension | undefined {
  const bytes = findExtension(view.extensions, QpcExtensionType.Channel);
  return bytes === undefined ? undefined : decodeChannelExtension(bytes);
}

export function isAdmin(channel: ChannelExtension, address: DeviceAddress): boolean {
  return channel.admins.some((admin) => equal(admin, address.identityKey));
}

/** Whether a leaf's lifetime is bounded as section 9 says; leaves made by Update or commit have none. */
export function lifetimeAllowed(member: Pick<Member, 'source'>): boolean {
  if (member.source.kind !== 'keyPackage') return true;
  const { notBefore, notAfter } = member.source.lifetime;
  return notAfter > notBefore && notAfter - notBefore <= LEAF_LIFETIME_SECS_MAX;
}

function proposerOf(commit: CommitToValidate, channel: ChannelExtension, sent: SentProposal): Actor | undefined {
  if (sent.sender.kind !== 'member') return undefined;
  const address = addressAt(commit.before, sent.sender.leafIndex);
  return address === undefined ? undefined : { address, isAdmin: isAdmin(channel, address) };
}

function mayChange(actor: Actor, target: DeviceAddress): boolean {
  return actor.isAdmin || sameIdentity(actor.address, target);
}

function addressAt(view: GroupView, leafIndex: number): DeviceAddress | undefined {
  const member = view.member(leafIndex);
  return member === undefined ? undefined : addressOf(member);
}

function sameExtensionsBesideChannel(before: readonly Extension[], after: readonly Extension[]): boolean {
  const others = (extensions: readonly Extension[]): readonly Extension[] =>
    extensions
      .filter((extension) => extension.extensionType !== QpcExtensionType.Channel)
      .sort((a, b) => a.extensionType - b.extensionType || compare(a.extensionData, b.extensionData));
  const a = others(before);
  const b = others(after);
  return a.length === b.length && a.every((extension, i) => sameExtension(extension, b[i]!));
}

function sameExtension(a: Extension, b: Extension): boolean {
  return a.extensionType === b.extensionType && equal(a.extensionData, b.extensionData);
}

function reject(rule: string, reason: string): Verdict {
  return { kind: 'reject', reason: `${rule}: ${reason}` };
}
