/**
 * Churn: a group lives through random adds, removes, updates, pre-shared keys and changes of extensions, by value and by
 * reference, with lost races, late and reordered messages and restarts from rows. After every epoch all members agree;
 * who was removed reads nothing more. Every state that was replaced is wiped, so that keeping one by mistake shows.
 */
import assert from 'node:assert/strict';
import { encodeUtf8 } from '@quicprochat/crypto';
import { decryptWithLabel, suiteOf } from '../cipher-suites.ts';
import { decode } from '../codec.ts';
import {
  createCommit,
  createGroupInfo,
  createProposal,
  decodePendingCommit,
  diffRows,
  encodeExternalJoins,
  encodePendingCommit,
  epochAuthenticator,
  exportRatchetTree,
  exportSecret,
  type Extension,
  ExtensionType,
  type GroupContext,
  type GroupState,
  groupContext,
  groupRows,
  joinByExternalCommit,
  type KeyPackageBundle,
  memoryRows,
  mergePendingCommit,
  type MlsContext,
  ownLeafIndex,
  type ProcessOutcome,
  type ProposalInput,
  processMessage,
  protectApplication,
  restoreGroup,
  roster,
  wipeReplaced,
} from '../index.ts';
import { encodeGroupContext } from '../key-schedule.ts';
import { readMlsMessage } from '../structures.ts';
import {
  credential,
  groupOf,
  joined,
  keyPackageOf,
  makeWorld,
  type Person,
  person,
  processed,
  type Seeded,
  SUITE,
  verified,
  type World,
} from './world.node.ts';

interface Participant {
  readonly person: Person;
  state: GroupState;
  readonly rows: ReturnType<typeof memoryRows>;
}

interface Late {
  readonly message: Uint8Array;
  readonly epoch: bigint;
  readonly text: string;
  readonly to: Set<Participant>;
}

export interface ChurnReport {
  readonly epochs: number;
  readonly messages: number;
  readonly restarts: number;
  readonly races: number;
  readonly lockedOut: number;
  readonly pathsTried: number;
  readonly externalJoins: number;
  readonly membersMax: number;
}

export interface ChurnOptions {
  readonly seed: string;
  readonly steps: number;
  readonly membersMax: number;
  readonly suite?: number;
  readonly onProgress?: (step: number, now: { readonly epochs: number; readonly members: number }) => void;
}

export function runChurn({ seed, steps, membersMax, suite = SUITE, onProgress }: ChurnOptions): ChurnReport {
  const churn = new Churn(makeWorld(seed), membersMax, suite);
  for (let step = 0; step < steps; step++) {
    onProgress?.(step, { epochs: churn.report.epochs, members: churn.size });
    try {
      churn.step();
    } catch (error) {
      throw new Error(`churn failed: seed ${seed}, step ${step}`, { cause: error });
    }
  }
  return churn.report;
}

const PSK = new Uint8Array(32).fill(7);
const PRIVATE_EXTENSION = 0xf123;
const capabilities = { extensions: [PRIVATE_EXTENSION, ExtensionType.ExternalJoins] };
const doorOpen: Extension = {
  extensionType: ExtensionType.ExternalJoins,
  extensionData: encodeExternalJoins({ commits: true, proposals: false }),
};

class Churn {
  readonly #world: World;
  readonly #random: Seeded;
  readonly #context: MlsContext;
  readonly #membersMax: number;
  readonly #suite: number;
  #members: Participant[] = [];
  #removed: Participant[] = [];
  #late: Late[] = [];
  /** KeyPackages of this epoch's Adds, committed or waiting. */
  #invited: { someone: Person; bundle: KeyPackageBundle }[] = [];
  #names = 0;
  /** The size the group drifts to; another one once it is there, so that groups grow whole and shrink to one. */
  #target = 1;
  #previousContext: GroupContext;
  readonly #report = {
    epochs: 0,
    messages: 0,
    restarts: 0,
    races: 0,
    lockedOut: 0,
    pathsTried: 0,
    externalJoins: 0,
    membersMax: 1,
  };

  constructor(world: World, membersMax: number, suite: number) {
    this.#world = world;
    this.#random = world.random;
    this.#membersMax = membersMax;
    this.#suite = suite;
    this.#context = world.at(world.context.now, { hooks: { externalPsk: () => PSK } });
    const first = person(world, 'first', suite);
    const state = groupOf(world, first, {
      cipherSuite: suite,
      capabilities,
      extensions: [doorOpen],
    });
    this.#previousContext = groupContext(state);
    this.#members = [this.#participant(first, state)];
  }

  get size(): number {
    return this.#members.length;
  }

  get report(): ChurnReport {
    return this.#report;
  }

  step(): void {
    if (this.#chance(2)) this.#talk();
    if (this.#chance(8)) this.#joinFromOutside();
    else this.#changeEpoch();
    if (this.#chance(3)) this.#deliverLate();
    if (this.#chance(3)) this.#restart(this.#random.pick(this.#members));
  }

  #chance(oneIn: number): boolean {
    return this.#random.below(oneIn) === 0;
  }

  #participant(someone: Person, state: GroupState): Participant {
    const rows = memoryRows();
    rows.apply(diffRows(undefined, state));
    return { person: someone, state, rows };
  }

  /** Stores and takes over a new state, and wipes what it replaced. */
  #enter(participant: Participant, next: GroupState): void {
    participant.rows.apply(diffRows(participant.state, next));
    wipeReplaced(this.#context, participant.state, next);
    participant.state = next;
  }

  #restart(participant: Participant): void {
    const restored = restoreGroup(this.#context, participant.rows);
    assert.deepEqual(sorted(groupRows(restored)), sorted(groupRows(participant.state)));
    // The walk above read every row of that state; this one starts with none.
    participant.state = restoreGroup(this.#context, participant.rows);
    this.#report.restarts++;
  }

  // ---- Messages ------------------------------------------------------------------------------------------------------

  #talk(): void {
    const count = 1 + this.#random.below(4);
    for (let i = 0; i < count; i++) {
      const sender = this.#random.pick(this.#members);
      const text = `message ${this.#report.messages++}`;
      const sent = protectApplication(this.#context, sender.state, encodeUtf8(text), {
        paddingLength: this.#random.below(40),
      });
      this.#enter(sender, sent.state);
      const to = new Set(this.#members.filter((member) => member !== sender));
      this.#late.push({ message: sent.message, epoch: sent.epoch, text, to });
    }
    if (this.#chance(2)) this.#deliverLate();
  }

  /** Delivers waiting messages in random order, some of them to some only. */
  #deliverLate(): void {
    const waiting = this.#late;
    this.#late = [];
    for (const late of shuffled(this.#random, waiting)) {
      for (const member of late.to) {
        if (!this.#members.includes(member)) late.to.delete(member);
        else if (!this.#chance(4)) {
          this.#receive(member, late);
          late.to.delete(member);
        }
      }
      for (const removed of this.#removed) {
        if (late.epoch > groupContext(removed.state).epoch) this.#assertLockedOut(removed, late.message);
      }
      if (late.to.size > 0) this.#late.push(late);
    }
  }

  #receive(member: Participant, { message, epoch, text }: Late): void {
    const outcome = processMessage(this.#context, member.state, message);
    const current = groupContext(member.state).epoch;
    if (current - epoch > 5n) {
      assert.equal(outcome.kind, 'rejected');
      return;
    }
    assert.ok(outcome.kind === 'application', JSON.stringify(outcome.kind === 'rejected' ? outcome : outcome.kind));
    assert.deepEqual(outcome.data, encodeUtf8(text));
    this.#enter(member, outcome.state);
    assert.equal(processMessage(this.#context, member.state, message).kind, 'rejected', 'a replay');
  }

  #assertLockedOut(removed: Participant, message: Uint8Array): void {
    assert.equal(processMessage(this.#context, removed.state, message).kind, 'rejected');
    this.#report.lockedOut++;
  }

  /** Not even by trying every private key it has on every ciphertext of the path. */
  #assertNoPathSecret(removed: Participant, message: Uint8Array, after: GroupContext): void {
    const decoded = decode(readMlsMessage, message);
    if (decoded.wireFormat !== 1) return;
    const { content } = decoded.publicMessage.content;
    if (content.contentType !== 3 || content.commit.path === undefined) return;
    const suite = suiteOf(this.#context.crypto, this.#suite);
    const before = this.#previousContext;
    const provisional = encodeGroupContext({
      ...after,
      confirmedTranscriptHash: before.confirmedTranscriptHash,
    });
    for (const node of content.commit.path.nodes) {
      for (const ciphertext of node.encryptedPathSecret) {
        for (const key of removed.state.core.privateKeys.values()) {
          assert.equal(decryptWithLabel(suite, key, 'UpdatePathNode', provisional, ciphertext), undefined);
          this.#report.pathsTried++;
        }
      }
    }
  }

  // ---- Epochs --------------------------------------------------------------------------------------------------------

  #changeEpoch(): void {
    const [committer, rival] = shuffled(this.#random, this.#members);
    assert.ok(committer);
    this.#proposeSomething(committer);
    const byValue = this.#inputs(committer, 3);
    const outcome = createCommit(this.#context, committer.state, {
      proposals: byValue,
      path: !this.#chance(4),
      wireFormat: this.#chance(3) ? 'public' : 'private',
      authenticatedData: this.#random.bytes(this.#random.below(20)),
      ratchetTreeInWelcome: !this.#chance(3),
    });
    // What was proposed by value may clash with what was proposed by reference: then nothing happens this time.
    if (outcome.kind === 'rejected') return;
    const { effects } = outcome;
    this.#enter(committer, outcome.state);

    if (rival !== undefined && this.#chance(4)) {
      const lost = createCommit(this.#context, rival.state, { byReference: 'none' });
      assert.ok(lost.kind === 'committed');
      this.#enter(rival, lost.state);
      this.#report.races++;
    }

    const before = this.#members;
    this.#previousContext = groupContext(committer.state);
    const pending = this.#chance(2)
      ? decodePendingCommit(this.#context, encodePendingCommit(outcome.pending))
      : outcome.pending;
    const stay: Participant[] = [];
    for (const member of before) {
      if (member === committer) {
        assert.equal(processMessage(this.#context, member.state, outcome.commit).kind, 'own');
        this.#enter(member, mergePendingCommit(this.#context, member.state, pending));
        stay.push(member);
        continue;
      }
      if (this.#chance(Math.max(8, before.length))) this.#restart(member);
      const step: Extract<ProcessOutcome, { kind: 'commit' }> = processed(
        this.#context,
        member.state,
        outcome.commit,
        'commit',
      );
      assert.equal(step.effects.added.length, effects.added.length);
      assert.equal(step.effects.removed.length, effects.removed.length);
      this.#enter(member, step.state);
      if (step.effects.selfRemoved) this.#removed.push(member);
      else stay.push(member);
    }
    for (const { someone, bundle } of this.#invited) {
      const isIn = effects.added.some(({ signatureKey }) =>
        Buffer.from(signatureKey).equals(someone.signatureKeyPair.publicKey),
      );
      if (!isIn) continue;
      stay.push(this.#participant(someone, joined(this.#context, outcome.welcome, bundle, outcome.ratchetTree)));
    }
    this.#invited = [];
    this.#settle(stay, outcome.commit);
  }

  /** Someone new comes in by an external commit, or a member that lost its state replaces itself. */
  #joinFromOutside(): void {
    const before = this.#members;
    const former = this.#chance(2) ? this.#random.pick(before) : undefined;
    if (former === undefined && before.length >= this.#membersMax) return;
    const witness = this.#random.pick(before);
    const someone = former?.person ?? person(this.#world, `person ${this.#names++}`, this.#suite);
    const outcome = joinByExternalCommit(this.#context, {
      groupInfo: createGroupInfo(this.#context, witness.state),
      credential: credential(someone.name),
      signatureKeyPair: someone.signatureKeyPair,
      capabilities,
      ...(former && { replaces: ownLeafIndex(former.state) }),
    });
    assert.ok(outcome.kind === 'committed', outcome.kind);
    this.#previousContext = groupContext(witness.state);
    const stay: Participant[] = [];
    for (const member of before) {
      const step = processed(this.#context, member.state, outcome.commit, 'commit');
      this.#enter(member, step.state);
      if (step.effects.selfRemoved) this.#removed.push(member);
      else stay.push(member);
    }
    stay.push(this.#participant(someone, outcome.state));
    this.#invited = [];
    this.#report.externalJoins++;
    this.#settle(stay, outcome.commit);
  }

  /** After a commit: who is out stays out, and all others agree. */
  #settle(stay: Participant[], message: Uint8Array): void {
    for (const removed of this.#removed) {
      this.#assertLockedOut(removed, message);
      this.#assertNoPathSecret(removed, message, groupContext(stay[0]!.state));
    }
    this.#removed = this.#removed.slice(-4);
    this.#members = stay;
    this.#report.epochs++;
    this.#report.membersMax = Math.max(this.#report.membersMax, stay.length);
    this.#assertAgreement();
  }

  #assertAgreement(): void {
    const [first, ...others] = this.#members.map(({ state }) => state);
    assert.ok(first);
    assert.equal(roster(first).length, this.#members.length);
    const other = this.#random.pick(this.#members).state;
    assert.deepEqual(exportRatchetTree(other), exportRatchetTree(first));
    const exported = exportSecret(this.#context, first, 'churn', new Uint8Array(3), 24);
    for (const state of others) {
      assert.deepEqual(groupContext(state), groupContext(first));
      assert.deepEqual(epochAuthenticator(state), epochAuthenticator(first));
      assert.deepEqual(exportSecret(this.#context, state, 'churn', new Uint8Array(3), 24), exported);
    }
    for (const { state } of this.#removed) {
      assert.notDeepEqual(epochAuthenticator(state), epochAuthenticator(first));
    }
  }

  /** Random members propose by reference; everyone hears it. */
  #proposeSomething(committer: Participant): void {
    const count = this.#random.below(4);
    for (let i = 0; i < count; i++) {
      const proposer = this.#random.pick(this.#members);
      const input: ProposalInput | undefined = this.#chance(2) ? { kind: 'update' } : this.#inputs(committer, 1)[0];
      if (input === undefined) continue;
      const wireFormat = this.#chance(3) ? 'public' : 'private';
      const outcome = createProposal(this.#context, proposer.state, input, { wireFormat });
      assert.ok(outcome.kind === 'proposed', JSON.stringify(outcome.kind));
      this.#enter(proposer, outcome.state);
      for (const member of this.#members) {
        if (member === proposer) continue;
        this.#enter(member, processed(this.#context, member.state, outcome.message, 'proposal').state);
      }
    }
  }

  /** Above 0: grow. */
  #drift(): number {
    if (this.#members.length === this.#target) this.#target = 1 + this.#random.below(this.#membersMax);
    return this.#target - this.#members.length;
  }

  #inputs(committer: Participant, max: number): Exclude<ProposalInput, { kind: 'update' }>[] {
    const inputs: Exclude<ProposalInput, { kind: 'update' }>[] = [];
    for (let i = this.#random.below(max + 1); i > 0; i--) {
      const room = this.#membersMax - this.#members.length - this.#invited.length;
      const drift = this.#drift();
      switch (this.#random.below(7)) {
        case 0:
        case 5:
          if (room > 0 && (drift > 0 || this.#chance(3))) {
            const someone = person(this.#world, `person ${this.#names++}`, this.#suite);
            const bundle = keyPackageOf(this.#world, someone, {
              cipherSuite: this.#suite,
              capabilities,
            });
            this.#invited.push({ someone, bundle });
            inputs.push({ kind: 'add', keyPackage: verified(this.#context, bundle.keyPackage) });
          }
          break;
        case 1:
        case 2: {
          const victim = this.#random.pick(this.#members);
          if (victim !== committer && (drift < 0 || this.#chance(3)))
            inputs.push({ kind: 'remove', removed: ownLeafIndex(victim.state) });
          break;
        }
        case 3:
          inputs.push({ kind: 'externalPsk', pskId: this.#random.bytes(8) });
          break;
        case 4:
        case 6:
          inputs.push({
            kind: 'groupContextExtensions',
            extensions: [doorOpen, { extensionType: PRIVATE_EXTENSION, extensionData: this.#random.bytes(12) }],
          });
      }
    }
    return inputs;
  }
}

function shuffled<T>(random: Seeded, items: readonly T[]): T[] {
  const out = items.slice();
  for (let i = out.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [out[i], out[j]] = [out[j]!, out[i]!];
  }
  return out;
}

function sorted<T extends { readonly key: string }>(rows: readonly T[]): T[] {
  return rows.toSorted((a, b) => (a.key < b.key ? -1 : 1));
}
