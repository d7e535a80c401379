/**
 * Envelope type 03, for the members of a group (PROTOCOL section 4). Everything inside a group travels in it, commits
 * included: the same bytes for all.
 *
 *   03 ‖ position u64 ‖ nonce 12 ‖ AES-256-GCM(k_n, nonce, AAD = header ‖ channel id, padded plaintext)
 *   k_n = HKDF-SHA-256(salt = pq_n, ikm = MLS-Exporter("qpc/v1/envelope", channel id, 32), info = label, 32)
 *
 * `position` is the log entry whose commit began the sender's epoch: it says which key opens the envelope, and shows at
 * once that a commit is missing. At most 2^24 envelopes may be sealed under one key (random nonces): count them.
 */
import { CHANNEL_ID_BYTES, Label, Misuse } from '@quicprochat/core';
import { concat, type CryptoProvider, readU64, u64 } from '@quicprochat/crypto';
import {
  ENVELOPE_BYTES_MAX,
  EnvelopeType,
  envelopeAead,
  hkdf,
  kindTravelsIn,
  type OpenOutcome,
  type PayloadKind,
  refused,
  type SealContext,
} from './envelope.ts';
import { pad, unpad } from './padding.ts';

/** Envelopes one epoch's members may seal together; the engine commits an update before it gets there. */
export const GROUP_ENVELOPES_PER_EPOCH_MAX = 2 ** 24;
/** A post-quantum salt: this many bytes, or none in post-quantum suites. */
export const PQ_SALT_LENGTH = 32;

const NONCE_LENGTH = 12;
const TAG_LENGTH = 16;
const HEADER_LENGTH = 1 + 8 + NONCE_LENGTH;
/** Bytes of a group envelope beside the padded plaintext. */
export const GROUP_OVERHEAD = HEADER_LENGTH + TAG_LENGTH;

/**
 * k_n of one epoch, 32 bytes. `exporterSecret` is `exportSecret(context, state, ExporterLabel.envelope, channelId, 32)`;
 * it is not wiped here. `pqSalt` is empty in post-quantum suites.
 */
export function deriveGroupKey(crypto: CryptoProvider, exporterSecret: Uint8Array, pqSalt: Uint8Array): Uint8Array {
  if (pqSalt.length !== 0 && pqSalt.length !== PQ_SALT_LENGTH) throw new Misuse('a post-quantum salt has 32 bytes');
  return hkdf(crypto, pqSalt, exporterSecret, Label.groupEnvelopeKey, 32);
}

export interface GroupSealing {
  /** k_n of the sender's epoch. */
  readonly key: Uint8Array;
  /** The log entry whose commit began the sender's epoch. */
  readonly position: bigint;
  readonly channelId: Uint8Array;
}

/** @throws Misuse when the kind does not travel in this envelope or the body is too long */
export function sealGroup(
  { crypto, random }: SealContext,
  { key, position, channelId }: GroupSealing,
  payloadKind: PayloadKind,
  body: Uint8Array,
): Uint8Array {
  if (!kindTravelsIn(payloadKind, EnvelopeType.Group)) throw new Misuse('kind does not travel in type 03');
  if (channelId.length !== CHANNEL_ID_BYTES) throw new Misuse('a channel id has 16 bytes');
  const plaintext = pad(payloadKind, body, GROUP_OVERHEAD);
  const nonce = random(NONCE_LENGTH);
  const header = concat(new Uint8Array([EnvelopeType.Group]), u64(position), nonce);
  const sealed = envelopeAead(crypto).seal(key, nonce, concat(header, channelId), plaintext);
  crypto.wipe(plaintext);
  return concat(header, sealed);
}

/** The position a group envelope claims, to choose the key by; undefined when it is no such envelope. */
export function groupPosition(envelope: Uint8Array): bigint | undefined {
  if (envelope.length < GROUP_OVERHEAD || envelope.length > ENVELOPE_BYTES_MAX) return undefined;
  return envelope[0] === EnvelopeType.Group ? readU64(envelope, 1) : undefined;
}

/**
 * @param key k_n of the epoch that began at `groupPosition(envelope)`
 * @param channelId the channel the envelope came on
 */
export function openGroup(
  crypto: CryptoProvider,
  { key, channelId }: { readonly key: Uint8Array; readonly channelId: Uint8Array },
  envelope: Uint8Array,
): OpenOutcome {
  if (groupPosition(envelope) === undefined || channelId.length !== CHANNEL_ID_BYTES) return refused('malformed');
  const header = envelope.subarray(0, HEADER_LENGTH);
  const nonce = header.subarray(HEADER_LENGTH - NONCE_LENGTH);
  const sealed = envelope.subarray(HEADER_LENGTH);
  const plaintext = envelopeAead(crypto).open(key, nonce, concat(header, channelId), sealed);
  if (plaintext === undefined) return refused('notAuthentic');
  const outcome = unpad(plaintext, GROUP_OVERHEAD, EnvelopeType.Group);
  crypto.wipe(plaintext);
  return outcome;
}
