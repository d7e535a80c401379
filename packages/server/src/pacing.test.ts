// Who sends faster than a limit allows is slowed, in order, and nobody else (docs/decisions/0023-pacing.md). Told by the
// order of events and by counts. What waiting means in every detail is in the transport's pacing.test.ts.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Status } from '@quicprochat/proto';
import { methods, RpcError } from '@quicprochat/transport';
import { NO_OBSERVER } from './observer.ts';
import type { Observer } from './observer.ts';
import { DEFAULT_RATES } from './rate-limits.ts';
import type { RateSettings } from './rate-limits.ts';
import { envelope, messageId, World } from './testing/world.node.ts';
import type { Person } from './testing/world.node.ts';

const { delivery, auth, p2p } = methods;

interface Counts {
  readonly paced: string[];
  readonly limited: string[];
}

async function paced(rates: Partial<RateSettings>, run: (world: World, counts: Counts) => Promise<void>) {
  const counts: Counts = { paced: [], limited: [] };
  const observer: Observer = {
    ...NO_OBSERVER,
    paced: (limit) => counts.paced.push(limit),
    limited: (limit) => counts.limited.push(limit),
  };
  const world = await World.start({ rates, observer: () => observer });
  try {
    await run(world, counts);
  } finally {
    await world.close();
  }
}

const to = ({ address }: Person, id = messageId()) => ({
  recipientKey: address.identityKey,
  deviceId: address.deviceId,
  payload: envelope(1),
  messageId: id,
});

test('THREATS 24: messages of one device wait for their turn, in order; those of the account’s other device do not', async () => {
  await paced({ sends: { burst: 3, perHour: 36_000 } }, async (world, { paced, limited }) => {
    const [mallory, bob] = [await world.register('mallory'), await world.register('bob')];
    const device = await world.addDevice(mallory);
    const other = await world.login(device);
    const reader = await world.subscribe(bob);
    const m = await world.login(mallory);
    const ids = Array.from({ length: 9 }, messageId);
    let answered = 0;
    const flood = ids.map(async (id) => {
      const { results } = await m.call(delivery.enqueue, to(bob, id));
      answered++;
      return results[0]?.outcome.case;
    });
    await Promise.all([other.call(delivery.enqueue, to(bob)), other.call(delivery.peek, own(device))]);
    assert.ok(answered < ids.length, 'the flood still waits');
    assert.deepEqual(new Set(await Promise.all(flood)), new Set(['queued']), 'slowed, never refused');
    await reader.until(() => reader.envelopes.length === ids.length + 1);
    const flooded = reader.envelopes.map(({ messageId: id }) => hex(id)).filter((id) => ids.map(hex).includes(id));
    assert.deepEqual(flooded, ids.map(hex), 'stored as they were sent');
    assert.deepEqual(new Set(paced), new Set(['sends']));
    assert.deepEqual(limited, []);

    // Its connections share the pace.
    const second = await world.login(mallory);
    const before = paced.length;
    await Promise.all([m, second].map((each) => each.call(delivery.enqueue, to(bob))));
    assert.ok(paced.length > before);
  });
});

test('THREATS 24: a message to many costs its sender more, and nobody else', async () => {
  await paced({ sends: { burst: 10, perHour: 3_600 } }, async (world, { paced, limited }) => {
    const [mallory, bob] = [await world.register('mallory'), await world.register('bob')];
    const [m, b] = [await world.login(mallory), await world.login(bob)];
    const recipients = Array.from({ length: 2_000 }, () => {
      return { address: { identityKey: bob.address.identityKey, deviceId: messageId() } };
    });
    const many = { recipients, messageId: messageId(), payload: envelope(1) };
    assert.equal((await m.call(delivery.batchEnqueue, many)).results.length, 2_000);
    assert.deepEqual(paced, [], 'nobody waits for what came first');
    await b.call(delivery.enqueue, to(mallory));
    assert.deepEqual(paced, []);
    // She has sent as much as twenty messages to one.
    const refused = (error: unknown) => error instanceof RpcError && error.status === Status.RATE_LIMITED;
    await assert.rejects(m.call(delivery.enqueue, to(bob)), refused);
    assert.deepEqual([paced, limited], [[], ['sends']]);
  });
});

test('far beyond its pace a message is refused, after a wait, with the time to come back', async () => {
  await paced({ sends: { burst: 1, perHour: 7_200 } }, async (world, { paced, limited }) => {
    const bob = await world.register('bob');
    const b = await world.login(bob);
    const answered = new Set<string>();
    const send = async (name: string): Promise<void> => {
      try {
        await b.call(delivery.enqueue, to(bob));
        answered.add(name);
      } catch (error) {
        assert.ok(error instanceof RpcError && error.status === Status.RATE_LIMITED, String(error));
        assert.ok(error.retryAfterMs > 0 && error.retryAfterMs <= 500, `${error.retryAfterMs} ms`);
        answered.add(`${name} refused`);
      }
    };
    await Promise.all(['at once', 'after half a second', 'after a second', 'too far'].map(send));
    assert.deepEqual(answered, new Set(['at once', 'after half a second', 'after a second', 'too far refused']));
    assert.deepEqual([paced, limited], [['sends', 'sends'], ['sends']]);
    assert.equal(world.server.inFlight, 0);
  });
});

test('calls of every kind wait once a connection has had its share, with a session or without, refused or not', async () => {
  await paced({ calls: { burst: 10, perHour: 3_600_000 } }, async (world, { paced, limited }) => {
    const anyone = world.connect();
    const kinds = [
      () => anyone.call(auth.getNonce, {}),
      () => anyone.call(p2p.health, {}),
      () => anyone.call(methods.device.listDevices, {}),
      () => anyone.call(methods.federation.federationHealth, {}),
    ];
    const calls = Array.from({ length: 50 }, (_, i) => kinds[i % kinds.length]?.());
    const outcomes = await Promise.allSettled(calls);
    assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 26);
    assert.ok(paced.length > 20, `${paced.length} waited`);
    assert.deepEqual(new Set(paced), new Set(['calls']));
    assert.deepEqual(limited, []);
  });
});

test('a connection that ends, or a server that goes, takes along what waits', async () => {
  await paced({ sends: { burst: 1, perHour: 7_200 } }, async (world) => {
    const [alice, bob] = [await world.register('alice'), await world.register('bob')];
    const a = await world.login(alice);
    await a.call(delivery.enqueue, to(bob));
    const waiting = [1, 2].map(() => assert.rejects(a.call(delivery.enqueue, to(bob))));
    // An answer on another connection comes after the server has read what was written before.
    const b = await world.login(bob);
    assert.equal(world.server.inFlight, 2);
    a.wire.lose();
    await Promise.all(waiting);
    await b.call(auth.getNonce, {});
    assert.equal(world.server.inFlight, 0);
    assert.equal((await b.call(delivery.peek, own(bob))).envelopes.length, 1, 'none of them was stored');

    // Bob's first message goes at once; the second waits, and is stored before the server has drained.
    const sent = [1, 2].map(() => b.call(delivery.enqueue, to(alice)));
    await sent[0];
    await Promise.all([world.server.pause(10_000), sent[1]]);
    assert.equal(await world.store.headSeq(alice.address), 2);
    world.server.resume();
  });
});

test('the standard pace does not touch what a client does at once', () => {
  const { calls, sends } = DEFAULT_RATES;
  // An outbox with a message for each of a hundred conversations; a file of 50 MiB in chunks; a group of 200 looked up.
  assert.ok(sends.burst >= 100);
  assert.ok(calls.burst >= Math.max((50 * 1024) / 256, 4 * 200));
  assert.ok(sends.perHour >= DEFAULT_RATES.enqueues.perHour, 'the hourly limit is what ends a flood');
});

function own({ address }: Person) {
  return { recipientKey: address.identityKey, deviceId: address.deviceId };
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
