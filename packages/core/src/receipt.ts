/**
 * Delivery receipts (PROTOCOL 8): the server's word that it accepted an envelope. One signature serves for all receipts
 * that are due at the same moment, a batch: it is over the root of a Merkle tree (RFC 9162 section 2.1) whose leaves are
 * the statements. `delivery_proof` carries the whole statement and its way to the root, so that it can be kept and shown
 * alone:
 *
 *   statement = label ‖ origin ‖ key id 8 ‖ channel id ‖ message id 16 ‖ SHA-256(payload)
 *               ‖ SHA-256(sorted (address, seq) list) ‖ accepted-at u64 ms ‖ expires-at u64 ms
 *   head      = label ‖ size u16 ‖ root 32
 *   receipt   = statement ‖ size u16 ‖ index u16 ‖ path 32 × n ‖ signature 64 over the head
 *
 * Origin and channel id stand behind a length byte. Key id = first 8 bytes of SHA-256(receipt key). Index and size say how
 * many hashes the path has: none in a batch of one, ten at most. One receipt per request; it proves acceptance, not
 * delivery.
 */
import { concat, equal, SignatureSchemeId, u16 } from '@quicprochat/crypto';
import type { CryptoProvider } from '@quicprochat/crypto';
import { Misuse } from './errors.ts';
import { ADDRESS_BYTES, compareAddresses, DEVICE_ID_BYTES, IDENTITY_KEY_BYTES, MESSAGE_ID_BYTES } from './identity.ts';
import type { DeviceAddress } from './identity.ts';
import {
  inclusionPath,
  inclusionPathLength,
  LEAF_PREFIX,
  leafHash,
  rootByInclusion,
  TREE_HASH_BYTES,
  treeLevels,
} from './key-transparency/merkle.ts';
import { Label } from './labels.ts';
import { exactly, lengthPrefixedText, parseStatement, SIGNATURE_BYTES, verifyStatement } from './statement.ts';
import type { FieldReader, Unverified, Verified, VerifyOutcome } from './statement.ts';

export const RECEIPT_KEY_ID_BYTES = 8;
/** Receipts under one signature: a longer path is nobody's. */
export const RECEIPT_BATCH_MAX = 1_024;
const RECEIPT_BYTES_MAX = 1_024;
const HASH_BYTES = 32;
const U64_BYTES = 8;
/** Size and index. */
const PLACE_BYTES = 4;

/** What the server accepted. */
export interface Acceptance {
  /** 16 bytes, or empty for what belongs to no channel. */
  readonly channelId: Uint8Array;
  readonly messageId: Uint8Array;
  readonly payloadHash: Uint8Array;
  /** From `deliveryListHash`. */
  readonly deliveriesHash: Uint8Array;
  /** Milliseconds since 1970. */
  readonly acceptedAtMs: number;
  /** Milliseconds since 1970. */
  readonly expiresAtMs: number;
}

export interface Receipt extends Acceptance {
  readonly origin: string;
  readonly keyId: Uint8Array;
}

export type VerifiedReceipt = Verified<Receipt>;

/** Where the statement stands in its batch. */
interface Place {
  readonly size: number;
  readonly index: number;
  readonly path: readonly Uint8Array[];
  readonly statementBytes: number;
}

export interface UnverifiedReceipt extends Unverified<Receipt> {
  readonly place: Place;
}

/** One inbox the envelope went to, and its position there. */
export interface Delivery {
  readonly address: DeviceAddress;
  readonly seq: bigint;
}

export function receiptKeyId(crypto: CryptoProvider, receiptKey: Uint8Array): Uint8Array {
  return crypto.hash('sha256', receiptKey).slice(0, RECEIPT_KEY_ID_BYTES);
}

const DELIVERY_BYTES = ADDRESS_BYTES + U64_BYTES;

/** SHA-256 over address 48 ‖ seq u64 of each delivery, in the order of these 56 bytes. @throws Misuse for no address. */
export function deliveryListHash(crypto: CryptoProvider, deliveries: readonly Delivery[]): Uint8Array {
  const sorted = deliveries.length > 1 ? deliveries.toSorted(compareDeliveries) : deliveries;
  const list = new Uint8Array(sorted.length * DELIVERY_BYTES);
  let at = 0;
  for (const { address, seq } of sorted) {
    list.set(exactly(address.identityKey, IDENTITY_KEY_BYTES, 'an identity key'), at);
    list.set(exactly(address.deviceId, DEVICE_ID_BYTES, 'a device id'), at + IDENTITY_KEY_BYTES);
    writeU32(list, at + ADDRESS_BYTES, Number(seq >> 32n));
    writeU32(list, at + ADDRESS_BYTES + 4, Number(seq & 0xffff_ffffn));
    at += DELIVERY_BYTES;
  }
  return crypto.hash('sha256', list);
}

// A DataView would cost as much again as a small array itself.
function writeU32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

function compareDeliveries(a: Delivery, b: Delivery): number {
  return compareAddresses(a.address, b.address) || (a.seq < b.seq ? -1 : Number(a.seq > b.seq));
}

/** Who gives receipts. */
export interface ReceiptIssuer {
  readonly origin: string;
  readonly keyId: Uint8Array;
  /** The receipt key, Ed25519. */
  readonly privateKey: Uint8Array;
}

/**
 * A receipt for each of 1 to RECEIPT_BATCH_MAX acceptances, in their order, by one signature. They are views of one buffer.
 * @throws Misuse when there are too few or too many, or a field has the wrong length
 */
export function signReceipts(
  crypto: CryptoProvider,
  { origin, keyId, privateKey }: ReceiptIssuer,
  acceptances: readonly Acceptance[],
): Uint8Array[] {
  const size = acceptances.length;
  if (size < 1 || size > RECEIPT_BATCH_MAX) throw new Misuse(`a batch has 1 to ${RECEIPT_BATCH_MAX} receipts`);
  const issuer = concat(
    Label.deliveryReceipt,
    lengthPrefixedText(origin),
    exactly(keyId, RECEIPT_KEY_ID_BYTES, 'a receipt key id'),
  );
  // Everything goes straight into one buffer, where the byte before each receipt is its leaf's prefix: this is what the
  // server does for each message, and many small arrays cost more than what is done with them.
  const writer = new ReceiptWriter(
    acceptances.reduce((sum, each, i) => sum + receiptBytes(issuer, each, i, size), size),
  );
  const starts: number[] = [];
  const leaves: Uint8Array[] = [];
  for (const [index, acceptance] of acceptances.entries()) {
    const start = writer.at;
    starts.push(start);
    writer.u8(LEAF_PREFIX);
    writer.statement(issuer, acceptance);
    leaves.push(crypto.hash('sha256', writer.since(start)));
    writer.u16(size);
    writer.u16(index);
    writer.at += inclusionPathLength(index, size) * TREE_HASH_BYTES + SIGNATURE_BYTES;
  }
  const levels = treeLevels(crypto, leaves);
  const head = encodeHead(size, levels.at(-1)![0]!);
  const signature = crypto.signature(SignatureSchemeId.Ed25519).sign(privateKey, head);
  return starts.map((start, index) => {
    const path = inclusionPath(levels, index);
    const end = starts[index + 1] ?? writer.length;
    writer.at = end - SIGNATURE_BYTES - path.length * TREE_HASH_BYTES;
    for (const hash of path) writer.bytes(hash);
    writer.bytes(signature);
    return writer.since(start + 1);
  });
}

function receiptBytes(issuer: Uint8Array, { channelId }: Acceptance, index: number, size: number): number {
  if (channelId.length > 255) throw new Misuse('a channel id is longer than 255 bytes');
  const statementBytes = issuer.length + 1 + channelId.length + MESSAGE_ID_BYTES + 2 * HASH_BYTES + 2 * U64_BYTES;
  return statementBytes + PLACE_BYTES + inclusionPathLength(index, size) * TREE_HASH_BYTES + SIGNATURE_BYTES;
}

/** What is signed for a batch. */
function encodeHead(size: number, root: Uint8Array): Uint8Array {
  return concat(Label.receiptBatch, u16(size), root);
}

class ReceiptWriter {
  at = 0;
  readonly #buffer: Uint8Array;

  constructor(length: number) {
    this.#buffer = new Uint8Array(length);
  }

  get length(): number {
    return this.#buffer.length;
  }

  since(start: number): Uint8Array {
    return this.#buffer.subarray(start, this.at);
  }

  bytes(bytes: Uint8Array): void {
    this.#buffer.set(bytes, this.at);
    this.at += bytes.length;
  }

  u8(value: number): void {
    this.#buffer[this.at] = value;
    this.at += 1;
  }

  u16(value: number): void {
    this.u8(value >>> 8);
    this.u8(value);
  }

  #time(ms: number): void {
    if (!Number.isSafeInteger(ms) || ms < 0) throw new Misuse('a time is a whole number of milliseconds');
    writeU32(this.#buffer, this.at, Math.floor(ms / 2 ** 32));
    writeU32(this.#buffer, this.at + 4, ms >>> 0);
    this.at += U64_BYTES;
  }

  statement(issuer: Uint8Array, acceptance: Acceptance): void {
    this.bytes(issuer);
    this.u8(acceptance.channelId.length);
    this.bytes(acceptance.channelId);
    this.bytes(exactly(acceptance.messageId, MESSAGE_ID_BYTES, 'a message id'));
    this.bytes(exactly(acceptance.payloadHash, HASH_BYTES, 'a payload hash'));
    this.bytes(exactly(acceptance.deliveriesHash, HASH_BYTES, 'a delivery list hash'));
    this.#time(acceptance.acceptedAtMs);
    this.#time(acceptance.expiresAtMs);
  }
}

/** The receipt's layout read, nothing checked; undefined when it is not a receipt. */
export function parseReceipt(bytes: Uint8Array): UnverifiedReceipt | undefined {
  const parsed = parseStatement(bytes, Label.deliveryReceipt, RECEIPT_BYTES_MAX, (reader) => {
    const claims: Receipt = {
      origin: reader.text(),
      keyId: reader.take(RECEIPT_KEY_ID_BYTES),
      channelId: reader.short(),
      messageId: reader.take(MESSAGE_ID_BYTES),
      payloadHash: reader.take(HASH_BYTES),
      deliveriesHash: reader.take(HASH_BYTES),
      acceptedAtMs: reader.time(),
      expiresAtMs: reader.time(),
    };
    return { claims, place: readPlace(reader) };
  });
  if (parsed === undefined) return undefined;
  return { kind: 'unverified', bytes: parsed.bytes, ...parsed.claims };
}

function readPlace(reader: FieldReader): Place {
  const statementBytes = Label.deliveryReceipt.length + reader.position;
  const size = reader.u16();
  const index = reader.u16();
  const path: Uint8Array[] = [];
  if (size > RECEIPT_BATCH_MAX || index >= size) reader.refuse();
  else for (let n = inclusionPathLength(index, size); n > 0; n--) path.push(reader.take(TREE_HASH_BYTES));
  return { size, index, path, statementBytes };
}

/** What the sender knows about its own envelope. */
export interface ReceiptExpectation {
  readonly origin: string;
  /** The server's receipt key as pinned. */
  readonly receiptKey: Uint8Array;
  readonly channelId: Uint8Array;
  readonly messageId: Uint8Array;
  readonly payload: Uint8Array;
  /** The queued and duplicate results of the same answer; left out by a sealed sender, who is not told them. */
  readonly deliveries?: readonly Delivery[];
}

/** Checks the signature and that the receipt is about exactly this envelope. */
export function verifyReceipt(
  crypto: CryptoProvider,
  untrusted: UnverifiedReceipt,
  expected: ReceiptExpectation,
): VerifyOutcome<Receipt> {
  const { bytes, claims, place } = untrusted;
  const invalid = (reason: string): VerifyOutcome<Receipt> => ({ kind: 'invalid', reason });
  if (claims.origin !== expected.origin) return invalid('the receipt is from another server');
  if (!equal(claims.keyId, receiptKeyId(crypto, expected.receiptKey))) {
    return invalid('the receipt was made with another key');
  }
  if (!equal(claims.channelId, expected.channelId)) return invalid('the receipt is for another channel');
  if (!equal(claims.messageId, expected.messageId)) return invalid('the receipt is for another message');
  if (!equal(claims.payloadHash, crypto.hash('sha256', expected.payload))) {
    return invalid('the receipt is for other bytes');
  }
  if (expected.deliveries !== undefined && !isOf(crypto, claims, expected.deliveries)) {
    return invalid('the receipt names other recipients');
  }
  const { size, index, path } = place;
  const leaf = leafHash(crypto, bytes.subarray(0, place.statementBytes));
  const root = rootByInclusion(crypto, { leafHash: leaf, index, size }, path);
  if (root === undefined) return invalid('the receipt has no place in its batch');
  return verifyStatement(crypto, expected.receiptKey, untrusted, encodeHead(size, root));
}

/** Whether the receipt is about these. They come from the server's answer, and may be no addresses at all. */
function isOf(crypto: CryptoProvider, { deliveriesHash }: Receipt, deliveries: readonly Delivery[]): boolean {
  const areDevices = deliveries.every(
    ({ address: { identityKey, deviceId } }) =>
      identityKey.length === IDENTITY_KEY_BYTES && deviceId.length === DEVICE_ID_BYTES,
  );
  return areDevices && equal(deliveriesHash, deliveryListHash(crypto, deliveries));
}
