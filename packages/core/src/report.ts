/**
 * Reports to the operator (DESIGN 4, ReportMessage): sealed to a key whose private half lies outside the server's
 * database, so that neither the server nor a thief of its disk reads who complains about whom.
 *
 *   report     01 ‖ key id 8 ‖ enc 1120 ‖ HPKE-sealed plaintext
 *              HPKE base mode, X-Wing, HKDF-SHA-256, AES-256-GCM; info = label ‖ length u8 ‖ origin; aad = channel id 16
 *   plaintext  length u32 ‖ body ‖ signature 64 ‖ zeros, so that the whole has 1 KiB doubling to 64 KiB, or 120 KiB
 *   signature  by the reporter's device key over label ‖ length u8 ‖ origin ‖ channel id 16 ‖ SHA-256(body)
 *   body       reporter: username, IK 32, device id 16 ‖ time u64 ms ‖ reason ‖ count u8
 *              ‖ per message: sender's username, IK 32 ‖ content id 16 ‖ time u64 ms ‖ text
 *              (names behind a length byte, reason and text behind a u16)
 *
 * Key id = first 8 bytes of SHA-256(report key). The signature shows which device reports; what it says about others is
 * the reporter's word.
 */
import {
  AeadId,
  concat,
  createHpke,
  decodeUtf8,
  encodeUtf8,
  equal,
  KdfId,
  KemId,
  readU16,
  readU32,
  SignatureSchemeId,
  u16,
  u32,
  u64,
} from '@quicprochat/crypto';
import type { CryptoProvider, Hpke, KeyPair } from '@quicprochat/crypto';
import { BadInput } from './errors.ts';
import { CHANNEL_ID_BYTES, DEVICE_ID_BYTES, encodeAddress, IDENTITY_KEY_BYTES } from './identity.ts';
import type { DeviceAddress } from './identity.ts';
import { Label } from './labels.ts';
import { FieldReader, lengthPrefixedText, SIGNATURE_BYTES } from './statement.ts';

export const REPORT_KEY_BYTES = 1216;
export const REPORT_PRIVATE_KEY_BYTES = 32;
export const REPORT_KEY_ID_BYTES = 8;
export const REPORTED_MESSAGES_MAX = 50;
/** Of the reporter's own words, UTF-8. */
export const REPORT_REASON_BYTES_MAX = 2_000;

const VERSION = 1;
const CONTENT_ID_BYTES = 16;
const LONG_TEXT_BYTES_MAX = 65_535;
const LENGTH_BYTES = 4;
const BUCKET_MIN = 1_024;
const BUCKET_DOUBLING_MAX = 65_536;
const BUCKET_MAX = 122_880;
const BODY_BYTES_MAX = BUCKET_MAX - LENGTH_BYTES - SIGNATURE_BYTES;

/** One message as the reporter's device has it. */
export interface ReportedMessage {
  readonly senderUsername: string;
  readonly senderIdentity: Uint8Array;
  /** 16 bytes. */
  readonly contentId: Uint8Array;
  /** The author's clock, milliseconds since 1970. */
  readonly sentAtMs: number;
  readonly text: string;
}

export interface ReportContent {
  readonly reporterUsername: string;
  readonly reporter: DeviceAddress;
  /** The reporter's clock, milliseconds since 1970. */
  readonly reportedAtMs: number;
  /** What is wrong, in the reporter's words. */
  readonly reason: string;
  readonly messages: readonly ReportedMessage[];
}

export interface SealReport {
  /** The operator's, from Health. */
  readonly reportKey: Uint8Array;
  readonly origin: string;
  /** The conversation reported, 16 bytes; the server sees it too. */
  readonly channelId: Uint8Array;
  readonly content: ReportContent;
  readonly devicePrivateKey: Uint8Array;
}

export interface OpenReport {
  readonly reportPrivateKey: Uint8Array;
  readonly origin: string;
  /** As the server names it beside the report. */
  readonly channelId: Uint8Array;
  readonly report: Uint8Array;
}

export type OpenReportOutcome =
  | {
      readonly kind: 'opened';
      readonly content: ReportContent;
      /** Whether this device key made it. Nobody knows yet whose key that is. */
      readonly isSignedBy: (deviceKey: Uint8Array) => boolean;
    }
  /** Sealed to another key. */
  | { readonly kind: 'other_key'; readonly keyId: Uint8Array }
  | { readonly kind: 'malformed' };

/** A key pair for reports: the private half is a 32-byte seed. */
export function generateReportKey(crypto: CryptoProvider): KeyPair {
  const privateKey = crypto.random(REPORT_PRIVATE_KEY_BYTES);
  return { privateKey, publicKey: crypto.kem(KemId.XWing).publicKey(privateKey) };
}

export function reportPublicKey(crypto: CryptoProvider, privateKey: Uint8Array): Uint8Array {
  return crypto.kem(KemId.XWing).publicKey(privateKey);
}

export function isReportKey(crypto: CryptoProvider, publicKey: Uint8Array): boolean {
  return publicKey.length === REPORT_KEY_BYTES && crypto.kem(KemId.XWing).isPublicKey(publicKey);
}

export function reportKeyId(crypto: CryptoProvider, publicKey: Uint8Array): Uint8Array {
  return crypto.hash('sha256', publicKey).slice(0, REPORT_KEY_ID_BYTES);
}

/** @throws BadInput when the key is none, or the report is too long */
export function sealReport(crypto: CryptoProvider, seal: SealReport): Uint8Array {
  const { reportKey, origin, channelId } = seal;
  if (!isReportKey(crypto, reportKey)) throw new BadInput('the operator’s report key is malformed');
  const body = encodeContent(seal.content);
  if (body.length > BODY_BYTES_MAX) throw new BadInput('the report is too long', 'Report fewer messages at once.');
  const signature = crypto
    .signature(SignatureSchemeId.Ed25519)
    .sign(seal.devicePrivateKey, signedBytes(crypto, origin, channelId, body));
  const plaintext = new Uint8Array(bucketOf(LENGTH_BYTES + body.length + SIGNATURE_BYTES));
  plaintext.set(concat(u32(body.length), body, signature));
  const { enc, ciphertext } = hpkeOf(crypto).sealBase(reportKey, infoOf(origin), channelId, plaintext);
  crypto.wipe(plaintext);
  return concat(new Uint8Array([VERSION]), reportKeyId(crypto, reportKey), enc, ciphertext);
}

export function openReport(crypto: CryptoProvider, open: OpenReport): OpenReportOutcome {
  const { reportPrivateKey, origin, channelId, report } = open;
  const hpke = hpkeOf(crypto);
  const keyId = report.slice(1, 1 + REPORT_KEY_ID_BYTES);
  const ciphertextAt = 1 + REPORT_KEY_ID_BYTES + hpke.kem.encLength;
  if (report[0] !== VERSION || report.length < ciphertextAt || channelId.length !== CHANNEL_ID_BYTES) {
    return { kind: 'malformed' };
  }
  if (!equal(keyId, reportKeyId(crypto, reportPublicKey(crypto, reportPrivateKey))))
    return { kind: 'other_key', keyId };
  const enc = report.subarray(1 + REPORT_KEY_ID_BYTES, ciphertextAt);
  const sealed = report.subarray(ciphertextAt);
  const plaintext = hpke.openBase(reportPrivateKey, enc, infoOf(origin), channelId, sealed);
  if (plaintext === undefined) return { kind: 'malformed' };
  if (plaintext.length < BUCKET_MIN) return { kind: 'malformed' };
  const length = readU32(plaintext);
  const end = LENGTH_BYTES + length + SIGNATURE_BYTES;
  if (end > plaintext.length || bucketOf(end) !== plaintext.length) return { kind: 'malformed' };
  if (plaintext.subarray(end).some((byte) => byte !== 0)) return { kind: 'malformed' };
  const body = plaintext.slice(LENGTH_BYTES, LENGTH_BYTES + length);
  const signature = plaintext.slice(LENGTH_BYTES + length, end);
  const content = parseContent(body);
  if (content === undefined) return { kind: 'malformed' };
  const signed = signedBytes(crypto, origin, channelId, body);
  return {
    kind: 'opened',
    content,
    isSignedBy: (deviceKey) => crypto.signature(SignatureSchemeId.Ed25519).verify(deviceKey, signed, signature),
  };
}

/** @throws BadInput when there is too much of something */
function encodeContent(content: ReportContent): Uint8Array {
  const { reporterUsername, reporter, reportedAtMs, reason, messages } = content;
  if (messages.length > REPORTED_MESSAGES_MAX) {
    throw new BadInput(`a report has at most ${REPORTED_MESSAGES_MAX} messages`, 'Report fewer messages at once.');
  }
  if (encodeUtf8(reason).length > REPORT_REASON_BYTES_MAX) {
    throw new BadInput(`the reason has at most ${REPORT_REASON_BYTES_MAX} bytes`, 'Say it shorter.');
  }
  return concat(
    lengthPrefixedText(reporterUsername),
    encodeAddress(reporter),
    u64(BigInt(reportedAtMs)),
    longText(reason),
    new Uint8Array([messages.length]),
    ...messages.flatMap(({ senderUsername, senderIdentity, contentId, sentAtMs, text }) => [
      lengthPrefixedText(senderUsername),
      senderIdentity,
      contentId,
      u64(BigInt(sentAtMs)),
      longText(text),
    ]),
  );
}

function longText(text: string): Uint8Array {
  const bytes = encodeUtf8(text);
  if (bytes.length > LONG_TEXT_BYTES_MAX) throw new BadInput('a message is too long to be reported');
  return concat(u16(bytes.length), bytes);
}

function parseContent(body: Uint8Array): ReportContent | undefined {
  const reader = new FieldReader(body);
  let isText = true;
  const readLongText = (): string => {
    const text = decodeUtf8(reader.take(readU16(reader.take(2))));
    isText &&= text !== undefined;
    return text ?? '';
  };
  const head = {
    reporterUsername: reader.text(),
    reporter: { identityKey: reader.take(IDENTITY_KEY_BYTES), deviceId: reader.take(DEVICE_ID_BYTES) },
    reportedAtMs: reader.time(),
    reason: readLongText(),
  };
  const count = reader.u8();
  if (count > REPORTED_MESSAGES_MAX) return undefined;
  const messages: ReportedMessage[] = [];
  for (let i = 0; i < count; i++) {
    messages.push({
      senderUsername: reader.text(),
      senderIdentity: reader.take(IDENTITY_KEY_BYTES),
      contentId: reader.take(CONTENT_ID_BYTES),
      sentAtMs: reader.time(),
      text: readLongText(),
    });
  }
  return reader.complete && isText ? { ...head, messages } : undefined;
}

function bucketOf(bytes: number): number {
  let bucket = BUCKET_MIN;
  while (bucket < bytes && bucket < BUCKET_DOUBLING_MAX) bucket *= 2;
  return bytes <= bucket ? bucket : BUCKET_MAX;
}

function hpkeOf(crypto: CryptoProvider): Hpke {
  return createHpke(crypto, { kem: KemId.XWing, kdf: KdfId.HkdfSha256, aead: AeadId.Aes256Gcm });
}

function infoOf(origin: string): Uint8Array {
  return concat(Label.reportSeal, lengthPrefixedText(origin));
}

function signedBytes(crypto: CryptoProvider, origin: string, channelId: Uint8Array, body: Uint8Array): Uint8Array {
  return concat(Label.reportSignature, lengthPrefixedText(origin), channelId, crypto.hash('sha256', body));
}
