/**
 * authenticated_data of our messages (PROTOCOL section 5): authenticated by MLS, so it ties what a member says to the
 * channel and to the log as that member saw it.
 *
 *   application message, proposal   01 ‖ channel id 16
 *   commit                          01 ‖ channel id 16 ‖ log_hash(after) 32 ‖ pq commitment 32 or zeros
 *                                   ‖ checkpoint<u16>
 */
import { concat, equal, readU16, u16 } from '@quicprochat/crypto';
import { CHANNEL_ID_BYTES } from '@quicprochat/core';

const VERSION = 1;
const HASH_BYTES = 32;
const CHECKPOINT_BYTES_MAX = 4_096;
const COMMIT_FIXED_BYTES = 1 + CHANNEL_ID_BYTES + 2 * HASH_BYTES + 2;

export interface CommitAuthenticatedData {
  readonly channelId: Uint8Array;
  /** log_hash at the position after which the commit was made. */
  readonly logHash: Uint8Array;
  /** Commitment of the type-02 envelope with the renewed salt; undefined (zeros on the wire) when there is none. */
  readonly pqCommitment: Uint8Array | undefined;
  /** Newest key-transparency checkpoint known to the committer; may be empty. */
  readonly checkpoint: Uint8Array;
}

export function encodeMessageAuthenticatedData(channelId: Uint8Array): Uint8Array {
  return concat(new Uint8Array([VERSION]), channelId);
}

export function isMessageAuthenticatedData(bytes: Uint8Array, channelId: Uint8Array): boolean {
  return equal(bytes, encodeMessageAuthenticatedData(channelId));
}

export function encodeCommitAuthenticatedData(data: CommitAuthenticatedData): Uint8Array {
  return concat(
    new Uint8Array([VERSION]),
    data.channelId,
    data.logHash,
    data.pqCommitment ?? new Uint8Array(HASH_BYTES),
    u16(data.checkpoint.length),
    data.checkpoint,
  );
}

/** What a commit's authenticated_data says, or undefined when it is malformed. */
export function decodeCommitAuthenticatedData(bytes: Uint8Array): CommitAuthenticatedData | undefined {
  if (bytes.length < COMMIT_FIXED_BYTES || bytes[0] !== VERSION) return undefined;
  const checkpointLength = readU16(bytes, COMMIT_FIXED_BYTES - 2);
  if (checkpointLength > CHECKPOINT_BYTES_MAX || bytes.length !== COMMIT_FIXED_BYTES + checkpointLength) {
    return undefined;
  }
  const logHashAt = 1 + CHANNEL_ID_BYTES;
  const pqCommitment = bytes.slice(logHashAt + HASH_BYTES, logHashAt + 2 * HASH_BYTES);
  return {
    channelId: bytes.slice(1, logHashAt),
    logHash: bytes.slice(logHashAt, logHashAt + HASH_BYTES),
    pqCommitment: pqCommitment.some((byte) => byte !== 0) ? pqCommitment : undefined,
    checkpoint: bytes.slice(COMMIT_FIXED_BYTES),
  };
}
