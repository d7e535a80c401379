// Receipts of one turn: whichever method they are for, one signature; and nobody is left waiting for one.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseReceipt, verifyReceipt } from '@quicprochat/core';
import type { Delivery } from '@quicprochat/core';
import { encodeHex } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import type { RecipientResult } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import { NO_OBSERVER } from '../../observer.ts';
import { envelope, messageId, ORIGIN, World } from '../../testing/world.node.ts';

const { delivery } = methods;

/** A world whose turns end when a test says so, and that tells how many envelopes were taken. */
async function heldWorld() {
  const ends: (() => void)[] = [];
  let held = false;
  let taken = 0;
  let enough = { count: Infinity, resolve: () => {} };
  const world = await World.start({
    atEndOfTurn: (run) => void (held ? ends.push(run) : setImmediate(run)),
    observer: () => ({
      ...NO_OBSERVER,
      // The receipt is asked for before anything else runs.
      enqueued: () => {
        if (held && ++taken === enough.count) setImmediate(enough.resolve);
      },
    }),
  });
  return {
    world,
    hold: (): void => {
      held = true;
    },
    /** Resolves once so many calls wait for their receipts. */
    waiting: (count: number): Promise<void> => new Promise((resolve) => (enough = { count, resolve })),
    endTurn: (): void => {
      for (const run of ends.splice(0)) run();
    },
  };
}

function deliveriesOf(results: readonly RecipientResult[]): Delivery[] {
  return results.map(({ address, outcome }) => {
    assert.ok(outcome.case === 'queued' && address !== undefined);
    return { address, seq: outcome.value.seq };
  });
}

test('Enqueue, BatchEnqueue, a sealed one and SubmitCommit that are answered in one turn share a signature', async () => {
  const { world, hold, waiting, endTurn } = await heldWorld();
  try {
    const [alice, bob] = [await world.register('alice'), await world.register('bob')];
    const [a, b, sealed] = [await world.login(alice), await world.login(bob), world.connect()];
    const { receiptKey } = await sealed.call(methods.p2p.health, {});
    const channelId = crypto.random(16);
    const sendToken = crypto.random(32);
    await a.call(methods.channel.createChannel, { kind: { case: 'group', value: { channelId } } });
    const first = { channelId, after: 0n, messageId: messageId(), payload: envelope(3) };
    const sendTokenHash = crypto.hash('sha256', sendToken);
    await a.call(delivery.submitCommit, { ...first, rosterAdd: [bob.address], sendTokenHash });

    hold();
    const all = waiting(4);
    const message = () => ({ channelId, messageId: messageId(), payload: envelope(3) });
    const [direct, toRoster, unnamed, commit] = [message(), message(), message(), message()];
    const { identityKey: recipientKey, deviceId } = alice.address;
    let answered = 0;
    const answers = [
      b.call(delivery.enqueue, { ...direct, recipientKey, deviceId }).then(({ deliveryProof, results }) => ({
        sent: direct,
        proof: deliveryProof,
        deliveries: deliveriesOf(results),
      })),
      b.call(delivery.batchEnqueue, toRoster).then(({ deliveryProof, results }) => ({
        sent: toRoster,
        proof: deliveryProof,
        deliveries: deliveriesOf(results),
      })),
      sealed.call(delivery.batchEnqueue, { ...unnamed, sendToken }).then(({ deliveryProof }) => ({
        sent: unnamed,
        proof: deliveryProof,
        deliveries: undefined,
      })),
      a.call(delivery.submitCommit, { ...commit, after: 1n }).then(({ outcome }) => {
        assert.equal(outcome.case, 'accepted');
        const { deliveryProof, results } = outcome.value;
        return { sent: commit, proof: deliveryProof, deliveries: deliveriesOf(results) };
      }),
    ];
    for (const answer of answers) void answer.finally(() => answered++);
    await all;
    assert.equal(answered, 0);
    endTurn();
    const signatures = new Set<string>();
    for (const { sent, proof, deliveries } of await Promise.all(answers)) {
      const receipt = parseReceipt(proof);
      assert.ok(receipt !== undefined);
      const expected = { origin: ORIGIN, receiptKey, ...sent, ...(deliveries === undefined ? {} : { deliveries }) };
      assert.equal(verifyReceipt(crypto, receipt, expected).kind, 'verified');
      assert.equal(receipt.place.size, 4);
      signatures.add(encodeHex(proof.subarray(-64)));
    }
    assert.equal(signatures.size, 1);
  } finally {
    await world.close();
  }
});

test('a server that goes away gives receipts to who waits for one, though the turn never ends', async () => {
  const { world, hold, waiting } = await heldWorld();
  try {
    const alice = await world.register('alice');
    const a = await world.login(alice);
    const { identityKey: recipientKey, deviceId } = alice.address;
    hold();
    const all = waiting(3);
    const answers = Array.from({ length: 3 }, () =>
      a.call(delivery.enqueue, { recipientKey, deviceId, messageId: messageId(), payload: envelope(3) }),
    );
    await all;
    await world.server.drain(60_000);
    for (const { deliveryProof } of await Promise.all(answers)) {
      assert.equal(parseReceipt(deliveryProof)?.place.size, 3);
    }
  } finally {
    await world.close();
  }
});
