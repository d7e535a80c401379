import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeUtf8 } from '@quicprochat/crypto';
import { nobleCrypto } from '@quicprochat/crypto/noble';
import {
  type CipherSuite,
  cipherSuites,
  createGroupInfo,
  createProposal,
  generateSignatureKeyPair,
  joinByExternalCommit,
  type MlsContext,
  protectApplication,
} from './index.ts';
import {
  assertAgree,
  commit,
  credential,
  groupOf,
  joined,
  keyPackageOf,
  makeWorld,
  merged,
  processed,
  show,
  verified,
} from './testing/world.node.ts';

for (const { id, name } of cipherSuites) {
  test(`${name}: Alice on node:crypto and Bob on noble understand each other`, () => {
    const world = makeWorld(name);
    const node = world.context;
    const noble: MlsContext = { ...node, crypto: nobleCrypto };
    const [alice, bob] = [node, noble].map((context, i) => ({
      name: `person ${i}`,
      signatureKeyPair: generateSignatureKeyPair(context, id),
    }));
    const bundle = keyPackageOf({ ...world, context: noble }, bob!, { cipherSuite: id });
    const a = groupOf(world, alice!, { cipherSuite: id });
    const made = commit(node, a, {
      proposals: [{ kind: 'add', keyPackage: verified(node, bundle.keyPackage) }],
    });
    let [atAlice, atBob] = [merged(node, made), joined(noble, made.welcome, bundle)];
    assertAgree([atAlice, atBob]);

    const update = createProposal(noble, atBob, { kind: 'update' });
    assert.ok(update.kind === 'proposed');
    atAlice = processed(node, atAlice, update.message, 'proposal').state;
    const second = commit(node, atAlice);
    atBob = processed(noble, update.state, second.commit, 'commit').state;
    atAlice = merged(node, second);
    const third = commit(noble, atBob);
    atAlice = processed(node, atAlice, third.commit, 'commit').state;
    atBob = merged(noble, third);
    assertAgree([atAlice, atBob]);

    const sent = protectApplication(noble, atBob, encodeUtf8('hello'));
    assert.deepEqual(processed(node, atAlice, sent.message, 'application').data, encodeUtf8('hello'));
    const answer = protectApplication(node, atAlice, encodeUtf8('hi'));
    assert.deepEqual(processed(noble, sent.state, answer.message, 'application').data, encodeUtf8('hi'));

    // And one more from outside, each way.
    const hooks = { externalJoin: () => ({ kind: 'accept' }) as const };
    for (const [inside, outside] of [
      [node, noble],
      [noble, node],
    ] as const) {
      const alone = groupOf(world, alice!, { cipherSuite: id });
      const joining = joinByExternalCommit(
        { ...outside, hooks },
        {
          groupInfo: createGroupInfo(inside, alone, { externalPub: true }),
          credential: credential('outsider'),
          signatureKeyPair: bob!.signatureKeyPair,
        },
      );
      assert.ok(joining.kind === 'committed', show(joining));
      assertAgree([joining.state, processed({ ...inside, hooks }, alone, joining.commit, 'commit').state]);
    }
  });
}

test('the table has each suite once', () => {
  const ids = cipherSuites.map((suite: CipherSuite) => suite.id);
  assert.equal(new Set(ids).size, ids.length);
});
