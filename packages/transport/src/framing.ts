// Frames on the wire (DESIGN section 3). All integers big-endian.
//
//   request   method_id u16 │ request_id u32 │ payload_len u32 │ payload
//   response  status u8     │ request_id u32 │ payload_len u32 │ payload
//   push      event_type u16                 │ payload_len u32 │ payload
//
// Pure: bytes in, frames out. The decoder shows each header to its sink before it keeps a byte of the
// payload, and the sink says whether to take it, to skip it without buffering, or to stop.
//
// Who owns the bytes: a chunk given to `push` belongs to the decoder's user afterwards, and the payload
// handed to `onFrame` is a view into that chunk (or, for a frame that came in several chunks, into a
// buffer made for this frame alone). Nothing is ever overwritten. Protobuf `bytes` fields decoded from
// it are views into the same memory: copy before keeping one long (it pins the whole chunk) or wiping.

/** Largest payload of any frame, bytes. */
export const PAYLOAD_BYTES_MAX = 4 * 1024 * 1024;
/** Largest request or response on the shared stream, bytes. */
export const SHARED_PAYLOAD_BYTES_MAX = 64 * 1024;
/** method_id of Cancel: request_id names the call, no payload. */
export const CANCEL_METHOD_ID = 0;

export const REQUEST_HEADER_BYTES = 10;
export const RESPONSE_HEADER_BYTES = 9;
export const PUSH_HEADER_BYTES = 6;

const U32_MAX = 0xffff_ffff;

/** Writes a request header into the first 10 bytes of `into` and returns exactly those. */
export function encodeRequestHeader(
  into: Uint8Array,
  methodId: number,
  requestId: number,
  payloadBytes: number,
): Uint8Array {
  into[0] = methodId >>> 8;
  into[1] = methodId;
  writeU32(into, 2, requestId);
  writeU32(into, 6, payloadBytes);
  return into.length === REQUEST_HEADER_BYTES ? into : into.subarray(0, REQUEST_HEADER_BYTES);
}

/** Writes a response header into the first 9 bytes of `into` and returns exactly those. */
export function encodeResponseHeader(
  into: Uint8Array,
  status: number,
  requestId: number,
  payloadBytes: number,
): Uint8Array {
  into[0] = status;
  writeU32(into, 1, requestId);
  writeU32(into, 5, payloadBytes);
  return into.length === RESPONSE_HEADER_BYTES ? into : into.subarray(0, RESPONSE_HEADER_BYTES);
}

/** Writes a push header into the first 6 bytes of `into` and returns exactly those. */
export function encodePushHeader(into: Uint8Array, eventType: number, payloadBytes: number): Uint8Array {
  into[0] = eventType >>> 8;
  into[1] = eventType;
  writeU32(into, 2, payloadBytes);
  return into.length === PUSH_HEADER_BYTES ? into : into.subarray(0, PUSH_HEADER_BYTES);
}

/** What to do with a frame whose header has been read: keep it, drop its payload, or give up the stream. */
export type FrameVerdict = 'take' | 'skip' | 'stop';

/** Receives frames. `tag` is the method id, status or event type; `requestId` is 0 for push frames. */
export interface FrameSink {
  /** Called before a byte of the payload is kept. `payloadBytes` is at most the decoder's limit. */
  onHeader(tag: number, requestId: number, payloadBytes: number): FrameVerdict;
  /** A complete frame that `onHeader` took. */
  onFrame(tag: number, requestId: number, payload: Uint8Array): void;
}

/** `oversized`: a header announced more than the limit. `stopped`: the sink said so. Both are final. */
export type DecoderState = 'open' | 'oversized' | 'stopped';

const HEADER_BYTES = {
  request: REQUEST_HEADER_BYTES,
  response: RESPONSE_HEADER_BYTES,
  push: PUSH_HEADER_BYTES,
} as const;

// A frame that comes in several chunks is assembled in a buffer that grows with what has arrived, so
// that a header alone costs its sender more than it costs us.
const ASSEMBLY_BYTES_FIRST = 1024;
const EMPTY = new Uint8Array(0);

/** Incremental decoder of one direction of one stream. */
export class FrameDecoder {
  readonly #sink: FrameSink;
  readonly #tagBytes: 1 | 2;
  readonly #headerBytes: number;
  readonly #payloadBytesMax: number;
  readonly #header: Uint8Array;
  #state: DecoderState = 'open';
  #headerFilled = 0;
  #tag = 0;
  #requestId = 0;
  #payloadBytes = 0;
  #inPayload = false;
  #skipping = false;
  // Bytes of the current payload seen so far; kept in #assembly unless skipping.
  #payloadFilled = 0;
  #assembly: Uint8Array = EMPTY;

  /**
   * @param kind which of the three frames this direction carries
   * @param payloadBytesMax lower than the protocol's limit where the caller knows better
   */
  constructor(kind: 'request' | 'response' | 'push', sink: FrameSink, payloadBytesMax: number = PAYLOAD_BYTES_MAX) {
    this.#sink = sink;
    this.#tagBytes = kind === 'response' ? 1 : 2;
    this.#headerBytes = HEADER_BYTES[kind];
    this.#payloadBytesMax = Math.min(payloadBytesMax, PAYLOAD_BYTES_MAX);
    this.#header = new Uint8Array(this.#headerBytes);
  }

  get state(): DecoderState {
    return this.#state;
  }

  /** True in the middle of a frame: a stream that ends here was truncated. */
  get midFrame(): boolean {
    return this.#headerFilled > 0 || this.#inPayload;
  }

  /** Bytes held for a frame that is not complete yet. */
  get bufferedBytes(): number {
    return this.#assembly.length;
  }

  /** Gives up the frame in progress: its payload is dropped as it arrives and `onFrame` never comes. */
  skipCurrent(): void {
    if (!this.#inPayload) return;
    this.#skipping = true;
    this.#assembly = EMPTY;
  }

  /** Ends decoding: everything else pushed is ignored. */
  stop(): void {
    if (this.#state === 'open') this.#state = 'stopped';
    this.#assembly = EMPTY;
  }

  /** Decodes a chunk; may call the sink any number of times. Returns the state afterwards. */
  push(chunk: Uint8Array): DecoderState {
    let at = 0;
    while (this.#state === 'open') {
      if (!this.#inPayload) {
        const left = chunk.length - at;
        if (left === 0) break;
        if (this.#headerFilled === 0 && left >= this.#headerBytes) {
          this.#readHeader(chunk, at);
          at += this.#headerBytes;
        } else {
          const n = Math.min(left, this.#headerBytes - this.#headerFilled);
          this.#header.set(chunk.subarray(at, at + n), this.#headerFilled);
          this.#headerFilled += n;
          at += n;
          if (this.#headerFilled < this.#headerBytes) break;
          this.#headerFilled = 0;
          this.#readHeader(this.#header, 0);
        }
        continue;
      }
      const wanted = this.#payloadBytes - this.#payloadFilled;
      const left = chunk.length - at;
      if (this.#skipping) {
        const n = Math.min(wanted, left);
        this.#payloadFilled += n;
        at += n;
        if (n < wanted) break;
        this.#inPayload = false;
      } else if (this.#payloadFilled === 0 && left >= wanted) {
        this.#inPayload = false;
        const payload = wanted === 0 ? EMPTY : chunk.subarray(at, at + wanted);
        at += wanted;
        this.#sink.onFrame(this.#tag, this.#requestId, payload);
      } else {
        const n = Math.min(wanted, left);
        if (n === 0) break;
        this.#assemble(chunk.subarray(at, at + n));
        at += n;
        if (n < wanted) break;
        const payload = this.#assembly.subarray(0, this.#payloadBytes);
        this.#assembly = EMPTY;
        this.#inPayload = false;
        this.#sink.onFrame(this.#tag, this.#requestId, payload);
      }
    }
    return this.#state;
  }

  #readHeader(from: Uint8Array, at: number): void {
    const first = from[at] ?? 0;
    this.#tag = this.#tagBytes === 1 ? first : (first << 8) | (from[at + 1] ?? 0);
    const rest = at + this.#tagBytes;
    if (this.#headerBytes === PUSH_HEADER_BYTES) {
      this.#requestId = 0;
      this.#payloadBytes = readU32(from, rest);
    } else {
      this.#requestId = readU32(from, rest);
      this.#payloadBytes = readU32(from, rest + 4);
    }
    if (this.#payloadBytes > this.#payloadBytesMax) {
      this.#state = 'oversized';
      return;
    }
    this.#payloadFilled = 0;
    this.#inPayload = true;
    this.#skipping = false;
    const verdict = this.#sink.onHeader(this.#tag, this.#requestId, this.#payloadBytes);
    if (verdict === 'stop') this.stop();
    else if (verdict === 'skip') this.#skipping = true;
  }

  #assemble(part: Uint8Array): void {
    const needed = this.#payloadFilled + part.length;
    if (needed > this.#assembly.length) {
      const doubled = Math.max(ASSEMBLY_BYTES_FIRST, this.#assembly.length * 2, needed);
      const larger = new Uint8Array(Math.min(doubled, this.#payloadBytes));
      larger.set(this.#assembly.subarray(0, this.#payloadFilled));
      this.#assembly = larger;
    }
    this.#assembly.set(part, this.#payloadFilled);
    this.#payloadFilled = needed;
  }
}

function writeU32(into: Uint8Array, at: number, value: number): void {
  if (!(value >= 0 && value <= U32_MAX)) throw new RangeError('not a u32');
  into[at] = value >>> 24;
  into[at + 1] = value >>> 16;
  into[at + 2] = value >>> 8;
  into[at + 3] = value;
}

function readU32(from: Uint8Array, at: number): number {
  return (
    (((from[at] ?? 0) << 24) | ((from[at + 1] ?? 0) << 16) | ((from[at + 2] ?? 0) << 8) | (from[at + 3] ?? 0)) >>> 0
  );
}
