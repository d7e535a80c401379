/**
 * Encoding and decoding of every structure on the wire, in the order of RFC 9420. Each has `read…`, on a Reader, and
 * `write…`, on a Writer; nothing here checks more than form.
 */
import { equal } from '@quicprochat/crypto';
import type { HpkeCiphertext } from './cipher-suites.ts';
import { decode, encode, type Reader, Writer } from './codec.ts';
import { demand, violated } from './errors.ts';
import {
  type Capabilities,
  ContentType,
  type Credential,
  CredentialType,
  type Extension,
  type ExternalJoins,
  type ExternalSender,
  type GroupContext,
  type KeyPackage,
  type LeafIndex,
  type LeafNode,
  type LeafNodeSource,
  type ParentNode,
  type PreSharedKeyId,
  type Proposal,
  ProposalType,
  ProtocolVersion,
  type ReInit,
  type RequiredCapabilities,
  type Sender,
} from './types.ts';

// ---- Credentials and leaf nodes (sections 5.3, 7.2) -----------------------------------------------------------------

function readCredential(reader: Reader): Credential {
  const credentialType = reader.u16();
  if (credentialType === CredentialType.Basic) return { credentialType, identity: reader.opaque() };
  if (credentialType === CredentialType.X509) {
    return { credentialType, certificates: reader.vector((r) => r.opaque()) };
  }
  return violated('malformed', 'unknown credential type');
}

export function writeCredential(writer: Writer, credential: Credential): void {
  writer.u16(credential.credentialType);
  if (credential.credentialType === CredentialType.Basic) writer.opaque(credential.identity);
  else writer.vector(credential.certificates, (w, certificate) => w.opaque(certificate));
}

const readU16 = (reader: Reader): number => reader.u16();
const writeU16 = (writer: Writer, value: number): unknown => writer.u16(value);

let lastCapabilities: { readonly bytes: Uint8Array; readonly value: Capabilities } | undefined;

/** The members of a group mostly have the same capabilities: equal ones read one after the other share one object. */
function readCapabilities(reader: Reader): Capabilities {
  const start = reader.position;
  for (let list = 0; list < 5; list++) reader.opaqueView();
  const bytes = reader.since(start);
  if (lastCapabilities !== undefined && equal(lastCapabilities.bytes, bytes)) return lastCapabilities.value;
  const value = decode(
    (r) => ({
      versions: r.vector(readU16),
      cipherSuites: r.vector(readU16),
      extensions: r.vector(readU16),
      proposals: r.vector(readU16),
      credentials: r.vector(readU16),
    }),
    bytes,
  );
  lastCapabilities = { bytes: bytes.slice(), value };
  return value;
}

function writeCapabilities(writer: Writer, capabilities: Capabilities): void {
  writer
    .vector(capabilities.versions, writeU16)
    .vector(capabilities.cipherSuites, writeU16)
    .vector(capabilities.extensions, writeU16)
    .vector(capabilities.proposals, writeU16)
    .vector(capabilities.credentials, writeU16);
}

function readExtensions(reader: Reader): Extension[] {
  return reader.vector((r) => ({ extensionType: r.u16(), extensionData: r.opaque() }));
}

export function writeExtensions(writer: Writer, extensions: readonly Extension[]): void {
  writer.vector(extensions, (w, extension) => w.u16(extension.extensionType).opaque(extension.extensionData));
}

function readLeafNodeSource(reader: Reader): LeafNodeSource {
  switch (reader.u8()) {
    case 1:
      return { kind: 'keyPackage', lifetime: { notBefore: reader.u64(), notAfter: reader.u64() } };
    case 2:
      return { kind: 'update' };
    case 3:
      return { kind: 'commit', parentHash: reader.opaque() };
    default:
      return violated('malformed', 'unknown leaf node source');
  }
}

function writeLeafNodeSource(writer: Writer, source: LeafNodeSource): void {
  switch (source.kind) {
    case 'keyPackage':
      writer.u8(1).u64(source.lifetime.notBefore).u64(source.lifetime.notAfter);
      break;
    case 'update':
      writer.u8(2);
      break;
    case 'commit':
      writer.u8(3).opaque(source.parentHash);
  }
}

export function readLeafNode(reader: Reader): LeafNode {
  return {
    encryptionKey: reader.opaque(),
    signatureKey: reader.opaque(),
    credential: readCredential(reader),
    capabilities: readCapabilities(reader),
    source: readLeafNodeSource(reader),
    extensions: readExtensions(reader),
    signature: reader.opaque(),
  };
}

export type UnsignedLeafNode = Omit<LeafNode, 'signature'>;

function writeUnsignedLeafNode(writer: Writer, leafNode: UnsignedLeafNode): void {
  writer.opaque(leafNode.encryptionKey).opaque(leafNode.signatureKey);
  writeCredential(writer, leafNode.credential);
  writeCapabilities(writer, leafNode.capabilities);
  writeLeafNodeSource(writer, leafNode.source);
  writeExtensions(writer, leafNode.extensions);
}

export function writeLeafNode(writer: Writer, leafNode: LeafNode): void {
  writeUnsignedLeafNode(writer, leafNode);
  writer.opaque(leafNode.signature);
}

/** LeafNodeTBS. A leaf from a KeyPackage is signed without group and position. */
export function encodeLeafNodeTbs(
  leafNode: UnsignedLeafNode,
  groupId: Uint8Array,
  leafIndex: number,
  writer: Writer,
): Uint8Array {
  writeUnsignedLeafNode(writer, leafNode);
  if (leafNode.source.kind !== 'keyPackage') writer.opaque(groupId).u32(leafIndex);
  return writer.finish();
}

export function readLeafIndex(reader: Reader): LeafIndex {
  return reader.u32() as LeafIndex;
}

export function readParentNode(reader: Reader): ParentNode {
  return {
    encryptionKey: reader.opaque(),
    parentHash: reader.opaque(),
    unmergedLeaves: reader.vector(readLeafIndex),
  };
}

export function writeParentNode(writer: Writer, node: ParentNode): void {
  writer
    .opaque(node.encryptionKey)
    .opaque(node.parentHash)
    .vector(node.unmergedLeaves, (w, leaf) => w.u32(leaf));
}

// ---- KeyPackages (section 10) ---------------------------------------------------------------------------------------

function readKeyPackage(reader: Reader): KeyPackage {
  return {
    version: reader.u16(),
    cipherSuite: reader.u16(),
    initKey: reader.opaque(),
    leafNode: readLeafNode(reader),
    extensions: readExtensions(reader),
    signature: reader.opaque(),
  };
}

/** KeyPackageTBS */
export function writeUnsignedKeyPackage(writer: Writer, keyPackage: Omit<KeyPackage, 'signature'>): void {
  writer.u16(keyPackage.version).u16(keyPackage.cipherSuite).opaque(keyPackage.initKey);
  writeLeafNode(writer, keyPackage.leafNode);
  writeExtensions(writer, keyPackage.extensions);
}

export function writeKeyPackage(writer: Writer, keyPackage: KeyPackage): void {
  writeUnsignedKeyPackage(writer, keyPackage);
  writer.opaque(keyPackage.signature);
}

// ---- Group context (section 8.1) ------------------------------------------------------------------------------------

export function readGroupContext(reader: Reader): GroupContext {
  return {
    version: reader.u16(),
    cipherSuite: reader.u16(),
    groupId: reader.opaque(),
    epoch: reader.u64(),
    treeHash: reader.opaque(),
    confirmedTranscriptHash: reader.opaque(),
    extensions: readExtensions(reader),
  };
}

export function writeGroupContext(writer: Writer, context: GroupContext): void {
  writer
    .u16(context.version)
    .u16(context.cipherSuite)
    .opaque(context.groupId)
    .u64(context.epoch)
    .opaque(context.treeHash)
    .opaque(context.confirmedTranscriptHash);
  writeExtensions(writer, context.extensions);
}

export function readRequiredCapabilities(reader: Reader): RequiredCapabilities {
  return {
    extensionTypes: reader.vector(readU16),
    proposalTypes: reader.vector(readU16),
    credentialTypes: reader.vector(readU16),
  };
}

/** Data of a required_capabilities extension (RFC 9420 section 11.1). */
export function encodeRequiredCapabilities(required: RequiredCapabilities): Uint8Array {
  return encode(
    (w, each) =>
      w
        .vector(each.extensionTypes, writeU16)
        .vector(each.proposalTypes, writeU16)
        .vector(each.credentialTypes, writeU16),
    required,
  );
}

export function readExternalSenders(reader: Reader): ExternalSender[] {
  return reader.vector((r) => ({ signatureKey: r.opaque(), credential: readCredential(r) }));
}

/** Data of an external_senders extension. */
export function encodeExternalSenders(senders: readonly ExternalSender[]): Uint8Array {
  return encode(
    (w, list) =>
      w.vector(list, (inner, sender) => writeCredential(inner.opaque(sender.signatureKey), sender.credential)),
    senders,
  );
}

/** Data of our ExternalJoins extension: one byte of flags, at least one of them set. */
export function encodeExternalJoins(joins: ExternalJoins): Uint8Array {
  return new Uint8Array([(joins.commits ? 1 : 0) | (joins.proposals ? 2 : 0)]);
}

export function readExternalJoins(reader: Reader): ExternalJoins {
  const flags = reader.u8();
  if (flags < 1 || flags > 3) violated('malformed', 'external joins');
  return { commits: (flags & 1) !== 0, proposals: (flags & 2) !== 0 };
}

// ---- Proposals (section 12.1) ---------------------------------------------------------------------------------------

function readPreSharedKeyId(reader: Reader): PreSharedKeyId {
  switch (reader.u8()) {
    case 1:
      return { kind: 'external', pskId: reader.opaque(), pskNonce: reader.opaque() };
    case 2:
      return {
        kind: 'resumption',
        usage: reader.u8(),
        pskGroupId: reader.opaque(),
        pskEpoch: reader.u64(),
        pskNonce: reader.opaque(),
      };
    default:
      return violated('malformed', 'unknown PSK type');
  }
}

export function writePreSharedKeyId(writer: Writer, id: PreSharedKeyId): void {
  if (id.kind === 'external') writer.u8(1).opaque(id.pskId);
  else writer.u8(2).u8(id.usage).opaque(id.pskGroupId).u64(id.pskEpoch);
  writer.opaque(id.pskNonce);
}

export function readReInit(reader: Reader): ReInit {
  return {
    groupId: reader.opaque(),
    version: reader.u16(),
    cipherSuite: reader.u16(),
    extensions: readExtensions(reader),
  };
}

export function writeReInit(writer: Writer, { groupId, version, cipherSuite, extensions }: ReInit): void {
  writer.opaque(groupId).u16(version).u16(cipherSuite);
  writeExtensions(writer, extensions);
}

export function readProposal(reader: Reader): Proposal {
  const proposalType = reader.u16();
  switch (proposalType) {
    case ProposalType.Add:
      return { kind: 'add', keyPackage: readKeyPackage(reader) };
    case ProposalType.Update:
      return { kind: 'update', leafNode: readLeafNode(reader) };
    case ProposalType.Remove:
      return { kind: 'remove', removed: readLeafIndex(reader) };
    case ProposalType.PreSharedKey:
      return { kind: 'preSharedKey', psk: readPreSharedKeyId(reader) };
    case ProposalType.ReInit:
      return { kind: 'reInit', ...readReInit(reader) };
    case ProposalType.ExternalInit:
      return { kind: 'externalInit', kemOutput: reader.opaque() };
    case ProposalType.GroupContextExtensions:
      return { kind: 'groupContextExtensions', extensions: readExtensions(reader) };
    case 0:
      return violated('malformed', 'reserved proposal type');
    default:
      return { kind: 'custom', proposalType, data: reader.opaque() };
  }
}

export function writeProposal(writer: Writer, proposal: Proposal): void {
  switch (proposal.kind) {
    case 'add':
      writer.u16(ProposalType.Add);
      writeKeyPackage(writer, proposal.keyPackage);
      break;
    case 'update':
      writer.u16(ProposalType.Update);
      writeLeafNode(writer, proposal.leafNode);
      break;
    case 'remove':
      writer.u16(ProposalType.Remove).u32(proposal.removed);
      break;
    case 'preSharedKey':
      writer.u16(ProposalType.PreSharedKey);
      writePreSharedKeyId(writer, proposal.psk);
      break;
    case 'reInit':
      writeReInit(writer.u16(ProposalType.ReInit), proposal);
      break;
    case 'externalInit':
      writer.u16(ProposalType.ExternalInit).opaque(proposal.kemOutput);
      break;
    case 'groupContextExtensions':
      writer.u16(ProposalType.GroupContextExtensions);
      writeExtensions(writer, proposal.extensions);
      break;
    case 'custom':
      writer.u16(proposal.proposalType).opaque(proposal.data);
  }
}

// ---- Commits (sections 7.6, 12.4) -----------------------------------------------------------------------------------

export interface UpdatePathNode {
  readonly encryptionKey: Uint8Array;
  readonly encryptedPathSecret: readonly HpkeCiphertext[];
}

export interface UpdatePath {
  readonly leafNode: LeafNode;
  readonly nodes: readonly UpdatePathNode[];
}

type ProposalOrRef =
  | { readonly kind: 'proposal'; readonly proposal: Proposal }
  | { readonly kind: 'reference'; readonly reference: Uint8Array };

export interface Commit {
  readonly proposals: readonly ProposalOrRef[];
  readonly path: UpdatePath | undefined;
}

function readHpkeCiphertext(reader: Reader): HpkeCiphertext {
  return { kemOutput: reader.opaque(), ciphertext: reader.opaque() };
}

function writeHpkeCiphertext(writer: Writer, value: HpkeCiphertext): void {
  writer.opaque(value.kemOutput).opaque(value.ciphertext);
}

export function readUpdatePath(reader: Reader): UpdatePath {
  return {
    leafNode: readLeafNode(reader),
    nodes: reader.vector((r) => ({
      encryptionKey: r.opaque(),
      encryptedPathSecret: r.vector(readHpkeCiphertext),
    })),
  };
}

function writeUpdatePath(writer: Writer, path: UpdatePath): void {
  writeLeafNode(writer, path.leafNode);
  writer.vector(path.nodes, (w, node) =>
    w.opaque(node.encryptionKey).vector(node.encryptedPathSecret, writeHpkeCiphertext),
  );
}

export function readCommit(reader: Reader): Commit {
  return {
    proposals: reader.vector((r): ProposalOrRef => {
      const type = r.u8();
      if (type === 1) return { kind: 'proposal', proposal: readProposal(r) };
      if (type === 2) return { kind: 'reference', reference: r.opaque() };
      return violated('malformed', 'neither proposal nor reference');
    }),
    path: reader.optional(readUpdatePath),
  };
}

export function writeCommit(writer: Writer, commit: Commit): void {
  writer
    .vector(commit.proposals, (w, each) => {
      if (each.kind === 'proposal') writeProposal(w.u8(1), each.proposal);
      else w.u8(2).opaque(each.reference);
    })
    .optional(commit.path, writeUpdatePath);
}

// ---- GroupInfo and Welcome (sections 12.4.3, 12.4.3.1) --------------------------------------------------------------

export interface GroupInfo {
  readonly groupContext: GroupContext;
  readonly extensions: readonly Extension[];
  readonly confirmationTag: Uint8Array;
  readonly signer: LeafIndex;
  readonly signature: Uint8Array;
}

export function readGroupInfo(reader: Reader): GroupInfo {
  return {
    groupContext: readGroupContext(reader),
    extensions: readExtensions(reader),
    confirmationTag: reader.opaque(),
    signer: readLeafIndex(reader),
    signature: reader.opaque(),
  };
}

/** GroupInfoTBS */
export function writeUnsignedGroupInfo(writer: Writer, groupInfo: Omit<GroupInfo, 'signature'>): void {
  writeGroupContext(writer, groupInfo.groupContext);
  writeExtensions(writer, groupInfo.extensions);
  writer.opaque(groupInfo.confirmationTag).u32(groupInfo.signer);
}

export function writeGroupInfo(writer: Writer, groupInfo: GroupInfo): void {
  writeUnsignedGroupInfo(writer, groupInfo);
  writer.opaque(groupInfo.signature);
}

export interface GroupSecrets {
  readonly joinerSecret: Uint8Array;
  readonly pathSecret: Uint8Array | undefined;
  readonly psks: readonly PreSharedKeyId[];
}

export function readGroupSecrets(reader: Reader): GroupSecrets {
  return {
    joinerSecret: reader.opaque(),
    pathSecret: reader.optional((r) => r.opaque()),
    psks: reader.vector(readPreSharedKeyId),
  };
}

export function writeGroupSecrets(writer: Writer, secrets: GroupSecrets): void {
  writer
    .opaque(secrets.joinerSecret)
    .optional(secrets.pathSecret, (w, secret) => w.opaque(secret))
    .vector(secrets.psks, writePreSharedKeyId);
}

interface EncryptedGroupSecrets {
  readonly newMember: Uint8Array;
  readonly encryptedGroupSecrets: HpkeCiphertext;
}

export interface Welcome {
  readonly cipherSuite: number;
  readonly secrets: readonly EncryptedGroupSecrets[];
  readonly encryptedGroupInfo: Uint8Array;
}

function readWelcome(reader: Reader): Welcome {
  return {
    cipherSuite: reader.u16(),
    secrets: reader.vector((r) => ({
      newMember: r.opaque(),
      encryptedGroupSecrets: readHpkeCiphertext(r),
    })),
    encryptedGroupInfo: reader.opaque(),
  };
}

export function writeWelcome(writer: Writer, welcome: Welcome): void {
  writer
    .u16(welcome.cipherSuite)
    .vector(welcome.secrets, (w, each) => {
      w.opaque(each.newMember);
      writeHpkeCiphertext(w, each.encryptedGroupSecrets);
    })
    .opaque(welcome.encryptedGroupInfo);
}

// ---- Framing (section 6) --------------------------------------------------------------------------------------------

export function readSender(reader: Reader): Sender {
  switch (reader.u8()) {
    case 1:
      return { kind: 'member', leafIndex: readLeafIndex(reader) };
    case 2:
      return { kind: 'external', senderIndex: reader.u32() };
    case 3:
      return { kind: 'newMemberProposal' };
    case 4:
      return { kind: 'newMemberCommit' };
    default:
      return violated('malformed', 'unknown sender type');
  }
}

export function writeSender(writer: Writer, sender: Sender): void {
  switch (sender.kind) {
    case 'member':
      writer.u8(1).u32(sender.leafIndex);
      break;
    case 'external':
      writer.u8(2).u32(sender.senderIndex);
      break;
    case 'newMemberProposal':
      writer.u8(3);
      break;
    case 'newMemberCommit':
      writer.u8(4);
  }
}

function readContentType(reader: Reader): ContentType {
  const type = reader.u8();
  if (type < ContentType.Application || type > ContentType.Commit) violated('malformed', 'unknown content type');
  return type as ContentType;
}

export type Content =
  | { readonly contentType: 1; readonly applicationData: Uint8Array }
  | { readonly contentType: 2; readonly proposal: Proposal }
  | { readonly contentType: 3; readonly commit: Commit };

/** The part of FramedContent and PrivateMessageContent that depends on the content type. */
export function readContent(reader: Reader, contentType: ContentType): Content {
  switch (contentType) {
    case ContentType.Application:
      return { contentType, applicationData: reader.opaque() };
    case ContentType.Proposal:
      return { contentType, proposal: readProposal(reader) };
    case ContentType.Commit:
      return { contentType, commit: readCommit(reader) };
  }
}

export function writeContent(writer: Writer, content: Content): void {
  switch (content.contentType) {
    case ContentType.Application:
      writer.opaque(content.applicationData);
      break;
    case ContentType.Proposal:
      writeProposal(writer, content.proposal);
      break;
    case ContentType.Commit:
      writeCommit(writer, content.commit);
  }
}

export interface FramedContent {
  readonly groupId: Uint8Array;
  readonly epoch: bigint;
  readonly sender: Sender;
  readonly authenticatedData: Uint8Array;
  readonly content: Content;
}

export function readFramedContent(reader: Reader): FramedContent {
  const groupId = reader.opaque();
  const epoch = reader.u64();
  const sender = readSender(reader);
  const authenticatedData = reader.opaque();
  const contentType = readContentType(reader);
  return { groupId, epoch, sender, authenticatedData, content: readContent(reader, contentType) };
}

export function writeFramedContent(writer: Writer, framed: FramedContent): void {
  writer.opaque(framed.groupId).u64(framed.epoch);
  writeSender(writer, framed.sender);
  writer.opaque(framed.authenticatedData).u8(framed.content.contentType);
  writeContent(writer, framed.content);
}

export interface FramedContentAuthData {
  readonly signature: Uint8Array;
  /** Of a commit, else undefined. */
  readonly confirmationTag: Uint8Array | undefined;
}

export function readAuthData(reader: Reader, contentType: ContentType): FramedContentAuthData {
  const signature = reader.opaque();
  if (contentType !== ContentType.Commit) return { signature, confirmationTag: undefined };
  return { signature, confirmationTag: reader.opaque() };
}

export function writeAuthData(writer: Writer, auth: FramedContentAuthData): void {
  writer.opaque(auth.signature);
  if (auth.confirmationTag !== undefined) writer.opaque(auth.confirmationTag);
}

export interface PublicMessage {
  readonly content: FramedContent;
  readonly contentBytes: Uint8Array;
  readonly auth: FramedContentAuthData;
  readonly membershipTag: Uint8Array | undefined;
}

function readPublicMessage(reader: Reader): PublicMessage {
  const start = reader.position;
  const content = readFramedContent(reader);
  const contentBytes = reader.since(start);
  const auth = readAuthData(reader, content.content.contentType);
  const membershipTag = content.sender.kind === 'member' ? reader.opaque() : undefined;
  return { content, contentBytes, auth, membershipTag };
}

export interface PrivateMessage {
  readonly groupId: Uint8Array;
  readonly epoch: bigint;
  readonly contentType: ContentType;
  readonly authenticatedData: Uint8Array;
  readonly encryptedSenderData: Uint8Array;
  readonly ciphertext: Uint8Array;
  /** SenderDataAAD and PrivateContentAAD: both are the beginning of the message itself. */
  readonly senderDataAad: Uint8Array;
  readonly contentAad: Uint8Array;
}

/** The byte strings are views of the message. */
function readPrivateMessage(reader: Reader): PrivateMessage {
  const start = reader.position;
  const groupId = reader.opaqueView();
  const epoch = reader.u64();
  const contentType = readContentType(reader);
  const senderDataAad = reader.since(start);
  const authenticatedData = reader.opaqueView();
  const contentAad = reader.since(start);
  const encryptedSenderData = reader.opaqueView();
  const ciphertext = reader.opaqueView();
  return {
    groupId,
    epoch,
    contentType,
    authenticatedData,
    encryptedSenderData,
    ciphertext,
    senderDataAad,
    contentAad,
  };
}

export type MlsMessage =
  | { readonly wireFormat: 1; readonly publicMessage: PublicMessage }
  | { readonly wireFormat: 2; readonly privateMessage: PrivateMessage }
  | { readonly wireFormat: 3; readonly welcome: Welcome }
  | { readonly wireFormat: 4; readonly groupInfo: GroupInfo }
  | { readonly wireFormat: 5; readonly keyPackage: KeyPackage };

export function readMlsMessage(reader: Reader): MlsMessage {
  demand(reader.u16() === ProtocolVersion.Mls10, 'protocolVersion');
  const wireFormat = reader.u16();
  switch (wireFormat) {
    case 1:
      return { wireFormat, publicMessage: readPublicMessage(reader) };
    case 2:
      return { wireFormat, privateMessage: readPrivateMessage(reader) };
    case 3:
      return { wireFormat, welcome: readWelcome(reader) };
    case 4:
      return { wireFormat, groupInfo: readGroupInfo(reader) };
    case 5:
      return { wireFormat, keyPackage: readKeyPackage(reader) };
    default:
      return violated('wireFormat');
  }
}

/** Version and wire format of an MLSMessage; the body follows. */
export function messageWriter(wireFormat: number, sizeHint?: number): Writer {
  return new Writer(sizeHint).u16(ProtocolVersion.Mls10).u16(wireFormat);
}
