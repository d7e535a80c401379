import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeHex } from '@quicprochat/crypto';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { expandWithLabel, suiteOf } from './cipher-suites.ts';
import { RuleViolation } from './errors.ts';
import { defaultConfig } from './group-state.ts';
import { newSecretTree, peekRatchets, type SecretTree, secretNodes, takeKey, takeNextKey } from './secret-tree.ts';
import { wipeDiscarded } from './wipe.ts';

const suite = suiteOf(nodeCrypto, 1);
const LEAVES = 16;

function freshTree(): SecretTree {
  return newSecretTree(new Uint8Array(32).fill(5), LEAVES);
}

/** Every secret and unused key a tree holds, as text. */
function secretsIn(tree: SecretTree): Set<string> {
  const found = new Set<string>();
  for (const [, node] of secretNodes(tree)) {
    if (node.kind === 'secret') {
      found.add(encodeHex(node.secret));
      continue;
    }
    for (const { secret, unused } of [node.handshake, node.application]) {
      found.add(encodeHex(secret));
      for (const { key } of unused) found.add(encodeHex(key));
    }
  }
  return found;
}

test('using a leaf deletes every secret above it, and the leaf secret itself', () => {
  const { tree } = takeNextKey(suite, freshTree(), 6, 'application');
  const left = new TextEncoder().encode('left');
  const right = new TextEncoder().encode('right');
  let secret: Uint8Array = new Uint8Array(32).fill(5);
  const gone = [secret];
  // Leaf 6 of 16: left, right, right, left.
  for (const side of [left, right, right, left]) {
    secret = expandWithLabel(suite, secret, 'tree', side, 32);
    gone.push(secret);
  }
  gone.push(expandWithLabel(suite, secret, 'application', new Uint8Array(), 32));
  const held = secretsIn(tree);
  for (const each of gone) assert.ok(!held.has(encodeHex(each)));
  assert.equal([...secretNodes(tree)].length, 5, 'one leaf and its four copath nodes');
});

test('a key that was taken is nowhere in the next tree, nor can it be derived again', () => {
  const first = takeKey(suite, freshTree(), 3, 'application', 5, defaultConfig, 100);
  assert.ok(!secretsIn(first.tree).has(encodeHex(first.key.key)));
  assert.equal(first.tree.unusedCount, 5);
  const late = takeKey(suite, first.tree, 3, 'application', 2, defaultConfig, 100);
  assert.ok(secretsIn(first.tree).has(encodeHex(late.key.key)));
  assert.ok(!secretsIn(late.tree).has(encodeHex(late.key.key)));
  assert.equal(late.tree.unusedCount, 4);
  for (const generation of [2, 5]) {
    assert.throws(() => takeKey(suite, late.tree, 3, 'application', generation, defaultConfig, 100), RuleViolation);
  }
});

test('both directions derive the same keys, in any order', () => {
  let sender = freshTree();
  const keys = Array.from({ length: 20 }, () => {
    const taken = takeNextKey(suite, sender, 9, 'handshake');
    sender = taken.tree;
    return taken.key;
  });
  let receiver = freshTree();
  for (const generation of [3, 0, 19, 7, 1, 18, 2]) {
    const taken = takeKey(suite, receiver, 9, 'handshake', generation, defaultConfig, 100);
    assert.deepEqual(taken.key, keys[generation]);
    receiver = taken.tree;
  }
  assert.deepEqual(peekRatchets(receiver, 9)?.handshake.secret, peekRatchets(sender, 9)?.handshake.secret);
});

test('a step shares all but the way to one leaf', () => {
  const before = takeNextKey(suite, freshTree(), 0, 'application').tree;
  const after = takeNextKey(suite, before, 0, 'application').tree;
  assert.ok(before.root.kind === 'split' && after.root.kind === 'split');
  assert.equal(before.root.right, after.root.right);
});

test('unused keys stay within their limits, the oldest going first', () => {
  const config = { ...defaultConfig, unusedKeysPerSenderMax: 10 };
  const one = takeKey(suite, freshTree(), 1, 'application', 30, config, 100).tree;
  assert.deepEqual(
    peekRatchets(one, 1)?.application.unused.map(({ generation }) => generation),
    [20, 21, 22, 23, 24, 25, 26, 27, 28, 29],
  );
  const two = takeKey(suite, one, 1, 'application', 34, config, 100).tree;
  assert.deepEqual(
    peekRatchets(two, 1)?.application.unused.map(({ generation }) => generation),
    [23, 24, 25, 26, 27, 28, 29, 31, 32, 33],
  );
  const full = takeKey(suite, two, 2, 'application', 30, config, 4).tree;
  assert.equal(peekRatchets(full, 2)?.application.unused.length, 4, 'what room the group has left');
  const none = takeKey(suite, full, 5, 'application', 30, config, -3).tree;
  assert.equal(peekRatchets(none, 5)?.application.unused.length, 0);
  assert.equal(none.unusedCount, full.unusedCount);
});

test('what a refused message derived is wiped, and the tree before it unharmed', () => {
  const before = takeKey(suite, freshTree(), 3, 'application', 4, defaultConfig, 100).tree;
  const held = [...secretsIn(before)];
  const discarded = takeKey(suite, before, 3, 'application', 9, defaultConfig, 100).tree;
  wipeDiscarded(nodeCrypto, discarded, before);
  assert.deepEqual([...secretsIn(before)], held);
  const zero = '00'.repeat(32);
  assert.equal(encodeHex(peekRatchets(discarded, 3)!.application.secret), zero);
});
