/**
 * What the three sealed envelopes have in common (PROTOCOL section 4): the type byte, the outcomes of opening, the kinds
 * a payload may have, and which kind may travel how.
 *
 *   sealing: body → kind and length → padding (padding.ts) → envelope-direct.ts | envelope-shared.ts | envelope-group.ts
 *   opening: the same backwards; whatever was not made exactly so is `refused`, never an exception
 */
import { AeadId, type Aead, type CryptoProvider, readU16 } from '@quicprochat/crypto';

/** First byte of an envelope. */
export const EnvelopeType = {
  /** For one device. */
  Direct: 0x01,
  /** For several devices without a common group: one body, a wrapped content key each. */
  Shared: 0x02,
  /** For the members of a group. */
  Group: 0x03,
} as const;
export type EnvelopeType = (typeof EnvelopeType)[keyof typeof EnvelopeType];

/** First byte of the plaintext. */
export const PayloadKind = {
  /** welcome-body.ts */
  Welcome: 1,
  /** handshake-bundle.ts: an entry of a commit log. */
  Handshake: 2,
  /** MLSMessage(PrivateMessage) with application data. */
  Application: 3,
  /** rejoin.ts */
  Rejoin: 4,
  /** Device linking. */
  Link: 5,
  /** The 32 bytes of a new post-quantum salt, beside the commit that begins to use it. */
  PqRenewal: 6,
} as const;
export type PayloadKind = (typeof PayloadKind)[keyof typeof PayloadKind];

/** Largest envelope: the last bucket that leaves room for the rest of a request of 4 MiB. */
export const ENVELOPE_BYTES_MAX = 4 * 1024 * 1024 - 64 * 1024;

/** What sealing needs from the world; `MlsContext` fits. */
export interface SealContext {
  readonly crypto: CryptoProvider;
  /** Cryptographically random bytes; in production `crypto.random`. The KEM draws its own. */
  readonly random: (length: number) => Uint8Array;
}

/**
 * `malformed`: wrong length, type byte or layout. `notAuthentic`: not sealed with this key, for this recipient, channel
 * and position. `commitment`: the content key is not the one the envelope commits to. `padding`: not padded as section 4
 * says. `kind`: a payload of this kind does not travel in this type of envelope.
 */
export type EnvelopeRefusal = 'malformed' | 'notAuthentic' | 'commitment' | 'padding' | 'kind';

export interface EnvelopeRefused {
  readonly kind: 'refused';
  readonly reason: EnvelopeRefusal;
}

interface EnvelopeOpened {
  readonly kind: 'opened';
  readonly payloadKind: PayloadKind;
  /** A copy, not a view of what was received. */
  readonly body: Uint8Array;
}

export type OpenOutcome = EnvelopeOpened | EnvelopeRefused;

/** The type of an envelope from outside; undefined when it is none of ours. */
export function envelopeType(envelope: Uint8Array): EnvelopeType | undefined {
  const type = envelope[0];
  return type === EnvelopeType.Direct || type === EnvelopeType.Shared || type === EnvelopeType.Group ? type : undefined;
}

/**
 * How an envelope came out of an inbox row (`qpc.v1.Envelope`): `logEntry` = `data` of a row with `entry`; `pqRenewal` =
 * the renewal beside it; `message` = `data` of any other row. It follows from the RPC it was sent with: SubmitCommit for
 * the first two; for the third BatchEnqueue, Enqueue or, for a Welcome, SubmitCommit.
 */
export type Delivery = 'logEntry' | 'pqRenewal' | 'message';

const MLS_PRIVATE_MESSAGE = 2;
const MLS_WELCOME = 3;

interface KindRule {
  readonly envelopeTypes: readonly EnvelopeType[];
  readonly delivery: Delivery;
  /** Wire format of the MLSMessages inside; undefined where there are none. */
  readonly mlsWireFormat: number | undefined;
}

const KIND_RULES: Readonly<Record<PayloadKind, KindRule>> = {
  [PayloadKind.Welcome]: {
    envelopeTypes: [EnvelopeType.Direct, EnvelopeType.Shared],
    delivery: 'message',
    mlsWireFormat: MLS_WELCOME,
  },
  [PayloadKind.Handshake]: {
    envelopeTypes: [EnvelopeType.Group],
    delivery: 'logEntry',
    mlsWireFormat: MLS_PRIVATE_MESSAGE,
  },
  [PayloadKind.Application]: {
    envelopeTypes: [EnvelopeType.Group],
    delivery: 'message',
    mlsWireFormat: MLS_PRIVATE_MESSAGE,
  },
  [PayloadKind.Rejoin]: { envelopeTypes: [EnvelopeType.Direct], delivery: 'message', mlsWireFormat: undefined },
  [PayloadKind.Link]: { envelopeTypes: [EnvelopeType.Direct], delivery: 'message', mlsWireFormat: undefined },
  [PayloadKind.PqRenewal]: { envelopeTypes: [EnvelopeType.Shared], delivery: 'pqRenewal', mlsWireFormat: undefined },
};

export function isPayloadKind(value: number): value is PayloadKind {
  return value >= PayloadKind.Welcome && value <= PayloadKind.PqRenewal;
}

export function kindTravelsIn(payloadKind: PayloadKind, type: EnvelopeType): boolean {
  return KIND_RULES[payloadKind].envelopeTypes.includes(type);
}

/**
 * Whether kind, envelope type, RPC and MLS wire format agree. Openers and decoders below check the envelope type and the
 * wire format on their own; the receiver calls this with what it knows of the row.
 * @param mlsMessage the MLSMessage inside, where the kind has one
 */
export function kindAgrees(
  payloadKind: PayloadKind,
  type: EnvelopeType,
  delivery: Delivery,
  mlsMessage?: Uint8Array,
): boolean {
  const rule = KIND_RULES[payloadKind];
  return (
    rule.envelopeTypes.includes(type) &&
    rule.delivery === delivery &&
    (mlsMessage === undefined || mlsWireFormat(mlsMessage) === rule.mlsWireFormat)
  );
}

/** Wire format of an MLSMessage of MLS 1.0 (RFC 9420 section 6); undefined when it is none. */
export function mlsWireFormat(message: Uint8Array): number | undefined {
  return message.length >= 4 && readU16(message) === 1 ? readU16(message, 2) : undefined;
}

/** Wire format MLSMessages inside this kind must have. */
export function mlsWireFormatOf(payloadKind: PayloadKind): number | undefined {
  return KIND_RULES[payloadKind].mlsWireFormat;
}

export function refused(reason: EnvelopeRefusal): EnvelopeRefused {
  return { kind: 'refused', reason };
}

export function envelopeAead(crypto: CryptoProvider): Aead {
  return crypto.aead(AeadId.Aes256Gcm);
}

/** HKDF-SHA-256 (RFC 5869), its pseudorandom key wiped. */
export function hkdf(
  crypto: CryptoProvider,
  salt: Uint8Array,
  ikm: Uint8Array,
  info: Uint8Array,
  length: number,
): Uint8Array {
  const prk = crypto.hkdfExtract('sha256', salt, ikm);
  const out = crypto.hkdfExpand('sha256', prk, info, length);
  crypto.wipe(prk);
  return out;
}
