import { StoreState } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import { BLOB_BYTES_MAX } from '../../blobs.ts';
import type { ServerContext } from '../../context.ts';
import { handler } from '../../handler.ts';
import type { RouteMaker } from '../../handler.ts';
import { StoreError } from '../../store/store.ts';

// Anyone may ask, and the store counts rows for its answer.
const STATE_LIFETIME_MS = 1_000;

export const health: RouteMaker = (server) => {
  let state: Promise<StoreState> | undefined;
  let expiresAt = 0;
  return handler(methods.p2p.health, async () => {
    const now = server.clock.now();
    if (state === undefined || now >= expiresAt) {
      state = storeState(server);
      expiresAt = now + STATE_LIFETIME_MS;
    }
    const { storeLimits, receipts } = server;
    const log = server.keyTransparency.pinned;
    const nowMs = server.clock.wallMs();
    return {
      version: server.version,
      uptimeSecs: BigInt(Math.max(0, Math.floor((nowMs - server.startedAtMs) / 1000))),
      store: await state,
      origin: server.origin,
      receiptKey: receipts.publicKey,
      receiptKeyId: receipts.keyId,
      opaqueKey: server.opaquePublicKey,
      logOrigin: log.origin,
      logKey: log.key,
      logVrfKey: log.vrfKey,
      limits: {
        inboxEnvelopesMax: storeLimits.inboxEnvelopes,
        inboxBytesMax: BigInt(storeLimits.inboxBytes),
        ttlDefaultSecs: Math.floor(storeLimits.ttlDefaultMs / 1000),
        ttlMaxSecs: Math.floor(storeLimits.ttlMaxMs / 1000),
        keyPackagesMax: storeLimits.keyPackagesPerSuite,
        devicesMax: storeLimits.devicesPerAccount,
        blobBytesMax: BigInt(BLOB_BYTES_MAX),
        sealedSender: server.allowSealedSender,
      },
      timeMs: BigInt(nowMs),
      reportKey: server.reportKey.publicKey ?? new Uint8Array(0),
    };
  })(server);
};

async function storeState(server: ServerContext): Promise<StoreState> {
  try {
    const { state } = await server.store.status();
    return state === 'ok' ? StoreState.OK : state === 'failing' ? StoreState.READ_ONLY : StoreState.FAILED;
  } catch (error) {
    if (error instanceof StoreError) return StoreState.FAILED;
    throw error;
  }
}
