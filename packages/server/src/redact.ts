/**
 * What may stand in a log, decided by shape and not by trust in whoever writes the line: bytes never do, nor what looks
 * like encoded bytes of sixteen or more, nor fields whose names say that they hold a secret or somebody's name. Numbers,
 * short words and sentences pass. A secret made of ordinary words under an ordinary field's name would pass too: such
 * fields are what the names below are for.
 */
const SECRET_NAMES =
  /pass|secret|token|phrase|payload|private|credential|cookie|authori[sz]ation|seed|nonce|signature|username|identity|(?:^|[a-z_])key$|^key|keys$|^data$|^body$|^ke[123]$|^record$|^peer$|^ip$|^network_?address$/i;
const REDACTED = '[redacted]';
const DEPTH_MAX = 4;
const ITEMS_MAX = 32;
const TEXT_MAX = 8_192;
const WORD_LENGTH_MIN = 4.5;

/** The fields of a log line with what must not be there replaced. */
export function redactFields(fields: object): Record<string, unknown> {
  return redactEntries(fields, 0);
}

/** Text with what looks like an encoded secret replaced. */
export function redactText(text: string): string {
  return text
    .slice(0, TEXT_MAX)
    .replace(ENCODED, (found, hex: string | undefined) => (hex === undefined && isOfWords(found) ? found : REDACTED));
}

/** Names in code and of files are made of words; sixteen random bytes in base64 are so in one of ten thousand cases. */
function isOfWords(text: string): boolean {
  if (/\d/.test(text) && /[A-Z]/.test(text) && /[a-z]/.test(text)) return false;
  const words = text.match(/[A-Z]?[a-z]+|[A-Z]+|\d+/g) ?? [];
  return text.length >= words.length * WORD_LENGTH_MIN;
}

// With slashes, which within a sentence could as well be a path; we write base64url.
const BASE64 = /^[a-z0-9+/]{22,}={0,2}$/i;
// Hex of 16 bytes, bytes as numbers with commas, padded base64; or base64url of about as many.
const ENCODED = /([0-9a-f]{32,}|(?:\d{1,3},\s?){15,}\d{1,3}|[a-z0-9+/]{21,}={1,2})|[a-z0-9_+-]{22,}/gi;

function redactEntries(value: object, depth: number): Record<string, unknown> {
  const entries = Object.entries(value).slice(0, ITEMS_MAX);
  return Object.fromEntries(
    entries.map(([name, each]): [string, unknown] => [
      redactText(name),
      SECRET_NAMES.test(name) && each !== undefined ? REDACTED : redactValue(each, depth),
    ]),
  );
}

function redactValue(value: unknown, depth: number): unknown {
  switch (typeof value) {
    case 'string':
      return BASE64.test(value) && !isOfWords(value) ? REDACTED : redactText(value);
    case 'number':
    case 'boolean':
    case 'undefined':
      return value;
    case 'bigint':
      return value <= BigInt(Number.MAX_SAFE_INTEGER) && value >= -BigInt(Number.MAX_SAFE_INTEGER)
        ? Number(value)
        : REDACTED;
    case 'object':
      break;
    default:
      return REDACTED;
  }
  if (value === null) return null;
  if (value instanceof Error) return redactError(value);
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer || depth === DEPTH_MAX) return REDACTED;
  if (Array.isArray(value)) {
    const isBytes = value.length >= 16 && value.every((each) => typeof each === 'number' && each >= 0 && each < 256);
    return isBytes ? REDACTED : value.slice(0, ITEMS_MAX).map((each: unknown) => redactValue(each, depth + 1));
  }
  if (value instanceof Map || value instanceof Set) return REDACTED;
  return redactEntries(value, depth + 1);
}

/** Message and stack of our own errors name no values; properties of others might, so none of them is kept. */
export function redactError(error: Error): object {
  const { cause } = error;
  return {
    type: error.constructor.name,
    message: redactText(error.message),
    stack: redactText(error.stack ?? ''),
    ...(cause instanceof Error ? { cause: { type: cause.constructor.name, message: redactText(cause.message) } } : {}),
  };
}
