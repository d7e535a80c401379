// Events, conditions and queues: what one part of the engine tells another.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ManualClock } from '../../transport/src/testing/manual-clock.ts';
import { ClientError } from './errors.ts';
import { Conditions, EventHub, KeyedQueue } from './event-hub.ts';
import type { ClientEvent } from './types.ts';

const caughtUp: ClientEvent = { type: 'caught-up' };
const notice = (text: string): ClientEvent => ({ type: 'server-notice', text });

test('listeners and iterators get every event in order, until they stop', async () => {
  const hub = new EventHub();
  const heard: ClientEvent[] = [];
  const stop = hub.on((event) => heard.push(event));
  const iterator = hub.iterate();
  const first = iterator.next();
  hub.emit(notice('one'));
  hub.emit(notice('two'));
  stop();
  hub.emit(caughtUp);
  assert.deepEqual(heard, [notice('one'), notice('two')]);
  assert.deepEqual(await first, { done: false, value: notice('one') });
  assert.deepEqual(await iterator.next(), { done: false, value: notice('two') });
  assert.deepEqual(await iterator.next(), { done: false, value: caughtUp });
  const waiting = iterator.next();
  hub.end();
  assert.equal((await waiting).done, true);
  const ended: ClientEvent[] = [];
  for await (const event of iterator) ended.push(event);
  assert.deepEqual(ended, []);
});

test('a condition is waited for until it holds, until time is up, or until the end', async () => {
  const clock = new ManualClock();
  const conditions = new Conditions(clock);
  let value = 0;
  const two = conditions.until(() => value === 2, undefined, 'two');
  const three = conditions.until(() => value === 3, 1_000, 'three');
  const never = conditions.until(() => value === 99, undefined, 'ever');
  await conditions.until(() => true, undefined, 'nothing');
  value = 2;
  conditions.check();
  await two;
  clock.advance(1_000);
  await assert.rejects(three, { code: 'timeout', message: 'three took too long' });
  conditions.end(new ClientError('local-state', 'closed', 'closed'));
  await assert.rejects(never, { code: 'closed' });
  await assert.rejects(
    conditions.until(() => true, undefined, 'later'),
    { code: 'closed' },
  );
  assert.equal(clock.pending, 0);
});

test('a condition that fails fails whoever waits for it, and nobody else', async () => {
  const conditions = new Conditions(new ManualClock());
  let broken = false;
  const one = conditions.until(
    () => {
      if (broken) throw new ClientError('cannot-connect', 'server-away', 'gone');
      return false;
    },
    undefined,
    'one',
  );
  let done = false;
  const other = conditions.until(() => done, undefined, 'other');
  broken = true;
  conditions.check();
  await assert.rejects(one, { code: 'server-away' });
  done = true;
  conditions.check();
  await other;
});

test('tasks of one key run one after the other, also after one has failed; of two keys at once', async () => {
  const queue = new KeyedQueue();
  const order: string[] = [];
  let release = (): void => {};
  const gate = new Promise<void>((resolve) => {
    release = resolve;
  });
  const first = queue.run('a', async () => {
    await gate;
    order.push('a1');
    throw new Error('failed');
  });
  const second = queue.run('a', async () => void order.push('a2'));
  await queue.run('b', async () => void order.push('b1'));
  assert.deepEqual(order, ['b1']);
  release();
  await assert.rejects(first, /failed/);
  await second;
  assert.deepEqual(order, ['b1', 'a1', 'a2']);
});
