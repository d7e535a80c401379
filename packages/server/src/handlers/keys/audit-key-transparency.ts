import { Status } from '@quicprochat/proto';
import { methods, RpcError } from '@quicprochat/transport';
import { safeInteger } from '../../checks.ts';
import { handler } from '../../handler.ts';
import { networkOf } from '../../rate-limits.ts';

/** 73 bytes each: about 150 KB, and 5 ms of the store's reader. */
const ENTRIES_MAX = 2_000;

/** Entries from a position on, and a checkpoint that covers them; none at the end of the log. */
export const auditKeyTransparency = handler(
  methods.keys.auditKeyTransparency,
  ({ server, connection, signal }, request) => {
    const start = safeInteger(request.start, 'the start');
    const network = networkOf(connection);
    server.rates.take('logReads', network);
    const limit = request.limit === 0 ? ENTRIES_MAX : Math.min(request.limit, ENTRIES_MAX);
    return server.readTurns.takeAs(`log ${network}`, async () => {
      if (signal().aborted) throw new RpcError(Status.CANCELLED, 'nobody waits for this any more');
      // Entries beyond this checkpoint may be on disk already; they come with the next one.
      const { checkpoint, size } = server.keyTransparency;
      const end = Math.min(start + limit, size);
      return { entries: start < end ? await server.keyTransparency.readEntries(start, end) : [], checkpoint };
    });
  },
);
