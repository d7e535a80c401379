/** Bounds on what requests carry: exact lengths, safe integers, canonical names. Everything else is `invalid argument`. */
import {
  checkUsername,
  CHANNEL_ID_BYTES,
  displayText,
  DEVICE_ID_BYTES,
  IDENTITY_KEY_BYTES,
  MESSAGE_ID_BYTES,
} from '@quicprochat/core';
import { encodeUtf8, equal } from '@quicprochat/crypto';
import type { DeviceSession } from './context.ts';
import { forbidden, invalidArgument } from './refusals.ts';
import type { Address } from './store/store.ts';

const DEVICE_NAME_BYTES_MAX = 64;

/** The bytes, if there are exactly `length` of them. */
export function exactBytes(bytes: Uint8Array, length: number, what: string): Uint8Array {
  if (bytes.length !== length) throw invalidArgument(`${what} has ${length} bytes, not ${bytes.length}`);
  return bytes;
}

/** Undefined for an empty field, else exactly `length` bytes. */
export function optionalBytes(bytes: Uint8Array, length: number, what: string): Uint8Array | undefined {
  return bytes.length === 0 ? undefined : exactBytes(bytes, length, what);
}

export function identityKey(bytes: Uint8Array): Uint8Array {
  return exactBytes(bytes, IDENTITY_KEY_BYTES, 'an identity key');
}

export function deviceId(bytes: Uint8Array): Uint8Array {
  return exactBytes(bytes, DEVICE_ID_BYTES, 'a device id');
}

export function channelId(bytes: Uint8Array): Uint8Array {
  return exactBytes(bytes, CHANNEL_ID_BYTES, 'a channel id');
}

export function optionalChannelId(bytes: Uint8Array): Uint8Array | undefined {
  return optionalBytes(bytes, CHANNEL_ID_BYTES, 'a channel id');
}

export function messageId(bytes: Uint8Array): Uint8Array {
  return exactBytes(bytes, MESSAGE_ID_BYTES, 'a message id');
}

/** A complete device address. */
export function deviceAddress(address: Address | undefined): Address {
  if (address === undefined) throw invalidArgument('an address is missing');
  return { identityKey: identityKey(address.identityKey), deviceId: deviceId(address.deviceId) };
}

/** An address whose device id may be left out to mean every device. */
export function identityOrDevice(address: Address | undefined): {
  identityKey: Uint8Array;
  deviceId?: Uint8Array | undefined;
} {
  if (address === undefined) throw invalidArgument('an address is missing');
  return {
    identityKey: identityKey(address.identityKey),
    deviceId: optionalBytes(address.deviceId, DEVICE_ID_BYTES, 'a device id'),
  };
}

/** A 64-bit field as a number that counts exactly. */
export function safeInteger(value: bigint, what: string): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw invalidArgument(`${what} is out of range`);
  return Number(value);
}

export function username(name: string): string {
  const check = checkUsername(name);
  if (check.kind === 'invalid') throw invalidArgument(check.reason);
  return check.username;
}

/** What a user calls a device: short, and nothing a terminal would act on. */
export function deviceName(name: string): string {
  if (encodeUtf8(name).length > DEVICE_NAME_BYTES_MAX) {
    throw invalidArgument(`a device name has at most ${DEVICE_NAME_BYTES_MAX} bytes`);
  }
  if (displayText(name) !== name) throw invalidArgument('a device name has no control characters');
  return name;
}

/** At most `max` of a repeated field. */
export function atMost<T>(items: readonly T[], max: number, what: string): readonly T[] {
  if (items.length > max) throw invalidArgument(`a request has at most ${max} ${what}`);
  return items;
}

/** The caller's own inbox, which is the only one it may read. */
export function ownInbox(session: DeviceSession, recipientKey: Uint8Array, device: Uint8Array): Address {
  const named = { identityKey: identityKey(recipientKey), deviceId: deviceId(device) };
  if (!equal(named.identityKey, session.address.identityKey) || !equal(named.deviceId, session.address.deviceId)) {
    throw forbidden('a device reads its own inbox only');
  }
  return session.address;
}
