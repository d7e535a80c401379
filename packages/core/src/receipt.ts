/**
 * Delivery receipts (PROTOCOL 8): the server's word that it accepted an envelope. `delivery_proof` carries the whole
 * statement, so that it can be kept and shown:
 *
 *   label ‖ origin ‖ key id 8 ‖ channel id ‖ message id 16 ‖ SHA-256(payload) ‖ SHA-256(sorted (address, seq) list)
 *   ‖ accepted-at u64 ms ‖ expires-at u64 ms ‖ signature 64          (origin, channel id behind a length byte)
 *
 * Key id = first 8 bytes of SHA-256(receipt key). One receipt per request; it proves acceptance, not delivery.
 */
import { compare, concat, equal, u64 } from '@quicprochat/crypto';
import type { CryptoProvider } from '@quicprochat/crypto';
import { encodeAddress, MESSAGE_ID_BYTES } from './identity.ts';
import type { DeviceAddress } from './identity.ts';
import { Label } from './labels.ts';
import {
  exactly,
  lengthPrefixed,
  lengthPrefixedText,
  parseStatement,
  signStatement,
  verifyStatement,
} from './statement.ts';
import type { Unverified, Verified, VerifyOutcome } from './statement.ts';

export const RECEIPT_KEY_ID_BYTES = 8;
const RECEIPT_BYTES_MAX = 1_024;
const HASH_BYTES = 32;

export interface Receipt {
  readonly origin: string;
  readonly keyId: Uint8Array;
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

export type UnverifiedReceipt = Unverified<Receipt>;
export type VerifiedReceipt = Verified<Receipt>;

/** One inbox the envelope went to, and its position there. */
export interface Delivery {
  readonly address: DeviceAddress;
  readonly seq: bigint;
}

export function receiptKeyId(crypto: CryptoProvider, receiptKey: Uint8Array): Uint8Array {
  return crypto.hash('sha256', receiptKey).slice(0, RECEIPT_KEY_ID_BYTES);
}

/** SHA-256 over address 48 ‖ seq u64 of each delivery, in the order of these 56 bytes. */
export function deliveryListHash(crypto: CryptoProvider, deliveries: readonly Delivery[]): Uint8Array {
  const entries = deliveries.map((d) => concat(encodeAddress(d.address), u64(d.seq))).sort(compare);
  return crypto.hash('sha256', concat(...entries));
}

/** Signs a receipt with the server's receipt key. @throws Misuse when a field has the wrong length. */
export function signReceipt(crypto: CryptoProvider, receiptPrivateKey: Uint8Array, receipt: Receipt): Uint8Array {
  return signStatement(
    crypto,
    receiptPrivateKey,
    concat(
      Label.deliveryReceipt,
      lengthPrefixedText(receipt.origin),
      exactly(receipt.keyId, RECEIPT_KEY_ID_BYTES, 'a receipt key id'),
      lengthPrefixed(receipt.channelId),
      exactly(receipt.messageId, MESSAGE_ID_BYTES, 'a message id'),
      exactly(receipt.payloadHash, HASH_BYTES, 'a payload hash'),
      exactly(receipt.deliveriesHash, HASH_BYTES, 'a delivery list hash'),
      u64(BigInt(receipt.acceptedAtMs)),
      u64(BigInt(receipt.expiresAtMs)),
    ),
  );
}

/** The receipt's layout read, nothing checked; undefined when it is not a receipt. */
export function parseReceipt(bytes: Uint8Array): UnverifiedReceipt | undefined {
  return parseStatement(bytes, Label.deliveryReceipt, RECEIPT_BYTES_MAX, (reader) => ({
    origin: reader.text(),
    keyId: reader.take(RECEIPT_KEY_ID_BYTES),
    channelId: reader.short(),
    messageId: reader.take(MESSAGE_ID_BYTES),
    payloadHash: reader.take(HASH_BYTES),
    deliveriesHash: reader.take(HASH_BYTES),
    acceptedAtMs: reader.time(),
    expiresAtMs: reader.time(),
  }));
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
  const { claims } = untrusted;
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
  if (
    expected.deliveries !== undefined &&
    !equal(claims.deliveriesHash, deliveryListHash(crypto, expected.deliveries))
  ) {
    return invalid('the receipt names other recipients');
  }
  return verifyStatement(crypto, expected.receiptKey, untrusted);
}
