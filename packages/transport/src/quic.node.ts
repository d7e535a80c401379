// QUIC binding on the native event-loop classes of @currentspace/http3 (quiche). DESIGN section 3.
//
//   engine's thread ──batch of events──▶ Turns (quic-engine) ──▶ QuicConnection ──▶ stream handlers
//   streams written to ──next turn─────▶ flush (quic-connection) ──▶ engine, small frames in one write
//
// Listening and connecting are here. Why a connection could not be made is told apart by the TLS alert.
import { createSocket } from 'node:dgram';
import { X509Certificate } from 'node:crypto';
import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { getCACertificates } from 'node:tls';
import { CloseCode, type Connection, type Listener } from './connection.ts';
import { ConnectError } from './errors.ts';
import { type ConnectionEngine, QuicConnection, STREAMS_MAX, closeReasonOf } from './quic-connection.node.ts';
import { EventType, type NativeEvent, type Party, Turns, Worker, loadNative } from './quic-engine.node.ts';

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
  /** After this much silence from the server we ask for a sign of life. Default 5,000. */
  readonly keepaliveMs?: number;
  /**
   * When the server owes a sign of life (we sent something, or asked), silence of this length means that the connection
   * is lost: a server that was killed says no goodbye. Default 4,000.
   */
  readonly unansweredMs?: number;
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
  /**
   * Asked of each client whose address has been validated, before anything is kept for it here: undefined sends it away,
   * else what is returned is called once, when the connection has ended. Default: everyone.
   */
  readonly admit?: (peer: string) => (() => void) | undefined;
  /** The engine failed and accepts nothing more; its connections are lost. */
  readonly onFailure?: (error: Error) => void;
}

const ALPN = 'qpc';
const IDLE_TIMEOUT_MS = 30_000;
const KEEPALIVE_MS = 5_000;
const UNANSWERED_MS = 4_000;
const TICKS_PER_LIMIT = 5;
const CONNECT_TIMEOUT_MS = 5_000;
const CONNECTIONS_MAX = 10_000;
const COMMON_OPTIONS = {
  alpn: [ALPN],
  runtimeMode: 'portable',
  fallbackPolicy: 'error',
} as const;

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
  const connections = new Map<number, { readonly connection: QuicConnection; readonly left: () => void }>();
  const worker = new Worker();

  const engineOf = (handle: number): ConnectionEngine => ({
    turns,
    openStream: () => undefined,
    send: (id, bytes, fin) => server.streamSend(handle, id, bytes, fin),
    resetStream: (id, code) => {
      server.streamClose(handle, id, code);
    },
    close: (code, reason) => {
      server.closeSession(handle, code, reason);
    },
  });

  // What changes who is behind a handle, and what unblocks writers, never waits in a queue.
  const receive = (event: NativeEvent): void => {
    const handle = event.connHandle;
    const connection = connections.get(handle)?.connection;
    switch (event.eventType) {
      case EventType.newSession: {
        const peer = formatAddress(event.meta?.remoteAddr ?? '', event.meta?.remotePort ?? 0);
        const left = options.admit === undefined ? () => {} : options.admit(peer);
        if (left === undefined) server.closeSession(handle, CloseCode.limits, 'too many connections');
        else connections.set(handle, { connection: new QuicConnection(engineOf(handle), peer, 'server'), left });
        return;
      }
      case EventType.handshakeDone:
        if (connection !== undefined) accept(connection);
        return;
      case EventType.sessionClosed:
        connections.get(handle)?.left();
        connections.delete(handle);
        connection?.ended(closeReasonOf(event));
        return;
      case EventType.drain:
      case EventType.blocked:
        connection?.dispatch(event);
        return;
      case EventType.writeReady:
        // Handle 0 is both the first connection and "all of them".
        if (handle !== 0) connection?.dispatch(event);
        else for (const each of connections.values()) each.connection.dispatch(event);
        return;
      case EventType.shutdownComplete:
        worker.stopped(server);
        return;
      case EventType.error:
        if (event.meta?.errorCategory !== 'runtime') break;
        for (const each of connections.values()) {
          each.left();
          each.connection.ended({ kind: 'lost', code: 0, reason: 'the QUIC engine failed' });
        }
        connections.clear();
        options.onFailure?.(new Error(`QUIC engine: ${event.meta.errorReason ?? 'failed'}`));
        return;
      default:
    }
    if (connection !== undefined) turns.received(connection, event);
  };

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
    (_error, events) => turns.batch(events, receive),
  );
  const turns = new Turns(server);
  let bound: { readonly address: string; readonly port: number };
  try {
    bound = server.listen(options.port, options.host);
  } catch (error) {
    // Releases the callback, which would keep the process alive.
    server.joinWorker();
    throw error;
  }

  return {
    address: { host: bound.address, port: bound.port },
    close: () => {
      for (const { connection } of connections.values()) {
        connection.close(CloseCode.shutdown, 'the server is shutting down');
      }
      worker.stop(server);
      return worker.done.then(() => {
        for (const { left } of connections.values()) left();
        connections.clear();
      });
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

/**
 * Decides when to ask a silent server for a sign of life, and when to give it up. Counts ticks and not the clock, so that
 * a machine that slept asks before it concludes anything.
 */
class Vigil {
  readonly tickMs: number;
  readonly #connection: QuicConnection;
  readonly #ticksUnasked: number;
  readonly #ticksUnanswered: number;
  #quiet = 0;
  #unanswered = 0;

  constructor(connection: QuicConnection, options: QuicConnectOptions) {
    const keepaliveMs = options.keepaliveMs ?? KEEPALIVE_MS;
    const unansweredMs = options.unansweredMs ?? UNANSWERED_MS;
    this.tickMs = Math.max(1, Math.min(keepaliveMs, unansweredMs) / TICKS_PER_LIMIT);
    this.#ticksUnasked = Math.ceil(keepaliveMs / this.tickMs);
    this.#ticksUnanswered = Math.ceil(unansweredMs / this.tickMs);
    this.#connection = connection;
  }

  tick(): 'wait' | 'ask' | 'lost' {
    const { heard, wrote } = this.#connection;
    this.#connection.heard = false;
    this.#connection.wrote = false;
    if (heard) {
      this.#quiet = 0;
      this.#unanswered = 0;
      return 'wait';
    }
    this.#quiet += 1;
    if (this.#unanswered > 0) {
      this.#unanswered += 1;
      // The engine repeats what is lost; asking anew in between costs a packet and helps after a long gap.
      return this.#unanswered > this.#ticksUnanswered ? 'lost' : 'ask';
    }
    if (!wrote && this.#quiet < this.#ticksUnasked) return 'wait';
    this.#unanswered = 1;
    return 'ask';
  }
}

async function connectAddress(
  options: QuicConnectOptions,
  address: string,
  serverName: string,
  ca: Uint8Array,
  timeoutMs: number,
): Promise<Connection> {
  options.signal?.throwIfAborted();
  const { NativeQuicClient } = loadNative();
  const peer = formatAddress(address, options.port);
  const { promise, resolve, reject } = Promise.withResolvers<Connection>();
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

  const dispatch = (event: NativeEvent): void => {
    if (event.eventType === EventType.handshakeDone) {
      if (failed) return;
      connected = true;
      settled();
      const vigil = new Vigil(connection, options);
      keepalive = setInterval(() => {
        const next = vigil.tick();
        if (next === 'ask') ping(client);
        else if (next === 'lost') {
          clearInterval(keepalive);
          client.close(CloseCode.none, '');
          worker.stop(client);
          connection.ended({ kind: 'lost', code: 0, reason: 'no sign of life' });
        }
      }, vigil.tickMs).unref();
      resolve(connection);
    } else if (event.eventType === EventType.sessionClosed) {
      clearInterval(keepalive);
      if (connected) connection.ended(closeReasonOf(event));
      else fail(connectErrorOf(event, peer, serverName));
      worker.stop(client);
    } else {
      connection.dispatch(event);
    }
  };
  const party: Party = {
    dispatch,
    overrun: () => connection.overrun(),
    get closed() {
      return connection.closed;
    },
  };
  const receive = (event: NativeEvent): void => {
    if (event.eventType === EventType.shutdownComplete) {
      worker.stopped(client);
    } else if (event.meta?.errorCategory === 'runtime') {
      clearInterval(keepalive);
      fail(new ConnectError('handshake', `QUIC engine: ${event.meta.errorReason ?? 'failed'}`));
      connection.ended({ kind: 'lost', code: 0, reason: 'the QUIC engine failed' });
    } else {
      turns.received(party, event);
    }
  };

  const client = withTrust(
    options.trustAnchor,
    () =>
      new NativeQuicClient(
        {
          ...COMMON_OPTIONS,
          ca,
          rejectUnauthorized: true,
          initialMaxStreamsBidi: 1,
          maxIdleTimeoutMs: options.idleTimeoutMs ?? IDLE_TIMEOUT_MS,
        },
        (_error, events) => turns.batch(events, receive),
      ),
  );
  const turns = new Turns(client);
  const engine: ConnectionEngine = {
    turns,
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

  try {
    withTrust(options.trustAnchor, () => client.connect(peer, serverName));
  } catch {
    settled();
    client.joinWorker();
    throw new ConnectError('bad-address', `${peer} is not an address to connect to`);
  }
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
// RFC 9000 section 20.1: closed by the application before the handshake was done.
const APPLICATION_ERROR = 12;

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
  if (code === CONNECTION_REFUSED || code === APPLICATION_ERROR || code === CloseCode.shutdown) {
    return new ConnectError('refused', `${peer} refused the connection`);
  }
  return new ConnectError('handshake', `the handshake with ${peer} failed (code ${code})`);
}

// The engine may have stopped already, while the event that says so waits for its turn: a busy event loop runs timers first.
function ping(client: { ping(): void }): void {
  try {
    client.ping();
  } catch {
    // The end of the connection is on its way.
  }
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

// The engine's TLS library adds the system's authorities to those it is given, wherever SSL_CERT_FILE and
// SSL_CERT_DIR point; it looks at them while the engine is made.
function withTrust<T>(anchor: Uint8Array | undefined, make: () => T): T {
  if (anchor === undefined) return make();
  const saved = SYSTEM_TRUST_VARIABLES.map((name) => [name, process.env[name]] as const);
  try {
    for (const name of SYSTEM_TRUST_VARIABLES) process.env[name] = NOWHERE;
    return make();
  } finally {
    for (const [name, value] of saved) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  }
}

const SYSTEM_TRUST_VARIABLES = ['SSL_CERT_FILE', 'SSL_CERT_DIR'] as const;
const NOWHERE = '/nonexistent';

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
    if (!stopped) socket.send(new Uint8Array(0));
  });
  return { stop };
}
