import { methods } from '@quicprochat/transport';
import { invalidArgument } from '../../refusals.ts';
import { deviceHandler, readInTurn } from '../../handler.ts';
import type { DeviceCall } from '../../handler.ts';
import { askFetch } from '../../plugins.ts';
import { inboxAnswer, inboxRead } from '../../read-inbox.ts';
import type { ReadInbox, ReadInboxOutcome } from '../../store/store.ts';

const TIMEOUT_MS_MAX = 60_000;

export const fetchWait = deviceHandler(methods.delivery.fetchWait, async (call, request) => {
  if (request.timeoutMs > TIMEOUT_MS_MAX) throw invalidArgument(`a wait takes at most ${TIMEOUT_MS_MAX} ms`);
  if (call.server.plugins !== undefined) await askFetch(call, 'fetch_wait');
  return inboxAnswer(call, await firstContent(call, inboxRead(call, request), request.timeoutMs));
});

/** The first read that finds something, or the last one when time is up. */
async function firstContent(call: DeviceCall, read: ReadInbox, timeoutMs: number): Promise<ReadInboxOutcome> {
  const { server } = call;
  let woken = true;
  let over = timeoutMs === 0;
  let resume: (() => void) | undefined;
  const wake = (): void => {
    woken = true;
    resume?.();
  };
  const end = (): void => {
    over = true;
    resume?.();
  };
  // Listening starts before the first read, so nothing can arrive unseen in between.
  const unlisten = server.live.onWake(read.address, wake);
  const timer = server.clock.setTimer(end, timeoutMs);
  const signals = [call.signal(), server.leaving];
  for (const signal of signals) {
    if (signal.aborted) end();
    signal.addEventListener('abort', end, { once: true });
  }
  try {
    for (;;) {
      woken = false;
      const outcome = await readInTurn(call, () => server.store.readInbox(read));
      if (outcome.kind !== 'read' || outcome.rows.length > 0 || outcome.gap !== undefined || over) return outcome;
      // oxlint-disable-next-line typescript/no-unnecessary-condition -- the wake-up sets it during the await
      if (!woken) {
        await new Promise<void>((resolve) => {
          resume = resolve;
        });
        resume = undefined;
      }
    }
  } finally {
    unlisten();
    server.clock.clearTimer(timer);
    for (const signal of signals) signal.removeEventListener('abort', end);
  }
}
