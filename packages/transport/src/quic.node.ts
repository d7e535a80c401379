// QUIC binding on the native event-loop classes of @currentspace/http3 (quiche). DESIGN section 3.
//
//   native worker thread ──batch of events──▶ dispatch ──▶ QuicConnection ──▶ stream handlers
//   streams written to   ──one setImmediate─▶ flush    ──▶ native streamSend, coalesced
//
// Every small frame written within one turn of the event loop leaves in one native write; that is what
// makes multiplexed calls fast. A short native write, or the event that the peer's window is full, stops
// a stream until the event that it has room again; what is queued meanwhile counts in `bufferedBytes`.
// Events are acknowledged to the engine only after their handlers have run, so a peer that sends faster
// than we work is slowed down by the engine instead of filling memory.
import { createSocket } from 'node:dgram';
import { X509Certificate } from 'node:crypto';
import { lookup } from 'node:dns/promises';
import { createRequire } from 'node:module';
import { isIP } from 'node:net';
import { dirname, join } from 'node:path';
import { getCACertificates } from 'node:tls';
import {
  CLOSE_REASON_MAX,
  CloseCode,
  type CloseReason,
  type Connection,
  type ConnectionHandler,
  type Listener,
  type StreamEnd,
  type StreamHandler,
  type TransportStream,
} from './connection.ts';
import { ConnectError } from './errors.ts';

/** How to reach a server. */
export interface QuicConnectOptions {
  /** Host name or IP address. */
  readonly host: string;
  readonly port: number;
  /**
   * Name the certificate must carry as a DNS name. Default: the host name; `localhost` for loopback
   * addresses; any other IP address needs it.
   */
  readonly serverName?: string;
  /** The only certificate authorities to trust, PEM or DER. Default: the system's. */
  readonly trustAnchor?: Uint8Array;
  /** Default 5,000. */
  readonly connectTimeoutMs?: number;
  /** Gives up connecting. */
  readonly signal?: AbortSignal;
  /** Silence after which the connection counts as lost. Default 30,000. */
  readonly idleTimeoutMs?: number;
  /** After this much silence from the server we ask for a sign of life. Default 10,000. */
  readonly keepaliveMs?: number;
}

/** How to accept connections. */
export interface QuicListenOptions {
  /** IP address to bind; `0.0.0.0` or `::` for all. */
  readonly host: string;
  /** 0 = the system chooses. */
  readonly port: number;
  /** Certificate chain, PEM. */
  readonly certificate: Uint8Array;
  /** Private key, PEM. */
  readonly privateKey: Uint8Array;
  /** Default 10,000. More are ignored. */
  readonly connectionsMax?: number;
  /** Default 30,000. */
  readonly idleTimeoutMs?: number;
  /** The engine failed and accepts nothing more; its connections are lost. */
  readonly onFailure?: (error: Error) => void;
}

const ALPN = 'qpc';
const IDLE_TIMEOUT_MS = 30_000;
const KEEPALIVE_MS = 10_000;
const CONNECT_TIMEOUT_MS = 5_000;
const CONNECTIONS_MAX = 10_000;
// The dispatcher refuses calls on streams beyond 64; the engine refuses to open more than these.
const STREAMS_MAX = 160;
// What one peer may have on the way to us, all streams together.
const CONNECTION_WINDOW_BYTES = 16 * 1024 * 1024;
const STREAM_WINDOW_BYTES = 8 * 1024 * 1024;
// `write` asks for a pause above the first; `onDrain` comes at the second.
const HIGH_WATER_BYTES = 256 * 1024;
const LOW_WATER_BYTES = 64 * 1024;
// A push stream that arrives before `start` may bring this much.
const EARLY_BYTES_MAX = 1024 * 1024;

// ── The engine ──────────────────────────────────────────────────────────────────────────────────────

interface NativeEvent {
  readonly eventType: number;
  readonly connHandle: number;
  readonly streamId: number;
  readonly data?: Uint8Array;
  readonly fin?: boolean;
  readonly meta?: {
    readonly errorCode?: number;
    readonly errorReason?: string;
    readonly errorCategory?: string;
    readonly remoteAddr?: string;
    readonly remotePort?: number;
  };
}

type NativeCallback = (error: Error | null, events: readonly NativeEvent[]) => void;

interface SendOutcome {
  readonly status: number;
  readonly written: number;
}

interface NativeEngine {
  ackEventBatch(count: number): void;
  requestShutdown(): boolean;
  joinWorker(): void;
}

interface NativeClient extends NativeEngine {
  connect(address: string, serverName: string): unknown;
  openStream(): number;
  streamSend(streamId: number, bytes: Uint8Array, fin: boolean): SendOutcome;
  streamClose(streamId: number, code: number): boolean;
  close(code: number, reason: string): boolean;
  ping(): boolean;
}

interface NativeServer extends NativeEngine {
  listen(port: number, host: string): { readonly address: string; readonly port: number };
  streamSend(connection: number, streamId: number, bytes: Uint8Array, fin: boolean): SendOutcome;
  streamClose(connection: number, streamId: number, code: number): boolean;
  closeSession(connection: number, code: number, reason: string): boolean;
}

interface Native {
  readonly NativeQuicClient: new (options: object, callback: NativeCallback) => NativeClient;
  readonly NativeQuicServer: new (options: object, callback: NativeCallback) => NativeServer;
}

const Event = {
  newSession: 1,
  newStream: 2,
  data: 4,
  finished: 5,
  reset: 6,
  sessionClosed: 7,
  drain: 8,
  error: 10,
  handshakeDone: 11,
  shutdownComplete: 15,
  blocked: 16,
  pong: 17,
  writeReady: 18,
} as const;

let native: Native | undefined;

// The event-loop classes are not among the package's exports; its root index.js has them.
function loadNative(): Native {
  if (native !== undefined) return native;
  const require = createRequire(import.meta.url);
  try {
    const main = require.resolve('@currentspace/http3');
    native = require(join(dirname(dirname(main)), 'index.js')) as Native;
  } catch {
    throw new ConnectError('unsupported', 'there is no QUIC engine for this machine');
  }
  return native;
}

/** What a connection asks of its engine. */
interface Engine {
  openStream(): number | undefined;
  send(streamId: number, bytes: Uint8Array, fin: boolean): SendOutcome;
  resetStream(streamId: number, code: number): void;
  close(code: number, reason: string): void;
  readonly flusher: Flusher;
}

/** Collects the streams written to in this turn and sends them in one go. */
class Flusher {
  #dirty: QuicStream[] = [];
  #scheduled = false;
  readonly #flush = (): void => {
    this.#scheduled = false;
    const streams = this.#dirty;
    this.#dirty = [];
    for (const stream of streams) stream.flush();
  };

  add(stream: QuicStream): void {
    this.#dirty.push(stream);
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#flush);
  }
}

// ── Streams ─────────────────────────────────────────────────────────────────────────────────────────

// Small writes are gathered in buffers of this size; larger bodies travel as they are. The engine
// copies what it is given, so a buffer that has been sent is used again.
const GATHER_BYTES = 16 * 1024;
const GATHER_BODY_BYTES_MAX = 4 * 1024;
const spareGatherBuffers: Uint8Array[] = [];
const SPARE_GATHER_BUFFERS_MAX = 256;
const NOTHING = new Uint8Array(0);

interface Chunk {
  readonly bytes: Uint8Array;
  /** The gather buffer behind `bytes`, to be used again once sent. */
  readonly gather: boolean;
  end: number;
  sent: number;
}

class QuicStream implements TransportStream {
  readonly id: number;
  readonly opener: 'here' | 'peer';
  bufferedBytes = 0;
  handler: StreamHandler | undefined;
  early: Uint8Array[] | undefined;
  readonly #connection: QuicConnection;
  readonly #engine: Engine;
  #chunks: Chunk[] = [];
  #gathering: Chunk | undefined;
  #dirty = false;
  #blocked = false;
  #wantsDrain = false;
  #finWanted = false;
  #finSent: boolean;
  #finReceived: boolean;
  #over = false;

  constructor(connection: QuicConnection, engine: Engine, id: number, opener: 'here' | 'peer', kind: 'bidi' | 'push') {
    this.#connection = connection;
    this.#engine = engine;
    this.id = id;
    this.opener = opener;
    this.#finSent = kind === 'push' && opener === 'peer';
    this.#finReceived = kind === 'push' && opener === 'here';
  }

  write(head: Uint8Array, body: Uint8Array = NOTHING): boolean {
    if (this.#over || this.#finWanted || this.#finSent) return true;
    if (body.length > GATHER_BODY_BYTES_MAX) {
      this.#gather(head, NOTHING);
      this.#gathering = undefined;
      this.#chunks.push({ bytes: body, gather: false, end: body.length, sent: 0 });
    } else {
      this.#gather(head, body);
    }
    this.bufferedBytes += head.length + body.length;
    this.#schedule();
    if (this.bufferedBytes <= HIGH_WATER_BYTES) return true;
    this.#wantsDrain = true;
    return false;
  }

  end(): void {
    if (this.#over || this.#finWanted || this.#finSent) return;
    this.#finWanted = true;
    this.#schedule();
  }

  reset(code: number): void {
    if (this.#over) return;
    this.abandon(code);
    queueMicrotask(() => this.finish('reset'));
  }

  /** Tells the engine to forget the stream; the handler hears of it later. */
  abandon(code: number): void {
    this.#engine.resetStream(this.id, code);
    this.#finSent = true;
    this.#drop();
  }

  received(bytes: Uint8Array): void {
    if (this.#over || this.#finReceived) return;
    if (this.handler !== undefined) this.handler.onData(bytes);
    else this.#connection.keepEarly(this, bytes);
  }

  receivedEnd(): void {
    if (this.#over || this.#finReceived) return;
    this.#finReceived = true;
    this.handler?.onEnd();
    this.#settle();
  }

  /** Hands over what came before there was a handler. */
  begin(handler: StreamHandler): void {
    this.handler = handler;
    const early = this.early;
    this.early = undefined;
    for (const bytes of early ?? []) if (!this.#over) handler.onData(bytes);
    if (this.#finReceived && !this.#over) handler.onEnd();
  }

  block(): void {
    this.#blocked = true;
  }

  unblock(): void {
    if (!this.#blocked) return;
    this.#blocked = false;
    this.flush();
  }

  flush(): void {
    this.#dirty = false;
    if (this.#over || this.#blocked || this.#finSent) return;
    while (this.#chunks.length > 0) {
      const chunk = this.#chunks[0] as Chunk;
      const fin = this.#finWanted && this.#chunks.length === 1;
      const left = chunk.end - chunk.sent;
      const bytes = left === chunk.bytes.length ? chunk.bytes : chunk.bytes.subarray(chunk.sent, chunk.end);
      const outcome = this.#engine.send(this.id, bytes, fin);
      const written = outcome.status === 0 ? Math.min(outcome.written, left) : 0;
      this.bufferedBytes -= written;
      if (written < left) {
        chunk.sent += written;
        this.#blocked = true;
        break;
      }
      this.#chunks.shift();
      if (chunk.gather) {
        if (this.#gathering === chunk) this.#gathering = undefined;
        if (spareGatherBuffers.length < SPARE_GATHER_BUFFERS_MAX) spareGatherBuffers.push(chunk.bytes);
      }
      if (fin) this.#finSent = true;
    }
    if (this.#finWanted && !this.#finSent && !this.#blocked) {
      // For an empty write with fin the engine answers 1 when it took it.
      const outcome = this.#engine.send(this.id, NOTHING, true);
      if (outcome.status === 0 && outcome.written > 0) this.#finSent = true;
      else this.#blocked = true;
    }
    if (this.#wantsDrain && this.bufferedBytes <= LOW_WATER_BYTES) {
      this.#wantsDrain = false;
      this.handler?.onDrain();
    }
    this.#settle();
  }

  finish(end: StreamEnd): void {
    if (this.#over) return;
    this.#over = true;
    this.#drop();
    this.#connection.forget(this);
    this.handler?.onClose(end);
  }

  #settle(): void {
    if (this.#finSent && this.#finReceived) this.finish('finished');
  }

  #schedule(): void {
    if (this.#dirty || this.#blocked) return;
    this.#dirty = true;
    this.#engine.flusher.add(this);
  }

  #gather(head: Uint8Array, body: Uint8Array): void {
    const bytes = head.length + body.length;
    let chunk = this.#gathering;
    if (chunk === undefined || chunk.end + bytes > chunk.bytes.length) {
      const buffer = spareGatherBuffers.pop() ?? new Uint8Array(GATHER_BYTES);
      chunk = { bytes: buffer, gather: true, end: 0, sent: 0 };
      this.#gathering = chunk;
      this.#chunks.push(chunk);
    }
    chunk.bytes.set(head, chunk.end);
    if (body.length > 0) chunk.bytes.set(body, chunk.end + head.length);
    chunk.end += bytes;
  }

  #drop(): void {
    this.#chunks = [];
    this.#gathering = undefined;
    this.bufferedBytes = 0;
  }
}

// ── Connections ─────────────────────────────────────────────────────────────────────────────────────

class QuicConnection implements Connection {
  readonly peer: string;
  readonly streamsMax = STREAMS_MAX;
  closed: CloseReason | undefined;
  /** When something last came from the peer, for keepalive. */
  heardAt = performance.now();
  readonly #engine: Engine;
  readonly #streams = new Map<number, QuicStream>();
  readonly #firstPushId: 2 | 3;
  #nextPushId: number;
  #handler: ConnectionHandler | undefined;
  #waiting: QuicStream[] = [];
  #earlyBytes = 0;
  #closeTold = false;

  constructor(engine: Engine, peer: string, role: 'client' | 'server') {
    this.#engine = engine;
    this.peer = peer;
    this.#firstPushId = role === 'client' ? 2 : 3;
    this.#nextPushId = this.#firstPushId;
  }

  start(handler: ConnectionHandler): void {
    if (this.#handler !== undefined) throw new Error('started twice');
    this.#handler = handler;
    for (const stream of this.#waiting.splice(0)) this.#introduce(stream);
    if (this.#closeTold) handler.onClose(this.closed as CloseReason);
  }

  openStream(handler: StreamHandler): TransportStream | undefined {
    if (this.closed !== undefined) return undefined;
    const id = this.#engine.openStream();
    if (id === undefined) return undefined;
    return this.#open(id, 'bidi', handler);
  }

  openPushStream(handler: StreamHandler): TransportStream | undefined {
    if (this.closed !== undefined) return undefined;
    const id = this.#nextPushId;
    this.#nextPushId += 4;
    return this.#open(id, 'push', handler);
  }

  close(code: number, reason: string): void {
    if (this.closed !== undefined) return;
    const text = reason.slice(0, CLOSE_REASON_MAX);
    this.closed = { kind: 'local', code, reason: text };
    this.#engine.close(code, text);
    queueMicrotask(() => this.#tellClosed());
  }

  /** The connection has ended without us. */
  ended(reason: CloseReason): void {
    if (this.closed !== undefined) return;
    this.closed = reason;
    this.#tellClosed();
  }

  dispatch(event: NativeEvent): void {
    if (this.closed !== undefined) return;
    const { streamId } = event;
    switch (event.eventType) {
      case Event.data:
      case Event.newStream: {
        this.heardAt = performance.now();
        const stream = this.#streams.get(streamId) ?? this.#accept(streamId);
        if (stream === undefined) return;
        if (event.data !== undefined && event.data.length > 0) stream.received(event.data);
        if (event.fin === true) stream.receivedEnd();
        return;
      }
      case Event.finished:
        this.#streams.get(streamId)?.receivedEnd();
        return;
      case Event.drain:
        this.#streams.get(streamId)?.unblock();
        return;
      case Event.blocked:
        this.#streams.get(streamId)?.block();
        return;
      case Event.writeReady:
        for (const stream of this.#streams.values()) stream.unblock();
        return;
      case Event.reset:
      case Event.error: {
        const stream = this.#streams.get(streamId);
        if (stream === undefined) return;
        // Without this the engine reports the same stream again and again.
        stream.abandon(CloseCode.cancelled);
        stream.finish('reset');
        return;
      }
      case Event.pong:
        this.heardAt = performance.now();
        return;
      default:
        return;
    }
  }

  forget(stream: QuicStream): void {
    this.#streams.delete(stream.id);
  }

  keepEarly(stream: QuicStream, bytes: Uint8Array): void {
    this.#earlyBytes += bytes.length;
    if (this.#earlyBytes > EARLY_BYTES_MAX) {
      this.close(CloseCode.limits, 'too much before the start');
      return;
    }
    (stream.early ??= []).push(bytes);
  }

  #open(id: number, kind: 'bidi' | 'push', handler: StreamHandler): QuicStream {
    const stream = new QuicStream(this, this.#engine, id, 'here', kind);
    stream.handler = handler;
    this.#streams.set(id, stream);
    return stream;
  }

  #accept(id: number): QuicStream | undefined {
    const openedHere = (id & 1) === (this.#firstPushId & 1);
    // What still arrives for a stream of ours that is over.
    if (openedHere) return undefined;
    const kind = (id & 2) === 0 ? 'bidi' : 'push';
    const stream = new QuicStream(this, this.#engine, id, 'peer', kind);
    this.#streams.set(id, stream);
    if (this.#handler === undefined) this.#waiting.push(stream);
    else this.#introduce(stream);
    return this.#streams.get(id);
  }

  #introduce(stream: QuicStream): void {
    const kind = (stream.id & 2) === 0 ? 'bidi' : 'push';
    const handler = this.#handler?.onStream(stream, kind);
    if (handler !== undefined) {
      stream.begin(handler);
      return;
    }
    stream.abandon(CloseCode.cancelled);
    stream.finish('reset');
  }

  #tellClosed(): void {
    this.#closeTold = true;
    for (const stream of this.#streams.values()) stream.finish('lost');
    this.#handler?.onClose(this.closed as CloseReason);
  }
}

function closeReasonOf(event: NativeEvent): CloseReason {
  const code = event.meta?.errorCode ?? 0;
  const reason = (event.meta?.errorReason ?? '').slice(0, CLOSE_REASON_MAX);
  if (reason === 'idle timeout') return { kind: 'lost', code: 0, reason: 'no sign of life' };
  return { kind: 'peer', code, reason };
}

const COMMON_OPTIONS = {
  alpn: [ALPN],
  runtimeMode: 'portable',
  fallbackPolicy: 'error',
  initialMaxData: CONNECTION_WINDOW_BYTES,
  initialMaxStreamDataBidiLocal: STREAM_WINDOW_BYTES,
} as const;

/** Ends an engine's worker thread: asks, and joins once its last event has come. */
class Worker {
  readonly done: Promise<void>;
  #setDone!: () => void;
  #asked = false;

  constructor() {
    this.done = new Promise((resolve) => {
      this.#setDone = resolve;
    });
  }

  stop(engine: NativeEngine): void {
    if (this.#asked) return;
    this.#asked = true;
    engine.requestShutdown();
  }

  stopped(engine: NativeEngine): void {
    // Not from inside the engine's own callback.
    setImmediate(() => {
      engine.joinWorker();
      this.#setDone();
    });
  }
}

// ── Server ──────────────────────────────────────────────────────────────────────────────────────────

/**
 * Listens for QUIC connections and hands each to `accept` once its handshake is done and the client's
 * address has been validated.
 * @throws ConnectError `unsupported`; Error for an unusable certificate, key or address
 */
export async function listenQuic(
  options: QuicListenOptions,
  accept: (connection: Connection) => void,
): Promise<Listener> {
  const { NativeQuicServer } = loadNative();
  const connections = new Map<number, QuicConnection>();
  const flusher = new Flusher();
  const worker = new Worker();

  const dispatch = (event: NativeEvent): void => {
    const handle = event.connHandle;
    switch (event.eventType) {
      case Event.newSession: {
        const peer = formatAddress(event.meta?.remoteAddr ?? '', event.meta?.remotePort ?? 0);
        connections.set(handle, new QuicConnection(engineOf(handle), peer, 'server'));
        return;
      }
      case Event.handshakeDone: {
        const connection = connections.get(handle);
        if (connection !== undefined) accept(connection);
        return;
      }
      case Event.sessionClosed: {
        const connection = connections.get(handle);
        connections.delete(handle);
        connection?.ended(closeReasonOf(event));
        return;
      }
      case Event.writeReady:
        // Handle 0 is both the first connection and "all of them".
        if (handle !== 0) connections.get(handle)?.dispatch(event);
        else for (const connection of connections.values()) connection.dispatch(event);
        return;
      case Event.shutdownComplete:
        worker.stopped(server);
        return;
      case Event.error:
        if (event.meta?.errorCategory === 'runtime') {
          for (const connection of connections.values()) {
            connection.ended({ kind: 'lost', code: 0, reason: 'the QUIC engine failed' });
          }
          connections.clear();
          options.onFailure?.(new Error(`QUIC engine: ${event.meta.errorReason ?? 'failed'}`));
          return;
        }
        connections.get(handle)?.dispatch(event);
        return;
      default:
        connections.get(handle)?.dispatch(event);
    }
  };

  const engineOf = (handle: number): Engine => ({
    flusher,
    openStream: () => undefined,
    send: (id, bytes, fin) => server.streamSend(handle, id, bytes, fin),
    resetStream: (id, code) => {
      server.streamClose(handle, id, code);
    },
    close: (code, reason) => {
      server.closeSession(handle, code, reason);
    },
  });

  const server = new NativeQuicServer(
    {
      ...COMMON_OPTIONS,
      cert: options.certificate,
      key: options.privateKey,
      clientAuth: 'none',
      disableRetry: false,
      initialMaxStreamsBidi: STREAMS_MAX,
      maxIdleTimeoutMs: options.idleTimeoutMs ?? IDLE_TIMEOUT_MS,
      maxConnections: options.connectionsMax ?? CONNECTIONS_MAX,
    },
    (_error, events) => {
      try {
        for (const event of events) dispatch(event);
      } finally {
        server.ackEventBatch(events.length);
      }
    },
  );
  const bound = server.listen(options.port, options.host);

  return {
    address: { host: bound.address, port: bound.port },
    close: () => {
      for (const connection of connections.values()) {
        connection.close(CloseCode.shutdown, 'the server is shutting down');
      }
      worker.stop(server);
      return worker.done;
    },
  };
}

// ── Client ──────────────────────────────────────────────────────────────────────────────────────────

/**
 * Connects to a server and verifies its certificate.
 * @throws ConnectError, see its kinds; the reason of `signal` when aborted
 */
export async function connectQuic(options: QuicConnectOptions): Promise<Connection> {
  options.signal?.throwIfAborted();
  const serverName = options.serverName ?? defaultServerName(options.host);
  const ca = trustAnchorPem(options.trustAnchor);
  const addresses = await resolveHost(options.host);
  const deadline = performance.now() + (options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS);
  let failure: unknown;
  for (const [index, address] of addresses.entries()) {
    // What is left is shared among the addresses still to try.
    const ms = (deadline - performance.now()) / (addresses.length - index);
    try {
      return await connectAddress(options, address, serverName, ca, Math.max(ms, 1));
    } catch (error) {
      failure = error;
      const next = error instanceof ConnectError && (error.kind === 'refused' || error.kind === 'timeout');
      if (!next) throw error;
    }
  }
  throw failure;
}

async function connectAddress(
  options: QuicConnectOptions,
  address: string,
  serverName: string,
  ca: Uint8Array,
  timeoutMs: number,
): Promise<Connection> {
  const { NativeQuicClient } = loadNative();
  const peer = formatAddress(address, options.port);
  const { promise, resolve, reject } = Promise.withResolvers<Connection>();
  const flusher = new Flusher();
  const worker = new Worker();
  let connected = false;
  let failed = false;
  let keepalive: ReturnType<typeof setInterval> | undefined;
  const probe = probePort(address, options.port, () => fail(new ConnectError('refused', `nothing listens on ${peer}`)));
  const timer = setTimeout(() => fail(new ConnectError('timeout', `no answer from ${peer}`)), timeoutMs);
  const onAbort = (): void => fail(options.signal?.reason);
  options.signal?.addEventListener('abort', onAbort, { once: true });

  const settled = (): void => {
    clearTimeout(timer);
    probe.stop();
    options.signal?.removeEventListener('abort', onAbort);
  };
  const fail = (error: unknown): void => {
    if (connected || failed) return;
    failed = true;
    settled();
    client.close(CloseCode.none, '');
    worker.stop(client);
    reject(error);
  };

  const engine: Engine = {
    flusher,
    openStream: () => {
      try {
        return client.openStream();
      } catch {
        return undefined;
      }
    },
    send: (id, bytes, fin) => client.streamSend(id, bytes, fin),
    resetStream: (id, code) => {
      client.streamClose(id, code);
    },
    close: (code, reason) => {
      clearInterval(keepalive);
      client.close(code, reason);
      worker.stop(client);
    },
  };
  const connection = new QuicConnection(engine, peer, 'client');

  const dispatch = (event: NativeEvent): void => {
    switch (event.eventType) {
      case Event.handshakeDone: {
        if (failed) return;
        connected = true;
        settled();
        const every = options.keepaliveMs ?? KEEPALIVE_MS;
        keepalive = setInterval(() => {
          if (performance.now() - connection.heardAt >= every / 2) client.ping();
        }, every).unref();
        resolve(connection);
        return;
      }
      case Event.sessionClosed:
        clearInterval(keepalive);
        if (connected) connection.ended(closeReasonOf(event));
        else fail(connectErrorOf(event, peer, serverName));
        worker.stop(client);
        return;
      case Event.error:
        if (event.meta?.errorCategory === 'runtime') {
          clearInterval(keepalive);
          fail(new ConnectError('handshake', `QUIC engine: ${event.meta.errorReason ?? 'failed'}`));
          connection.ended({ kind: 'lost', code: 0, reason: 'the QUIC engine failed' });
          return;
        }
        connection.dispatch(event);
        return;
      case Event.shutdownComplete:
        worker.stopped(client);
        return;
      default:
        connection.dispatch(event);
    }
  };

  const client = new NativeQuicClient(
    {
      ...COMMON_OPTIONS,
      ca,
      rejectUnauthorized: true,
      initialMaxStreamsBidi: 1,
      maxIdleTimeoutMs: options.idleTimeoutMs ?? IDLE_TIMEOUT_MS,
    },
    (_error, events) => {
      try {
        for (const event of events) dispatch(event);
      } finally {
        client.ackEventBatch(events.length);
      }
    },
  );
  client.connect(peer, serverName);
  try {
    return await promise;
  } catch (error) {
    await worker.done;
    throw error;
  }
}

// A TLS alert travels as 0x100 + its number (RFC 9001 section 4.8).
const TLS_ALERT = 0x100;
const ALERT_BAD_CERTIFICATE = 42;
const ALERT_NO_APPLICATION_PROTOCOL = 120;
// Revoked, expired, unknown, illegal parameter of a certificate; unknown authority; access denied.
const ALERTS_UNTRUSTED: ReadonlySet<number> = new Set([43, 44, 45, 46, 48, 49]);
const CONNECTION_REFUSED = 2;

function connectErrorOf(event: NativeEvent, peer: string, serverName: string): ConnectError {
  const code = event.meta?.errorCode ?? 0;
  if (event.meta?.errorReason === 'idle timeout') {
    return new ConnectError('timeout', `no answer from ${peer}`);
  }
  const alert = code - TLS_ALERT;
  if (alert === ALERT_BAD_CERTIFICATE) {
    return new ConnectError('wrong-server-name', `the certificate of ${peer} is not for the name ${serverName}`);
  }
  if (ALERTS_UNTRUSTED.has(alert)) {
    const why = alert === 45 ? 'has expired or is not valid yet' : 'is not trusted';
    return new ConnectError('untrusted-certificate', `the certificate of ${peer} ${why}`);
  }
  if (alert === ALERT_NO_APPLICATION_PROTOCOL) {
    return new ConnectError('handshake', `${peer} is not a quicprochat server`);
  }
  if (code === CONNECTION_REFUSED || code === CloseCode.shutdown) {
    return new ConnectError('refused', `${peer} refused the connection`);
  }
  return new ConnectError('handshake', `the handshake with ${peer} failed (code ${code})`);
}

function defaultServerName(host: string): string {
  if (isIP(host) === 0) return host;
  if (host === '::1' || host.startsWith('127.')) return 'localhost';
  throw new ConnectError('bad-address', `${host} is an IP address: name the server as well`);
}

async function resolveHost(host: string): Promise<string[]> {
  if (isIP(host) !== 0) return [host];
  try {
    const found = await lookup(host, { all: true, order: 'ipv4first' });
    return found.map((entry) => entry.address);
  } catch {
    throw new ConnectError('bad-address', `the host name ${host} is unknown`);
  }
}

function formatAddress(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

function trustAnchorPem(anchor: Uint8Array | undefined): Uint8Array {
  if (anchor === undefined) return Buffer.from(getCACertificates('system').join('\n'));
  const text = Buffer.from(anchor.buffer, anchor.byteOffset, anchor.length);
  const blocks = text.toString('latin1').match(PEM_CERTIFICATE);
  try {
    // Parsed and written anew, so that what reaches the engine is certificates and nothing else.
    const parsed = (blocks ?? [text]).map((one) => new X509Certificate(one).toString());
    return Buffer.from(parsed.join('\n'));
  } catch {
    throw new ConnectError('bad-trust-anchor', 'the trust anchor is not a certificate (PEM or DER)');
  }
}

const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

// The engine does not report that nothing listens on a port; a connected UDP socket does.
function probePort(address: string, port: number, refused: () => void): { stop(): void } {
  const socket = createSocket(isIP(address) === 6 ? 'udp6' : 'udp4');
  let stopped = false;
  const stop = (): void => {
    if (stopped) return;
    stopped = true;
    socket.close();
  };
  socket.on('error', (error: Error & { code?: string }) => {
    stop();
    if (error.code === 'ECONNREFUSED') refused();
  });
  socket.connect(port, address, () => {
    // Too short to be QUIC: a server drops it.
    if (!stopped) socket.send(NOTHING);
  });
  return { stop };
}
