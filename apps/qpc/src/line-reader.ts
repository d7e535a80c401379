/**
 * Standard input, line by line. One reader per process, because a password on the first line and chat text on the
 * following ones come through the same pipe and a second reader would lose what the first has buffered.
 */
import type { Readable } from 'node:stream';
import { CliError, ExitCode, usageError } from './errors.ts';

/** A chat message holds at most 32,768 bytes; the rest is for people who paste, and gets an error that says so. */
export const LINE_BYTES_MAX = 64 * 1024;

/** Linux keeps no more of a line typed or pasted into a terminal, and drops the rest without a word. */
const TERMINAL_LINE_BYTES = 4095;

const NEWLINE = 0x0a;
const CARRIAGE_RETURN = 0x0d;

type Input = Readable & { readonly isTTY?: boolean };

export class LineReader {
  readonly #input: Input;
  #buffered: Uint8Array = new Uint8Array(0);
  #ended = false;
  #failure: Error | undefined;
  #wake: (() => void) | undefined;
  #started = false;

  constructor(input: Input) {
    this.#input = input;
  }

  /**
   * The next line without its line break; undefined at the end of input.
   * @throws CliError (usage) for a line that is too long or not UTF-8; the line is consumed, so reading can go on.
   */
  async next(signal?: AbortSignal): Promise<string | undefined> {
    let tooLong = false;
    for (;;) {
      signal?.throwIfAborted();
      const end = this.#buffered.indexOf(NEWLINE);
      if (end >= 0) {
        const line = this.#buffered.subarray(0, end);
        this.#buffered = this.#buffered.subarray(end + 1);
        if (this.#input.isTTY === true && line.length >= TERMINAL_LINE_BYTES) return refuseCut();
        return tooLong || line.length > LINE_BYTES_MAX ? refuseLong() : decode(line);
      }
      if (this.#buffered.length > LINE_BYTES_MAX) {
        tooLong = true;
        this.#buffered = new Uint8Array(0);
      }
      if (this.#failure) throw this.#failure;
      if (this.#ended) {
        const line = this.#buffered;
        this.#buffered = new Uint8Array(0);
        if (tooLong) return refuseLong();
        return line.length > 0 ? decode(line) : undefined;
      }
      await this.#more(signal);
    }
  }

  /**
   * Everything up to the end of input.
   * @throws CliError (usage) beyond `bytesMax` or when it is not UTF-8.
   */
  async rest(bytesMax: number, signal?: AbortSignal): Promise<string> {
    while (!this.#ended) {
      signal?.throwIfAborted();
      if (this.#failure) throw this.#failure;
      if (this.#buffered.length > bytesMax) throw tooMuch(bytesMax);
      await this.#more(signal);
    }
    if (this.#buffered.length > bytesMax) throw tooMuch(bytesMax);
    const text = decode(this.#buffered);
    this.#buffered = new Uint8Array(0);
    return text;
  }

  /** Lets the process end although input is still open. */
  close(): void {
    if (this.#started) this.#input.destroy();
  }

  #start(): void {
    if (this.#started) return;
    this.#started = true;
    this.#input.on('data', (chunk: Uint8Array | string) => {
      const bytes = typeof chunk === 'string' ? new TextEncoder().encode(chunk) : chunk;
      const joined = new Uint8Array(this.#buffered.length + bytes.length);
      joined.set(this.#buffered);
      joined.set(bytes, this.#buffered.length);
      this.#buffered = joined;
      this.#input.pause();
      this.#wake?.();
    });
    this.#input.on('end', () => {
      this.#ended = true;
      this.#wake?.();
    });
    this.#input.on('error', (error: Error) => {
      this.#failure = new CliError(
        ExitCode.localState,
        'input-failed',
        `standard input cannot be read (${error.message})`,
        'check what is connected to it and try again',
      );
      this.#wake?.();
    });
  }

  async #more(signal: AbortSignal | undefined): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    signal?.addEventListener('abort', () => resolve(), { once: true });
    this.#start();
    this.#input.resume();
    await promise;
    this.#wake = undefined;
  }
}

function decode(bytes: Uint8Array): string {
  const line = bytes.at(-1) === CARRIAGE_RETURN ? bytes.subarray(0, -1) : bytes;
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(line);
  } catch {
    throw usageError('the input is not UTF-8 text', 'send text as UTF-8', 'not-text');
  }
}

function refuseCut(): never {
  throw usageError(
    `this line came without its end, because a terminal takes ${TERMINAL_LINE_BYTES} bytes at most; nothing was sent`,
    'send it in smaller pieces, or from a file: qpc send CONVERSATION < FILE',
    'too-long',
  );
}

function refuseLong(): never {
  throw usageError(`a line is longer than ${LINE_BYTES_MAX} bytes`, 'send it in smaller pieces', 'too-long');
}

function tooMuch(bytesMax: number): CliError {
  return usageError(`the text is longer than ${bytesMax} bytes`, 'send it in smaller pieces', 'too-long');
}
