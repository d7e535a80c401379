// One client of a load generator: the engine, our frames, requests built beforehand. It does as little as a client can, so
// that what is measured is the server, which has to share its cores with its clients here.
import {
  type DescMessage,
  type MessageInitShape,
  type MessageShape,
  create,
  fromBinary,
  toBinary,
} from '@bufbuild/protobuf';
import { signResumeProof } from '@quicprochat/core';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { FrameDecoder, type MethodDescriptor, encodeRequestHeader, methods } from '@quicprochat/transport';
import {
  ENGINE_OPTIONS,
  HANDSHAKE_DONE,
  type NativeEngine,
  SESSION_CLOSED,
  SHUTDOWN_COMPLETE,
  native,
} from './bare-engine.ts';
import type { ServerAddress } from './server-process.ts';
import type { SeededDevice } from './server-seed.ts';

/** Between its turns a client is silent for longer than the server waits. */
const KEEPALIVE_MS = 10_000;
const HEADER_BYTES = 10;
const REQUEST_ID_AT = 2;

/** A request, encoded. */
export function encodeRequest<I extends DescMessage>(
  method: MethodDescriptor<I>,
  request: MessageInitShape<I>,
): Uint8Array {
  const payload = toBinary(method.input, create(method.input, request));
  const frame = new Uint8Array(HEADER_BYTES + payload.length);
  encodeRequestHeader(frame, method.id, 0, payload.length);
  frame.set(payload, HEADER_BYTES);
  return frame;
}

/** Where an engine listens, and the certificate to trust, PEM. */
export type EngineAddress = Pick<ServerAddress, 'port' | 'caCert'>;

/** Told the status and the payload of an answer; true when another request is to follow. */
export type Answered = (status: number, payload: Uint8Array) => boolean;

export class LoadConnection {
  readonly #engine: NativeEngine;
  readonly #decoder: FrameDecoder;
  readonly #connected: Promise<void>;
  readonly #stopped: Promise<void>;
  readonly #keepalive: ReturnType<typeof setInterval>;
  #stream = 0;
  #nextId = 0;
  #answered: Answered = () => false;
  #next: () => Uint8Array = () => new Uint8Array(0);
  #pending = 0;
  #finished: () => void = () => {};
  #failed: (error: Error) => void = () => {};

  /** Connects to whatever speaks our frames. */
  static async connectBare(server: EngineAddress): Promise<LoadConnection> {
    const connection = new LoadConnection(server);
    await connection.#connected;
    connection.#stream = connection.#engine.openStream();
    return connection;
  }

  /** Connects and resumes the device's session. */
  static async connect(server: ServerAddress, device: SeededDevice): Promise<LoadConnection> {
    const connection = await LoadConnection.connectBare(server);
    const { nonce } = await connection.call(methods.auth.getNonce, {});
    const { deviceId, token } = device;
    const terms = { origin: server.origin, nonce, deviceId, token };
    const deviceSignature = signResumeProof(nodeCrypto, device.devicePrivateKey, terms);
    await connection.call(methods.auth.resumeSession, { token, deviceId, deviceSignature });
    return connection;
  }

  private constructor({ caCert, port }: EngineAddress) {
    const connected = Promise.withResolvers<void>();
    const stopped = Promise.withResolvers<void>();
    this.#connected = connected.promise;
    this.#stopped = stopped.promise;
    this.#decoder = new FrameDecoder('response', {
      onHeader: () => 'take',
      onFrame: (status, _id, payload) => {
        if (this.#answered(status, payload)) {
          this.#send();
          return;
        }
        this.#pending -= 1;
        if (this.#pending === 0) this.#finished();
      },
    });
    this.#engine = new native.NativeQuicClient({ ...ENGINE_OPTIONS, ca: caCert }, (_error, events) => {
      for (const event of events) {
        if (event.data !== undefined && event.streamId === this.#stream) this.#decoder.push(event.data);
        else if (event.eventType === HANDSHAKE_DONE) connected.resolve();
        else if (event.eventType === SHUTDOWN_COMPLETE) stopped.resolve();
        else if (event.eventType === SESSION_CLOSED) this.#failed(new Error('the server closed a connection'));
      }
      this.#engine.ackEventBatch(events.length);
    });
    this.#engine.connect(`127.0.0.1:${port}`, 'localhost');
    this.#keepalive = setInterval(() => this.#engine.ping(), KEEPALIVE_MS).unref();
  }

  /** One call whose answer is decoded. */
  async call<I extends DescMessage, O extends DescMessage>(
    method: MethodDescriptor<I, O>,
    request: MessageInitShape<I>,
  ): Promise<MessageShape<O>> {
    const frame = encodeRequest(method, request);
    let answer: MessageShape<O> | undefined;
    await this.repeat(
      1,
      () => frame,
      (status, payload) => {
        if (status !== 0) throw new Error(`${method.name} was answered with status ${status}`);
        answer = fromBinary(method.output, payload);
        return false;
      },
    );
    if (answer === undefined) throw new Error(`${method.name} was not answered`);
    return answer;
  }

  /**
   * Keeps so many calls in flight until `answered` says for each that nothing is to follow.
   * @param next the frame to send, from `encodeRequest`; copied at once, so one frame can serve all
   */
  async repeat(inFlight: number, next: () => Uint8Array, answered: Answered): Promise<void> {
    this.#next = next;
    this.#pending = inFlight;
    await new Promise<void>((resolve, reject) => {
      this.#finished = resolve;
      this.#failed = reject;
      this.#answered = (status, payload) => {
        try {
          return answered(status, payload);
        } catch (error) {
          reject(error as Error);
          return false;
        }
      };
      for (let i = 0; i < inFlight; i += 1) this.#send();
    });
  }

  async close(): Promise<void> {
    clearInterval(this.#keepalive);
    this.#engine.close(0, '');
    this.#engine.requestShutdown();
    await this.#stopped;
    setImmediate(() => this.#engine.joinWorker());
  }

  #send(): void {
    const frame = this.#next();
    this.#nextId = (this.#nextId + 1) >>> 0;
    for (let i = 0; i < 4; i += 1) frame[REQUEST_ID_AT + i] = this.#nextId >>> (24 - 8 * i);
    const { written } = this.#engine.streamSend(this.#stream, frame, false);
    if (written !== frame.length) this.#failed(new Error('the engine took only part of a request'));
  }
}
