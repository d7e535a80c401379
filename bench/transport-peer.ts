// The other side of the transport benchmark: a server process of either kind, and the bare client.
import { type DescMessage, type MessageInitShape, create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { BytesValueSchema, EmptySchema } from '@bufbuild/protobuf/wkt';
import { AckRequestSchema, AckResponseSchema, EnqueueRequestSchema, EnqueueResponseSchema } from '@quicprochat/proto';
import {
  FrameDecoder,
  type MethodDescriptor,
  RpcServer,
  encodeRequestHeader,
  encodeResponseHeader,
  methods,
  route,
} from '@quicprochat/transport';
import { listenQuic } from '@quicprochat/transport/quic';
import type { TestCertificate } from '../packages/transport/src/testing/certificate.node.ts';
import { ENGINE_OPTIONS, HANDSHAKE_DONE, type NativeEngine, SHUTDOWN_COMPLETE, native } from './bare-engine.ts';

/** `rpc` is ours; `bare…` is the engine with our frames and messages alone, for Ack, GetNonce or Enqueue. */
export type ServerKind = 'rpc' | keyof typeof BARE_CALLS;

/** A call of the baseline: what goes over the wire, and nothing behind it. */
export interface BareCall<I extends DescMessage = DescMessage, O extends DescMessage = DescMessage> {
  readonly method: MethodDescriptor<I, O>;
  readonly request: MessageInitShape<I>;
  readonly answer: MessageInitShape<O>;
}

export const BULK_METHOD: MethodDescriptor<typeof BytesValueSchema, typeof EmptySchema> = {
  id: 0xffff,
  name: 'bench.Bulk',
  requestMax: 4 * 1024 * 1024,
  responseMax: 16,
  timeoutMs: 30_000,
  idempotent: true,
  stream: 'own',
  auth: 'anyone',
  input: BytesValueSchema,
  output: EmptySchema,
};

/** A request of the size of most: an address, a channel, a number; about 76 bytes encoded. */
export const ACK_REQUEST = {
  recipientKey: new Uint8Array(32).fill(7),
  channelId: new Uint8Array(16).fill(8),
  deviceId: new Uint8Array(16).fill(9),
  seqUpTo: 123_456n,
};

export const BARE_ACK: BareCall<typeof AckRequestSchema, typeof AckResponseSchema> = {
  method: methods.delivery.ack,
  request: ACK_REQUEST,
  answer: { removed: 1 },
};

export const BARE_NONCE: BareCall = {
  method: methods.auth.getNonce,
  request: {},
  answer: { nonce: new Uint8Array(32).fill(6) },
};

/** An answer like that of a message to one device. */
const BARE_ENQUEUE: BareCall<typeof EnqueueRequestSchema, typeof EnqueueResponseSchema> = {
  method: methods.delivery.enqueue,
  request: {},
  answer: {
    seq: 123_456n,
    deliveryProof: new Uint8Array(256).fill(5),
    results: [
      {
        address: { identityKey: ACK_REQUEST.recipientKey, deviceId: ACK_REQUEST.deviceId },
        outcome: { case: 'queued', value: { seq: 123_456n } },
      },
    ],
  },
};

const BARE_CALLS = { bare: BARE_ACK, 'bare-nonce': BARE_NONCE, 'bare-enqueue': BARE_ENQUEUE };

/** Frames written in one turn, sent in one go. */
class Gather {
  #buffer = new Uint8Array(1 << 20);
  #used = 0;

  add(head: Uint8Array, payload: Uint8Array): void {
    this.#buffer.set(head, this.#used);
    this.#buffer.set(payload, this.#used + head.length);
    this.#used += head.length + payload.length;
  }

  send(write: (bytes: Uint8Array) => void): void {
    if (this.#used > 0) write(this.#buffer.subarray(0, this.#used));
    this.#used = 0;
  }
}

/** The engine and nothing else, as the baseline's client. */
export class BareClient {
  readonly #engine: NativeEngine;
  readonly #gather = new Gather();
  readonly #head = new Uint8Array(10);
  readonly #decoder: FrameDecoder;
  readonly #bare: BareCall;
  #stream = 0;
  #nextId = 0;
  #again: () => boolean = () => false;
  #pending = 0;
  #idle: () => void = () => {};
  #connected: () => void = () => {};
  #stopped: () => void = () => {};

  /** @param certificate of the server, PEM */
  static async connect(port: number, certificate: Uint8Array, call: BareCall = BARE_ACK): Promise<BareClient> {
    const client = new BareClient(certificate, call);
    await new Promise<void>((resolve) => {
      client.#connected = resolve;
      client.#engine.connect(`127.0.0.1:${port}`, 'localhost');
    });
    client.#stream = client.#engine.openStream();
    return client;
  }

  private constructor(ca: Uint8Array, call: BareCall) {
    this.#bare = call;
    this.#decoder = new FrameDecoder('response', {
      onHeader: () => 'take',
      onFrame: (_status, _id, payload) => {
        fromBinary(call.method.output, payload);
        if (this.#again()) this.#call();
        else {
          this.#pending -= 1;
          if (this.#pending === 0) this.#idle();
        }
      },
    });
    this.#engine = new native.NativeQuicClient({ ...ENGINE_OPTIONS, ca }, (_error, events) => {
      for (const event of events) {
        if (event.eventType === HANDSHAKE_DONE) this.#connected();
        else if (event.eventType === SHUTDOWN_COMPLETE) this.#stopped();
        else if (event.data !== undefined && event.streamId === this.#stream) {
          this.#decoder.push(event.data);
        }
      }
      this.#flush();
      this.#engine.ackEventBatch(events.length);
    });
  }

  /** Keeps `inFlight` calls going; `answered` says whether another one follows. */
  run(inFlight: number, answered: () => boolean): Promise<void> {
    this.#again = answered;
    this.#pending = inFlight;
    return new Promise((resolve) => {
      this.#idle = resolve;
      for (let i = 0; i < inFlight; i += 1) this.#call();
      this.#flush();
    });
  }

  async close(): Promise<void> {
    const stopped = new Promise<void>((resolve) => {
      this.#stopped = resolve;
    });
    this.#engine.close(0, '');
    this.#engine.requestShutdown();
    await stopped;
    setImmediate(() => this.#engine.joinWorker());
  }

  #call(): void {
    const { method, request } = this.#bare;
    const payload = toBinary(method.input, create(method.input, request));
    this.#nextId = (this.#nextId + 1) >>> 0;
    this.#gather.add(encodeRequestHeader(this.#head, method.id, this.#nextId, payload.length), payload);
  }

  #flush(): void {
    this.#gather.send((bytes) => this.#engine.streamSend(this.#stream, bytes, false));
  }
}

function serveBare({ certificate, privateKey }: TestCertificate, call: BareCall): Promise<number> {
  const { input, output } = call.method;
  const head = new Uint8Array(9);
  const streams = new Map<string, { decoder: FrameDecoder; gather: Gather }>();
  const accept = (): { decoder: FrameDecoder; gather: Gather } => {
    const gather = new Gather();
    const decoder = new FrameDecoder('request', {
      onHeader: () => 'take',
      onFrame: (_method, id, payload) => {
        fromBinary(input, payload);
        const answer = toBinary(output, create(output, call.answer));
        gather.add(encodeResponseHeader(head, 0, id, answer.length), answer);
      },
    });
    return { decoder, gather };
  };
  const options = { ...ENGINE_OPTIONS, cert: certificate, key: privateKey, clientAuth: 'none', disableRetry: false };
  const engine = new native.NativeQuicServer(options, (_error, events) => {
    for (const event of events) {
      if (event.data === undefined) continue;
      const key = `${event.connHandle}/${event.streamId}`;
      let stream = streams.get(key);
      if (stream === undefined) {
        stream = accept();
        streams.set(key, stream);
      }
      stream.decoder.push(event.data);
      stream.gather.send((bytes) => engine.streamSend(event.connHandle, event.streamId, bytes, false));
    }
    engine.ackEventBatch(events.length);
  });
  return Promise.resolve(engine.listen(0, '127.0.0.1').port);
}

async function serveRpc({ certificate, privateKey }: TestCertificate): Promise<number> {
  const server = new RpcServer<null>({
    newState: () => null,
    authorize: () => {},
    routes: [route(methods.delivery.ack, () => ({ removed: 1 })), route(BULK_METHOD, () => ({}))],
  });
  const listener = await listenQuic({ host: '127.0.0.1', port: 0, certificate, privateKey }, server.accept);
  return listener.address.port;
}

if (process.argv[1] === import.meta.filename) {
  process.once('message', (certificate: TestCertificate) => {
    const kind = process.argv[2] as ServerKind;
    const started = kind === 'rpc' ? serveRpc(certificate) : serveBare(certificate, BARE_CALLS[kind]);
    void started.then((port) => process.send?.(port));
  });
  process.on('disconnect', () => process.exit());
}
