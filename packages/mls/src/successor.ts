/**
 * Groups that continue another one: the group a ReInit announced (RFC 9420 section 11.2), in any cipher suite, and a
 * branch with some of the members (section 11.3). Both are new groups whose first commit, to epoch 1, adds everybody and
 * binds the old group's resumption PSK; both sides keep the conditions of section 12.4.3.1.
 */
import { encodeHex, equal } from '@quicprochat/crypto';
import { suiteOf } from './cipher-suites.ts';
import { makeCommit, mergePendingCommit } from './commit.ts';
import { encode } from './codec.ts';
import { demand, MlsUsageError, refusable, violated } from './errors.ts';
import { type GroupState, memberOf, type PublicGroup, viewOf } from './group-state.ts';
import { createGroup } from './group.ts';
import { type CommittedProposal, ownResumptionPsk } from './proposals.ts';
import type { RatchetTree } from './ratchet-tree.ts';
import { writeCredential, writeExtensions } from './structures.ts';
import {
  type BranchParameters,
  type Extension,
  type GroupContext,
  type LeafIndex,
  type Member,
  type MlsContext,
  type PreSharedKeyId,
  ProtocolVersion,
  type ReInit,
  ResumptionPskUsage,
  type SuccessorOutcome,
  type SuccessorParameters,
} from './types.ts';
import { wipeGroup } from './wipe.ts';

/** What the ReInit said that closed this group; undefined as long as it is open. */
export function reInitOf(state: GroupState): ReInit | undefined {
  return state.core.reInit;
}

/**
 * The group that a ReInit announced. Any member may make it; all members of the old group must come along.
 * @throws MlsUsageError when the old group was not closed by a ReInit, or its version or suite is not ours
 */
export function createReinitializedGroup(
  context: MlsContext,
  previous: GroupState,
  parameters: SuccessorParameters,
): SuccessorOutcome {
  const { reInit } = previous.core;
  if (reInit === undefined) throw new MlsUsageError('this group was not closed by a ReInit');
  if (reInit.version !== ProtocolVersion.Mls10) throw new MlsUsageError(`unknown protocol version ${reInit.version}`);
  return createSuccessor(context, previous, reInit, ResumptionPskUsage.ReInit, parameters);
}

/** A group of some members of this one, under the same version and suite. @throws MlsUsageError when we were removed */
export function createBranch(context: MlsContext, parent: GroupState, parameters: BranchParameters): SuccessorOutcome {
  if (parent.core.status !== 'active') throw new MlsUsageError(`this group is ${parent.core.status}`);
  const { version, cipherSuite } = parent.core.context;
  const { groupId, extensions = [] } = parameters;
  return createSuccessor(
    context,
    parent,
    { groupId, version, cipherSuite, extensions },
    ResumptionPskUsage.Branch,
    parameters,
  );
}

function createSuccessor(
  context: MlsContext,
  previous: GroupState,
  { groupId, cipherSuite, extensions }: ReInit,
  usage: number,
  parameters: SuccessorParameters,
): SuccessorOutcome {
  const { keyPackages, ratchetTreeInWelcome, ...creator } = parameters;
  const suite = suiteOf(context.crypto, cipherSuite);
  if (keyPackages.length === 0) throw new MlsUsageError('a group continues with more than one member');
  const first = createGroup(context, { ...creator, cipherSuite, groupId, extensions });
  const { context: old, secrets } = previous.core;
  const psk: CommittedProposal = {
    proposal: {
      kind: 'preSharedKey',
      psk: {
        kind: 'resumption',
        usage,
        pskGroupId: old.groupId,
        pskEpoch: old.epoch,
        pskNonce: context.random(suite.hashLength),
      },
    },
    sender: { kind: 'member', leafIndex: first.core.ownLeaf },
    cached: undefined,
    successorPsk: secrets.resumptionPsk,
  };
  return refusable((): SuccessorOutcome => {
    const members = [
      ...viewOf(first.core.context, first.tree).members(),
      ...keyPackages.map((keyPackage, i) => memberOf((i + 1) as LeafIndex, keyPackage.leafNode)),
    ];
    demandMembers(context, previous, usage, members);
    const made = makeCommit(
      context,
      first,
      {
        proposals: keyPackages.map((keyPackage) => ({ kind: 'add', keyPackage })),
        ...(ratchetTreeInWelcome !== undefined && { ratchetTreeInWelcome }),
      },
      psk,
    );
    const state = withoutPast(mergePendingCommit(context, made.state, made.pending));
    for (const old of [first, made.state]) {
      // The new state signs with the same key.
      wipeGroup(context, { ...old, core: { ...old.core, signaturePrivateKey: new Uint8Array() } });
    }
    return { kind: 'created', state, welcome: made.welcome!, ratchetTree: made.ratchetTree };
  });
}

/** Nobody but us was in epoch 0. */
function withoutPast(state: GroupState): GroupState {
  return { ...state, core: { ...state.core, resumptionPsks: [] }, pastEpochs: [] };
}

// ---- Joining --------------------------------------------------------------------------------------------------------

export interface SuccessorPsk {
  readonly id: Extract<PreSharedKeyId, { kind: 'resumption' }>;
  readonly psk: Uint8Array;
}

/** The PSK by which a Welcome continues `previous`; it must be there if and only if we continue a group. */
export function findSuccessorPsk(
  previous: GroupState | undefined,
  ids: readonly PreSharedKeyId[],
): SuccessorPsk | undefined {
  const found: Extract<PreSharedKeyId, { kind: 'resumption' }>[] = [];
  for (const id of ids) {
    if (id.kind === 'resumption' && id.usage !== ResumptionPskUsage.Application) found.push(id);
  }
  if (previous === undefined) {
    demand(found.length === 0, 'welcomePsks');
    return undefined;
  }
  const [id] = found;
  if (found.length !== 1 || id === undefined) return violated('welcomePsks');
  demand(id.usage === ResumptionPskUsage.ReInit || id.usage === ResumptionPskUsage.Branch, 'welcomePsks');
  demand(equal(id.pskGroupId, previous.core.context.groupId), 'welcomePsks');
  return { id, psk: ownResumptionPsk(previous, id.pskEpoch) ?? violated('pskAvailable') };
}

/** The last conditions of section 12.4.3.1. */
export function checkSuccessor(
  context: MlsContext,
  previous: GroupState,
  { id }: SuccessorPsk,
  group: { readonly groupContext: GroupContext; readonly tree: RatchetTree },
): void {
  const { core } = previous;
  const { groupContext } = group;
  if (id.usage === ResumptionPskUsage.ReInit) {
    const { reInit } = core;
    demand(
      reInit !== undefined &&
        id.pskEpoch === core.context.epoch &&
        groupContext.epoch === 1n &&
        equal(groupContext.groupId, reInit.groupId) &&
        groupContext.version === reInit.version &&
        groupContext.cipherSuite === reInit.cipherSuite &&
        equal(encodeExtensions(groupContext.extensions), encodeExtensions(reInit.extensions)),
      'reInitContinues',
    );
  } else {
    demand(
      groupContext.epoch === 1n &&
        groupContext.version === core.context.version &&
        groupContext.cipherSuite === core.context.cipherSuite,
      'branchContinues',
    );
  }
  demandMembers(context, previous, id.usage, viewOf(groupContext, group.tree).members());
}

/** A ReInit takes all old members along; a branch has nobody else. */
function demandMembers(context: MlsContext, previous: PublicGroup, usage: number, members: readonly Member[]): void {
  const old = viewOf(previous.core.context, previous.tree).members();
  if (usage === ResumptionPskUsage.ReInit) demandEach(context, old, members, 'reInitContinues');
  else demandEach(context, members, old, 'branchContinues');
}

/** Each of `some` is among `all`. */
function demandEach(
  context: MlsContext,
  some: readonly Member[],
  all: readonly Member[],
  rule: 'reInitContinues' | 'branchContinues',
): void {
  const known = context.hooks?.sameClient === undefined ? new Set(all.map(credentialText)) : undefined;
  for (const member of some) {
    const found = known?.has(credentialText(member)) ?? all.some((each) => isSameClient(context, each, member));
    demand(found, rule, 'members');
  }
}

export function isSameClient(context: MlsContext, one: Member, other: Member): boolean {
  return context.hooks?.sameClient?.(one, other) ?? credentialText(one) === credentialText(other);
}

function credentialText({ credential }: Member): string {
  return encodeHex(encode(writeCredential, credential));
}

function encodeExtensions(extensions: readonly Extension[]): Uint8Array {
  return encode(writeExtensions, extensions);
}
