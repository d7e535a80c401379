/**
 * Structured logs on standard error: one JSON object a line, without user data, keys or payloads (DESIGN 7). Every line
 * goes through `redact.ts`; there is no way around it and no setting against it.
 */
import { destination, pino } from 'pino';
import type { DestinationStream } from 'pino';
import type { Log } from './context.ts';
import { redactError, redactFields, redactText } from './redact.ts';

export type LogLevel = 'silent' | 'error' | 'warn' | 'info' | 'debug';

/** Lines that could not be written wait for the next attempt, up to here. */
const WAITING_BYTES_MAX = 64 * 1024;

/** @param to default: standard error */
export function createLog(level: LogLevel, to: DestinationStream = standardError()): Log {
  return pino(
    {
      level,
      base: { pid: process.pid },
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }), log: redactFields },
      serializers: { err: (error: unknown) => (error instanceof Error ? redactError(error) : error) },
      hooks: {
        logMethod([fields, message], method) {
          method.call(this, fields, typeof message === 'string' ? redactText(message) : message);
        },
      },
    },
    to,
  );
}

function standardError(): DestinationStream {
  // Synchronous, so that the last words before an exit are written.
  const output = destination({ fd: 2, sync: true, maxLength: WAITING_BYTES_MAX });
  // A log on a full disk must not fail what it tells of; and where could that be told?
  output.on('error', () => {});
  return output;
}
