/** Small helpers over byte strings. All integers are big-endian, as in every protocol we speak. */

const encoder = new TextEncoder();

export const EMPTY: Uint8Array = new Uint8Array(0);

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of parts) length += part.length;
  const out = new Uint8Array(length);
  let offset = 0;
  for (const part of parts) {
    out.set(part, offset);
    offset += part.length;
  }
  return out;
}

/** Compares public values; leaves early. Secrets are compared with `CryptoProvider.equal`. */
export function equal(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Order of public values as byte strings, a prefix before what it begins; a comparator for `sort`. */
export function compare(a: Uint8Array, b: Uint8Array): number {
  const shared = Math.min(a.length, b.length);
  for (let i = 0; i < shared; i++) {
    const difference = a[i]! - b[i]!;
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));

// Newer than the oldest engines we run on (Node 24).
const { toHex } = Uint8Array.prototype as { toHex?: (this: Uint8Array) => string };

export function encodeHex(bytes: Uint8Array): string {
  if (toHex !== undefined) return toHex.call(bytes);
  let out = '';
  for (const byte of bytes) out += HEX[byte]!;
  return out;
}

/** The bytes, or undefined unless `text` is an even number of hexadecimal digits and nothing else. */
export function decodeHex(text: string): Uint8Array | undefined {
  if (text.length % 2 !== 0) return undefined;
  const out = new Uint8Array(text.length / 2);
  for (let i = 0; i < out.length; i++) {
    const high = hexDigit(text.charCodeAt(2 * i));
    const low = hexDigit(text.charCodeAt(2 * i + 1));
    if (high < 0 || low < 0) return undefined;
    out[i] = (high << 4) | low;
  }
  return out;
}

function hexDigit(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30;
  const lower = code | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
}

export function encodeUtf8(text: string): Uint8Array {
  return encoder.encode(text);
}

/** The text, or undefined when the bytes are not well-formed UTF-8. A leading byte order mark is kept as it is. */
export function decodeUtf8(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

export function u16(value: number): Uint8Array {
  return new Uint8Array([value >>> 8, value]);
}

export function u32(value: number): Uint8Array {
  return new Uint8Array([value >>> 24, value >>> 16, value >>> 8, value]);
}

export function u64(value: bigint): Uint8Array {
  const out = new Uint8Array(8);
  new DataView(out.buffer).setBigUint64(0, value);
  return out;
}

/** @throws RangeError when fewer than 2 bytes follow `offset`; likewise the readers below. */
export function readU16(bytes: Uint8Array, offset = 0): number {
  return view(bytes).getUint16(offset);
}

export function readU32(bytes: Uint8Array, offset = 0): number {
  return view(bytes).getUint32(offset);
}

export function readU64(bytes: Uint8Array, offset = 0): bigint {
  return view(bytes).getBigUint64(offset);
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** The non-negative integer these bytes write. Not constant-time: public values, or key generation only. */
export function bytesToBigInt(bytes: Uint8Array): bigint {
  return bytes.length === 0 ? 0n : BigInt(`0x${encodeHex(bytes)}`);
}

/** @throws RangeError when the value is negative or does not fit in `length` bytes. */
export function bigIntToBytes(value: bigint, length: number): Uint8Array {
  const bytes = value < 0n ? undefined : decodeHex(value.toString(16).padStart(2 * length, '0'));
  if (bytes?.length !== length) throw new RangeError(`integer does not fit in ${length} bytes`);
  return bytes;
}
