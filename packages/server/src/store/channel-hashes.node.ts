/** The hashes of channels (PROTOCOL section 5) with the provider of this runtime; computed inside the writer's transaction. */
import { logHashGenesis, logHashNext, rosterHash } from '@quicprochat/core/channel-hashes';
import { nodeCrypto } from '@quicprochat/crypto/node';
import type { Address } from './store.ts';

export interface ChannelHashes {
  /** log_hash(0). */
  logHashGenesis(channelId: Uint8Array): Uint8Array;
  logHashNext(previous: Uint8Array, position: number, payloadHash: Uint8Array): Uint8Array;
  /** Of addresses in any order. */
  rosterHash(addresses: readonly Address[]): Uint8Array;
}

export const channelHashes: ChannelHashes = {
  logHashGenesis: (channelId) => logHashGenesis(nodeCrypto, channelId),
  logHashNext: (previous, position, payloadHash) => logHashNext(nodeCrypto, previous, BigInt(position), payloadHash),
  rosterHash: (addresses) => rosterHash(nodeCrypto, addresses),
};
