/** Structured logs on standard error: one JSON object a line, without user data, keys or payloads (DESIGN 7). */
import { destination, pino, stdSerializers } from 'pino';
import type { Log } from './context.ts';

export function createLog(level: 'silent' | 'error' | 'warn' | 'info' | 'debug'): Log {
  return pino(
    {
      level,
      base: { pid: process.pid },
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: errorWithoutValues },
      redact: { paths: ['password', 'token', 'key', 'payload'], remove: true },
    },
    // Synchronous, so that the last words before an exit are written.
    destination({ fd: 2, sync: true }),
  );
}

// Message and stack of our own errors name no values; properties of others might.
function errorWithoutValues(error: unknown): object {
  if (!(error instanceof Error)) return { type: typeof error };
  const { type, message, stack } = stdSerializers.err(error);
  return { type, message, stack };
}
