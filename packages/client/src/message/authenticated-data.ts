/**
 * authenticated_data of our MLS messages (PROTOCOL section 5): what ties a PrivateMessage to its channel and, for a commit,
 * to the log it was made on.
 *
 *   commit:                01 ‖ channel id 16 ‖ log_hash(after) 32 ‖ pq commitment 32 or zeros ‖ checkpoint<u16>
 *   application, proposal: 01 ‖ channel id 16
 *
 * A wrong channel id or a missing pq commitment makes a message invalid. A log_hash or checkpoint other than one's own
 * never does: apply, keep the evidence, pause sending, show.
 */
import { CHANNEL_ID_BYTES, Misuse } from '@quicprochat/core';
import { concat, u16 } from '@quicprochat/crypto';
import { ByteReader } from './byte-reader.ts';
import { COMMITMENT_LENGTH } from './envelope-shared.ts';

const VERSION = 1;
const LOG_HASH_LENGTH = 32;
/** A C2SP signed note with room to spare. */
const CHECKPOINT_BYTES_MAX = 8192;

export interface CommitData {
  readonly channelId: Uint8Array;
  /** log_hash of the entry the commit was made after, 32 bytes. */
  readonly logHash: Uint8Array;
  /** Commitment of the pq_renewal beside the commit, 32 bytes; undefined where there is none. */
  readonly pqCommitment: Uint8Array | undefined;
  /** Newest key-transparency checkpoint; empty before key transparency. */
  readonly checkpoint: Uint8Array;
}

/** @throws Misuse when a field has a length it must not have; likewise `encodeMessageData`. */
export function encodeCommitData({ channelId, logHash, pqCommitment, checkpoint }: CommitData): Uint8Array {
  if (
    logHash.length !== LOG_HASH_LENGTH ||
    (pqCommitment !== undefined && (pqCommitment.length !== COMMITMENT_LENGTH || isZero(pqCommitment))) ||
    checkpoint.length > CHECKPOINT_BYTES_MAX
  ) {
    throw new Misuse('malformed authenticated data');
  }
  const commitment = pqCommitment ?? new Uint8Array(COMMITMENT_LENGTH);
  return concat(encodeMessageData(channelId), logHash, commitment, u16(checkpoint.length), checkpoint);
}

/** The parts, or undefined when the layout is another. */
export function decodeCommitData(bytes: Uint8Array): CommitData | undefined {
  const reader = new ByteReader(bytes);
  if (reader.u8() !== VERSION) return undefined;
  const channelId = reader.take(CHANNEL_ID_BYTES);
  const logHash = reader.take(LOG_HASH_LENGTH);
  const commitment = reader.take(COMMITMENT_LENGTH);
  const checkpointLength = reader.u16();
  if (checkpointLength > CHECKPOINT_BYTES_MAX) return undefined;
  const checkpoint = reader.take(checkpointLength);
  if (!reader.complete) return undefined;
  return { channelId, logHash, pqCommitment: isZero(commitment) ? undefined : commitment, checkpoint };
}

/** authenticated_data of application messages and of proposals. */
export function encodeMessageData(channelId: Uint8Array): Uint8Array {
  if (channelId.length !== CHANNEL_ID_BYTES) throw new Misuse('a channel id has 16 bytes');
  return concat(new Uint8Array([VERSION]), channelId);
}

/** The channel id, or undefined when the layout is another. */
export function decodeMessageData(bytes: Uint8Array): Uint8Array | undefined {
  const reader = new ByteReader(bytes);
  if (reader.u8() !== VERSION) return undefined;
  const channelId = reader.take(CHANNEL_ID_BYTES);
  return reader.complete ? channelId : undefined;
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}
