// The QUIC engine as it comes: its native classes, with nothing of ours around them.
import { createRequire } from 'node:module';
import path from 'node:path';

interface NativeEvent {
  readonly eventType: number;
  readonly connHandle: number;
  readonly streamId: number;
  readonly data?: Uint8Array;
}

export interface NativeEngine {
  ackEventBatch(count: number): void;
  requestShutdown(): boolean;
  joinWorker(): void;
  listen(port: number, host: string): { port: number };
  connect(address: string, serverName: string): void;
  openStream(): number;
  ping(): boolean;
  streamSend(...args: readonly unknown[]): { written: number };
  close(code: number, reason: string): void;
}

type NativeClass = new (
  options: object,
  callback: (error: unknown, events: readonly NativeEvent[]) => void,
) => NativeEngine;

const require = createRequire(import.meta.url);
const engineRoot = path.dirname(path.dirname(require.resolve('@currentspace/http3')));

export const native = require(path.join(engineRoot, 'index.js')) as {
  NativeQuicServer: NativeClass;
  NativeQuicClient: NativeClass;
};

export const ENGINE_OPTIONS = { alpn: ['qpc'], runtimeMode: 'portable', fallbackPolicy: 'error' };

export const SESSION_CLOSED = 7;
export const HANDSHAKE_DONE = 11;
export const SHUTDOWN_COMPLETE = 15;
