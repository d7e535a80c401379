/** Structured logs on standard error: one JSON object a line, without user data, keys or payloads (DESIGN 7). */
import { destination, pino, stdSerializers } from 'pino';
import type { Log } from './context.ts';

/** Lines that could not be written wait for the next attempt, up to here. */
const WAITING_BYTES_MAX = 64 * 1024;

export function createLog(level: 'silent' | 'error' | 'warn' | 'info' | 'debug'): Log {
  // Synchronous, so that the last words before an exit are written.
  const output = destination({ fd: 2, sync: true, maxLength: WAITING_BYTES_MAX });
  // A log on a full disk must not fail what it tells of; and where could that be told?
  output.on('error', () => {});
  return pino(
    {
      level,
      base: { pid: process.pid },
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: errorWithoutValues },
      redact: { paths: ['password', 'token', 'key', 'payload'], remove: true },
    },
    output,
  );
}

// Message and stack of our own errors name no values; properties of others might.
function errorWithoutValues(error: unknown): object {
  if (!(error instanceof Error)) return { type: typeof error };
  const { type, message, stack } = stdSerializers.err(error);
  return { type, message, stack };
}
