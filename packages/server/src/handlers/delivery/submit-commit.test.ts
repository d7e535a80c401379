// Channels and their commit logs: creation, races, retries, rosters, Welcomes, sealed senders.
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { logHashGenesis, logHashNext, parseReceipt, rosterHash, verifyReceipt } from '@quicprochat/core';
import { encodeHex } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { Status } from '@quicprochat/proto';
import type { CommitAccepted, SubmitCommitResponse } from '@quicprochat/proto';
import { methods, RpcError } from '@quicprochat/transport';
import { envelope, messageId, ORIGIN, World } from '../../testing/world.node.ts';
import type { Person, TestConnection } from '../../testing/world.node.ts';

const { delivery } = methods;

let world: World;
let alice: Person;
let bob: Person;
let carol: Person;
let a: TestConnection;
let b: TestConnection;
let channelId: Uint8Array;

before(async () => {
  world = await World.start();
  alice = await world.register('alice');
  bob = await world.register('bob');
  carol = await world.register('carol');
  a = await world.login(alice);
  b = await world.login(bob);
});
after(() => world.close());

beforeEach(async () => {
  channelId = crypto.random(16);
  await a.call(methods.channel.createChannel, { kind: { case: 'group', value: { channelId } } });
});

async function refusal(promise: Promise<unknown>): Promise<RpcError> {
  const error = await promise.then(
    () => assert.fail('was not refused'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof RpcError, String(error));
  return error;
}

function accepted(response: SubmitCommitResponse): CommitAccepted {
  assert.equal(response.outcome.case, 'accepted');
  return response.outcome.value as CommitAccepted;
}

const hex = (data: Uint8Array | undefined) => encodeHex(data ?? new Uint8Array(0));
const own = (person: Person) => ({ recipientKey: person.address.identityKey, deviceId: person.address.deviceId });
const commit = (after: bigint) => ({ channelId, after, messageId: messageId(), payload: envelope(3) });
const welcome = (person: Person) => ({
  payload: envelope(1, 2_000),
  messageId: messageId(),
  recipients: [{ address: person.address }],
});

/** Alice's first commit, which adds Bob. */
async function addBob() {
  const request = { ...commit(0n), rosterAdd: [bob.address], welcomes: [welcome(bob)] };
  return { request, entry: accepted(await a.call(delivery.submitCommit, request)) };
}

describe('a commit', () => {
  test('takes the next position; entry, Welcome and roster come together, in order, with a receipt', async () => {
    const cursor = BigInt(await world.store.headSeq(bob.address));
    const { request, entry } = await addBob();
    assert.equal(entry.entry?.position, 1n);
    const payloadHash = crypto.hash('sha256', request.payload);
    const logHash = logHashNext(crypto, logHashGenesis(crypto, channelId), 1n, payloadHash);
    assert.equal(hex(entry.entry.logHash), hex(logHash));
    assert.equal(hex(entry.entry.rosterHash), hex(rosterHash(crypto, [alice.address, bob.address])));

    const { receiptKey } = await a.call(methods.p2p.health, {});
    const deliveries = entry.results.map((result) => {
      assert.ok(result.outcome.case === 'queued' && result.address !== undefined);
      return { address: result.address, seq: result.outcome.value.seq };
    });
    const receipt = parseReceipt(entry.deliveryProof);
    assert.ok(receipt !== undefined);
    const expected = { origin: ORIGIN, receiptKey, channelId, messageId: request.messageId, payload: request.payload };
    assert.equal(verifyReceipt(crypto, receipt, { ...expected, deliveries }).kind, 'verified');

    // The submitter gets the entry too; Bob, who is new, only the Welcome.
    const toAlice = await a.call(delivery.peek, { ...own(alice), channelId });
    assert.deepEqual(
      toAlice.envelopes.map((e) => e.entry?.position),
      [1n],
    );
    const toBob = await b.call(delivery.peek, { ...own(bob), afterSeq: cursor, channelId });
    assert.equal(toBob.envelopes.length, 1);
    assert.equal(hex(toBob.envelopes[0]?.data), hex(request.welcomes[0]?.payload));

    const members = await b.call(methods.group.listGroupMembers, { channelId });
    assert.equal(members.head, 1n);
    assert.deepEqual(
      new Set(members.roster.map((address) => hex(address.deviceId))),
      new Set([alice, bob].map((person) => hex(person.address.deviceId))),
    );
    assert.deepEqual(members.admins.map(hex), [hex(alice.address.identityKey)]);
  });

  test('THREATS 10: of many at the same moment exactly one wins each position, and the losers learn the head', async () => {
    await addBob();
    const devices = [a, b];
    for (let head = 1n; head < 6n; head++) {
      const responses = await Promise.all(
        Array.from({ length: 8 }, (_, i) => devices[i % 2]!.call(delivery.submitCommit, commit(head))),
      );
      const winners = responses.filter((response) => response.outcome.case === 'accepted');
      assert.equal(winners.length, 1);
      for (const response of responses) {
        if (response.outcome.case === 'conflict') assert.equal(response.outcome.value.head, head + 1n);
      }
    }
    const seen = await Promise.all(
      [
        [a, alice],
        [b, bob],
      ].map(async ([connection, person]) => {
        const reader = connection as TestConnection;
        const { envelopes } = await reader.call(delivery.peek, { ...own(person as Person), channelId });
        return envelopes.filter((e) => (e.entry?.position ?? 0n) > 1n).map((e) => [e.entry?.position, hex(e.data)]);
      }),
    );
    assert.equal(seen[0]?.length, 5);
    assert.deepEqual(seen[0], seen[1]);
  });

  test('THREATS 32: a retry of an accepted commit gets the first answer, also after others', async () => {
    await addBob();
    const request = commit(1n);
    const first = accepted(await a.call(delivery.submitCommit, request));
    accepted(await b.call(delivery.submitCommit, commit(2n)));
    const again = accepted(await a.call(delivery.submitCommit, request));
    assert.equal(again.entry?.position, first.entry?.position);
    assert.equal(hex(again.entry?.logHash), hex(first.entry?.logHash));
    const rows = (await b.call(delivery.peek, { ...own(bob), channelId })).envelopes;
    assert.equal(rows.filter((e) => hex(e.messageId) === hex(request.messageId)).length, 1);
    const other = await refusal(a.call(delivery.submitCommit, { ...request, payload: envelope(3) }));
    assert.equal(other.status, Status.ALREADY_EXISTS);
  });

  test('THREATS 30: garbage takes a position and nothing else', async () => {
    await addBob();
    accepted(await b.call(delivery.submitCommit, commit(1n)));
    const { head, roster } = await a.call(methods.group.listGroupMembers, { channelId });
    assert.deepEqual([head, roster.length], [2n, 2]);
    accepted(await a.call(delivery.submitCommit, commit(2n)));
  });

  test('a removed device gets the entry that removes it, and nothing after', async () => {
    await addBob();
    accepted(await a.call(delivery.submitCommit, { ...commit(1n), rosterRemove: [bob.address] }));
    accepted(await a.call(delivery.submitCommit, commit(2n)));
    const { envelopes } = await b.call(delivery.peek, { ...own(bob), channelId });
    assert.equal(envelopes.at(-1)?.entry?.position, 2n);
    const errors = await Promise.all([
      refusal(b.call(delivery.submitCommit, commit(3n))),
      refusal(b.call(methods.group.listGroupMembers, { channelId })),
      refusal(b.call(delivery.batchEnqueue, { channelId, messageId: messageId(), payload: envelope(3) })),
    ]);
    assert.deepEqual(
      errors.map((error) => error.status),
      [Status.NOT_FOUND, Status.NOT_FOUND, Status.NOT_FOUND],
    );
  });

  test('THREATS 1: outsiders and members without the right change no roster', async () => {
    await addBob();
    const c = await world.login(carol);
    assert.equal((await refusal(c.call(delivery.submitCommit, commit(1n)))).status, Status.NOT_FOUND);
    const add = { ...commit(1n), rosterAdd: [carol.address], welcomes: [welcome(carol)] };
    assert.equal((await refusal(b.call(delivery.submitCommit, add))).status, Status.FORBIDDEN);
    const evict = { ...commit(1n), rosterRemove: [alice.address] };
    assert.equal((await refusal(b.call(delivery.submitCommit, evict))).status, Status.FORBIDDEN);
    const promote = { ...commit(1n), adminsAdd: [bob.address.identityKey] };
    assert.equal((await refusal(b.call(delivery.submitCommit, promote))).status, Status.FORBIDDEN);
    // One's own devices, always: Bob leaves.
    accepted(await b.call(delivery.submitCommit, { ...commit(1n), rosterRemove: [bob.address] }));
    assert.equal((await a.call(methods.group.listGroupMembers, { channelId })).head, 2n);
  });

  test('a Welcome for a stranger, an unregistered device and a second recipient of type 01 are refused', async () => {
    const ghost = world.newPerson('ghost');
    const cases: [object, number][] = [
      [{ welcomes: [welcome(carol)] }, Status.INVALID_ARGUMENT],
      [{ rosterAdd: [ghost.address] }, Status.NOT_FOUND],
      [
        {
          rosterAdd: [bob.address, carol.address],
          welcomes: [{ ...welcome(bob), recipients: [{ address: bob.address }, { address: carol.address }] }],
        },
        Status.INVALID_ARGUMENT,
      ],
      [{ payload: envelope(1, 2_000) }, Status.INVALID_ARGUMENT],
      [{ adminsRemove: [alice.address.identityKey] }, Status.FORBIDDEN],
    ];
    for (const [change, status] of cases) {
      const error = await refusal(a.call(delivery.submitCommit, { ...commit(0n), ...change }));
      assert.equal(error.status, status, `${Object.keys(change).join()}: ${error.message}`);
    }
    assert.equal((await a.call(methods.group.listGroupMembers, { channelId })).head, 0n);
  });

  test('a renewal of the post-quantum salt stands in the row, with each device’s wrap and none for the removed', async () => {
    await addBob();
    const wrap = crypto.random(1_168);
    const request = {
      ...commit(1n),
      rosterRemove: [bob.address],
      pqRenewal: { envelope: envelope(2, 573), recipients: [{ address: alice.address, wrap }] },
    };
    accepted(await a.call(delivery.submitCommit, request));
    const toAlice = (await a.call(delivery.peek, { ...own(alice), channelId })).envelopes.at(-1);
    assert.equal(hex(toAlice?.pqRenewal?.wrap), hex(wrap));
    const toBob = (await b.call(delivery.peek, { ...own(bob), channelId })).envelopes.at(-1);
    assert.equal(hex(toBob?.pqRenewal?.envelope), hex(request.pqRenewal.envelope));
    assert.equal(toBob?.pqRenewal?.wrap.length, 0);
  });

  test('thirty a minute per device, then a wait', async () => {
    const strict = await World.start({ rates: { commits: { burst: 30, perHour: 1_800 } } });
    try {
      const person = await strict.register('alice');
      const connection = await strict.login(person);
      await connection.call(methods.channel.createChannel, { kind: { case: 'group', value: { channelId } } });
      for (let head = 0n; head < 30n; head++) accepted(await connection.call(delivery.submitCommit, commit(head)));
      const error = await refusal(connection.call(delivery.submitCommit, commit(30n)));
      assert.equal(error.status, Status.RATE_LIMITED);
      strict.clock.advance(2_001);
      accepted(await connection.call(delivery.submitCommit, commit(30n)));
    } finally {
      await strict.close();
    }
  });
});

test('a commit and a message to two thousand devices are answered, each device by name', async () => {
  const crowd = await Promise.all(Array.from({ length: 2_000 }, (_, i) => world.register(`crowd-${i}`)));
  accepted(await a.call(delivery.submitCommit, { ...commit(0n), rosterAdd: crowd.map((each) => each.address) }));
  const entry = accepted(await a.call(delivery.submitCommit, commit(1n)));
  assert.equal(entry.results.length, 2_001);
  const message = await a.call(delivery.batchEnqueue, { channelId, messageId: messageId(), payload: envelope(3) });
  assert.equal(message.results.length, 2_001);
});

test('THREATS 27: what commits write outside the caps of inboxes is limited per account', async () => {
  const strict = await World.start({ rates: { commitKib: { burst: 10, perHour: 3_600 } } });
  try {
    const person = await strict.register('alice');
    const connection = await strict.login(person);
    await connection.call(methods.channel.createChannel, { kind: { case: 'group', value: { channelId } } });
    const big = envelope(3, 6_000);
    accepted(await connection.call(delivery.submitCommit, { ...commit(0n), payload: big }));
    const letter = { ...welcome(person), payload: envelope(1, 6_000) };
    const error = await refusal(connection.call(delivery.submitCommit, { ...commit(1n), welcomes: [letter] }));
    assert.equal(error.status, Status.RATE_LIMITED);
    accepted(await connection.call(delivery.submitCommit, commit(1n)));
  } finally {
    await strict.close();
  }
});

describe('a message to a channel', () => {
  test('goes to the whole roster, the author included, live', async () => {
    await addBob();
    const [live, head] = [await world.subscribe(alice), BigInt(await world.store.headSeq(alice.address))];
    await live.until(() => live.envelopes.at(-1)?.seq === head);
    const id = messageId();
    const answer = await b.call(delivery.batchEnqueue, { channelId, messageId: id, payload: envelope(3) });
    assert.deepEqual(
      answer.results.map((result) => result.outcome.case),
      ['queued', 'queued'],
    );
    await live.until(() => hex(live.envelopes.at(-1)?.messageId) === hex(id));
    const toBob = await b.call(delivery.peek, { ...own(bob), channelId });
    assert.equal(hex(toBob.envelopes.at(-1)?.messageId), hex(id));
  });

  test('THREATS 36: sealed, it goes to the author too, and neither answer nor log names anyone', async () => {
    await addBob();
    const token = crypto.random(32);
    const sendTokenHash = crypto.hash('sha256', token);
    accepted(await a.call(delivery.submitCommit, { ...commit(1n), sendTokenHash }));
    const sealed = world.connect();
    const lines = world.log.lines.length;
    const request = { channelId, messageId: messageId(), payload: envelope(3), sendToken: token };
    const answer = await sealed.call(delivery.batchEnqueue, request);
    assert.deepEqual(
      answer.results.map((r) => [r.address, r.outcome.case]),
      [[undefined, 'queued']],
    );
    assert.ok(answer.deliveryProof.length > 0);
    const again = await sealed.call(delivery.batchEnqueue, request);
    assert.deepEqual(
      again.results.map((r) => r.outcome.case),
      ['duplicate'],
    );
    for (const [connection, person] of [
      [a, alice],
      [b, bob],
    ] as const) {
      const { envelopes } = await connection.call(delivery.peek, { ...own(person), channelId });
      assert.equal(hex(envelopes.at(-1)?.messageId), hex(request.messageId));
    }
    const logged = world.log.lines.slice(lines).join('\n');
    for (const person of [alice, bob]) assert.ok(!logged.includes(hex(person.address.identityKey)));

    // The old token works five more minutes, then the sender has to catch up.
    const renewed = { ...commit(2n), sendTokenHash: crypto.hash('sha256', crypto.random(32)) };
    accepted(await a.call(delivery.submitCommit, renewed));
    await sealed.call(delivery.batchEnqueue, { ...request, messageId: messageId() });
    world.clock.advance(5 * 60_000 + 1);
    const stale = await refusal(sealed.call(delivery.batchEnqueue, { ...request, messageId: messageId() }));
    assert.equal(stale.status, Status.CONFLICT);
    // A channel that does not exist sounds the same.
    const nowhere = await refusal(sealed.call(delivery.batchEnqueue, { ...request, channelId: crypto.random(16) }));
    assert.deepEqual([nowhere.status, nowhere.message], [stale.status, stale.message]);
  });

  test('THREATS 3: an outsider slips no group envelope to a member, live or stored; a member may', async () => {
    await addBob();
    const c = await world.login(carol);
    const one = () => ({ ...own(bob), channelId, messageId: messageId(), payload: envelope(3) });
    const batch = () => ({
      channelId,
      messageId: messageId(),
      payload: envelope(3),
      recipients: [{ address: bob.address }],
    });
    for (const ephemeral of [false, true]) {
      const single = await refusal(c.call(delivery.enqueue, { ...one(), ephemeral }));
      const many = await refusal(c.call(delivery.batchEnqueue, { ...batch(), ephemeral }));
      assert.deepEqual([single.status, many.status], [Status.NOT_FOUND, Status.NOT_FOUND]);
    }
    assert.equal((await a.call(delivery.enqueue, one())).results[0]?.outcome.case, 'queued');
    assert.equal((await a.call(delivery.batchEnqueue, batch())).results[0]?.outcome.case, 'queued');
    // First contact comes from outside.
    const direct = { ...one(), payload: envelope(1) };
    assert.equal((await c.call(delivery.enqueue, direct)).results[0]?.outcome.case, 'queued');
  });

  test('THREATS 36: not on a connection that had a session, and not on a server that does not allow it', async () => {
    const sealed = { channelId, messageId: messageId(), payload: envelope(3), sendToken: crypto.random(32) };
    const after = await world.login(alice);
    await after.call(methods.auth.logout, {});
    assert.equal((await refusal(after.call(delivery.batchEnqueue, sealed))).status, Status.INVALID_ARGUMENT);
    a = await world.login(alice);
    const strict = await World.start({ allowSealedSender: false });
    try {
      const connection = strict.connect();
      assert.equal((await refusal(connection.call(delivery.batchEnqueue, sealed))).status, Status.UNAUTHENTICATED);
      assert.equal((await connection.call(methods.p2p.health, {})).limits?.sealedSender, false);
    } finally {
      await strict.close();
    }
  });

  test('THREATS 27: who knows a channel but not its token uses up nobody’s share', async () => {
    const strict = await World.start({ rates: { sealedPerChannel: { burst: 2, perHour: 2 } } });
    try {
      const member = await strict.login(await strict.register('alice'));
      await member.call(methods.channel.createChannel, { kind: { case: 'group', value: { channelId } } });
      const token = crypto.random(32);
      const sendTokenHash = crypto.hash('sha256', token);
      accepted(await member.call(delivery.submitCommit, { ...commit(0n), sendTokenHash }));
      const sealed = strict.connect();
      const send = (sendToken: Uint8Array) =>
        sealed.call(delivery.batchEnqueue, { channelId, messageId: messageId(), payload: envelope(3), sendToken });
      for (let i = 0; i < 5; i++) assert.equal((await refusal(send(crypto.random(32)))).status, Status.CONFLICT);
      await send(token);
      await send(token);
      assert.equal((await refusal(send(token))).status, Status.RATE_LIMITED);
    } finally {
      await strict.close();
    }
  });

  test('a token and a session never meet, and neither is not enough', async () => {
    const request = { channelId, messageId: messageId(), payload: envelope(3) };
    const both = await refusal(a.call(delivery.batchEnqueue, { ...request, sendToken: crypto.random(32) }));
    assert.equal(both.status, Status.INVALID_ARGUMENT);
    assert.equal((await refusal(world.connect().call(delivery.batchEnqueue, request))).status, Status.UNAUTHENTICATED);
    const named = { ...request, sendToken: crypto.random(32), recipients: [{ address: bob.address }] };
    assert.equal((await refusal(world.connect().call(delivery.batchEnqueue, named))).status, Status.INVALID_ARGUMENT);
  });
});

describe('creating', () => {
  test('a group twice by the same device is one group; by another it exists already', async () => {
    const request = { kind: { case: 'group' as const, value: { channelId } } };
    const again = await a.call(methods.channel.createChannel, request);
    assert.equal(again.outcome.case, 'created');
    assert.equal((await refusal(b.call(methods.channel.createChannel, request))).status, Status.ALREADY_EXISTS);
  });

  test('a direct channel is one per pair, with both as administrators, and either may begin', async () => {
    const direct = (person: Person) => ({
      kind: { case: 'direct' as const, value: { peerIdentityKey: person.address.identityKey } },
    });
    const first = await a.call(methods.channel.createChannel, direct(bob));
    assert.ok(first.outcome.case === 'created');
    channelId = first.outcome.value.channelId.slice();
    const second = await b.call(methods.channel.createChannel, direct(alice));
    assert.ok(second.outcome.case === 'exists');
    assert.deepEqual([hex(second.outcome.value.channelId), second.outcome.value.head], [hex(channelId), 0n]);
    const raced = await Promise.all([a, b].map((c) => c.call(delivery.submitCommit, commit(0n))));
    assert.deepEqual(raced.map((r) => r.outcome.case).sort(), ['accepted', 'conflict']);
    const { admins } = await a.call(methods.group.listGroupMembers, { channelId });
    assert.equal(admins.length, 2);
    const stranger = { ...commit(1n), rosterAdd: [carol.address], welcomes: [welcome(carol)] };
    assert.equal((await refusal(a.call(delivery.submitCommit, stranger))).status, Status.INVALID_ARGUMENT);
    // Neither takes the other off for good; not ahead of the head either, where the roster may be another by then.
    const eviction = { ...commit(1n), rosterRemove: [bob.address] };
    assert.equal((await refusal(a.call(delivery.submitCommit, eviction))).status, Status.FORBIDDEN);
    const ahead = await a.call(delivery.submitCommit, { ...commit(2n), rosterRemove: [bob.address] });
    assert.deepEqual(ahead.outcome, { ...ahead.outcome, case: 'conflict' });
    const { roster } = await a.call(methods.group.listGroupMembers, { channelId });
    assert.equal(roster.length, 2);
    // One's own devices, and those that are revoked, are another matter.
    assert.equal(
      (await b.call(delivery.submitCommit, { ...commit(1n), rosterRemove: [bob.address] })).outcome.case,
      'accepted',
    );
  });

  test('THREATS 27: is limited per account', async () => {
    const strict = await World.start({ rates: { channels: { burst: 2, perHour: 2 } } });
    try {
      const connection = await strict.login(await strict.register('alice'));
      const create = () =>
        connection.call(methods.channel.createChannel, {
          kind: { case: 'group', value: { channelId: crypto.random(16) } },
        });
      await create();
      await create();
      assert.equal((await refusal(create())).status, Status.RATE_LIMITED);
    } finally {
      await strict.close();
    }
  });

  test('with oneself or with nobody is refused', async () => {
    const direct = (key: Uint8Array) =>
      a.call(methods.channel.createChannel, { kind: { case: 'direct', value: { peerIdentityKey: key } } });
    assert.equal((await refusal(direct(alice.address.identityKey))).status, Status.INVALID_ARGUMENT);
    assert.equal((await refusal(direct(crypto.random(32)))).status, Status.NOT_FOUND);
    assert.equal((await refusal(a.call(methods.channel.createChannel, {}))).status, Status.INVALID_ARGUMENT);
  });
});
