// The QUIC engine as the binding sees it: the native event-loop classes of @currentspace/http3, which its
// package does not export, and the order in which one turn of the event loop is spent.
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { ConnectError } from './errors.ts';

export interface NativeEvent {
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

export interface SendOutcome {
  readonly status: number;
  readonly written: number;
}

export interface NativeEngine {
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

export const EventType = {
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
/** @throws ConnectError `unsupported` */
export function loadNative(): Native {
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

/** What the turns of the event loop are shared among. */
export interface Party {
  /** Handles one event. */
  dispatch(event: NativeEvent): void;
  /** Holds so much that has not been dispatched that it is to be ended. */
  overrun(): void;
  /** Set once nothing more is to be dispatched. */
  readonly closed: object | undefined;
}

export interface Flushable {
  flush(): void;
}

// How long events are handled before everything else gets a turn.
const BUDGET_MS = 1;
// What one connection may have received and not dispatched. Its share of an honest client is 8 MiB.
const QUEUED_BYTES_MAX = 16 * 1024 * 1024;
const EVENT_OVERHEAD_BYTES = 256;
// Above this, all connections together, the engine is asked to pause.
const TOTAL_QUEUED_BYTES_MAX = 128 * 1024 * 1024;
// The engine hands over every piece of data, however small, in a buffer of 16 KiB of which V8 knows only the used part,
// and keeps up to 64 of them per connection once they come back. Small pieces are copied and their buffers given back at
// once; for the large ones V8 has to be told when there is something to collect.
const ENGINE_BUFFER_BYTES = 16 * 1024;
const COPIED_BYTES_MAX = ENGINE_BUFFER_BYTES / 4;
/** Small copies share buffers of this size; whoever keeps one keeps no more than with a buffer of the engine's. */
const SLAB_BYTES = ENGINE_BUFFER_BYTES;
const COLLECT_AFTER_EVENTS = (32 * 1024 * 1024) / ENGINE_BUFFER_BYTES;

/**
 * Spends the turns of the event loop of one engine. Events are dispatched as they come while the turn is
 * young; after that they are queued per connection and served in rotation, so that one peer that floods
 * delays the others by one piece of data and never by its backlog. Everything written in a turn is
 * flushed first thing in the next one, right after the engine's news has been taken in: a handle may
 * name another connection soon after its session has closed, so nothing is sent by stale knowledge.
 */
export class Turns {
  readonly #engine: NativeEngine;
  readonly #now: () => number;
  readonly #queues = new Map<Party, { events: NativeEvent[]; bytes: number }>();
  #dirty: Flushable[] = [];
  #scheduled = false;
  #youngUntil = 0;
  #totalBytes = 0;
  #unacknowledged = 0;
  #dataEvents = 0;

  /** @param now monotonic milliseconds */
  constructor(engine: NativeEngine, now: () => number = () => performance.now()) {
    this.#engine = engine;
    this.#now = now;
  }

  /** To be flushed in the next turn. */
  written(stream: Flushable): void {
    this.#dirty.push(stream);
    this.#schedule();
  }

  /** One event for a party, now or later, in order. */
  received(party: Party, event: NativeEvent): void {
    const { data } = event;
    const isSmall = data !== undefined && data.length > 0 && data.length <= COPIED_BYTES_MAX;
    const kept = isSmall ? { ...event, data: copied(data) } : event;
    if (data !== undefined && !isSmall) this.#dataEvents += 1;
    const queue = this.#queues.get(party);
    if (queue === undefined && this.#now() < this.#youngUntil) {
      party.dispatch(kept);
      return;
    }
    const bytes = EVENT_OVERHEAD_BYTES + (data?.length ?? 0);
    this.#totalBytes += bytes;
    if (queue === undefined) {
      this.#queues.set(party, { events: [kept], bytes });
      this.#schedule();
    } else {
      queue.events.push(kept);
      queue.bytes += bytes;
      if (queue.bytes > QUEUED_BYTES_MAX) {
        this.forget(party);
        party.overrun();
      }
    }
  }

  /** Drops what is queued for a party. */
  forget(party: Party): void {
    const queue = this.#queues.get(party);
    if (queue === undefined) return;
    this.#queues.delete(party);
    this.#totalBytes -= queue.bytes;
  }

  /** Frames one batch of the engine: everything inside counts as its turn, acknowledged at its end. */
  batch(events: readonly NativeEvent[], each: (event: NativeEvent) => void): void {
    this.#begin();
    try {
      for (const event of events) each(event);
    } finally {
      this.#unacknowledged += events.length;
      this.#acknowledge();
    }
  }

  #begin(): void {
    if (this.#youngUntil !== 0) return;
    this.#youngUntil = this.#now() + BUDGET_MS;
    this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#run);
  }

  readonly #run = (): void => {
    this.#scheduled = false;
    const dirty = this.#dirty;
    this.#dirty = [];
    for (const stream of dirty) stream.flush();
    if (this.#dataEvents >= COLLECT_AFTER_EVENTS) {
      this.#dataEvents = 0;
      collectYoung();
    }
    const until = this.#now() + BUDGET_MS;
    while (this.#queues.size > 0 && this.#now() < until) this.#serveNext();
    this.#acknowledge();
    this.#youngUntil = 0;
    if (this.#queues.size > 0) this.#schedule();
  };

  // The first in line gives one event and goes to the end of the line.
  #serveNext(): void {
    for (const [party, queue] of this.#queues) {
      const event = queue.events.shift();
      this.#queues.delete(party);
      if (event === undefined || party.closed !== undefined) {
        this.#totalBytes -= queue.bytes;
        return;
      }
      const bytes = EVENT_OVERHEAD_BYTES + (event.data?.length ?? 0);
      queue.bytes -= bytes;
      this.#totalBytes -= bytes;
      if (queue.events.length > 0) this.#queues.set(party, queue);
      party.dispatch(event);
      return;
    }
  }

  #acknowledge(): void {
    if (this.#unacknowledged === 0 || this.#totalBytes > TOTAL_QUEUED_BYTES_MAX) return;
    this.#engine.ackEventBatch(this.#unacknowledged);
    this.#unacknowledged = 0;
  }
}

let slab = new Uint8Array(0);
let slabUsed = 0;

/** The bytes in memory of V8's own, many pieces in one buffer; the engine's buffer goes back to it. */
function copied(data: Uint8Array): Uint8Array {
  if (slabUsed + data.length > slab.length) {
    slab = new Uint8Array(SLAB_BYTES);
    slabUsed = 0;
  }
  const copy = slab.subarray(slabUsed, slabUsed + data.length);
  copy.set(data);
  slabUsed += data.length;
  const { buffer } = data;
  // Detaching it frees what it was made of, if that was this piece's alone.
  if (buffer instanceof ArrayBuffer && buffer.byteLength === data.length) buffer.transfer(0);
  return copy;
}

type Collect = (options: { type: 'minor' }) => void;
let collect: Collect | undefined;

function collectYoung(): void {
  if (collect === undefined) {
    setFlagsFromString('--expose-gc');
    collect = runInNewContext('gc') as Collect;
  }
  collect({ type: 'minor' });
}

/** Ends an engine's worker thread: asks, and joins it once its last event has come. */
export class Worker {
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

  /** On the engine's last event. */
  stopped(engine: NativeEngine): void {
    // Not from inside the engine's own callback.
    setImmediate(() => {
      engine.joinWorker();
      this.#setDone();
    });
  }
}
