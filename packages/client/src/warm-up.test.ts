import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LeafIndex } from '@quicprochat/mls';
import { ManualClock } from '../../transport/src/testing/manual-clock.ts';
import { keepsSlot, warmUpDelayMs, warmUpRank } from './warm-up.ts';

type Kind = 'keyPackage' | 'commit' | 'update';

function group(kinds: readonly (Kind | undefined)[]) {
  return kinds.flatMap((kind, i) => (kind === undefined ? [] : [{ leafIndex: i as LeafIndex, source: { kind } }]));
}

/** All members look at the group at once; whoever's time has come looks again and commits. Who did, and when. */
function play(kinds: Kind[], uniform: () => number): { leaf: number; atMs: number }[] {
  const clock = new ManualClock();
  const start = clock.now();
  const commits: { leaf: number; atMs: number }[] = [];
  for (const leaf of kinds.keys()) {
    const rank = warmUpRank(group(kinds), leaf);
    if (rank === undefined) continue;
    clock.setTimer(
      () => {
        if (warmUpRank(group(kinds), leaf) === undefined) return;
        kinds[leaf] = 'commit';
        commits.push({ leaf, atMs: clock.now() - start });
      },
      warmUpDelayMs(rank, uniform()),
    );
  }
  for (let second = 0; second < 3_600; second++) clock.advance(1_000);
  return commits;
}

/** Deterministic numbers in [0, 1). */
function sequence(): () => number {
  let state = 1;
  return () => (state = (state * 48_271) % 0x7fffffff) / 0x7fffffff;
}

test('a thousand joiners: an eighth of them commit, one after the other', () => {
  const kinds = Array.from({ length: 1_000 }, (_, i): Kind => (i === 0 ? 'commit' : 'keyPackage'));
  const commits = play(kinds, sequence());
  assert.equal(commits.length, 125);
  assert.deepEqual(new Set(commits.map(({ leaf }) => Math.floor(leaf / 8))).size, 125, 'one of each eight neighbours');
  assert.ok(commits[0]!.atMs >= 10_000, 'not at once');
  for (const [i, { atMs }] of commits.entries()) {
    if (i > 0) assert.ok(atMs - commits[i - 1]!.atMs >= 2_000, `a pause before the commit at ${atMs} ms`);
  }
  assert.ok(commits.at(-1)!.atMs < 11 * 60_000);
  assert.deepEqual(play(kinds, sequence()), [], 'and that was all');
});

test('twenty joiners all commit; fewer than eight members do nothing', () => {
  const twenty = Array.from({ length: 21 }, (_, i): Kind => (i === 0 ? 'commit' : 'keyPackage'));
  assert.equal(play(twenty, sequence()).length, 20);
  const seven = Array.from({ length: 7 }, (): Kind => 'keyPackage');
  assert.deepEqual(play(seven, sequence()), []);
});

test('who has committed since is not due, nor whose later neighbour is there; gaps do not matter', () => {
  const many: (Kind | undefined)[] = Array.from({ length: 100 }, () => 'keyPackage');
  assert.equal(warmUpRank(group(many), 7), 0);
  assert.equal(warmUpRank(group(many), 6), undefined);
  assert.equal(warmUpRank(group(many), 99), 12);
  many[7] = undefined;
  assert.equal(warmUpRank(group(many), 6), 0);
  many[6] = 'commit';
  assert.equal(warmUpRank(group(many), 6), undefined);
  assert.equal(warmUpRank(group(many), 5), undefined);
  assert.equal(warmUpRank(group(many), 15), 0);
  assert.equal(warmUpRank(group(many), 7), undefined, 'not a member');
});

test('sixty have their slots when many more come: all slots are given anew, and no two devices share one', () => {
  const clock = new ManualClock();
  const uniform = sequence();
  const kinds: Kind[] = Array.from({ length: 60 }, () => 'keyPackage');
  const planned = new Map<number, { readonly callOff: () => void; readonly among: number }>();
  const commits: number[] = [];
  // As duties.ts does it, on every device whenever the group changes.
  const look = (leaf: number): void => {
    const rank = warmUpRank(group(kinds), leaf);
    const before = planned.get(leaf);
    if (before !== undefined && rank !== undefined && keepsSlot(before.among, kinds.length)) return;
    before?.callOff();
    planned.delete(leaf);
    if (rank === undefined) return;
    const timer = clock.setTimer(
      () => {
        if (warmUpRank(group(kinds), leaf) === undefined) return;
        kinds[leaf] = 'commit';
        commits.push(clock.now());
        for (const other of kinds.keys()) if (other !== leaf) look(other);
      },
      warmUpDelayMs(rank, uniform()),
    );
    planned.set(leaf, { callOff: () => clock.clearTimer(timer), among: kinds.length });
  };
  for (const leaf of kinds.keys()) look(leaf);
  for (let second = 0; second < 30; second++) clock.advance(1_000);
  assert.ok(commits.length > 0 && commits.length < 10);
  commits.length = 0;
  kinds.push(...Array.from({ length: 140 }, (): Kind => 'keyPackage'));
  for (const leaf of kinds.keys()) look(leaf);
  for (let second = 0; second < 600; second++) clock.advance(1_000);
  assert.ok(commits.length >= 24 && commits.length <= 25, `${commits.length} commits`);
  for (const [i, atMs] of commits.entries()) if (i > 0) assert.ok(atMs - commits[i - 1]! >= 2_000);
});
