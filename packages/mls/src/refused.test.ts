/**
 * What is refused changes nothing: not one byte of the state, of the bundle or of the commit in waiting that it was given,
 * though everything the refused step derived is wiped. Each group goes on afterwards.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type CryptoProvider, encodeUtf8 } from '@quicprochat/crypto';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { nobleCrypto } from '@quicprochat/crypto/noble';
import { freshKemKeyPair, suiteOf } from './cipher-suites.ts';
import {
  CipherSuiteId,
  createCommit,
  createGroup,
  createGroupInfo,
  createProposal,
  diffRows,
  encodeExternalJoins,
  type Extension,
  ExtensionType,
  generateKeyPackage,
  generateSignatureKeyPair,
  groupContext,
  type GroupState,
  joinByExternalCommit,
  joinGroup,
  memoryRows,
  mergePendingCommit,
  type MlsContext,
  processMessage,
  protectApplication,
  restoreGroup,
  type RowStore,
  wipePendingCommit,
  wipeReplaced,
} from './index.ts';
import { forgeCommit, forgeExternalCommit, forgeWelcome, type WelcomeForgery } from './testing/attacker.node.ts';
import { reachableBytes } from './testing/recording-crypto.node.ts';
import {
  assertAgree,
  assertRefused,
  commit,
  credential,
  groupWith,
  joined,
  keyPackageOf,
  makeWorld,
  merged,
  NOW,
  person,
  processed,
  seeded,
  type Seeded,
  testSeed,
  verified,
} from './testing/world.node.ts';

type Outcome = { readonly kind: string };

/** Runs a step that must be refused, and looks whether it touched anything of what it was given. */
function refused(given: readonly unknown[], step: () => Outcome, what: string): void {
  const before = [...reachableBytes(given)].map((bytes) => ({ bytes, was: bytes.slice() }));
  const outcome = step();
  assert.equal(outcome.kind, 'rejected', what);
  for (const { bytes, was } of before) assert.deepEqual(bytes, was, `${what} changed a state`);
}

function flipped(random: Seeded, bytes: Uint8Array, among = bytes.length): Uint8Array {
  const out = bytes.slice();
  out[out.length - 1 - random.below(among)]! ^= 1 + random.below(255);
  return out;
}

interface Member {
  state: GroupState;
  readonly rows: RowStore;
}

const doorOpen: Extension = {
  extensionType: ExtensionType.ExternalJoins,
  extensionData: encodeExternalJoins({ commits: true, proposals: true }),
};

function harass(crypto: CryptoProvider, cipherSuite: number, seed: string, rounds: number): void {
  const random = seeded(seed);
  // Its hooks use the library themselves, in the middle of a step.
  const meddle = (): { readonly kind: 'accept' } => {
    const own = createGroup(plain, { ...parametersOf('meddler'), groupId: random.bytes(16) });
    wipePendingCommit(plain, own, commit(plain, own).pending);
    return { kind: 'accept' };
  };
  const plain: MlsContext = { crypto, random: random.bytes, now: NOW };
  const context: MlsContext = { ...plain, hooks: { validateMember: meddle, validateCommit: meddle } };
  const forbids: MlsContext = { ...context, hooks: { validateCommit: () => ({ kind: 'reject', reason: 'no' }) } };
  const suite = suiteOf(crypto, cipherSuite);
  const capabilities = { extensions: [ExtensionType.ExternalJoins] };
  const parametersOf = (name: string) => ({
    cipherSuite,
    credential: credential(name),
    signatureKeyPair: generateSignatureKeyPair(plain, cipherSuite),
    capabilities,
  });
  const enter = (state: GroupState): Member => {
    const rows = memoryRows();
    rows.apply(diffRows(undefined, state));
    return { state, rows };
  };
  const step = (member: Member, next: GroupState): void => {
    member.rows.apply(diffRows(member.state, next));
    wipeReplaced(context, member.state, next);
    member.state = next;
  };

  const first = createGroup(context, { ...parametersOf('0'), groupId: random.bytes(16), extensions: [doorOpen] });
  const bundles = ['1', '2', '3'].map((name) => generateKeyPackage(context, parametersOf(name)));
  const founding = commit(context, first, {
    proposals: bundles.map(({ keyPackage }) => ({ kind: 'add', keyPackage: verified(context, keyPackage) })),
  });
  const members = [enter(merged(context, founding))];
  for (const bundle of bundles) {
    for (let i = 0; i < 3; i++) {
      // Its end is the GroupInfo; what it has for the other joiners means nothing to this one.
      const welcome = flipped(random, founding.welcome!, 500);
      refused(
        [bundle, first],
        () => joinGroup(context, { welcome, keyPackage: bundle }),
        'a Welcome with a changed byte',
      );
    }
    members.push(enter(joined(context, founding.welcome, bundle)));
  }

  const attacks: readonly ((mallory: GroupState) => Uint8Array)[] = [
    (state) => forgeCommit(context, state, { confirmationTag: (tag) => flipped(random, tag) }),
    (state) =>
      forgeCommit(context, state, {
        keyPairs: (pairs) => pairs.map(() => freshKemKeyPair(suite, random.bytes)),
      }),
    (state) =>
      forgeCommit(context, state, {
        updatePath: (path) => ({
          ...path,
          nodes: path.nodes.map((node) => ({
            ...node,
            encryptedPathSecret: node.encryptedPathSecret.map((each) => ({
              ...each,
              ciphertext: flipped(random, each.ciphertext),
            })),
          })),
        }),
      }),
    (state) => forgeCommit(context, state, { path: false, wireFormat: 'public' }),
    (state) => forgeCommit(context, state, { leafSigner: generateSignatureKeyPair(plain, cipherSuite) }),
    (state) => flipped(random, forgeCommit(context, state, {})),
    (state) => flipped(random, protectApplication(context, state, encodeUtf8('text')).message),
    (state) => {
      const joiner = generateKeyPackage(context, parametersOf('mallory'));
      return forgeExternalCommit(context, state, joiner, { confirmationTag: (tag) => flipped(random, tag) });
    },
  ];

  for (let round = 0; round < rounds; round++) {
    const by = random.below(members.length);
    const author = members[by]!;
    const mallory = random.pick(members.filter((each) => each !== author));
    const bystanders = members.filter((each) => each !== author);
    if (round % 3 === 2) for (const each of members) each.state = restoreGroup(context, each.rows);

    // Some ratchets are known to some, some keys are passed over, an update waits.
    const passed = protectApplication(context, author.state, encodeUtf8('passed over'));
    const sent = protectApplication(context, passed.state, encodeUtf8('sent'));
    step(author, sent.state);
    for (const each of bystanders) step(each, processed(context, each.state, sent.message, 'application').state);
    const proposed = createProposal(context, mallory.state, { kind: 'update' });
    assert.ok(proposed.kind === 'proposed');
    step(mallory, proposed.state);
    for (const each of members) {
      if (each !== mallory) step(each, processed(context, each.state, proposed.message, 'proposal').state);
    }

    const waiting = commit(context, author.state);
    step(author, waiting.state);
    for (const victim of members) {
      if (victim === mallory) continue;
      const attack = random.pick(attacks)(mallory.state);
      refused(
        [victim.state, waiting.pending],
        () => processMessage(context, victim.state, attack),
        `round ${round}, an attack`,
      );
      refused(
        [victim.state, waiting.pending],
        () => createCommit(forbids, victim.state),
        `round ${round}, a commit not made`,
      );
      const changed = flipped(random, waiting.commit);
      if (victim !== author) {
        refused(
          [victim.state],
          () => processMessage(context, victim.state, changed),
          `round ${round}, a changed commit`,
        );
        refused([victim.state], () => processMessage(forbids, victim.state, waiting.commit), `round ${round}, policy`);
      }
      const groupInfo = createGroupInfo(context, victim.state);
      const joiner = parametersOf('4');
      refused(
        [victim.state, joiner],
        () => joinByExternalCommit(forbids, { ...joiner, groupInfo }),
        `round ${round}, an external commit not made`,
      );
    }
    const dropped = commit(context, author.state);
    const livingBytes = [...reachableBytes([dropped.state, waiting.pending])].map((bytes) => [bytes, bytes.slice()]);
    wipePendingCommit(context, dropped.state, dropped.pending);
    for (const [bytes, was] of livingBytes) assert.deepEqual(bytes, was, `round ${round}, a dropped commit`);
    step(author, dropped.state);

    for (const each of bystanders) step(each, processed(context, each.state, waiting.commit, 'commit').state);
    step(author, mergePendingCommit(context, author.state, waiting.pending));
    assertAgree(members.map(({ state }) => state));
    for (const each of bystanders) step(each, processed(context, each.state, passed.message, 'application').state);
  }
}

test('a refused Welcome leaves no copies of the keys it was to be joined with', () => {
  const world = makeWorld(testSeed('refused Welcome'));
  const { context } = world;
  const alice = groupWith(world, ['Alice', 'Bob']);
  const bundle = keyPackageOf(world, person(world, 'Charlie'));
  const add = { kind: 'add', keyPackage: verified(context, bundle.keyPackage) } as const;
  const { tree } = merged(context, commit(context, alice.states[0]!, { proposals: [add] }));
  const copies: Uint8Array[] = [];
  for (const key of [bundle.signaturePrivateKey, bundle.encryptionPrivateKey, bundle.initPrivateKey]) {
    Object.defineProperty(key, 'slice', {
      value: () => {
        copies.push(Uint8Array.from(key));
        return copies.at(-1);
      },
    });
  }
  const forge = (groupSecrets: WelcomeForgery['groupSecrets']) =>
    forgeWelcome(context, bundle, {
      tree,
      signer: alice.people[0]!.signatureKeyPair,
      context: (each) => ({ ...each, groupId: groupContext(alice.states[0]!).groupId }),
      ...(groupSecrets && { groupSecrets }),
    });
  for (const pathSecret of [world.random.bytes(32), world.random.bytes(31)]) {
    const welcome = forge((secrets) => ({ ...secrets, pathSecret }));
    assertRefused(joinGroup(context, { welcome, keyPackage: bundle }), 'welcomePathSecret');
    assert.ok(copies.every((copy) => copy.every((byte) => byte === 0)));
  }
  assert.equal(joinGroup(context, { welcome: forge(undefined), keyPackage: bundle }).kind, 'joined');
  assert.equal(copies.length, 2, 'an accepted one copies what it keeps');
});

for (const [provider, suites, rounds] of [
  [
    nodeCrypto,
    [
      CipherSuiteId.MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519,
      CipherSuiteId.MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519,
      CipherSuiteId.MLS_128_DHKEMP256_AES128GCM_SHA256_P256,
    ],
    8,
  ],
  [nobleCrypto, [CipherSuiteId.MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519], 2],
] as const) {
  for (const suite of suites) {
    test(`what is refused changes no state, suite ${suite} on ${provider.name}`, () => {
      harass(provider, suite, testSeed('refused'), rounds);
    });
  }
}
