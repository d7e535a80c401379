import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SlowDown } from './slow-down.ts';
import { TestClock } from './testing/world.node.ts';

test('three attempts are free, then each wait doubles up to a quarter of an hour, and success forgets', () => {
  const clock = new TestClock();
  const slow = new SlowDown(clock);
  for (let i = 0; i < 3; i++) assert.equal(slow.attempt('a'), 0);
  let waitMs = 1_000;
  for (let i = 0; i < 12; i++) {
    const left = slow.attempt('a');
    assert.ok(left > waitMs - 500 && left <= waitMs, `${left} of ${waitMs}`);
    assert.equal(slow.attempt('b') >= 0, true);
    clock.advance(waitMs);
    assert.equal(slow.attempt('a'), 0, 'never locked out');
    waitMs = Math.min(waitMs * 2, 900_000);
  }
  clock.advance(900_000);
  assert.equal(slow.attempt('a'), 0);
  slow.succeeded('a');
  for (let i = 0; i < 3; i++) assert.equal(slow.attempt('a'), 0);
  assert.ok(slow.attempt('a') > 0);
  clock.advance(3_600_001);
  for (let i = 0; i < 3; i++) assert.equal(slow.attempt('a'), 0, 'long ago is forgotten');
});
