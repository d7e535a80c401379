/**
 * Everything the commands print: lines for people, or with `--json` one object a line, `{v: 1, type, …}`, the last being
 * `result` or `error` (DESIGN section 8). Text from users is made safe for a terminal here.
 */
import { displayText } from '@quicprochat/server';
import type { CliError } from './errors.ts';

export type JsonFields = Readonly<Record<string, unknown>>;

/** Where lines go: the process's own, or a list in a test. */
export interface Streams {
  readonly stdout: { write(text: string): unknown };
  readonly stderr: { write(text: string): unknown; readonly isTTY?: boolean };
}

export class Output {
  readonly json: boolean;
  readonly #streams: Streams;

  constructor(json: boolean, streams: Streams) {
    this.json = json;
    this.#streams = streams;
  }

  /** One line for people. */
  say(text: string): void {
    if (!this.json) this.#streams.stdout.write(`${safeLine(text)}\n`);
  }

  /** One of several things: a JSON line of its own type, or lines for people. */
  event(type: string, fields: JsonFields, ...lines: readonly string[]): void {
    if (this.json) this.#streams.stdout.write(`${jsonLine({ v: 1, type, ...fields })}\n`);
    else for (const line of lines) this.say(line);
  }

  /** How far something is, on standard error: over itself on a terminal, else not at all. */
  progress(text: string): void {
    if (!this.json && this.#streams.stderr.isTTY === true) this.#streams.stderr.write(`\r\u001b[K${safeLine(text)}`);
  }

  /** After the last `progress`. */
  endProgress(): void {
    if (!this.json && this.#streams.stderr.isTTY === true) this.#streams.stderr.write('\r\u001b[K');
  }

  warn(text: string): void {
    this.#streams.stderr.write(`qpc-server: warning: ${safeLine(text)}\n`);
  }

  finish(fields: JsonFields): void {
    if (this.json) this.#streams.stdout.write(`${jsonLine({ v: 1, type: 'result', ...fields })}\n`);
  }

  fail({ code, message, hint }: Pick<CliError, 'code' | 'message' | 'hint'>): void {
    if (this.json) this.#streams.stdout.write(`${jsonLine({ v: 1, type: 'error', code, message, hint })}\n`);
    else this.#streams.stderr.write(`qpc-server: ${safeLine(`${message.replace(/\.$/, '')}. ${hint}`)}\n`);
  }
}

/** Without what a terminal would obey; the blanks that columns are made of stay. */
function safeLine(text: string): string {
  const indent = /^ */.exec(text)?.[0] ?? '';
  return indent + displayText(text);
}

/** JSON.stringify leaves DEL, C1 and direction marks as they are, and a terminal would act on them. */
function jsonLine(value: JsonFields): string {
  return JSON.stringify(value).replace(
    /[\u007f-\u009f\p{Bidi_Control}\u2028\u2029\ufeff]/gu,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/** Undefined also for what is no date: the clocks in a report are other people's. */
export function iso(ms: number | undefined): string | undefined {
  const date = new Date(ms ?? NaN);
  return Number.isNaN(date.getTime()) ? undefined : date.toISOString();
}

export function bytesText(bytes: number): string {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];
  let at = 0;
  let value = bytes;
  while (value >= 1024 && at < units.length - 1) {
    value /= 1024;
    at++;
  }
  return `${at === 0 ? value : value.toFixed(1)} ${units[at] ?? ''}`;
}

export function durationText(seconds: number): string {
  const days = Math.floor(seconds / 86_400);
  const hours = Math.floor((seconds % 86_400) / 3_600);
  const minutes = Math.floor((seconds % 3_600) / 60);
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min` : `${Math.floor(seconds)} s`;
}

export function plural(n: number, one: string): string {
  return `${n} ${one}${n === 1 ? '' : 's'}`;
}
