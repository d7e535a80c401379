/** base64url without padding (RFC 4648 section 5), for libraries that speak strings. */

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';

export function encodeBase64Url(bytes: Uint8Array): string {
  let out = '';
  for (let i = 0; i < bytes.length; i += 3) {
    const left = bytes.length - i;
    const word = (bytes[i]! << 16) | ((bytes[i + 1] ?? 0) << 8) | (bytes[i + 2] ?? 0);
    out += ALPHABET[word >>> 18]! + ALPHABET[(word >>> 12) & 63]!;
    if (left > 1) out += ALPHABET[(word >>> 6) & 63]!;
    if (left > 2) out += ALPHABET[word & 63]!;
  }
  return out;
}

/** The bytes, or undefined when the text is not canonical base64url without padding. */
export function decodeBase64Url(text: string): Uint8Array | undefined {
  if (text.length % 4 === 1) return undefined;
  const out = new Uint8Array(Math.floor((text.length * 3) / 4));
  let at = 0;
  let bits = 0;
  let word = 0;
  for (const character of text) {
    const value = ALPHABET.indexOf(character);
    if (value < 0) return undefined;
    word = ((word << 6) | value) & 0xffff;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      out[at++] = word >>> bits;
    }
  }
  // Left-over bits must be zero, or two texts would mean the same bytes.
  return (word & ((1 << bits) - 1)) === 0 ? out : undefined;
}
