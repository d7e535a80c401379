import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { EventType, type NativeEvent, type Party, Turns } from './quic-engine.node.ts';

// Time passes when an event is handled, and not otherwise.
let now = 1;

class FakeEngine {
  acknowledged = 0;

  ackEventBatch(count: number): void {
    this.acknowledged += count;
  }

  requestShutdown(): boolean {
    return true;
  }

  joinWorker(): void {}
}

class FakeParty implements Party {
  readonly seen: number[] = [];
  closed: object | undefined;
  overruns = 0;
  readonly #costMs: number;
  readonly #log: string[];
  readonly #name: string;

  constructor(name: string, costMs: number, log: string[] = []) {
    this.#name = name;
    this.#costMs = costMs;
    this.#log = log;
  }

  dispatch(event: NativeEvent): void {
    now += this.#costMs;
    this.seen.push(event.streamId);
    this.#log.push(this.#name);
  }

  overrun(): void {
    this.overruns += 1;
    this.closed = {};
  }
}

function events(count: number, bytes: number): NativeEvent[] {
  return Array.from({ length: count }, (_, i) => ({
    eventType: EventType.data,
    connHandle: 0,
    streamId: i,
    data: new Uint8Array(bytes),
  }));
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('the turns of the event loop', () => {
  test('what is cheap is handled as it comes, and acknowledged', () => {
    const engine = new FakeEngine();
    const turns = new Turns(engine, () => now);
    const party = new FakeParty('a', 0);
    turns.batch(events(10, 1), (event) => turns.received(party, event));
    assert.equal(party.seen.length, 10);
    assert.equal(engine.acknowledged, 10);
  });

  test('THREATS 24: a flood delays the others by one piece, not by its backlog', async () => {
    const log: string[] = [];
    const turns = new Turns(new FakeEngine(), () => now);
    const flooder = new FakeParty('flooder', 3, log);
    const honest = new FakeParty('honest', 0, log);
    turns.batch(events(60, 100), (event) => turns.received(flooder, event));
    const done = flooder.seen.length;
    assert.ok(done < 10, `${done} in one turn`);
    turns.batch(events(3, 100), (event) => turns.received(honest, event));
    while (honest.seen.length < 3) await turn();
    assert.ok(flooder.seen.length - done <= 8, `${flooder.seen.length} of the flood came first`);
    while (flooder.seen.length < 60) await turn();
    assert.deepEqual(
      flooder.seen,
      Array.from({ length: 60 }, (_, i) => i),
      'in order',
    );
  });

  test('a turn takes a millisecond of a flood and leaves the rest to the next', async () => {
    const turns = new Turns(new FakeEngine(), () => now);
    const flooder = new FakeParty('flooder', 0.25);
    turns.batch(events(100, 100), (event) => turns.received(flooder, event));
    assert.equal(flooder.seen.length, 4);
    for (let i = 2; i <= 25; i += 1) {
      await turn();
      assert.equal(flooder.seen.length, 4 * i);
    }
  });

  test('THREATS 27: who has more than 16 MiB waiting is ended, and nothing of it is kept', async () => {
    const turns = new Turns(new FakeEngine(), () => now);
    const flooder = new FakeParty('flooder', 10);
    turns.batch(events(1100, 16 * 1024), (event) => {
      if (flooder.closed === undefined) turns.received(flooder, event);
    });
    assert.equal(flooder.overruns, 1);
    const done = flooder.seen.length;
    await turn();
    await turn();
    assert.equal(flooder.seen.length, done);
  });

  test('small pieces are copied and the engine gets its buffers back at once, handled now or later', async () => {
    const turns = new Turns(new FakeEngine(), () => now);
    const kept: (Uint8Array | undefined)[] = [];
    const party: Party = {
      dispatch: (event) => {
        now += 10;
        kept.push(event.data);
      },
      overrun: () => {},
      closed: undefined,
    };
    const piece = (data: Uint8Array): NativeEvent => ({ eventType: EventType.data, connHandle: 0, streamId: 0, data });
    const small = [1, 2, 3].map((n) => new Uint8Array(100).fill(n));
    const buffers = small.map(({ buffer }) => buffer as ArrayBuffer);
    const shared = new Uint8Array(new ArrayBuffer(16 * 1024), 8, 5).fill(4);
    const large = new Uint8Array(8 * 1024).fill(5);
    turns.batch([...small, shared, large].map(piece), (event) => turns.received(party, event));
    assert.deepEqual(
      buffers.map(({ detached }) => detached),
      [true, true, true],
    );
    while (kept.length < 5) await turn();
    for (const [i, length] of [100, 100, 100, 5].entries()) {
      assert.deepEqual(kept[i], new Uint8Array(length).fill(i + 1));
    }
    assert.equal(shared[0], 4, 'what is not the piece’s alone stays');
    assert.equal(kept[4], large, 'what fills its buffer is not copied');
  });

  test('an engine is asked to pause when too much waits, and to go on later', async () => {
    const engine = new FakeEngine();
    const turns = new Turns(engine, () => now);
    const parties = Array.from({ length: 12 }, () => new FakeParty('p', 0));
    const [first] = parties as [FakeParty, ...FakeParty[]];
    const slow = new FakeParty('slow', 20);
    turns.batch(events(1, 1), (event) => turns.received(slow, event));
    for (const party of parties) {
      turns.batch(events(700, 16 * 1024), (event) => turns.received(party, event));
    }
    assert.ok(engine.acknowledged < 8401, 'paused');
    while (engine.acknowledged < 8401) await turn();
    while (first.seen.length < 700) await turn();
  });

  test('what is written is flushed in the next turn, before anything else is handled', async () => {
    const log: string[] = [];
    const turns = new Turns(new FakeEngine(), () => now);
    const slow = new FakeParty('event', 9, log);
    turns.batch(events(2, 1), (event) => turns.received(slow, event));
    turns.written({ flush: () => log.push('flush') });
    while (log.length < 3) await turn();
    assert.deepEqual(log, ['event', 'flush', 'event']);
  });
});
