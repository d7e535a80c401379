// The calling side (DESIGN section 3): many calls on few streams.
//
//   call → encode → admission (256 in flight, 8 MiB) → shared stream, or a kept stream of its own
//   answer → request id → the call's promise          push frame → onPush
//
// A call ends once: answer, deadline, abort or connection lost, whichever comes first. A call given up
// here sends Cancel and keeps its request id until the server has answered, so that an id never names
// two calls. Nothing is retried.
import {
  type DescMessage,
  type MessageInitShape,
  type MessageShape,
  create,
  fromBinary,
  toBinary,
} from '@bufbuild/protobuf';
import { ErrorSchema, Status } from '@quicprochat/proto';
import { type Clock, Deadlines, systemClock } from './clock.ts';
import {
  CloseCode,
  type CloseReason,
  type Connection,
  type StreamEnd,
  type StreamHandler,
  type TransportStream,
} from './connection.ts';
import { ConnectionLost, RpcError } from './errors.ts';
import {
  CANCEL_METHOD_ID,
  FrameDecoder,
  type FrameVerdict,
  PAYLOAD_BYTES_MAX,
  REQUEST_HEADER_BYTES,
  SHARED_PAYLOAD_BYTES_MAX,
  encodeRequestHeader,
} from './framing.ts';
import type { MethodDescriptor } from './method.ts';

/** How a client behaves; every bound has the protocol's default. */
export interface RpcClientOptions {
  /** An event the server pushed, in order. The payload is the handler's; copy what it keeps long. */
  readonly onPush?: (eventType: number, payload: Uint8Array) => void;
  /** The connection has ended; every call has already failed. */
  readonly onClose?: (reason: CloseReason) => void;
  readonly clock?: Clock;
  /** Calls sent and not answered. More wait here. Default 256, the server's limit. */
  readonly inFlightMax?: number;
  /** Request bytes sent and not answered. More wait here. Default 8 MiB. */
  readonly requestBytesMax?: number;
  /** Streams of their own open at once. Default 16. */
  readonly ownStreamsMax?: number;
  /** Idle ones kept for reuse. Default 4. */
  readonly ownStreamsKept?: number;
}

/** Per call. */
export interface CallOptions {
  /** From now to the answer, waiting included; the method's own by default. Milliseconds. */
  readonly timeoutMs?: number;
  /** Gives the call up: it fails with status cancelled and the server is told. */
  readonly signal?: AbortSignal;
}

interface Call {
  readonly method: MethodDescriptor;
  readonly payload: Uint8Array;
  readonly deadline: number;
  readonly resolve: (response: never) => void;
  readonly reject: (error: Error) => void;
  readonly unlisten: (() => void) | undefined;
  /** `waiting` → `sent` → `done`; `abandoned` is done here but not yet answered. */
  state: 'waiting' | 'sent' | 'abandoned' | 'done';
  stream: ClientStream | undefined;
  id: number;
}

const ERROR_BYTES_MAX = 64 * 1024;
const REQUEST_ID_MAX = 0xffff_ffff;
const HEADER = new Uint8Array(REQUEST_HEADER_BYTES);

/** Calls methods over one connection and receives its push events. Takes the connection over. */
export class RpcClient {
  readonly #connection: Connection;
  readonly #options: RpcClientOptions;
  readonly #clock: Clock;
  readonly #inFlightMax: number;
  readonly #requestBytesMax: number;
  readonly #ownStreamsMax: number;
  readonly #ownStreamsKept: number;
  readonly #deadlines: Deadlines<Call>;
  readonly #waitingShared = new Set<Call>();
  readonly #waitingOwn = new Set<Call>();
  #shared: ClientStream | undefined;
  readonly #streams = new Set<ClientStream>();
  readonly #ownIdle: ClientStream[] = [];
  #ownOpen = 0;
  #inFlight = 0;
  #requestBytes = 0;
  #goingAway = false;
  #lostCalls: Call[] = [];
  #lost: ConnectionLost | undefined;

  constructor(connection: Connection, options: RpcClientOptions = {}) {
    this.#connection = connection;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#inFlightMax = options.inFlightMax ?? 256;
    this.#requestBytesMax = options.requestBytesMax ?? 8 * 1024 * 1024;
    this.#ownStreamsMax = Math.min(options.ownStreamsMax ?? 16, connection.streamsMax - 1);
    this.#ownStreamsKept = options.ownStreamsKept ?? 4;
    this.#deadlines = new Deadlines(
      this.#clock,
      () => this.#unsettled(),
      (call) => this.#giveUp(call, localError(Status.DEADLINE_EXCEEDED, '')),
    );
    connection.start({
      onStream: (_stream, kind) => (kind === 'push' ? this.#acceptPush() : undefined),
      onClose: (reason) => this.#onClose(reason),
    });
  }

  /** Why the connection ended, once it has. */
  get closed(): CloseReason | undefined {
    return this.#connection.closed;
  }

  /** Calls sent and not answered. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /**
   * Calls a method. Resolves with its response.
   * @throws RpcError for every status but ok, for the deadline, the abort signal and a request above the
   *   method's limit (the last three with `local` set); ConnectionLost when the connection ended first
   */
  call<I extends DescMessage, O extends DescMessage>(
    method: MethodDescriptor<I, O>,
    request: MessageInitShape<I>,
    options?: CallOptions,
  ): Promise<MessageShape<O>> {
    return new Promise<MessageShape<O>>((resolve, reject) => {
      if (this.#lost !== undefined) throw this.#lost;
      if (this.#goingAway) {
        throw localError(Status.UNAVAILABLE, 'the server is going away');
      }
      const payload = toBinary(method.input, create(method.input, request));
      if (payload.length > method.requestMax || payload.length > PAYLOAD_BYTES_MAX) {
        throw localError(Status.TOO_LARGE, 'the request is larger than its method allows');
      }
      const signal = options?.signal;
      let unlisten: (() => void) | undefined;
      if (signal !== undefined) {
        if (signal.aborted) throw localError(Status.CANCELLED, '');
        const abort = (): void => this.#giveUp(call, localError(Status.CANCELLED, ''));
        signal.addEventListener('abort', abort, { once: true });
        unlisten = () => signal.removeEventListener('abort', abort);
      }
      const call: Call = {
        method,
        payload,
        deadline: this.#clock.now() + (options?.timeoutMs ?? method.timeoutMs),
        resolve,
        reject,
        unlisten,
        state: 'waiting',
        stream: undefined,
        id: 0,
      };
      this.#deadlines.added(call.deadline);
      const queue = this.#travelsAlone(call) ? this.#waitingOwn : this.#waitingShared;
      if (queue.size > 0 || !this.#send(call)) queue.add(call);
    });
  }

  /** Ends the connection; calls in flight fail with ConnectionLost. */
  close(reason = 'done'): void {
    this.#connection.close(CloseCode.none, reason);
  }

  #travelsAlone(call: Call): boolean {
    if (this.#ownStreamsMax < 1) return false;
    return call.method.stream === 'own' || call.payload.length > SHARED_PAYLOAD_BYTES_MAX;
  }

  // Sends now, or returns false when a bound says to wait.
  #send(call: Call): boolean {
    const bytes = call.payload.length;
    if (this.#inFlight >= this.#inFlightMax) return false;
    if (this.#inFlight > 0 && this.#requestBytes + bytes > this.#requestBytesMax) return false;
    const stream = this.#travelsAlone(call) ? this.#ownStream() : this.#sharedStream();
    if (stream === undefined) return false;
    this.#inFlight += 1;
    this.#requestBytes += bytes;
    call.state = 'sent';
    call.stream = stream;
    stream.send(call);
    return true;
  }

  #sharedStream(): ClientStream | undefined {
    return (this.#shared ??= this.#openStream(true));
  }

  #ownStream(): ClientStream | undefined {
    const idle = this.#ownIdle.pop();
    if (idle !== undefined) return idle;
    if (this.#ownOpen >= this.#ownStreamsMax) return undefined;
    const stream = this.#openStream(false);
    if (stream !== undefined) this.#ownOpen += 1;
    return stream;
  }

  #openStream(shared: boolean): ClientStream | undefined {
    const events: ClientStreamEvents = {
      answered: (call) => this.#release(call),
      idle: (stream) => this.#keepOrEnd(stream),
      over: (stream, unanswered, end) => this.#streamOver(stream, unanswered, end),
    };
    const stream = new ClientStream(shared, events);
    const transport = this.#connection.openStream(stream);
    if (transport === undefined) return undefined;
    stream.transport = transport;
    this.#streams.add(stream);
    return stream;
  }

  #release(call: Call): void {
    this.#inFlight -= 1;
    this.#requestBytes -= call.payload.length;
    if (this.#waitingShared.size > 0 || this.#waitingOwn.size > 0 || this.#goingAway) this.#pump();
  }

  #pump(): void {
    for (const queue of [this.#waitingShared, this.#waitingOwn]) {
      for (const call of queue) {
        if (!this.#send(call)) break;
        queue.delete(call);
      }
    }
    if (this.#goingAway && this.#inFlight === 0) this.close('the server is going away');
  }

  #keepOrEnd(stream: ClientStream): void {
    if (this.#ownIdle.length < this.#ownStreamsKept || this.#waitingOwn.size > 0) {
      this.#ownIdle.push(stream);
      this.#pump();
      while (this.#ownIdle.length > this.#ownStreamsKept) this.#ownIdle.shift()?.transport.end();
    } else {
      stream.transport.end();
    }
  }

  #streamOver(stream: ClientStream, unanswered: Iterable<Call>, end: StreamEnd): void {
    this.#streams.delete(stream);
    if (stream === this.#shared) this.#shared = undefined;
    else if (!stream.shared) {
      this.#ownOpen -= 1;
      const idle = this.#ownIdle.indexOf(stream);
      if (idle >= 0) this.#ownIdle.splice(idle, 1);
    }
    // A lost connection fails its calls in #onClose, with the reason.
    if (end === 'lost') this.#lostCalls.push(...unanswered);
    else
      for (const call of unanswered) {
        failCall(call, new ConnectionLost('the server closed the stream before it answered'));
        this.#release(call);
      }
    if (end !== 'lost') this.#pump();
  }

  *#unsettled(): Iterable<Call> {
    yield* this.#waitingShared;
    yield* this.#waitingOwn;
    for (const stream of this.#streams) yield* stream.unsettled();
  }

  #giveUp(call: Call, error: RpcError): void {
    const { state } = call;
    failCall(call, error);
    if (state === 'waiting') {
      this.#waitingShared.delete(call);
      this.#waitingOwn.delete(call);
    } else if (state === 'sent') {
      call.state = 'abandoned';
      call.stream?.cancel(call);
    }
  }

  #acceptPush(): StreamHandler {
    const onPush = this.#options.onPush;
    const decoder = new FrameDecoder('push', {
      onHeader: () => (onPush === undefined ? 'skip' : 'take'),
      onFrame: (eventType, _id, payload) => onPush?.(eventType, payload),
    });
    return {
      onData: (bytes) => {
        if (decoder.push(bytes) === 'oversized') {
          this.#connection.close(CloseCode.protocol, 'push frame too large');
        }
      },
      // The server ends its push stream once its last answers are on the way.
      onEnd: () => {
        this.#goingAway = true;
        this.#pump();
      },
      onDrain: () => {},
      onClose: () => {},
    };
  }

  #onClose(reason: CloseReason): void {
    const why =
      reason.kind === 'local'
        ? 'the connection was closed here'
        : reason.kind === 'peer'
          ? 'the server closed the connection'
          : 'the connection was lost';
    const lost = new ConnectionLost(why, reason.kind === 'peer' ? reason.code : 0);
    this.#lost = lost;
    this.#deadlines.stop();
    const unsettled = [...this.#waitingShared, ...this.#waitingOwn, ...this.#lostCalls];
    this.#waitingShared.clear();
    this.#waitingOwn.clear();
    this.#lostCalls = [];
    for (const call of unsettled) failCall(call, lost);
    this.#options.onClose?.(reason);
  }
}

interface ClientStreamEvents {
  /** The server has answered; the call's share of the bounds is free. */
  answered(call: Call): void;
  /** A stream of its own has nothing in flight. */
  idle(stream: ClientStream): void;
  over(stream: ClientStream, unanswered: Iterable<Call>, end: StreamEnd): void;
}

/** One bidirectional stream and the calls in flight on it, by request id. */
class ClientStream implements StreamHandler {
  readonly shared: boolean;
  transport!: TransportStream;
  readonly #events: ClientStreamEvents;
  readonly #decoder: FrameDecoder;
  readonly #calls = new Map<number, Call>();
  #nextId = 1;

  constructor(shared: boolean, events: ClientStreamEvents) {
    this.shared = shared;
    this.#events = events;
    this.#decoder = new FrameDecoder('response', {
      onHeader: (status, id, bytes) => this.#onHeader(status, id, bytes),
      onFrame: (status, id, payload) => this.#onFrame(status, id, payload),
    });
  }

  send(call: Call): void {
    let id = this.#nextId;
    while (this.#calls.has(id)) id = id === REQUEST_ID_MAX ? 0 : id + 1;
    this.#nextId = id === REQUEST_ID_MAX ? 0 : id + 1;
    call.id = id;
    this.#calls.set(id, call);
    this.transport.write(encodeRequestHeader(HEADER, call.method.id, id, call.payload.length), call.payload);
  }

  cancel(call: Call): void {
    // Behind a large request still being sent, Cancel would arrive too late; a reset does not.
    if (!this.shared && this.transport.bufferedBytes > 0) this.transport.reset(CloseCode.cancelled);
    else this.transport.write(encodeRequestHeader(HEADER, CANCEL_METHOD_ID, call.id, 0));
  }

  *unsettled(): Iterable<Call> {
    for (const call of this.#calls.values()) if (call.state === 'sent') yield call;
  }

  #onHeader(status: number, id: number, bytes: number): FrameVerdict {
    const call = this.#calls.get(id);
    if (call === undefined) {
      this.transport.reset(CloseCode.protocol);
      return 'stop';
    }
    if (call.state !== 'sent') {
      this.#answered(id, call);
      return 'skip';
    }
    const max = status === Status.OK_UNSPECIFIED ? call.method.responseMax : ERROR_BYTES_MAX;
    if (bytes <= max) return 'take';
    failCall(call, localError(Status.TOO_LARGE, 'the answer is larger than its method allows'));
    this.#answered(id, call);
    return 'skip';
  }

  #onFrame(status: number, id: number, payload: Uint8Array): void {
    const call = this.#calls.get(id);
    if (call === undefined) return;
    if (call.state === 'sent') {
      if (status === Status.OK_UNSPECIFIED) succeedCall(call, payload);
      else failCall(call, decodeError(status, payload));
    }
    this.#answered(id, call);
  }

  #answered(id: number, call: Call): void {
    this.#calls.delete(id);
    this.#events.answered(call);
    if (!this.shared && this.#calls.size === 0) this.#events.idle(this);
  }

  onData(bytes: Uint8Array): void {
    if (this.#decoder.push(bytes) === 'oversized') this.transport.reset(CloseCode.protocol);
  }

  onEnd(): void {
    this.transport.end();
    if (this.#calls.size > 0) this.transport.reset(CloseCode.cancelled);
  }

  onDrain(): void {}

  onClose(end: StreamEnd): void {
    this.#decoder.stop();
    const unanswered = [...this.#calls.values()];
    this.#calls.clear();
    this.#events.over(this, unanswered, end);
  }
}

function settled(call: Call): void {
  call.state = 'done';
  call.unlisten?.();
}

function succeedCall(call: Call, payload: Uint8Array): void {
  settled(call);
  try {
    call.resolve(fromBinary(call.method.output, payload) as never);
  } catch {
    call.reject(localError(Status.INTERNAL, 'the answer is not what its method promises'));
  }
}

function failCall(call: Call, error: Error): void {
  if (call.state === 'done' || call.state === 'abandoned') return;
  settled(call);
  call.reject(error);
}

function localError(status: number, message: string): RpcError {
  return new RpcError(status, message, { local: true });
}

function decodeError(status: number, payload: Uint8Array): RpcError {
  try {
    const { message, hint, retryAfterMs } = fromBinary(ErrorSchema, payload);
    return new RpcError(status, message, { hint, retryAfterMs });
  } catch {
    return new RpcError(status, '');
  }
}
