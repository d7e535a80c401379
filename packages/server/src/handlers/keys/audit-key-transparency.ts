import { methods } from '@quicprochat/transport';
import { safeInteger } from '../../checks.ts';
import { handler } from '../../handler.ts';
import { networkOf } from '../../rate-limits.ts';

/** 73 bytes each: about 150 KB, and 5 ms of the store's reader. */
const ENTRIES_MAX = 2_000;

/** Entries from a position on, and a checkpoint that covers them; none at the end of the log. */
export const auditKeyTransparency = handler(
  methods.keys.auditKeyTransparency,
  async ({ server, connection }, request) => {
    const start = safeInteger(request.start, 'the start');
    server.rates.take('logReads', networkOf(connection));
    // Entries beyond this checkpoint may be on disk already; they come with the next one.
    const { checkpoint, size } = server.keyTransparency;
    const wanted = request.limit === 0 ? ENTRIES_MAX : Math.min(request.limit, ENTRIES_MAX);
    const limit = Math.min(wanted, Math.max(0, size - start));
    return { entries: limit === 0 ? [] : await server.store.readLogEntries({ start, limit }), checkpoint };
  },
);
