import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TURN_BYTES, TURN_WRITES, TURN_WRITES_PER_KEY, WriteQueue } from './write-queue.ts';

interface Write {
  readonly fairnessKey: string | undefined;
  readonly bytes: number;
  readonly n: number;
}

const write = (fairnessKey: string | undefined, n: number, bytes = 100): Write => ({ fairnessKey, bytes, n });

function filled(...writes: readonly Write[]): WriteQueue<Write> {
  const queue = new WriteQueue<Write>();
  for (const each of writes) queue.push(each);
  return queue;
}

const numbers = (n: number) => Array.from({ length: n }, (_, i) => i);

test('a flood of one connection delays nobody else', () => {
  const queue = filled(...numbers(1_000).map((n) => write('flood', n)), write('alice', 0), write(undefined, 0));
  const turn = queue.take();
  assert.equal(turn.length, TURN_WRITES_PER_KEY + 2);
  assert.deepEqual(
    turn.slice(0, 3).map(({ fairnessKey }) => fairnessKey),
    ['flood', 'alice', undefined],
  );
  assert.equal(queue.size, 1_000 - TURN_WRITES_PER_KEY);
});

test('a turn is bounded, and who was not served comes first in the next', () => {
  const queue = filled(
    ...numbers(200).map((n) => write(`client ${n}`, n)),
    ...numbers(200).map((n) => write(`client ${n}`, n)),
  );
  const [first, second] = [queue.take(), queue.take()];
  assert.equal(first.length, TURN_WRITES);
  assert.deepEqual(
    second.slice(0, 72).map(({ n }) => n),
    numbers(200).slice(TURN_WRITES),
  );
  assert.equal(second.length, TURN_WRITES);
});

test('writes of one key keep their order, and none is lost or repeated', () => {
  const writes = numbers(500).map((n) => write(`client ${n % 7}`, n));
  const queue = filled(...writes);
  const taken: Write[] = [];
  while (queue.size > 0) taken.push(...queue.take());
  assert.equal(taken.length, 500);
  for (let key = 0; key < 7; key++) {
    const own = taken.filter(({ fairnessKey }) => fairnessKey === `client ${key}`).map(({ n }) => n);
    assert.deepEqual(
      own,
      [...own].sort((a, b) => a - b),
    );
  }
  assert.equal(new Set(taken).size, 500);
  assert.deepEqual(queue.take(), []);
});

test('what is put back comes first in the next turn, in its order, and the order of no key changes', () => {
  const queue = filled(...numbers(30).map((n) => write(`client ${n % 3}`, n)), write(undefined, 30));
  const turn = queue.take();
  assert.equal(turn.length, 31);
  queue.putBack(turn.slice(2));
  queue.push(write('client 0', 40));
  queue.push(write('late', 41));
  assert.equal(queue.size, 31);
  const next = queue.take().map(({ n }) => n);
  assert.deepEqual(next.slice(0, 4), [2, 30, 3, 4], 'who was not served at all goes first');
  assert.ok(next.indexOf(41) < 6);
  for (const client of [0, 1, 2]) {
    const own = next.filter((n) => n < 30 && n % 3 === client);
    assert.deepEqual(
      own,
      [...own].sort((a, b) => a - b),
    );
  }
  assert.equal(next.indexOf(40) > next.indexOf(27), true);
  assert.equal(queue.size, 0);
  queue.putBack([]);
  assert.deepEqual(queue.take(), []);
});

test('large payloads make short turns, but one write always passes', () => {
  const queue = filled(write('a', 0, 2 * TURN_BYTES), write('b', 1), write('c', 2, TURN_BYTES), write('d', 3, 1));
  assert.deepEqual(
    queue.take().map(({ n }) => n),
    [0],
  );
  assert.deepEqual(
    queue.take().map(({ n }) => n),
    [1],
  );
  assert.deepEqual(
    queue.take().map(({ n }) => n),
    [2],
  );
  assert.deepEqual(
    queue.take().map(({ n }) => n),
    [3],
  );
});
