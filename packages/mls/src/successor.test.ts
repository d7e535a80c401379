/** Groups that continue another one: ReInit, into the same or another suite, and branches (RFC 9420 sections 11.2, 11.3). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeUtf8 } from '@quicprochat/crypto';
import {
  CipherSuiteId,
  createBranch,
  createProposal,
  createReinitializedGroup,
  type Extension,
  generateSignatureKeyPair,
  type GroupState,
  groupContext,
  groupRows,
  isActive,
  joinGroup,
  type KeyPackageBundle,
  memoryRows,
  protectApplication,
  reInitOf,
  restoreGroup,
  roster,
} from './index.ts';
import {
  assertAgree,
  assertRefused,
  commit,
  credential,
  groupWith,
  keyPackageOf,
  makeWorld,
  merged,
  type Person,
  processed,
  show,
  verified,
} from './testing/world.node.ts';

const world = makeWorld('successor');
const { context } = world;
const PQ = CipherSuiteId.MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519;

function restarted(state: GroupState): GroupState {
  return restoreGroup(context, memoryRows(groupRows(state)));
}

function continued(previous: GroupState, welcome: Uint8Array, keyPackage: KeyPackageBundle, ratchetTree?: Uint8Array) {
  const outcome = joinGroup(context, { welcome, keyPackage, previous, ...(ratchetTree && { ratchetTree }) });
  assert.ok(outcome.kind === 'joined', show(outcome));
  return outcome.state;
}

/** Alice commits the ReInit; everybody is restarted from rows after it. */
function closedGroup(cipherSuite: number, extensions: readonly Extension[] = []) {
  const { people, states } = groupWith(world, ['alice', 'bob', 'charlie']);
  const reInit = { kind: 'reInit', groupId: encodeUtf8('the new group'), cipherSuite, extensions } as const;
  const made = commit(context, states[0]!, { proposals: [reInit] });
  const closed = [
    merged(context, made),
    ...states.slice(1).map((state) => processed(context, state, made.commit, 'commit').state),
  ].map(restarted);
  assertAgree(closed);
  for (const state of closed) {
    assert.ok(!isActive(state));
    assert.deepEqual(reInitOf(state), { groupId: reInit.groupId, version: 1, cipherSuite, extensions });
    assert.throws(() => protectApplication(context, state, new Uint8Array()), { name: 'MlsUsageError' });
  }
  return { people, closed };
}

/** Keys of the new suite's own signature scheme. */
function keysIn(cipherSuite: number, people: readonly Person[]): Person[] {
  return people.map(({ name }) => ({ name, signatureKeyPair: generateSignatureKeyPair(context, cipherSuite) }));
}

for (const cipherSuite of [1, 2, PQ, CipherSuiteId.MLS_256_DHKEMP521_AES256GCM_SHA512_P521]) {
  test(`THREATS 31: a group moves from suite 1 to suite ${cipherSuite}; not its closer, but Bob opens the new one`, () => {
    const { people, closed } = closedGroup(cipherSuite);
    const [alice, bob, charlie] = keysIn(cipherSuite, people) as [Person, Person, Person];
    const bundles = [alice, charlie].map((each) => keyPackageOf(world, each, { cipherSuite }));
    const ratchetTreeInWelcome = cipherSuite !== 2;
    const opened = createReinitializedGroup(context, closed[1]!, {
      credential: credential('bob'),
      signatureKeyPair: bob.signatureKeyPair,
      keyPackages: bundles.map(({ keyPackage }) => verified(context, keyPackage)),
      ratchetTreeInWelcome,
    });
    assert.ok(opened.kind === 'created', show(opened));
    assert.equal(opened.ratchetTree === undefined, ratchetTreeInWelcome);
    const { welcome, ratchetTree } = opened;
    const others = bundles.map((bundle, i) => continued(closed[2 * i]!, welcome, bundle, ratchetTree));
    const all = [opened.state, ...others];
    assertAgree(all);
    assert.equal(groupContext(opened.state).epoch, 1n);
    assert.equal(groupContext(opened.state).cipherSuite, cipherSuite);
    const made = commit(context, others[1]!);
    assertAgree([
      merged(context, made),
      ...[opened.state, others[0]!].map((s) => processed(context, s, made.commit, 'commit').state),
    ]);
  });
}

test('THREATS 31: who was removed before the ReInit cannot follow', () => {
  const { people, states } = groupWith(world, ['alice', 'bob', 'mallory']);
  const removal = commit(context, states[0]!, {
    proposals: [{ kind: 'remove', removed: roster(states[0]!)[2]!.leafIndex }],
  });
  const [alice, bob] = [merged(context, removal), processed(context, states[1]!, removal.commit, 'commit').state];
  const mallory = processed(context, states[2]!, removal.commit, 'commit').state;
  const closing = commit(context, alice, {
    proposals: [{ kind: 'reInit', groupId: encodeUtf8('next'), cipherSuite: 1 }],
  });
  const bundles = [people[1]!, people[2]!].map((each) => keyPackageOf(world, each));
  const opened = createReinitializedGroup(context, merged(context, closing), {
    credential: credential('alice'),
    signatureKeyPair: people[0]!.signatureKeyPair,
    keyPackages: [verified(context, bundles[0]!.keyPackage)],
  });
  assert.ok(opened.kind === 'created');
  const bobClosed = processed(context, bob, closing.commit, 'commit').state;
  assertAgree([opened.state, continued(bobClosed, opened.welcome, bundles[0]!)]);
  const attempt = joinGroup(context, { welcome: opened.welcome, keyPackage: bundles[1]!, previous: mallory });
  assertRefused(attempt, 'welcomeKeyPackage');
});

test('a ReInit waits for other proposals, and can be proposed by reference', () => {
  const { states } = groupWith(world, ['alice', 'bob']);
  const [alice, bob] = states as [GroupState, GroupState];
  const proposed = createProposal(context, bob, { kind: 'reInit', groupId: encodeUtf8('next'), cipherSuite: 7 });
  assert.ok(proposed.kind === 'proposed');
  const update = createProposal(context, proposed.state, { kind: 'update' });
  assert.ok(update.kind === 'proposed');
  let a = processed(context, alice, proposed.message, 'proposal').state;
  a = processed(context, a, update.message, 'proposal').state;
  const first = commit(context, a);
  assert.deepEqual(
    first.effects.proposals.map(({ proposal }) => proposal.kind),
    ['update'],
  );
  assert.ok(isActive(merged(context, first)));
});

test('a branch has the suite of its parent and some of its members, who need not be asked again who they are', () => {
  const { people, states } = groupWith(world, ['alice', 'bob', 'charlie']);
  const bundle = keyPackageOf(world, people[2]!);
  const branch = createBranch(context, states[0]!, {
    groupId: encodeUtf8('branch'),
    credential: credential('alice'),
    signatureKeyPair: people[0]!.signatureKeyPair,
    keyPackages: [verified(context, bundle.keyPackage)],
  });
  assert.ok(branch.kind === 'created', show(branch));
  const charlie = continued(restarted(states[2]!), branch.welcome, bundle);
  assertAgree([branch.state, charlie]);
  assert.equal(roster(charlie).length, 2);
  assert.ok(isActive(states[0]!), 'the parent goes on');
});

test('who is the same client is what the application says', () => {
  const { people, states } = groupWith(world, ['alice', 'bob']);
  const bundle = keyPackageOf(world, people[1]!, { credential: credential('bob on his new phone') });
  const parameters = {
    groupId: encodeUtf8('branch'),
    credential: credential('alice'),
    signatureKeyPair: people[0]!.signatureKeyPair,
    keyPackages: [verified(context, bundle.keyPackage)],
  };
  assertRefused(createBranch(context, states[0]!, parameters) as never, 'branchContinues');
  const name = (bytes: Uint8Array): string => Buffer.from(bytes).toString().split(' ')[0]!;
  const lenient = world.at(context.now, {
    hooks: {
      sameClient: ({ credential: one }, { credential: other }) =>
        one.credentialType === 1 && other.credentialType === 1 && name(one.identity) === name(other.identity),
    },
  });
  const branch = createBranch(lenient, states[0]!, parameters);
  assert.ok(branch.kind === 'created');
  const joining = { welcome: branch.welcome, keyPackage: bundle, previous: states[1]! };
  assert.equal(joinGroup(lenient, joining).kind, 'joined');
  assertRefused(joinGroup(context, joining), 'branchContinues');
});

test('misuse: continuing a group that is open, or branching one that is closed', () => {
  const { people, closed } = closedGroup(1);
  const parameters = {
    credential: credential('alice'),
    signatureKeyPair: people[0]!.signatureKeyPair,
    keyPackages: [],
  };
  assert.throws(() => createBranch(context, closed[0]!, { ...parameters, groupId: new Uint8Array(1) }), {
    name: 'MlsUsageError',
  });
  assert.throws(() => createReinitializedGroup(context, closed[0]!, parameters), { name: 'MlsUsageError' });
  const { states } = groupWith(world, ['alice']);
  assert.throws(() => createReinitializedGroup(context, states[0]!, parameters), { name: 'MlsUsageError' });
});
