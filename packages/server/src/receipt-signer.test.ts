import assert from 'node:assert/strict';
import { test } from 'node:test';
import { generateSigningKey, parseReceipt, verifyReceipt } from '@quicprochat/core';
import type { Acceptance } from '@quicprochat/core';
import { encodeHex } from '@quicprochat/crypto';
import type { CryptoProvider } from '@quicprochat/crypto';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { ReceiptSigner } from './receipt-signer.ts';

const ORIGIN = 'chat.test';
const { privateKey } = generateSigningKey(nodeCrypto);
const PAYLOAD = nodeCrypto.random(100);

/** A signer whose turns end when the test says so, with what it signed counted. */
function turnByTurn() {
  let ends: (() => void)[] = [];
  const counted = { signatures: 0, broken: false };
  const crypto: CryptoProvider = {
    ...nodeCrypto,
    signature: (id) => {
      const scheme = nodeCrypto.signature(id);
      return {
        ...scheme,
        sign: (key, message) => {
          if (counted.broken) throw new Error('the key is gone');
          counted.signatures += 1;
          return scheme.sign(key, message);
        },
      };
    },
  };
  const signer = new ReceiptSigner({ crypto, origin: ORIGIN, privateKey, atEndOfTurn: (run) => void ends.push(run) });
  const endTurn = (): void => {
    const due = ends;
    ends = [];
    for (const run of due) run();
  };
  return { signer, endTurn, counted };
}

function acceptance(): Acceptance {
  return {
    channelId: nodeCrypto.random(16),
    messageId: nodeCrypto.random(16),
    payloadHash: nodeCrypto.hash('sha256', PAYLOAD),
    deliveriesHash: nodeCrypto.random(32),
    acceptedAtMs: 1_800_000_000_000,
    expiresAtMs: 1_800_000_000_001,
  };
}

const acceptances = (count: number): Acceptance[] => Array.from({ length: count }, acceptance);

/** The signature at its end, when the receipt is about what was accepted. */
function signatureOf({ publicKey }: ReceiptSigner, { channelId, messageId }: Acceptance, receipt: Uint8Array): string {
  const parsed = parseReceipt(receipt);
  assert.ok(parsed !== undefined);
  const expected = { origin: ORIGIN, receiptKey: publicKey, channelId, messageId, payload: PAYLOAD };
  assert.equal(verifyReceipt(nodeCrypto, parsed, expected).kind, 'verified');
  return encodeHex(receipt.subarray(-64));
}

test('what becomes due in one turn is signed once, at its end; the next turn has a signature of its own', async () => {
  const { signer, endTurn, counted } = turnByTurn();
  const signatures: Set<string>[] = [];
  for (const size of [1, 16, 47]) {
    const accepted = acceptances(size);
    const receipts = accepted.map((each) => signer.sign(each));
    assert.equal(counted.signatures, signatures.length);
    endTurn();
    const all = await Promise.all(receipts);
    signatures.push(new Set(all.map((receipt, i) => signatureOf(signer, accepted[i]!, receipt))));
    assert.equal(counted.signatures, signatures.length);
  }
  assert.deepEqual(
    signatures.map(({ size }) => size),
    [1, 1, 1],
  );
  assert.equal(new Set(signatures.flatMap((each) => [...each])).size, 3);
  endTurn();
  assert.equal(counted.signatures, 3);
});

test('128 are signed at once, the rest at the end of the turn, which comes for all of them', async () => {
  const { signer, endTurn, counted } = turnByTurn();
  const accepted = acceptances(300);
  const receipts = accepted.map((each) => signer.sign(each));
  assert.equal(counted.signatures, 2);
  await Promise.all(receipts.slice(0, 256));
  endTurn();
  assert.equal(counted.signatures, 3);
  const all = await Promise.all(receipts);
  const sizes = Map.groupBy(all, (receipt) => encodeHex(receipt.subarray(-64)));
  assert.deepEqual(
    [...sizes.values()].map(({ length }) => length),
    [128, 128, 44],
  );
  for (const [i, receipt] of all.entries()) signatureOf(signer, accepted[i]!, receipt);
});

test('a failure is everybody’s who waits, and nobody’s afterwards', async () => {
  const { signer, endTurn, counted } = turnByTurn();
  counted.broken = true;
  const failed = Promise.allSettled(acceptances(5).map((each) => signer.sign(each)));
  endTurn();
  assert.deepEqual(
    (await failed).map(({ status }) => status),
    Array(5).fill('rejected'),
  );
  counted.broken = false;
  const next = acceptance();
  const receipt = signer.sign(next);
  endTurn();
  signatureOf(signer, next, await receipt);
});

test('closing leaves nobody waiting for the end of a turn', async () => {
  const { signer, counted } = turnByTurn();
  const [one, two, late] = [acceptance(), acceptance(), acceptance()];
  const waiting = [signer.sign(one), signer.sign(two)];
  signer.close();
  const [first, second] = await Promise.all(waiting);
  assert.equal(signatureOf(signer, one, first!), signatureOf(signer, two, second!));
  signatureOf(signer, late, await signer.sign(late));
  assert.equal(counted.signatures, 2);
  signer.close();
  assert.equal(counted.signatures, 2);
});

test('on Node a turn ends when all that was settled in it has been seen to', async () => {
  const signer = new ReceiptSigner({ crypto: nodeCrypto, origin: ORIGIN, privateKey, atEndOfTurn: setImmediate });
  const accepted = acceptances(16);
  // As the store's answers go: settled together, each caller goes on in a microtask of its own, some after more of them.
  const receipts = accepted.map(async (each, i) => {
    for (let steps = 0; steps < i; steps++) await Promise.resolve();
    return signer.sign(each);
  });
  const all = await Promise.all(receipts);
  const signatures = all.map((receipt, i) => signatureOf(signer, accepted[i]!, receipt));
  assert.equal(new Set(signatures).size, 1);
  const next = acceptance();
  assert.notEqual(signatureOf(signer, next, await signer.sign(next)), signatures[0]);
});
