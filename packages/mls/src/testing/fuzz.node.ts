/**
 * The fuzzer: bytes changed at random, cut, joined and with lying lengths go into every public function that takes bytes
 * from outside or from storage. Nothing may throw but `MlsStateError` for storage, nothing may take long, and nothing
 * changed may be accepted, but for the rare mutation that undoes itself.
 */
import assert from 'node:assert/strict';
import {
  createGroupInfo,
  createNewMemberProposal,
  createProposal,
  createReinitializedGroup,
  decodeKeyPackage,
  decodePendingCommit,
  encodeExternalJoins,
  encodePendingCommit,
  exportRatchetTree,
  ExtensionType,
  groupContext,
  groupRows,
  joinByExternalCommit,
  joinGroup,
  MlsStateError,
  memoryRows,
  processMessage,
  protectApplication,
  restoreGroup,
  verifyKeyPackage,
  welcomeKeyPackageRefs,
} from '../index.ts';
import {
  commit,
  credential,
  groupWith,
  keyPackageOf,
  makeWorld,
  merged,
  person,
  processed,
  seeded,
  type Seeded,
  verified,
} from './world.node.ts';

export interface FuzzOptions {
  readonly seed: string;
  /** Until then in milliseconds of `performance.now()`, or this many rounds, whichever comes first. */
  readonly until?: number;
  readonly rounds?: number;
}

export interface FuzzReport {
  readonly rounds: number;
  readonly inputs: number;
  readonly accepted: number;
  readonly slowestMs: number;
  /** How often each rule refused. */
  readonly refusals: ReadonlyMap<string, number>;
}

interface Target {
  readonly name: string;
  readonly input: Uint8Array;
  /** Whether everything in `input` is authenticated, so that no change may be accepted. */
  readonly authenticated: boolean;
  take(bytes: Uint8Array): { readonly kind: string; readonly name?: string };
}

export function runFuzz({ seed, until = Infinity, rounds = Infinity }: FuzzOptions): FuzzReport {
  const random = seeded(`fuzz ${seed}`);
  const targets = makeTargets(seed, random);
  for (const { name, input, take } of targets) {
    const { kind } = take(input);
    assert.notEqual(kind, 'rejected', `${name} as it is`);
  }
  const refusals = new Map<string, number>();
  let [round, inputs, accepted, slowestMs] = [0, 0, 0, 0];
  for (; round < rounds && performance.now() < until; round++) {
    for (const { name, input, authenticated, take } of targets) {
      const bytes = mutated(random, input);
      const start = performance.now();
      let outcome: ReturnType<Target['take']>;
      try {
        outcome = take(bytes);
      } catch (error) {
        throw new Error(`fuzz failed: seed ${seed}, round ${round}, ${name}`, { cause: error });
      }
      slowestMs = Math.max(slowestMs, performance.now() - start);
      inputs++;
      if (outcome.kind === 'rejected') {
        const rule = outcome.name ?? 'storage';
        refusals.set(rule, (refusals.get(rule) ?? 0) + 1);
      } else if (authenticated && !Buffer.from(bytes).equals(input)) {
        accepted++;
      }
    }
  }
  return { rounds: round, inputs, accepted, slowestMs, refusals };
}

function makeTargets(seed: string, random: Seeded): Target[] {
  const world = makeWorld(`fuzz world ${seed}`);
  const { context } = world;
  const capabilities = { extensions: [ExtensionType.ExternalJoins] };
  const { states, people } = groupWith(world, ['alice', 'bob', 'charlie'], { capabilities }, { capabilities });
  const doorOpen = {
    extensionType: ExtensionType.ExternalJoins,
    extensionData: encodeExternalJoins({ commits: true, proposals: true }),
  };
  const opening = commit(context, states[0]!, {
    proposals: [{ kind: 'groupContextExtensions', extensions: [doorOpen] }],
  });
  const alice = merged(context, opening);
  const bob = processed(context, states[1]!, opening.commit, 'commit').state;
  const dave = person(world, 'dave');
  const bundle = keyPackageOf(world, dave, { capabilities, grease: true });
  const adding = { proposals: [{ kind: 'add' as const, keyPackage: verified(context, bundle.keyPackage) }] };
  const made = commit(context, alice, adding);
  const apart = commit(context, alice, { ...adding, ratchetTreeInWelcome: false });
  const update = createProposal(context, alice, { kind: 'update' }, { wireFormat: 'public' });
  assert.ok(update.kind === 'proposed');
  const asking = createNewMemberProposal(context, { ...groupContext(alice), keyPackage: bundle });
  assert.ok(asking.kind === 'proposed');
  const joining = {
    credential: credential('dave'),
    signatureKeyPair: dave.signatureKeyPair,
    capabilities,
  };
  const groupInfo = createGroupInfo(context, alice);
  const external = joinByExternalCommit(context, { ...joining, groupInfo });
  assert.ok(external.kind === 'committed');

  const closing = commit(context, alice, {
    proposals: [{ kind: 'reInit', groupId: random.bytes(8), cipherSuite: 1 }],
  });
  const previous = processed(context, bob, closing.commit, 'commit').state;
  const bundles = people.slice(1).map((each) => keyPackageOf(world, each));
  const successor = createReinitializedGroup(context, merged(context, closing), {
    credential: credential('alice'),
    signatureKeyPair: people[0]!.signatureKeyPair,
    keyPackages: bundles.map(({ keyPackage }) => verified(context, keyPackage)),
  });
  assert.ok(successor.kind === 'created');

  const message = (name: string, input: Uint8Array): Target => ({
    name,
    input,
    authenticated: true,
    take: (bytes) => processMessage(context, bob, bytes),
  });
  const storage = (take: () => unknown): { kind: string } => {
    try {
      take();
      return { kind: 'read' };
    } catch (error) {
      if (!(error instanceof MlsStateError)) throw error;
      return { kind: 'rejected' };
    }
  };
  const rows = groupRows(bob);
  return [
    message('private commit', made.commit),
    message('public commit', commit(context, alice, { ...adding, wireFormat: 'public' }).commit),
    message('public proposal', update.message),
    message('application', protectApplication(context, alice, random.bytes(50)).message),
    message('new member proposal', asking.message),
    message('external commit', external.commit),
    {
      name: 'KeyPackage',
      input: bundle.keyPackage,
      authenticated: true,
      take: (bytes) => verifyKeyPackage(context, bytes),
    },
    {
      name: 'decoded KeyPackage',
      input: bundle.keyPackage,
      authenticated: false,
      take: (bytes) => decodeKeyPackage(bytes),
    },
    { name: 'Welcome refs', input: made.welcome!, authenticated: false, take: (bytes) => welcomeKeyPackageRefs(bytes) },
    {
      name: 'Welcome',
      input: made.welcome!,
      authenticated: true,
      take: (welcome) => joinGroup(context, { welcome, keyPackage: bundle }),
    },
    {
      name: 'Welcome of a ReInit',
      input: successor.welcome,
      // The entries of others are not ours to check.
      authenticated: false,
      take: (welcome) => joinGroup(context, { welcome, keyPackage: bundles[0]!, previous }),
    },
    {
      name: 'ratchet tree',
      input: exportRatchetTree(merged(context, apart)),
      authenticated: true,
      take: (ratchetTree) => joinGroup(context, { welcome: apart.welcome!, keyPackage: bundle, ratchetTree }),
    },
    {
      name: 'GroupInfo',
      input: groupInfo,
      authenticated: true,
      take: (bytes) => joinByExternalCommit(context, { ...joining, groupInfo: bytes }),
    },
    {
      name: 'pending commit',
      input: encodePendingCommit(made.pending),
      authenticated: false,
      take: (bytes) => storage(() => decodePendingCommit(context, bytes)),
    },
    ...rows.map(({ key, bytes: input }) => ({
      name: `row ${key}`,
      input,
      authenticated: false,
      take: (bytes: Uint8Array) =>
        storage(() => restoreGroup(context, memoryRows([...rows.filter((row) => row.key !== key), { key, bytes }]))),
    })),
  ];
}

function mutated(random: Seeded, input: Uint8Array): Uint8Array {
  let bytes = input.slice();
  for (let i = 1 + random.below(3); i > 0; i--) {
    const at = random.below(bytes.length + 1);
    switch (random.below(7)) {
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
        break;
      case 6: {
        // A piece once more.
        const end = Math.min(bytes.length, at + random.below(64));
        bytes = new Uint8Array([...bytes.subarray(0, end), ...bytes.subarray(at, end), ...bytes.subarray(end)]);
      }
    }
  }
  return bytes;
}
