/**
 * A plugin that limits how much one account may send, beyond the limits the server has: so many envelopes a minute, each
 * a token, as many at once. Settings: QPC_PLUGIN_ENVELOPES_PER_MINUTE, by default 600.
 *
 *   qpc-server --plugin packages/server/examples/rate-limit.ts
 */
import { definePlugin } from '@quicprochat/server/plugin';

const PER_MINUTE_DEFAULT = 600;
const ACCOUNTS_MAX = 100_000;
const MINUTE_MS = 60_000;

export default definePlugin(({ environment, log }) => {
  const text = environment['QPC_PLUGIN_ENVELOPES_PER_MINUTE'] ?? String(PER_MINUTE_DEFAULT);
  const perMinute = Number(text);
  if (!(perMinute >= 1)) throw new RangeError('QPC_PLUGIN_ENVELOPES_PER_MINUTE is a number from 1 on');
  log('limiting', { perMinute });
  // In order of last use; sealed senders have no name and are limited by the server itself.
  const buckets = new Map<string, { tokens: number; at: number }>();
  return {
    name: 'rate-limit',
    hooks: {
      enqueue: ({ sender }) => {
        if (sender === null) return undefined;
        const now = performance.now();
        const known = buckets.get(sender) ?? { tokens: perMinute, at: now };
        const tokens = Math.min(perMinute, known.tokens + ((now - known.at) * perMinute) / MINUTE_MS);
        const isAllowed = tokens >= 1;
        buckets.delete(sender);
        buckets.set(sender, { tokens: isAllowed ? tokens - 1 : tokens, at: now });
        if (buckets.size > ACCOUNTS_MAX) buckets.delete(buckets.keys().next().value ?? '');
        if (isAllowed) return undefined;
        return { reject: 'slow down', retryAfterMs: ((1 - tokens) * MINUTE_MS) / perMinute };
      },
    },
  };
});
