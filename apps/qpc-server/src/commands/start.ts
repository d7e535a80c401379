/**
 * The life of the server process. Standard output has one line when the server is ready (`--json`: one object), standard
 * error the logs.
 */
import { openSync, closeSync } from 'node:fs';
import { isIP } from 'node:net';
import { startServer } from '@quicprochat/server';
import type { RunningServer } from '@quicprochat/server';
import packageJson from '../../package.json' with { type: 'json' };
import type { Command } from '../command.ts';
import type { Output } from '../output.ts';

export const start: Command = {
  name: 'start',
  summary: 'run the server until it is asked to stop; this is what qpc-server alone does',
  settings: () => true,
  run: async ({ out, config }) => {
    // Before the ready line, which whoever started us may answer with a signal at once.
    const signals = new Signals();
    try {
      const server = await startServer(config());
      announce(server, out);
      await serve(server, signals);
      return { stopped: true };
    } finally {
      signals.forget();
    }
  },
};

function announce(server: RunningServer, out: Output): void {
  const { host, port, origin, dataDir, certificatePath, certificateGenerated } = server;
  const caCert = certificateGenerated ? certificatePath : null;
  const ready = { host, port, origin, caCert, dataDir, pid: process.pid };
  const anywhere = host === '0.0.0.0' || host === '::';
  const reachable = anywhere ? (isIP(host) === 6 ? '[::1]' : '127.0.0.1') : isIP(host) === 6 ? `[${host}]` : host;
  // One that was given is for the server's name, and leads to what the machine trusts or the operator knows.
  const trust = caCert === null ? `--server-name ${origin.replace(/:\d+$/, '')}` : `--ca-cert ${shellWord(caCert)}`;
  const connect = `qpc health --server ${reachable}:${port} ${trust}`;
  const where = ` is ready on ${isIP(host) === 6 ? `[${host}]` : host}:${port} (UDP). Try: ${connect}`;
  out.event('ready', ready, `qpc-server ${packageJson.version}${where}`);
}

/** So that the path can be pasted. */
function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** Runs until the server has stopped: by a signal, or because it could not go on. */
async function serve(server: RunningServer, signals: Signals): Promise<void> {
  const rejected = (error: unknown): void => {
    server.log.error({ err: error }, 'a promise was rejected and nobody looked; the server goes on');
  };
  process.on('unhandledRejection', rejected);
  try {
    signals.onHangUp(() => {
      server.reloadCertificate().then(
        ({ kind }) => server.log.info({ kind }, 'certificate looked at, as SIGHUP asks'),
        (error: unknown) =>
          server.log.error({ err: error }, 'the certificate’s files cannot be used; the old one stays'),
      );
    });
    void signals.stop.then(() => server.close());
    await server.stopped;
  } finally {
    process.off('unhandledRejection', rejected);
  }
}

/**
 * SIGINT and SIGTERM stop the server; a second one ends a shutdown that takes too long, as people expect. SIGHUP means
 * two things: to a service, look at your files again; to a program in a terminal, that the terminal is gone.
 */
class Signals {
  readonly stop: Promise<void>;
  #stop: () => void = () => {};
  #hangUp: () => void = () => {};
  readonly #inTerminal = hasTerminal();

  constructor() {
    this.stop = new Promise((resolve) => {
      this.#stop = resolve;
    });
    process.on('SIGINT', this.#asked);
    process.on('SIGTERM', this.#asked);
    process.on('SIGHUP', this.#hungUp);
  }

  onHangUp(look: () => void): void {
    this.#hangUp = look;
  }

  forget(): void {
    process.off('SIGINT', this.#asked);
    process.off('SIGTERM', this.#asked);
    process.off('SIGHUP', this.#hungUp);
  }

  readonly #asked = (): void => {
    process.off('SIGINT', this.#asked);
    process.off('SIGTERM', this.#asked);
    this.#stop();
  };

  readonly #hungUp = (): void => {
    if (this.#inTerminal && !hasTerminal()) this.#asked();
    else this.#hangUp();
  };
}

/** Whether the process has a controlling terminal; one that was closed is none. */
function hasTerminal(): boolean {
  try {
    closeSync(openSync('/dev/tty', 'r'));
    return true;
  } catch {
    return false;
  }
}
