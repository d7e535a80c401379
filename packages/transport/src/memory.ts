// Binding without a network: two ends in one process, for tests and for a server and client that live
// together. Bytes arrive in a later microtask, in order; back-pressure works as on a real network.
//
//   write → queue of the stream → microtask → peer's onData
import {
  CLOSE_REASON_MAX,
  type CloseReason,
  type Connection,
  type ConnectionHandler,
  type StreamEnd,
  type StreamHandler,
  type TransportStream,
} from './connection.ts';

/** How the pair behaves. */
export interface MemoryOptions {
  /** Streams one side may have open at once. Default 160. */
  readonly streamsMax?: number;
  /** Deliver at most this many bytes at once, to exercise decoders. Default: as written. */
  readonly chunkBytes?: number;
  /** `write` returns false above this; `onDrain` comes at half of it. Default 256 KiB. */
  readonly highWaterBytes?: number;
  /** Where the client seems to come from: the `peer` of the server's end. Default `memory:client`. */
  readonly clientPeer?: string;
}

/** One end of the pair, with what tests need beyond a connection. */
export interface MemoryConnection extends Connection {
  /** Stops delivering to this end: the other end sees a peer that does not read. */
  pauseReading(): void;
  resumeReading(): void;
  /** Ends both sides as a network failure would. */
  lose(): void;
}

/** A connected pair. Whatever either side does shows on the other one microtask later. */
export function memoryPair(options: MemoryOptions = {}): {
  client: MemoryConnection;
  server: MemoryConnection;
} {
  const client = new End('memory:server', 'client', options);
  const server = new End(options.clientPeer ?? 'memory:client', 'server', options);
  client.other = server;
  server.other = client;
  return { client, server };
}

const DEFAULT_HIGH_WATER_BYTES = 256 * 1024;
const DEFAULT_STREAMS_MAX = 160;

class End implements MemoryConnection {
  readonly peer: string;
  readonly streamsMax: number;
  readonly chunkBytes: number;
  readonly highWaterBytes: number;
  closed: CloseReason | undefined;
  other!: End;
  paused = false;
  readonly #streams = new Set<Half>();
  #handler: ConnectionHandler | undefined;
  #waiting: Half[] = [];
  #nextBidi: number;
  #nextPush: number;
  #openBidi = 0;

  constructor(peer: string, role: 'client' | 'server', options: MemoryOptions) {
    this.peer = peer;
    this.streamsMax = options.streamsMax ?? DEFAULT_STREAMS_MAX;
    this.chunkBytes = options.chunkBytes ?? Infinity;
    this.highWaterBytes = options.highWaterBytes ?? DEFAULT_HIGH_WATER_BYTES;
    this.#nextBidi = role === 'client' ? 0 : 1;
    this.#nextPush = role === 'client' ? 2 : 3;
  }

  start(handler: ConnectionHandler): void {
    if (this.#handler !== undefined) throw new Error('started twice');
    this.#handler = handler;
    for (const half of this.#waiting.splice(0)) this.#introduce(half);
    if (this.closed !== undefined) handler.onClose(this.closed);
  }

  openStream(handler: StreamHandler): TransportStream | undefined {
    if (this.closed !== undefined || this.#openBidi >= this.streamsMax) return undefined;
    const id = this.#nextBidi;
    this.#nextBidi += 4;
    return this.#open(id, 'bidi', handler);
  }

  openPushStream(handler: StreamHandler): TransportStream | undefined {
    if (this.closed !== undefined) return undefined;
    const id = this.#nextPush;
    this.#nextPush += 4;
    return this.#open(id, 'push', handler);
  }

  #open(id: number, kind: 'bidi' | 'push', handler: StreamHandler): TransportStream {
    const near = new Half(id, kind, this, true);
    const far = new Half(id, kind, this.other, false);
    near.far = far;
    far.far = near;
    near.handler = handler;
    this.#streams.add(near);
    this.other.#streams.add(far);
    if (kind === 'bidi') this.#openBidi += 1;
    else {
      near.readEnded = true;
      far.writeEnded = true;
    }
    queueMicrotask(() => this.other.#accept(far));
    return near;
  }

  #accept(half: Half): void {
    if (this.closed !== undefined) return;
    if (this.#handler === undefined) this.#waiting.push(half);
    else this.#introduce(half);
  }

  #introduce(half: Half): void {
    const handler = this.#handler?.onStream(half, half.kind);
    if (handler === undefined) half.reset(0);
    else {
      half.handler = handler;
      half.schedule();
    }
  }

  forget(half: Half): void {
    this.#streams.delete(half);
    if (half.kind === 'bidi' && half.openedHere) this.#openBidi -= 1;
  }

  pauseReading(): void {
    this.paused = true;
  }

  resumeReading(): void {
    this.paused = false;
    for (const half of this.#streams) half.schedule();
  }

  close(code: number, reason: string): void {
    if (this.closed !== undefined) return;
    const text = reason.slice(0, CLOSE_REASON_MAX);
    this.#finish({ kind: 'local', code, reason: text });
    this.other.#finish({ kind: 'peer', code, reason: text });
  }

  lose(): void {
    this.#finish({ kind: 'lost', code: 0, reason: 'the network failed' });
    this.other.#finish({ kind: 'lost', code: 0, reason: 'the network failed' });
  }

  #finish(reason: CloseReason): void {
    if (this.closed !== undefined) return;
    this.closed = reason;
    queueMicrotask(() => {
      for (const half of this.#streams) half.finish('lost');
      this.#handler?.onClose(reason);
    });
  }
}

class Half implements TransportStream {
  readonly id: number;
  readonly kind: 'bidi' | 'push';
  readonly owner: End;
  readonly openedHere: boolean;
  far!: Half;
  handler: StreamHandler | undefined;
  // What the other side wrote and this side has not been given.
  readonly #inbox: Uint8Array[] = [];
  inboxBytes = 0;
  farEnded = false;
  readEnded = false;
  writeEnded = false;
  #over = false;
  #scheduled = false;
  #needsDrain = false;

  constructor(id: number, kind: 'bidi' | 'push', end: End, openedHere: boolean) {
    this.id = id;
    this.kind = kind;
    this.owner = end;
    this.openedHere = openedHere;
  }

  get bufferedBytes(): number {
    return this.far.inboxBytes;
  }

  write(head: Uint8Array, body?: Uint8Array): boolean {
    if (this.writeEnded || this.#over || this.owner.closed !== undefined) return true;
    this.far.#receive(head.slice());
    if (body !== undefined && body.length > 0) this.far.#receive(body);
    if (this.far.inboxBytes <= this.owner.highWaterBytes) return true;
    this.#needsDrain = true;
    return false;
  }

  end(): void {
    if (this.writeEnded || this.#over) return;
    this.writeEnded = true;
    this.far.farEnded = true;
    this.far.schedule();
    this.#settle();
  }

  reset(_code: number): void {
    if (this.#over) return;
    queueMicrotask(() => {
      this.finish('reset');
      this.far.finish('reset');
    });
    this.writeEnded = true;
    this.#inbox.length = 0;
    this.inboxBytes = 0;
    this.readEnded = true;
  }

  #receive(bytes: Uint8Array): void {
    if (this.readEnded || this.#over) return;
    this.#inbox.push(bytes);
    this.inboxBytes += bytes.length;
    this.schedule();
  }

  schedule(): void {
    if (this.#scheduled || this.#over) return;
    this.#scheduled = true;
    queueMicrotask(() => this.#deliver());
  }

  #deliver(): void {
    this.#scheduled = false;
    if (this.#over || this.owner.paused || this.handler === undefined) return;
    for (let next = this.#inbox.shift(); next !== undefined; next = this.#inbox.shift()) {
      if (next.length > this.owner.chunkBytes) {
        this.#inbox.unshift(next.subarray(this.owner.chunkBytes));
        next = next.subarray(0, this.owner.chunkBytes);
      }
      this.inboxBytes -= next.length;
      this.handler.onData(next);
      if (this.#over || this.owner.paused) break;
    }
    this.far.#drained();
    if (this.farEnded && !this.readEnded && this.#inbox.length === 0 && !this.#over) {
      this.readEnded = true;
      this.handler.onEnd();
      this.#settle();
    }
  }

  #drained(): void {
    if (!this.#needsDrain || this.bufferedBytes > this.owner.highWaterBytes / 2) return;
    this.#needsDrain = false;
    if (!this.#over) this.handler?.onDrain();
  }

  #settle(): void {
    if (!this.readEnded || !this.writeEnded || this.#over) return;
    queueMicrotask(() => this.finish('finished'));
  }

  finish(end: StreamEnd): void {
    if (this.#over) return;
    this.#over = true;
    this.#inbox.length = 0;
    this.inboxBytes = 0;
    this.owner.forget(this);
    this.handler?.onClose(end);
  }
}
