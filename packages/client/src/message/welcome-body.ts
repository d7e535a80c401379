/**
 * The body of a payload of kind Welcome (PROTOCOL section 5): what a joiner needs beside the MLS Welcome itself.
 *
 *   01 ‖ position u64 ‖ log_hash 32 ‖ pq_n<u8> ‖ metadata<u16> ‖ MLSMessage(Welcome)
 *
 * or, where the ratchet tree is not in the Welcome but in a blob (tree-reference.ts):
 *
 *   02 ‖ position u64 ‖ log_hash 32 ‖ pq_n<u8> ‖ metadata<u16> ‖ tree reference 68 ‖ MLSMessage(Welcome)
 *
 * position and log_hash are those after the entry that added the joiner, who ignores log entries at or below it. The
 * metadata is an encoded `qpc.content.v1.GroupInfo` (content.ts), empty in direct conversations.
 */
import { Misuse } from '@quicprochat/core';
import { concat, EMPTY, u16, u64 } from '@quicprochat/crypto';
import { ByteReader } from './byte-reader.ts';
import { PQ_SALT_LENGTH } from './envelope-group.ts';
import { mlsWireFormat, mlsWireFormatOf, PayloadKind } from './envelope.ts';
import {
  decodeTreeReference,
  encodeTreeReference,
  isTreeReference,
  TREE_REFERENCE_LENGTH,
  type TreeReference,
} from './tree-reference.ts';

const VERSION = 1;
const VERSION_TREE_ELSEWHERE = 2;
const LOG_HASH_LENGTH = 32;
const METADATA_BYTES_MAX = 1024;

export interface WelcomeBody {
  readonly position: bigint;
  /** 32 bytes. */
  readonly logHash: Uint8Array;
  /** 32 bytes, or empty in post-quantum suites. */
  readonly pqSalt: Uint8Array;
  readonly metadata: Uint8Array;
  /** Where the tree is, when the Welcome does not carry it. */
  readonly tree?: TreeReference;
  /** MLSMessage with wire format mls_welcome. */
  readonly welcome: Uint8Array;
}

/** @throws Misuse when a field has a length or a wire format it must not have */
export function encodeWelcomeBody(body: WelcomeBody): Uint8Array {
  if (!isWellFormed(body)) throw new Misuse('malformed Welcome body');
  return concat(
    new Uint8Array([body.tree === undefined ? VERSION : VERSION_TREE_ELSEWHERE]),
    u64(body.position),
    body.logHash,
    new Uint8Array([body.pqSalt.length]),
    body.pqSalt,
    u16(body.metadata.length),
    body.metadata,
    body.tree === undefined ? EMPTY : encodeTreeReference(body.tree),
    body.welcome,
  );
}

/** The parts, or undefined when the layout is another. Nothing in it is verified. */
export function decodeWelcomeBody(bytes: Uint8Array): WelcomeBody | undefined {
  const reader = new ByteReader(bytes);
  const version = reader.u8();
  if (version !== VERSION && version !== VERSION_TREE_ELSEWHERE) return undefined;
  const fields = {
    position: reader.u64(),
    logHash: reader.take(LOG_HASH_LENGTH),
    pqSalt: reader.take(reader.u8()),
    metadata: reader.take(reader.u16()),
  };
  const tree = version === VERSION_TREE_ELSEWHERE ? decodeTreeReference(reader.take(TREE_REFERENCE_LENGTH)) : undefined;
  if (version === VERSION_TREE_ELSEWHERE && tree === undefined) return undefined;
  const body: WelcomeBody = { ...fields, ...(tree === undefined ? {} : { tree }), welcome: reader.rest() };
  return reader.complete && isWellFormed(body) ? body : undefined;
}

function isWellFormed({ logHash, pqSalt, metadata, tree, welcome }: WelcomeBody): boolean {
  return (
    logHash.length === LOG_HASH_LENGTH &&
    (pqSalt.length === 0 || pqSalt.length === PQ_SALT_LENGTH) &&
    metadata.length <= METADATA_BYTES_MAX &&
    (tree === undefined || isTreeReference(tree)) &&
    mlsWireFormat(welcome) === mlsWireFormatOf(PayloadKind.Welcome)
  );
}
