/** Hybrid keys as FetchHybridKey and FetchHybridKeys return them. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { DeviceHybridKeySchema } from '@quicprochat/proto';
import { tooLarge } from './refusals.ts';
import type { HybridKey } from './store/store.ts';

// Address and field headers of one key.
const OVERHEAD_BYTES = 80;

/** @throws RpcError `too large` when the keys do not fit in one answer */
export function hybridKeysAnswer(
  keys: readonly HybridKey[],
  responseMax: number,
): { keys: MessageInitShape<typeof DeviceHybridKeySchema>[] } {
  const bytes = keys.reduce((sum, key) => sum + key.hybridKey.length + key.certificate.length + OVERHEAD_BYTES, 0);
  if (bytes > responseMax) throw tooLarge('these are more keys than one answer holds', 'Ask for fewer at once.');
  return {
    keys: keys.map(({ address, hybridKey, certificate }) => ({ address, hybridKey, deviceCertificate: certificate })),
  };
}
