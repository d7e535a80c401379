/**
 * What people say: `qpc.content.v1.Content`, the plaintext of an MLS application message. Built and parsed here with its
 * limits; the parsed form has no field the rest of the client would have to doubt, except that text is as its author
 * wrote it (strip control characters before showing it).
 */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { IDENTITY_KEY_BYTES } from '@quicprochat/core';
import { type CryptoProvider, EMPTY, encodeUtf8 } from '@quicprochat/crypto';
import { TIME_MS_MAX } from '../outside-numbers.ts';
import { type Content as ContentMessage, ContentSchema, GroupInfoSchema } from '@quicprochat/proto/content';

export const TEXT_BYTES_MAX = 32_768;
const GROUP_NAME_BYTES_MAX = 256;
export const CONTENT_ID_BYTES = 16;
/** Text, ids, hash and room for bodies of newer versions. */
export const CONTENT_BYTES_MAX = 65_536;
const HASH_BYTES = 32;

/** Names a message of the same conversation. */
interface ContentReference {
  readonly senderIdentity: Uint8Array;
  readonly contentId: Uint8Array;
}

export interface GroupInfo {
  /** Counts from 1; the highest wins. */
  readonly version: bigint;
  readonly name: string;
}

export type ContentBody =
  | { readonly kind: 'text'; readonly text: string; readonly replyTo?: ContentReference }
  | { readonly kind: 'groupInfo'; readonly groupInfo: GroupInfo };

export interface Content {
  /** 16 random bytes, unrelated to the message_id. */
  readonly contentId: Uint8Array;
  /** The author's clock, milliseconds since 1970. */
  readonly sentAtMs: number;
  /** The sending device's counter for this conversation, from 1. */
  readonly deviceCounter: bigint;
  /** `contentHash` of the sending device's previous content in this conversation; undefined for its first. */
  readonly previousHash: Uint8Array | undefined;
  readonly body: ContentBody;
}

export type BuildOutcome =
  | { readonly kind: 'built'; readonly bytes: Uint8Array }
  | {
      readonly kind: 'refused';
      readonly reason: 'emptyText' | 'textTooLong' | 'emptyName' | 'nameTooLong' | 'malformed';
    };

export type ParseOutcome =
  | { readonly kind: 'content'; readonly content: Content }
  /** Sound, but says something this version does not know: "a newer client is needed". */
  | { readonly kind: 'newer'; readonly content: Omit<Content, 'body'> }
  | { readonly kind: 'malformed' };

/** The bytes for `protectApplication`; limits are checked in UTF-8 bytes. */
export function buildContent(content: Content): BuildOutcome {
  const { body } = content;
  const problem = body.kind === 'text' ? textProblem(body.text) : groupInfoProblem(body.groupInfo);
  if (problem !== undefined) return { kind: 'refused', reason: problem };
  if (!isSoundHeader(content) || (body.kind === 'text' && body.replyTo && !isSoundReference(body.replyTo))) {
    return { kind: 'refused', reason: 'malformed' };
  }
  const bytes = toBinary(
    ContentSchema,
    create(ContentSchema, {
      contentId: content.contentId,
      sentAtMs: BigInt(content.sentAtMs),
      deviceCounter: content.deviceCounter,
      previousHash: content.previousHash ?? EMPTY,
      body:
        body.kind === 'text'
          ? { case: 'text', value: { text: body.text, ...(body.replyTo && { replyTo: body.replyTo }) } }
          : { case: 'groupInfo', value: body.groupInfo },
    }),
  );
  return { kind: 'built', bytes };
}

/** Parses what an application message said. Byte fields are copies. */
export function parseContent(bytes: Uint8Array): ParseOutcome {
  if (bytes.length > CONTENT_BYTES_MAX) return { kind: 'malformed' };
  const message = decode(bytes);
  if (message === undefined || message.sentAtMs > BigInt(Number.MAX_SAFE_INTEGER)) return { kind: 'malformed' };
  const header = {
    contentId: message.contentId.slice(),
    sentAtMs: Number(message.sentAtMs),
    deviceCounter: message.deviceCounter,
    previousHash: message.previousHash.length === 0 ? undefined : message.previousHash.slice(),
  };
  if (!isSoundHeader(header)) return { kind: 'malformed' };
  const { body } = message;
  switch (body.case) {
    case 'text': {
      const { text, replyTo } = body.value;
      if (textProblem(text) !== undefined) return { kind: 'malformed' };
      if (replyTo === undefined) return { kind: 'content', content: { ...header, body: { kind: 'text', text } } };
      const reference = { senderIdentity: replyTo.senderIdentity.slice(), contentId: replyTo.contentId.slice() };
      if (!isSoundReference(reference)) return { kind: 'malformed' };
      return { kind: 'content', content: { ...header, body: { kind: 'text', text, replyTo: reference } } };
    }
    case 'groupInfo': {
      const groupInfo = { version: body.value.version, name: body.value.name };
      if (groupInfoProblem(groupInfo) !== undefined) return { kind: 'malformed' };
      return { kind: 'content', content: { ...header, body: { kind: 'groupInfo', groupInfo } } };
    }
    default:
      return { kind: 'newer', content: header };
  }
}

/** SHA-256 of a device's content bytes, as its next content names it. */
export function contentHash(crypto: CryptoProvider, bytes: Uint8Array): Uint8Array {
  return crypto.hash('sha256', bytes);
}

/** A Welcome's metadata. Undefined when the name is too long or empty. */
export function encodeGroupInfo(groupInfo: GroupInfo): Uint8Array | undefined {
  if (groupInfoProblem(groupInfo) !== undefined) return undefined;
  return toBinary(GroupInfoSchema, create(GroupInfoSchema, groupInfo));
}

/** A Welcome's metadata read; undefined when it is malformed. */
export function decodeGroupInfo(bytes: Uint8Array): GroupInfo | undefined {
  if (bytes.length > 2 * GROUP_NAME_BYTES_MAX) return undefined;
  try {
    const { version, name } = fromBinary(GroupInfoSchema, bytes);
    return groupInfoProblem({ version, name }) === undefined ? { version, name } : undefined;
  } catch {
    return undefined;
  }
}

function decode(bytes: Uint8Array): ContentMessage | undefined {
  try {
    return fromBinary(ContentSchema, bytes);
  } catch {
    return undefined;
  }
}

function textProblem(text: string): 'emptyText' | 'textTooLong' | undefined {
  if (text.length === 0) return 'emptyText';
  return utf8Exceeds(text, TEXT_BYTES_MAX) ? 'textTooLong' : undefined;
}

function groupInfoProblem({ version, name }: GroupInfo): 'emptyName' | 'nameTooLong' | 'malformed' | undefined {
  if (version < 1n || version >= 1n << 63n) return 'malformed';
  if (name.trim().length === 0) return 'emptyName';
  return utf8Exceeds(name, GROUP_NAME_BYTES_MAX) ? 'nameTooLong' : undefined;
}

function utf8Exceeds(text: string, bytesMax: number): boolean {
  return text.length > bytesMax || encodeUtf8(text).length > bytesMax;
}

function isSoundHeader({ contentId, sentAtMs, deviceCounter, previousHash }: Omit<Content, 'body'>): boolean {
  return (
    contentId.length === CONTENT_ID_BYTES &&
    Number.isSafeInteger(sentAtMs) &&
    sentAtMs >= 0 &&
    sentAtMs <= TIME_MS_MAX &&
    deviceCounter >= 1n &&
    deviceCounter < 1n << 63n &&
    // The first has no predecessor, every other one has.
    (deviceCounter === 1n) === (previousHash === undefined) &&
    (previousHash === undefined || previousHash.length === HASH_BYTES)
  );
}

function isSoundReference({ senderIdentity, contentId }: ContentReference): boolean {
  return senderIdentity.length === IDENTITY_KEY_BYTES && contentId.length === CONTENT_ID_BYTES;
}
