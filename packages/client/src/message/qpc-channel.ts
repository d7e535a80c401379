/**
 * The GroupContext extension `qpc.channel` (PROTOCOL section 9): which channel a group belongs to, and who may do what in
 * it. All members hold the same bytes, so commit validation may rest on it; a Welcome whose qpc.channel is not the channel
 * it came on is refused (THREATS 3, 4).
 *
 *   01 ‖ channel id 16 ‖ hub<u8> ‖ policy u8 ‖ predecessor<u8> ‖ admins u16 ‖ identity key 32 × admins
 *
 * The admins stand in ascending order without repetition, so equal contents have equal bytes.
 */
import { CHANNEL_ID_BYTES, IDENTITY_KEY_BYTES, Misuse } from '@quicprochat/core';
import { compare, concat, decodeUtf8, encodeUtf8, equal, u16 } from '@quicprochat/crypto';
import { ByteReader } from './byte-reader.ts';

/** Extension type of `qpc.channel`, from the private-use range (RFC 9420 section 17.3). In required_capabilities. */
export const QPC_CHANNEL_EXTENSION = 0xf0c1;
/** LeafNode extension that carries the encoded device certificate (PROTOCOL section 1). In required_capabilities. */
export const DEVICE_CERTIFICATE_EXTENSION = 0xf0c2;

const VERSION = 1;
const POLICY_DIRECT = 1;
const POLICY_GROUP = 2;
const GROUP_ID_LENGTH = 32;
const ADMINS_MAX = 1024;

export interface QpcChannel {
  /** 16 bytes. */
  readonly channelId: Uint8Array;
  /** Domain of the server that keeps the channel; empty = the members' own. */
  readonly hub: string;
  /**
   * `direct`: two accounts, both administrators. `group`: administrators add and remove others, everyone may add and
   * remove devices of their own identity.
   */
  readonly policy: 'direct' | 'group';
  /** group_id of the group this one continues, 32 bytes. */
  readonly predecessor: Uint8Array | undefined;
  /** Identity keys of the administrators, in any order; decoded ascending. At least one. */
  readonly admins: readonly Uint8Array[];
}

/** @throws Misuse when a part is too long, too short or repeated */
export function encodeQpcChannel(channel: QpcChannel): Uint8Array {
  const hub = encodeUtf8(channel.hub);
  const predecessor = channel.predecessor ?? new Uint8Array(0);
  const admins = [...channel.admins].sort(compare);
  if (
    channel.channelId.length !== CHANNEL_ID_BYTES ||
    hub.length > 255 ||
    (channel.predecessor !== undefined && predecessor.length !== GROUP_ID_LENGTH) ||
    !areAdmins(admins, channel.policy)
  ) {
    throw new Misuse('malformed qpc.channel');
  }
  return concat(
    new Uint8Array([VERSION]),
    channel.channelId,
    new Uint8Array([hub.length]),
    hub,
    new Uint8Array([channel.policy === 'direct' ? POLICY_DIRECT : POLICY_GROUP, predecessor.length]),
    predecessor,
    u16(admins.length),
    ...admins,
  );
}

/** The parts, or undefined when the layout is another. */
export function decodeQpcChannel(bytes: Uint8Array): QpcChannel | undefined {
  const reader = new ByteReader(bytes);
  if (reader.u8() !== VERSION) return undefined;
  const channelId = reader.take(CHANNEL_ID_BYTES);
  const hub = decodeUtf8(reader.take(reader.u8()));
  const policyCode = reader.u8();
  const predecessor = reader.take(reader.u8());
  const count = reader.u16();
  if (count * IDENTITY_KEY_BYTES !== reader.remaining) return undefined;
  const admins: Uint8Array[] = [];
  for (let i = 0; i < count; i++) admins.push(reader.take(IDENTITY_KEY_BYTES));
  if (!reader.complete || hub === undefined) return undefined;
  if (policyCode !== POLICY_DIRECT && policyCode !== POLICY_GROUP) return undefined;
  const policy = policyCode === POLICY_DIRECT ? 'direct' : 'group';
  if (predecessor.length !== 0 && predecessor.length !== GROUP_ID_LENGTH) return undefined;
  if (!areAdmins(admins, policy)) return undefined;
  return { channelId, hub, policy, predecessor: predecessor.length === 0 ? undefined : predecessor, admins };
}

export function isAdmin(channel: QpcChannel, identityKey: Uint8Array): boolean {
  return channel.admins.some((admin) => equal(admin, identityKey));
}

function areAdmins(admins: readonly Uint8Array[], policy: QpcChannel['policy']): boolean {
  if (admins.length === 0 || admins.length > ADMINS_MAX || (policy === 'direct' && admins.length !== 2)) return false;
  return admins.every(
    (admin, i) => admin.length === IDENTITY_KEY_BYTES && (i === 0 || compare(admins[i - 1]!, admin) < 0),
  );
}
