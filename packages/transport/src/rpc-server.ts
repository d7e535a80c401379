// The answering side (DESIGN section 3): frames in, handlers, frames out, everything bounded.
//
//   header → known? allowed? within bounds? → payload → its turn → auth → decode → handler → encode → answer
//              └ no: answered in its turn, the payload dropped as it arrives
//
// Its turn (docs/decisions/0023-pacing.md): `pace` may make a call wait, and so its connection; the calls of one connection
// begin in the order they came. A refusal has a turn too, so that being refused is no faster than being served.
//
// What a connection can hold here: 256 calls, 8 MiB of requests (announced or here) whose calls have not
// ended, 8 MiB of responses and events it has not read, 64 streams. Beyond: `exhausted`, the handler does not run. Far
// beyond: the connection closes. A call that has been answered early (Cancel, deadline) counts until
// its handler has returned or its turn would have come, so cancelling does not buy more work.
import {
  type DescMessage,
  type Message,
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
import { RpcError, statusName } from './errors.ts';
import { fieldsWithin } from './field-count.ts';
import {
  CANCEL_METHOD_ID,
  FrameDecoder,
  type FrameSink,
  type FrameVerdict,
  PAYLOAD_BYTES_MAX,
  PUSH_HEADER_BYTES,
  RESPONSE_HEADER_BYTES,
  encodePushHeader,
  encodeResponseHeader,
} from './framing.ts';
import type { MethodDescriptor } from './method.ts';
import { type AddressShare, RequestMemory } from './request-memory.ts';
import { WaitingLine } from './waiting-line.ts';

/** What the server keeps per connection, for handlers and for pushing. `S` is the server's own state. */
export interface ServerConnection<S> {
  /** Counts up from 1, for logs. */
  readonly id: number;
  /** Address of the peer. */
  readonly peer: string;
  /** Session state of this connection, made by `newState`; handlers change it. */
  state: S;
  /** Set once the connection has ended. */
  readonly closed: CloseReason | undefined;
  /** Aborted when the connection ends. */
  readonly signal: AbortSignal;
  /**
   * Sends an event on the connection's push stream, after those before it. The payload must not change
   * afterwards. Returns false when the peer does not keep up: await `drained` before the next one.
   * Pushing on against that closes the connection.
   */
  push(eventType: number, payload: Uint8Array): boolean;
  /** Resolves with true once the push stream is low, with false once the connection has ended. */
  drained(): Promise<boolean>;
  close(code: number, reason: string): void;
}

/** What a handler knows about its call. */
export interface CallContext<S> {
  readonly connection: ServerConnection<S>;
  readonly method: MethodDescriptor;
  /** Counts the calls of this server up from 1, for logs. */
  readonly sequence: number;
  /** Of the encoded request. */
  readonly requestBytes: number;
  /** Aborted by Cancel, the deadline, a reset stream or a lost connection. */
  readonly signal: AbortSignal;
}

/**
 * Answers one method. An `RpcError` thrown becomes the answer; anything else becomes `internal`, without
 * detail. `bytes` fields of the request are views: copy before keeping them after the answer.
 */
export type Handler<S, I extends DescMessage, O extends DescMessage> = (
  context: CallContext<S>,
  request: MessageShape<I>,
) => MessageInitShape<O> | Promise<MessageInitShape<O>>;

/** A method together with its handler; made by `route`. */
export interface Route<S> {
  readonly method: MethodDescriptor;
  readonly run: (context: CallContext<S>, request: Message) => unknown;
}

/** Binds a handler to its method. */
export function route<S, I extends DescMessage, O extends DescMessage>(
  method: MethodDescriptor<I, O>,
  handler: Handler<S, I, O>,
): Route<S> {
  return {
    method,
    run: (context, request) => handler(context, request as MessageShape<I>),
  };
}

/** Bounds of one connection, and of the whole server where it says so. */
export interface ServerLimits {
  readonly callsMax: number;
  readonly requestBytesMax: number;
  readonly responseBytesMax: number;
  readonly streamsMax: number;
  /**
   * Request bytes of all connections together, as they arrive: announcing many takes nothing from others. The connections
   * of one address hold no more than is still free of it.
   */
  readonly totalRequestBytesMax: number;
}

export const DEFAULT_SERVER_LIMITS: ServerLimits = {
  callsMax: 256,
  requestBytesMax: 8 * 1024 * 1024,
  responseBytesMax: 8 * 1024 * 1024,
  streamsMax: 64,
  totalRequestBytesMax: 256 * 1024 * 1024,
};

// Far beyond: this many times a byte bound or the stream bound, this many refusals without the connection having been
// within its bounds in between, or as many that wait for their turn.
const FAR_BEYOND = 2;
const REFUSALS_IN_A_ROW_MAX = 4096;
const REFUSALS_WAITING_MAX = 4096;

/** When a call may begin, or be told that it may not. */
export type Pace =
  | { readonly kind: 'go'; readonly waitMs: number }
  | { readonly kind: 'refuse'; readonly waitMs: number; readonly error: RpcError };

// How long a client that has all its answers may take to close, when the server goes away. It may be gone without a word.
const FAREWELL_MS = 2000;

/** How a server behaves. */
export interface RpcServerOptions<S> {
  readonly routes: Iterable<Route<S>>;
  /** State for a new connection. */
  readonly newState: (connection: { readonly peer: string; readonly id: number }) => S;
  /** Throws `RpcError` when the caller may not call this method. Runs before the request is decoded. */
  readonly authorize: (context: CallContext<S>) => void | Promise<void>;
  /**
   * Asked once for each call, in the order they came: when its request is here, or, without a context, when it was refused
   * at its header (then only the wait counts). The calls behind it on the connection wait for it. Default: nobody waits.
   */
  readonly pace?: (connection: ServerConnection<S>, context: CallContext<S> | undefined) => Pace;
  /** What counts as one network address, of which many connections hold no more than a share. Default: no shares. */
  readonly addressOf?: (connection: { readonly peer: string; readonly id: number }) => string;
  readonly limits?: Partial<ServerLimits>;
  readonly clock?: Clock;
  /** A connection has ended; its calls are aborted. */
  readonly onDisconnect?: (connection: ServerConnection<S>, reason: CloseReason) => void;
  /**
   * A call has been answered, for metrics and logs. `method` is undefined for an unknown one, `context` for a call that
   * was refused at its header.
   */
  readonly onAnswered?: (
    method: MethodDescriptor | undefined,
    status: number,
    durationMs: number,
    context?: CallContext<S>,
  ) => void;
  /** A handler failed otherwise than by RpcError: our bug. */
  readonly onFault?: (method: MethodDescriptor, error: unknown, context: CallContext<S>) => void;
}

/** Dispatches calls of any number of connections to handlers. */
export class RpcServer<S> {
  readonly #core: Core<S>;

  constructor(options: RpcServerOptions<S>) {
    this.#core = new Core(options);
  }

  /** Takes a connection over; give this to a listener. */
  readonly accept = (connection: Connection): void => {
    if (this.#core.draining) connection.close(CloseCode.shutdown, 'the server is shutting down');
    else new Peer(connection, this.#core).start();
  };

  /** Calls of all connections that are arriving, wait for their turn, or have a handler that runs. */
  get inFlight(): number {
    return this.#core.inFlight;
  }

  get connections(): Iterable<ServerConnection<S>> {
    return this.#core.peers;
  }

  /**
   * Goes away gracefully: no new connections, new calls answered `unavailable`, calls in flight finished
   * and their answers sent, then every connection closed: by the client, or after two seconds by us. What has not
   * finished within `graceMs` is cut.
   */
  async drain(graceMs: number): Promise<void> {
    const core = this.#core;
    core.draining = true;
    const peers = [...core.peers];
    for (const peer of peers) peer.finishAndLeave();
    const all = Promise.all(peers.map((peer) => peer.gone));
    let timer: unknown;
    const late = new Promise<void>((resolve) => {
      timer = core.clock.setTimer(resolve, graceMs);
    });
    await Promise.race([all, late]);
    core.clock.clearTimer(timer);
    for (const peer of core.peers) peer.close(CloseCode.shutdown, 'the server is shutting down');
    await all;
  }

  /** Takes connections again after `drain`. */
  resume(): void {
    this.#core.draining = false;
  }
}

/** What the peers of one server share. */
class Core<S> {
  readonly options: RpcServerOptions<S>;
  readonly routes = new Map<number, Route<S>>();
  readonly limits: ServerLimits;
  readonly clock: Clock;
  readonly peers = new Set<Peer<S>>();
  draining = false;
  inFlight = 0;
  readonly requests: RequestMemory;
  nextId = 1;
  nextSequence = 1;

  constructor(options: RpcServerOptions<S>) {
    this.options = options;
    this.limits = { ...DEFAULT_SERVER_LIMITS, ...options.limits };
    this.clock = options.clock ?? systemClock;
    this.requests = new RequestMemory(this.limits.totalRequestBytesMax);
    for (const entry of options.routes) {
      if (this.routes.has(entry.method.id)) throw new Error(`two handlers: ${entry.method.name}`);
      this.routes.set(entry.method.id, entry);
    }
  }
}

const HEADER = new Uint8Array(RESPONSE_HEADER_BYTES);
const PUSH_HEADER = new Uint8Array(PUSH_HEADER_BYTES);
const EMPTY = new Uint8Array(0);
const AT_ONCE: Pace = { kind: 'go', waitMs: 0 };

class Peer<S> implements ServerConnection<S> {
  readonly core: Core<S>;
  readonly id: number;
  readonly peer: string;
  state: S;
  readonly gone: Promise<void>;
  readonly deadlines: Deadlines<Call<S>>;
  readonly line: WaitingLine;
  readonly share: AddressShare | undefined;
  calls = 0;
  requestBytes = 0;
  readonly #connection: Connection;
  readonly #streams = new Set<ServerStream<S>>();
  readonly #abort = new AbortController();
  #pushStream: TransportStream | undefined;
  #pushBlocked = false;
  #drainWaiters: ((alive: boolean) => void)[] = [];
  #refusals = 0;
  #refusalsWaiting = 0;
  // Whether so much is unsent that it has to be added up before each call.
  #slow = false;
  #leaving = false;
  #left = false;
  #farewell: unknown;
  #setGone!: () => void;

  constructor(connection: Connection, core: Core<S>) {
    this.core = core;
    this.id = core.nextId++;
    this.peer = connection.peer;
    this.#connection = connection;
    this.gone = new Promise((resolve) => {
      this.#setGone = resolve;
    });
    this.deadlines = new Deadlines(
      core.clock,
      () => this.#unanswered(),
      (call) => call.end(Status.DEADLINE_EXCEEDED, 'the server took too long'),
    );
    this.line = new WaitingLine(core.clock);
    this.share = core.requests.join(core.options.addressOf?.(this));
    this.state = core.options.newState(this);
  }

  start(): void {
    this.core.peers.add(this);
    this.#connection.start({
      onStream: (stream, kind) => (kind === 'bidi' ? this.#acceptStream(stream) : undefined),
      onClose: (reason) => this.#onClose(reason),
    });
  }

  get closed(): CloseReason | undefined {
    return this.#connection.closed;
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  close(code: number, reason: string): void {
    this.#connection.close(code, reason);
  }

  push(eventType: number, payload: Uint8Array): boolean {
    if (payload.length > PAYLOAD_BYTES_MAX) throw new RangeError('push payload too large');
    const stream = this.#openPush();
    if (stream === undefined || this.#left) return false;
    const room = stream.write(encodePushHeader(PUSH_HEADER, eventType, payload.length), payload);
    this.#pushBlocked = !room;
    if (stream.bufferedBytes > this.core.limits.responseBytesMax * FAR_BEYOND) {
      this.close(CloseCode.limits, 'events are not being read');
    }
    return room;
  }

  drained(): Promise<boolean> {
    if (this.closed !== undefined) return Promise.resolve(false);
    if (!this.#pushBlocked) return Promise.resolve(true);
    return new Promise((resolve) => this.#drainWaiters.push(resolve));
  }

  /** True when a new call would be beyond the connection's bounds, or the server's. */
  full(requestBytes: number): boolean {
    const { limits, requests } = this.core;
    const within =
      this.calls < limits.callsMax &&
      this.requestBytes + requestBytes <= limits.requestBytesMax &&
      requests.hasRoom(this.share, requestBytes) &&
      !this.#behind();
    if (within) this.#refusals = 0;
    return !within;
  }

  callStarted(call: Call<S>): void {
    this.calls += 1;
    this.core.inFlight += 1;
    this.requestBytes += call.requestBytes;
    this.deadlines.added(call.deadline);
  }

  /** Nothing of the call's request is kept any more. */
  requestOver(call: Call<S>): void {
    this.requestBytes -= call.requestBytes;
    this.core.requests.hold(this.share, -call.heldBytes);
  }

  /** The call has been answered, and its handler has returned or will never run. */
  callOver(): void {
    this.calls -= 1;
    this.core.inFlight -= 1;
    if (this.#leaving && this.calls === 0) this.#leave();
  }

  refused(): void {
    this.#refusals += 1;
    if (this.#refusals > REFUSALS_IN_A_ROW_MAX) this.close(CloseCode.limits, 'too many calls');
  }

  /** Runs `answer`, which refuses a call at its header, in its turn. */
  refuseInTurn(answer: () => void): void {
    const { waitMs } = this.pace(undefined);
    this.#refusalsWaiting += 1;
    if (this.#refusalsWaiting > REFUSALS_WAITING_MAX) {
      this.close(CloseCode.limits, 'too many calls');
      return;
    }
    this.line.take(waitMs, () => {
      this.#refusalsWaiting -= 1;
      answer();
    });
  }

  pace(context: CallContext<S> | undefined): Pace {
    return this.core.options.pace?.(this, context) ?? AT_ONCE;
  }

  /** Something was written: far beyond the bound, the connection ends. */
  written(stream: TransportStream): void {
    const { responseBytesMax, streamsMax } = this.core.limits;
    // No stream above this share: all together are within the bound.
    if (stream.bufferedBytes <= responseBytesMax / (streamsMax * FAR_BEYOND)) return;
    const unsent = this.#unsentBytes();
    this.#slow = unsent > responseBytesMax / FAR_BEYOND;
    if (unsent > responseBytesMax * FAR_BEYOND) {
      this.close(CloseCode.limits, 'answers are not being read');
    }
  }

  streamOver(stream: ServerStream<S>): void {
    this.#streams.delete(stream);
  }

  finishAndLeave(): void {
    this.#leaving = true;
    if (this.calls === 0) this.#leave();
  }

  // The end of the push stream tells the client that nothing more will come; it then closes.
  #leave(): void {
    if (this.#left) return;
    this.#left = true;
    // Refusals, as no call is left.
    this.line.hurry();
    this.#openPush()?.end();
    this.#waitFarewell();
  }

  #waitFarewell(): void {
    this.#farewell = this.core.clock.setTimer(() => {
      // Whoever is still reading is not gone; `graceMs` bounds that.
      if (this.#unsentBytes() > 0) this.#waitFarewell();
      else this.close(CloseCode.shutdown, 'the server is shutting down');
    }, FAREWELL_MS);
  }

  #behind(): boolean {
    if (!this.#slow) return false;
    const unsent = this.#unsentBytes();
    this.#slow = unsent > this.core.limits.responseBytesMax / FAR_BEYOND;
    return unsent > this.core.limits.responseBytesMax;
  }

  *#unanswered(): Iterable<Call<S>> {
    for (const stream of this.#streams) yield* stream.calls.values();
  }

  #unsentBytes(): number {
    let bytes = this.#pushStream?.bufferedBytes ?? 0;
    for (const stream of this.#streams) bytes += stream.transport.bufferedBytes;
    return bytes;
  }

  #openPush(): TransportStream | undefined {
    return (this.#pushStream ??= this.#connection.openPushStream({
      onData: () => {},
      onEnd: () => {},
      onDrain: () => {
        this.#pushBlocked = false;
        for (const waiter of this.#drainWaiters.splice(0)) waiter(true);
      },
      onClose: (end) => {
        if (end === 'reset') this.close(CloseCode.protocol, 'push stream refused');
      },
    }));
  }

  #acceptStream(transport: TransportStream): StreamHandler {
    const { streamsMax } = this.core.limits;
    if (this.#streams.size >= streamsMax * FAR_BEYOND) {
      this.close(CloseCode.limits, 'too many streams');
    }
    const stream = new ServerStream(transport, this, this.#streams.size >= streamsMax);
    this.#streams.add(stream);
    return stream;
  }

  #onClose(reason: CloseReason): void {
    this.core.peers.delete(this);
    this.deadlines.stop();
    // By now every call has been answered: those that waited give their places back.
    this.line.hurry();
    this.core.clock.clearTimer(this.#farewell);
    this.core.requests.leave(this.share);
    this.#abort.abort();
    for (const waiter of this.#drainWaiters.splice(0)) waiter(false);
    this.core.options.onDisconnect?.(this, reason);
    this.#setGone();
  }
}

/** One bidirectional stream: decodes requests, admits them, writes answers in the order they come. */
class ServerStream<S> implements StreamHandler, FrameSink {
  readonly transport: TransportStream;
  readonly peer: Peer<S>;
  readonly #surplus: boolean;
  readonly #decoder: FrameDecoder;
  readonly calls = new Map<number, Call<S>>();
  // Calls refused at their header whose answer waits for its turn.
  #refusals = 0;
  #receiving: Call<S> | undefined;
  // Of the frame that is not complete yet.
  #heldBytes = 0;
  #ended = false;
  #over = false;

  constructor(transport: TransportStream, peer: Peer<S>, surplus: boolean) {
    this.transport = transport;
    this.peer = peer;
    this.#surplus = surplus;
    this.#decoder = new FrameDecoder('request', this);
  }

  onData(bytes: Uint8Array): void {
    const state = this.#decoder.push(bytes);
    this.#countHeld();
    if (state === 'oversized') this.#violated();
    else if (this.#heldBytes > 0 && !this.peer.core.requests.hasRoom(this.peer.share, 0)) {
      this.#receiving?.end(Status.EXHAUSTED, 'too many calls at once');
    }
  }

  onHeader(methodId: number, requestId: number, payloadBytes: number): FrameVerdict {
    if (methodId === CANCEL_METHOD_ID) {
      if (payloadBytes === 0) return 'take';
      this.#violated();
      return 'stop';
    }
    if (this.calls.has(requestId)) {
      this.#violated();
      return 'stop';
    }
    const { core } = this.peer;
    const found = core.routes.get(methodId);
    if (found === undefined) {
      return this.#refuse(undefined, requestId, Status.UNIMPLEMENTED, 'no such method here');
    }
    const { method } = found;
    if (core.draining) {
      return this.#refuse(method, requestId, Status.UNAVAILABLE, 'the server is shutting down');
    }
    if (payloadBytes > method.requestMax) {
      const limit = `the limit of this request is ${method.requestMax} bytes`;
      return this.#refuse(method, requestId, Status.TOO_LARGE, limit);
    }
    if (this.#surplus || this.peer.full(payloadBytes)) {
      this.peer.refused();
      return this.#refuse(method, requestId, Status.EXHAUSTED, 'too many calls at once');
    }
    const call = new Call(this, found, requestId, payloadBytes);
    this.calls.set(requestId, call);
    this.#receiving = call;
    this.peer.callStarted(call);
    return 'take';
  }

  onFrame(methodId: number, requestId: number, payload: Uint8Array): void {
    if (methodId === CANCEL_METHOD_ID) {
      this.calls.get(requestId)?.end(Status.CANCELLED, 'cancelled by the caller');
      return;
    }
    const call = this.#receiving;
    this.#receiving = undefined;
    call?.start(payload);
  }

  onEnd(): void {
    this.#ended = true;
    if (this.#decoder.midFrame) this.#violated();
    else this.#endIfDone();
  }

  onDrain(): void {}

  onClose(_end: StreamEnd): void {
    this.#over = true;
    this.#stop();
    this.peer.streamOver(this);
    for (const call of this.calls.values()) call.end(Status.CANCELLED, '');
  }

  /** Answers a call and frees its id. */
  answer(call: Call<S>, status: number, payload: Uint8Array): void {
    this.calls.delete(call.id);
    if (this.#receiving === call) {
      this.#receiving = undefined;
      this.#decoder.skipCurrent();
      this.#countHeld();
    }
    this.#write(call.id, status, payload);
    this.#endIfDone();
  }

  #refuse(method: MethodDescriptor | undefined, requestId: number, status: number, message: string): FrameVerdict {
    const { core } = this.peer;
    const refusedAt = core.clock.now();
    this.#refusals += 1;
    this.peer.refuseInTurn(() => {
      this.#refusals -= 1;
      this.#write(requestId, status, encodeError(message, '', 0));
      core.options.onAnswered?.(method, status, core.clock.now() - refusedAt);
      this.#endIfDone();
    });
    return 'skip';
  }

  // Everything that came has been answered, and nothing more comes.
  #endIfDone(): void {
    if (this.#ended && this.calls.size === 0 && this.#refusals === 0) this.transport.end();
  }

  #write(requestId: number, status: number, payload: Uint8Array): void {
    if (this.#over) return;
    this.transport.write(encodeResponseHeader(HEADER, status, requestId, payload.length), payload);
    this.peer.written(this.transport);
  }

  // Garbage closes its stream, never more.
  #violated(): void {
    this.#stop();
    this.transport.reset(CloseCode.protocol);
  }

  #stop(): void {
    this.#decoder.stop();
    this.#countHeld();
  }

  #countHeld(): void {
    const { bufferedBytes } = this.#decoder;
    this.peer.core.requests.hold(this.peer.share, bufferedBytes - this.#heldBytes);
    this.#heldBytes = bufferedBytes;
  }
}

/** One call from its header to its answer, and until its handler has returned. */
class Call<S> implements CallContext<S> {
  readonly id: number;
  readonly method: MethodDescriptor;
  readonly sequence: number;
  /** As announced. */
  readonly requestBytes: number;
  /** Of these, what has come whole. */
  heldBytes = 0;
  // Until its turn.
  #payload: Uint8Array = EMPTY;
  readonly deadline: number;
  readonly #stream: ServerStream<S>;
  readonly #route: Route<S>;
  readonly #startedAt: number;
  #answered = false;
  #waiting = false;
  #running = false;
  #abort: AbortController | undefined;

  constructor(stream: ServerStream<S>, found: Route<S>, id: number, requestBytes: number) {
    this.#stream = stream;
    this.#route = found;
    this.method = found.method;
    this.id = id;
    this.sequence = stream.peer.core.nextSequence++;
    this.requestBytes = requestBytes;
    this.#startedAt = stream.peer.core.clock.now();
    this.deadline = this.#startedAt + found.method.timeoutMs;
  }

  get connection(): ServerConnection<S> {
    return this.#stream.peer;
  }

  // Made on first use: most handlers never look.
  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController();
      if (this.#answered) this.#abort.abort();
    }
    return this.#abort.signal;
  }

  /** Its request is here. */
  start(payload: Uint8Array): void {
    const { peer } = this.#stream;
    this.heldBytes = payload.length;
    this.#core.requests.hold(peer.share, payload.length);
    this.#payload = payload;
    const pace = peer.pace(this);
    this.#waiting = true;
    peer.line.take(pace.waitMs, () => {
      this.#waiting = false;
      if (this.#answered) peer.callOver();
      else if (pace.kind === 'refuse') this.#failed(pace.error);
      else this.#run();
    });
  }

  #run(): void {
    const payload = this.#payload;
    this.#payload = EMPTY;
    this.#running = true;
    try {
      const allowed = this.#core.options.authorize(this);
      const result = isPromise(allowed) ? allowed.then(() => this.#handle(payload)) : this.#handle(payload);
      if (isPromise(result)) {
        result.then(
          (response) => this.#finished(response),
          (error: unknown) => this.#failed(error),
        );
      } else {
        this.#finished(result);
      }
    } catch (error) {
      this.#failed(error);
    }
  }

  /** Answers early: Cancel, deadline, stream or connection gone. */
  end(status: number, message: string): void {
    if (this.#answered) return;
    this.#answer(status, encodeError(message, '', 0));
    this.#abort?.abort();
  }

  get #core(): Core<S> {
    return this.#stream.peer.core;
  }

  #handle(payload: Uint8Array): unknown {
    let request: Message | undefined;
    try {
      if (fieldsWithin(this.method.input, payload)) request = fromBinary(this.method.input, payload);
    } catch {
      // Answered below.
    }
    if (request === undefined) {
      throw new RpcError(Status.INVALID_ARGUMENT, 'the request is not what its method expects');
    }
    return this.#route.run(this, request);
  }

  #finished(response: unknown): void {
    if (this.#answered) {
      this.#over();
      return;
    }
    let payload: Uint8Array;
    try {
      const { output } = this.method;
      payload = toBinary(output, create(output, response as MessageInitShape<DescMessage>));
      if (payload.length > this.method.responseMax) throw new RangeError('response too large');
    } catch (error) {
      this.#failed(error);
      return;
    }
    this.#running = false;
    this.#answer(Status.OK_UNSPECIFIED, payload);
  }

  #failed(error: unknown): void {
    this.#running = false;
    if (error instanceof RpcError && error.status !== Status.OK_UNSPECIFIED) {
      if (this.#answered) this.#over();
      else {
        const { status, message, hint, retryAfterMs } = error;
        this.#answer(status, encodeError(message, hint, retryAfterMs));
      }
      return;
    }
    if (this.#answered) this.#over();
    else {
      this.#core.options.onFault?.(this.method, error, this);
      this.#answer(Status.INTERNAL, encodeError(statusName(Status.INTERNAL), '', 0));
    }
  }

  #answer(status: number, payload: Uint8Array): void {
    this.#answered = true;
    this.#stream.answer(this, status, payload);
    const { clock, options } = this.#core;
    if (options.onAnswered !== undefined) {
      options.onAnswered(this.method, status, clock.now() - this.#startedAt, this);
    }
    if (!this.#running) this.#over();
  }

  #over(): void {
    const { peer } = this.#stream;
    this.#payload = EMPTY;
    peer.requestOver(this);
    // Its place it keeps until its turn, or whoever cancels would wait less than whoever waits.
    if (!this.#waiting) peer.callOver();
  }
}

function encodeError(message: string, hint: string, retryAfterMs: number): Uint8Array {
  if (message === '' && hint === '' && retryAfterMs === 0) return EMPTY;
  return toBinary(ErrorSchema, create(ErrorSchema, { message, hint, retryAfterMs }));
}

function isPromise(value: unknown): value is Promise<unknown> {
  return typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function';
}
