/**
 * THREATS 27 and malformed input at large: bytes changed at random, cut, joined and with lying lengths go into every
 * public function that takes bytes. Nothing may throw, and nothing may take long.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  createProposal,
  decodeKeyPackage,
  decodePendingCommit,
  encodePendingCommit,
  exportRatchetTree,
  groupRows,
  joinGroup,
  MlsStateError,
  memoryRows,
  processMessage,
  protectApplication,
  restoreGroup,
  verifyKeyPackage,
  welcomeKeyPackageRefs,
} from './index.ts';
import { Reader } from './codec.ts';
import { RuleViolation } from './errors.ts';
import {
  commit,
  groupWith,
  keyPackageOf,
  makeWorld,
  person,
  seeded,
  type Seeded,
  testSeed,
  verified,
} from './testing/world.node.ts';

function mutated(random: Seeded, input: Uint8Array): Uint8Array {
  let bytes = input.slice();
  for (let i = 1 + random.below(3); i > 0; i--) {
    const at = random.below(bytes.length + 1);
    switch (random.below(6)) {
      case 0:
        if (at < bytes.length) bytes[at]! ^= 1 << random.below(8);
        break;
      case 1:
        if (at < bytes.length) bytes[at] = random.pick([0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xbf, 0xc0, 0xff]);
        break;
      case 2:
        bytes = bytes.slice(0, at);
        break;
      case 3:
        bytes = new Uint8Array([...bytes.subarray(0, at), ...random.bytes(1 + random.below(8)), ...bytes.subarray(at)]);
        break;
      case 4:
        bytes = new Uint8Array([...bytes.subarray(0, at), ...bytes.subarray(at + 1 + random.below(8))]);
        break;
      case 5:
        // The largest length there is.
        bytes.set([0xbf, 0xff, 0xff, 0xff].slice(0, Math.max(0, bytes.length - at)), Math.min(at, bytes.length));
    }
  }
  return bytes;
}

test('mutated input is refused by value, by every public decoder', () => {
  const seed = testSeed('fuzz');
  const random = seeded(`fuzz ${seed}`);
  const world = makeWorld(`fuzz world ${seed}`);
  const { context } = world;
  const [a, b] = groupWith(world, ['alice', 'bob', 'charlie']).states;
  const bundle = keyPackageOf(world, person(world, 'dave'));
  const adding = {
    proposals: [{ kind: 'add' as const, keyPackage: verified(context, bundle.keyPackage) }],
  };
  const made = commit(context, a!, adding);
  const apart = commit(context, a!, { ...adding, ratchetTreeInWelcome: false });
  const publicCommit = commit(context, a!, { ...adding, wireFormat: 'public' });
  const proposal = createProposal(context, a!, { kind: 'update' }, { wireFormat: 'public' });
  assert.ok(proposal.kind === 'proposed');
  const messages = [
    made.commit,
    publicCommit.commit,
    proposal.message,
    protectApplication(context, a!, new Uint8Array(50)).message,
  ];
  const tree = exportRatchetTree(a!);
  const rows = groupRows(b!);
  const pending = encodePendingCommit(made.pending);
  let accepted = 0;
  const outcomes = new Set<string>();
  const note = ({ kind }: { readonly kind: string }): void => {
    outcomes.add(kind);
    if (kind !== 'rejected') accepted++;
  };
  const rounds = 400;
  for (let round = 0; round < rounds; round++) {
    for (const message of messages) note(processMessage(context, b!, mutated(random, message)));
    note(verifyKeyPackage(context, mutated(random, bundle.keyPackage)));
    decodeKeyPackage(mutated(random, bundle.keyPackage));
    welcomeKeyPackageRefs(mutated(random, made.welcome!));
    note(joinGroup(context, { welcome: mutated(random, made.welcome!), keyPackage: bundle }));
    note(joinGroup(context, { welcome: apart.welcome!, keyPackage: bundle, ratchetTree: mutated(random, tree) }));
    try {
      decodePendingCommit(context, mutated(random, pending));
      const { key, bytes } = random.pick(rows);
      restoreGroup(
        context,
        memoryRows([...rows.filter((row) => row.key !== key), { key, bytes: mutated(random, bytes) }]),
      );
    } catch (error) {
      assert.ok(error instanceof MlsStateError, String(error));
    }
  }
  // A mutation can undo itself; more than a rare one accepted means that something is not authenticated.
  assert.ok(accepted <= rounds / 10, `${accepted} accepted in ${rounds} rounds`);
  assert.ok(outcomes.has('rejected'));
});

test('THREATS 27: lying lengths cost nothing', () => {
  const lying = [[0xbf, 0xff, 0xff, 0xff], [0x80, 0x10, 0, 0, 1, 2, 3], [0x7f, 0xff, 0], [0x3f]];
  for (const bytes of lying) {
    const reader = new Reader(Uint8Array.from(bytes));
    assert.throws(() => reader.opaque(), RuleViolation);
    const again = new Reader(Uint8Array.from(bytes));
    assert.throws(() => again.vector((r) => r.u8()), RuleViolation);
  }
});

test('THREATS 27: millions of tiny elements are refused', () => {
  const bytes = new Uint8Array(4 * 1024 * 1024);
  bytes.set([0x80, 0x3f, 0xff, 0xfc]);
  assert.throws(() => new Reader(bytes).vector((r) => r.opaque()), RuleViolation);
});
