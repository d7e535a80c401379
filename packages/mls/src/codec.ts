/**
 * TLS presentation language as RFC 9420 section 2.1 uses it: big-endian integers, vectors with a variable-size length of
 * 1, 2 or 4 bytes, `optional<T>`. A reader never allocates more than a small multiple of the bytes it was given: every
 * length is compared with what is left before anything is made.
 */
import { EMPTY } from '@quicprochat/crypto';
import { MlsUsageError, violated } from './errors.ts';

/** No message or stored row is longer. */
const ENCODED_BYTES_MAX = 64 * 1024 * 1024;

/** No vector has more elements, so that many tiny ones do not grow into objects without bound. */
const VECTOR_ITEMS_MAX = 1 << 17;

const VARINT_MAX = 0x3fff_ffff;

export class Reader {
  readonly #bytes: Uint8Array;
  readonly #end: number;
  #position: number;

  constructor(bytes: Uint8Array, start = 0, end: number = bytes.length) {
    if (bytes.length > ENCODED_BYTES_MAX) violated('malformed', 'too long');
    this.#bytes = bytes;
    this.#position = start;
    this.#end = end;
  }

  get position(): number {
    return this.#position;
  }

  get remaining(): number {
    return this.#end - this.#position;
  }

  u8(): number {
    return this.#bytes[this.#take(1)]!;
  }

  u16(): number {
    const at = this.#take(2);
    return (this.#bytes[at]! << 8) | this.#bytes[at + 1]!;
  }

  u32(): number {
    const at = this.#take(4);
    const bytes = this.#bytes;
    return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
  }

  u64(): bigint {
    const high = this.u32();
    return (BigInt(high) << 32n) | BigInt(this.u32());
  }

  /** A variable-size vector length (RFC 9420 section 2.1.2), in its shortest form only. */
  length(): number {
    const first = this.u8();
    const prefix = first >> 6;
    if (prefix === 0) return first;
    if (prefix === 1) {
      const value = ((first & 0x3f) << 8) | this.u8();
      if (value < 0x40) violated('malformed', 'length not in shortest form');
      return value;
    }
    if (prefix === 2) {
      const high = ((first & 0x3f) << 8) | this.u8();
      const value = high * 0x10000 + this.u16();
      if (value < 0x4000) violated('malformed', 'length not in shortest form');
      return value;
    }
    return violated('malformed', 'invalid length prefix');
  }

  /** The next `count` bytes, copied. */
  bytes(count: number): Uint8Array {
    const at = this.#take(count);
    return count === 0 ? EMPTY : this.#bytes.slice(at, at + count);
  }

  /** opaque<V>, copied, so that it may outlive or be wiped apart from the message. */
  opaque(): Uint8Array {
    return this.bytes(this.length());
  }

  /** opaque<V> as a view of the message. */
  opaqueView(): Uint8Array {
    const count = this.length();
    const at = this.#take(count);
    return this.#bytes.subarray(at, at + count);
  }

  /** A view of what was read since `start`. */
  since(start: number): Uint8Array {
    return this.#bytes.subarray(start, this.#position);
  }

  rest(): Uint8Array {
    return this.#bytes.subarray(this.#take(this.remaining), this.#end);
  }

  vector<T>(read: (reader: Reader) => T): T[] {
    const count = this.length();
    const at = this.#take(count);
    const inner = new Reader(this.#bytes, at, at + count);
    const items: T[] = [];
    while (inner.remaining > 0) {
      if (items.length === VECTOR_ITEMS_MAX) violated('malformed', 'too many elements');
      items.push(read(inner));
    }
    return items;
  }

  optional<T>(read: (reader: Reader) => T): T | undefined {
    const present = this.u8();
    if (present > 1) violated('malformed', 'optional neither absent nor present');
    return present === 1 ? read(this) : undefined;
  }

  finish(): void {
    if (this.remaining !== 0) violated('malformed', 'bytes left over');
  }

  #take(count: number): number {
    const at = this.#position;
    if (count > this.#end - at) violated('malformed', 'ends too early');
    this.#position = at + count;
    return at;
  }
}

/**
 * Buffers to write into, all of one length and all zero between uses. Most of what is written lives for one hash or one
 * signature; making a buffer for each costs more than writing it.
 */
const scratches: Uint8Array[] = [];
const SCRATCH_LENGTH = 8192;
const SCRATCHES_MAX = 8;

function giveBack(scratch: Uint8Array, used: number): void {
  scratch.fill(0, 0, used);
  if (scratch.length === SCRATCH_LENGTH && scratches.length < SCRATCHES_MAX) scratches.push(scratch);
}

export class Writer {
  #bytes: Uint8Array;
  #length = 0;

  /** A `sizeHint` helps only when much more than a few kilobytes will be written. */
  constructor(sizeHint = 0) {
    this.#bytes =
      sizeHint > SCRATCH_LENGTH ? new Uint8Array(sizeHint) : (scratches.pop() ?? new Uint8Array(SCRATCH_LENGTH));
  }

  get length(): number {
    return this.#length;
  }

  u8(value: number): this {
    this.#reserve(1);
    this.#bytes[this.#length++] = value;
    return this;
  }

  u16(value: number): this {
    this.#reserve(2);
    this.#bytes[this.#length++] = value >>> 8;
    this.#bytes[this.#length++] = value;
    return this;
  }

  u32(value: number): this {
    this.#reserve(4);
    this.#bytes[this.#length++] = value >>> 24;
    this.#bytes[this.#length++] = value >>> 16;
    this.#bytes[this.#length++] = value >>> 8;
    this.#bytes[this.#length++] = value;
    return this;
  }

  u64(value: bigint): this {
    return this.u32(Number((value >> 32n) & 0xffff_ffffn)).u32(Number(value & 0xffff_ffffn));
  }

  varint(value: number): this {
    if (value < 0x40) return this.u8(value);
    if (value < 0x4000) return this.u16(0x4000 | value);
    if (value > VARINT_MAX) throw new RangeError('vector too long');
    return this.u32((0x8000_0000 | value) >>> 0);
  }

  bytes(value: Uint8Array): this {
    this.#reserve(value.length);
    this.#bytes.set(value, this.#length);
    this.#length += value.length;
    return this;
  }

  opaque(value: Uint8Array): this {
    return this.varint(value.length).bytes(value);
  }

  zeros(count: number): this {
    if (!Number.isSafeInteger(count) || count < 0) throw new MlsUsageError('not a number of bytes');
    this.#reserve(count);
    this.#bytes.fill(0, this.#length, (this.#length += count));
    return this;
  }

  vector<T>(items: Iterable<T>, write: (writer: this, item: T) => void): this {
    const start = this.#length;
    for (const item of items) write(this, item);
    const count = this.#length - start;
    const header = count < 0x40 ? 1 : count < 0x4000 ? 2 : 4;
    this.#reserve(header);
    this.#bytes.copyWithin(start + header, start, this.#length);
    this.#length = start;
    this.varint(count);
    this.#length += count;
    return this;
  }

  optional<T>(value: T | undefined, write: (writer: this, value: T) => void): this {
    if (value === undefined) return this.u8(0);
    this.u8(1);
    write(this, value);
    return this;
  }

  /** What was written. The writer starts anew; nothing of it stays in memory that is not given away. */
  finish(): Uint8Array {
    const bytes = this.#bytes;
    const length = this.#length;
    this.#bytes = EMPTY;
    this.#length = 0;
    if (bytes.length === length && length !== SCRATCH_LENGTH) return bytes;
    const result = bytes.slice(0, length);
    giveBack(bytes, length);
    return result;
  }

  /** Gives what was written to `use` without a copy of it. The bytes are gone afterwards. */
  finishInto<T>(use: (bytes: Uint8Array) => T): T {
    const bytes = this.#bytes;
    const length = this.#length;
    this.#bytes = EMPTY;
    this.#length = 0;
    try {
      return use(bytes.subarray(0, length));
    } finally {
      giveBack(bytes, length);
    }
  }

  #reserve(count: number): void {
    const needed = this.#length + count;
    if (needed <= this.#bytes.length) return;
    const larger = new Uint8Array(Math.max(needed, 2 * this.#bytes.length));
    larger.set(this.#bytes.subarray(0, this.#length));
    giveBack(this.#bytes, this.#length);
    this.#bytes = larger;
  }
}

export function encode<T>(write: (writer: Writer, value: T) => void, value: T, sizeHint?: number): Uint8Array {
  const writer = new Writer(sizeHint);
  write(writer, value);
  return writer.finish();
}

/** Decodes a whole byte string. @throws RuleViolation `malformed` */
export function decode<T>(read: (reader: Reader) => T, bytes: Uint8Array): T {
  const reader = new Reader(bytes);
  const value = read(reader);
  reader.finish();
  return value;
}
