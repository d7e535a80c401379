/**
 * A ratchet tree too large to travel in its Welcome (PROTOCOL section 9): encrypted, as a blob at the server, named in the
 * sealed body beside the Welcome by the hash of its ciphertext and the key that opens it.
 *
 *   reference: blob id 32 = SHA-256(blob) ‖ key 32 ‖ length u32 (of the tree, without padding)
 *   blob:      AES-256-GCM(key, nonce zero, AAD = channel id, tree ‖ zeros), in multiples of 64 KiB
 *
 * The key is used for this one blob. Who is named by a hash cannot be two things, so the key commits to one tree; that it
 * is the group's tree, the GroupInfo's tree hash says.
 */
import { concat, type CryptoProvider, u32 } from '@quicprochat/crypto';
import { ByteReader } from './byte-reader.ts';
import { envelopeAead, type SealContext } from './envelope.ts';
import { bucketFor } from './padding.ts';

const BLOB_ID_LENGTH = 32;
const KEY_LENGTH = 32;
const TAG_LENGTH = 16;
const NONCE = new Uint8Array(12);
/** A reference as it stands in a body. */
export const TREE_REFERENCE_LENGTH = BLOB_ID_LENGTH + KEY_LENGTH + 4;
/** Above this a tree travels as a blob. */
export const TREE_INLINE_BYTES_MAX = 64 * 1024;
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

export interface TreeBlob {
  readonly reference: TreeReference;
  readonly blob: Uint8Array;
}

/** Undefined when the tree is larger than any we take. */
export function sealTree(
  { crypto, random }: SealContext,
  channelId: Uint8Array,
  tree: Uint8Array,
): TreeBlob | undefined {
  if (tree.length === 0 || tree.length > TREE_BYTES_MAX) return undefined;
  const padded = new Uint8Array(treeBlobLength(tree.length) - TAG_LENGTH);
  padded.set(tree);
  const key = random(KEY_LENGTH);
  const blob = envelopeAead(crypto).seal(key, NONCE, channelId, padded);
  return { reference: { blobId: crypto.hash('sha256', blob), key, length: tree.length }, blob };
}

/** The tree, or undefined when these are not the bytes the reference names. */
export function openTree(
  crypto: CryptoProvider,
  channelId: Uint8Array,
  { blobId, key, length }: TreeReference,
  blob: Uint8Array,
): Uint8Array | undefined {
  if (blob.length !== treeBlobLength(length) || !crypto.equal(crypto.hash('sha256', blob), blobId)) return undefined;
  return envelopeAead(crypto).open(key, NONCE, channelId, blob)?.subarray(0, length);
}

/** Bytes of the blob for a tree of so many. */
export function treeBlobLength(treeLength: number): number {
  return bucketFor(Math.max(treeLength + TAG_LENGTH, TREE_INLINE_BYTES_MAX));
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
