// The groups that real commits cannot make in the time of a benchmark: 1,000 members with post-quantum keys, and 10,000.
// Beside them the public-key operations without which there is no such commit (mls-primitives.ts).
import assert from 'node:assert/strict';
import {
  CipherSuiteId,
  type GroupState,
  type MlsContext,
  epochAuthenticator,
  exportRatchetTree,
  groupRows,
  joinGroup,
  memoryRows,
  restoreGroup,
} from '@quicprochat/mls';
import { suiteOf } from '../packages/mls/src/cipher-suites.ts';
import { treeHash } from '../packages/mls/src/ratchet-tree.ts';
import { bytesKept, cpuMs, inTurns } from './cpu-time.ts';
import { CIPHER_SUITE, OurMember, WholeGroup, accepted, commitAndMerge, newKeyPackage } from './mls-group.ts';
import { bareCommitPrimitives, barePrimitives } from './mls-primitives.ts';
import { type BenchResult, figure } from './result.ts';

const PRIMITIVES = 'its primitives';

export async function* largeGroups(context: MlsContext, rounds: number, quick: boolean): AsyncGenerator<BenchResult> {
  yield* commits(context, rounds, {
    members: 1000,
    name: '1,000 members, post-quantum',
    cipherSuite: CipherSuiteId.MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519,
    kem: 'x-wing',
    commitMs: 30,
    processMs: 15,
    commitKb: 28,
  });
  const members = quick ? 2000 : 10_000;
  const { state } = yield* commits(context, rounds, {
    members,
    name: `${members.toLocaleString('en')} members`,
    cipherSuite: CIPHER_SUITE,
    kem: 'x25519',
    commitMs: 60,
    processMs: 40,
  });
  yield memory(context, state, members);
}

interface LargeGroup {
  readonly members: number;
  readonly name: string;
  readonly cipherSuite: number;
  readonly kem: 'x25519' | 'x-wing';
  /** Targets. */
  readonly commitMs: number;
  readonly processMs: number;
  readonly commitKb?: number;
}

async function* commits(
  context: MlsContext,
  rounds: number,
  { members, name, cipherSuite, kem, commitMs, processMs, commitKb }: LargeGroup,
): AsyncGenerator<BenchResult, OurMember> {
  const group = WholeGroup.grown(context, members - 1, cipherSuite);
  const last = members - 1;
  const bundle = newKeyPackage(context, 'last', cipherSuite);
  const welcome = group.add(bundle.keyPackage, last - 1);
  let watcher: OurMember | undefined;
  // The joiner checks every leaf and every parent hash of the tree.
  const joinMs = await cpuMs(() => {
    const { state } = accepted(joinGroup(context, { welcome, keyPackage: bundle }));
    watcher = new OurMember(context, state);
  });
  assert.ok(watcher);
  const receiver = watcher;
  group.adopt(receiver.state);

  const depth = Math.ceil(Math.log2(members));
  const bare = bareCommitPrimitives(kem, depth);
  const { verify } = barePrimitives(300, 0);
  let commit = new Uint8Array();
  let turn = 0;
  const times = await inTurns(rounds, {
    async commit() {
      const before = group.seenBy((turn++ * 397) % last);
      let after: GroupState | undefined;
      const ms = await cpuMs(() => {
        const { committed, next } = commitAndMerge(context, before);
        commit = new Uint8Array(committed.commit);
        after = next;
      });
      assert.ok(after);
      group.adopt(after);
      return ms;
    },
    async process() {
      const ms = await cpuMs(() => receiver.receive(commit));
      assert.deepEqual(epochAuthenticator(receiver.state), epochAuthenticator(group.seenBy(0)));
      return ms;
    },
    bareCommit: () => cpuMs(bare.commit),
    bareProcess: () => cpuMs(bare.process),
  });
  const signaturesMs = await cpuMs(() => {
    for (let i = 0; i < members; i += 1) verify();
  });

  yield figure({
    name: `commit, ${name}`,
    value: times.commit,
    unit: 'ms',
    baseline: { name: PRIMITIVES, value: times.bareCommit },
    target: { of: 'value', atMost: commitMs },
  });
  yield figure({
    name: `size of that commit, ${name}`,
    value: commit.length / 1000,
    unit: 'KB',
    ...(commitKb !== undefined && { target: { of: 'value', atMost: commitKb } }),
  });
  yield figure({
    name: `process a commit, ${name}`,
    value: times.process,
    unit: 'ms',
    baseline: { name: PRIMITIVES, value: times.bareProcess },
    target: { of: 'value', atMost: processMs },
  });
  yield figure({
    name: `join, ${name}`,
    value: joinMs,
    unit: 'ms',
    baseline: { name: `${members.toLocaleString('en')} verifications`, value: signaturesMs },
  });
  return receiver;
}

/** What a client keeps in memory for the public tree of an open group, its hashes included. */
function memory(context: MlsContext, state: GroupState, members: number): BenchResult {
  const rows = memoryRows(groupRows(state));
  const { bytes, kept } = bytesKept(() => {
    const { tree } = restoreGroup(context, rows);
    treeHash(suiteOf(context.crypto, state.core.context.cipherSuite), tree);
    return tree;
  });
  assert.equal((kept as GroupState['tree']).leaves.length, state.tree.leaves.length);
  return figure({
    name: `public tree in memory, ${members.toLocaleString('en')} members`,
    value: bytes / 1e6,
    unit: 'MB',
    baseline: { name: 'encoded', value: exportRatchetTree(state).length / 1e6 },
    target: { of: 'value', atMost: 30 },
  });
}
