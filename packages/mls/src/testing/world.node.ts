/**
 * A small world for tests: people with credentials and signature keys, a controlled clock, randomness from a seed, and
 * groups in which everyone processes everything.
 */
import assert from 'node:assert/strict';
import { encodeUtf8, type KeyPair } from '@quicprochat/crypto';
import { nodeCrypto } from '@quicprochat/crypto/node';
import {
  type CommitOutcome,
  type CommitParameters,
  type CreateGroupParameters,
  createCommit,
  createGroup,
  epochAuthenticator,
  generateKeyPackage,
  generateSignatureKeyPair,
  type GroupState,
  groupContext,
  joinGroup,
  type KeyPackageBundle,
  type KeyPackageParameters,
  mergePendingCommit,
  type MlsContext,
  type ProcessOutcome,
  processMessage,
  type RuleName,
  type VerifiedKeyPackage,
  validationRules,
  verifyKeyPackage,
} from '../index.ts';

export const SUITE = 1;

/** A repeatable stream of bytes and choices. */
export interface Seeded {
  bytes(length: number): Uint8Array;
  /** 0 … below − 1 */
  below(below: number): number;
  pick<T>(items: readonly T[]): T;
}

export function seeded(seed: string): Seeded {
  let counter = 0;
  const bytes = (length: number): Uint8Array => {
    const out = new Uint8Array(length);
    for (let at = 0; at < length; at += 32) {
      const block = nodeCrypto.hash('sha256', encodeUtf8(`${seed} ${counter++}`));
      out.set(block.subarray(0, Math.min(32, length - at)), at);
    }
    return out;
  };
  const below = (limit: number): number => {
    const [a, b, c, d] = bytes(4);
    return (((a! << 24) | (b! << 16) | (c! << 8) | d!) >>> 0) % limit;
  };
  return { bytes, below, pick: (items) => items[below(items.length)]! };
}

/** A seed of this run, or the one given in QPC_TEST_SEED; printed, so that a failure can be repeated. */
export function testSeed(name: string): string {
  const seed = process.env['QPC_TEST_SEED'] ?? Buffer.from(nodeCrypto.random(8)).toString('hex');
  console.log(`${name}: seed ${seed}`);
  return seed;
}

export interface World {
  readonly context: MlsContext;
  /** Moves the clock; contexts made before keep their time. */
  readonly at: (now: number, more?: Partial<MlsContext>) => MlsContext;
  readonly random: Seeded;
}

export const NOW = 1_800_000_000;

export function makeWorld(seed = 'world'): World {
  const random = seeded(seed);
  const at = (now: number, more: Partial<MlsContext> = {}): MlsContext => ({
    crypto: nodeCrypto,
    random: random.bytes,
    now,
    ...more,
  });
  return { context: at(NOW), at, random };
}

export interface Person {
  readonly name: string;
  readonly signatureKeyPair: KeyPair;
}

export function person(world: World, name: string, suite = SUITE): Person {
  return { name, signatureKeyPair: generateSignatureKeyPair(world.context, suite) };
}

export function credential(name: string): { credentialType: 1; identity: Uint8Array } {
  return { credentialType: 1, identity: encodeUtf8(name) };
}

export function keyPackageOf(
  world: World,
  someone: Person,
  more: Partial<KeyPackageParameters> = {},
): KeyPackageBundle {
  return generateKeyPackage(world.context, {
    cipherSuite: SUITE,
    credential: credential(someone.name),
    signatureKeyPair: someone.signatureKeyPair,
    ...more,
  });
}

export function verified(context: MlsContext, bytes: Uint8Array): VerifiedKeyPackage {
  const outcome = verifyKeyPackage(context, bytes);
  assert.ok(outcome.kind === 'verified', show(outcome));
  return outcome.keyPackage;
}

export function groupOf(world: World, creator: Person, more: Partial<CreateGroupParameters> = {}): GroupState {
  return createGroup(world.context, {
    cipherSuite: SUITE,
    groupId: world.random.bytes(32),
    credential: credential(creator.name),
    signatureKeyPair: creator.signatureKeyPair,
    ...more,
  });
}

export type Committed = Exclude<CommitOutcome, { kind: 'rejected' }>;

export function commit(context: MlsContext, state: GroupState, parameters: CommitParameters = {}): Committed {
  const outcome = createCommit(context, state, parameters);
  assert.ok(outcome.kind === 'committed', show(outcome));
  return outcome;
}

export function merged(context: MlsContext, outcome: Committed): GroupState {
  return mergePendingCommit(context, outcome.state, outcome.pending);
}

export function processed<K extends ProcessOutcome['kind']>(
  context: MlsContext,
  state: GroupState,
  message: Uint8Array,
  kind: K,
): Extract<ProcessOutcome, { kind: K }> {
  const outcome = processMessage(context, state, message);
  assert.equal(outcome.kind, kind, show(outcome));
  return outcome as Extract<ProcessOutcome, { kind: K }>;
}

export function joined(
  context: MlsContext,
  welcome: Uint8Array | undefined,
  keyPackage: KeyPackageBundle,
  ratchetTree?: Uint8Array,
): GroupState {
  assert.ok(welcome);
  const outcome = joinGroup(context, { welcome, keyPackage, ...(ratchetTree && { ratchetTree }) });
  assert.ok(outcome.kind === 'joined', show(outcome));
  return outcome.state;
}

/** A group of these people; all added in one commit by the first. States in the order of the names. */
export function groupWith(
  world: World,
  names: readonly string[],
  more: Partial<CreateGroupParameters> = {},
  member: Partial<KeyPackageParameters> = {},
): {
  people: Person[];
  states: GroupState[];
} {
  const people = names.map((name) => person(world, name));
  const first = groupOf(world, people[0]!, more);
  const bundles = people.slice(1).map((each) => keyPackageOf(world, each, member));
  if (bundles.length === 0) return { people, states: [first] };
  const outcome = commit(world.context, first, {
    proposals: bundles.map(({ keyPackage }) => ({ kind: 'add', keyPackage: verified(world.context, keyPackage) })),
  });
  const states = [
    merged(world.context, outcome),
    ...bundles.map((bundle) => joined(world.context, outcome.welcome, bundle)),
  ];
  assertAgree(states);
  return { people, states };
}

export function assertAgree(states: readonly GroupState[]): void {
  const [first] = states;
  for (const state of states) {
    assert.deepEqual(groupContext(state), groupContext(first!));
    assert.deepEqual(epochAuthenticator(state), epochAuthenticator(first!));
  }
}

/** The outcome is a refusal by this rule. */
export function assertRefused(
  outcome: { readonly kind: string; readonly name?: string; readonly rule?: number },
  rule: RuleName,
): void {
  assert.equal(outcome.kind, 'rejected');
  assert.equal(outcome.name, rule, show(outcome));
  assert.equal(outcome.rule, validationRules[rule].number);
}

/** Only refusals are short enough to show. */
export function show(outcome: { readonly kind: string }): string {
  return outcome.kind === 'rejected' ? JSON.stringify(outcome) : outcome.kind;
}
