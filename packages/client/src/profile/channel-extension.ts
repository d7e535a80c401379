/**
 * The GroupContext extension `qpc.channel` (PROTOCOL section 9): which channel this group belongs to, and who may do what
 * in it. It binds the MLS group to the conversation; a Welcome whose extension names another channel is refused.
 *
 *   version u8 = 1 ‖ channel id 16 ‖ kind u8 ‖ hub<u8> ‖ admins<u16> (identity keys, ascending) ‖ policy u8 = 0
 *   ‖ predecessor<u8> (group id of the group that this one replaced, or empty)
 *
 * One value has one encoding: decoding refuses everything else.
 */
import { compare, concat, decodeUtf8, encodeUtf8, u16 } from '@quicprochat/crypto';
import { CHANNEL_ID_BYTES, FieldReader, IDENTITY_KEY_BYTES } from '@quicprochat/core';

/** Private range (RFC 9420 section 17.3). The only place that knows these numbers. */
export const QpcExtensionType = {
  /** LeafNode: the device certificate, as core encodes it. */
  DeviceCertificate: 0xf071,
  /** GroupContext: this file. */
  Channel: 0xf072,
} as const;

const ADMINS_MAX = 1_000;

export interface ChannelExtension {
  /** 16 bytes. */
  readonly channelId: Uint8Array;
  readonly kind: 'group' | 'direct';
  /** Domain of the server that keeps the log; empty = the members' own. */
  readonly hub: string;
  /** Identity keys that may change other people's membership, roles and extensions; ascending, none twice. */
  readonly admins: readonly Uint8Array[];
  /** Group id of the predecessor on the same channel, or empty. */
  readonly predecessor: Uint8Array;
}

const VERSION = 1;
const KINDS = ['group', 'direct'] as const;

export function encodeChannelExtension(extension: ChannelExtension): Uint8Array {
  const hub = encodeUtf8(extension.hub);
  return concat(
    new Uint8Array([VERSION]),
    extension.channelId,
    new Uint8Array([KINDS.indexOf(extension.kind), hub.length]),
    hub,
    u16(extension.admins.length),
    ...[...extension.admins].sort(compare),
    new Uint8Array([0, extension.predecessor.length]),
    extension.predecessor,
  );
}

/** The extension, or undefined when these bytes are not the one encoding of one. */
export function decodeChannelExtension(bytes: Uint8Array): ChannelExtension | undefined {
  if (bytes.length > 1_024 + ADMINS_MAX * IDENTITY_KEY_BYTES) return undefined;
  const reader = new FieldReader(bytes);
  const version = reader.u8();
  const channelId = reader.take(CHANNEL_ID_BYTES);
  const kind = KINDS[reader.u8()];
  const hub = decodeUtf8(reader.short());
  const adminCount = reader.u8() * 256 + reader.u8();
  if (version !== VERSION || kind === undefined || hub === undefined || adminCount > ADMINS_MAX) return undefined;
  const admins: Uint8Array[] = [];
  for (let i = 0; i < adminCount; i++) admins.push(reader.take(IDENTITY_KEY_BYTES));
  const policy = reader.u8();
  const predecessor = reader.short();
  if (!reader.complete || policy !== 0) return undefined;
  for (let i = 1; i < admins.length; i++) if (compare(admins[i - 1]!, admins[i]!) >= 0) return undefined;
  return { channelId, kind, hub, admins, predecessor };
}
