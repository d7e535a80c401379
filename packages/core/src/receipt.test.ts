import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { generateSigningKey } from './identity.ts';
import { deliveryListHash, parseReceipt, receiptKeyId, signReceipt, verifyReceipt } from './receipt.ts';
import type { Receipt, ReceiptExpectation } from './receipt.ts';

const server = generateSigningKey(crypto);
const payload = crypto.random(600);
const deliveries = [1n, 2n, 3n].map((seq) => ({
  address: { identityKey: crypto.random(32), deviceId: crypto.random(16) },
  seq,
}));
const receipt: Receipt = {
  origin: 'localhost:5001',
  keyId: receiptKeyId(crypto, server.publicKey),
  channelId: crypto.random(16),
  messageId: crypto.random(16),
  payloadHash: crypto.hash('sha256', payload),
  deliveriesHash: deliveryListHash(crypto, deliveries),
  acceptedAtMs: 1_800_000_000_123,
  expiresAtMs: 1_802_592_000_123,
};
const expected: ReceiptExpectation = {
  origin: receipt.origin,
  receiptKey: server.publicKey,
  channelId: receipt.channelId,
  messageId: receipt.messageId,
  payload,
  deliveries,
};
const encoded = signReceipt(crypto, server.privateKey, receipt);

function verify(bytes: Uint8Array, expectation: ReceiptExpectation = expected): string {
  const parsed = parseReceipt(bytes);
  return parsed === undefined ? 'unreadable' : verifyReceipt(crypto, parsed, expectation).kind;
}

test('a receipt verifies for the envelope it is about, whatever the order of recipients', () => {
  assert.equal(verify(encoded), 'verified');
  assert.equal(verify(encoded, { ...expected, deliveries: deliveries.toReversed() }), 'verified');
  const { deliveries: _, ...sealed } = expected;
  assert.equal(verify(encoded, sealed), 'verified');
  assert.equal(receipt.keyId.length, 8);
});

test('every changed byte is refused', () => {
  for (let i = 0; i < encoded.length; i++) {
    const tampered = encoded.slice();
    tampered[i]! ^= 0x10;
    assert.notEqual(verify(tampered), 'verified', `byte ${i}`);
  }
});

test('a receipt for another server, key, channel, message, payload or recipient is refused', () => {
  const other = generateSigningKey(crypto);
  assert.equal(verify(encoded, { ...expected, origin: 'elsewhere' }), 'invalid');
  assert.equal(verify(encoded, { ...expected, receiptKey: other.publicKey }), 'invalid');
  assert.equal(verify(encoded, { ...expected, channelId: new Uint8Array(0) }), 'invalid');
  assert.equal(verify(encoded, { ...expected, messageId: crypto.random(16) }), 'invalid');
  assert.equal(verify(encoded, { ...expected, payload: payload.subarray(1) }), 'invalid');
  assert.equal(verify(encoded, { ...expected, deliveries: deliveries.slice(1) }), 'invalid');
  assert.equal(verify(signReceipt(crypto, other.privateKey, receipt)), 'invalid');
});

test('a receipt for what belongs to no channel has an empty channel id', () => {
  const none = new Uint8Array(0);
  const direct = signReceipt(crypto, server.privateKey, { ...receipt, channelId: none });
  assert.equal(verify(direct, { ...expected, channelId: none }), 'verified');
});
