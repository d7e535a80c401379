// One QUIC connection and its streams on top of the engine: gathering small writes, following the
// engine's back-pressure, and keeping what arrives before there is a handler.
import {
  CLOSE_REASON_MAX,
  CloseCode,
  type CloseReason,
  type Connection,
  type ConnectionHandler,
  type StreamEnd,
  type StreamHandler,
  type TransportStream,
} from './connection.ts';
import { EventType, type NativeEvent, type Party, type SendOutcome, type Turns } from './quic-engine.node.ts';

/** What a connection asks of its engine. */
export interface ConnectionEngine {
  readonly turns: Turns;
  openStream(): number | undefined;
  send(streamId: number, bytes: Uint8Array, fin: boolean): SendOutcome;
  resetStream(streamId: number, code: number): void;
  close(code: number, reason: string): void;
}

/** The dispatcher refuses calls on streams beyond 64; the engine refuses to open more than these. */
export const STREAMS_MAX = 160;

// `write` asks for a pause above the first; `onDrain` comes at the second.
const HIGH_WATER_BYTES = 256 * 1024;
const LOW_WATER_BYTES = 64 * 1024;
// A push stream that arrives before `start` may bring this much.
const EARLY_BYTES_MAX = 1024 * 1024;

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
  bufferedBytes = 0;
  handler: StreamHandler | undefined;
  early: Uint8Array[] | undefined;
  readonly #connection: QuicConnection;
  readonly #engine: ConnectionEngine;
  #chunks: Chunk[] = [];
  #gathering: Chunk | undefined;
  #dirty = false;
  #blocked = false;
  #wantsDrain = false;
  #finWanted = false;
  #finSent: boolean;
  #finReceived: boolean;
  #over = false;

  constructor(
    connection: QuicConnection,
    engine: ConnectionEngine,
    id: number,
    opener: 'here' | 'peer',
    kind: 'bidi' | 'push',
  ) {
    this.#connection = connection;
    this.#engine = engine;
    this.id = id;
    this.#finSent = kind === 'push' && opener === 'peer';
    this.#finReceived = kind === 'push' && opener === 'here';
  }

  write(head: Uint8Array, body: Uint8Array = NOTHING): boolean {
    if (this.#over || this.#finWanted || this.#finSent) return true;
    if (head.length > GATHER_BODY_BYTES_MAX) {
      // A Buffer's own slice() would copy nothing.
      this.#append(new Uint8Array(head));
      this.#append(body);
    } else if (body.length > GATHER_BODY_BYTES_MAX) {
      this.#gather(head, NOTHING);
      this.#append(body);
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

  received(buffer: Uint8Array): void {
    if (this.#over || this.#finReceived) return;
    // The engine gives Buffers, whose slice() does not copy: no portable code may meet one.
    const bytes = new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.length);
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
    this.#schedule();
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
      this.#connection.wrote = true;
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
      this.#connection.wrote = true;
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
    this.#engine.turns.written(this);
  }

  #append(bytes: Uint8Array): void {
    this.#gathering = undefined;
    if (bytes.length > 0) this.#chunks.push({ bytes, gather: false, end: bytes.length, sent: 0 });
  }

  #gather(head: Uint8Array, body: Uint8Array): void {
    const bytes = head.length + body.length;
    let chunk = this.#gathering;
    if (chunk === undefined || chunk.end + bytes > chunk.bytes.length) {
      const spare = spareGatherBuffers.pop() ?? new Uint8Array(GATHER_BYTES);
      chunk = { bytes: spare, gather: true, end: 0, sent: 0 };
      this.#gathering = chunk;
      this.#chunks.push(chunk);
    }
    const { bytes: buffer } = chunk;
    let { end } = chunk;
    // Faster than `set` for the few bytes of a header.
    for (let i = 0; i < head.length; i += 1) buffer[end++] = head[i] as number;
    if (body.length > 0) buffer.set(body, end);
    chunk.end = end + body.length;
  }

  #drop(): void {
    this.#chunks = [];
    this.#gathering = undefined;
    this.bufferedBytes = 0;
  }
}

export class QuicConnection implements Connection, Party {
  readonly peer: string;
  readonly streamsMax = STREAMS_MAX;
  closed: CloseReason | undefined;
  /** Whether something has come from the peer since this was last cleared, for keepalive. */
  heard = false;
  /** Likewise, whether anything was sent. */
  wrote = false;
  readonly #engine: ConnectionEngine;
  readonly #streams = new Map<number, QuicStream>();
  readonly #firstPushId: 2 | 3;
  #nextPushId: number;
  #handler: ConnectionHandler | undefined;
  #waiting: QuicStream[] = [];
  #earlyBytes = 0;
  #closeTold = false;

  constructor(engine: ConnectionEngine, peer: string, role: 'client' | 'server') {
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
    this.#engine.turns.forget(this);
    queueMicrotask(() => this.#tellClosed());
  }

  overrun(): void {
    this.close(CloseCode.limits, 'more than its share is waiting');
  }

  /** The connection has ended without us. */
  ended(reason: CloseReason): void {
    if (this.closed !== undefined) return;
    this.closed = reason;
    this.#engine.turns.forget(this);
    this.#tellClosed();
  }

  dispatch(event: NativeEvent): void {
    if (this.closed !== undefined) return;
    const { streamId } = event;
    switch (event.eventType) {
      case EventType.data:
      case EventType.newStream: {
        this.heard = true;
        const stream = this.#streams.get(streamId) ?? this.#accept(streamId);
        if (stream === undefined) return;
        if (event.data !== undefined && event.data.length > 0) stream.received(event.data);
        if (event.fin === true) stream.receivedEnd();
        return;
      }
      case EventType.finished:
        this.#streams.get(streamId)?.receivedEnd();
        return;
      case EventType.drain:
        this.#streams.get(streamId)?.unblock();
        return;
      case EventType.blocked:
        this.#streams.get(streamId)?.block();
        return;
      case EventType.writeReady:
        for (const stream of this.#streams.values()) stream.unblock();
        return;
      case EventType.reset:
      case EventType.error: {
        const stream = this.#streams.get(streamId);
        if (stream === undefined) return;
        // Without this the engine reports the same stream again and again.
        stream.abandon(CloseCode.cancelled);
        stream.finish('reset');
        return;
      }
      case EventType.pong:
        this.heard = true;
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

/** Why the engine says a session ended. */
export function closeReasonOf(event: NativeEvent): CloseReason {
  const code = event.meta?.errorCode ?? 0;
  const reason = (event.meta?.errorReason ?? '').slice(0, CLOSE_REASON_MAX);
  if (reason === 'idle timeout') return { kind: 'lost', code: 0, reason: 'no sign of life' };
  return { kind: 'peer', code, reason };
}
