/**
 * What may reach a terminal. Text from other people can hold escape sequences that move the cursor, retitle the window
 * or rewrite what is already on screen, and direction marks that make a name read as another (THREATS 28). Everything
 * the program prints for people passes through here; colour is added afterwards, by `output.ts` alone.
 */

/** Controls (C0, DEL, C1), direction marks, line separators, interlinear and tag characters, lone surrogates. */
const UNSAFE = /[\p{Cc}\p{Cs}\p{Bidi_Control}\u2028\u2029\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]/gu;

/** Text for one line: tabs and line breaks become spaces, everything unsafe becomes U+FFFD. */
export function singleLine(text: string): string {
  return text.replace(/\r\n|[\t\n\r\u0085\u2028\u2029]/gu, ' ').replace(UNSAFE, '\ufffd');
}

/** Text that keeps its line breaks; lines after the first are indented so that none can pose as one of ours. */
export function multiLine(text: string, indent: number): string {
  return text
    .split(/\r\n|[\n\r\u0085\u2028\u2029]/u)
    .map((line) => line.replaceAll('\t', '    ').replace(UNSAFE, '\ufffd'))
    .join(`\n${' '.repeat(indent)}`);
}

/** True when `text` would be shown as it stands. */
export function isPlain(text: string): boolean {
  return singleLine(text) === text;
}

/**
 * JSON for one output line. Values stay exact, but characters a terminal would act on are written as \u escapes, since
 * JSON.stringify leaves DEL, C1 and direction marks as they are.
 */
export function jsonLine(value: unknown): string {
  return JSON.stringify(value, jsonValue).replace(UNSAFE, (character) =>
    Array.from({ length: character.length }, (_, i) => character.charCodeAt(i))
      .map((unit) => `\\u${unit.toString(16).padStart(4, '0')}`)
      .join(''),
  );
}

function jsonValue(this: unknown, key: string, value: unknown): unknown {
  // Date has its own toJSON, which runs before this; the holder still has the original.
  const original = typeof this === 'object' && this !== null ? Reflect.get(this, key) : value;
  if (original instanceof Date) return original.toISOString();
  if (original instanceof Uint8Array) return Buffer.from(original).toString('hex');
  if (typeof original === 'bigint') {
    return Number.isSafeInteger(Number(original)) ? Number(original) : original.toString();
  }
  return value;
}
