/** What RFC 9420 section 13 leaves open: custom proposals, extensions and credentials, GREASE, last-resort KeyPackages. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeUtf8 } from '@quicprochat/crypto';
import {
  type Capabilities,
  createCommit,
  createProposal,
  type Credential,
  decodeKeyPackage,
  encodeRequiredCapabilities,
  type Extension,
  ExtensionType,
  generateKeyPackage,
  greaseExtension,
  type GroupState,
  groupRows,
  isLastResort,
  memoryRows,
  type MlsContext,
  ownLeafIndex,
  restoreGroup,
  roster,
  verifyKeyPackage,
} from './index.ts';
import { isGrease } from './grease.ts';
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
  person,
  processed,
  verified,
} from './testing/world.node.ts';

const world = makeWorld('extensibility');
const { context } = world;

const POLL = 0xf00d;
const EXTENSION = 0xf200;
const able: Partial<Capabilities> = { proposals: [POLL], extensions: [EXTENSION] };

function pair(capabilities: Partial<Capabilities>, more: { extensions?: readonly Extension[]; grease?: boolean } = {}) {
  const [alice, bob] = ['alice', 'bob'].map((name) => person(world, name));
  const { grease = false } = more;
  const bundle = keyPackageOf(world, bob!, { capabilities, grease });
  const made = commit(context, groupOf(world, alice!, { capabilities, ...more }), {
    proposals: [{ kind: 'add', keyPackage: verified(context, bundle.keyPackage) }],
    ...(grease && { groupInfoExtensions: [greaseExtension(context)] }),
  });
  return [merged(context, made), joined(context, made.welcome, bundle)] as [GroupState, GroupState];
}

test('a custom proposal travels by value and by reference, and the application learns of it', () => {
  const [alice, bob] = pair(able);
  const poll = { kind: 'custom', proposalType: POLL, data: encodeUtf8('tea or coffee?') } as const;
  const proposed = createProposal(context, bob, poll);
  assert.ok(proposed.kind === 'proposed');
  const heard = processed(context, alice, proposed.message, 'proposal');
  assert.deepEqual(heard.proposal, poll);
  const atAlice = restoreGroup(context, memoryRows(groupRows(heard.state)));
  const made = commit(context, atAlice, { proposals: [poll], path: false });
  const step = processed(context, proposed.state, made.commit, 'commit');
  assertAgree([merged(context, made), step.state]);
  assert.deepEqual(
    step.effects.proposals.map(({ proposal, byReference }) => [proposal, byReference]),
    [
      [poll, true],
      [poll, false],
    ],
  );
  assert.equal(step.effects.updated.length, 1, 'such a commit has a path');
});

test('a custom proposal is committed with the Add of a client that does not know it, and not after', () => {
  const [alice, bob] = pair(able);
  const poll = { kind: 'custom', proposalType: POLL, data: new Uint8Array() } as const;
  const plain = keyPackageOf(world, person(world, 'plain'), { capabilities: { extensions: [EXTENSION] } });
  const made = commit(context, alice, {
    proposals: [{ kind: 'add', keyPackage: verified(context, plain.keyPackage) }, poll],
  });
  processed(context, bob, made.commit, 'commit');
  joined(context, made.welcome, plain);
  const next = merged(context, made);
  const proposed = createProposal(context, next, poll);
  assert.ok(proposed.kind === 'proposed');
  assert.deepEqual(commit(context, proposed.state).effects.proposals, [], 'it is not chosen');
  assert.throws(() => createProposal(context, next, { ...poll, proposalType: 3 }), { name: 'MlsUsageError' });
});

test('a proposal that nobody may send is not made: of a type one does not list oneself, GREASE, or reserved', () => {
  const GREASE = 0x1a1a;
  const all = { ...able, proposals: [POLL, GREASE, 0] };
  const [alice, bob] = pair(all);
  const custom = (proposalType: number) => ({ kind: 'custom', proposalType, data: new Uint8Array(3) }) as const;
  for (const proposalType of [POLL + 1, GREASE, 0, 0xffff]) {
    assertRefused(createProposal(context, alice, custom(proposalType)), 'proposalSupported');
    assertRefused(createCommit(context, alice, { proposals: [custom(proposalType)] }), 'proposalSupported');
  }
  for (let proposalType = 1; proposalType <= 7; proposalType++) {
    assert.throws(() => createProposal(context, alice, custom(proposalType)), { name: 'MlsUsageError' });
  }
  const proposed = createProposal(context, alice, custom(POLL));
  assert.ok(proposed.kind === 'proposed');
  processed(context, bob, proposed.message, 'proposal');
});

test('required capabilities hold for custom proposals, extensions and credentials', () => {
  const extensionData = encodeRequiredCapabilities({
    extensionTypes: [EXTENSION],
    proposalTypes: [POLL],
    credentialTypes: [1],
  });
  const required: Extension = { extensionType: ExtensionType.RequiredCapabilities, extensionData };
  const [alice] = pair(able, { extensions: [required] });
  for (const capabilities of [{ proposals: [POLL] }, { extensions: [EXTENSION] }]) {
    const bundle = keyPackageOf(world, person(world, 'poor'), { capabilities });
    const outcome = commitAdd(context, alice, verified(context, bundle.keyPackage));
    assertRefused(outcome, 'addCapabilities');
  }
});

function commitAdd(where: MlsContext, state: GroupState, keyPackage: ReturnType<typeof verified>) {
  return createCommit(where, state, { proposals: [{ kind: 'add', keyPackage }] });
}

test('extensions nobody knows are kept, in leaf, KeyPackage, GroupInfo and group', () => {
  const unknown: Extension = { extensionType: EXTENSION, extensionData: encodeUtf8('kept') };
  const [alice, bob] = pair(able);
  const made = commit(context, alice, {
    proposals: [{ kind: 'groupContextExtensions', extensions: [unknown] }],
    leafNode: { extensions: [unknown] },
  });
  const { state } = processed(context, bob, made.commit, 'commit');
  assert.deepEqual(state.core.context.extensions, [unknown]);
  assert.deepEqual(roster(state)[0]!.extensions, [unknown]);
});

test('GREASE everywhere it may stand: everybody goes on, and nobody mistakes it for a capability', () => {
  const [alice, bob] = pair(able, { grease: true });
  for (const { capabilities, extensions } of roster(alice)) {
    for (const list of [
      capabilities.cipherSuites,
      capabilities.extensions,
      capabilities.proposals,
      capabilities.credentials,
      extensions.map(({ extensionType }) => extensionType),
    ]) {
      assert.ok(list.some(isGreaseValue), JSON.stringify(list));
    }
  }
  const update = createProposal(context, bob, { kind: 'update' });
  assert.ok(update.kind === 'proposed');
  const made = commit(context, processed(context, alice, update.message, 'proposal').state);
  assertAgree([merged(context, made), processed(context, update.state, made.commit, 'commit').state]);
});

test('GREASE values are those of the RFC', () => {
  const seen = new Set<number>();
  for (let i = 0; i < 400; i++) {
    const { extensionType, extensionData } = greaseExtension(context);
    assert.ok(isGreaseValue(extensionType) && extensionData.length < 16);
    seen.add(extensionType);
  }
  assert.equal(seen.size, 15);
});

function isGreaseValue(value: number): boolean {
  return value >>> 8 === (value & 0xff) && (value & 0x0f) === 0x0a && value !== 0xfafa;
}

test('of all values exactly those fifteen are GREASE', () => {
  for (let value = 0; value < 0x10000; value++) assert.equal(isGrease(value), isGreaseValue(value));
});

test('a last-resort KeyPackage says so, and serves for two groups', () => {
  const bob = person(world, 'bob');
  const bundle = keyPackageOf(world, bob, { lastResort: true });
  const decoded = decodeKeyPackage(bundle.keyPackage);
  assert.ok(decoded.kind === 'decoded' && isLastResort(decoded.keyPackage));
  assert.ok(decoded.keyPackage.leafNode.capabilities.extensions.includes(ExtensionType.LastResort));
  const once = decodeKeyPackage(keyPackageOf(world, bob).keyPackage);
  assert.ok(once.kind === 'decoded' && !isLastResort(once.keyPackage));
  for (const name of ['first', 'second']) {
    const made = commit(context, groupOf(world, person(world, name)), {
      proposals: [{ kind: 'add', keyPackage: verified(context, bundle.keyPackage) }],
    });
    assertAgree([merged(context, made), joined(context, made.welcome, bundle)]);
  }
});

test('X.509 credentials are opaque: the hook validates them, for KeyPackages in groups and for every member', () => {
  const certificates = [encodeUtf8('leaf certificate'), encodeUtf8('intermediate')];
  const x509: Credential = { credentialType: 2, certificates };
  const both = { capabilities: { credentials: [1, 2] } };
  const seen: string[] = [];
  const validating: MlsContext = world.at(context.now, {
    hooks: {
      validateMember: ({ credential: c }, reason) => {
        if (c.credentialType !== 2) return { kind: 'accept' };
        seen.push(reason);
        const chain = c.certificates.map((each) => Buffer.from(each).toString());
        return chain.at(-1) === 'intermediate' ? { kind: 'accept' } : { kind: 'reject', reason: 'unknown issuer' };
      },
    },
  });
  const [alice, bob, eve] = ['alice', 'bob', 'eve'].map((name) => person(world, name));
  const first = groupOf(world, alice!, both);
  const bundle = keyPackageOf(world, bob!, { credential: x509, ...both });
  const made = commit(validating, first, {
    proposals: [{ kind: 'add', keyPackage: verified(validating, bundle.keyPackage) }],
  });
  const atBob = joined(validating, made.welcome, bundle);
  assert.deepEqual(roster(atBob)[ownLeafIndex(atBob)]!.credential, x509);
  assert.deepEqual(seen, ['add', 'join']);
  const forged = keyPackageOf(world, eve!, {
    credential: { credentialType: 2, certificates: [encodeUtf8('self')] },
    ...both,
  });
  const outcome = commitAdd(validating, merged(validating, made), verified(context, forged.keyPackage));
  assertRefused(outcome, 'leafCredential');
  const withoutX509 = keyPackageOf(world, eve!, { credential: credential('eve') });
  assertRefused(
    commitAdd(validating, merged(validating, made), verified(context, withoutX509.keyPackage)),
    'leafCredentialSupport',
  );
});

test('a KeyPackage that is not yet or no longer valid is refused on receipt', () => {
  const lifetime = { notBefore: BigInt(context.now), notAfter: BigInt(context.now + 10) };
  const { keyPackage } = generateKeyPackage(context, {
    cipherSuite: 1,
    credential: credential('brief'),
    signatureKeyPair: person(world, 'brief').signatureKeyPair,
    lifetime,
  });
  for (const [at, kind] of [
    [-1, 'rejected'],
    [0, 'verified'],
    [10, 'verified'],
    [11, 'rejected'],
  ] as const) {
    assert.equal(verifyKeyPackage(world.at(context.now + at), keyPackage).kind, kind);
  }
});
