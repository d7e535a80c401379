// One who floods, one who does not read: what others notice. Told by the order of events, not by time.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { methods } from '@quicprochat/transport';
import { envelope, messageId, World } from './testing/world.node.ts';
import type { Person, TestConnection } from './testing/world.node.ts';

const { delivery } = methods;

let world: World;
let mallory: Person;
let alice: Person;
let bob: Person;
let a: TestConnection;

before(async () => {
  world = await World.start();
  [mallory, alice, bob] = [await world.register('mallory'), await world.register('alice'), await world.register('bob')];
  a = await world.login(alice);
});
after(() => world.close());

const to = (person: Person, bytes = 1_200) => ({
  recipientKey: person.address.identityKey,
  deviceId: person.address.deviceId,
  payload: envelope(1, bytes),
  messageId: messageId(),
});

// What a lane of the queue is worth under a flood is tested at the queue (store/write-queue.test.ts); here, whose it is.
test('all connections of a device share one lane of the store’s queue; another device has its own', async () => {
  const { store } = world;
  const enqueue = store.enqueue.bind(store);
  const lanes: unknown[] = [];
  store.enqueue = (message, context) => {
    lanes.push(context?.fairnessKey);
    return enqueue(message, context);
  };
  const connections = [...(await Promise.all([1, 2, 3].map(() => world.login(mallory)))), a];
  for (const connection of connections) await connection.call(delivery.enqueue, to(bob));
  store.enqueue = enqueue;
  const [first, second, third, other] = lanes;
  assert.ok(first !== undefined);
  assert.deepEqual([second, third], [first, first]);
  assert.notEqual(other, first);
});

test('a flood of one device is answered, and meanwhile another one’s message as well', async () => {
  const m = await world.login(mallory);
  let answered = 0;
  const flood = Array.from({ length: 1_000 }, async () => {
    await m.call(delivery.enqueue, to(bob));
    answered++;
  });
  await a.call(delivery.enqueue, to(bob));
  assert.ok(answered < 1_000, 'the flood still goes on');
  await Promise.all(flood);
});

test('a subscriber that does not read holds up neither its sender nor the other subscribers, and misses nothing', async () => {
  const stuck = await world.subscribe(mallory);
  const reading = await world.subscribe(bob, BigInt(await world.store.headSeq(bob.address)));
  stuck.wire.pauseReading();
  const rows = 40;
  for (let i = 0; i < rows; i++) {
    const recipients = [{ address: mallory.address }, { address: bob.address }];
    const payload = envelope(1, 64 * 1024);
    await a.call(delivery.batchEnqueue, { recipients, messageId: messageId(), payload });
  }
  await reading.until(() => reading.envelopes.length === rows);
  // What the server has pushed towards her waits for her; the rest stays on disk.
  assert.ok(stuck.envelopes.length < rows);
  stuck.wire.resumeReading();
  await stuck.until(() => stuck.envelopes.length === rows);
  assert.deepEqual(
    stuck.envelopes.map(({ seq }) => seq),
    Array.from({ length: rows }, (_, i) => (stuck.envelopes[0]?.seq ?? 0n) + BigInt(i)),
  );
});
