/**
 * One attacker per rule: everything it sends is consistent (see testing/attacker.node.ts) but for the one thing named.
 * The last test asserts that no rule of the table is without one.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type KeyPair, encodeUtf8 } from '@quicprochat/crypto';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { freshKemKeyPair, suiteOf } from './cipher-suites.ts';
import { Writer } from './codec.ts';
import { encodeOutsideMessage, proposalRef, signContent } from './framing.ts';
import { memberContent } from './commit.ts';
import {
  type Capabilities,
  CipherSuiteId,
  type CommitToValidate,
  createBranch,
  type CreateGroupParameters,
  createCommit,
  createExternalProposal,
  createGroupInfo,
  createNewMemberProposal,
  createProposal,
  createReinitializedGroup,
  encodeExternalJoins,
  encodeExternalSenders,
  encodeRequiredCapabilities,
  exportRatchetTree,
  type Extension,
  ExtensionType,
  type ExternalJoins,
  type ExternalProposalParameters,
  type GroupContext,
  type GroupState,
  groupRows,
  joinByExternalCommit,
  joinGroup,
  type KeyPackageBundle,
  type KeyPackageParameters,
  type LeafIndex,
  type MlsContext,
  MlsUsageError,
  type ProcessOutcome,
  type Proposal,
  processMessage,
  protectApplication,
  type Rejected,
  resumptionPsk,
  type RuleName,
  type Sender,
  validationRules,
  type Verdict,
  verifyKeyPackage,
} from './index.ts';
import type { PskWithId } from './key-schedule.ts';
import { readKeyPackageMessage, signLeafNode } from './leaf-node.ts';
import { checkProposal } from './proposals.ts';
import {
  addLeaf,
  editTree,
  filteredDirectPath,
  leafAt,
  newTree,
  parentAt,
  type RatchetTree,
  setLeaf,
  setParent,
  setPathKeys,
} from './ratchet-tree.ts';
import type { UnsignedLeafNode } from './structures.ts';
import {
  addOf,
  type CommitForgery,
  type ExternalCommitForgery,
  EXTERNAL_PSK,
  forgeCommit,
  forgeExternalCommit,
  forgeGroupInfo,
  forgeKeyPackage,
  type KeyPackageForgery,
  forgeMessage,
  forgeWelcome,
  type WelcomeForgery,
} from './testing/attacker.node.ts';
import {
  assertRefused,
  commit,
  credential,
  groupOf,
  joined,
  keyPackageOf,
  makeWorld,
  merged,
  NOW,
  type Person,
  person,
  processed,
  SUITE,
  verified,
} from './testing/world.node.ts';

const covered = new Set<RuleName>();

type Outcome = { readonly kind: string; readonly name?: string; readonly rule?: number };

function refuses(rule: RuleName, attack: string, attempt: () => Outcome): void {
  covered.add(rule);
  test(`${validationRules[rule].number} ${rule}: ${attack}`, () => assertRefused(attempt(), rule));
}

/** Processes a message, and sees to it that a refusal leaves the state as it was. */
function receive(context: MlsContext, state: GroupState, message: Uint8Array): ProcessOutcome {
  const before = groupRows(state);
  const outcome = processMessage(context, state, message);
  assert.deepEqual(groupRows(state), before);
  return outcome;
}

// ---- The scene: Mallory is a member, with Alice and Bob; leaf 3 is blank --------------------------------------------

const EXTENSION = 0xf100;
const capabilities: Partial<Capabilities> = { extensions: [EXTENSION] };
const requireExtension: Extension = {
  extensionType: 3,
  extensionData: encodeRequiredCapabilities({ extensionTypes: [EXTENSION], proposalTypes: [], credentialTypes: [] }),
};

const world = makeWorld('validation rules');
const context = world.at(NOW, { hooks: { externalPsk: () => EXTERNAL_PSK } });
const suite = suiteOf(nodeCrypto, SUITE);

interface Scene {
  readonly mallory: GroupState;
  readonly alice: GroupState;
  readonly bob: GroupState;
  readonly people: readonly Person[];
}

function scene(
  more: Partial<CreateGroupParameters> = {},
  member: Partial<KeyPackageParameters> = { capabilities },
): Scene {
  const people = ['mallory', 'alice', 'bob'].map((name) => person(world, name));
  const [mallory, ...others] = people;
  const bundles = others.map((each) => keyPackageOf(world, each, member));
  const first = groupOf(world, mallory!, { capabilities, ...more });
  const made = commit(context, first, {
    proposals: bundles.map(({ keyPackage }) => ({ kind: 'add', keyPackage: verified(context, keyPackage) })),
  });
  let m = merged(context, made);
  let [a, b] = bundles.map((bundle) => joined(context, made.welcome, bundle));
  // Everyone commits once, so that the tree has parent nodes and everyone a leaf from a commit.
  const second = commit(context, a!);
  m = processed(context, m, second.commit, 'commit').state;
  b = processed(context, b!, second.commit, 'commit').state;
  a = merged(context, second);
  const third = commit(context, b);
  m = processed(context, m, third.commit, 'commit').state;
  a = processed(context, a, third.commit, 'commit').state;
  b = merged(context, third);
  return { mallory: m, alice: a, bob: b, people };
}

const { mallory, alice, bob, people } = scene();
const strict = scene({ extensions: [requireExtension] });

const byMallory = (forgery: CommitForgery): ProcessOutcome =>
  receive(context, alice, forgeCommit(context, mallory, forgery));
const application = { contentType: 1, applicationData: encodeUtf8('hello') } as const;
const removeBob: Proposal = { kind: 'remove', removed: 2 as LeafIndex };

test('without a fault, what the attacker makes is accepted', () => {
  for (const forgery of [
    {},
    { wireFormat: 'public' as const },
    { proposals: [removeBob] },
    { proposals: [addOf(keyPackageOf(world, person(world, 'eve')))], path: false },
  ]) {
    assert.equal(byMallory(forgery).kind, 'commit');
  }
  const message = forgeMessage(context, mallory, application);
  assert.equal(receive(context, alice, message).kind, 'application');
  const proposal = forgeMessage(context, mallory, { contentType: 2, proposal: removeBob }, { wireFormat: 'public' });
  assert.equal(receive(context, alice, proposal).kind, 'proposal');
});

// ---- Framing --------------------------------------------------------------------------------------------------------

const honest = protectApplication(context, mallory, encodeUtf8('hello')).message;
const publicRemove = forgeMessage(context, mallory, { contentType: 2, proposal: removeBob }, { wireFormat: 'public' });

function patched(bytes: Uint8Array, at: number, value?: number): Uint8Array {
  const copy = bytes.slice();
  const index = at < 0 ? copy.length + at : at;
  copy[index] = value ?? copy[index]! ^ 1;
  return copy;
}

refuses('malformed', 'a message cut short', () => receive(context, alice, honest.slice(0, -1)));
refuses('malformed', 'bytes after the message', () => receive(context, alice, new Uint8Array([...honest, 0])));
refuses('malformed', 'an empty message', () => receive(context, alice, new Uint8Array()));
refuses('protocolVersion', 'version 2', () => receive(context, alice, patched(honest, 1, 2)));
refuses('wireFormat', 'an unknown wire format', () => receive(context, alice, patched(honest, 3, 99)));
refuses('wireFormat', 'THREATS 3: a KeyPackage as a message', () =>
  receive(context, alice, keyPackageOf(world, people[0]!).keyPackage),
);
refuses('wireFormat', 'THREATS 3: a message as a Welcome', () =>
  joinGroup(context, { welcome: honest, keyPackage: keyPackageOf(world, people[0]!) }),
);
refuses('wireFormat', 'THREATS 3: a message as a KeyPackage', () => verifyKeyPackage(context, honest));
refuses('groupId', 'THREATS 3: a message of another group', () => receive(context, strict.alice, honest));
refuses('groupId', 'THREATS 3: a PublicMessage of another group', () => receive(context, strict.alice, publicRemove));
refuses('epochFuture', 'a message of the next epoch', () => {
  const next = merged(context, commit(context, mallory));
  return receive(context, alice, protectApplication(context, next, encodeUtf8('later')).message);
});
refuses('epochFuture', 'a PublicMessage of the next epoch', () => {
  const content = { contentType: 2, proposal: removeBob } as const;
  return receive(context, alice, forgeMessage(context, mallory, content, { wireFormat: 'public', epoch: 99n }));
});
refuses('epochPast', 'a proposal of the epoch before', () => {
  const proposal = forgeMessage(context, mallory, { contentType: 2, proposal: removeBob });
  const next = processed(context, alice, forgeCommit(context, mallory, {}), 'commit').state;
  return receive(context, next, proposal);
});
refuses('epochPast', 'a message of an epoch that ended eight days ago', () => {
  const next = processed(context, alice, forgeCommit(context, mallory, {}), 'commit').state;
  assert.equal(receive(context, next, honest).kind, 'application');
  return receive(world.at(NOW + 8 * 24 * 3600), next, honest);
});
refuses('epochPast', 'a message six epochs old', () => {
  let next = alice;
  let sender = mallory;
  for (let i = 0; i < 6; i++) {
    const made = commit(context, sender);
    next = processed(context, next, made.commit, 'commit').state;
    sender = merged(context, made);
  }
  return receive(context, next, honest);
});
refuses('senderMember', 'a blank leaf as sender', () =>
  receive(context, alice, forgeMessage(context, mallory, application, { leafIndex: 3 })),
);
refuses('senderMember', 'a leaf beyond the tree as sender', () =>
  receive(context, alice, forgeMessage(context, mallory, application, { leafIndex: 0x7fff_ffff })),
);
refuses('senderMember', 'a blank leaf as sender of a PublicMessage', () => {
  const content = { contentType: 2, proposal: removeBob } as const;
  return receive(context, alice, forgeMessage(context, mallory, content, { wireFormat: 'public', leafIndex: 3 }));
});
refuses('applicationEncrypted', 'application data in a PublicMessage', () =>
  receive(context, alice, forgeMessage(context, mallory, application, { wireFormat: 'public' })),
);
refuses('decryption', 'a changed ciphertext', () => receive(context, alice, patched(honest, -1)));
refuses('decryption', 'THREATS 3: an application message relabelled as a proposal', () => {
  // version, wire format, group id with its length, epoch: then the content type.
  const at = 4 + 1 + 32 + 8;
  assert.equal(honest[at], 1);
  return receive(context, alice, patched(honest, at, 2));
});
refuses('membershipTagPresent', 'an empty membership tag', () => {
  const content = { contentType: 2, proposal: removeBob } as const;
  const membershipTag = (): Uint8Array => new Uint8Array();
  return receive(context, alice, forgeMessage(context, mallory, content, { wireFormat: 'public', membershipTag }));
});
refuses('membershipTag', 'a changed membership tag', () => receive(context, alice, patched(publicRemove, -1)));
refuses('confirmationTagPresent', 'an empty confirmation tag', () =>
  byMallory({ confirmationTag: () => new Uint8Array() }),
);
refuses('framedSignature', 'a message in the name of Bob', () =>
  receive(context, alice, forgeMessage(context, mallory, application, { leafIndex: 2 })),
);
refuses('framedSignature', 'a PublicMessage in the name of Bob', () => {
  const content = { contentType: 2, proposal: removeBob } as const;
  return receive(context, alice, forgeMessage(context, mallory, content, { wireFormat: 'public', leafIndex: 2 }));
});
refuses('padding', 'padding that is not zero', () =>
  receive(context, alice, forgeMessage(context, mallory, application, { padding: new Uint8Array([0, 1]) })),
);
for (const sender of [
  { kind: 'external', senderIndex: 0 },
  { kind: 'newMemberProposal' },
  { kind: 'newMemberCommit' },
] as const) {
  refuses('senderType', `THREATS 6: a proposal of ${sender.kind}`, () => {
    const content = { contentType: 2, proposal: removeBob } as const;
    return receive(context, alice, forgeMessage(context, mallory, content, { wireFormat: 'public', sender }));
  });
}
refuses('generationUsed', 'THREATS 12: a message twice', () => {
  const next = processed(context, alice, honest, 'application').state;
  return receive(context, next, honest);
});
refuses('generationUsed', 'a generation so far back that its key was dropped', () => {
  const far = forgeMessage(context, mallory, application, { generation: 300 });
  const next = processed(context, alice, far, 'application').state;
  const kept = forgeMessage(context, mallory, application, { generation: 44 });
  assert.equal(receive(context, next, kept).kind, 'application');
  return receive(context, next, forgeMessage(context, mallory, application, { generation: 43 }));
});
refuses('generationAhead', 'a generation 2001 ahead', () => {
  const far = forgeMessage(context, mallory, application, { generation: 2000 });
  assert.equal(receive(context, alice, far).kind, 'application');
  return receive(context, alice, forgeMessage(context, mallory, application, { generation: 2001 }));
});
refuses('ownGeneration', 'THREATS 12: a message in our own name that we never sent', () =>
  receive(context, alice, forgeMessage(context, mallory, application, { leafIndex: 1 })),
);

// ---- KeyPackages and leaf nodes -------------------------------------------------------------------------------------

const eve = person(world, 'eve');
const eveBundle = keyPackageOf(world, eve, { capabilities });

function forgedEve(forgery: KeyPackageForgery): KeyPackageBundle {
  return forgeKeyPackage(context, eveBundle, eve.signatureKeyPair, forgery);
}

/** The same KeyPackage offered directly, and by Mallory in a commit. */
function refusesKeyPackage(rule: RuleName, attack: string, forgery: KeyPackageForgery): void {
  refuses(rule, attack, () => verifyKeyPackage(context, forgedEve(forgery).keyPackage));
  refuses(rule, `${attack}, added by a commit`, () => byMallory({ proposals: [addOf(forgedEve(forgery))] }));
}

test('without a fault, a KeyPackage taken apart and put together is accepted', () => {
  assert.equal(verifyKeyPackage(context, forgedEve({}).keyPackage).kind, 'verified');
  assert.equal(byMallory({ proposals: [addOf(forgedEve({}))] }).kind, 'commit');
});

const other = person(world, 'other').signatureKeyPair;
refusesKeyPackage('leafSignature', 'a leaf signed by someone else', { leafSigner: other });
refusesKeyPackage('keyPackageSignature', 'a KeyPackage signed by someone else', { signer: other });
refusesKeyPackage('keyPackageInitKey', 'THREATS 9: init key equal to the encryption key', {
  keyPackage: (k) => ({ ...k, initKey: k.leafNode.encryptionKey }),
});
refusesKeyPackage('keyPackageExtensions', 'an extension that the leaf does not list', {
  keyPackage: (k) => ({ ...k, extensions: [{ extensionType: 0xf999, extensionData: new Uint8Array() }] }),
});
refusesKeyPackage('keyPackageExtensions', 'an extension twice', {
  keyPackage: (k) => ({
    ...k,
    extensions: [EXTENSION, EXTENSION].map((extensionType) => ({ extensionType, extensionData: new Uint8Array() })),
  }),
});
refusesKeyPackage('leafExtensions', 'THREATS 9: a leaf extension that the leaf does not list', {
  leaf: (leaf) => ({ ...leaf, extensions: [{ extensionType: 0xf999, extensionData: new Uint8Array() }] }),
});
refusesKeyPackage('leafExtensions', 'a leaf extension twice', {
  leaf: (leaf) => ({
    ...leaf,
    extensions: [EXTENSION, EXTENSION].map((extensionType) => ({ extensionType, extensionData: new Uint8Array() })),
  }),
});
refusesKeyPackage('leafSource', 'a leaf from an Update', { leaf: (leaf) => ({ ...leaf, source: { kind: 'update' } }) });
refusesKeyPackage('leafSuite', 'a leaf that does not support the suite', {
  leaf: (leaf) => ({ ...leaf, capabilities: { ...leaf.capabilities, cipherSuites: [2] } }),
});
refusesKeyPackage('leafSuite', 'a leaf that does not support the version', {
  leaf: (leaf) => ({ ...leaf, capabilities: { ...leaf.capabilities, versions: [] } }),
});
refusesKeyPackage('leafCredentialSupport', 'a leaf that does not support its own credential', {
  leaf: (leaf) => ({ ...leaf, capabilities: { ...leaf.capabilities, credentials: [2] } }),
});
refusesKeyPackage('leafKeysValid', 'THREATS 25: an encryption key too short', {
  leaf: (leaf) => ({ ...leaf, encryptionKey: leaf.encryptionKey.slice(1) }),
});
refusesKeyPackage('leafKeysValid', 'an encryption key of small order', {
  leaf: (leaf) => ({ ...leaf, encryptionKey: new Uint8Array(32) }),
});
refusesKeyPackage('leafKeysValid', 'an init key of small order, not in canonical form', {
  keyPackage: (k) => ({ ...k, initKey: new Uint8Array(32).fill(0xff).fill(0xed, 0, 1) }),
});
test('a KeyPackage of one’s own is not made with a signature key nobody can verify under', () => {
  for (const [cipherSuite, unusable] of [
    [1, new Uint8Array(32)],
    [1, new Uint8Array(0)],
    [1, new Uint8Array(32).fill(2, 0, 1)],
    [2, new Uint8Array(65).fill(4)],
  ] as const) {
    const someone = person(world, 'someone', cipherSuite);
    const signatureKeyPair = { ...someone.signatureKeyPair, publicKey: unusable };
    assert.throws(() => keyPackageOf(world, someone, { cipherSuite, signatureKeyPair }), MlsUsageError);
  }
});
refusesKeyPackage('leafKeysValid', 'THREATS 7: a signature key of small order', {
  leaf: (leaf) => ({ ...leaf, signatureKey: new Uint8Array(32).fill(1, 0, 1) }),
});
const PQ = CipherSuiteId.MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519;
for (const [cipherSuite, what, spoil] of [
  [PQ, 'an ML-KEM key that fails the modulus check', (key: Uint8Array) => key.fill(0xff, 0, 3)],
  [PQ, 'a hybrid key whose X25519 part is of small order', (key: Uint8Array) => key.fill(0, 1184)],
  [2, 'a point off P-256', (key: Uint8Array) => key.fill(1, 64)],
  [5, 'a point off P-521', (key: Uint8Array) => key.fill(1, 132)],
] as const) {
  for (const place of ['initKey', 'encryptionKey'] as const) {
    refuses('leafKeysValid', `THREATS 25: ${what}, as ${place}`, () => {
      const someone = person(world, 'someone', cipherSuite);
      const spoiled = (key: Uint8Array): Uint8Array => spoil(key.slice());
      const forged = forgeKeyPackage(
        context,
        keyPackageOf(world, someone, { cipherSuite }),
        someone.signatureKeyPair,
        place === 'initKey'
          ? { keyPackage: (k) => ({ ...k, initKey: spoiled(k.initKey) }) }
          : { leaf: (leaf) => ({ ...leaf, encryptionKey: spoiled(leaf.encryptionKey) }) },
      );
      return verifyKeyPackage(context, forged.keyPackage);
    });
  }
}
refuses('keyPackageSuite', 'a suite nobody knows', () =>
  verifyKeyPackage(context, forgedEve({ keyPackage: (k) => ({ ...k, cipherSuite: 0xbeef }) }).keyPackage),
);
refuses('keyPackageSuite', 'an Add of another suite', () => {
  const elsewhere = person(world, 'elsewhere', 3);
  return byMallory({ proposals: [addOf(keyPackageOf(world, elsewhere, { cipherSuite: 3 }))] });
});
refuses('leafLifetime', 'an expired KeyPackage', () =>
  verifyKeyPackage(world.at(NOW + 85 * 24 * 3600), eveBundle.keyPackage),
);
refuses('leafLifetime', 'a KeyPackage not valid yet', () =>
  verifyKeyPackage(world.at(NOW - 3601), eveBundle.keyPackage),
);
refuses('leafLifetime', 'an expired KeyPackage in a commit, where receivers check it', () => {
  const message = forgeCommit(context, mallory, { proposals: [addOf(eveBundle)] });
  const late = { ...world.at(NOW + 85 * 24 * 3600), checkReceivedLifetimes: true };
  assert.equal(receive({ ...late, checkReceivedLifetimes: false }, alice, message).kind, 'commit');
  return receive(late, alice, message);
});
refuses('leafLifetime', 'an expired KeyPackage in our own commit', () => {
  const keyPackage = verified(context, eveBundle.keyPackage);
  return createCommit(world.at(NOW + 85 * 24 * 3600), alice, { proposals: [{ kind: 'add', keyPackage }] });
});
refuses('leafCredential', 'a credential the application refuses in an Add', () => {
  const message = forgeCommit(context, mallory, { proposals: [addOf(eveBundle)] });
  return receive(refusing('eve'), alice, message);
});
refuses('leafCredential', 'a credential the application refuses in a path', () => {
  const message = forgeCommit(context, mallory, { leaf: (leaf) => ({ ...leaf, credential: credential('root') }) });
  return receive(refusing('root'), alice, message);
});

function refusing(name: string): MlsContext {
  return world.at(NOW, {
    hooks: {
      validateMember({ credential: c }) {
        const bad = c.credentialType === 1 && Buffer.from(c.identity).toString() === name;
        return bad ? { kind: 'reject', reason: 'not who it claims to be' } : { kind: 'accept' };
      },
    },
  });
}

refuses('leafRequiredCapabilities', 'THREATS 9: a path leaf without a required capability', () => {
  const message = forgeCommit(context, strict.mallory, {
    leaf: (leaf) => ({ ...leaf, capabilities: { ...leaf.capabilities, extensions: [] } }),
  });
  return receive(context, strict.alice, message);
});
refuses('leafCredentialSupport', 'a path leaf with a credential that others do not support', () =>
  byMallory({
    leaf: (leaf) => ({
      ...leaf,
      credential: { credentialType: 2, certificates: [encodeUtf8('certificate')] },
      capabilities: { ...leaf.capabilities, credentials: [1, 2] },
    }),
  }),
);
refuses('leafCredentialSupport', 'a path leaf that does not support the credentials of others', () =>
  byMallory({
    leaf: (leaf) => ({
      ...leaf,
      credential: { credentialType: 2, certificates: [encodeUtf8('certificate')] },
      capabilities: { ...leaf.capabilities, credentials: [2] },
    }),
  }),
);
refuses('leafSource', 'a path leaf that says it is from an Update', () =>
  byMallory({ leaf: (leaf) => ({ ...leaf, source: { kind: 'update' } }) }),
);
refuses('leafSignature', 'a path leaf signed by someone else', () => byMallory({ leafSigner: other }));
refuses('leafKeyReplaced', 'a path that keeps the leaf key', () =>
  byMallory({ encryptionKeyPair: ownEncryptionKeys(mallory) }),
);
refuses('leafKeyReplaced', 'an Update that keeps the leaf key', () =>
  receive(context, alice, forgedUpdate(mallory, (leaf) => leaf).message),
);

function ownEncryptionKeys(state: GroupState): KeyPair {
  const { ownLeaf, privateKeys } = state.core;
  return { publicKey: leafAt(state.tree, ownLeaf)!.encryptionKey, privateKey: privateKeys.get(2 * ownLeaf)! };
}

/** An Update of the sender's own, as a message. */
function forgedUpdate(
  state: GroupState,
  change: (leaf: UnsignedLeafNode) => UnsignedLeafNode,
  signer?: KeyPair,
): { message: Uint8Array; ref: Uint8Array } {
  const { core } = state;
  const { signature: _signature, ...leaf } = leafAt(state.tree, core.ownLeaf)!;
  const leafNode = signLeafNode(
    suite,
    signer?.privateKey ?? core.signaturePrivateKey,
    core.context.groupId,
    core.ownLeaf,
    change({ ...leaf, source: { kind: 'update' } }),
  );
  const content = { contentType: 2, proposal: { kind: 'update', leafNode } } as const;
  const signed = signContent(
    suite,
    core.signaturePrivateKey,
    1,
    memberContent(core, new Uint8Array(), content),
    core.contextBytes,
  );
  const ref = proposalRef(suite, { ...signed, auth: { signature: signed.signature, confirmationTag: undefined } });
  return { message: forgeMessage(context, state, content, { wireFormat: 'public' }), ref };
}

// ---- Proposals ------------------------------------------------------------------------------------------------------

const fresh = (): Uint8Array => freshKemKeyPair(suite, context.random).publicKey;

/** Bob proposes an Update, Mallory commits it by reference, Alice receives both. */
function committedUpdate(
  { mallory: m, alice: a, bob: b }: Scene,
  change: (leaf: UnsignedLeafNode) => UnsignedLeafNode,
  signer?: KeyPair,
): ProcessOutcome {
  const { message, ref } = forgedUpdate(b, (leaf) => change({ ...leaf, encryptionKey: fresh() }), signer);
  const atMallory = processed(context, m, message, 'proposal').state;
  const atAlice = processed(context, a, message, 'proposal').state;
  return receive(context, atAlice, forgeCommit(context, atMallory, { proposals: [ref] }));
}

test('without a fault, an Update is committed by reference', () => {
  assert.equal(committedUpdate({ mallory, alice, bob, people }, (leaf) => leaf).kind, 'commit');
});

refuses('addSignatureKeyUnique', 'THREATS 9: a client that is in the group already', () => {
  const again = keyPackageOf(world, people[2]!, { capabilities });
  return byMallory({ proposals: [addOf(again)] });
});
refuses('addSignatureKeyUnique', 'THREATS 9: a client twice', () =>
  byMallory({ proposals: [addOf(eveBundle), addOf(keyPackageOf(world, eve, { capabilities }))] }),
);
test('101 does not hinder replacing a device: Remove and Add of the same client in one commit', () => {
  const again = keyPackageOf(world, people[2]!, { capabilities });
  assert.equal(byMallory({ proposals: [removeBob, addOf(again)] }).kind, 'commit');
});

const frank = person(world, 'frank');
const frankBundle = keyPackageOf(world, frank, { capabilities });
refuses('addInitKeyUnique', 'THREATS 9: two Adds with one init key', () => {
  const { initKey } = readKeyPackageMessage(eveBundle.keyPackage);
  const twin = forgeKeyPackage(context, frankBundle, frank.signatureKeyPair, {
    keyPackage: (k) => ({ ...k, initKey }),
  });
  return byMallory({ proposals: [addOf(eveBundle), addOf(twin)] });
});
refuses('addEncryptionKeyUnique', 'THREATS 9: two Adds with one encryption key', () => {
  const { encryptionKey } = readKeyPackageMessage(eveBundle.keyPackage).leafNode;
  const twin = forgeKeyPackage(context, frankBundle, frank.signatureKeyPair, {
    leaf: (leaf) => ({ ...leaf, encryptionKey }),
  });
  return byMallory({ proposals: [addOf(eveBundle), addOf(twin)] });
});
refuses('addEncryptionKeyUnique', 'THREATS 9: an Add with the encryption key of a member', () =>
  byMallory({
    proposals: [
      addOf(forgedEve({ leaf: (leaf) => ({ ...leaf, encryptionKey: leafAt(alice.tree, 1)!.encryptionKey }) })),
    ],
  }),
);
refuses('addCapabilities', 'THREATS 9: an Add without a required capability', () => {
  const poor = keyPackageOf(world, eve);
  return receive(context, strict.alice, forgeCommit(context, strict.mallory, { proposals: [addOf(poor)] }));
});
refuses('addCapabilities', 'an Add of a client that does not know a group extension', () => {
  const extended = scene({ extensions: [{ extensionType: EXTENSION, extensionData: new Uint8Array(1) }] });
  const poor = keyPackageOf(world, eve);
  return receive(context, extended.alice, forgeCommit(context, extended.mallory, { proposals: [addOf(poor)] }));
});
refuses('removeUnique', 'two Removes of one leaf', () => byMallory({ proposals: [removeBob, removeBob] }));
refuses('removeUnique', 'an Update and a Remove of one leaf', () => {
  const { message, ref } = forgedUpdate(bob, (leaf) => ({ ...leaf, encryptionKey: fresh() }));
  const atMallory = processed(context, mallory, message, 'proposal').state;
  const atAlice = processed(context, alice, message, 'proposal').state;
  return receive(context, atAlice, forgeCommit(context, atMallory, { proposals: [ref, removeBob] }));
});
refuses('removeUnique', 'two Updates of one leaf', () => {
  const updates = [0, 1].map(() => forgedUpdate(bob, (leaf) => ({ ...leaf, encryptionKey: fresh() })));
  let [m, a] = [mallory, alice];
  for (const { message } of updates) {
    m = processed(context, m, message, 'proposal').state;
    a = processed(context, a, message, 'proposal').state;
  }
  return receive(context, a, forgeCommit(context, m, { proposals: updates.map(({ ref }) => ref) }));
});
for (const removed of [3, 4, 0xffff_ffff] as LeafIndex[]) {
  refuses('removeMember', `a Remove of leaf ${removed}, which nobody has`, () =>
    byMallory({ proposals: [{ kind: 'remove', removed }] }),
  );
}
refuses('removeMember', 'the same as a proposal of its own', () => {
  const proposal = { kind: 'remove', removed: 3 as LeafIndex } as const;
  return receive(context, alice, forgeMessage(context, mallory, { contentType: 2, proposal }));
});
refuses('updateCapabilities', 'THREATS 9: an Update without a required capability', () =>
  committedUpdate(strict, (leaf) => ({ ...leaf, capabilities: { ...leaf.capabilities, extensions: [] } })),
);
refuses('updateEncryptionKeyUnique', 'THREATS 9: an Update with the encryption key of a member', () =>
  committedUpdate({ mallory, alice, bob, people }, (leaf) => ({
    ...leaf,
    encryptionKey: leafAt(alice.tree, 1)!.encryptionKey,
  })),
);
refuses('updateSignatureKeyUnique', 'THREATS 9: an Update with the signature key of a member', () => {
  const { signatureKeyPair } = people[1]!;
  const change = (leaf: UnsignedLeafNode) => ({ ...leaf, signatureKey: signatureKeyPair.publicKey });
  return committedUpdate({ mallory, alice, bob, people }, change, signatureKeyPair);
});
refuses('updateByCommitter', 'an Update of the committer', () => {
  const { message, ref } = forgedUpdate(mallory, (leaf) => ({ ...leaf, encryptionKey: fresh() }));
  const { proposal } = processed(context, alice, message, 'proposal');
  const atAlice = processed(context, alice, message, 'proposal').state;
  assertRefused(byMallory({ proposals: [proposal] }), 'updateByCommitter');
  const knowing = { ...mallory, proposals: atAlice.proposals };
  return receive(context, atAlice, forgeCommit(context, knowing, { proposals: [ref] }));
});
refuses('updateSender', 'an Update of someone outside', () => {
  const { leafNode } = readKeyPackageMessage(eveBundle.keyPackage);
  try {
    checkProposal(context, suite, alice, { kind: 'update', leafNode }, { kind: 'newMemberCommit' });
  } catch (error) {
    const { rule } = error as { rule: RuleName };
    return { kind: 'rejected', name: rule, rule: validationRules[rule].number };
  }
  return { kind: 'accepted' };
});

const externalPsk = (nonce: Uint8Array): Proposal => ({
  kind: 'preSharedKey',
  psk: { kind: 'external', pskId: encodeUtf8('psk'), pskNonce: nonce },
});
const resumption = (usage: number, epoch: bigint): Proposal => ({
  kind: 'preSharedKey',
  psk: {
    kind: 'resumption',
    usage,
    pskGroupId: alice.core.context.groupId,
    pskEpoch: epoch,
    pskNonce: new Uint8Array(32),
  },
});
refuses('pskNonce', 'a nonce too short', () => byMallory({ proposals: [externalPsk(new Uint8Array(31))] }));
refuses('pskType', 'a PSK for a reinitialization', () => byMallory({ proposals: [resumption(2, 2n)] }));
refuses('pskType', 'a PSK for a branch', () => byMallory({ proposals: [resumption(3, 2n)] }));
refuses('pskUnique', 'one PSK twice', () =>
  byMallory({ proposals: [externalPsk(new Uint8Array(32)), externalPsk(new Uint8Array(32))] }),
);
refuses('pskAvailable', 'a resumption PSK of an epoch that never was', () =>
  byMallory({ proposals: [resumption(1, 77n)] }),
);
refuses('pskAvailable', 'an external PSK the receiver does not have', () => {
  const message = forgeCommit(context, mallory, { proposals: [externalPsk(new Uint8Array(32))] });
  return receive(world.context, alice, message);
});

const reInit: Proposal = { kind: 'reInit', groupId: new Uint8Array(4), version: 1, cipherSuite: 1, extensions: [] };
refuses('reInitVersion', 'a ReInit to version 0', () => byMallory({ proposals: [{ ...reInit, version: 0 }] }));
refuses('reInitAlone', 'a ReInit beside a Remove', () => byMallory({ proposals: [reInit, removeBob] }));
refuses('externalInitMember', 'an ExternalInit of a member', () =>
  byMallory({ proposals: [{ kind: 'externalInit', kemOutput: new Uint8Array(32) }] }),
);

const extensionsOf = (...extensions: Extension[]): Proposal => ({ kind: 'groupContextExtensions', extensions });
const known: Extension = { extensionType: EXTENSION, extensionData: new Uint8Array(2) };
refuses('extensionsOnce', 'two GroupContextExtensions', () =>
  byMallory({ proposals: [extensionsOf(), extensionsOf(known)] }),
);
refuses('extensionsSupported', 'an extension the members do not know', () =>
  byMallory({ proposals: [extensionsOf({ extensionType: 0xf777, extensionData: new Uint8Array() })] }),
);
refuses('extensionsSupported', 'a required capability the members do not have', () => {
  const required = { extensionTypes: [0xf777], proposalTypes: [], credentialTypes: [] };
  const extensionData = encodeRequiredCapabilities(required);
  return byMallory({ proposals: [extensionsOf({ extensionType: 3, extensionData })] });
});
refuses('extensionsUnique', 'an extension twice', () => byMallory({ proposals: [extensionsOf(known, known)] }));
refuses('extensionsValid', 'required_capabilities that do not decode', () =>
  byMallory({ proposals: [extensionsOf({ extensionType: 3, extensionData: new Uint8Array([9]) })] }),
);
refuses('extensionsValid', 'external_senders that do not decode', () =>
  byMallory({ proposals: [extensionsOf({ extensionType: 5, extensionData: new Uint8Array([9]) })] }),
);
refuses('extensionsValid', 'a ratchet_tree in the GroupContext', () =>
  byMallory({ proposals: [extensionsOf({ extensionType: 2, extensionData: new Uint8Array() })] }),
);
const custom: Proposal = { kind: 'custom', proposalType: 0xf00d, data: encodeUtf8('anything') };
refuses('proposalSupported', 'a proposal of a type the receiver does not know', () =>
  receive(context, alice, forgeMessage(context, mallory, { contentType: 2, proposal: custom })),
);
refuses('proposalSupported', 'a commit with a proposal of a type that members do not support', () =>
  byMallory({ proposals: [custom] }),
);
refuses('malformed', 'a proposal of the reserved type', () => {
  const proposal = { ...custom, proposalType: 0 };
  return receive(context, alice, forgeMessage(context, mallory, { contentType: 2, proposal }));
});
refuses('proposalsLimit', 'THREATS 27: more proposals than are kept', () => {
  const limited = scene({}, { capabilities }).mallory;
  const small = { ...limited, core: { ...limited.core, config: { ...limited.core.config, proposalsMax: 3 } } };
  let state = small;
  for (let i = 0; i < 3; i++) {
    const made = createProposal(context, state, { kind: 'externalPsk', pskId: encodeUtf8(`${i}`) });
    assert.ok(made.kind === 'proposed');
    ({ state } = made);
  }
  return createProposal(context, state, { kind: 'update' });
});

// ---- Commits --------------------------------------------------------------------------------------------------------

refuses('removeCommitter', 'a commit that removes its sender', () =>
  byMallory({ proposals: [{ kind: 'remove', removed: 0 as LeafIndex }] }),
);
refuses('pathRequired', 'THREATS 5: an empty commit without path', () => byMallory({ path: false }));
refuses('pathRequired', 'THREATS 5: a Remove without path', () => byMallory({ proposals: [removeBob], path: false }));
refuses('pathRequired', 'THREATS 5: a GroupContextExtensions without path', () =>
  byMallory({ proposals: [extensionsOf(known)], path: false }),
);
refuses('pathRequired', 'THREATS 5: an Update without path', () => {
  const { message, ref } = forgedUpdate(bob, (leaf) => ({ ...leaf, encryptionKey: fresh() }));
  const atMallory = processed(context, mallory, message, 'proposal').state;
  const atAlice = processed(context, alice, message, 'proposal').state;
  return receive(context, atAlice, forgeCommit(context, atMallory, { proposals: [ref], path: false }));
});
test('THREATS 5: a commit of ours that removes someone has a path whether asked for or not', () => {
  const made = commit(context, mallory, { proposals: [{ kind: 'remove', removed: 2 as LeafIndex }], path: false });
  assert.equal(processed(context, alice, made.commit, 'commit').effects.updated.length, 1);
});
refuses('pathLength', 'a path with a node too few', () =>
  byMallory({ updatePath: (path) => ({ ...path, nodes: path.nodes.slice(1) }) }),
);
refuses('pathLength', 'a path with a node too many', () =>
  byMallory({ updatePath: (path) => ({ ...path, nodes: [...path.nodes, path.nodes[0]!] }) }),
);
refuses('pathLength', 'a node with a ciphertext too few', () =>
  byMallory({
    updatePath: (path) => ({ ...path, nodes: path.nodes.map((node) => ({ ...node, encryptedPathSecret: [] })) }),
  }),
);
refuses('pathLength', 'a node with a ciphertext too many', () =>
  byMallory({
    updatePath: (path) => ({
      ...path,
      nodes: path.nodes.map((node) => ({
        ...node,
        encryptedPathSecret: [...node.encryptedPathSecret, node.encryptedPathSecret[0]!],
      })),
    }),
  }),
);
refuses('pathDecrypts', 'path secrets that do not decrypt', () =>
  byMallory({
    updatePath: (path) => ({
      ...path,
      nodes: path.nodes.map((node) => ({
        ...node,
        encryptedPathSecret: node.encryptedPathSecret.map((each) => ({
          ...each,
          ciphertext: patched(each.ciphertext, 0),
        })),
      })),
    }),
  }),
);
refuses('pathKeysMatch', 'path keys that do not come from the path secrets', () =>
  byMallory({ keyPairs: (pairs) => pairs.map(() => freshKemKeyPair(suite, context.random)) }),
);
refuses('leafKeysValid', 'a path key of small order', () =>
  byMallory({ keyPairs: (pairs) => pairs.map((pair) => ({ ...pair, publicKey: new Uint8Array(32) })) }),
);
refuses('confirmationTag', 'a wrong confirmation tag', () => byMallory({ confirmationTag: (tag) => patched(tag, 0) }));
refuses('pathLeafKeyUnique', 'a path leaf with the encryption key of a member', () =>
  byMallory({ encryptionKeyPair: ownEncryptionKeys(bob) }),
);
refuses('pathLeafKeyUnique', 'a path leaf with the signature key of a member', () => {
  const { signatureKeyPair } = people[2]!;
  return byMallory({
    leaf: (leaf) => ({ ...leaf, signatureKey: signatureKeyPair.publicKey }),
    leafSigner: signatureKeyPair,
  });
});
refuses('pathKeysUnique', 'a path with a key of the tree', () =>
  byMallory({ keyPairs: ([first, ...rest]) => [{ ...first!, ...ownEncryptionKeys(bob) }, ...rest] }),
);
refuses('pathKeysUnique', 'a path with one key twice', () =>
  byMallory({ keyPairs: (pairs) => pairs.map(() => pairs[0]!) }),
);
refuses('pathParentHash', 'a path leaf with another parent hash', () =>
  byMallory({ leaf: (leaf) => ({ ...leaf, source: { kind: 'commit', parentHash: new Uint8Array(32) } }) }),
);
refuses('proposalKnown', 'a reference to a proposal nobody saw', () => byMallory({ proposals: [new Uint8Array(32)] }));
refuses('proposalKnown', 'one reference twice', () => {
  const { message, ref } = forgedUpdate(bob, (leaf) => ({ ...leaf, encryptionKey: fresh() }));
  const atMallory = processed(context, mallory, message, 'proposal').state;
  const atAlice = processed(context, alice, message, 'proposal').state;
  return receive(context, atAlice, forgeCommit(context, atMallory, { proposals: [ref, ref] }));
});

const onlyAlice: MlsContext = world.at(NOW, {
  hooks: {
    validateCommit: ({ committer, proposals, before, after }) => {
      assert.equal(after.epoch, before.epoch + 1n);
      const removes = proposals.some(({ proposal }) => proposal.kind === 'remove');
      return removes && committer !== 1 ? { kind: 'reject', reason: 'only Alice may remove' } : { kind: 'accept' };
    },
  },
});
refuses('commitPolicy', 'a commit the application forbids, received', () =>
  receive(onlyAlice, alice, forgeCommit(context, mallory, { proposals: [removeBob] })),
);
refuses('commitPolicy', 'a commit the application forbids, of our own', () =>
  createCommit(onlyAlice, mallory, { proposals: [{ kind: 'remove', removed: 2 as LeafIndex }] }),
);
test('commitPolicy: the commit it allows is accepted by all', () => {
  const made = commit(onlyAlice, alice, { proposals: [{ kind: 'remove', removed: 2 as LeafIndex }] });
  assert.equal(processed(onlyAlice, mallory, made.commit, 'commit').effects.removed.length, 1);
});

// ---- From outside ---------------------------------------------------------------------------------------------------

const outsideSigner = person(world, 'service').signatureKeyPair;
const joinsExtension = (joins: ExternalJoins): Extension => ({
  extensionType: ExtensionType.ExternalJoins,
  extensionData: encodeExternalJoins(joins),
});
const sendersExtension: Extension = {
  extensionType: ExtensionType.ExternalSenders,
  extensionData: encodeExternalSenders([
    { signatureKey: outsideSigner.publicKey, credential: { credentialType: 1, identity: encodeUtf8('service') } },
  ]),
};
const openCapabilities = { capabilities: { extensions: [EXTENSION, ExtensionType.ExternalJoins] } };
const open = scene(
  { extensions: [joinsExtension({ commits: true, proposals: true }), sendersExtension], ...openCapabilities },
  openCapabilities,
);
const outsider = person(world, 'outsider');
const outsiderBundle = keyPackageOf(world, outsider, openCapabilities);
/** Bob again, who lost his state. */
const bobAgain = keyPackageOf(world, open.people[2]!, openCapabilities);

const fromOutside = (forgery: ExternalCommitForgery, bundle = outsiderBundle): ProcessOutcome =>
  receive(context, open.alice, forgeExternalCommit(context, open.mallory, bundle, forgery));

test('without a fault, an external commit the attacker makes is accepted', () => {
  assert.equal(fromOutside({}).kind, 'commit');
  assert.equal(fromOutside({ proposals: (init) => [removeBob, init] }, bobAgain).kind, 'commit');
});

refuses('senderType', 'THREATS 6: an external commit to a group that does not allow it', () =>
  receive(context, alice, forgeExternalCommit(context, mallory, outsiderBundle)),
);
refuses('senderType', 'THREATS 6: joining a group by external commit that does not allow it', () => {
  const groupInfo = createGroupInfo(context, alice, { externalPub: true });
  return joinByExternalCommit(context, {
    groupInfo,
    credential: credential('outsider'),
    signatureKeyPair: outsider.signatureKeyPair,
  });
});
refuses('senderType', 'THREATS 6: an external commit the hook forbids, whatever the extension says', () => {
  const externalJoin = (): Verdict => ({ kind: 'reject', reason: 'not now' });
  const message = forgeExternalCommit(context, open.mallory, outsiderBundle);
  return receive(world.at(NOW, { hooks: { externalJoin } }), open.alice, message);
});
refuses('externalInitPresent', 'THREATS 6: an external commit without ExternalInit', () =>
  fromOutside({ proposals: () => [] }),
);
refuses('externalInitOnce', 'an external commit with two ExternalInits', () =>
  fromOutside({ proposals: (init) => [init, init] }),
);
refuses('externalInit', 'a kem_output of the wrong length', () =>
  fromOutside({ proposals: () => [{ kind: 'externalInit', kemOutput: new Uint8Array(31) }] }),
);
refuses('externalProposals', 'THREATS 6: an external commit that brings someone else in', () =>
  fromOutside({ proposals: (init) => [init, addOf(eveBundle)] }),
);
refuses('externalProposals', 'THREATS 6: an external commit that changes the extensions', () =>
  fromOutside({ proposals: (init) => [init, extensionsOf()] }),
);
refuses('externalProposals', 'an external commit with two Removes', () =>
  fromOutside({ proposals: (init) => [init, removeBob, { kind: 'remove', removed: 0 as LeafIndex }] }),
);
refuses('externalProposals', 'an external commit with a ReInit', () =>
  fromOutside({ proposals: (init) => [init, reInit] }),
);
refuses('updateSender', 'an external commit with an Update', () => {
  const { leafNode } = readKeyPackageMessage(outsiderBundle.keyPackage);
  return fromOutside({ proposals: (init) => [init, { kind: 'update', leafNode }] });
});
refuses('externalRemove', 'THREATS 6: an external commit that removes someone else', () =>
  fromOutside({ proposals: (init) => [init, removeBob] }),
);
refuses('externalRemove', 'a joiner that would remove someone else', () =>
  joinByExternalCommit(context, {
    groupInfo: createGroupInfo(context, open.alice),
    credential: credential('outsider'),
    signatureKeyPair: outsider.signatureKeyPair,
    ...openCapabilities,
    replaces: 2 as LeafIndex,
  }),
);
refuses('removeMember', 'an external commit that removes nobody', () =>
  fromOutside({ proposals: (init) => [init, { kind: 'remove', removed: 3 as LeafIndex }] }),
);
refuses('externalByValue', 'THREATS 6: an external commit that covers a reference', () => {
  const made = createProposal(context, open.mallory, { kind: 'externalPsk', pskId: encodeUtf8('psk') });
  assert.ok(made.kind === 'proposed');
  const atAlice = processed(context, open.alice, made.message, 'proposal').state;
  const proposals = (init: Proposal) => [init, made.ref];
  return receive(context, atAlice, forgeExternalCommit(context, open.mallory, outsiderBundle, { proposals }));
});
refuses('externalPath', 'an external commit without path', () => fromOutside({ path: false }));
refuses('externalSignature', 'THREATS 6: an external commit signed by another key than that of its leaf', () =>
  fromOutside({ signer: other }),
);
refuses('externalInitMember', 'an ExternalInit in the commit of a member', () =>
  byMallory({ proposals: [{ kind: 'externalInit', kemOutput: new Uint8Array(32) }] }),
);
refuses('addSignatureKeyUnique', 'THREATS 9: a new member that is in the group already', () => {
  const message = newMemberProposal(bobAgain);
  const { ref, state } = processed(context, open.alice, message, 'proposal');
  return createCommit(context, state, { byReference: [ref] });
});
refuses('pathLeafKeyUnique', 'THREATS 9: an external commit of a client that is in the group already', () =>
  fromOutside({}, bobAgain),
);
refuses('pathLeafKeyUnique', 'THREATS 9: an external commit with the encryption key of a member', () =>
  fromOutside({ leaf: (leaf) => ({ ...leaf, encryptionKey: leafAt(open.alice.tree, 1)!.encryptionKey }) }),
);
refuses('leafKeyReplaced', 'an external commit that keeps the key of the leaf it replaces', () =>
  fromOutside(
    {
      proposals: (init) => [init, removeBob],
      leaf: (leaf) => ({ ...leaf, encryptionKey: leafAt(open.alice.tree, 2)!.encryptionKey }),
    },
    bobAgain,
  ),
);
refuses(
  'leafRequiredCapabilities',
  'THREATS 9: an external commit of a client that lacks what the group requires',
  () => fromOutside({ leaf: (leaf) => ({ ...leaf, capabilities: { ...leaf.capabilities, extensions: [] } }) }),
);
refuses('leafSource', 'an external commit with the leaf of a KeyPackage', () =>
  fromOutside({ leaf: (leaf) => ({ ...leaf, source: { kind: 'update' } }) }),
);
refuses('pathParentHash', 'an external commit with another parent hash', () =>
  fromOutside({ leaf: (leaf) => ({ ...leaf, source: { kind: 'commit', parentHash: new Uint8Array(32) } }) }),
);
refuses('confirmationTag', 'an external commit with a wrong confirmation tag', () =>
  fromOutside({ confirmationTag: (tag) => patched(tag, 0) }),
);
refuses('leafCredential', 'an external commit of a client the application refuses', () =>
  receive(refusing('outsider'), open.alice, forgeExternalCommit(context, open.mallory, outsiderBundle)),
);
refuses('commitPolicy', 'an external commit the application forbids', () => {
  const validateCommit = ({ external }: CommitToValidate): Verdict =>
    external ? { kind: 'reject', reason: 'invited people only' } : { kind: 'accept' };
  const message = forgeExternalCommit(context, open.mallory, outsiderBundle);
  return receive(world.at(NOW, { hooks: { validateCommit } }), open.alice, message);
});
refuses('epochPast', 'THREATS 6: an external commit by a stale GroupInfo', () => {
  const next = processed(context, open.alice, forgeCommit(context, open.mallory, {}), 'commit').state;
  return receive(context, next, forgeExternalCommit(context, open.mallory, outsiderBundle));
});

const joinBy = (groupInfo: Uint8Array) =>
  joinByExternalCommit(context, {
    groupInfo,
    credential: credential('outsider'),
    signatureKeyPair: outsider.signatureKeyPair,
    ...openCapabilities,
  });
const treeOf = (state: GroupState): Extension => ({ extensionType: 2, extensionData: exportRatchetTree(state) });
refuses('externalPub', 'a GroupInfo without external_pub', () =>
  joinBy(forgeGroupInfo(context, open.mallory, [treeOf(open.mallory)])),
);
refuses('externalPub', 'THREATS 25: a GroupInfo with an external_pub of small order', () =>
  joinBy(
    forgeGroupInfo(context, open.mallory, [
      treeOf(open.mallory),
      { extensionType: 4, extensionData: new Uint8Array([32, ...new Uint8Array(32)]) },
    ]),
  ),
);
refuses('groupInfoSignature', 'THREATS 6: a GroupInfo changed on its way', () =>
  joinBy(patched(createGroupInfo(context, open.alice), -1)),
);
refuses('treeHash', 'THREATS 6: a GroupInfo with the tree of another epoch', () => {
  const next = merged(context, commit(context, open.alice));
  return joinBy(forgeGroupInfo(context, next, [treeOf(open.alice)]));
});
refuses('wireFormat', 'THREATS 3: a Welcome as a GroupInfo', () => joinBy(withEve.welcome!));

function newMemberProposal(bundle: KeyPackageBundle, state = open.alice): Uint8Array {
  const { groupId: id, epoch } = state.core.context;
  const made = createNewMemberProposal(context, { groupId: id, epoch, keyPackage: bundle });
  assert.ok(made.kind === 'proposed');
  return made.message;
}

function serviceProposal(
  proposal: ExternalProposalParameters['proposal'],
  more: Partial<ExternalProposalParameters> = {},
): Uint8Array {
  const { groupId: id, epoch } = open.alice.core.context;
  return createExternalProposal(context, {
    cipherSuite: SUITE,
    groupId: id,
    epoch,
    senderIndex: 0,
    signaturePrivateKey: outsideSigner.privateKey,
    proposal,
    ...more,
  });
}

test('without a fault, proposals from outside are accepted', () => {
  processed(context, open.alice, newMemberProposal(outsiderBundle), 'proposal');
  processed(context, open.alice, serviceProposal({ kind: 'remove', removed: 2 as LeafIndex }), 'proposal');
});
refuses('senderType', 'THREATS 6: a new member asks a group that does not allow it', () =>
  receive(context, alice, newMemberProposal(outsiderBundle, alice)),
);
refuses('senderType', 'THREATS 6: an external sender the group does not name', () =>
  receive(context, open.alice, serviceProposal({ kind: 'remove', removed: 2 as LeafIndex }, { senderIndex: 1 })),
);
refuses('framedSignature', 'THREATS 6: a proposal in the name of an external sender', () => {
  const { privateKey } = outsider.signatureKeyPair;
  const remove = { kind: 'remove', removed: 2 as LeafIndex } as const;
  return receive(context, open.alice, serviceProposal(remove, { signaturePrivateKey: privateKey }));
});
refuses('framedSignature', 'THREATS 6: a KeyPackage offered by someone else', () =>
  receive(context, open.alice, newMemberProposal({ ...outsiderBundle, signaturePrivateKey: other.privateKey })),
);
refuses('epochPast', 'THREATS 6: a proposal from outside of an epoch gone by', () =>
  receive(context, open.alice, serviceProposal({ kind: 'remove', removed: 2 as LeafIndex }, { epoch: 0n })),
);
refuses('externalProposalType', 'THREATS 6: an external sender that sends an Update', () => {
  const { leafNode } = readKeyPackageMessage(outsiderBundle.keyPackage);
  return receive(
    context,
    open.alice,
    outsideMessage({ kind: 'external', senderIndex: 0 }, { kind: 'update', leafNode }),
  );
});
refuses('externalProposalType', 'an external sender that sends a proposal of its own type', () =>
  receive(context, open.alice, outsideMessage({ kind: 'external', senderIndex: 0 }, custom)),
);
refuses('externalProposalType', 'THREATS 6: a new member that removes someone', () =>
  receive(context, open.alice, outsideMessage({ kind: 'newMemberProposal' }, removeBob)),
);
refuses('keyPackageSignature', 'a new member with a forged KeyPackage', () => {
  const forged = forgeKeyPackage(context, outsiderBundle, outsider.signatureKeyPair, { signer: other });
  return receive(context, open.alice, newMemberProposal(forged));
});
refuses('removeMember', 'an external sender that removes nobody', () =>
  receive(context, open.alice, serviceProposal({ kind: 'remove', removed: 3 as LeafIndex })),
);
refuses('extensionsValid', 'ExternalJoins without any flag', () =>
  byMallory({ proposals: [extensionsOf({ extensionType: 0xf0e1, extensionData: new Uint8Array(1) })] }),
);
refuses('malformed', 'a proposal from outside with a membership tag', () => {
  const message = serviceProposal({ kind: 'remove', removed: 2 as LeafIndex });
  return receive(context, open.alice, new Uint8Array([...message, 1, 0]));
});

function outsideMessage(sender: Sender, proposal: Proposal): Uint8Array {
  const content = { ...memberContent(open.alice.core, new Uint8Array(), { contentType: 2, proposal }), sender };
  const signed = signContent(suite, outsideSigner.privateKey, 1, content, undefined);
  return encodeOutsideMessage({ ...signed, auth: { signature: signed.signature, confirmationTag: undefined } });
}

// ---- Groups that continue another -----------------------------------------------------------------------------------

/** Mallory's group after a ReInit, as Mallory and Alice have it. */
const closing = commit(context, mallory, {
  proposals: [{ kind: 'reInit', groupId: encodeUtf8('next'), cipherSuite: 1 }],
});
const closedMallory = merged(context, closing);
const closedAlice = processed(context, alice, closing.commit, 'commit').state;
const aliceAgain = keyPackageOf(world, people[1]!, { capabilities });
const bobNext = keyPackageOf(world, people[2]!, { capabilities });

interface Continuation {
  readonly previous?: GroupState | undefined;
  readonly usage?: number;
  readonly pskGroupId?: Uint8Array;
  readonly pskEpoch?: bigint;
  readonly members?: readonly KeyPackageBundle[];
  readonly context?: (context: GroupContext) => GroupContext;
  readonly psks?: readonly PskWithId[];
}

/** What Alice says to a Welcome that claims to continue a group of hers. */
function continued(forgery: Continuation): Outcome {
  const previous = 'previous' in forgery ? forgery.previous : closedAlice;
  const usage = forgery.usage ?? 2;
  const old = (previous ?? closedAlice).core;
  const id = {
    kind: 'resumption',
    usage,
    pskGroupId: forgery.pskGroupId ?? old.context.groupId,
    pskEpoch: forgery.pskEpoch ?? old.context.epoch,
    pskNonce: new Uint8Array(32),
  } as const;
  const next = usage === 2 ? encodeUtf8('next') : encodeUtf8('branch');
  const welcome = forgeWelcome(context, aliceAgain, {
    tree: flatTree(...(forgery.members ?? [aliceAgain, bobNext])),
    signer: people[0]!.signatureKeyPair,
    context: (each) => (forgery.context ?? ((c) => c))({ ...each, groupId: next, epoch: 1n }),
    psks: forgery.psks ?? [{ id, psk: old.secrets.resumptionPsk }],
  });
  return joinGroup(context, { welcome, keyPackage: aliceAgain, ...(previous && { previous }) });
}

test('without a fault, a Welcome that continues a group is accepted', () => {
  assert.equal(continued({}).kind, 'joined');
  assert.equal(continued({ usage: 3, previous: alice }).kind, 'joined');
  assert.equal(continued({ usage: 3, previous: alice, members: [aliceAgain] }).kind, 'joined');
});
refuses('welcomePsks', 'THREATS 31: a Welcome of a ReInit to someone who continues nothing', () =>
  continued({ previous: undefined }),
);
refuses('welcomePsks', 'THREATS 31: a Welcome without the PSK of the old group', () => continued({ psks: [] }));
refuses('welcomePsks', 'THREATS 31: the PSK of another group', () => continued({ pskGroupId: encodeUtf8('other') }));
refuses('welcomePsks', 'a PSK with unknown usage', () => continued({ usage: 7 }));
refuses('welcomePsks', 'two PSKs of old groups', () => {
  const { groupId: pskGroupId, epoch: pskEpoch } = closedAlice.core.context;
  const psk = closedAlice.core.secrets.resumptionPsk;
  const ids = [2, 3].map((usage) => ({
    id: { kind: 'resumption', usage, pskGroupId, pskEpoch, pskNonce: new Uint8Array(32) } as const,
    psk,
  }));
  return continued({ psks: ids });
});
refuses('reInitContinues', 'THREATS 31: a group that was not closed by a ReInit', () => continued({ previous: alice }));
refuses('reInitContinues', 'THREATS 31: another group id than the ReInit said', () =>
  continued({ context: (each) => ({ ...each, groupId: encodeUtf8('elsewhere') }) }),
);
refuses('reInitContinues', 'THREATS 31: other extensions than the ReInit said', () =>
  continued({ context: (each) => ({ ...each, extensions: [known] }) }),
);
refuses('reInitContinues', 'THREATS 31: a later epoch', () =>
  continued({ context: (each) => ({ ...each, epoch: 2n }) }),
);
refuses('reInitContinues', 'THREATS 31: the PSK of an epoch before the ReInit', () => {
  const pskEpoch = closedAlice.core.context.epoch - 1n;
  const { groupId: pskGroupId } = closedAlice.core.context;
  const id = { kind: 'resumption', usage: 2, pskGroupId, pskEpoch, pskNonce: new Uint8Array(32) } as const;
  return continued({ psks: [{ id, psk: alice.core.secrets.resumptionPsk }] });
});
refuses('reInitContinues', 'THREATS 31: a member left behind', () => continued({ members: [aliceAgain] }));
refuses('reInitContinues', 'a member left behind by ourselves', () =>
  createReinitializedGroup(context, closedMallory, {
    credential: credential('mallory'),
    signatureKeyPair: people[0]!.signatureKeyPair,
    capabilities,
    keyPackages: [verified(context, aliceAgain.keyPackage)],
  }),
);
refuses('branchContinues', 'a branch in a later epoch', () =>
  continued({ usage: 3, previous: alice, context: (each) => ({ ...each, epoch: 2n }) }),
);
refuses('branchContinues', 'a branch with someone who is no member', () =>
  continued({ usage: 3, previous: alice, members: [aliceAgain, frankBundle] }),
);
refuses('branchContinues', 'a branch with someone who is no member, of our own', () =>
  createBranch(context, mallory, {
    groupId: encodeUtf8('branch'),
    credential: credential('mallory'),
    signatureKeyPair: people[0]!.signatureKeyPair,
    capabilities,
    keyPackages: [verified(context, frankBundle.keyPackage)],
  }),
);
refuses('pskAvailable', 'a branch of an epoch whose PSK is gone', () =>
  continued({ usage: 3, previous: alice, pskEpoch: 99n }),
);

// ---- Welcomes and their trees ---------------------------------------------------------------------------------------

/** Mallory's real group with Eve added, its tree full of parent nodes: the honest beginning of each forgery. */
const withEve = commit(context, mallory, {
  proposals: [{ kind: 'add', keyPackage: verified(context, eveBundle.keyPackage) }],
});
const eveTree = merged(context, withEve).tree;
const groupId = mallory.core.context.groupId;

function welcomed(
  forgery: Partial<WelcomeForgery>,
  join: { ratchetTree?: Uint8Array; context?: MlsContext } = {},
): Outcome {
  const welcome = forgeWelcome(context, eveBundle, {
    tree: eveTree,
    signer: people[0]!.signatureKeyPair,
    context: (each) => ({ ...each, groupId }),
    ...forgery,
  });
  const { ratchetTree } = join;
  return joinGroup(join.context ?? context, { welcome, keyPackage: eveBundle, ...(ratchetTree && { ratchetTree }) });
}

/** A tree of leaves only, Mallory's first; none of its nodes needs a parent hash. */
function flatTree(...bundles: KeyPackageBundle[]): RatchetTree {
  const [first, ...rest] = [keyPackageOf(world, people[0]!, { capabilities }), ...bundles].map(
    ({ keyPackage }) => readKeyPackageMessage(keyPackage).leafNode,
  );
  const tree = editTree(newTree(first!));
  for (const leaf of rest) addLeaf(tree, leaf);
  return tree;
}

test('without a fault, a Welcome the attacker makes is accepted', () => {
  assert.equal(welcomed({}).kind, 'joined');
  assert.equal(welcomed({ tree: flatTree(eveBundle, frankBundle) }).kind, 'joined');
});

function changedTree(change: (tree: ReturnType<typeof editTree>) => void): RatchetTree {
  const tree = editTree(eveTree);
  change(tree);
  return tree;
}

refuses('treeTrailingBlank', 'THREATS 8: a tree that ends in a blank node', () =>
  welcomed({
    treeBytes: (bytes) => {
      const inner = bytes.subarray(bytes.length - vectorLength(bytes));
      return new Writer()
        .varint(inner.length + 1)
        .bytes(inner)
        .u8(0)
        .finish();
    },
  }),
);
refuses('treeTrailingBlank', 'THREATS 8: an empty tree', () => welcomed({ treeBytes: () => new Uint8Array([0]) }));

function vectorLength(bytes: Uint8Array): number {
  const header = 1 << (bytes[0]! >> 6);
  return bytes.length - header;
}

refuses('treeNodeType', 'THREATS 8: a leaf at an odd position', () =>
  welcomed({
    treeBytes: (bytes) => {
      const inner = bytes.subarray(bytes.length - vectorLength(bytes));
      return new Writer()
        .varint(inner.length + 1)
        .u8(0)
        .bytes(inner)
        .finish();
    },
  }),
);
refuses('treeSize', 'THREATS 27: a tree of more leaves than anyone needs', () => {
  const writer = new Writer();
  const nodes = Array.from({ length: 131_072 }, (_, i) => i);
  writer.vector(nodes, (w, i) => {
    if (i === 131_071) w.u8(1).u8(2).opaque(new Uint8Array(32)).opaque(new Uint8Array()).varint(0);
    else w.u8(0);
  });
  return welcomed({ treeBytes: () => writer.finish() });
});
refuses('treeHash', 'THREATS 8: another tree than the one hashed', () =>
  welcomed({ treeInside: false }, { ratchetTree: encodedFlatTree() }),
);

function encodedFlatTree(): Uint8Array {
  let bytes = new Uint8Array();
  welcomed({
    tree: flatTree(eveBundle),
    treeBytes: (tree) => {
      bytes = tree.slice();
      return tree;
    },
  });
  return bytes;
}

refuses('treeParentHash', 'THREATS 8: a parent node with a key of the attacker', () =>
  welcomed({ tree: changedTree((tree) => setParent(tree, 1, { ...parentAt(tree, 1)!, encryptionKey: fresh() })) }),
);
refuses('treeParentHash', 'THREATS 8: a parent node nobody made', () => {
  const tree = editTree(flatTree(eveBundle));
  setParent(tree, 1, { encryptionKey: fresh(), parentHash: new Uint8Array(), unmergedLeaves: [] });
  return welcomed({ tree });
});
refuses('leafKeysValid', 'THREATS 25: a parent node whose key nobody can encrypt to', () => {
  const tree = editTree(flatTree(frankBundle, eveBundle));
  const suite = suiteOf(context.crypto, 1);
  const parentHash = setPathKeys(suite, tree, filteredDirectPath(tree, 0), [new Uint8Array(32), fresh()]);
  const { signature: _signature, ...leaf } = leafAt(tree, 0)!;
  const { privateKey } = people[0]!.signatureKeyPair;
  const source = { kind: 'commit', parentHash } as const;
  setLeaf(tree, 0, signLeafNode(suite, privateKey, groupId, 0, { ...leaf, source }));
  return welcomed({ tree });
});
const unmergedCases: [string, number[]][] = [
  ['a blank leaf', [7]],
  ['a leaf elsewhere in the tree', [3]],
  ['leaves in descending order', [1, 0]],
  ['a leaf twice', [1, 1]],
];
for (const [what, leaves] of unmergedCases) {
  refuses('treeUnmergedLeaves', `THREATS 8: unmerged leaves with ${what}`, () =>
    welcomed({
      tree: changedTree((tree) => setParent(tree, 1, { ...parentAt(tree, 1)!, unmergedLeaves: leaves as LeafIndex[] })),
    }),
  );
}
refuses('treeUnmergedLeaves', 'THREATS 8: a leaf unmerged above and not below', () =>
  welcomed({
    tree: changedTree((tree) => setParent(tree, 3, { ...parentAt(tree, 3)!, unmergedLeaves: [1 as LeafIndex] })),
  }),
);
refuses('treeKeysUnique', 'THREATS 9: two leaves with one encryption key', () => {
  const { encryptionKey } = readKeyPackageMessage(eveBundle.keyPackage).leafNode;
  const twin = forgeKeyPackage(context, frankBundle, frank.signatureKeyPair, {
    leaf: (leaf) => ({ ...leaf, encryptionKey }),
  });
  return welcomed({ tree: flatTree(eveBundle, twin) });
});
refuses('treeKeysUnique', 'THREATS 9: two leaves with one signature key', () =>
  welcomed({ tree: flatTree(eveBundle, frankBundle, keyPackageOf(world, frank, { capabilities })) }),
);
refuses('leafSignature', 'THREATS 8: a leaf in the tree that its owner did not sign', () => {
  const tree = editTree(flatTree(eveBundle, frankBundle));
  setLeaf(tree, 2, { ...leafAt(tree, 2)!, credential: credential('someone else') });
  return welcomed({ tree });
});
refuses('leafSignature', 'THREATS 8: a leaf moved to another position', () =>
  welcomed({
    tree: changedTree((tree) => {
      addLeaf(tree, readKeyPackageMessage(frankBundle.keyPackage).leafNode);
      const leaf = leafAt(tree, 2)!;
      setLeaf(tree, 2, leafAt(tree, 4));
      setLeaf(tree, 4, leaf);
      setParent(tree, 5, undefined);
      setParent(tree, 3, undefined);
      setParent(tree, 1, undefined);
    }),
  }),
);
refuses('leafRequiredCapabilities', 'THREATS 9: a group whose members do not have what it requires', () => {
  const poor = keyPackageOf(world, frank);
  return welcomed({
    tree: flatTree(eveBundle, poor),
    context: (each) => ({ ...each, extensions: [requireExtension] }),
  });
});
refuses('leafCredential', 'a member the application refuses, when joining', () =>
  welcomed({ tree: flatTree(eveBundle, frankBundle) }, { context: refusing('frank') }),
);
refuses('leafLifetime', 'an expired leaf in the tree, where joiners check it', () =>
  welcomed(
    { tree: flatTree(eveBundle, frankBundle) },
    { context: world.at(NOW + 85 * 24 * 3600, { checkReceivedLifetimes: true }) },
  ),
);
refuses('leafCredentialSupport', 'a credential in the tree that others do not support', () => {
  const strange = forgeKeyPackage(context, frankBundle, frank.signatureKeyPair, {
    leaf: (leaf) => ({
      ...leaf,
      credential: { credentialType: 2, certificates: [] },
      capabilities: { ...leaf.capabilities, credentials: [1, 2] },
    }),
  });
  return welcomed({ tree: flatTree(eveBundle, strange) });
});

refuses('welcomeKeyPackage', 'a Welcome for someone else', () => {
  const welcome = forgeWelcome(context, frankBundle, { tree: eveTree, signer: people[0]!.signatureKeyPair });
  return joinGroup(context, { welcome, keyPackage: eveBundle });
});
refuses('welcomeSuite', 'a Welcome of another suite', () => welcomed({ cipherSuite: 3 }));
refuses('welcomeSuite', 'a Welcome of a suite nobody knows', () => welcomed({ cipherSuite: 0xbeef }));
refuses('welcomeSuite', 'a GroupInfo of another suite', () =>
  welcomed({ context: (each) => ({ ...each, groupId, cipherSuite: 3 }) }),
);
refuses('welcomeSuite', 'a GroupInfo of another version', () =>
  welcomed({ context: (each) => ({ ...each, groupId, version: 2 }) }),
);
refuses('welcomeSecrets', 'group secrets that do not decrypt', () => {
  const welcome = withEve.welcome!;
  return joinGroup(context, { welcome, keyPackage: { ...eveBundle, initPrivateKey: eveBundle.encryptionPrivateKey } });
});
refuses('welcomeSecrets', 'a Welcome changed on its way', () =>
  joinGroup(context, { welcome: patched(withEve.welcome!, -1), keyPackage: eveBundle }),
);
refuses('welcomeGroupInfo', 'a GroupInfo under another key', () => welcomed({ groupInfoKey: new Uint8Array(16) }));
for (const usage of [2, 3]) {
  const id = { kind: 'resumption', usage, pskGroupId: groupId, pskEpoch: 1n, pskNonce: new Uint8Array(32) } as const;
  refuses('welcomePsks', `a PSK with usage ${usage}, though nothing was reinitialized or branched`, () =>
    welcomed({ psks: [{ id, psk: EXTERNAL_PSK }] }),
  );
}
refuses('pskAvailable', 'a Welcome with a PSK the joiner does not have', () => {
  const id = { kind: 'external', pskId: encodeUtf8('psk'), pskNonce: new Uint8Array(32) } as const;
  const psks = [{ id, psk: EXTERNAL_PSK }];
  assert.equal(welcomed({ psks }).kind, 'joined');
  return welcomed({ psks }, { context: world.context });
});
refuses('groupInfoSignature', 'a GroupInfo signed by someone else', () => welcomed({ signer: other }));
refuses('groupInfoSignature', 'a GroupInfo in the name of nobody', () => welcomed({ signerLeaf: 99 }));
refuses('confirmationTag', 'a GroupInfo with another confirmation tag', () =>
  welcomed({ confirmationTag: (tag) => patched(tag, 0) }),
);
refuses('extensionsUnique', 'a GroupInfo with an extension twice', () =>
  welcomed({ groupInfoExtensions: [known, known] }),
);
refuses('extensionsValid', 'a GroupContext with a ratchet_tree', () =>
  welcomed({
    context: (each) => ({ ...each, groupId, extensions: [{ extensionType: 2, extensionData: new Uint8Array() }] }),
  }),
);
refuses('welcomeGroupUnique', 'THREATS 4: a Welcome into another group than the one expected', () => {
  const { groupId: expectedGroupId } = strict.alice.core.context;
  return joinGroup(context, { welcome: withEve.welcome!, keyPackage: eveBundle, expectedGroupId });
});
refuses('welcomeGroupUnique', 'THREATS 4: a Welcome into a group that exists already', () => {
  const groupExists = (id: Uint8Array): boolean => Buffer.from(id).equals(groupId);
  return joinGroup(context, { welcome: withEve.welcome!, keyPackage: eveBundle, groupExists });
});
refuses('welcomeTree', 'a Welcome without a tree', () => welcomed({ treeInside: false }));
refuses('welcomeLeaf', 'THREATS 8: a tree without the joiner', () => welcomed({ tree: flatTree(frankBundle) }));
refuses('welcomeLeaf', 'THREATS 8: a tree with another leaf of the joiner', () =>
  welcomed({ tree: flatTree(keyPackageOf(world, eve, { capabilities })) }),
);
refuses('welcomePathSecret', 'a path secret that does not belong to the tree', () =>
  welcomed({ groupSecrets: (secrets) => ({ ...secrets, pathSecret: new Uint8Array(32) }) }),
);
refuses('welcomePathSecret', 'a path secret for a blank node', () =>
  welcomed({
    tree: flatTree(eveBundle),
    groupSecrets: (secrets) => ({ ...secrets, pathSecret: new Uint8Array(32) }),
  }),
);

// ---- The table ------------------------------------------------------------------------------------------------------

test('every rule has a test, and a number of its own', () => {
  const rules = Object.keys(validationRules) as RuleName[];
  assert.deepEqual(
    rules.filter((rule) => !covered.has(rule)),
    [],
  );
  assert.equal(new Set(rules.map((rule) => validationRules[rule].number)).size, rules.length);
});

test("every number of OpenMLS's list that is a refusal has its rule", () => {
  const range = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, i) => from + i);
  const list = [range(2, 11), range(101, 113), range(200, 209), range(240, 246), [300], range(401, 403)].flat();
  const numbers = (Object.keys(validationRules) as RuleName[]).map((rule): number => validationRules[rule].number);
  assert.deepEqual(
    numbers.filter((number) => number < 600).toSorted((a, b) => a - b),
    list,
  );
});

test('ValSem400: resumption PSKs of as many past epochs are kept as the group is configured for', () => {
  let state = scene({ config: { resumptionEpochsMax: 2 } }).mallory;
  for (let i = 0; i < 4; i++) state = merged(context, commit(context, state));
  const { epoch } = state.core.context;
  const kept = [0n, 1n, 2n, 3n, 4n].filter((age) => resumptionPsk(state, epoch - age) !== undefined);
  assert.deepEqual(kept, [0n, 1n, 2n]);
});

test('the sender of a commit is held to the same rules', () => {
  const keyPackage = verified(context, eveBundle.keyPackage);
  const attempts: [RuleName, Parameters<typeof createCommit>[2]][] = [
    ['removeCommitter', { proposals: [{ kind: 'remove', removed: 0 as LeafIndex }] }],
    ['removeMember', { proposals: [{ kind: 'remove', removed: 9 as LeafIndex }] }],
    [
      'addSignatureKeyUnique',
      {
        proposals: [
          { kind: 'add', keyPackage },
          { kind: 'add', keyPackage },
        ],
      },
    ],
    ['extensionsUnique', { proposals: [{ kind: 'groupContextExtensions', extensions: [known, known] }] }],
    ['proposalKnown', { byReference: [new Uint8Array(32)] }],
    ['pskAvailable', { proposals: [{ kind: 'resumptionPsk', groupId, epoch: 50n }] }],
    ['leafRequiredCapabilities', { leafNode: { capabilities: { ...emptyCapabilities, extensions: [] } } }],
  ];
  for (const [rule, parameters] of attempts) {
    const state = rule === 'leafRequiredCapabilities' ? strict.mallory : mallory;
    assertRefused(createCommit(context, state, parameters) as Rejected, rule);
  }
  const { signatureKeyPair } = people[1]!;
  assertRefused(createCommit(context, mallory, { leafNode: { signatureKeyPair } }), 'pathLeafKeyUnique');
  const twice = { leafNode: { extensions: [known, known] } };
  assertRefused(createCommit(context, mallory, twice), 'leafExtensions');
  assertRefused(createCommit(refusing('mallory'), mallory), 'leafCredential');
  assert.throws(() => keyPackageOf(world, eve, { leafNodeExtensions: [known, known] }), { name: 'MlsUsageError' });
  assert.throws(() => groupOf(world, eve, { extensions: [known, known] }), { name: 'MlsUsageError' });
});

test('a ReInit closes the group for everyone', () => {
  const proposal = forgeMessage(context, mallory, { contentType: 2, proposal: reInit });
  const a = processed(context, alice, proposal, 'proposal').state;
  const b = processed(context, bob, proposal, 'proposal').state;
  const made = commit(context, a);
  for (const state of [merged(context, made), processed(context, b, made.commit, 'commit').state]) {
    assert.equal(state.core.status, 'reinitialized');
    assert.throws(() => protectApplication(context, state, new Uint8Array()), { name: 'MlsUsageError' });
  }
});

const emptyCapabilities: Capabilities = {
  versions: [1],
  cipherSuites: [1],
  extensions: [],
  proposals: [],
  credentials: [1],
};
