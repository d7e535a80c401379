// What every binding offers: QUIC (quic.node.ts), memory (memory.ts), later WebSocket. DESIGN section 3.
//
//   RpcClient / RpcServer          frames in and out, calls, limits
//            │  write, end, reset          ▲  onData, onEnd, onDrain, onClose
//   Connection and TransportStream         (this file)
//            │                             │
//   binding: QUIC, memory, WebSocket       bytes
//
// Calls into a binding never throw for what the network did; that arrives as `onClose`. A binding
// never calls a handler from inside a call made to it, except `start`.

/** Application close and reset codes that both sides understand. */
export const CloseCode = {
  /** Done, nothing wrong. */
  none: 0,
  /** The peer broke the framing or reused a request id. */
  protocol: 1,
  /** The peer went far beyond its limits. */
  limits: 2,
  /** The server is going away; connect again later. */
  shutdown: 3,
  /** The reader no longer wants this stream. */
  cancelled: 4,
} as const;

/**
 * Why a connection ended. `local`: we closed it; `peer`: they did, with their code and reason; `lost`:
 * silence, a network error or a failed handshake.
 */
export interface CloseReason {
  readonly kind: 'local' | 'peer' | 'lost';
  /** Application code, see `CloseCode`; 0 for `lost`. */
  readonly code: number;
  /** For logs and for the user. The peer wrote it: untrusted text, at most 256 characters. */
  readonly reason: string;
}

/** How a stream ended: both directions finished, one side gave up, or the connection went away. */
export type StreamEnd = 'finished' | 'reset' | 'lost';

/** What the owner of a stream is told. After `onClose` nothing more comes. */
export interface StreamHandler {
  /** Bytes in order. The handler owns them: the binding keeps no reference and never writes to them. */
  onData(bytes: Uint8Array): void;
  /** The peer finished its direction. */
  onEnd(): void;
  /** After `write` returned false: the buffer is low again. */
  onDrain(): void;
  /** Exactly once, last. */
  onClose(end: StreamEnd): void;
}

/** One stream, bidirectional or the writing end of a unidirectional one. */
export interface TransportStream {
  readonly id: number;
  /** Bytes written here that the network has not taken yet. */
  readonly bufferedBytes: number;
  /**
   * Queues `head` and then `body`. `head` is copied before this returns, so the caller may reuse it;
   * `body` belongs to the binding from now on and must not change. Returns false when the buffer is
   * full enough to wait for `onDrain`; the bytes are queued all the same. Ignored after `end`, `reset`
   * or `onClose`.
   */
  write(head: Uint8Array, body?: Uint8Array): boolean;
  /** Finishes our direction after what is queued. */
  end(): void;
  /** Gives up both directions and drops what is queued. `onClose('reset')` follows. */
  reset(code: number): void;
}

/** What the owner of a connection is told. */
export interface ConnectionHandler {
  /**
   * The peer opened a stream: `bidi`, or `push` for a unidirectional one (writing to it is ignored).
   * Returning undefined refuses it: the binding resets it.
   */
  onStream(stream: TransportStream, kind: 'bidi' | 'push'): StreamHandler | undefined;
  /** Exactly once, after every stream's own `onClose`. */
  onClose(reason: CloseReason): void;
}

/** One connection to one peer, established and authenticated by the binding. */
export interface Connection {
  /** Address of the peer, for limits and logs: `ip:port`, or a name for memory. */
  readonly peer: string;
  /** How many bidirectional streams we may have open at once; 1 where everything shares one. */
  readonly streamsMax: number;
  /** Set once the connection has ended. */
  readonly closed: CloseReason | undefined;
  /** Takes over the connection; streams that have already arrived are delivered now. Once only. */
  start(handler: ConnectionHandler): void;
  /** Opens a bidirectional stream; undefined when the limit is reached or the connection has ended. */
  openStream(handler: StreamHandler): TransportStream | undefined;
  /** Opens a unidirectional stream towards the peer; undefined as above. */
  openPushStream(handler: StreamHandler): TransportStream | undefined;
  /** Ends the connection at once; what is queued may be lost. `onClose` follows. */
  close(code: number, reason: string): void;
}

/** Something that accepts connections. */
export interface Listener {
  /** The address bound, with the port the system chose when 0 was asked for. */
  readonly address: { readonly host: string; readonly port: number };
  /** Stops accepting and ends every connection. Resolves when the socket is free. */
  close(): Promise<void>;
}

/** Longest reason sent or kept, in characters. */
export const CLOSE_REASON_MAX = 256;
