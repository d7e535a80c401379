import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LeafIndex } from '@quicprochat/mls';
import { ManualClock } from '../../transport/src/testing/manual-clock.ts';
import { warmUpDelayMs, warmUpRank } from './warm-up.ts';

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
