/**
 * Everything the program prints. Two voices over one set of calls (DESIGN section 8): text for people, or with
 * `--json` one object a line, `{v: 1, type, …}`, the last being `result` or `error`. Text is given in segments and
 * made safe here (terminal-text.ts), so that no caller can let an escape sequence through.
 *
 *   command → say / event → stdout          warn, progress → stderr          finish / fail → last line
 */
import type { CliError } from './errors.ts';
import { jsonLine, multiLine, singleLine } from './terminal-text.ts';

type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow' | 'cyan';

/** A piece of text with a look. `block` keeps line breaks, indenting the lines that follow by as much. */
interface Styled {
  readonly text: string;
  readonly style?: Style;
  readonly block?: number;
}
export type Segment = string | Styled;

export type JsonFields = Readonly<Record<string, unknown>>;

/** Where lines go: a terminal, a pipe, a file, or a list in a test. */
export interface Sink {
  readonly isTTY?: boolean | undefined;
  write(text: string): unknown;
}

export interface OutputOptions {
  readonly stdout: Sink;
  readonly stderr: Sink;
  readonly json: boolean;
  readonly color: boolean;
}

const SGR: Readonly<Record<Style, string>> = {
  bold: '1',
  dim: '2',
  red: '31',
  green: '32',
  yellow: '33',
  cyan: '36',
};

const METER_CHARS = 30;
const ERASE_REST = '\u001b[K';

export class Output {
  readonly json: boolean;
  readonly #options: OutputOptions;
  #finished = false;
  #metered = false;

  constructor(options: OutputOptions) {
    this.json = options.json;
    this.#options = options;
  }

  /** One line for people; nothing with --json. */
  say(...segments: readonly Segment[]): void {
    if (!this.json && !this.#finished) this.#options.stdout.write(`${this.#render(segments, this.#options.stdout)}\n`);
  }

  /** Something that happened: a JSON line of its own type, or a line for people if one is given. */
  event(type: string, fields: JsonFields, ...segments: readonly Segment[]): void {
    // What a stopped command still says while it cleans up must not follow the last line.
    if (this.#finished) return;
    if (this.json) this.#options.stdout.write(`${jsonLine({ v: 1, type, ...fields })}\n`);
    else if (segments.length > 0) this.say(...segments);
  }

  /** A note that scripts must not have to skip: standard error, and only for people. */
  progress(...segments: readonly Segment[]): void {
    if (!this.json) this.#options.stderr.write(`${this.#render(segments, this.#options.stderr)}\n`);
  }

  /** How far something has come, in one line of a terminal that is written over; nothing where there is no terminal. */
  meter(what: string, done: number, of: number): void {
    if (this.json || this.#options.stderr.isTTY !== true || of <= 0) return;
    const filled = Math.round((Math.min(done, of) / of) * METER_CHARS);
    const bar = `${'#'.repeat(filled)}${'.'.repeat(METER_CHARS - filled)}`;
    this.#options.stderr.write(`\r[${bar}] ${done} of ${of} ${singleLine(what)}${ERASE_REST}`);
    this.#metered = true;
  }

  /** Takes the meter away. */
  endMeter(): void {
    if (this.#metered) this.#options.stderr.write(`\r${ERASE_REST}`);
    this.#metered = false;
  }

  /** Something the person should know though the command goes on: always on standard error. */
  warn(message: string): void {
    const segments: readonly Segment[] = [{ text: 'qpc: warning: ', style: 'yellow' }, message];
    this.#options.stderr.write(`${this.#render(segments, this.#options.stderr)}\n`);
  }

  /** The last line of a command that did what was asked. */
  finish(fields: JsonFields): void {
    if (this.#finished) return;
    this.#finished = true;
    if (this.json) this.#options.stdout.write(`${jsonLine({ v: 1, type: 'result', ...fields })}\n`);
  }

  /** The last line of a command that failed: cause and next step. */
  fail(error: CliError): void {
    if (this.#finished) return;
    this.#finished = true;
    if (this.json) {
      const { code, message, hint } = error;
      this.#options.stdout.write(`${jsonLine({ v: 1, type: 'error', code, message, hint })}\n`);
    } else {
      this.complain(error);
    }
  }

  /** An error that does not end the program (a line of a chat that could not be sent). */
  complain(error: CliError): void {
    const segments: readonly Segment[] = [
      { text: 'qpc: ', style: 'red' },
      `${withoutStop(error.message)}; ${continued(error.hint)}`,
    ];
    this.#options.stderr.write(`${this.#render(segments, this.#options.stderr)}\n`);
  }

  #render(segments: readonly Segment[], sink: Sink): string {
    const color = this.#options.color && sink.isTTY === true;
    return segments
      .map((segment) => {
        if (typeof segment === 'string') return singleLine(segment);
        const safe = segment.block === undefined ? singleLine(segment.text) : multiLine(segment.text, segment.block);
        return color && segment.style ? `\u001b[${SGR[segment.style]}m${safe}\u001b[0m` : safe;
      })
      .join('');
  }
}

/** Colour is wanted unless a flag or the environment says otherwise (no-color.org). */
export function wantsColor(flag: boolean, env: Readonly<Record<string, string | undefined>>): boolean {
  return flag && !env['NO_COLOR'] && env['TERM'] !== 'dumb';
}

/** Pads to a column; a longer text keeps one space after it. */
export function column(text: string, width: number): string {
  return text.length >= width ? `${text} ` : text.padEnd(width);
}

/** Messages from the SDK are sentences; ours are parts of one line. */
function withoutStop(text: string): string {
  return text.replace(/\.$/u, '');
}

function continued(text: string): string {
  return withoutStop(text).replace(/^[A-Z](?=[a-z])/u, (letter) => letter.toLowerCase());
}
