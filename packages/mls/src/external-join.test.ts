/** Coming in from outside: external commits, resync, a new member's own Add, external senders (RFC 9420 section 12.1.8). */
import assert from 'node:assert/strict';
import { suite as describe, test } from 'node:test';
import { encodeUtf8 } from '@quicprochat/crypto';
import {
  CipherSuiteId,
  createExternalProposal,
  createGroupInfo,
  createNewMemberProposal,
  encodeExternalJoins,
  encodeExternalSenders,
  exportRatchetTree,
  type Extension,
  ExtensionType,
  type ExternalCommitParameters,
  generateSignatureKeyPair,
  type GroupState,
  groupContext,
  groupRows,
  joinByExternalCommit,
  memoryRows,
  ownLeafIndex,
  pendingProposals,
  protectApplication,
  restoreGroup,
  roster,
} from './index.ts';
import {
  assertAgree,
  assertRefused,
  commit,
  credential,
  groupOf,
  joined,
  keyPackageOf,
  makeWorld,
  merged,
  type Person,
  person,
  processed,
  show,
  verified,
  type World,
} from './testing/world.node.ts';

const capabilities = { extensions: [ExtensionType.ExternalJoins] };
const doorOpen: Extension = {
  extensionType: ExtensionType.ExternalJoins,
  extensionData: encodeExternalJoins({ commits: true, proposals: true }),
};

function openGroup(world: World, names: readonly string[], suite: number, extensions = [doorOpen]) {
  const { context } = world;
  const people = names.map((name) => person(world, name, suite));
  const first = groupOf(world, people[0]!, { cipherSuite: suite, capabilities, extensions });
  const bundles = people.slice(1).map((each) => keyPackageOf(world, each, { cipherSuite: suite, capabilities }));
  const made = commit(context, first, {
    proposals: bundles.map(({ keyPackage }) => ({ kind: 'add', keyPackage: verified(context, keyPackage) })),
  });
  return { people, states: [merged(context, made), ...bundles.map((each) => joined(context, made.welcome, each))] };
}

function joinAs(
  world: World,
  someone: Person,
  groupInfo: Uint8Array,
  more: Partial<ExternalCommitParameters> = {},
  context = world.context,
) {
  const outcome = joinByExternalCommit(context, {
    groupInfo,
    credential: credential(someone.name),
    signatureKeyPair: someone.signatureKeyPair,
    capabilities,
    ...more,
  });
  assert.ok(outcome.kind === 'committed', show(outcome));
  return outcome;
}

/** Everyone hears everyone. */
function assertTalks(world: World, states: readonly GroupState[]): void {
  const [speaker, ...others] = states;
  const { message } = protectApplication(world.context, speaker!, encodeUtf8('hello'));
  for (const state of others) processed(world.context, state, message, 'application');
}

for (const [name, id] of Object.entries(CipherSuiteId)) {
  describe(name, () => {
    const world = makeWorld(`external ${name}`);
    const { context } = world;

    test('Dave joins by a commit of his own, and everyone goes on with him', () => {
      const { states } = openGroup(world, ['alice', 'bob', 'charlie'], id);
      const [alice, bob, charlie] = states as [GroupState, GroupState, GroupState];
      const dave = joinAs(world, person(world, 'dave', id), createGroupInfo(context, alice));
      assert.deepEqual(
        dave.effects.added.map(({ leafIndex }) => leafIndex),
        [3],
      );
      const steps = [alice, bob, charlie].map((state) => processed(context, state, dave.commit, 'commit'));
      for (const { effects } of steps) {
        assert.ok(effects.external && !effects.selfRemoved);
        assert.deepEqual(effects.committer, dave.effects.committer);
      }
      const restored = restoreGroup(context, memoryRows(groupRows(dave.state)));
      const all = [restored, ...steps.map(({ state }) => state)];
      assertAgree(all);
      assertTalks(world, all);
      const next = commit(context, restored);
      assertAgree([
        merged(context, next),
        ...all.slice(1).map((s) => processed(context, s, next.commit, 'commit').state),
      ]);
    });
  });
}

const world = makeWorld('external');
const { context } = world;

test('a lone creator is joined from outside; the tree may come separately', () => {
  const alice = groupOf(world, person(world, 'alice'), { capabilities, extensions: [doorOpen] });
  const groupInfo = createGroupInfo(context, alice, {
    ratchetTree: false,
    extensions: [{ extensionType: 0xf555, extensionData: new Uint8Array(3) }],
  });
  assertRefused(
    joinByExternalCommit(context, {
      groupInfo,
      credential: credential('bob'),
      signatureKeyPair: generateSignatureKeyPair(context, 1),
    }),
    'welcomeTree',
  );
  const bob = joinAs(world, person(world, 'bob'), groupInfo, { ratchetTree: exportRatchetTree(alice) });
  assert.deepEqual(
    bob.groupInfoExtensions.map(({ extensionType }) => extensionType),
    [0xf555],
  );
  assertAgree([bob.state, processed(context, alice, bob.commit, 'commit').state]);
});

test('Bob lost his state and replaces himself; his old self is out', () => {
  const { people, states } = openGroup(world, ['alice', 'bob', 'charlie'], 1);
  const [alice, bob, charlie] = states as [GroupState, GroupState, GroupState];
  const again = joinAs(world, people[1]!, createGroupInfo(context, charlie), { replaces: ownLeafIndex(bob) });
  assert.equal(ownLeafIndex(again.state), 1, 'the leftmost free leaf is his own');
  const old = processed(context, bob, again.commit, 'commit');
  assert.ok(old.effects.selfRemoved);
  const next = [alice, charlie].map((state) => processed(context, state, again.commit, 'commit').state);
  assertAgree([again.state, ...next]);
  assertTalks(world, [again.state, ...next]);
  const message = protectApplication(context, again.state, encodeUtf8('hello')).message;
  assertRefused(processed(context, old.state, message, 'rejected'), 'epochFuture');
});

test('a resync with pre-shared keys: the secret of an earlier epoch proves that one was there', () => {
  const { people, states } = openGroup(world, ['alice', 'bob'], 1);
  const [alice, bob] = states as [GroupState, GroupState];
  const { groupId, epoch } = groupContext(bob);
  const psk = bob.core.secrets.resumptionPsk;
  const knowing = world.at(context.now, {
    hooks: { resumptionPsk: () => psk, externalPsk: () => new Uint8Array(32).fill(5) },
  });
  const psks = [
    { kind: 'resumptionPsk', groupId, epoch },
    { kind: 'externalPsk', pskId: encodeUtf8('password') },
  ] as const;
  const again = joinAs(
    world,
    people[1]!,
    createGroupInfo(context, alice),
    { replaces: ownLeafIndex(bob), psks },
    knowing,
  );
  assertRefused(processed(context, alice, again.commit, 'rejected'), 'pskAvailable');
  assertAgree([again.state, processed(knowing, alice, again.commit, 'commit').state]);
});

test('two join at once: one wins, the other begins again', () => {
  const { states } = openGroup(world, ['alice', 'bob'], 1);
  const [alice, bob] = states as [GroupState, GroupState];
  const groupInfo = createGroupInfo(context, alice);
  const [charlie, dave] = ['charlie', 'dave'].map((name) => person(world, name)) as [Person, Person];
  const first = joinAs(world, charlie, groupInfo);
  const second = joinAs(world, dave, groupInfo);
  let all = [alice, bob].map((state) => processed(context, state, first.commit, 'commit').state);
  for (const state of all) assertRefused(processed(context, state, second.commit, 'rejected'), 'epochPast');
  const retry = joinAs(world, dave, createGroupInfo(context, all[0]!));
  all = [first.state, ...all].map((state) => processed(context, state, retry.commit, 'commit').state);
  assertAgree([retry.state, ...all]);
});

test('a commit of a member after an external one removes the newcomer again', () => {
  const { states } = openGroup(world, ['alice', 'bob'], 1);
  const [alice, bob] = states as [GroupState, GroupState];
  const guest = joinAs(world, person(world, 'guest'), createGroupInfo(context, alice));
  const [a, b] = [alice, bob].map((state) => processed(context, state, guest.commit, 'commit').state);
  const made = commit(context, a!, { proposals: [{ kind: 'remove', removed: ownLeafIndex(guest.state) }] });
  assertAgree([merged(context, made), processed(context, b!, made.commit, 'commit').state]);
  assert.ok(processed(context, guest.state, made.commit, 'commit').effects.selfRemoved);
});

test('the hook decides instead of the extension', () => {
  const { states } = openGroup(world, ['alice', 'bob'], 1, []);
  const [alice, bob] = states as [GroupState, GroupState];
  const letting = world.at(context.now, {
    hooks: {
      externalJoin: (_group, how) => (how === 'commit' ? { kind: 'accept' } : { kind: 'reject', reason: 'no' }),
    },
  });
  const groupInfo = createGroupInfo(context, alice, { externalPub: true });
  const charlie = joinAs(world, person(world, 'charlie'), groupInfo, {}, letting);
  assertRefused(processed(context, bob, charlie.commit, 'rejected'), 'senderType');
  assertAgree([charlie.state, processed(letting, bob, charlie.commit, 'commit').state]);
});

test('Eve asks to be added; a member commits what she proposed', () => {
  const { states } = openGroup(world, ['alice', 'bob'], 1);
  const [alice, bob] = states as [GroupState, GroupState];
  const eve = keyPackageOf(world, person(world, 'eve'), { capabilities });
  const { groupId, epoch } = groupContext(alice);
  const asked = createNewMemberProposal(context, { groupId, epoch, keyPackage: eve });
  assert.ok(asked.kind === 'proposed');
  const [a, b] = [alice, bob].map((state) => processed(context, state, asked.message, 'proposal').state);
  const made = commit(context, restoreGroup(context, memoryRows(groupRows(a!))));
  assert.deepEqual(made.effects.proposals[0]!.sender, { kind: 'newMemberProposal' });
  assertAgree([
    merged(context, made),
    processed(context, b!, made.commit, 'commit').state,
    joined(context, made.welcome, eve),
  ]);
});

test('a service named in external_senders adds, removes, changes extensions, injects a PSK and closes the group', () => {
  const keys = [1, 2].map(() => generateSignatureKeyPair(context, 1));
  const extensionData = encodeExternalSenders(
    keys.map(({ publicKey }, i) => ({ signatureKey: publicKey, credential: credential(`service ${i}`) })),
  );
  const senders: Extension = { extensionType: ExtensionType.ExternalSenders, extensionData };
  const knowing = world.at(context.now, { hooks: { externalPsk: () => new Uint8Array(32) } });
  const { states } = openGroup(world, ['alice', 'bob', 'charlie'], 1, [senders]);
  let members = states;
  const eve = keyPackageOf(world, person(world, 'eve'), { capabilities });
  const inputs = [
    [
      { kind: 'add', keyPackage: verified(context, eve.keyPackage) },
      { kind: 'remove', removed: ownLeafIndex(states[2]!) },
      { kind: 'externalPsk', pskId: encodeUtf8('psk') },
      { kind: 'groupContextExtensions', extensions: [senders] },
    ],
    [{ kind: 'reInit', groupId: encodeUtf8('new'), cipherSuite: 2 }],
  ] as const;
  for (const step of inputs) {
    const { groupId, epoch } = groupContext(members[0]!);
    for (const proposal of step) {
      const message = createExternalProposal(context, {
        cipherSuite: 1,
        groupId,
        epoch,
        senderIndex: 1,
        signaturePrivateKey: keys[1]!.privateKey,
        proposal,
      });
      members = members.map((state) => processed(knowing, state, message, 'proposal').state);
    }
    assert.equal(pendingProposals(members[0]!).length, step.length);
    const made = commit(knowing, members[0]!);
    const [, ...others] = members.map((state, i) =>
      i === 0 ? state : processed(knowing, state, made.commit, 'commit').state,
    );
    members = [merged(knowing, made), others[0]!];
    assertAgree(members);
    assert.equal(roster(members[0]!).length, 3);
    if (made.welcome !== undefined) {
      const late = world.at(context.now, { hooks: { externalPsk: () => new Uint8Array(32) } });
      members.push(joined(late, made.welcome, eve));
      assertAgree(members);
    }
  }
  assert.equal(members[0]!.core.status, 'reinitialized');
});
