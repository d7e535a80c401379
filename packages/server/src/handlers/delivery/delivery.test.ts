// Inboxes: enqueue, push, read, acknowledge; full and unknown recipients; duplicates; ephemeral envelopes; the pump.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { create, toBinary } from '@bufbuild/protobuf';
import { parseReceipt, verifyReceipt } from '@quicprochat/core';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { encodeHex } from '@quicprochat/crypto';
import { InboxGap_Reason, PeekRequestSchema, Status } from '@quicprochat/proto';
import type { RecipientResult } from '@quicprochat/proto';
import { encodeRequestHeader, methods, RpcError } from '@quicprochat/transport';
import { ENVELOPE_BYTES_MAX } from '../../envelope-shape.ts';
import { envelope, messageId, ORIGIN, World } from '../../testing/world.node.ts';
import type { Person, TestConnection } from '../../testing/world.node.ts';

const { delivery } = methods;

let world: World;
let alice: Person;
let bob: Person;
let a: TestConnection;

before(async () => {
  world = await World.start({ limits: { inboxEnvelopes: 20 } });
  [alice, bob] = [await world.register('alice'), await world.register('bob')];
  a = await world.login(alice);
});
after(() => world.close());

const to = (person: Person, data: Uint8Array, id = messageId()) => ({
  recipientKey: person.address.identityKey,
  deviceId: person.address.deviceId,
  payload: data,
  messageId: id,
});

const own = (person: Person) => ({ recipientKey: person.address.identityKey, deviceId: person.address.deviceId });

const kinds = (results: readonly RecipientResult[]) => results.map((result) => result.outcome.case);

async function refusal(promise: Promise<unknown>): Promise<RpcError> {
  const error = await promise.then(
    () => assert.fail('was not refused'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof RpcError, String(error));
  return error;
}

const bytes = (data: Uint8Array | undefined) => encodeHex(data ?? new Uint8Array(0));

async function clear(person: Person): Promise<bigint> {
  const connection = await world.login(person);
  const head = BigInt(await world.store.headSeq(person.address));
  await connection.call(delivery.ack, { ...own(person), seqUpTo: head });
  return head;
}

describe('one envelope', () => {
  test('is queued, receipted, pushed, kept until acknowledged, and gone afterwards', async () => {
    const cursor = await clear(bob);
    const b = await world.subscribe(bob, cursor);
    const data = envelope(1, 2_048);
    const id = messageId();
    const answer = await a.call(delivery.enqueue, to(bob, data, id));
    assert.deepEqual(kinds(answer.results), ['queued']);
    assert.equal(answer.seq, cursor + 1n);
    assert.equal(answer.duplicate, false);

    const { receiptKey } = await a.call(methods.p2p.health, {});
    const receipt = parseReceipt(answer.deliveryProof);
    assert.ok(receipt !== undefined);
    const verified = verifyReceipt(crypto, receipt, {
      origin: ORIGIN,
      receiptKey,
      channelId: new Uint8Array(0),
      messageId: id,
      payload: data,
      deliveries: [{ address: bob.address, seq: answer.seq }],
    });
    assert.equal(verified.kind, 'verified');

    await b.until(() => b.envelopes.length > 0);
    const [pushed] = b.envelopes;
    assert.equal(pushed?.seq, answer.seq);
    assert.equal(bytes(pushed.data), bytes(data));
    assert.equal(bytes(pushed.messageId), bytes(id));

    const peek = await b.call(delivery.peek, { ...own(bob), afterSeq: cursor });
    assert.deepEqual(
      peek.envelopes.map((e) => e.seq),
      [answer.seq],
    );
    assert.equal((await b.call(delivery.ack, { ...own(bob), seqUpTo: answer.seq })).removed, 1);
    assert.equal((await b.call(delivery.ack, { ...own(bob), seqUpTo: answer.seq })).removed, 0);
    assert.deepEqual((await b.call(delivery.peek, own(bob))).envelopes, []);
  });

  test('sent twice is a duplicate with the first position; THREATS 39: other bytes under its id already exist', async () => {
    await clear(bob);
    const [data, id] = [envelope(1), messageId()];
    const first = await a.call(delivery.enqueue, to(bob, data, id));
    const again = await a.call(delivery.enqueue, to(bob, data, id));
    assert.deepEqual([again.seq, again.duplicate, kinds(again.results)], [first.seq, true, ['duplicate']]);
    assert.ok(again.deliveryProof.length > 0);
    const error = await refusal(a.call(delivery.enqueue, to(bob, envelope(1), id)));
    assert.equal(error.status, Status.ALREADY_EXISTS);
    const b = await world.login(bob);
    const { envelopes } = await b.call(delivery.peek, own(bob));
    assert.deepEqual(
      envelopes.map((e) => bytes(e.data)),
      [bytes(data)],
    );
  });

  test('to an identity goes to each of its devices; to nobody is unknown, and the call is ok', async () => {
    const carol = await world.register('carol');
    const second = await world.addDevice(carol);
    const { identityKey } = carol.address;
    const answer = await a.call(delivery.enqueue, {
      recipientKey: identityKey,
      payload: envelope(1),
      messageId: messageId(),
    });
    assert.deepEqual(kinds(answer.results), ['queued', 'queued']);
    for (const device of [carol, second]) {
      const connection = await world.login(device);
      assert.equal((await connection.call(delivery.peek, own(device))).envelopes.length, 1);
    }
    const nobody = await a.call(delivery.enqueue, to(world.newPerson('nobody'), envelope(1)));
    assert.deepEqual(kinds(nobody.results), ['unknown']);
    assert.equal(nobody.deliveryProof.length, 0);
    assert.equal(nobody.duplicate, false);
  });
});

describe('reading', () => {
  test('a device reads and acknowledges its own inbox only', async () => {
    for (const method of [delivery.fetch, delivery.peek, delivery.fetchWait, delivery.ack]) {
      const error = await refusal(a.call(method as typeof delivery.peek, own(bob)));
      assert.equal(error.status, Status.FORBIDDEN, method.name);
    }
    const sibling = await world.addDevice(alice);
    assert.equal((await refusal(a.call(delivery.peek, own(sibling)))).status, Status.FORBIDDEN);
  });

  test('fetch drains, peek and fetch-wait do not, and limits hold', async () => {
    await clear(bob);
    const b = await world.login(bob);
    for (let i = 0; i < 5; i++) await a.call(delivery.enqueue, to(bob, envelope(1, 2_000)));
    assert.equal((await b.call(delivery.peek, { ...own(bob), limit: 2 })).envelopes.length, 2);
    assert.equal((await b.call(delivery.peek, { ...own(bob), maxBytes: 1 })).envelopes.length, 1);
    assert.equal((await b.call(delivery.fetchWait, { ...own(bob), timeoutMs: 0 })).envelopes.length, 5);
    assert.equal((await b.call(delivery.fetch, { ...own(bob), limit: 3 })).envelopes.length, 3);
    assert.equal((await b.call(delivery.fetch, own(bob))).envelopes.length, 2);
    assert.equal((await b.call(delivery.fetch, own(bob))).envelopes.length, 0);
  });

  test('fetch-wait returns when something comes for it, when time is up and when cancelled', async () => {
    await clear(bob);
    const b = await world.login(bob);
    const waiting = b.call(delivery.fetchWait, { ...own(bob), timeoutMs: 60_000 });
    const sent = await a.call(delivery.enqueue, to(bob, envelope(1)));
    assert.deepEqual(
      (await waiting).envelopes.map((e) => e.seq),
      [sent.seq],
    );
    await clear(bob);
    assert.deepEqual((await b.call(delivery.fetchWait, { ...own(bob), timeoutMs: 20 })).envelopes, []);
    const abort = new AbortController();
    const given = b.call(delivery.fetchWait, { ...own(bob), timeoutMs: 60_000 }, { signal: abort.signal });
    abort.abort();
    assert.equal((await refusal(given)).status, Status.CANCELLED);
    // What arrives in another channel does not end the wait for this one.
    const channel = crypto.random(16);
    const here = b.call(delivery.fetchWait, { ...own(bob), channelId: channel, timeoutMs: 60_000 });
    await a.call(delivery.enqueue, to(bob, envelope(1)));
    const right = await a.call(delivery.enqueue, { ...to(bob, envelope(1)), channelId: channel });
    assert.deepEqual(
      (await here).envelopes.map((e) => e.seq),
      [right.seq],
    );
  });
});

describe('push', () => {
  test('a subscriber gets what is stored and what comes, each once and in order, across the change-over', async () => {
    const cursor = await clear(bob);
    const sent: string[] = [];
    const send = async () => {
      const id = messageId();
      sent.push(bytes(id));
      await a.call(delivery.enqueue, to(bob, envelope(1, 1_200), id));
    };
    for (let i = 0; i < 8; i++) await send();
    const [b] = await Promise.all([world.subscribe(bob, cursor), send(), send()]);
    for (let i = 0; i < 8; i++) await send();
    await b.until(() => b.envelopes.length >= 18);
    const seqs = b.envelopes.map((e) => e.seq);
    assert.deepEqual(
      seqs,
      seqs.toSorted((x, y) => Number(x - y)),
    );
    assert.equal(new Set(seqs).size, 18);
    assert.deepEqual(new Set(b.envelopes.map((e) => bytes(e.messageId))), new Set(sent));
  });

  test('a row that follows what was pushed is not read back; after a hole the inbox is read, and nothing is missing', async () => {
    const cursor = await clear(bob);
    const { outcome } = await a.call(methods.channel.createChannel, {
      kind: { case: 'direct', value: { peerIdentityKey: bob.address.identityKey } },
    });
    assert.ok(outcome.case !== undefined);
    const { channelId } = outcome.value;
    const sent: string[] = [];
    const say = async () => {
      const id = messageId();
      sent.push(bytes(id));
      await a.call(delivery.batchEnqueue, { channelId, messageId: id, payload: envelope(3) });
    };
    const b = await world.subscribe(bob, cursor);
    const arrived = () => b.until(() => b.envelopes.length === sent.length);
    await say();
    await arrived();
    let reads = 0;
    const { store } = world;
    const readInbox = store.readInbox.bind(store);
    store.readInbox = (read) => {
      reads += 1;
      return readInbox(read);
    };
    try {
      // Reads that the subscription began may still be under way; when they are over, a row that is pushed causes none.
      for (let round = 0; round === 0 || (reads > 0 && round < 10); round++) {
        reads = 0;
        await say();
        await arrived();
      }
      assert.equal(reads, 0);
      // Written past the pump, as by a fault: it is not told of this one.
      const unannounced = messageId();
      sent.push(bytes(unannounced));
      const data = envelope(1);
      await store.enqueue({
        target: { kind: 'recipients', recipients: [bob.address] },
        messageId: unannounced,
        payload: { data, hash: crypto.hash('sha256', data) },
        nowMs: world.clock.wallMs(),
      });
      await say();
      await arrived();
      assert.ok(reads > 0);
    } finally {
      store.readInbox = readInbox;
    }
    assert.deepEqual(
      b.envelopes.map((e) => bytes(e.messageId)),
      sent,
    );
  });

  test('subscribing again starts over at the new cursor, and stops the first', async () => {
    const cursor = await clear(bob);
    const b = await world.subscribe(bob, cursor);
    const first = await a.call(delivery.enqueue, to(bob, envelope(1)));
    await b.until(() => b.envelopes.length === 1);
    const { headSeq } = await b.call(delivery.subscribe, { afterSeq: cursor });
    assert.equal(headSeq, first.seq);
    await b.until(() => b.envelopes.length === 2);
    const next = await a.call(delivery.enqueue, to(bob, envelope(1)));
    await b.until(() => b.envelopes.length === 3);
    assert.deepEqual(
      b.envelopes.map((e) => e.seq),
      [first.seq, first.seq, next.seq],
    );
  });

  test('a subscriber that does not read stops the pump, not the server, and loses nothing', async () => {
    const cursor = await clear(bob);
    const b = await world.subscribe(bob, cursor);
    b.wire.pauseReading();
    const large = () => envelope(1, 400_000);
    for (let i = 0; i < 10; i++) await a.call(delivery.enqueue, to(bob, large()));
    // Others go on.
    assert.equal((await a.call(methods.p2p.health, {})).origin, ORIGIN);
    assert.equal(b.rpc.closed, undefined);
    b.wire.resumeReading();
    await b.until(() => b.envelopes.length === 10);
    assert.equal(new Set(b.envelopes.map((e) => e.seq)).size, 10);
  });

  test('THREATS 13: who waits at an inbox when its session ends gets nothing that comes afterwards', async () => {
    await clear(bob);
    const [thief, b] = [await world.login(bob), await world.login(bob)];
    const waiting = refusal(thief.call(delivery.fetchWait, { ...own(bob), timeoutMs: 20_000 }));
    // Answered after the wait has begun.
    await thief.call(delivery.peek, own(bob));
    await b.call(methods.auth.logout, {});
    await a.call(delivery.enqueue, to(bob, envelope(1)));
    assert.equal((await waiting).status, Status.UNAUTHENTICATED);
    await clear(bob);
  });

  test('THREATS 24, 27: one device that reads its inbox a hundred times at once makes nobody else wait', async () => {
    await clear(bob);
    for (let i = 0; i < 3; i++) await a.call(delivery.enqueue, to(bob, envelope(1, 300_000)));
    const b = await world.login(bob);
    const answered = () => world.log.lines.filter((line) => line.includes('DeliveryService/Peek')).length;
    const before = answered();
    // Our own client would have a few under way at a time.
    const request = toBinary(PeekRequestSchema, create(PeekRequestSchema, { ...own(bob), maxBytes: 1_000_000 }));
    const stream = b.wire.openStream({ onData: () => {}, onEnd: () => {}, onDrain: () => {}, onClose: () => {} });
    for (let id = 1; id <= 100; id++) {
      stream?.write(encodeRequestHeader(new Uint8Array(10), delivery.peek.id, id, request.length), request);
    }
    await b.call(methods.auth.getNonce, {});
    await a.call(delivery.peek, own(alice));
    assert.ok(answered() - before < 50, `${answered() - before} reads came first`);
    await clear(bob);
  });

  test('the largest envelope fits through every door', async () => {
    const cursor = await clear(bob);
    const b = await world.subscribe(bob, cursor);
    const data = envelope(1, ENVELOPE_BYTES_MAX);
    await a.call(delivery.enqueue, to(bob, data));
    await b.until(() => b.envelopes.length === 1);
    assert.equal(b.envelopes[0]?.data.length, ENVELOPE_BYTES_MAX);
    assert.equal((await b.call(delivery.peek, { ...own(bob), afterSeq: cursor })).envelopes.length, 1);
    const error = await refusal(a.call(delivery.enqueue, to(bob, envelope(1, ENVELOPE_BYTES_MAX + 1))));
    assert.equal(error.status, Status.TOO_LARGE);
    await clear(bob);
  });

  test('ephemeral envelopes reach live subscribers and touch no disk', async () => {
    const cursor = await clear(bob);
    const b = await world.subscribe(bob, cursor);
    const data = envelope(3);
    const answer = await a.call(delivery.enqueue, { ...to(bob, data), ephemeral: true });
    assert.deepEqual([answer.seq, answer.deliveryProof.length], [0n, 0]);
    await b.until(() => b.ephemeral.length === 1);
    assert.equal(bytes(b.ephemeral[0]?.data), bytes(data));
    assert.deepEqual((await b.call(delivery.peek, own(bob))).envelopes, []);
    assert.equal(await world.store.headSeq(bob.address), Number(cursor));
    // Nobody listening: nothing happens, and the call is ok.
    const quiet = await world.register(`quiet`);
    assert.deepEqual(kinds((await a.call(delivery.enqueue, { ...to(quiet, data), ephemeral: true })).results), [
      'queued',
    ]);
    // Who is not registered is unknown, as with envelopes that are kept.
    const nobody = world.newPerson('nobody').address;
    const recipients = [
      { address: quiet.address },
      { address: nobody },
      { address: { identityKey: nobody.identityKey } },
      { address: { identityKey: quiet.address.identityKey, deviceId: nobody.deviceId } },
    ];
    const batch = { recipients, messageId: messageId(), payload: envelope(1), ephemeral: true };
    const { results } = await a.call(delivery.batchEnqueue, batch);
    assert.deepEqual(kinds(results), ['queued', 'unknown', 'unknown', 'unknown']);
  });
});

describe('full and lost', () => {
  test('a full inbox says so, shows a gap once read, and is usable after an acknowledgement', async () => {
    const dave = await world.register('dave');
    for (let i = 0; i < 20; i++) await a.call(delivery.enqueue, to(dave, envelope(1)));
    const d = await world.subscribe(dave);
    await d.until(() => d.envelopes.length === 20);
    const over = await a.call(delivery.enqueue, to(dave, envelope(1)));
    assert.deepEqual(kinds(over.results), ['full']);
    assert.equal(over.deliveryProof.length, 0);
    await d.until(() => d.gaps.length === 1);
    assert.equal(d.gaps[0]?.reason, InboxGap_Reason.FULL);
    // Until the device has acknowledged, whoever reads is told.
    assert.equal((await d.call(delivery.peek, own(dave))).gap?.reason, InboxGap_Reason.FULL);
    await d.call(delivery.ack, { ...own(dave), seqUpTo: 20n });
    assert.equal((await d.call(delivery.peek, own(dave))).gap, undefined);
    assert.deepEqual(kinds((await a.call(delivery.enqueue, to(dave, envelope(1)))).results), ['queued']);
  });

  test('a gap told to one device is not cleared by the next one on the same connection', async () => {
    const [first, second] = [await world.register('first'), await world.register('second')];
    for (const person of [first, second]) {
      for (let i = 0; i < 21; i++) await a.call(delivery.enqueue, to(person, envelope(1)));
    }
    const connection = await world.login(first);
    // The read of the first one's inbox is under way while the second one takes the connection over.
    const store = world.store;
    const readInbox = store.readInbox.bind(store);
    const began = Promise.withResolvers<void>();
    const goOn = Promise.withResolvers<void>();
    store.readInbox = async (read) => {
      const outcome = await readInbox(read);
      began.resolve();
      await goOn.promise;
      return outcome;
    };
    const peeked = connection.call(delivery.peek, own(first));
    await began.promise;
    store.readInbox = readInbox;
    await world.login(second, connection);
    goOn.resolve();
    assert.equal((await peeked).gap?.reason, InboxGap_Reason.FULL);
    await connection.call(delivery.ack, { ...own(second), seqUpTo: 20n });
    assert.equal((await connection.call(delivery.peek, own(second))).gap?.reason, InboxGap_Reason.FULL);
  });

  test('THREATS 35: one full and one unknown recipient do not keep a batch from the others', async () => {
    const full = await world.register('full');
    for (let i = 0; i < 20; i++) await a.call(delivery.enqueue, to(full, envelope(1)));
    await clear(bob);
    const people = [full, world.newPerson('ghost'), bob];
    const answer = await a.call(delivery.batchEnqueue, {
      messageId: messageId(),
      payload: envelope(3),
      recipients: people.map((person) => ({ address: person.address })),
    });
    const byDevice = new Map(answer.results.map((r) => [bytes(r.address?.deviceId), r.outcome.case]));
    assert.deepEqual(
      people.map((person) => byDevice.get(bytes(person.address.deviceId))),
      ['full', 'unknown', 'queued'],
    );
    assert.ok(answer.deliveryProof.length > 0);
    assert.equal(answer.receipt?.keyId.length, 8);
  });

  test('what expires leaves a gap', async () => {
    const slow = await world.register('slow');
    await a.call(delivery.enqueue, { ...to(slow, envelope(1)), ttlSecs: 60 });
    world.clock.advance(61_000);
    await world.store.purge(world.clock.wallMs());
    const s = await world.subscribe(slow);
    await s.until(() => s.gaps.length === 1);
    assert.equal(s.gaps[0]?.reason, InboxGap_Reason.EXPIRED);
    assert.deepEqual(s.envelopes, []);
  });
});

describe('a shared envelope', () => {
  test('gives each device its own wrap and only that', async () => {
    const cursor = await clear(bob);
    const erin = await world.register('erin');
    const wraps = [crypto.random(1_168), crypto.random(1_168)];
    await a.call(delivery.batchEnqueue, {
      messageId: messageId(),
      payload: envelope(2),
      recipients: [bob, erin].map((person, i) => ({ address: person.address, wrap: wraps[i]! })),
    });
    const [b, e] = [await world.login(bob), await world.login(erin)];
    const toBob = await b.call(delivery.peek, { ...own(bob), afterSeq: cursor });
    const toErin = await e.call(delivery.peek, own(erin));
    assert.equal(bytes(toBob.envelopes[0]?.wrap), bytes(wraps[0]));
    assert.equal(bytes(toErin.envelopes[0]?.wrap), bytes(wraps[1]));
  });

  test('and an envelope that does not fit its call is refused', async () => {
    const recipients = [{ address: bob.address }];
    const cases: [string, () => Promise<unknown>][] = [
      ['type 02 without wraps', () => a.call(delivery.enqueue, to(bob, envelope(2)))],
      [
        'type 02 in a batch without wraps',
        () => a.call(delivery.batchEnqueue, { messageId: messageId(), payload: envelope(2), recipients }),
      ],
      [
        'a wrap beside type 03',
        () =>
          a.call(delivery.batchEnqueue, {
            messageId: messageId(),
            payload: envelope(3),
            recipients: [{ address: bob.address, wrap: crypto.random(1_168) }],
          }),
      ],
      ['an unknown type', () => a.call(delivery.enqueue, to(bob, new Uint8Array(600).fill(9)))],
      ['no envelope', () => a.call(delivery.enqueue, to(bob, new Uint8Array(0)))],
      ['a stump', () => a.call(delivery.enqueue, to(bob, new Uint8Array([1, 2, 3])))],
      [
        'a wrap for every device at once',
        () =>
          a.call(delivery.batchEnqueue, {
            messageId: messageId(),
            payload: envelope(2),
            recipients: [{ address: { identityKey: bob.address.identityKey }, wrap: crypto.random(1_168) }],
          }),
      ],
    ];
    for (const [name, call] of cases) {
      assert.equal((await refusal(call())).status, Status.INVALID_ARGUMENT, name);
    }
  });
});
