// What only the QUIC binding has: certificates, addresses, silence, floods. The calls themselves are in
// contract.test.ts. THREATS 24 and 27.
import assert from 'node:assert/strict';
import { type ChildProcess, fork, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { type Socket, createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { BytesValueSchema } from '@bufbuild/protobuf/wkt';
import { Status } from '@quicprochat/proto';
import type { CloseReason, Connection, Listener } from './connection.ts';
import { CloseCode } from './connection.ts';
import { ConnectError, type ConnectErrorKind, type RpcError } from './errors.ts';
import type { MethodDescriptor } from './method.ts';
import { type QuicConnectOptions, type QuicListenOptions, connectQuic, listenQuic } from './quic.node.ts';
import { EventType, type NativeEvent, loadNative } from './quic-engine.node.ts';
import { RpcClient } from './rpc-client.ts';
import { RpcServer, route } from './rpc-server.ts';
import { makeTestCertificate } from './testing/certificate.node.ts';
import { FLOODED, type FlooderMode } from './testing/flooder.node.ts';
import { seededRandom } from './testing/random.ts';
import { RawStream } from './testing/raw-stream.ts';

type BytesMethod = MethodDescriptor<typeof BytesValueSchema, typeof BytesValueSchema>;

const MIB = 1024 * 1024;

function method(id: number, stream: 'shared' | 'own'): BytesMethod {
  const max = stream === 'own' ? 4 * MIB : 64 * 1024;
  return {
    id,
    name: `test.${id}`,
    requestMax: max,
    responseMax: max,
    timeoutMs: 30_000,
    idempotent: true,
    stream,
    auth: 'anyone',
    input: BytesValueSchema,
    output: BytesValueSchema,
  };
}

const echo = method(FLOODED.echo, 'shared');
const large = method(FLOODED.large, 'own');
const subscribe = method(FLOODED.subscribe, 'shared');
const hang = method(100, 'shared');

const identity = makeTestCertificate();
const trustAnchor = identity.certificate;

/** A server that echoes, and that sends events for ever to whoever subscribes. */
class TestServer {
  listener!: Listener;
  readonly rpc: RpcServer<null>;
  events = 0;
  disconnects = 0;
  onDisconnect: (reason: CloseReason) => void = () => {};

  constructor() {
    this.rpc = new RpcServer<null>({
      newState: () => null,
      authorize: () => {},
      onDisconnect: (_connection, reason) => {
        this.disconnects += 1;
        this.onDisconnect(reason);
      },
      routes: [
        route(echo, (_context, request) => ({ value: request.value })),
        route(large, (_context, request) => ({ value: request.value })),
        route(hang, (context) => new Promise((resolve) => context.signal.addEventListener('abort', () => resolve({})))),
        route(subscribe, (context) => {
          void this.#pump(context.connection);
          return {};
        }),
      ],
    });
  }

  async listen(options: Partial<QuicListenOptions> = {}): Promise<this> {
    const { certificate, privateKey } = identity;
    this.listener = await listenQuic(
      { host: '127.0.0.1', port: 0, certificate, privateKey, ...options },
      this.rpc.accept,
    );
    return this;
  }

  get port(): number {
    return this.listener.address.port;
  }

  async client(options: Partial<QuicConnectOptions> = {}): Promise<RpcClient> {
    const { host } = this.listener.address;
    return new RpcClient(await connectQuic({ host, port: this.port, trustAnchor, ...options }));
  }

  async #pump(connection: {
    push(eventType: number, payload: Uint8Array): boolean;
    drained(): Promise<boolean>;
  }): Promise<void> {
    const payload = new Uint8Array(60_000);
    do {
      while (connection.push(1, payload)) this.events += 1;
    } while (await connection.drained());
  }
}

function fails(kind: ConnectErrorKind): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof ConnectError, String(error));
    assert.equal(error.kind, kind, error.message);
    assert.ok(!error.message.includes('\n'));
    return true;
  };
}

async function boundSocket(type: 'udp4' | 'udp6' = 'udp4'): Promise<Socket> {
  const socket = createSocket(type);
  socket.bind(0, type === 'udp4' ? '127.0.0.1' : '::1');
  await once(socket, 'listening');
  return socket;
}

function portOf(socket: Socket): number {
  return (socket.address() as AddressInfo).port;
}

describe('connecting', { timeout: 30_000 }, () => {
  let server: TestServer;
  before(async () => {
    server = await new TestServer().listen();
  });
  after(() => server.listener.close());

  const connect = (options: Partial<QuicConnectOptions>): Promise<Connection> =>
    connectQuic({ host: '127.0.0.1', port: server.port, trustAnchor, ...options });

  test('by name, by loopback address, and by another server name', async () => {
    for (const options of [{ host: 'localhost' }, { host: '127.0.0.1' }, { serverName: 'localhost' }]) {
      const client = new RpcClient(await connect(options));
      await client.call(echo, {});
      client.close();
    }
  });

  test('the trust anchor may be PEM, DER, or several certificates', async () => {
    const bundle = Buffer.concat([makeTestCertificate().certificate, identity.certificate]);
    for (const anchor of [identity.certificate, identity.der, bundle]) {
      const connection = await connect({ trustAnchor: anchor });
      connection.close(CloseCode.none, '');
    }
  });

  test('over IPv6', async () => {
    const six = await new TestServer().listen({ host: '::1' });
    const client = await six.client();
    await client.call(echo, {});
    client.close();
    await six.listener.close();
  });

  test('nothing listens there: refused, at once', async () => {
    const socket = await boundSocket();
    const port = portOf(socket);
    socket.close();
    const start = performance.now();
    await assert.rejects(connect({ port, connectTimeoutMs: 10_000 }), fails('refused'));
    assert.ok(performance.now() - start < 5000);
  });

  test('no answer: timeout', async () => {
    const silent = await boundSocket();
    await assert.rejects(connect({ port: portOf(silent), connectTimeoutMs: 100 }), fails('timeout'));
    silent.close();
  });

  test('a certificate that is not trusted, or no longer', async () => {
    const { certificate } = makeTestCertificate();
    await assert.rejects(connect({ trustAnchor: certificate }), fails('untrusted-certificate'));
    await assert.rejects(connectQuic({ host: '127.0.0.1', port: server.port }), fails('untrusted-certificate'));
    const expired = makeTestCertificate({
      notBefore: new Date(Date.now() - 2 * 86_400_000),
      notAfter: new Date(Date.now() - 86_400_000),
    });
    const listener = await listenQuic({ host: '127.0.0.1', port: 0, ...expired }, () => {});
    await assert.rejects(
      connect({ port: listener.address.port, trustAnchor: expired.certificate }),
      fails('untrusted-certificate'),
    );
    await listener.close();
  });

  test('a trust anchor replaces the system’s authorities', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'qpc-trust-'));
    const file = path.join(folder, 'system.pem');
    writeFileSync(file, identity.certificate);
    process.env['SSL_CERT_FILE'] = file;
    try {
      const { certificate } = makeTestCertificate();
      await assert.rejects(connect({ trustAnchor: certificate }), fails('untrusted-certificate'));
      assert.equal(process.env['SSL_CERT_FILE'], file);
      const { port } = server;
      const connection = await connectQuic({ host: '127.0.0.1', port });
      connection.close(CloseCode.none, '');
    } finally {
      delete process.env['SSL_CERT_FILE'];
      rmSync(folder, { recursive: true });
    }
  });

  test('a trusted certificate for another name', async () => {
    await assert.rejects(connect({ serverName: 'example.org' }), fails('wrong-server-name'));
  });

  test('what can be said without asking the network', async () => {
    await assert.rejects(connect({ host: '192.0.2.1' }), fails('bad-address'));
    await assert.rejects(connect({ host: 'no-such-host.invalid' }), fails('bad-address'));
    await assert.rejects(connect({ trustAnchor: Buffer.from('hello') }), fails('bad-trust-anchor'));
  });

  test('given up by the caller', async () => {
    const silent = await boundSocket();
    const controller = new AbortController();
    const connecting = connect({ port: portOf(silent), signal: controller.signal });
    const reason = new Error('changed my mind');
    controller.abort(reason);
    await assert.rejects(connecting, reason);
    await assert.rejects(connect({ signal: controller.signal }), reason);
    silent.close();
  });

  test('a listener that closes frees its port', async () => {
    const first = await new TestServer().listen();
    const client = await first.client();
    await client.call(echo, {});
    await first.listener.close();
    const second = await new TestServer().listen({ port: first.port });
    const again = await second.client();
    await again.call(echo, {});
    again.close();
    await second.listener.close();
  });

  test('an address in use, or a key that is none, is an error of listening', async () => {
    await assert.rejects(new TestServer().listen({ port: server.port }));
    const { certificate } = identity;
    const privateKey = Buffer.from('not a key');
    await assert.rejects(listenQuic({ host: '127.0.0.1', port: 0, certificate, privateKey }, () => {}));
  });

  test('a thousand calls on a thousand half-closed streams', async () => {
    const connection = await connect({});
    connection.start({ onStream: () => undefined, onClose: () => {} });
    for (let i = 0; i < 1000; i += 1) {
      const raw = new RawStream(connection);
      raw.request(echo.id, i);
      raw.stream.end();
      assert.equal((await raw.response()).id, i);
      assert.equal(await raw.over, 'finished');
    }
    connection.close(CloseCode.none, '');
  });
});

describe('silence', { timeout: 30_000 }, () => {
  const closing = async (connection: Connection): Promise<CloseReason> =>
    new Promise((resolve) => connection.start({ onStream: () => undefined, onClose: resolve }));

  test('keepalive holds a quiet connection; without it, it is lost', async () => {
    const server = await new TestServer().listen({ idleTimeoutMs: 1000 });
    const kept = await server.client({ idleTimeoutMs: 1000, keepaliveMs: 200 });
    await kept.call(echo, {});
    for (let i = 0; i < 2; i += 1) {
      const quiet = await connectQuic({
        host: '127.0.0.1',
        port: server.port,
        trustAnchor,
        idleTimeoutMs: 1000,
        keepaliveMs: 60_000,
      });
      assert.equal((await closing(quiet)).kind, 'lost');
    }
    await kept.call(echo, {});
    kept.close();
    await server.listener.close();
  });

  test('a server that dies is noticed', async () => {
    const source = `
      import { listenQuic } from ${JSON.stringify(new URL('quic.node.ts', import.meta.url).href)};
      process.once('message', async (identity) => {
        const listener = await listenQuic({ host: '127.0.0.1', port: 0, ...identity }, (c) =>
          c.start({ onStream: () => undefined, onClose: () => {} }));
        process.send(listener.address.port);
      });`;
    const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', source], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      serialization: 'advanced',
    });
    child.send(identity);
    const [port] = (await once(child, 'message')) as [number];
    const idle = await connectQuic({ host: '127.0.0.1', port, trustAnchor, idleTimeoutMs: 500 });
    const idleClosed = closing(idle);
    // Far from its idle timeout and its keepalive: only the question it asked tells it.
    const asking = await connectQuic({ host: '127.0.0.1', port, trustAnchor, keepaliveMs: 60_000, unansweredMs: 500 });
    const askingClosed = closing(asking);
    child.kill('SIGKILL');
    new RawStream(asking).request(echo.id, 1);
    assert.equal((await idleClosed).kind, 'lost');
    assert.deepEqual(await askingClosed, { kind: 'lost', code: 0, reason: 'no sign of life' });
  });

  test('a slow answer is not a lost connection', async () => {
    const server = await new TestServer().listen();
    const client = await server.client({ unansweredMs: 300 });
    await assert.rejects(
      client.call(hang, {}, { timeoutMs: 1500 }),
      (error: RpcError) => error.status === Status.DEADLINE_EXCEEDED,
    );
    await client.call(echo, {});
    client.close();
    await server.listener.close();
  });
});

describe('THREATS 24: what comes from the network', { timeout: 60_000 }, () => {
  test('garbage datagrams', async () => {
    const seed = randomInt(2 ** 31);
    const random = seededRandom(seed);
    const server = await new TestServer().listen();
    const socket = await boundSocket();
    for (let i = 0; i < 2000; i += 1) {
      const datagram = Uint8Array.from({ length: Math.floor(random() * 1400) }, () => Math.floor(random() * 256));
      await new Promise((resolve) => socket.send(datagram, server.port, '127.0.0.1', resolve));
    }
    const client = await server.client();
    await client.call(echo, {});
    assert.equal([...server.rpc.connections].length, 1, `seed ${seed}`);
    client.close();
    socket.close();
    await server.listener.close();
  });

  test('a flood of handshakes from addresses that do not answer costs no connection', async () => {
    // A genuine first packet, caught by a socket that plays the server.
    const trap = await boundSocket();
    const controller = new AbortController();
    const attempt = connectQuic({
      host: '127.0.0.1',
      port: portOf(trap),
      trustAnchor,
      signal: controller.signal,
    });
    let initial: Buffer;
    do [initial] = (await once(trap, 'message')) as [Buffer];
    while (initial.length < 1200);
    controller.abort(new Error('caught'));
    await assert.rejects(attempt, /caught/);
    trap.close();

    let sessions = 0;
    const { NativeQuicServer } = loadNative();
    // Counted at the engine itself: our listener hears of a session only after its handshake.
    const { certificate: cert, privateKey: key } = identity;
    const { promise: stopped, resolve: setStopped } = Promise.withResolvers<void>();
    const native = new NativeQuicServer(
      { cert, key, alpn: ['qpc'], runtimeMode: 'portable', clientAuth: 'none', disableRetry: false },
      (_error, events) => {
        for (const event of events) {
          if (event.eventType === EventType.newSession) sessions += 1;
          if (event.eventType === EventType.shutdownComplete) setStopped();
        }
        native.ackEventBatch(events.length);
      },
    );
    const { port } = native.listen(0, '127.0.0.1');
    const sockets = await Promise.all(Array.from({ length: 100 }, () => boundSocket()));
    const answers = sockets.map(async (socket) => {
      const [answer] = (await once(socket, 'message')) as [Buffer];
      return answer;
    });
    for (const socket of sockets) {
      for (let i = 0; i < 5; i += 1) socket.send(initial, port, '127.0.0.1');
    }
    for (const answer of await Promise.all(answers)) {
      assert.equal((answer[0] as number) & 0xf0, 0xf0, 'a Retry packet');
      assert.ok(answer.length < initial.length, 'and no amplification');
    }
    assert.equal(sessions, 0);
    // Our own listener does the same, and asks nobody about who has not shown that they are at their address.
    const asked: string[] = [];
    const ours = await new TestServer().listen({ admit: (peer) => void asked.push(peer) });
    const [socket] = sockets;
    const answered = once(socket!, 'message') as Promise<[Buffer]>;
    socket!.send(initial, ours.port, '127.0.0.1');
    const [retry] = await answered;
    assert.equal((retry[0] as number) & 0xf0, 0xf0, 'a Retry packet');
    assert.deepEqual(asked, []);
    await ours.listener.close();
    for (const socket of sockets) socket.close();
    native.requestShutdown();
    await stopped;
    native.joinWorker();
  });

  test('who may not have another connection is sent away at once, until one of them has ended', async () => {
    const open: string[] = [];
    let changed = (): void => {};
    const server = await new TestServer().listen({
      admit: (peer) => {
        if (open.length === 2) return undefined;
        open.push(peer);
        return () => {
          open.splice(open.indexOf(peer), 1);
          changed();
        };
      },
    });
    const [first, second] = [await server.client(), await server.client()];
    // A client is done with the handshake before the server is; who is answered has been let in.
    await Promise.all([first.call(echo, {}), second.call(echo, {})]);
    assert.deepEqual(
      open.map((peer) => peer.replace(/\d+$/, 'port')),
      ['127.0.0.1:port', '127.0.0.1:port'],
    );
    // For the same reason it may see a connection that ends at once.
    const refused = await connectQuic({ host: '127.0.0.1', port: server.port, trustAnchor }).catch(
      (error: unknown) => error,
    );
    if (refused instanceof Error) fails('refused')(refused);
    else {
      const { promise: ended, resolve: setEnded } = Promise.withResolvers<CloseReason>();
      (refused as Connection).start({ onStream: () => undefined, onClose: setEnded });
      assert.equal((await ended).kind, 'peer');
    }
    assert.equal([...server.rpc.connections].length, 2, 'the refused one is no connection');
    const oneLeft = new Promise<void>((resolve) => {
      changed = resolve;
    });
    first.close();
    await oneLeft;
    const third = await server.client();
    await third.call(echo, {});
    second.close();
    third.close();
    await server.listener.close();
  });

  test('0-RTT is refused: a client with a ticket that wants it sends none', async () => {
    const server = await new TestServer().listen();
    const relay = await PacketRelay.to(server.port);
    const first = await earlyClient(relay.port, undefined);
    assert.ok(first.ticket !== undefined && first.ticket.length > 0);
    const again = await PacketRelay.to(server.port);
    const second = await earlyClient(again.port, first.ticket);
    assert.equal(again.types[0], 'initial');
    assert.ok(again.types.includes('handshake'));
    assert.ok(!again.types.includes('0-rtt'), again.types.join(' '));
    await Promise.all([first.close(), second.close()]);
    relay.close();
    again.close();
    await server.listener.close();
  });
});

describe('THREATS 24, 27: one client floods', { timeout: 120_000 }, () => {
  const flooder = (mode: FlooderMode, port: number): ChildProcess => {
    const script = new URL('testing/flooder.node.ts', import.meta.url);
    const child = fork(script, [mode, String(port)], { stdio: ['pipe', 'pipe', 'inherit', 'ipc'] });
    child.stdin?.end(trustAnchor);
    return child;
  };

  const rssMiB = (): number => process.memoryUsage().rss / MIB;

  /** Calls made one after the other until `ms` have passed; the slowest one, in ms. */
  const honestWork = async (client: RpcClient, ms: number): Promise<number> => {
    let slowest = 0;
    for (const until = performance.now() + ms; performance.now() < until;) {
      const start = performance.now();
      await client.call(echo, { value: new Uint8Array(100) }, { timeoutMs: 10_000 });
      slowest = Math.max(slowest, performance.now() - start);
    }
    return slowest;
  };

  const GROWTH_MIB_MAX = 160;

  for (const mode of ['small', 'unread'] as const) {
    test(`${mode}: the flooder is cut off, the others notice little`, async () => {
      const server = await new TestServer().listen();
      const client = await server.client();
      await honestWork(client, 200);
      const cutOff = new Promise<CloseReason>((resolve) => {
        server.onDisconnect = resolve;
      });
      const before_ = rssMiB();
      const child = flooder(mode, server.port);
      let peak = before_;
      do {
        await client.call(echo, {}, { timeoutMs: 10_000 });
        peak = Math.max(peak, rssMiB());
      } while (server.disconnects === 0);
      assert.equal((await cutOff).code, CloseCode.limits);
      assert.ok(peak - before_ < GROWTH_MIB_MAX, `grew by ${peak - before_} MiB`);
      child.kill();
      client.close();
      await server.listener.close();
    });
  }

  test('events: the pump waits for a client that does not read, and holds little', async () => {
    const server = await new TestServer().listen();
    const client = await server.client();
    await honestWork(client, 200);
    const before_ = rssMiB();
    const child = flooder('events', server.port);
    while (server.events === 0) await client.call(echo, {});
    // Until it stands still.
    let seen = -1;
    while (seen !== server.events) {
      seen = server.events;
      await honestWork(client, 700);
    }
    assert.ok(rssMiB() - before_ < GROWTH_MIB_MAX, `grew by ${rssMiB() - before_} MiB`);
    assert.equal([...server.rpc.connections].length, 2, 'waiting is no reason to close');
    child.kill();
    client.close();
    await server.listener.close();
  });

  test('trickle: frames that grow by a byte at a time do not fill memory', async () => {
    const server = await new TestServer().listen();
    const client = await server.client();
    await honestWork(client, 200);
    const before_ = rssMiB();
    const child = flooder('trickle', server.port);
    while (server.rpc.inFlight < 50) await client.call(echo, {});
    await honestWork(client, 3000);
    assert.ok(rssMiB() - before_ < GROWTH_MIB_MAX, `grew by ${rssMiB() - before_} MiB`);
    child.kill();
    client.close();
    await server.listener.close();
  });
});

// ── Watching packets ────────────────────────────────────────────────────────────────────────────────

type PacketType = 'initial' | '0-rtt' | 'handshake' | 'retry' | 'short';

/** Passes datagrams between one client and a server, and notes what kinds the client sends. */
class PacketRelay {
  readonly types: PacketType[] = [];
  readonly port: number;
  readonly #front: Socket;
  readonly #back: Socket;

  static async to(serverPort: number): Promise<PacketRelay> {
    return new PacketRelay(await boundSocket(), await boundSocket(), serverPort);
  }

  private constructor(front: Socket, back: Socket, serverPort: number) {
    this.#front = front;
    this.#back = back;
    this.port = portOf(front);
    let client: AddressInfo | undefined;
    front.on('message', (datagram: Buffer, from: AddressInfo) => {
      client = from;
      this.types.push(...packetTypes(datagram));
      back.send(datagram, serverPort, '127.0.0.1');
    });
    back.on('message', (datagram: Buffer) => {
      if (client !== undefined) front.send(datagram, client.port, client.address);
    });
  }

  close(): void {
    this.#front.close();
    this.#back.close();
  }
}

/** The packets coalesced in a datagram, RFC 9000 section 17.2. */
function packetTypes(datagram: Buffer): PacketType[] {
  const types: PacketType[] = [];
  let at = 0;
  const varint = (): number => {
    const size = 1 << ((datagram[at] as number) >> 6);
    let value = (datagram[at] as number) & 0x3f;
    for (let i = 1; i < size; i += 1) value = value * 256 + (datagram[at + i] as number);
    at += size;
    return value;
  };
  while (at < datagram.length) {
    const first = datagram[at] as number;
    if ((first & 0x80) === 0) return [...types, 'short'];
    const type = (['initial', '0-rtt', 'handshake', 'retry'] as const)[(first >> 4) & 3] as PacketType;
    types.push(type);
    if (type === 'retry') return types;
    at += 5;
    at += 1 + (datagram[at] as number);
    at += 1 + (datagram[at] as number);
    if (type === 'initial') {
      const token = varint();
      at += token;
    }
    const length = varint();
    at += length;
  }
  return types;
}

/** A bare client that asks for 0-RTT and sends as early as the engine lets it; resolves once answered. */
async function earlyClient(
  port: number,
  ticket: Uint8Array | undefined,
): Promise<{ ticket: Uint8Array | undefined; close(): Promise<void> }> {
  const { NativeQuicClient } = loadNative();
  let received: Uint8Array | undefined;
  let answered = false;
  const { promise: done, resolve } = Promise.withResolvers<void>();
  const { promise: stopped, resolve: setStopped } = Promise.withResolvers<void>();
  const request = Buffer.from('00010000000100000000', 'hex');
  let stream: number | undefined;
  const trySend = (): void => {
    try {
      stream ??= client.openStream();
      client.streamSend(stream, request, true);
    } catch {
      // Not before the handshake: that is the point.
    }
  };
  const handle = (event: NativeEvent): void => {
    if (event.eventType === EventType.handshakeDone && stream === undefined) trySend();
    if (event.eventType === 12 && event.data !== undefined) received = event.data;
    if (event.data !== undefined && event.streamId === stream) answered = true;
    if (event.eventType === EventType.shutdownComplete) setStopped();
    if (answered && received !== undefined) resolve();
  };
  const client = new NativeQuicClient(
    {
      alpn: ['qpc'],
      runtimeMode: 'portable',
      ca: trustAnchor,
      allow0Rtt: true,
      ...(ticket === undefined ? {} : { sessionTicket: ticket }),
    },
    (_error, events) => {
      for (const event of events) handle(event);
      client.ackEventBatch(events.length);
    },
  );
  client.connect(`127.0.0.1:${port}`, 'localhost');
  trySend();
  await done;
  return {
    ticket: received,
    close: async () => {
      client.close(0, '');
      client.requestShutdown();
      await stopped;
      client.joinWorker();
    },
  };
}
