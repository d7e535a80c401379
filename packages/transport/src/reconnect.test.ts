import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Backoff, Reconnector } from './reconnect.ts';
import { ManualClock } from './testing/manual-clock.ts';

// Lets promise reactions run.
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('backoff', () => {
  test('0.2 s doubling, cap 30 s', () => {
    const backoff = new Backoff(() => 1);
    const waits = Array.from({ length: 10 }, () => backoff.nextMs());
    assert.deepEqual(waits, [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
  });

  test('full jitter: anything from nothing to the ceiling', () => {
    assert.equal(new Backoff(() => 0).nextMs(), 0);
    const draws = [0.5, 0.25];
    const backoff = new Backoff(() => draws.shift() ?? 0);
    assert.deepEqual([backoff.nextMs(), backoff.nextMs()], [100, 100]);
  });

  test('starts over after a success, and never overflows', () => {
    const backoff = new Backoff(() => 1);
    for (let i = 0; i < 2000; i += 1) assert.ok(backoff.nextMs() <= 30_000);
    backoff.reset();
    assert.equal(backoff.nextMs(), 200);
  });
});

describe('reconnector', () => {
  test('tries again after each failure, sooner after one that worked', async () => {
    const clock = new ManualClock();
    const waits: number[] = [];
    let attempts = 0;
    const reconnector = new Reconnector({
      clock,
      random: () => 1,
      onWaiting: (ms) => waits.push(ms),
      session: async (established) => {
        attempts += 1;
        if (attempts === 3) established();
        if (attempts < 3) throw new Error('away');
      },
    });
    const running = reconnector.run();
    for (const ms of [200, 400, 200, 400]) {
      await turn();
      clock.advance(ms - 1);
      const before = attempts;
      await turn();
      assert.equal(attempts, before);
      clock.advance(1);
      await turn();
      assert.equal(attempts, before + 1);
    }
    assert.deepEqual(waits, [200, 400, 200, 400, 800]);
    reconnector.stop();
    await running;
    assert.equal(clock.pending, 0);
  });

  test('tryNow cuts the wait short', async () => {
    const clock = new ManualClock();
    let attempts = 0;
    const reconnector = new Reconnector({
      clock,
      random: () => 1,
      session: async () => {
        attempts += 1;
      },
    });
    const running = reconnector.run();
    await turn();
    reconnector.tryNow();
    await turn();
    assert.equal(attempts, 2);
    reconnector.stop();
    await running;
  });

  test('an error that will not go away ends it', async () => {
    const wrong = new Error('untrusted certificate');
    const reconnector = new Reconnector({
      clock: new ManualClock(),
      random: () => 1,
      retry: (error) => error !== wrong,
      session: () => Promise.reject(wrong),
    });
    await assert.rejects(reconnector.run(), wrong);
  });

  test('stop aborts the session in progress', async () => {
    const reconnector = new Reconnector({
      clock: new ManualClock(),
      random: () => 1,
      session: (_established, signal) =>
        new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true })),
    });
    const running = reconnector.run();
    await turn();
    reconnector.stop();
    await running;
  });
});
