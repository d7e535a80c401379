/**
 * The demo's actors: a real `qpc-server` and real `qpc` processes, spoken to as a script would, through arguments,
 * standard input and `--json` lines. Everything waits for an event; nothing sleeps or polls.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/** One `--json` line. */
export type JsonEvent = Readonly<Record<string, unknown>> & { readonly type: string };

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface Surroundings {
  readonly env: NodeJS.ProcessEnv;
  /** Ends every wait with its reason. */
  readonly signal: AbortSignal;
  /** Told of each process, so that whoever started them can end them all. */
  readonly started: (program: JsonProgram) => void;
}

/** What a child's standard error may fill before the oldest part is dropped. */
const STDERR_CHARACTERS_MAX = 4000;

/** A program that prints JSON lines. */
export class JsonProgram {
  readonly name: string;
  readonly events: JsonEvent[] = [];
  readonly exited: Promise<Exit>;
  readonly #child: ChildProcess;
  readonly #signal: AbortSignal;
  readonly #waiting = new Set<() => void>();
  #exit: Exit | undefined;
  #stderr = '';

  constructor(name: string, command: readonly string[], surroundings: Surroundings) {
    surroundings.signal.throwIfAborted();
    this.name = name;
    this.#signal = surroundings.signal;
    this.#child = spawn(process.execPath, command, {
      env: surroundings.env,
      stdio: ['pipe', 'pipe', 'pipe'],
      // A session of its own: it neither asks on the person's terminal nor gets their Ctrl+C past us.
      detached: true,
    });
    surroundings.started(this);
    // A child that ends before it has read everything closes the pipe; its exit tells what happened.
    this.#child.stdin?.on('error', () => {});
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_CHARACTERS_MAX);
    });
    if (this.#child.stdout) createInterface({ input: this.#child.stdout }).on('line', (line) => this.#onLine(line));
    const exited = Promise.withResolvers<Exit>();
    this.exited = exited.promise;
    // 'close' comes after all output was read; 'exit' may not.
    this.#child.on('close', (code, signal) => this.#onExit({ code, signal }, exited.resolve));
    this.#child.on('error', (error) => {
      this.#stderr += error.message;
      this.#onExit({ code: null, signal: null }, exited.resolve);
    });
  }

  get running(): boolean {
    return this.#exit === undefined;
  }

  /** What it wrote to standard error, the end of it. */
  get complaints(): string {
    return this.#stderr.trim();
  }

  type(line: string): void {
    this.write(`${line}\n`);
  }

  write(text: string): void {
    this.#child.stdin?.write(text);
  }

  endInput(): void {
    this.#child.stdin?.end();
  }

  kill(signal: NodeJS.Signals): void {
    if (this.running) this.#child.kill(signal);
  }

  /**
   * The first event from `from` on that `matches`.
   * @throws when the program ends first, or the demo's time is up
   */
  async event(what: string, matches: (event: JsonEvent) => boolean, from = 0): Promise<JsonEvent> {
    let next = from;
    for (;;) {
      for (; next < this.events.length; next += 1) {
        const event = this.events[next];
        if (event && matches(event)) return event;
      }
      if (this.#exit) throw new Error(`${this.name} ended before ${what}: ${this.outcome()}`);
      await this.#change(what);
    }
  }

  /** Waits for the end and returns the `result` line. @throws when the exit code is not 0 */
  async result(): Promise<JsonEvent> {
    while (!this.#exit) await this.#change('its end');
    const last = this.events.at(-1);
    if (this.#exit.code !== 0 || last?.type !== 'result') throw new Error(`${this.name} failed: ${this.outcome()}`);
    return last;
  }

  /** Waits for the end and returns the `error` line. @throws when it did not fail */
  async failure(): Promise<JsonEvent & { readonly exitCode: number }> {
    while (!this.#exit) await this.#change('its end');
    const last = this.events.at(-1);
    if (last?.type !== 'error') throw new Error(`${this.name} should have failed: ${this.outcome()}`);
    return { ...last, exitCode: this.#exit.code ?? -1 };
  }

  outcome(): string {
    const error = this.events.findLast((event) => event.type === 'error');
    const why = error ? `${String(error['code'])}: ${String(error['message'])}` : this.complaints.slice(-500);
    return `exit ${this.#exit?.code ?? this.#exit?.signal ?? 'unknown'}${why ? `, ${why}` : ''}`;
  }

  #onLine(line: string): void {
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch {
      this.#stderr = `${this.#stderr}\nnot JSON: ${line.slice(0, 200)}`.slice(-STDERR_CHARACTERS_MAX);
      return;
    }
    if (typeof value === 'object' && value !== null && 'type' in value && typeof value.type === 'string') {
      this.events.push({ ...value, type: value.type });
    }
    this.#wake();
  }

  #onExit(exit: Exit, resolve: (exit: Exit) => void): void {
    this.#exit ??= exit;
    resolve(this.#exit);
    this.#wake();
  }

  #wake(): void {
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }

  async #change(what: string): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.add(resolve);
    const onAbort = (): void => resolve();
    this.#signal.addEventListener('abort', onAbort, { once: true });
    await promise;
    this.#signal.removeEventListener('abort', onAbort);
    if (this.#signal.aborted) {
      const reason: unknown = this.#signal.reason;
      throw new Error(`${this.name}: waited in vain for ${what}`, { cause: reason });
    }
  }
}

const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';

/** For `--import`, into a program that has no reason to outlive us. A `qpc` ends with its input by itself. */
export const END_WITH_PARENT = new URL(`end-with-parent.${extension}`, import.meta.url).href;

/** Runs this very program, whichever form it has. */
export function qpcCommand(words: readonly string[]): string[] {
  return [fileURLToPath(new URL(`../main.${extension}`, import.meta.url)), '--json', ...words];
}

/** Where `qpc-server` is installed beside us; undefined when it is not. */
export function serverProgram(): string | undefined {
  try {
    return createRequire(import.meta.url).resolve('@quicprochat/qpc-server/bin/qpc-server.js');
  } catch {
    return undefined;
  }
}
