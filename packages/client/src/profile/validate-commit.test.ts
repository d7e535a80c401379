// One story per rule of our groups: a commit that is fine, and then exactly one thing wrong with it (THREATS 1, 3, 34).
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeCredentialIdentity } from '@quicprochat/core';
import {
  type CommitToValidate,
  CredentialType,
  type Extension,
  type GroupView,
  type LeafIndex,
  type LeafNodeSource,
  type Member,
  type Proposal,
  ResumptionPskUsage,
  type SentProposal,
} from '@quicprochat/mls';
import { encodeCommitAuthenticatedData } from './authenticated-data.ts';
import { type ChannelExtension, encodeChannelExtension, QpcExtensionType } from './channel-extension.ts';
import { REQUIRED_CAPABILITIES } from './group-parameters.ts';
import { SUITE_CLASSICAL, SUITE_POST_QUANTUM } from './suites.ts';
import { ADDS_MAX_CLASSICAL, successorExtensions, validateCommit } from './validate-commit.ts';

const CHANNEL_ID = new Uint8Array(16).fill(7);
const HASH = new Uint8Array(32).fill(9);
const COMMITMENT = new Uint8Array(32).fill(5);
const [alice, bob, carol, dave] = [1, 2, 3, 4].map((n) => new Uint8Array(32).fill(n)) as [
  Uint8Array,
  Uint8Array,
  Uint8Array,
  Uint8Array,
];

const UPDATED: LeafNodeSource = { kind: 'update' };

function leaf(identity: Uint8Array, device = 1, source: LeafNodeSource = UPDATED): Omit<Member, 'leafIndex'> {
  return {
    credential: {
      credentialType: CredentialType.Basic,
      identity: encodeCredentialIdentity({ identityKey: identity, deviceId: new Uint8Array(16).fill(device) }),
    },
    signatureKey: new Uint8Array(32),
    encryptionKey: new Uint8Array(32),
    extensions: [{ extensionType: QpcExtensionType.DeviceCertificate, extensionData: new Uint8Array(1) }],
    capabilities: { versions: [], cipherSuites: [], extensions: [], proposals: [], credentials: [] },
    source,
  };
}

type Leaves = readonly (Omit<Member, 'leafIndex'> | undefined)[];

interface Shape {
  leaves?: Leaves;
  channel?: Partial<ChannelExtension>;
  extensions?: readonly Extension[];
  suite?: number;
  epoch?: bigint;
}

function view({
  leaves = [leaf(alice), leaf(bob), leaf(carol)],
  channel = {},
  extensions,
  suite,
  epoch = 3n,
}: Shape): GroupView {
  const members = leaves.flatMap((one, i) => (one === undefined ? [] : [{ ...one, leafIndex: i as LeafIndex }]));
  const channelExtension: ChannelExtension = {
    channelId: CHANNEL_ID,
    kind: 'group',
    hub: '',
    admins: [alice],
    predecessor: new Uint8Array(0),
    ...channel,
  };
  return {
    groupId: HASH,
    epoch,
    cipherSuite: suite ?? SUITE_CLASSICAL,
    extensions: extensions ?? [
      REQUIRED_CAPABILITIES,
      { extensionType: QpcExtensionType.Channel, extensionData: encodeChannelExtension(channelExtension) },
    ],
    member: (index) => members.find((member) => member.leafIndex === index),
    members: () => members,
  };
}

function sent(proposal: Proposal, sender?: number): SentProposal {
  return {
    proposal,
    sender: { kind: 'member', leafIndex: (sender ?? 0) as LeafIndex },
    byReference: sender !== undefined,
  };
}

function add(identity: Uint8Array, device = 1): Proposal {
  const { credential } = leaf(identity, device);
  return { kind: 'add', keyPackage: { leafNode: { credential } } } as unknown as Proposal;
}

const remove = (index: number): Proposal => ({ kind: 'remove', removed: index as LeafIndex });
const resumption = {
  kind: 'preSharedKey',
  psk: {
    kind: 'resumption',
    usage: ResumptionPskUsage.ReInit,
    pskGroupId: HASH,
    pskEpoch: 3n,
    pskNonce: new Uint8Array(32),
  },
} as const;
const changeExtensions: Proposal = { kind: 'groupContextExtensions', extensions: [] };

interface Attempt {
  before?: Shape;
  after?: Shape;
  proposals?: readonly SentProposal[];
  committer?: number;
  external?: boolean;
  authenticatedData?: Uint8Array;
  pqCommitment?: Uint8Array | undefined;
  channelId?: Uint8Array;
}

function verdict(attempt: Attempt): string {
  const before = view(attempt.before ?? {});
  const proposals = attempt.proposals ?? [];
  const removes = proposals.some(({ proposal }) => proposal.kind === 'remove');
  const commit: CommitToValidate = {
    before,
    after: view({ ...attempt.before, ...attempt.after }),
    proposals,
    committer: (attempt.committer ?? 0) as LeafIndex,
    external: attempt.external ?? false,
    authenticatedData:
      attempt.authenticatedData ??
      encodeCommitAuthenticatedData({
        channelId: attempt.channelId ?? CHANNEL_ID,
        logHash: HASH,
        pqCommitment: 'pqCommitment' in attempt ? attempt.pqCommitment : removes ? COMMITMENT : undefined,
        checkpoint: new Uint8Array(0),
      }),
  };
  const outcome = validateCommit(commit);
  return outcome.kind === 'accept' ? 'accept' : outcome.reason.slice(0, 3);
}

const withDave: Leaves = [leaf(alice), leaf(bob), leaf(carol), leaf(dave)];
const withoutCarol: Leaves = [leaf(alice), leaf(bob), undefined];

test('what members may do is accepted', () => {
  assert.equal(verdict({}), 'accept');
  assert.equal(verdict({ committer: 1 }), 'accept');
  assert.equal(verdict({ proposals: [sent(add(dave))], after: { leaves: withDave } }), 'accept');
  assert.equal(verdict({ proposals: [sent(remove(2))], after: { leaves: withoutCarol } }), 'accept');
  // Carol asks to leave, Alice commits it.
  assert.equal(verdict({ proposals: [sent(remove(2), 2)], after: { leaves: withoutCarol } }), 'accept');
  // Bob adds and removes a device of his own.
  const bobTwice: Leaves = [leaf(alice), leaf(bob), leaf(carol), leaf(bob, 2)];
  const bobAdds = { proposal: add(bob, 2), sender: { kind: 'member' as const, leafIndex: 1 as LeafIndex } };
  assert.equal(
    verdict({ proposals: [{ ...bobAdds, byReference: false }], committer: 1, after: { leaves: bobTwice } }),
    'accept',
  );
  assert.equal(
    verdict({
      before: { leaves: bobTwice },
      proposals: [sent(remove(3), 1)],
      committer: 1,
      after: { leaves: view({}).members() },
    }),
    'accept',
  );
  // Remove and Add of one device in one commit: a rejoin, on the very same leaf.
  const again: Leaves = [leaf(alice), leaf(bob), leaf(carol)];
  assert.equal(verdict({ proposals: [sent(remove(2)), sent(add(carol))], after: { leaves: again } }), 'accept');
  // Alice makes Bob an administrator.
  assert.equal(
    verdict({ proposals: [sent(changeExtensions)], after: { channel: { admins: [alice, bob] } } }),
    'accept',
  );
});

test('P00, P01: a group without qpc.channel, a committer that is none of ours', () => {
  assert.equal(verdict({ before: { extensions: [] } }), 'P00');
  assert.equal(verdict({ committer: 9 }), 'P01');
  // Even in the place of a member: somebody who joins again from outside.
  assert.equal(verdict({ committer: 2, external: true }), 'P01');
});

test('P02–P05: authenticated_data', () => {
  const fine = encodeCommitAuthenticatedData({
    channelId: CHANNEL_ID,
    logHash: HASH,
    pqCommitment: undefined,
    checkpoint: new Uint8Array(3),
  });
  assert.equal(verdict({ authenticatedData: fine }), 'accept');
  assert.equal(verdict({ authenticatedData: new Uint8Array(0) }), 'P02');
  assert.equal(verdict({ authenticatedData: fine.slice(0, -1) }), 'P02');
  assert.equal(verdict({ authenticatedData: new Uint8Array([2, ...fine.slice(1)]) }), 'P02');
  assert.equal(verdict({ channelId: HASH.slice(0, 16) }), 'P03');
  const removal: Attempt = { proposals: [sent(remove(2))], after: { leaves: withoutCarol } };
  assert.equal(verdict({ ...removal, pqCommitment: undefined }), 'P04');
  assert.equal(verdict({ pqCommitment: COMMITMENT }), 'P05');
  // A post-quantum suite needs no salt, so it renews none.
  assert.equal(verdict({ ...removal, before: { suite: 0xf001 }, pqCommitment: undefined }), 'accept');
  assert.equal(verdict({ ...removal, before: { suite: 0xf001 } }), 'P05');
});

test('P06: proposals come from members only', () => {
  const external: SentProposal = {
    proposal: add(dave),
    sender: { kind: 'external', senderIndex: 0 },
    byReference: true,
  };
  assert.equal(verdict({ proposals: [external], after: { leaves: withDave } }), 'P06');
  assert.equal(verdict({ proposals: [sent(add(dave), 8)], after: { leaves: withDave } }), 'P06');
});

test('P07–P09: who may add whom', () => {
  const foreign = { kind: 'add', keyPackage: { leafNode: { credential: { credentialType: 2, certificates: [] } } } };
  assert.equal(verdict({ proposals: [sent(foreign as unknown as Proposal)], after: { leaves: withDave } }), 'P07');
  const direct: Shape = { leaves: [leaf(alice), leaf(bob)], channel: { kind: 'direct', admins: [alice, bob] } };
  const three: Leaves = [leaf(alice), leaf(bob), leaf(dave)];
  assert.equal(verdict({ before: direct, proposals: [sent(add(dave))], after: { leaves: three } }), 'P08');
  // Bob is no administrator, whether he commits himself or has Alice commit his proposal.
  const byBob = { ...sent(add(dave), 1), byReference: false };
  assert.equal(verdict({ proposals: [byBob], committer: 1, after: { leaves: withDave } }), 'P09');
  assert.equal(verdict({ proposals: [sent(add(dave), 1)], after: { leaves: withDave } }), 'P09');
});

test('P10, P11: who may remove whom', () => {
  assert.equal(verdict({ proposals: [sent(remove(7))] }), 'P10');
  const byBob = { ...sent(remove(2), 1), byReference: false };
  assert.equal(verdict({ proposals: [byBob], committer: 1, after: { leaves: withoutCarol } }), 'P11');
  assert.equal(verdict({ proposals: [sent(remove(2), 1)], after: { leaves: withoutCarol } }), 'P11');
  // Carol asks to leave; Bob may not take her off the roster.
  assert.equal(verdict({ proposals: [sent(remove(2), 2)], committer: 1, after: { leaves: withoutCarol } }), 'P11');
});

test('P12, P13: proposals that need an administrator, proposals we never use', () => {
  const byBob = { ...sent(changeExtensions, 1), byReference: false };
  assert.equal(verdict({ proposals: [byBob], committer: 1 }), 'P12');
  assert.equal(verdict({ proposals: [sent(changeExtensions, 1)] }), 'P12');
  for (const kind of ['externalInit', 'custom']) {
    assert.equal(verdict({ proposals: [sent({ kind } as unknown as Proposal)] }), 'P13');
  }
  // The PSK that opens a successor is for an epoch 0 of its maker alone, never for a commit others get to see.
  assert.equal(verdict({ proposals: [sent(resumption)] }), 'P13');
  assert.equal(verdict({ before: { epoch: 0n }, proposals: [sent(resumption)] }), 'P13');
  const alone: Shape = { epoch: 0n, leaves: [leaf(alice)] };
  assert.equal(verdict({ before: alone, proposals: [sent(resumption)] }), 'accept');
  const asPsk = { ...resumption, psk: { ...resumption.psk, usage: ResumptionPskUsage.Application } } as Proposal;
  assert.equal(verdict({ before: alone, proposals: [sent(asPsk)] }), 'P13');
});

test('P14: not everybody at once', () => {
  const proposals = Array.from({ length: ADDS_MAX_CLASSICAL + 1 }, () => sent(add(dave)));
  assert.equal(verdict({ proposals, after: { leaves: withDave } }), 'P14');
  assert.equal(
    verdict({ before: { suite: 0xf001 }, proposals: proposals.slice(0, 201), after: { leaves: withDave } }),
    'P14',
  );
});

test('P15–P20: what the extensions of the group may become', () => {
  const proposals = [sent(changeExtensions)];
  assert.equal(verdict({ proposals, after: { extensions: [REQUIRED_CAPABILITIES] } }), 'P15');
  assert.equal(verdict({ proposals, after: { channel: { channelId: HASH.slice(0, 16) } } }), 'P16');
  assert.equal(verdict({ proposals, after: { channel: { kind: 'direct' } } }), 'P16');
  assert.equal(verdict({ proposals, after: { channel: { hub: 'elsewhere' } } }), 'P16');
  assert.equal(verdict({ proposals, after: { channel: { predecessor: HASH } } }), 'P16');
  const channelOnly = view({}).extensions.filter((extension) => extension.extensionType === QpcExtensionType.Channel);
  assert.equal(verdict({ proposals, after: { extensions: channelOnly } }), 'P17');
  const direct: Shape = { leaves: [leaf(alice), leaf(bob)], channel: { kind: 'direct', admins: [alice, bob] } };
  assert.equal(verdict({ before: direct, proposals, after: { channel: { kind: 'direct', admins: [alice] } } }), 'P18');
  assert.equal(verdict({ proposals, after: { channel: { admins: [alice, dave] } } }), 'P19');
  assert.equal(verdict({ proposals, after: { channel: { admins: [] } } }), 'P20');
  assert.equal(
    verdict({ proposals: [sent(remove(0), 0)], after: { leaves: [undefined, leaf(bob), leaf(carol)] } }),
    'P20',
  );
});

test('P21–P25: who is in the group afterwards', () => {
  const foreign = { ...leaf(bob), credential: { credentialType: 1 as const, identity: new Uint8Array(3) } };
  assert.equal(verdict({ after: { leaves: [leaf(alice), foreign, leaf(carol)] } }), 'P21');
  const twice: Leaves = [leaf(alice), leaf(bob), leaf(carol), leaf(carol)];
  assert.equal(verdict({ proposals: [sent(add(carol))], after: { leaves: twice } }), 'P22');
  assert.equal(verdict({ after: { leaves: [leaf(alice), leaf(dave), leaf(carol)] } }), 'P23');
  assert.equal(verdict({ after: { leaves: [leaf(alice), leaf(bob, 2), leaf(carol)] } }), 'P23');
  const eternal = leaf(dave, 1, { kind: 'keyPackage', lifetime: { notBefore: 0n, notAfter: 91n * 86_400n } });
  const proposals = [sent(add(dave))];
  assert.equal(verdict({ proposals, after: { leaves: [leaf(alice), leaf(bob), leaf(carol), eternal] } }), 'P24');
  const bare = { ...leaf(dave), extensions: [] };
  assert.equal(verdict({ proposals, after: { leaves: [leaf(alice), leaf(bob), leaf(carol), bare] } }), 'P25');
});

test('P26–P28: who may move a group, where to, and as what (THREATS 31)', () => {
  const extensions = successorExtensions(view({}))!;
  const reInit = (changes: object = {}): Proposal =>
    ({
      kind: 'reInit',
      groupId: new Uint8Array(32).fill(1),
      version: 1,
      cipherSuite: SUITE_POST_QUANTUM,
      extensions,
      ...changes,
    }) as Proposal;
  assert.equal(verdict({ proposals: [sent(reInit())] }), 'accept');
  const byBob = { ...sent(reInit(), 1), byReference: false };
  assert.equal(verdict({ proposals: [byBob], committer: 1 }), 'P26');
  assert.equal(verdict({ proposals: [sent(reInit(), 1)] }), 'P26');
  assert.equal(verdict({ proposals: [sent(reInit())], committer: 1 }), 'P26');

  assert.equal(verdict({ proposals: [sent(reInit({ cipherSuite: SUITE_CLASSICAL }))] }), 'P27');
  assert.equal(verdict({ proposals: [sent(reInit({ cipherSuite: 0xf0ff }))] }), 'P27');
  assert.equal(verdict({ proposals: [sent(reInit({ version: 2 }))] }), 'P27');
  for (const cipherSuite of [SUITE_CLASSICAL, SUITE_POST_QUANTUM]) {
    const before = { suite: SUITE_POST_QUANTUM };
    assert.equal(verdict({ before, proposals: [sent(reInit({ cipherSuite }))] }), 'P27');
  }

  assert.equal(verdict({ proposals: [sent(reInit({ groupId: HASH }))] }), 'P28');
  assert.equal(verdict({ proposals: [sent(reInit({ groupId: new Uint8Array(31) }))] }), 'P28');
  const others: readonly Shape[] = [
    { channel: { admins: [alice, bob] } },
    { channel: { channelId: HASH.slice(0, 16) } },
    { channel: { kind: 'direct' } },
    { channel: { hub: 'elsewhere' } },
  ];
  for (const shape of others) {
    assert.equal(verdict({ proposals: [sent(reInit({ extensions: successorExtensions(view(shape)) }))] }), 'P28');
  }
  assert.equal(verdict({ proposals: [sent(reInit({ extensions: view({}).extensions }))] }), 'P28', 'no predecessor');
  assert.equal(verdict({ proposals: [sent(reInit({ extensions: [] }))] }), 'P28');
  assert.equal(verdict({ proposals: [sent(reInit({ extensions: [...extensions].reverse() }))] }), 'P28');
});
