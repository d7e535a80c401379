// packages/mls beside what its primitives cost alone (mls-primitives.ts) and beside stock ts-mls, in one run. The groups
// of ts-mls are ours with one member replaced: it joined by our Welcome, reads our messages and commits, and we read its.
import assert from 'node:assert/strict';
import {
  type GroupState,
  createCommit,
  diffRows,
  epochAuthenticator,
  generateKeyPackage,
  generateSignatureKeyPair,
  groupRows,
  joinGroup,
  memoryRows,
  type MlsContext,
  processMessage,
  restoreGroup,
  wipeReplaced,
} from '@quicprochat/mls';
import { cpuMs, cpuRate, inTurns, warmUpRounds } from './cpu-time.ts';
import {
  CIPHER_SUITE,
  OurMember,
  WholeGroup,
  accepted,
  commitAndMerge,
  mlsContext,
  newGroup,
  newKeyPackage,
  newKeyPackages,
  verified,
} from './mls-group.ts';
import { largeGroups } from './mls-large.ts';
import { type BarePrimitives, barePrimitives } from './mls-primitives.ts';
import { type BenchOptions, type BenchResult, figure, median } from './result.ts';
import { TsMls, type TsMlsMember } from './ts-mls-peer.ts';

const DATA = new Uint8Array(100).fill(0x61);
const SIZES = [2, 100, 1000];
const LARGE = 1000;
const PEER = 'ts-mls 1.6.4';

interface Scale {
  readonly rounds: number;
  /** Messages a round; ts-mls takes fewer, as it is slower. */
  readonly messages: number;
  readonly peerMessages: number;
  readonly commits: number;
  readonly joins: number;
}

const FULL: Scale = { rounds: 9, messages: 2500, peerMessages: 300, commits: 15, joins: 5 };
const QUICK: Scale = { rounds: 1, messages: 200, peerMessages: 40, commits: 1, joins: 1 };

export async function* mlsBench({ quick }: BenchOptions): AsyncGenerator<BenchResult> {
  const scale = quick ? QUICK : FULL;
  const context = mlsContext();
  const peer = await TsMls.load();
  for (const size of SIZES) {
    const groups = await makeGroups(context, peer, size);
    yield* messages(context, groups, size, scale);
    if (size === LARGE) {
      yield* commits(context, groups, scale);
      yield* joins(groups, scale);
    }
  }
  yield* largeGroups(context, scale.commits, quick);
  yield* batchAdd(context, peer, quick);
  yield* keyPackages(context, peer, scale);
}

interface Groups {
  /** All ours. */
  readonly ours: WholeGroup;
  /** The same group, with ts-mls at the last leaf. */
  readonly mixed: WholeGroup;
  readonly peer: TsMlsMember;
  readonly joinOurs: () => GroupState;
  readonly joinPeer: () => Promise<TsMlsMember>;
  /** The leaf of the member who joined last. */
  readonly last: number;
}

async function makeGroups(context: MlsContext, tsMls: TsMls, size: number): Promise<Groups> {
  const ours = WholeGroup.populated(context, size - 1);
  const mixed = ours.branch();
  const last = size - 1;
  const bundle = newKeyPackage(context, 'last');
  const ourWelcome = ours.addOurs(bundle, last - 1);
  const peerKeyPackage = await tsMls.newKeyPackage('last');
  const peerWelcome = mixed.add(peerKeyPackage.bytes, last - 1);
  const joinPeer = (): Promise<TsMlsMember> => tsMls.join(peerWelcome, peerKeyPackage);
  const peer = await joinPeer();
  assert.deepEqual(peer.epochAuthenticator, epochAuthenticator(mixed.seenBy(0)));
  return {
    ours,
    mixed,
    peer,
    joinOurs: () => accepted(joinGroup(context, { welcome: ourWelcome, keyPackage: bundle })).state,
    joinPeer,
    last,
  };
}

// ---- Application messages -------------------------------------------------------------------------------------------

async function* messages(
  context: MlsContext,
  { ours, mixed, peer, last }: Groups,
  size: number,
  scale: Scale,
): AsyncGenerator<BenchResult> {
  const sender = new OurMember(context, ours.seenBy(0));
  const receiver = new OurMember(context, ours.seenBy(last));
  const mixedMember = new OurMember(context, mixed.seenBy(0));
  const bare = barePrimitives(DATA.length, sender.state.core.contextBytes.length);
  const members = `${size.toLocaleString('en')} members`;

  const sent: Uint8Array[] = [];
  const sentByPeer: Uint8Array[] = [];
  const send = await inTurns(scale.rounds, {
    bare: () => repeat(scale.messages, bare.send),
    ours: () => repeat(scale.messages, () => sent.push(sender.send(DATA))),
    peer: () => repeat(scale.peerMessages, async () => sentByPeer.push(await peer.send(DATA))),
  });
  for (const message of sentByPeer) assert.deepEqual(mixedMember.receive(message), DATA);

  const forPeer = Array.from({ length: (scale.rounds + warmUpRounds(scale.rounds)) * scale.peerMessages }, () =>
    mixedMember.send(DATA),
  );
  let received = 0;
  const check = (data: Uint8Array | undefined): void => {
    if (data === undefined || Buffer.compare(data, DATA) !== 0) throw new Error('received what was not sent');
    received += 1;
  };
  const receive = await inTurns(scale.rounds, {
    bare: () => repeat(scale.messages, bare.receive),
    ours: () => repeat(scale.messages, () => check(receiver.receive(next(sent)))),
    peer: () => repeat(scale.peerMessages, async () => check(await peer.receive(next(forPeer)))),
  });
  assert.equal(received, (scale.rounds + warmUpRounds(scale.rounds)) * (scale.messages + scale.peerMessages));

  yield* besideBoth(`send, ${members}`, send, 5);
  yield* besideBoth(`receive, ${members}`, receive, 3);
  if (size === LARGE) yield* stored(context, ours, bare, scale, last);
}

function* besideBoth(
  name: string,
  { ours, bare, peer }: Readonly<Record<'ours' | 'bare' | 'peer', number>>,
  timesPeer: number,
): Generator<BenchResult> {
  const target = { of: 'ratio', atLeast: 0.6 } as const;
  yield figure({ name, value: ours, unit: 'messages/s', baseline: { name: 'its primitives', value: bare }, target });
  yield figure({
    name: `${name}, beside ts-mls`,
    value: ours,
    unit: 'messages/s',
    baseline: { name: PEER, value: peer },
    target: { of: 'ratio', atLeast: timesPeer },
  });
}

/** What a client does with each message besides: write the rows that changed, wipe the secrets that are gone. */
async function* stored(
  context: MlsContext,
  ours: WholeGroup,
  bare: BarePrimitives,
  scale: Scale,
  last: number,
): AsyncGenerator<BenchResult> {
  const sender = new StoredMember(context, ours.seenBy(0));
  const receiver = new StoredMember(context, ours.seenBy(last));
  const sent: Uint8Array[] = [];
  const rates = await inTurns(scale.rounds, {
    bareSend: () => repeat(scale.messages, bare.send),
    send: () => repeat(scale.messages, () => sent.push(sender.send(DATA))),
    bareReceive: () => repeat(scale.messages, bare.receive),
    receive: () => repeat(scale.messages, () => receiver.receive(next(sent))),
  });
  yield figure({
    name: 'send, rows and wiping, 1,000 members',
    value: rates.send,
    unit: 'messages/s',
    baseline: { name: 'its primitives', value: rates.bareSend },
    target: { of: 'ratio', atLeast: 0.6 },
  });
  yield figure({
    name: 'receive, rows and wiping, 1,000 members',
    value: rates.receive,
    unit: 'messages/s',
    baseline: { name: 'its primitives', value: rates.bareReceive },
    target: { of: 'ratio', atLeast: 0.6 },
  });
}

/** As a client keeps it, with rows in memory. */
class StoredMember extends OurMember {
  readonly #rows;

  constructor(context: MlsContext, state: GroupState) {
    const rows = memoryRows(groupRows(state));
    super(context, restoreGroup(context, rows));
    this.#rows = rows;
  }

  override advance(next: GroupState): void {
    this.#rows.apply(diffRows(this.state, next));
    wipeReplaced(this.context, this.state, next);
    super.advance(next);
  }
}

async function repeat(times: number, operation: () => unknown): Promise<number> {
  return cpuRate(times, async () => {
    for (let i = 0; i < times; i += 1) {
      const result = operation();
      if (result instanceof Promise) await result;
    }
  });
}

function next<T>(queue: T[]): T {
  const first = queue.shift();
  if (first === undefined) throw new Error('nothing left to receive');
  return first;
}

// ---- Handshakes -----------------------------------------------------------------------------------------------------

async function* commits(
  context: MlsContext,
  { ours, mixed, peer, last }: Groups,
  scale: Scale,
): AsyncGenerator<BenchResult> {
  const watcher = new OurMember(context, ours.seenBy(last));
  let commitLength = 0;
  let turn = 0;
  const committer = (): number => (turn++ * 397) % last;
  let commit = new Uint8Array();
  let peerCommit = new Uint8Array();
  let forPeer = new Uint8Array();

  const times = await inTurns(scale.commits, {
    async commit() {
      const before = ours.seenBy(committer());
      let after: GroupState | undefined;
      const ms = await cpuMs(() => {
        const { committed, next: merged } = commitAndMerge(context, before);
        commit = new Uint8Array(committed.commit);
        after = merged;
      });
      ours.adopt(after ?? before);
      commitLength = commit.length;
      return ms;
    },
    async process() {
      const ms = await cpuMs(() => watcher.receive(commit));
      assert.deepEqual(epochAuthenticator(watcher.state), epochAuthenticator(ours.seenBy(0)));
      return ms;
    },
    async peerCommit() {
      const ms = await cpuMs(async () => {
        peerCommit = new Uint8Array(await peer.commit());
      });
      // Its sibling learns every key above it.
      mixed.adopt(accepted(processMessage(context, mixed.seenBy(last - 1), peerCommit)).state);
      assert.deepEqual(epochAuthenticator(mixed.seenBy(0)), peer.epochAuthenticator);
      return ms;
    },
    async peerProcess() {
      const { committed, next: merged } = commitAndMerge(context, mixed.seenBy(committer()));
      mixed.adopt(merged);
      forPeer = new Uint8Array(committed.commit);
      const ms = await cpuMs(() => peer.receive(forPeer));
      assert.deepEqual(peer.epochAuthenticator, epochAuthenticator(merged));
      return ms;
    },
  });

  const fiveTimes = { of: 'ratio', atMost: 0.2 } as const;
  yield figure({
    name: 'commit, 1,000 members',
    value: times.commit,
    unit: 'ms',
    baseline: { name: PEER, value: times.peerCommit },
    target: fiveTimes,
  });
  yield figure({ name: 'size of that commit, 1,000 members', value: commitLength / 1000, unit: 'KB' });
  yield figure({
    name: 'process a commit, 1,000 members',
    value: times.process,
    unit: 'ms',
    baseline: { name: PEER, value: times.peerProcess },
    target: fiveTimes,
  });
}

async function* joins(groups: Groups, scale: Scale): AsyncGenerator<BenchResult> {
  const { verify } = barePrimitives(300, 0);
  const times = await inTurns(scale.joins, {
    ours: () => cpuMs(groups.joinOurs),
    peer: () => cpuMs(groups.joinPeer),
    signatures: () =>
      cpuMs(() => {
        for (let i = 0; i < LARGE; i += 1) verify();
      }),
  });
  yield figure({
    name: 'join, 1,000 members',
    value: times.ours,
    unit: 'ms',
    baseline: { name: PEER, value: times.peer },
    target: { of: 'ratio', atMost: 0.67 },
  });
  yield figure({
    name: 'join, beside its leaf signatures',
    value: times.ours,
    unit: 'ms',
    baseline: { name: '1,000 verifications', value: times.signatures },
  });
}

async function* batchAdd(context: MlsContext, tsMls: TsMls, quick: boolean): AsyncGenerator<BenchResult> {
  const bundles = newKeyPackages(context, LARGE - 1);
  const creator = newGroup(context);
  const sample = async (): Promise<number> => {
    let members = 0;
    const ms = await cpuMs(() => {
      const proposals = bundles.map(({ keyPackage }) => ({
        kind: 'add' as const,
        keyPackage: verified(context, keyPackage),
      }));
      members = accepted(createCommit(context, creator, { proposals })).effects.added.length;
    });
    assert.equal(members, bundles.length);
    return ms;
  };
  const samples: number[] = [];
  for (let i = 0; i < (quick ? 1 : 4); i += 1) samples.push(await sample());

  const baseline = quick ? undefined : { name: PEER, value: await peerBatchAdd(tsMls) };
  yield figure({
    name: 'batch add of 999, KeyPackages verified',
    value: median(samples),
    unit: 'ms',
    ...(baseline && { baseline }),
    target: { of: 'value', atMost: 600 },
  });
}

/** Once: it takes seconds. */
async function peerBatchAdd(tsMls: TsMls): Promise<number> {
  const peer = await tsMls.create(await tsMls.newKeyPackage('creator'));
  const added = await Promise.all(Array.from({ length: LARGE - 1 }, (_, i) => tsMls.newKeyPackage(`member ${i}`)));
  return cpuMs(() => peer.addAll(added.map(({ bytes }) => bytes)));
}

async function* keyPackages(context: MlsContext, tsMls: TsMls, scale: Scale): AsyncGenerator<BenchResult> {
  const signatureKeyPair = generateSignatureKeyPair(context, CIPHER_SUITE);
  const identity = new TextEncoder().encode('alice');
  const make = (): unknown =>
    generateKeyPackage(context, {
      cipherSuite: CIPHER_SUITE,
      credential: { credentialType: 1, identity },
      signatureKeyPair,
    });
  const makePeers = await tsMls.keyPackageMaker('alice');
  const rates = await inTurns(scale.rounds, {
    ours: () => repeat(scale.peerMessages, make),
    peer: () => repeat(scale.peerMessages, makePeers),
  });
  yield figure({
    name: 'KeyPackages made',
    value: rates.ours,
    unit: 'KeyPackages/s',
    baseline: { name: PEER, value: rates.peer },
    target: { of: 'value', atLeast: 4000 },
  });
}
