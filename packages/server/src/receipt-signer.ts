/**
 * Receipts, signed together (PROTOCOL 8, decision 0022). The store answers the requests of one group commit in one turn of
 * the event loop; what becomes due in a turn is gathered and signed once, at its end:
 *
 *   store answers 1 … n  ─ sign() ─▶  gathered  ─ end of the turn, or BATCH_MAX ─▶  signReceipts  ─▶  n answers go out
 *
 * A turn is all the delay there is: nobody waits for others to come.
 */
import { receiptKeyId, signReceipts } from '@quicprochat/core';
import type { Acceptance, ReceiptIssuer } from '@quicprochat/core';
import { SignatureSchemeId } from '@quicprochat/crypto';
import type { CryptoProvider } from '@quicprochat/crypto';

/** Signed at once when so many wait: what a group commit holds at most. A path is then of seven hashes. */
const BATCH_MAX = 128;

/** Calls back at the end of this turn of the event loop, when all that is settled now has been seen to. */
export type AtEndOfTurn = (run: () => void) => void;

export interface ReceiptSignerParts {
  readonly crypto: CryptoProvider;
  readonly origin: string;
  /** Ed25519. */
  readonly privateKey: Uint8Array;
  readonly atEndOfTurn: AtEndOfTurn;
}

interface Waiting {
  readonly acceptance: Acceptance;
  resolve(receipt: Uint8Array): void;
  reject(error: unknown): void;
}

export class ReceiptSigner {
  readonly publicKey: Uint8Array;
  readonly keyId: Uint8Array;
  readonly #crypto: CryptoProvider;
  readonly #issuer: ReceiptIssuer;
  readonly #atEndOfTurn: AtEndOfTurn;
  #waiting: Waiting[] = [];
  #closed = false;

  constructor({ crypto, origin, privateKey, atEndOfTurn }: ReceiptSignerParts) {
    this.#crypto = crypto;
    this.publicKey = crypto.signature(SignatureSchemeId.Ed25519).publicKey(privateKey);
    this.keyId = receiptKeyId(crypto, this.publicKey);
    this.#issuer = { origin, keyId: this.keyId, privateKey };
    this.#atEndOfTurn = atEndOfTurn;
  }

  /** The receipt for what is on disk. It shares its buffer with others: encode it, do not keep it. */
  sign(acceptance: Acceptance): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ acceptance, resolve, reject });
      if (this.#closed || this.#waiting.length >= BATCH_MAX) this.#signAll();
      else if (this.#waiting.length === 1) this.#atEndOfTurn(() => this.#signAll());
    });
  }

  /** Signs what waits, and from now on each at once: an end of a turn may not come any more. */
  close(): void {
    this.#closed = true;
    this.#signAll();
  }

  #signAll(): void {
    const batch = this.#waiting;
    if (batch.length === 0) return;
    this.#waiting = [];
    try {
      const receipts = signReceipts(
        this.#crypto,
        this.#issuer,
        batch.map(({ acceptance }) => acceptance),
      );
      for (const [i, { resolve }] of batch.entries()) resolve(receipts[i]!);
    } catch (error) {
      for (const { reject } of batch) reject(error);
    }
  }
}
