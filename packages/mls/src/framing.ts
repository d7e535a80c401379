/**
 * Framing (RFC 9420 section 6). Outwards: content → FramedContent, signed → PublicMessage with membership tag, or
 * PrivateMessage under a key of the sender's ratchet. Inwards the same steps backwards. Which epoch and which keys is the
 * caller's business (process-message.ts).
 */
import { expandWithLabel, mac, refHash, signWithLabel, type Suite, verifyWithLabel } from './cipher-suites.ts';
import { decode, encode, Reader, Writer } from './codec.ts';
import { demand, violated } from './errors.ts';
import { PROPOSAL_REF } from './key-schedule.ts';
import type { RatchetKey } from './secret-tree.ts';
import {
  type Content,
  type FramedContent,
  type FramedContentAuthData,
  messageWriter,
  type PrivateMessage,
  type PublicMessage,
  readAuthData,
  readContent,
  readLeafIndex,
  writeAuthData,
  writeContent,
  writeFramedContent,
} from './structures.ts';
import { ContentType, type LeafIndex, ProtocolVersion, WireFormat } from './types.ts';

/** AuthenticatedContent, with the encoded FramedContent that signature and hashes cover. */
export interface AuthenticatedContent {
  readonly wireFormat: WireFormat;
  readonly content: FramedContent;
  readonly contentBytes: Uint8Array;
  readonly auth: FramedContentAuthData;
}

declare const verified: unique symbol;

/** A received message whose signature was verified; only `verifyContent` makes one, and nothing acts on any other. */
export interface VerifiedContent extends AuthenticatedContent {
  readonly [verified]: true;
}

/** FramedContentTBS; `groupContext` (encoded) for members and joiners by commit, undefined for proposals from outside. */
function framedContentTbs(
  wireFormat: WireFormat,
  contentBytes: Uint8Array,
  groupContext: Uint8Array | undefined,
  room = 0,
): Writer {
  const writer = new Writer(contentBytes.length + (groupContext?.length ?? 0) + 4 + room);
  writer.u16(ProtocolVersion.Mls10).u16(wireFormat).bytes(contentBytes);
  return groupContext === undefined ? writer : writer.bytes(groupContext);
}

export interface SignedContent {
  readonly wireFormat: WireFormat;
  readonly content: FramedContent;
  readonly contentBytes: Uint8Array;
  readonly signature: Uint8Array;
}

export function signContent(
  suite: Suite,
  signaturePrivateKey: Uint8Array,
  wireFormat: WireFormat,
  content: FramedContent,
  groupContext: Uint8Array | undefined,
): SignedContent {
  const contentBytes = encode(writeFramedContent, content);
  const signature = contentSignature(suite, signaturePrivateKey, wireFormat, contentBytes, groupContext);
  return { wireFormat, content, contentBytes, signature };
}

/** The signature of an application message, of which the encoded content is needed for nothing else. */
export function signApplication(
  suite: Suite,
  signaturePrivateKey: Uint8Array,
  content: FramedContent,
  groupContext: Uint8Array,
): Uint8Array {
  const writer = new Writer();
  writeFramedContent(writer, content);
  return writer.finishInto((bytes) =>
    contentSignature(suite, signaturePrivateKey, WireFormat.PrivateMessage, bytes, groupContext),
  );
}

function contentSignature(
  suite: Suite,
  signaturePrivateKey: Uint8Array,
  wireFormat: WireFormat,
  contentBytes: Uint8Array,
  groupContext: Uint8Array | undefined,
): Uint8Array {
  return framedContentTbs(wireFormat, contentBytes, groupContext).finishInto((tbs) =>
    signWithLabel(suite, signaturePrivateKey, 'FramedContentTBS', tbs),
  );
}

export function verifyContent(
  suite: Suite,
  signatureKey: Uint8Array,
  message: AuthenticatedContent,
  groupContext: Uint8Array | undefined,
  rule: 'framedSignature' | 'externalSignature' = 'framedSignature',
): VerifiedContent {
  const valid = framedContentTbs(message.wireFormat, message.contentBytes, groupContext).finishInto((tbs) =>
    verifyWithLabel(suite, signatureKey, 'FramedContentTBS', tbs, message.auth.signature),
  );
  demand(valid, rule);
  return message as VerifiedContent;
}

/** The reference of a proposal: RefHash over its AuthenticatedContent (section 5.2). */
export function proposalRef(suite: Suite, message: AuthenticatedContent): Uint8Array {
  const writer = new Writer(message.contentBytes.length + 128).u16(message.wireFormat).bytes(message.contentBytes);
  writeAuthData(writer, message.auth);
  return writer.finishInto((bytes) => refHash(suite, PROPOSAL_REF, bytes));
}

// ---- PublicMessage (section 6.2) ------------------------------------------------------------------------------------

function membershipTag(
  suite: Suite,
  membershipKey: Uint8Array,
  contentBytes: Uint8Array,
  auth: FramedContentAuthData,
  groupContext: Uint8Array,
): Uint8Array {
  const tbm = framedContentTbs(WireFormat.PublicMessage, contentBytes, groupContext, 160);
  writeAuthData(tbm, auth);
  return tbm.finishInto((bytes) => mac(suite, membershipKey, bytes));
}

export function encodePublicMessage(
  suite: Suite,
  membershipKey: Uint8Array,
  message: AuthenticatedContent,
  groupContext: Uint8Array,
): Uint8Array {
  const writer = messageWriter(WireFormat.PublicMessage, message.contentBytes.length + 256).bytes(message.contentBytes);
  writeAuthData(writer, message.auth);
  return writer.opaque(membershipTag(suite, membershipKey, message.contentBytes, message.auth, groupContext)).finish();
}

/** A PublicMessage of someone who is no member, and so has no membership tag. */
export function encodeOutsideMessage(message: AuthenticatedContent): Uint8Array {
  const writer = messageWriter(WireFormat.PublicMessage, message.contentBytes.length + 256).bytes(message.contentBytes);
  writeAuthData(writer, message.auth);
  return writer.finish();
}

/** Checks the membership tag of a member's PublicMessage; the signature is still to be verified. */
export function openPublicMessage(
  suite: Suite,
  membershipKey: Uint8Array,
  message: PublicMessage,
  groupContext: Uint8Array,
): AuthenticatedContent {
  const { content, contentBytes, auth } = message;
  demand(message.membershipTag !== undefined && message.membershipTag.length > 0, 'membershipTagPresent');
  const expected = membershipTag(suite, membershipKey, contentBytes, auth, groupContext);
  demand(suite.crypto.equal(expected, message.membershipTag), 'membershipTag');
  return { wireFormat: WireFormat.PublicMessage, content, contentBytes, auth };
}

// ---- PrivateMessage (section 6.3) -----------------------------------------------------------------------------------

export interface SealParameters {
  readonly key: RatchetKey;
  readonly senderDataSecret: Uint8Array;
  readonly leafIndex: number;
  readonly reuseGuard: Uint8Array;
  readonly paddingLength: number;
}

export function sealPrivateMessage(
  suite: Suite,
  message: Pick<AuthenticatedContent, 'content' | 'auth'>,
  parameters: SealParameters,
): Uint8Array {
  const { content } = message;
  const { key, reuseGuard } = parameters;
  const plaintext = new Writer();
  writeContent(plaintext, content.content);
  writeAuthData(plaintext, message.auth);
  plaintext.zeros(parameters.paddingLength);

  const header = 4;
  const writer = messageWriter(WireFormat.PrivateMessage, plaintext.length + 256)
    .opaque(content.groupId)
    .u64(content.epoch)
    .u8(content.content.contentType);
  const senderDataAadEnd = writer.length;
  writer.opaque(content.authenticatedData);
  const contentAadEnd = writer.length;
  const aad = writer.finish();

  const nonce = guardedNonce(key.nonce, reuseGuard);
  const ciphertext = plaintext.finishInto((bytes) =>
    suite.aead.seal(key.key, nonce, aad.subarray(header, contentAadEnd), bytes),
  );
  const senderData = new Writer().u32(parameters.leafIndex).u32(key.generation).bytes(reuseGuard).finish();
  const sealed = withSenderDataKey(suite, parameters.senderDataSecret, ciphertext, (senderKey, senderNonce) =>
    suite.aead.seal(senderKey, senderNonce, aad.subarray(header, senderDataAadEnd), senderData),
  );
  return new Writer(aad.length + sealed.length + ciphertext.length + 8)
    .bytes(aad)
    .opaque(sealed)
    .opaque(ciphertext)
    .finish();
}

function guardedNonce(nonce: Uint8Array, reuseGuard: Uint8Array): Uint8Array {
  const guarded = nonce.slice();
  for (let i = 0; i < 4; i++) guarded[i]! ^= reuseGuard[i]!;
  return guarded;
}

/** Key and nonce come from a sample of the ciphertext, so they differ for each message (section 6.3.2). */
function withSenderDataKey<T>(
  suite: Suite,
  senderDataSecret: Uint8Array,
  ciphertext: Uint8Array,
  use: (key: Uint8Array, nonce: Uint8Array) => T,
): T {
  const sample = ciphertext.subarray(0, suite.hashLength);
  const key = expandWithLabel(suite, senderDataSecret, 'key', sample, suite.aead.keyLength);
  const nonce = expandWithLabel(suite, senderDataSecret, 'nonce', sample, suite.aead.nonceLength);
  const result = use(key, nonce);
  suite.crypto.wipe(key);
  return result;
}

export interface SenderData {
  readonly leafIndex: LeafIndex;
  readonly generation: number;
  readonly reuseGuard: Uint8Array;
}

export function openSenderData(suite: Suite, senderDataSecret: Uint8Array, message: PrivateMessage): SenderData {
  const plaintext = withSenderDataKey(suite, senderDataSecret, message.ciphertext, (key, nonce) =>
    suite.aead.open(key, nonce, message.senderDataAad, message.encryptedSenderData),
  );
  if (plaintext === undefined) return violated('decryption', 'sender data');
  return decode((reader) => {
    const leafIndex = readLeafIndex(reader);
    return { leafIndex, generation: reader.u32(), reuseGuard: reader.bytes(4) };
  }, plaintext);
}

/** Decrypts and decodes; the signature is still to be verified. */
export function openPrivateMessage(
  suite: Suite,
  message: PrivateMessage,
  sender: SenderData,
  key: RatchetKey,
): AuthenticatedContent {
  const plaintext = suite.aead.open(
    key.key,
    guardedNonce(key.nonce, sender.reuseGuard),
    message.contentAad,
    message.ciphertext,
  );
  if (plaintext === undefined) return violated('decryption');
  const reader = new Reader(plaintext);
  const content: Content = readContent(reader, message.contentType);
  const encodedContent = reader.since(0);
  const auth = readAuthData(reader, message.contentType);
  demand(
    reader.rest().every((byte) => byte === 0),
    'padding',
  );
  const { groupId, epoch, authenticatedData } = message;
  const contentBytes = new Writer(message.contentAad.length + encodedContent.length + 16)
    .opaque(groupId)
    .u64(epoch)
    .u8(1)
    .u32(sender.leafIndex)
    .opaque(authenticatedData)
    .u8(message.contentType)
    .bytes(encodedContent)
    .finish();
  return {
    wireFormat: WireFormat.PrivateMessage,
    content: {
      groupId,
      epoch,
      sender: { kind: 'member', leafIndex: sender.leafIndex },
      authenticatedData,
      content,
    },
    contentBytes,
    auth,
  };
}

/** ValSem009: the tag has its place only in a commit; there an empty one counts as absent. */
export function checkConfirmationTagPresent(message: AuthenticatedContent): void {
  const isCommit = message.content.content.contentType === ContentType.Commit;
  demand(isCommit === (message.auth.confirmationTag?.length ?? 0) > 0, 'confirmationTagPresent');
}
