/**
 * The hashes by which members watch the server (PROTOCOL 5; THREATS 33).
 *
 *   log_hash(0) = SHA-256(label ‖ channel id)
 *   log_hash(n) = SHA-256(log_hash(n-1) ‖ n as u64 ‖ SHA-256(payload))
 *   roster_hash = SHA-256(label ‖ sorted addresses)
 *
 * A log_hash input after the first has 72 bytes and starts with a hash; the first starts with the label: they never meet.
 */
import { compare, concat, u64 } from '@quicprochat/crypto';
import type { CryptoProvider } from '@quicprochat/crypto';
import { CHANNEL_ID_BYTES, encodeAddress } from './identity.ts';
import type { DeviceAddress } from './identity.ts';
import { Label } from './labels.ts';
import { exactly } from './statement.ts';

const HASH_BYTES = 32;

/** The log hash of an empty log. */
export function logHashGenesis(crypto: CryptoProvider, channelId: Uint8Array): Uint8Array {
  return crypto.hash('sha256', concat(Label.logGenesis, exactly(channelId, CHANNEL_ID_BYTES, 'a channel id')));
}

/** The log hash after the entry at `position`, whose payload has the hash given. */
export function logHashNext(
  crypto: CryptoProvider,
  previous: Uint8Array,
  position: bigint,
  payloadHash: Uint8Array,
): Uint8Array {
  return crypto.hash(
    'sha256',
    concat(
      exactly(previous, HASH_BYTES, 'a log hash'),
      u64(position),
      exactly(payloadHash, HASH_BYTES, 'a payload hash'),
    ),
  );
}

/** The roster hash of a set of devices, in whatever order they come. */
export function rosterHash(crypto: CryptoProvider, addresses: readonly DeviceAddress[]): Uint8Array {
  return crypto.hash('sha256', concat(Label.roster, ...addresses.map(encodeAddress).sort(compare)));
}
