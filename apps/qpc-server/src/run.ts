/**
 * The life of the server process. Standard output has one line when the server is ready (`--json`: one object), standard
 * error the logs. What stops a start is one line that names cause and next step, and an exit code:
 * 0 stopped when asked, 1 our bug, 2 configuration, 3 cannot listen, 6 the data folder.
 */
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { resolveConfig, startServer, StartupError } from '@quicprochat/server';
import type { RunningServer, ServerConfig, StartupErrorKind } from '@quicprochat/server';
import { Command, CommanderError } from 'commander';
import { parse as parseToml } from 'smol-toml';
import { commandLine, flagsOf } from './command-line.ts';
import packageJson from '../package.json' with { type: 'json' };

const EXIT_BUG = 1;
const EXIT_CODE: Record<StartupErrorKind, number> = { config: 2, listen: 3, data: 6 };

type Environment = Readonly<Record<string, string | undefined>>;

/** Runs until the server has stopped; the exit code. */
export async function run(args: readonly string[], environment: Environment): Promise<number> {
  const program = commandLine(packageJson.version);
  try {
    program.parse([...args], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    // Help and version are printed already.
    if (error.exitCode === 0) return 0;
    const message = error.message.replace(/^error: /, '').replace(/\.$/, '');
    return report(args.includes('--json'), new StartupError('config', message, 'See qpc-server --help.'));
  }
  const json = program.opts<{ json?: boolean }>().json === true;
  try {
    // Before the ready line, which whoever started us may answer with a signal at once.
    const asked = stopAsked();
    const server = await startServer(configFrom(program, environment));
    announce(server, json);
    await serve(server, asked);
    if (json) process.stdout.write(`${JSON.stringify({ v: 1, type: 'result', stopped: true })}\n`);
    return 0;
  } catch (error) {
    return report(json, error);
  }
}

function configFrom(program: Command, environment: Environment): ServerConfig {
  const fileName = program.opts<{ config?: string }>().config ?? environment['QPC_CONFIG'];
  const file = fileName === undefined ? undefined : { name: fileName, content: readToml(fileName) };
  const outcome = resolveConfig({ flags: flagsOf(program), environment, file });
  if (outcome.kind === 'config') return outcome.config;
  throw new StartupError('config', outcome.problems.join('; '), 'See qpc-server --help.');
}

function readToml(name: string): Record<string, unknown> {
  let text: string;
  try {
    text = readFileSync(name, 'utf8');
  } catch (error) {
    throw new StartupError('config', `the configuration file ${name} cannot be read`, 'Check its name and mode.', {
      cause: error,
    });
  }
  try {
    return parseToml(text);
  } catch (error) {
    const [first = 'it is not TOML'] = (error instanceof Error ? error.message : '').split('\n');
    throw new StartupError('config', `${name} cannot be used: ${first}`, 'Correct the file.', { cause: error });
  }
}

function announce(server: RunningServer, json: boolean): void {
  const { host, port, origin, dataDir, certificatePath } = server;
  if (json) {
    const line = { v: 1, type: 'ready', host, port, origin, caCert: certificatePath, dataDir, pid: process.pid };
    process.stdout.write(`${JSON.stringify(line)}\n`);
    return;
  }
  const anywhere = host === '0.0.0.0' || host === '::';
  const reachable = anywhere ? (isIP(host) === 6 ? '[::1]' : '127.0.0.1') : isIP(host) === 6 ? `[${host}]` : host;
  const connect = `qpc health --server ${reachable}:${port} --ca-cert ${shellWord(certificatePath)}`;
  process.stdout.write(
    `qpc-server ${packageJson.version} is ready on ${isIP(host) === 6 ? `[${host}]` : host}:${port} (UDP). Try: ${connect}\n`,
  );
}

/** So that the path can be pasted. */
function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** Runs until the server has stopped: by a signal, or because it could not go on. */
async function serve(server: RunningServer, asked: Promise<void>): Promise<void> {
  const rejected = (error: unknown): void => {
    server.log.error({ err: error }, 'a promise was rejected and nobody looked; the server goes on');
  };
  process.on('unhandledRejection', rejected);
  try {
    void asked.then(() => server.close());
    await server.stopped;
  } finally {
    process.off('unhandledRejection', rejected);
  }
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Resolves at the first signal. A second one ends a shutdown that takes too long, as people expect. */
function stopAsked(): Promise<void> {
  return new Promise((resolve) => {
    const stop = (): void => {
      for (const signal of SIGNALS) process.off(signal, stop);
      resolve();
    };
    for (const signal of SIGNALS) process.on(signal, stop);
  });
}

function report(json: boolean, error: unknown): number {
  const known = error instanceof StartupError;
  const message = known ? error.message : 'an unexpected fault of qpc-server';
  const hint = known ? error.hint : 'Please report it with the lines below.';
  if (json) {
    const code = known ? error.kind : 'bug';
    process.stdout.write(`${JSON.stringify({ v: 1, type: 'error', code, message, hint })}\n`);
  } else {
    process.stderr.write(`qpc-server: ${message}. ${hint}\n`);
  }
  if (known) return EXIT_CODE[error.kind];
  process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  return EXIT_BUG;
}
