/**
 * Where a ratchet tree is that is too large to travel in its Welcome (PROTOCOL section 9): a blob at the server, named by
 * the hash of its ciphertext, and the key that opens it. Stands inside sealed bodies only.
 *
 *   blob id 32 ‖ key 32 ‖ length u32 (of the tree, without padding)
 */
import { concat, u32 } from '@quicprochat/crypto';
import { ByteReader } from './byte-reader.ts';

const BLOB_ID_LENGTH = 32;
const KEY_LENGTH = 32;
/** About 20,000 devices in the post-quantum suite. */
export const TREE_BYTES_MAX = 32 * 1024 * 1024;

export interface TreeReference {
  /** SHA-256 of the ciphertext, 32 bytes. */
  readonly blobId: Uint8Array;
  /** AES-256-GCM, used for this blob only; 32 bytes. */
  readonly key: Uint8Array;
  /** Of the encoded tree. */
  readonly length: number;
}

export function encodeTreeReference({ blobId, key, length }: TreeReference): Uint8Array {
  return concat(blobId, key, u32(length));
}

/** Undefined when the layout is another. */
export function decodeTreeReference(bytes: Uint8Array): TreeReference | undefined {
  const reader = new ByteReader(bytes);
  const reference = { blobId: reader.take(BLOB_ID_LENGTH), key: reader.take(KEY_LENGTH), length: reader.u32() };
  return reader.complete && isTreeReference(reference) ? reference : undefined;
}

export function isTreeReference({ blobId, key, length }: TreeReference): boolean {
  return blobId.length === BLOB_ID_LENGTH && key.length === KEY_LENGTH && length > 0 && length <= TREE_BYTES_MAX;
}
