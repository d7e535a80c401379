/**
 * Blobs (DESIGN 6): encrypted files, addressed by the SHA-256 of their ciphertext. The store keeps who owns what, the
 * files keep the bytes, and this keeps the two together: everything about one blob happens one after the other.
 *
 *   begin (quota) → append at the end of the unfinished file → all there? → hash → file under its name → store
 *
 * How far an upload is, its file says, so a transfer goes on wherever it was cut, also by the end of the process. A file
 * without a row in the store is an accident's remainder and is swept away; a row without a file there never is.
 */
import { encodeHex } from '@quicprochat/crypto';
import type { CryptoProvider } from '@quicprochat/crypto';
import type { Log } from './context.ts';
import type { BlobUpload, Store, WriteContext } from './store/store.ts';

export const BLOB_CHUNK_BYTES = 256 * 1024;
export const BLOB_BYTES_MAX = 50 * 1024 * 1024;
export const BLOB_ID_BYTES = 32;

/**
 * Files by name; names are hex digits that the server computes, never text of a user (THREATS 29). A disk that is full or
 * fails is a StoreError, like that of the database beside it.
 */
export interface BlobFiles {
  /** Bytes of an unfinished file; 0 when there is none. */
  unfinishedBytes(name: string): Promise<number>;
  /** Writes at a position of an unfinished file, which is made when it is missing. */
  write(name: string, offset: number, chunk: Uint8Array): Promise<void>;
  /**
   * Gives an unfinished file its final name if `hash` over its bytes says so, on disk when it resolves; false, and the
   * file is gone, when the bytes are others.
   */
  finish(name: string, blobName: string, sizeBytes: number, expectedHash: Uint8Array): Promise<boolean>;
  discard(name: string): Promise<void>;
  /** Bytes of a finished file; undefined when there is no such file. */
  finishedBytes(blobName: string): Promise<number | undefined>;
  /** Part of a finished file; undefined when there is no such file. */
  read(blobName: string, offset: number, length: number): Promise<Uint8Array | undefined>;
  remove(blobName: string): Promise<void>;
  /** Names of all finished files. */
  list(): AsyncIterable<string>;
  /** Removes unfinished files last written before a moment, milliseconds since 1970. */
  discardBefore(timeMs: number): Promise<void>;
}

export type UploadOutcome =
  | { readonly kind: 'open'; readonly nextOffset: number }
  | { readonly kind: 'complete' }
  /** All bytes were there and were not those the id names: from the beginning. */
  | { readonly kind: 'wrong_bytes' }
  | { readonly kind: 'over_quota'; readonly maxBytes: number }
  | { readonly kind: 'wrong_size' }
  | { readonly kind: 'unknown_account' };

interface Parts {
  readonly crypto: CryptoProvider;
  readonly store: Store;
  readonly files: BlobFiles;
  readonly log: Log;
  readonly uploadTtlMs: number;
}

export class Blobs {
  readonly #parts: Parts;
  readonly #turns = new Map<string, Promise<unknown>>();
  #swept = false;
  #holds = 0;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** One chunk, at the offset where the upload is; a chunk for another place has no effect. An empty one asks. */
  upload(upload: BlobUpload, offset: number, chunk: Uint8Array, writes: WriteContext): Promise<UploadOutcome> {
    const { crypto, store, files } = this.#parts;
    const { identityKey, blobId, sizeBytes } = upload;
    const blobName = encodeHex(blobId);
    // An account's own: nobody spoils the upload of another by sending other bytes under the same id.
    const name = encodeHex(crypto.hmac('sha256', identityKey, blobId));
    return this.#inTurn(blobName, async () => {
      const begun = await store.beginUpload(upload, writes);
      if (begun.kind !== 'open') return begun;
      if (begun.restarted) await files.discard(name);
      let nextOffset = await this.#received(name, sizeBytes);
      // The last chunk came, and that it did never reached the store: the process died, or the disk was full.
      if (nextOffset === 0 && (await files.finishedBytes(blobName)) === sizeBytes) {
        await store.completeUpload(upload, writes);
        return { kind: 'complete' };
      }
      if (chunk.length > 0 && offset === nextOffset) {
        await files.write(name, offset, chunk);
        nextOffset += chunk.length;
      }
      if (nextOffset < sizeBytes) return { kind: 'open', nextOffset };
      if (!(await files.finish(name, blobName, sizeBytes, blobId))) return { kind: 'wrong_bytes' };
      await store.completeUpload(upload, writes);
      return { kind: 'complete' };
    });
  }

  /** A range; shorter at the end. Undefined for an unknown blob. */
  async download(
    blobId: Uint8Array,
    offset: number,
    length: number,
  ): Promise<{ readonly chunk: Uint8Array; readonly sizeBytes: number } | undefined> {
    const found = await this.#parts.store.findBlob(blobId);
    if (found === undefined) return undefined;
    const { sizeBytes } = found;
    const wanted = Math.max(0, Math.min(length, sizeBytes - offset));
    const chunk = wanted === 0 ? new Uint8Array(0) : await this.#parts.files.read(encodeHex(blobId), offset, wanted);
    // It may have been collected between the two.
    return chunk === undefined ? undefined : { chunk, sizeBytes };
  }

  /** Nothing is removed until the function returned is called: somebody copies the files that the store names. */
  async hold(): Promise<() => void> {
    this.#holds++;
    // What was being removed is gone from store and folder alike.
    await Promise.allSettled(this.#turns.values());
    let held = true;
    return () => {
      if (held) this.#holds--;
      held = false;
    };
  }

  /** Removes what nobody owns; at first also what a crash left behind. */
  async collect(nowMs: number): Promise<void> {
    const { store, files, log, uploadTtlMs } = this.#parts;
    if (this.#holds > 0) return;
    let removed = 0;
    for (let batch = await store.listUnownedBlobs(); batch.length > 0; batch = await store.listUnownedBlobs()) {
      for (const blobId of batch) if (await this.#removeUnowned(blobId)) removed++;
      if (this.#holds > 0) return;
    }
    await files.discardBefore(nowMs - uploadTtlMs);
    if (!this.#swept) {
      for await (const name of files.list()) {
        const blobId = Uint8Array.from(name.match(/../g) ?? [], (digits) => Number.parseInt(digits, 16));
        if ((await store.findBlob(blobId)) === undefined && (await this.#removeUnowned(blobId))) removed++;
        if (this.#holds > 0) return;
      }
      this.#swept = true;
    }
    if (removed > 0) log.info({ removed }, 'blobs collected');
  }

  #removeUnowned(blobId: Uint8Array): Promise<boolean> {
    const name = encodeHex(blobId);
    return this.#inTurn(name, async () => {
      if (this.#holds > 0) return false;
      const isFree = await this.#parts.store.forgetBlob(blobId);
      if (isFree) await this.#parts.files.remove(name);
      return isFree;
    });
  }

  // A chunk that a crash cut short is sent again as a whole.
  async #received(name: string, sizeBytes: number): Promise<number> {
    const bytes = await this.#parts.files.unfinishedBytes(name);
    return bytes >= sizeBytes ? sizeBytes : bytes - (bytes % BLOB_CHUNK_BYTES);
  }

  async #inTurn<T>(name: string, task: () => Promise<T>): Promise<T> {
    const before = this.#turns.get(name);
    const turn = (async () => {
      await before?.catch(() => {});
      return task();
    })();
    this.#turns.set(name, turn);
    try {
      return await turn;
    } finally {
      if (this.#turns.get(name) === turn) this.#turns.delete(name);
    }
  }
}
