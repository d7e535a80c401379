/**
 * The body of a payload of kind Handshake: one entry of a channel's commit log (PROTOCOL sections 5 and 9). Any number of
 * proposals, then at most one commit; the commit refers to no proposal that is not here or in an earlier entry.
 *
 *   01 ‖ proposals u16 ‖ commits u8 (0 or 1) ‖ (length u32 ‖ MLSMessage) × (proposals + commits)
 *
 * A ReInit comes with the group it opens (PROTOCOL section 9):
 *
 *   02 ‖ length u32 ‖ MLSMessage(commit) ‖ tree reference<u8> (tree-reference.ts; or empty) ‖ MLSMessage(Welcome)
 *
 * Every message but that Welcome is an MLS 1.0 PrivateMessage whose content type, which PrivateMessage carries in clear (RFC 9420 section
 * 6.3), is what its place says. PublicMessage does not occur in our groups.
 */
import { Misuse } from '@quicprochat/core';
import { concat, EMPTY, u16, u32 } from '@quicprochat/crypto';
import { ByteReader } from './byte-reader.ts';
import { mlsWireFormat, mlsWireFormatOf, PayloadKind } from './envelope.ts';
import { decodeTreeReference, encodeTreeReference, isTreeReference, type TreeReference } from './tree-reference.ts';

const VERSION = 1;
const VERSION_REINIT = 2;
export const BUNDLE_PROPOSALS_MAX = 1024;
const CONTENT_TYPE_PROPOSAL = 2;
const CONTENT_TYPE_COMMIT = 3;
const GROUP_ID_BYTES_MAX = 255;

export interface HandshakeBundle {
  /** MLSMessages with content type proposal, in the order to process them. */
  readonly proposals: readonly Uint8Array[];
  /** MLSMessage with content type commit. */
  readonly commit: Uint8Array | undefined;
  /** The group that the commit's ReInit opens; then there are no proposals. */
  readonly successor?: Successor;
}

interface Successor {
  /** Where the tree is, when it is not in the Welcome. */
  readonly tree: TreeReference | undefined;
  /** MLSMessage with wire format mls_welcome, for all members but the committer. */
  readonly welcome: Uint8Array;
}

/** @throws Misuse when the bundle is empty, has too many proposals, or a message is not what its place says */
export function encodeHandshakeBundle(bundle: HandshakeBundle): Uint8Array {
  if (!isWellFormed(bundle)) throw new Misuse('malformed handshake bundle');
  const { successor, commit } = bundle;
  if (successor !== undefined && commit !== undefined) {
    const tree = successor.tree === undefined ? EMPTY : encodeTreeReference(successor.tree);
    const version = new Uint8Array([VERSION_REINIT]);
    return concat(version, u32(commit.length), commit, new Uint8Array([tree.length]), tree, successor.welcome);
  }
  const messages = bundle.commit === undefined ? bundle.proposals : [...bundle.proposals, bundle.commit];
  return concat(
    new Uint8Array([VERSION]),
    u16(bundle.proposals.length),
    new Uint8Array([bundle.commit === undefined ? 0 : 1]),
    ...messages.flatMap((message) => [u32(message.length), message]),
  );
}

/** The messages, or undefined when the layout is another. Nothing in it is verified. */
export function decodeHandshakeBundle(bytes: Uint8Array): HandshakeBundle | undefined {
  const reader = new ByteReader(bytes);
  const version = reader.u8();
  if (version === VERSION_REINIT) return decodeReInit(reader);
  if (version !== VERSION) return undefined;
  const count = reader.u16();
  const commits = reader.u8();
  // Every message costs at least its length field.
  if (count > BUNDLE_PROPOSALS_MAX || commits > 1 || (count + commits) * 4 > reader.remaining) return undefined;
  const proposals: Uint8Array[] = [];
  for (let i = 0; i < count; i++) proposals.push(reader.take(reader.u32()));
  const bundle = { proposals, commit: commits === 1 ? reader.take(reader.u32()) : undefined };
  return reader.complete && isWellFormed(bundle) ? bundle : undefined;
}

function decodeReInit(reader: ByteReader): HandshakeBundle | undefined {
  const commit = reader.take(reader.u32());
  const encodedTree = reader.take(reader.u8());
  const welcome = reader.rest();
  const tree = encodedTree.length === 0 ? undefined : decodeTreeReference(encodedTree);
  if (!reader.complete || (encodedTree.length > 0 && tree === undefined)) return undefined;
  const bundle = { proposals: [], commit, successor: { tree, welcome } };
  return isWellFormed(bundle) ? bundle : undefined;
}

function isWellFormed({ proposals, commit, successor }: HandshakeBundle): boolean {
  if (proposals.length > BUNDLE_PROPOSALS_MAX) return false;
  if (proposals.length === 0 && commit === undefined) return false;
  if (successor !== undefined) {
    if (proposals.length > 0 || commit === undefined) return false;
    if (mlsWireFormat(successor.welcome) !== mlsWireFormatOf(PayloadKind.Welcome)) return false;
    if (successor.tree !== undefined && !isTreeReference(successor.tree)) return false;
  }
  return (
    proposals.every((message) => privateMessageContentType(message) === CONTENT_TYPE_PROPOSAL) &&
    (commit === undefined || privateMessageContentType(commit) === CONTENT_TYPE_COMMIT)
  );
}

/** The content type of MLSMessage(PrivateMessage), read from its clear header; undefined when it is something else. */
export function privateMessageContentType(message: Uint8Array): number | undefined {
  const reader = new ByteReader(message);
  if (reader.u16() !== 1 || reader.u16() !== mlsWireFormatOf(PayloadKind.Handshake)) return undefined;
  const groupIdLength = reader.varint();
  if (groupIdLength > GROUP_ID_BYTES_MAX) return undefined;
  reader.take(groupIdLength);
  reader.u64(); // epoch
  const contentType = reader.u8();
  return reader.remaining > 0 ? contentType : undefined;
}
