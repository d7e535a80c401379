// The line of one connection, where what runs puts something in, or ends the waiting.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ManualClock } from './testing/manual-clock.ts';
import { WaitingLine } from './waiting-line.ts';

test('what is put in while the waiting is ended runs too, and leaves no timer', () => {
  const clock = new ManualClock();
  const line = new WaitingLine(clock);
  const ran: string[] = [];
  line.take(10, () => {
    ran.push('a');
    line.take(20, () => ran.push('b'));
  });
  line.hurry();
  assert.deepEqual(ran, ['a', 'b']);
  assert.equal(clock.pending, 0);
});

test('what ends the waiting from within runs the rest once, in order', () => {
  const clock = new ManualClock();
  const line = new WaitingLine(clock);
  const ran: string[] = [];
  line.take(10, () => {
    ran.push('a');
    line.hurry();
  });
  for (const name of 'bcd') line.take(10, () => ran.push(name));
  clock.advance(10);
  assert.deepEqual(ran, [...'abcd']);
  assert.equal(clock.pending, 0);
});

test('after a pause nothing waits for what waited before', () => {
  const clock = new ManualClock();
  const line = new WaitingLine(clock);
  const ran: string[] = [];
  line.take(1_000, () => ran.push('a'));
  line.hurry();
  line.take(5, () => ran.push('b'));
  clock.advance(5);
  assert.deepEqual(ran, ['a', 'b']);
});
