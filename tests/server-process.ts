// The real qpc-server in a process of its own, to be killed, starved and looked at from outside.
import { type ChildProcess, spawn } from 'node:child_process';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { SETTINGS } from '@quicprochat/server';

const MAIN = path.join(import.meta.dirname, '../apps/qpc-server/src/main.ts');

export interface ServerProcessOptions {
  /** `--flag value …` of qpc-server. */
  readonly args: readonly string[];
  /** Arguments of Node itself. */
  readonly nodeArgs?: readonly string[];
  /** A program and its arguments that runs the server, such as `prlimit`. It must become the server (`exec`). */
  readonly under?: readonly string[];
  /** A channel for messages, for a module loaded by `nodeArgs`. */
  readonly ipc?: boolean;
  readonly onLog?: (line: string) => void;
}

/** What the program says on standard output when it listens. */
export interface ReadyLine {
  readonly host: string;
  readonly port: number;
  readonly origin: string;
  /** Path of a PEM file. */
  readonly caCert: string;
}

export type StartOutcome =
  | { readonly kind: 'ready'; readonly ready: ReadyLine }
  | { readonly kind: 'refused'; readonly code: string; readonly message: string; readonly hint: string }
  /** Gone before it said anything, by exit code or signal. */
  | { readonly kind: 'gone'; readonly code: number | string | null };

export class ServerProcess {
  /** Standard error, line by line. */
  readonly log: string[] = [];
  readonly child: ChildProcess;
  readonly started: Promise<StartOutcome>;
  /** Exit code, or the signal that ended it. */
  readonly exited: Promise<number | string | null>;

  constructor({ args, nodeArgs = [], under = [], ipc = false, onLog }: ServerProcessOptions) {
    const [command = process.execPath, ...rest] = [...under, process.execPath, ...nodeArgs, MAIN, '--json', ...args];
    const child = spawn(command, rest, { stdio: ['ignore', 'pipe', 'pipe', ...(ipc ? (['ipc'] as const) : [])] });
    this.child = child;
    createInterface({ input: child.stderr! }).on('line', (line) => {
      this.log.push(line);
      onLog?.(line);
    });
    this.exited = new Promise((resolve, reject) => {
      child.once('error', reject);
      // Not 'exit': everything it said has been read by then.
      child.once('close', (code, signal) => resolve(signal ?? code));
    });
    this.started = new Promise((resolve, reject) => {
      createInterface({ input: child.stdout! }).once('line', (line) => {
        const said = JSON.parse(line) as Record<string, unknown>;
        if (said['type'] === 'ready') resolve({ kind: 'ready', ready: said as unknown as ReadyLine });
        else {
          const word = (name: string): string => String(said[name]);
          resolve({ kind: 'refused', code: word('code'), message: word('message'), hint: word('hint') });
        }
      });
      this.exited.then((code) => resolve({ kind: 'gone', code }), reject);
    });
  }

  /** Starts a server that has to come up. */
  static async start(options: ServerProcessOptions): Promise<{ server: ServerProcess; ready: ReadyLine }> {
    const server = new ServerProcess(options);
    const outcome = await server.started;
    if (outcome.kind === 'ready') return { server, ready: outcome.ready };
    await server.exited;
    throw new Error(`qpc-server did not start: ${JSON.stringify(outcome)}\n${server.log.join('\n')}`);
  }

  /** Resolves when the process is gone. */
  async end(signal: NodeJS.Signals): Promise<void> {
    this.child.kill(signal);
    await this.exited;
  }
}

/** No limits on how often, so that tests may do in a second what people do in a day. */
export const UNLIMITED: Readonly<Record<string, number>> = Object.fromEntries(
  SETTINGS.filter((each) => each.path.startsWith('rates.')).map((each) => [each.path, 0]),
);

/** Settings by their path as the program's flags: `limits.inboxBytes` is `--limits-inbox-bytes`. */
export function flagsFor(settings: Readonly<Record<string, unknown>>): string[] {
  return Object.entries(settings).flatMap(([name, value]) => [
    `--${name.replaceAll('.', '-').replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`,
    String(value),
  ]);
}
