/** THREATS 27 and malformed input at large; `npm run fuzz` does the same for a minute. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Reader } from './codec.ts';
import { RuleViolation } from './errors.ts';
import { runFuzz } from './testing/fuzz.node.ts';
import { testSeed } from './testing/world.node.ts';

test('mutated input is refused by value, by every public decoder', () => {
  const { inputs, accepted, refusals } = runFuzz({ seed: testSeed('fuzz'), rounds: 150 });
  assert.ok(inputs > 3000 && refusals.size > 8, `${inputs} inputs, ${refusals.size} rules`);
  assert.equal(accepted, 0);
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
