// The real qpc-server as a process of its own, and its answers to server-probe.ts.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { ServerHealth } from './server-probe.ts';

const MAIN = fileURLToPath(new URL('../apps/qpc-server/src/main.ts', import.meta.url));
const PROBE = new URL('server-probe.ts', import.meta.url).href;
const START_MS_MAX = 20_000;

interface ReadyLine {
  readonly type: string;
  readonly host: string;
  readonly port: number;
  readonly origin: string;
  readonly caCert: string;
  readonly message?: string;
}

export interface ServerAddress {
  readonly host: string;
  readonly port: number;
  readonly origin: string;
  /** Path of a PEM file. */
  readonly caCertPath: string;
  readonly caCert: Uint8Array;
}

export class ServerProcess {
  readonly address: ServerAddress;
  readonly #child: ChildProcess;

  /**
   * Starts a server on a free port of the loopback interface.
   * @param rates how often one may ask: as a server has it when nobody configures it, or without limit (default)
   */
  static async start(dataDir: string, rates: 'default' | 'none' = 'none'): Promise<ServerProcess> {
    const settings = [
      '--connections-per-address',
      '10000',
      '--data-dir',
      dataDir,
      '--listen',
      '127.0.0.1:0',
      '--origin',
      'localhost',
      '--log-level',
      'warn',
      '--metrics-listen',
      '127.0.0.1:0',
    ];
    const unlimited = [
      'connects',
      'calls',
      'sends',
      'anonymous',
      'enqueues',
      'enqueue-kib',
      'resolves-from-address',
      'changes',
      'reads',
      'registrations',
      'passwords',
      'passwords-of-one',
      'resumes',
      'resolves',
      'commits',
      'key-packages',
      'key-packages-of-one',
    ];
    const ofRates = rates === 'none' ? unlimited.flatMap((rate) => [`--rates-${rate}`, '0']) : [];
    const args = [...settings, ...ofRates, '--json'];
    const child = spawn(process.execPath, ['--expose-gc', '--import', PROBE, MAIN, ...args], {
      stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
    });
    try {
      const ready = await firstLine(child);
      if (ready.type !== 'ready') throw new Error(`qpc-server did not start: ${ready.message ?? ready.type}`);
      const { host, port, origin, caCert } = ready;
      return new ServerProcess(child, { host, port, origin, caCertPath: caCert, caCert: readFileSync(caCert) });
    } catch (error) {
      child.kill('SIGKILL');
      throw error;
    }
  }

  private constructor(child: ChildProcess, address: ServerAddress) {
    this.#child = child;
    this.address = address;
  }

  resetLoopDelay(): void {
    this.#child.send('reset');
  }

  async health(): Promise<ServerHealth> {
    const answer = once(this.#child, 'message');
    this.#child.send('read');
    const [health] = (await answer) as [ServerHealth];
    return health;
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, 'exit');
    this.#child.kill('SIGTERM');
    await exited;
  }
}

async function firstLine(child: ChildProcess): Promise<ReadyLine> {
  if (child.stdout === null) throw new Error('no standard output');
  const lines = createInterface(child.stdout);
  const late = AbortSignal.timeout(START_MS_MAX);
  const exit = once(child, 'exit', { signal: late }).then(() => {
    throw new Error('qpc-server exited before it was ready');
  });
  const [line] = (await Promise.race([once(lines, 'line', { signal: late }), exit])) as [string];
  exit.catch(() => {});
  return JSON.parse(line) as ReadyLine;
}
