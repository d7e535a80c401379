import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DEFAULT_RATES, networkOf, PATIENCE_MS, RateLimits, TokenBucket, TokenBuckets } from './rate-limits.ts';
import type { RateName } from './rate-limits.ts';

class ManualClock {
  ms = 0;
  now(): number {
    return this.ms;
  }
  setTimer(): unknown {
    return undefined;
  }
  clearTimer(): void {}
}

test('a bucket gives its burst at once, then one per interval, and says how long to wait', () => {
  const clock = new ManualClock();
  const buckets = new TokenBuckets(clock, { burst: 3, perHour: 3_600 });
  assert.deepEqual(
    [1, 2, 3].map(() => buckets.take('a')),
    [0, 0, 0],
  );
  assert.equal(Math.round(buckets.take('a')), 1_000);
  assert.equal(buckets.take('b'), 0, 'others have their own');
  clock.ms = 999;
  assert.ok(buckets.take('a') > 0);
  clock.ms = 1_001;
  assert.equal(buckets.take('a'), 0);
  clock.ms = 3_600_000;
  assert.deepEqual(
    [1, 2, 3].map(() => buckets.take('a')),
    [0, 0, 0],
  );
  assert.ok(buckets.take('a') > 0, 'never more than the burst');
});

test('what costs more takes more; what costs more than the burst takes all of it', () => {
  const clock = new ManualClock();
  const buckets = new TokenBuckets(clock, { burst: 10, perHour: 3_600 });
  assert.equal(buckets.take('a', 6), 0);
  assert.equal(Math.round(buckets.take('a', 6)), 2_000);
  assert.equal(buckets.take('a', 4), 0);
  assert.equal(buckets.take('b', 1_000), 0);
  assert.ok(buckets.take('b') > 0);
});

test('a token of the future has its place and its time; beyond a second none is given away', () => {
  const clock = new ManualClock();
  const bucket = new TokenBucket(clock, { burst: 2, perHour: 4 * 3_600 });
  const waits = Array.from({ length: 8 }, () => bucket.reserve());
  assert.deepEqual(waits.map(Math.round), [0, 0, 250, 500, 750, 1_000, 1_250, 1_250]);
  assert.ok(bucket.take() > PATIENCE_MS, 'whoever does not wait is refused meanwhile');
  clock.ms = 500;
  assert.equal(Math.round(bucket.reserve()), 750, 'the next place, not one before those who wait');
  clock.ms = 1_250;
  assert.ok(!bucket.isFull);
  assert.equal(Math.round(bucket.reserve()), 250, 'the debt is paid');
  clock.ms = 60_000;
  assert.deepEqual([1, 2, 3].map(() => bucket.reserve()).map(Math.round), [0, 0, 250], 'never more than the burst');
});

test('what was done already is charged, and the next one waits for it', () => {
  const clock = new ManualClock();
  const buckets = new TokenBuckets(clock, { burst: 10, perHour: 36_000 });
  assert.equal(buckets.reserve('a'), 0);
  buckets.charge('a', 12);
  assert.equal(Math.round(buckets.reserve('a')), 400);
  assert.equal(buckets.reserve('b'), 0);
  buckets.charge('a', 100);
  assert.ok(buckets.reserve('a') > 10_000);
});

test('a pace says when, and counts who waits and who is refused', () => {
  const clock = new ManualClock();
  const seen: string[] = [];
  const observer = { limited: (name: string) => seen.push(`${name} no`), paced: (name: string) => seen.push(name) };
  const few = { burst: 1, perHour: 3_600 };
  const limits = new RateLimits(clock, { ...DEFAULT_RATES, sends: few, calls: { burst: 1, perHour: 0 } }, observer);
  assert.deepEqual(limits.pace('sends', 'a'), { kind: 'go', waitMs: 0 });
  assert.deepEqual(limits.pace('sends', 'a'), { kind: 'go', waitMs: 1_000 });
  assert.deepEqual(limits.pace('sends', 'b'), { kind: 'go', waitMs: 0 }, 'others have their own');
  const refused = limits.pace('sends', 'a');
  assert.ok(refused.kind === 'refuse');
  assert.equal(refused.waitMs, PATIENCE_MS);
  assert.equal(refused.error.retryAfterMs, 1_000, 'what is left when it is told');
  for (let i = 0; i < 1_000; i++) assert.equal(limits.paceOf('calls', limits.bucket('calls')).waitMs, 0);
  assert.deepEqual(seen, ['sends', 'sends no']);
});

test('THREATS 27: the table of callers is bounded', () => {
  const buckets = new TokenBuckets(new ManualClock(), { burst: 1, perHour: 1 });
  for (let i = 0; i < 100_500; i++) buckets.take(String(i));
  assert.equal(buckets.size, 100_000);
  assert.ok(buckets.take('100499') > 0, 'the newest are remembered');
});

test('full buckets are forgotten as new ones come, so that a table does not keep whoever was here once', () => {
  const clock = new ManualClock();
  const buckets = new TokenBuckets(clock, { burst: 2, perHour: 3_600 });
  for (let i = 0; i < 1_000; i++) buckets.take(`early ${i}`);
  assert.equal(buckets.size, 1_000, 'none of them is full yet');
  clock.ms = 10_000;
  for (let i = 0; i < 1_000; i++) buckets.take(`late ${i}`);
  assert.equal(buckets.size, 1_000, 'all early ones have gone');
  assert.equal(buckets.take('late 999'), 0);
  assert.ok(buckets.take('late 999') > 0, 'and no other');
});

test('without limit nothing is remembered', () => {
  const buckets = new TokenBuckets(new ManualClock(), { burst: 1, perHour: 0 });
  for (let i = 0; i < 100; i++) assert.equal(buckets.take('a'), 0);
  assert.equal(buckets.size, 0);
});

test('a network address is an IPv4 address or an IPv6 /64', () => {
  const cases: [string, string][] = [
    ['10.1.2.3:5001', '10.1.2.3'],
    ['[2001:db8:1:2:3:4:5:6]:99', '2001:db8:1:2'],
    ['[2001:db8::1]:99', '2001:db8:0:0'],
    ['[::1]:99', '0:0:0:0'],
    ['[::ffff:10.1.2.3]:99', '10.1.2.3'],
    ['memory:client', 'memory:client'],
  ];
  for (const [peer, network] of cases) assert.equal(networkOf({ peer }), network);
});

test('the defaults let honest heavy use pass at once', () => {
  const uses: Record<string, Partial<Record<RateName, number>>> = {
    'an account opens a group of a thousand others': {
      resolves: 1_000,
      resolvesFromAddress: 1_000,
      keyPackages: 1_000,
      reads: 1_000,
      channels: 1,
      commits: 5,
      commitKib: 5 * 1_024,
    },
    'an outbox of 500 messages, a KiB each': { enqueues: 500, enqueueKib: 1_000 },
    'a household of 30 registers, and looks up everybody': {
      connects: 60,
      anonymous: 300,
      registrations: 30,
      passwords: 60,
      passwordsOfOne: 2,
      resolvesFromAddress: 900,
      logReads: 300,
    },
    'a company of 500 comes back at nine, with two connections each, and ten of them open a group of all': {
      connects: 1_000,
      anonymous: 2_000,
      resumes: 1_000,
      resolvesFromAddress: 5_000,
      logReads: 1_000,
    },
  };
  for (const [use, costs] of Object.entries(uses)) {
    const limits = new RateLimits(new ManualClock(), DEFAULT_RATES);
    for (const [name, count] of Object.entries(costs) as [RateName, number][]) {
      const each = name.endsWith('Kib') ? count : 1;
      for (let i = 0; i < count; i += each) {
        assert.doesNotThrow(() => limits.take(name, 'one', each), `${use}: ${name}, ${i + 1} of ${count}`);
      }
    }
  }
});
