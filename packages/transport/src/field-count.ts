// Bounds what decoding a protobuf message allocates (THREATS 27): every field that is present, known or not, costs an
// object or an array entry, and two bytes are enough for one. Reads tags and lengths only, before the decoder runs.
import { type DescField, type DescMessage, ScalarType } from '@bufbuild/protobuf';

/** Most fields in one request, those of nested messages included. The largest honest one, ten thousand recipients, has 50,007. */
export const FIELDS_MAX = 65_536;

const FIELD_BYTES_MIN = 2;
const VARINT_BYTES_MAX = 10;
const WireType = { varint: 0, fixed64: 1, lengthDelimited: 2, fixed32: 5 } as const;

/** Whether an encoded message is well-formed down to its lengths and has at most `max` fields. */
export function fieldsWithin(message: DescMessage, bytes: Uint8Array, max: number = FIELDS_MAX): boolean {
  if (bytes.length <= max * FIELD_BYTES_MIN) return true;
  return new FieldCounter(bytes, max).count(message, bytes.length);
}

class FieldCounter {
  readonly #bytes: Uint8Array;
  #left: number;
  #at = 0;

  constructor(bytes: Uint8Array, max: number) {
    this.#bytes = bytes;
    this.#left = max;
  }

  /** Counts the fields of a message that ends at `end`; nested ones as the decoder will see them. */
  count(message: DescMessage | undefined, end: number): boolean {
    while (this.#at < end) {
      this.#left -= 1;
      if (this.#left < 0) return false;
      const tag = this.#varint(end);
      if (tag === undefined) return false;
      switch (tag & 7) {
        case WireType.varint:
          if (this.#varint(end) === undefined) return false;
          break;
        case WireType.fixed64:
          this.#at += 8;
          break;
        case WireType.fixed32:
          this.#at += 4;
          break;
        case WireType.lengthDelimited: {
          const length = this.#varint(end);
          if (length === undefined || length > end - this.#at) return false;
          if (!this.#countInside(message && fieldOf(message, tag >>> 3), this.#at + length)) return false;
          break;
        }
        // Groups, which this contract has none of, and what does not exist.
        default:
          return false;
      }
    }
    return this.#at === end;
  }

  #countInside(field: DescField | undefined, end: number): boolean {
    const nested = field?.message;
    if (nested !== undefined) return this.count(nested, end);
    // A packed element takes a byte at least.
    if (field?.fieldKind === 'list' && isPackable(field)) this.#left -= end - this.#at;
    this.#at = end;
    return this.#left >= 0;
  }

  /** The low 32 bits; undefined when it does not end in time. */
  #varint(end: number): number | undefined {
    let value = 0;
    for (let i = 0; i < VARINT_BYTES_MAX && this.#at < end; i += 1) {
      const byte = this.#bytes[this.#at] as number;
      this.#at += 1;
      if (i < 5) value |= (byte & 0x7f) << (7 * i);
      if (byte < 0x80) return value >>> 0;
    }
    return undefined;
  }
}

function isPackable(field: DescField & { fieldKind: 'list' }): boolean {
  return field.listKind === 'enum' || (field.scalar !== ScalarType.BYTES && field.scalar !== ScalarType.STRING);
}

const fieldsByNumber = new WeakMap<DescMessage, ReadonlyMap<number, DescField>>();

function fieldOf(message: DescMessage, number: number): DescField | undefined {
  let fields = fieldsByNumber.get(message);
  if (fields === undefined) {
    fields = new Map(message.fields.map((field) => [field.number, field]));
    fieldsByNumber.set(message, fields);
  }
  return fields.get(number);
}
