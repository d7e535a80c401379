/**
 * The connection to the server: made, kept and made again (DESIGN section 3, "Reconnect").
 *
 *   dial ──▶ greet (Health and pins → ResumeSession → Subscribe) ──▶ online ──▶ lost ──▶ wait ──▶ dial …
 *
 * What a greeting consists of is the engine's business; here is only the order of things, the waiting, and the one way
 * in which calls are made and their failures become `ClientError`s.
 */
import type { DescMessage, MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import {
  Backoff,
  type CallOptions,
  type Clock,
  type CloseReason,
  type Connection,
  type MethodDescriptor,
  RpcClient,
} from '@quicprochat/transport';
import { ClientError } from './errors.ts';
import { connectionFailure } from './server-errors.ts';
import type { ConnectionState } from './types.ts';

/** Makes connections to one server. */
export interface Dialer {
  /** For messages: `host:port`. */
  readonly server: string;
  /** @throws ConnectError */
  dial(options: { readonly timeoutMs: number; readonly signal: AbortSignal }): Promise<Connection>;
}

export interface ServerConnectionHandlers {
  /** Runs on each new connection before it counts as online. What it throws ends the attempt. */
  greet(): Promise<void>;
  /** The greeting is through. */
  online(): void;
  /** `payload` is the handler's. */
  push(eventType: number, payload: Uint8Array): void;
  state(state: ConnectionState, reason: string, retryInMs: number | undefined): void;
}

const CONNECT_TIMEOUT_MS = 10_000;

export class ServerConnection {
  readonly #dialer: Dialer;
  readonly #clock: Clock;
  readonly #backoff: Backoff;
  readonly #handlers: ServerConnectionHandlers;
  #rpc: RpcClient | undefined;
  #state: ConnectionState = 'offline';
  #wanted = false;
  #retryTimer: unknown;
  #attempt: AbortController | undefined;

  /** @param jitter uniform in [0, 1) */
  constructor(dialer: Dialer, clock: Clock, jitter: () => number, handlers: ServerConnectionHandlers) {
    this.#dialer = dialer;
    this.#clock = clock;
    this.#backoff = new Backoff(jitter);
    this.#handlers = handlers;
  }

  get state(): ConnectionState {
    return this.#state;
  }

  /** Connects now; once that has succeeded, or with `keepTrying`, reconnects until `close`. */
  async connect(options: { readonly keepTrying?: boolean; readonly timeoutMs?: number } = {}): Promise<void> {
    if (this.#state === 'online') return;
    this.#clearRetry();
    if (options.keepTrying === true) {
      this.#wanted = true;
      if (this.#state === 'offline') void this.#try(CONNECT_TIMEOUT_MS).catch(() => {});
      return;
    }
    await this.#try(options.timeoutMs ?? CONNECT_TIMEOUT_MS);
    this.#wanted = true;
  }

  /**
   * Calls the server. Works from the moment the greeting begins.
   * @throws ClientError `cannot-connect` without a connection; what the server refuses as `refusal` says
   */
  async call<I extends DescMessage, O extends DescMessage>(
    method: MethodDescriptor<I, O>,
    request: MessageInitShape<I>,
    options?: CallOptions,
  ): Promise<MessageShape<O>> {
    const rpc = this.#rpc;
    if (rpc === undefined) throw this.#away();
    try {
      return await rpc.call(method, request, options);
    } catch (error) {
      throw connectionFailure(error, this.#dialer.server);
    }
  }

  /** Drops the connection as if the network had; it is made again at once. */
  reset(): void {
    this.#rpc?.close('starting over');
  }

  close(): void {
    this.#wanted = false;
    this.#clearRetry();
    this.#attempt?.abort();
    const rpc = this.#rpc;
    this.#rpc = undefined;
    rpc?.close();
    this.#become('offline', 'closed');
  }

  async #try(timeoutMs: number): Promise<void> {
    const attempt = new AbortController();
    this.#attempt?.abort();
    this.#attempt = attempt;
    this.#become('connecting', '');
    try {
      const connection = await this.#dialer.dial({ timeoutMs, signal: attempt.signal });
      if (attempt.signal.aborted) {
        connection.close(0, 'not needed any more');
        throw this.#away();
      }
      const rpc: RpcClient = new RpcClient(connection, {
        clock: this.#clock,
        onPush: (eventType, payload) => {
          if (this.#rpc === rpc) this.#handlers.push(eventType, payload);
        },
        onClose: (reason) => this.#lost(rpc, reason),
      });
      this.#rpc = rpc;
      await this.#handlers.greet();
      if (this.#rpc !== rpc) throw this.#away();
      this.#backoff.reset();
      this.#become('online', '');
    } catch (error) {
      const failure = connectionFailure(error, this.#dialer.server);
      if (this.#attempt === attempt) {
        const rpc = this.#rpc;
        this.#rpc = undefined;
        rpc?.close('giving up');
        this.#become('offline', failure.message);
        // A server that is not the one we know does not become it by being asked again.
        if (this.#wanted && failure.kind !== 'verification-failed') this.#retryLater(failure.message);
      }
      throw failure;
    }
    this.#handlers.online();
  }

  #lost(rpc: RpcClient, reason: CloseReason): void {
    if (this.#rpc !== rpc) return;
    this.#rpc = undefined;
    // During the greeting the failing call itself ends the attempt.
    if (this.#state !== 'online') return;
    const why = reason.kind === 'peer' ? 'the server closed the connection' : 'the connection was lost';
    this.#become('offline', why);
    if (this.#wanted) this.#retryLater(why);
  }

  #retryLater(reason: string): void {
    const delayMs = this.#backoff.nextMs();
    this.#handlers.state('offline', reason, Math.round(delayMs));
    this.#clearRetry();
    this.#retryTimer = this.#clock.setTimer(() => {
      this.#retryTimer = undefined;
      void this.#try(CONNECT_TIMEOUT_MS).catch(() => {});
    }, delayMs);
  }

  #clearRetry(): void {
    if (this.#retryTimer !== undefined) this.#clock.clearTimer(this.#retryTimer);
    this.#retryTimer = undefined;
  }

  #become(state: ConnectionState, reason: string): void {
    if (this.#state === state) return;
    this.#state = state;
    this.#handlers.state(state, reason, undefined);
  }

  #away(): ClientError {
    return new ClientError('cannot-connect', 'server-away', `not connected to ${this.#dialer.server}`, {
      hint: 'Check that the server is running and reachable, then try again.',
    });
  }
}
