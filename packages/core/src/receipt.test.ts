import assert from 'node:assert/strict';
import { test } from 'node:test';
import { concat, encodeUtf8, SignatureSchemeId, u16, u64 } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { generateSigningKey } from './identity.ts';
import { parseNote, signCheckpoint } from './key-transparency/checkpoint.ts';
import { randomFrom } from './key-transparency/testing/random.ts';
import { Label } from './labels.ts';
import {
  deliveryListHash,
  parseReceipt,
  RECEIPT_BATCH_MAX,
  receiptKeyId,
  signReceipts,
  verifyReceipt,
} from './receipt.ts';
import type { Acceptance, Delivery, ReceiptExpectation } from './receipt.ts';

const ORIGIN = 'localhost:5001';
const NONE = new Uint8Array(0);
const server = generateSigningKey(crypto);
const keyId = receiptKeyId(crypto, server.publicKey);
const issuer = { origin: ORIGIN, keyId, privateKey: server.privateKey };

function someDeliveries(count: number): Delivery[] {
  return Array.from({ length: count }, (_, i) => ({
    address: { identityKey: crypto.random(32), deviceId: crypto.random(16) },
    seq: BigInt(i + 1),
  }));
}

/** What was accepted, and what its sender knows of it. */
interface Case {
  readonly accepted: Acceptance;
  readonly expected: ReceiptExpectation;
}

function caseOf(parts: {
  channelId?: Uint8Array;
  messageId?: Uint8Array;
  payload?: Uint8Array;
  deliveries?: readonly Delivery[];
}): Case {
  const { channelId, messageId, payload, deliveries } = {
    channelId: crypto.random(16),
    messageId: crypto.random(16),
    payload: crypto.random(60),
    deliveries: someDeliveries(1),
    ...parts,
  };
  return {
    accepted: {
      channelId,
      messageId,
      payloadHash: crypto.hash('sha256', payload),
      deliveriesHash: deliveryListHash(crypto, deliveries),
      acceptedAtMs: 1_800_000_000_123,
      expiresAtMs: 1_802_592_000_123,
    },
    expected: { origin: ORIGIN, receiptKey: server.publicKey, channelId, messageId, payload, deliveries },
  };
}

function casesOf(count: number): Case[] {
  return Array.from({ length: count }, () => caseOf({}));
}

function sign(cases: readonly Case[]): Uint8Array[] {
  return signReceipts(
    crypto,
    issuer,
    cases.map(({ accepted }) => accepted),
  );
}

function verdict(bytes: Uint8Array, expected: ReceiptExpectation): string {
  const parsed = parseReceipt(bytes);
  if (parsed === undefined) return 'unreadable';
  const outcome = verifyReceipt(crypto, parsed, expected);
  return outcome.kind === 'verified' ? 'verified' : outcome.reason;
}

const UNSIGNED = 'the signature does not verify';

// The layout and RFC 9162 section 2.1, spelled out once more: what an attacker would build receipts with.

const sha256 = (...parts: Uint8Array[]) => crypto.hash('sha256', concat(...parts));
const leafOf = (statement: Uint8Array) => sha256(new Uint8Array([0]), statement);
const nodeOf = (left: Uint8Array, right: Uint8Array) => sha256(new Uint8Array([1]), left, right);
const split = (n: number) => 2 ** Math.ceil(Math.log2(n) - 1);

function rootOf(leaves: readonly Uint8Array[]): Uint8Array {
  if (leaves.length === 1) return leaves[0]!;
  const k = split(leaves.length);
  return nodeOf(rootOf(leaves.slice(0, k)), rootOf(leaves.slice(k)));
}

function pathOf(index: number, leaves: readonly Uint8Array[]): Uint8Array[] {
  if (leaves.length === 1) return [];
  const k = split(leaves.length);
  return index < k
    ? [...pathOf(index, leaves.slice(0, k)), rootOf(leaves.slice(k))]
    : [...pathOf(index - k, leaves.slice(k)), rootOf(leaves.slice(0, k))];
}

function statementOf({ accepted }: Case): Uint8Array {
  return concat(
    Label.deliveryReceipt,
    new Uint8Array([ORIGIN.length]),
    encodeUtf8(ORIGIN),
    keyId,
    new Uint8Array([accepted.channelId.length]),
    accepted.channelId,
    accepted.messageId,
    accepted.payloadHash,
    accepted.deliveriesHash,
    u64(BigInt(accepted.acceptedAtMs)),
    u64(BigInt(accepted.expiresAtMs)),
  );
}

const signatureOf = (...body: Uint8Array[]) =>
  crypto.signature(SignatureSchemeId.Ed25519).sign(server.privateKey, concat(...body));
const headOf = (size: number, root: Uint8Array) => concat(Label.receiptBatch, u16(size), root);

interface Parts {
  readonly statement: Uint8Array;
  readonly size: number;
  readonly index: number;
  readonly path: readonly Uint8Array[];
  readonly signature: Uint8Array;
}

const assemble = ({ statement, size, index, path, signature }: Parts) =>
  concat(statement, u16(size), u16(index), ...path, signature);

/** The parts of each receipt of a batch. */
function batchOf(cases: readonly Case[]): Parts[] {
  const statements = cases.map(statementOf);
  const leaves = statements.map(leafOf);
  const size = cases.length;
  const signature = signatureOf(headOf(size, rootOf(leaves)));
  return statements.map((statement, index) => ({ statement, size, index, path: pathOf(index, leaves), signature }));
}

test('a receipt verifies for the envelope it is about, whatever the order of recipients', () => {
  const one = caseOf({ deliveries: someDeliveries(3) });
  const [bytes] = sign([one]);
  const { deliveries, ...sealed } = one.expected;
  assert.equal(verdict(bytes!, one.expected), 'verified');
  assert.equal(verdict(bytes!, { ...one.expected, deliveries: deliveries!.toReversed() }), 'verified');
  assert.equal(verdict(bytes!, sealed), 'verified');
  const parsed = parseReceipt(bytes!)!;
  assert.deepEqual(parsed.claims, { origin: ORIGIN, keyId, ...one.accepted });
  assert.equal(keyId.length, 8);
});

test('the list of deliveries is hashed in the order of address and position, each with all its 56 bytes', () => {
  const [a, b] = someDeliveries(2);
  const entry = ({ address, seq }: Delivery) => concat(address.identityKey, address.deviceId, u64(seq));
  const twice = [a!, { ...a!, seq: 2n ** 40n }, { ...a!, seq: 255n }, { ...a!, seq: 256n }, b!];
  const sorted = twice.map(entry).sort((x, y) => Buffer.compare(x, y));
  assert.deepEqual(deliveryListHash(crypto, twice), sha256(...sorted));
  assert.deepEqual(deliveryListHash(crypto, [b!]), sha256(entry(b!)));
  assert.deepEqual(deliveryListHash(crypto, []), sha256());
  const short = { address: { ...a!.address, deviceId: crypto.random(15) }, seq: 1n };
  assert.throws(() => deliveryListHash(crypto, [short]), { name: 'Misuse' });
  assert.throws(() => deliveryListHash(crypto, [a!, short]), { name: 'Misuse' });
});

test('receipts of every batch of up to 40 are laid out as PROTOCOL 8 says', () => {
  for (let size = 1; size <= 40; size++) {
    const cases = casesOf(size);
    assert.deepEqual(sign(cases), batchOf(cases).map(assemble), `size ${size}`);
  }
});

test('random batches: a receipt verifies for its own envelope and for no other of the batch', () => {
  const { next, seed } = randomFrom();
  const sizes = [1, 2, 3, 128, ...Array.from({ length: 4 }, () => 1 + next(130))];
  // Few of each, so that many neighbours differ in one thing only.
  const channels = [NONE, crypto.random(16)];
  const ids = Array.from({ length: 5 }, () => crypto.random(16));
  const payloads = Array.from({ length: 5 }, () => crypto.random(40));
  const lists = Array.from({ length: 5 }, () => someDeliveries(1 + next(3)));
  for (const size of sizes) {
    const at = `seed ${seed}, size ${size}`;
    const drawn = Array.from({ length: size }, () => [next(2), next(5), next(5), next(5)] as const);
    const cases = drawn.map(([c, m, p, d]) =>
      caseOf({ channelId: channels[c]!, messageId: ids[m]!, payload: payloads[p]!, deliveries: lists[d]! }),
    );
    const receipts = sign(cases);
    for (const [i, receipt] of receipts.entries()) {
      for (const [j, { expected }] of cases.entries()) {
        const same = drawn[i]!.every((choice, k) => choice === drawn[j]![k]);
        assert.equal(verdict(receipt, expected) === 'verified', same, `${at}: ${i} for ${j}`);
      }
    }
  }
});

test('every changed bit is refused, in a batch of one and in larger ones', () => {
  for (const [size, index] of [
    [1, 0],
    [2, 1],
    [7, 6],
    [16, 5],
  ] as const) {
    const cases = casesOf(size);
    const receipt = sign(cases)[index]!;
    const { expected } = cases[index]!;
    const tampered = receipt.slice();
    for (let i = 0; i < receipt.length; i++) {
      for (let bit = 1; bit < 256; bit *= 2) {
        tampered[i] = receipt[i]! ^ bit;
        assert.notEqual(verdict(tampered, expected), 'verified', `size ${size}, byte ${i}, bit ${bit}`);
      }
      tampered[i] = receipt[i]!;
    }
    assert.equal(verdict(tampered, expected), 'verified');
  }
});

test('a truncated receipt, and one with bytes left over, is no receipt', () => {
  const cases = casesOf(5);
  for (const [index, receipt] of sign(cases).entries()) {
    for (let length = 0; length < receipt.length; length++) {
      assert.equal(parseReceipt(receipt.subarray(0, length)), undefined, `${length} bytes of ${index}`);
      assert.equal(parseReceipt(receipt.subarray(length + 1)), undefined);
    }
    for (const more of [1, 32, 64]) {
      assert.equal(parseReceipt(concat(receipt, new Uint8Array(more))), undefined);
      const { signature, ...rest } = batchOf(cases)[index]!;
      const filled = concat(assemble({ ...rest, signature: NONE }), new Uint8Array(more), signature);
      assert.equal(parseReceipt(filled), undefined);
    }
  }
});

test('a receipt for another server, key, channel, message, payload or recipient is refused', () => {
  const one = caseOf({ deliveries: someDeliveries(3) });
  const { expected } = one;
  const [encoded] = sign([one, ...casesOf(4)]);
  const other = generateSigningKey(crypto);
  const refused = (change: Partial<ReceiptExpectation>) => verdict(encoded!, { ...expected, ...change });
  assert.match(refused({ origin: 'elsewhere' }), /another server/);
  assert.match(refused({ receiptKey: other.publicKey }), /another key/);
  assert.match(refused({ channelId: NONE }), /another channel/);
  assert.match(refused({ messageId: crypto.random(16) }), /another message/);
  assert.match(refused({ payload: expected.payload.subarray(1) }), /other bytes/);
  assert.match(refused({ deliveries: expected.deliveries!.slice(1) }), /other recipients/);
  const [first, ...others] = expected.deliveries!;
  for (const change of [{ deviceId: NONE }, { identityKey: crypto.random(31) }, { identityKey: crypto.random(64) }]) {
    const noDevice = { ...first!, address: { ...first!.address, ...change } };
    assert.match(refused({ deliveries: [noDevice, ...others] }), /other recipients/);
  }
  const [forged] = signReceipts(crypto, { ...issuer, privateKey: other.privateKey }, [one.accepted]);
  assert.equal(verdict(forged!, expected), UNSIGNED);
});

test('a receipt for what belongs to no channel has an empty channel id', () => {
  const none = caseOf({ channelId: NONE });
  assert.equal(verdict(sign([none])[0]!, none.expected), 'verified');
});

test('what one of a batch holds proves nothing about the others', () => {
  const cases = casesOf(11);
  const parts = batchOf(cases);
  for (const [i, mine] of parts.entries()) {
    const { expected } = cases[i]!;
    for (const theirs of parts) {
      if (theirs === mine) continue;
      const refusals = [
        assemble(theirs),
        assemble({ ...mine, path: theirs.path }),
        assemble({ ...mine, index: theirs.index }),
        assemble({ ...mine, index: theirs.index, path: theirs.path }),
      ];
      for (const bytes of refusals) assert.notEqual(verdict(bytes, expected), 'verified');
      // My message under the place of theirs, for whoever expects mine; and theirs under mine.
      assert.notEqual(verdict(assemble({ ...theirs, statement: mine.statement }), expected), 'verified');
    }
  }
});

test('a message that was not in the batch does not get into it', () => {
  const cases = casesOf(6);
  const outside = caseOf({});
  for (const part of batchOf(cases)) {
    assert.equal(verdict(assemble({ ...part, statement: statementOf(outside) }), outside.expected), UNSIGNED);
  }
});

test('another size or index is refused, whatever tree it would fit', () => {
  for (const size of [1, 2, 3, 5, 8, 13]) {
    const cases = casesOf(size);
    const parts = batchOf(cases);
    const index = size - 1;
    const { expected } = cases[index]!;
    assert.equal(verdict(assemble(parts[index]!), expected), 'verified');
    for (let other = 0; other <= RECEIPT_BATCH_MAX + 1; other++) {
      const wrongSize = assemble({ ...parts[index]!, size: other });
      if (other !== size) assert.notEqual(verdict(wrongSize, expected), 'verified', `size ${other}, not ${size}`);
      const wrongIndex = assemble({ ...parts[index]!, index: other });
      if (other !== index) assert.notEqual(verdict(wrongIndex, expected), 'verified', `index ${other} of ${size}`);
      if (other >= size) assert.equal(parseReceipt(wrongIndex), undefined, `index ${other} of ${size}`);
    }
  }
  // 3 and 4 leaves give leaf 0 the same path, were the size not signed.
  const cases = casesOf(3);
  const [first] = batchOf(cases);
  assert.equal(verdict(assemble({ ...first!, size: 4 }), cases[0]!.expected), UNSIGNED);
});

test('a path one hash too long or too short is no receipt, whoever signed it', () => {
  const cases = casesOf(6);
  for (const part of batchOf(cases)) {
    const { path } = part;
    for (const wrong of [
      path.slice(1),
      path.slice(0, -1),
      [...path, crypto.random(32)],
      [crypto.random(32), ...path],
    ]) {
      assert.equal(parseReceipt(assemble({ ...part, path: wrong })), undefined);
    }
  }
  // Signed over what such a path leads to.
  const [one] = cases;
  const statement = statementOf(one!);
  const sibling = crypto.random(32);
  const signature = signatureOf(headOf(1, nodeOf(leafOf(statement), sibling)));
  assert.equal(parseReceipt(assemble({ statement, size: 1, index: 0, path: [sibling], signature })), undefined);
});

test('THREATS 27: a batch has at most 1,024 receipts, also when the server itself signed more', () => {
  assert.equal(RECEIPT_BATCH_MAX, 1_024);
  const one = caseOf({});
  const statement = statementOf(one);
  const largeTree = (size: number): Uint8Array => {
    const leaves = [leafOf(statement), ...Array.from({ length: size - 1 }, () => crypto.random(32))];
    const signature = signatureOf(headOf(size, rootOf(leaves)));
    return assemble({ statement, size, index: 0, path: pathOf(0, leaves), signature });
  };
  assert.equal(verdict(largeTree(1_024), one.expected), 'verified');
  for (const size of [1_025, 2_048, 65_535]) assert.equal(parseReceipt(largeTree(size)), undefined, String(size));
  const signature = signatureOf(headOf(0, sha256()));
  assert.equal(parseReceipt(assemble({ statement, size: 0, index: 0, path: [], signature })), undefined);
  assert.throws(() => signReceipts(crypto, issuer, []), { name: 'Misuse' });
  const tooMany = Array.from({ length: 1_025 }, () => one.accepted);
  assert.throws(() => signReceipts(crypto, issuer, tooMany), { name: 'Misuse' });
});

test('a leaf is no node and a node no leaf', () => {
  const cases = casesOf(4);
  const [one] = cases;
  const parts = batchOf(cases);
  const [statement, other] = parts.map((part) => part.statement) as [Uint8Array, Uint8Array];
  // Signed roots in which a statement is hashed like a node, or like nothing.
  const leavesOfOne = [sha256(new Uint8Array([1]), statement), sha256(statement), statement.subarray(0, 32)];
  for (const leaf of leavesOfOne) {
    const alone = { statement, size: 1, index: 0, path: [], signature: signatureOf(headOf(1, leaf)) };
    assert.equal(verdict(assemble(alone), one!.expected), UNSIGNED);
    const pair = [leaf, leafOf(other)];
    const signature = signatureOf(headOf(2, rootOf(pair)));
    assert.equal(
      verdict(assemble({ statement, size: 2, index: 0, path: [pair[1]!], signature }), one!.expected),
      UNSIGNED,
    );
  }
  // Nodes hashed like leaves, or without a prefix.
  const leaves = [leafOf(statement), leafOf(other)] as const;
  for (const root of [leafOf(concat(...leaves)), sha256(...leaves)]) {
    const signature = signatureOf(headOf(2, root));
    assert.equal(
      verdict(assemble({ statement, size: 2, index: 0, path: [leaves[1]], signature }), one!.expected),
      UNSIGNED,
    );
  }
  // A node of the tree given out as a statement: it could only be one with a label in front of it.
  for (const node of [concat(...leaves), concat(Label.deliveryReceipt, ...leaves)]) {
    assert.equal(parseReceipt(assemble({ ...parts[0]!, statement: node })), undefined);
  }
  // A smaller tree: the receipts of half the batch, under the signature of the whole.
  const [left] = parts;
  assert.equal(parseReceipt(assemble({ ...left!, path: left!.path.slice(0, 1) })), undefined);
  assert.equal(verdict(assemble({ ...left!, size: 2, path: left!.path.slice(0, 1) }), one!.expected), UNSIGNED);
});

test('THREATS 22: no other signature of the same key makes a receipt', () => {
  for (const size of [1, 2]) {
    const cases = casesOf(size);
    const [part] = batchOf(cases);
    const { expected } = cases[0]!;
    const root = rootOf(batchOf(cases).map(({ statement }) => leafOf(statement)));
    const { signatures } = parseNote(signCheckpoint(crypto, server.privateKey, { origin: ORIGIN, size, root }))!;
    const others: Record<string, Uint8Array> = {
      'a checkpoint of a log': signatures[0]!.signature,
      'the statement alone': signatureOf(part!.statement),
      'a bare root': signatureOf(root),
      'a root without its size': signatureOf(Label.receiptBatch, root),
      'no label': signatureOf(u16(size), root),
    };
    for (const [name, label] of Object.entries(Label)) {
      if (label !== Label.receiptBatch) others[name] = signatureOf(label, u16(size), root);
    }
    for (const [what, signature] of Object.entries(others)) {
      assert.equal(verdict(assemble({ ...part!, signature }), expected), UNSIGNED, what);
    }
    assert.equal(verdict(assemble({ ...part!, signature: signatureOf(headOf(size, root)) }), expected), 'verified');
  }
});

test('a field of the wrong length is not signed', () => {
  const { accepted } = caseOf({});
  const wrong: Partial<Acceptance>[] = [
    { messageId: crypto.random(15) },
    { payloadHash: crypto.random(31) },
    { deliveriesHash: crypto.random(33) },
    { channelId: crypto.random(256) },
    { acceptedAtMs: -1 },
    { expiresAtMs: 2 ** 53 },
    { acceptedAtMs: 0.5 },
  ];
  for (const change of wrong) {
    assert.throws(() => signReceipts(crypto, issuer, [accepted, { ...accepted, ...change }]), { name: 'Misuse' });
  }
  assert.throws(() => signReceipts(crypto, { ...issuer, keyId: crypto.random(7) }, [accepted]), { name: 'Misuse' });
});
