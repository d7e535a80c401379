/**
 * What is left of secrets. Everything the primitives gave out is recorded; after each step was stored and the replaced
 * state wiped, whatever is not among the living is looked for: in the buffer that held it, in every object of every
 * member's state, in the rows of the storage, and in the buffers the encoder uses again.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeUtf8 } from '@quicprochat/crypto';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { freshKemKeyPair, suiteOf } from './cipher-suites.ts';
import { Writer } from './codec.ts';
import { defaultConfig } from './group-state.ts';
import {
  CipherSuiteId,
  createBranch,
  createCommit,
  createGroup,
  createGroupInfo,
  createProposal,
  createReinitializedGroup,
  diffRows,
  encodeExternalJoins,
  exportSecret,
  type Extension,
  ExtensionType,
  generateKeyPackage,
  type GroupState,
  joinByExternalCommit,
  joinGroup,
  type KeyPackageBundle,
  memoryRows,
  mergePendingCommit,
  type MlsContext,
  ownLeafIndex,
  type PendingCommit,
  processMessage,
  protectApplication,
  restoreGroup,
  type RowStore,
  verifyKeyPackage,
  wipeGroup,
  wipePendingCommit,
  wipeReplaced,
} from './index.ts';
import { type CommitForgery, forgeCommit } from './testing/attacker.node.ts';
import { reachableBytes, recordingCrypto, type RecordedSecret } from './testing/recording-crypto.node.ts';
import { assertRefused, credential, NOW, type Person } from './testing/world.node.ts';

/** Derived and consumed within one step: the step that made them overwrites them before it ends. */
const NEVER_KEPT = [
  'joiner',
  'welcome',
  'epoch',
  'path',
  'node',
  'derived psk',
  'exp',
  'sec',
  'base_nonce',
  'extracted',
  'shared secret',
  'opened',
  'unknown',
  'random',
];
/** What the application asked for, which is its own. */
const GIVEN_AWAY = ['exported'];

const EXTERNAL_PSK = new Uint8Array(32).fill(0x5a);

interface Member {
  readonly person: Person;
  state: GroupState;
  readonly rows: RowStore;
}

class Scene {
  readonly context: MlsContext;
  readonly recorded: readonly RecordedSecret[];
  readonly suite: number;
  readonly members = new Set<Member>();
  /** Bundles and pending commits not used yet: the application still has them. */
  readonly held = new Set<KeyPackageBundle | PendingCommit>();

  constructor(suite: number) {
    const { crypto, recorded } = recordingCrypto(nodeCrypto);
    this.suite = suite;
    this.recorded = recorded;
    const hooks = { externalPsk: () => EXTERNAL_PSK };
    this.context = { crypto, random: crypto.random, now: NOW, hooks };
  }

  person(name: string): Person {
    const scheme = nodeCrypto.signature(0x0807);
    return { name, signatureKeyPair: scheme.deriveKeyPair(nodeCrypto.random(32)) };
  }

  parameters({ name, signatureKeyPair }: Person) {
    const capabilities = { extensions: [ExtensionType.ExternalJoins] };
    return { cipherSuite: this.suite, credential: credential(name), signatureKeyPair, capabilities };
  }

  enter(person: Person, state: GroupState): Member {
    const member = { person, state, rows: memoryRows() };
    member.rows.apply(diffRows(undefined, state));
    this.members.add(member);
    return member;
  }

  /** Stores the step, wipes what it replaced. */
  step(member: Member, next: GroupState): void {
    member.rows.apply(diffRows(member.state, next));
    wipeReplaced(this.context, member.state, next);
    member.state = next;
  }

  bundle(person: Person): KeyPackageBundle {
    const bundle = generateKeyPackage(this.context, this.parameters(person));
    this.held.add(bundle);
    return bundle;
  }

  verified(bundle: KeyPackageBundle) {
    return accepted(verifyKeyPackage(this.context, bundle.keyPackage)).keyPackage;
  }

  join(person: Person, bundle: KeyPackageBundle, welcome: Uint8Array | undefined, previous?: GroupState): Member {
    assert.ok(welcome);
    const joined = accepted(joinGroup(this.context, { welcome, keyPackage: bundle, ...(previous && { previous }) }));
    this.forget(bundle);
    return this.enter(person, joined.state);
  }

  /** The application is through with a bundle. */
  forget(bundle: KeyPackageBundle): void {
    this.held.delete(bundle);
    this.context.crypto.wipe(bundle.initPrivateKey);
    this.context.crypto.wipe(bundle.encryptionPrivateKey);
  }

  receive(message: Uint8Array, ...by: readonly Member[]): void {
    for (const member of by) this.step(member, accepted(processMessage(this.context, member.state, message)).state);
  }

  commit(by: Member, others: readonly Member[], parameters: Parameters<typeof createCommit>[2] = {}) {
    const made = accepted(createCommit(this.context, by.state, parameters));
    this.step(by, made.state);
    this.receive(made.commit, ...others);
    this.step(by, mergePendingCommit(this.context, by.state, made.pending));
    return made;
  }

  leave(member: Member): void {
    wipeGroup(this.context, member.state);
    member.rows.apply([{ kind: 'deletePrefix', prefix: '' }]);
    this.members.delete(member);
  }

  /** Looks for everything that should be gone. */
  look(after: string): void {
    const states = [...this.members].map(({ state }) => state);
    const rows = [...this.members].flatMap(({ rows: store }) => [...store.list('')].map(({ bytes }) => bytes));
    const places = [...reachableBytes(states), ...reachableBytes([...this.held]), ...rows];
    const living = new Set(places);
    const haystack = Buffer.concat(places);
    for (const { label, buffer, value } of this.recorded) {
      if (value.length < 12 || GIVEN_AWAY.includes(label) || isZero(value)) continue;
      const what = `${after}: "${label}" of ${value.length} bytes`;
      if (living.has(buffer)) {
        assert.ok(!NEVER_KEPT.includes(label), `${what} is kept in a state`);
        assert.ok(!isZero(buffer), `${what} was wiped while in use`);
        continue;
      }
      if (label !== 'nonce') assert.ok(isZero(buffer), `${what} was not wiped`);
      // In a state restored from rows, or carried over, the same secret may live in another buffer.
      if (haystack.includes(value)) assert.ok(!NEVER_KEPT.includes(label), `${what} is left in a state or a row`);
    }
    const writers = Array.from({ length: 12 }, () => new Writer().zeros(4096));
    for (const writer of writers) assert.ok(isZero(writer.finish()), `${after}: something is left in the encoder`);
  }

  /** The living secrets as bytes, to see later that they are nowhere any more. */
  secretsOf(...states: readonly GroupState[]): Buffer[] {
    const arrays = reachableBytes(states);
    return this.recorded
      .filter(({ label, buffer }) => arrays.has(buffer) && label !== 'random' && label !== 'nonce')
      .map(({ value }) => value);
  }

  assertGone(secrets: readonly Buffer[], after: string): void {
    assert.ok(secrets.length > 0, after);
    const rows = [...this.members].flatMap(({ rows: store }) => [...store.list('')].map(({ bytes }) => bytes));
    const states = [...this.members].map(({ state }) => state);
    const haystack = Buffer.concat([...reachableBytes(states), ...rows]);
    for (const secret of secrets) assert.ok(!haystack.includes(secret), after);
  }
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}

function accepted<T extends { readonly kind: string }>(outcome: T): Exclude<T, { kind: 'rejected' }> {
  assert.notEqual(outcome.kind, 'rejected', 'reason' in outcome ? String(outcome.reason) : '');
  return outcome as Exclude<T, { kind: 'rejected' }>;
}

const doorOpen: Extension = {
  extensionType: ExtensionType.ExternalJoins,
  extensionData: encodeExternalJoins({ commits: true, proposals: false }),
};

for (const [name, suite] of [
  ['suite 0x0001', CipherSuiteId.MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519],
  ['the post-quantum suite', CipherSuiteId.MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519],
] as const) {
  test(`nothing is left of what a group needs no more, ${name}`, () => {
    const scene = new Scene(suite);
    const { context } = scene;
    const people = ['alice', 'bob', 'charlie', 'dana'].map((each) => scene.person(each));
    const [alicesKeys, bobsKeys, charliesKeys, danasKeys] = people as [Person, Person, Person, Person];
    const groupId = nodeCrypto.random(16);
    const created = createGroup(context, { ...scene.parameters(alicesKeys), groupId, extensions: [doorOpen] });
    const alice = scene.enter(alicesKeys, created);
    scene.look('founding');

    // Welcome and joiner secrets, path secrets within the Welcome, pre-shared keys.
    const bundles = [bobsKeys, charliesKeys].map((each) => scene.bundle(each));
    const added = scene.commit(alice, [], {
      proposals: [
        ...bundles.map((bundle) => ({ kind: 'add' as const, keyPackage: scene.verified(bundle) })),
        { kind: 'externalPsk', pskId: encodeUtf8('known to all') },
      ],
    });
    const otherPsk = { ...context, hooks: { externalPsk: () => new Uint8Array(32) } };
    const unopened = joinGroup(otherPsk, { welcome: added.welcome!, keyPackage: bundles[0]! });
    assertRefused(unopened, 'welcomeGroupInfo');
    scene.look('a Welcome that was refused');
    const bob = scene.join(bobsKeys, bundles[0]!, added.welcome);
    const charlie = scene.join(charliesKeys, bundles[1]!, added.welcome);
    assert.ok(!isZero(EXTERNAL_PSK), 'the PSK is the application’s');
    scene.look('joining');

    // Consumed generations, one passed over and read later.
    const first = protectApplication(context, alice.state, encodeUtf8('first'));
    scene.step(alice, first.state);
    const second = protectApplication(context, alice.state, encodeUtf8('second'));
    scene.step(alice, second.state);
    scene.receive(second.message, bob, charlie);
    scene.look('a message out of turn');
    scene.receive(first.message, bob, charlie);
    scene.look('the message passed over');

    // A restart: what is read from rows is wiped like anything else.
    wipeGroup(context, bob.state);
    bob.state = restoreGroup(context, bob.rows);
    const third = protectApplication(context, alice.state, encodeUtf8('third'));
    scene.step(alice, third.state);
    scene.receive(third.message, bob, charlie);

    // Proposals and commits, updates by reference, resumption secrets, exporters.
    const proposed = accepted(createProposal(context, charlie.state, { kind: 'update' }));
    scene.step(charlie, proposed.state);
    scene.receive(proposed.message, alice, bob);
    scene.commit(bob, [alice, charlie], {
      proposals: [{ kind: 'resumptionPsk', groupId, epoch: alice.state.core.context.epoch }],
    });
    exportSecret(context, alice.state, 'label', encodeUtf8('context'), 32);
    scene.look('an update, a resumption PSK and an exporter');

    // A commit that lost.
    const lost = accepted(createCommit(context, charlie.state));
    scene.step(charlie, lost.state);
    scene.held.add(lost.pending);
    scene.look('a commit that waits');
    scene.held.delete(lost.pending);
    wipePendingCommit(context, charlie.state, lost.pending);
    scene.commit(alice, [bob, charlie]);
    scene.look('a commit that lost');

    // What is refused: a key too far ahead, another's path keys, a wrong confirmation tag.
    const outside: MlsContext = { ...context, crypto: nodeCrypto, random: nodeCrypto.random };
    let ahead = charlie.state;
    for (let i = 0; i <= defaultConfig.skipAheadMax; i++) {
      ahead = protectApplication(outside, ahead, new Uint8Array()).state;
    }
    const tooFar = protectApplication(outside, ahead, encodeUtf8('too far')).message;
    assertRefused(processMessage(context, bob.state, tooFar), 'generationAhead');
    const keyPairs: CommitForgery['keyPairs'] = (pairs) =>
      pairs.map(() => freshKemKeyPair(suiteOf(nodeCrypto, suite), nodeCrypto.random));
    const confirmationTag: CommitForgery['confirmationTag'] = (tag) => tag.map((byte) => byte ^ 1);
    for (const [forgery, rule] of [
      [{ keyPairs }, 'pathKeysMatch'],
      [{ confirmationTag }, 'confirmationTag'],
    ] as const) {
      const forged = forgeCommit(outside, charlie.state, forgery);
      assertRefused(processMessage(context, bob.state, forged), rule);
      scene.look(`a commit refused by ${rule}`);
    }

    // What the application forbids its own member, and one who would come in.
    const forbids: MlsContext = {
      ...context,
      hooks: { validateCommit: () => ({ kind: 'reject', reason: 'not now' }) },
    };
    const groupInfo = createGroupInfo(context, alice.state);
    assertRefused(createCommit(forbids, bob.state), 'commitPolicy');
    assertRefused(joinByExternalCommit(forbids, { ...scene.parameters(danasKeys), groupInfo }), 'commitPolicy');
    scene.look('commits that were not made');

    // Someone lets himself in.
    const joining = accepted(joinByExternalCommit(context, { ...scene.parameters(danasKeys), groupInfo }));
    scene.receive(joining.commit, alice, bob, charlie);
    const dana = scene.enter(danasKeys, joining.state);
    scene.look('an external commit');

    // Old epochs, beyond the window.
    const early = scene.secretsOf(bob.state);
    for (let i = 0; i < 7; i++)
      scene.commit(
        [alice, bob, charlie, dana][i % 4]!,
        [alice, bob, charlie, dana].filter((_, j) => j !== i % 4),
      );
    scene.look('seven epochs');
    const resumption = new Set(bob.state.core.resumptionPsks.map(({ psk }) => Buffer.from(psk).toString('hex')));
    scene.assertGone(
      early.filter((secret) => !resumption.has(secret.toString('hex'))),
      'an old epoch',
    );

    // Who is removed wipes the group.
    const removal = { kind: 'remove' as const, removed: ownLeafIndex(dana.state) };
    scene.commit(alice, [bob, charlie, dana], { proposals: [removal] });
    const removedSecrets = scene.secretsOf(dana.state);
    scene.leave(dana);
    scene.look('a removal');
    assert.ok(removedSecrets.length > 0);

    // Groups that continue this one.
    const branchBundle = scene.bundle(bobsKeys);
    const branch = accepted(
      createBranch(context, alice.state, {
        ...scene.parameters(alicesKeys),
        groupId: nodeCrypto.random(16),
        keyPackages: [scene.verified(branchBundle)],
      }),
    );
    scene.enter(alicesKeys, branch.state);
    scene.join(bobsKeys, branchBundle, branch.welcome, bob.state);
    scene.look('a branch');

    const newId = nodeCrypto.random(16);
    scene.commit(bob, [alice, charlie], { proposals: [{ kind: 'reInit', groupId: newId, cipherSuite: suite }] });
    const newBundles = [alicesKeys, charliesKeys].map((each) => scene.bundle(each));
    const opened = accepted(
      createReinitializedGroup(context, bob.state, {
        ...scene.parameters(bobsKeys),
        keyPackages: newBundles.map((bundle) => scene.verified(bundle)),
      }),
    );
    scene.enter(bobsKeys, opened.state);
    scene.join(alicesKeys, newBundles[0]!, opened.welcome, alice.state);
    scene.join(charliesKeys, newBundles[1]!, opened.welcome, charlie.state);
    scene.look('a ReInit');

    // The old group is left for good.
    const old = scene.secretsOf(alice.state, bob.state, charlie.state);
    for (const member of [alice, bob, charlie]) scene.leave(member);
    scene.look('leaving the old group');
    scene.assertGone(old, 'the old group');
  });
}
