// A stream without the RPC client: what an attacker, or another implementation, would write.
import type { Connection, StreamEnd, StreamHandler, TransportStream } from '../connection.ts';
import { FrameDecoder, encodeRequestHeader } from '../framing.ts';

/** One response frame as it came. */
export interface RawResponse {
  readonly status: number;
  readonly id: number;
  readonly payload: Uint8Array;
}

export class RawStream implements StreamHandler {
  readonly stream: TransportStream;
  /** Resolves when the stream is over. */
  readonly over: Promise<StreamEnd>;
  /** Resolves when the peer has finished its direction. */
  readonly ended: Promise<void>;
  #setOver!: (end: StreamEnd) => void;
  #setEnded!: () => void;
  readonly #responses: RawResponse[] = [];
  readonly #readers: ((response: RawResponse) => void)[] = [];
  readonly #decoder = new FrameDecoder('response', {
    onHeader: () => 'take',
    onFrame: (status, id, payload) => {
      const response = { status, id, payload: payload.slice() };
      const reader = this.#readers.shift();
      if (reader === undefined) this.#responses.push(response);
      else reader(response);
    },
  });

  constructor(connection: Connection) {
    this.over = new Promise((resolve) => {
      this.#setOver = resolve;
    });
    this.ended = new Promise((resolve) => {
      this.#setEnded = resolve;
    });
    const stream = connection.openStream(this);
    if (stream === undefined) throw new Error('no stream');
    this.stream = stream;
  }

  request(methodId: number, id: number, payload: Uint8Array = new Uint8Array(0)): void {
    this.header(methodId, id, payload.length);
    if (payload.length > 0) this.stream.write(payload);
  }

  /** A header alone, true or not. */
  header(methodId: number, id: number, payloadBytes: number): void {
    this.stream.write(encodeRequestHeader(new Uint8Array(10), methodId, id, payloadBytes));
  }

  response(): Promise<RawResponse> {
    const ready = this.#responses.shift();
    if (ready !== undefined) return Promise.resolve(ready);
    return new Promise((resolve) => this.#readers.push(resolve));
  }

  onData(bytes: Uint8Array): void {
    this.#decoder.push(bytes);
  }

  onEnd(): void {
    this.#setEnded();
  }

  onDrain(): void {}

  onClose(end: StreamEnd): void {
    this.#setOver(end);
  }
}
