/** From words to an exit code: finds the command, reads its flags and the settings, runs it, and says what went wrong. */
import { readFileSync } from 'node:fs';
import { resolveConfig, StartupError } from '@quicprochat/server';
import type { ServerConfig } from '@quicprochat/server';
import { CommanderError } from 'commander';
import type { Command as Parser } from 'commander';
import { parse as parseToml } from 'smol-toml';
import { findCommand, flagsOf, groupHelp, parserOf } from './command-line.ts';
import { COMMANDS } from './command-table.ts';
import type { Command, CommandContext } from './command.ts';
import { CliError, ExitCode, toCliError, usageError } from './errors.ts';
import { Output } from './output.ts';
import type { Streams } from './output.ts';
import packageJson from '../package.json' with { type: 'json' };

/** How long a command waits for a server's answer; a backup takes as long as it takes. */
const ANSWER_MS_MAX = 60_000;
const PATIENT = new Set(['start', 'backup', 'restore']);

type Environment = Readonly<Record<string, string | undefined>>;

/** Runs until the command is done, or the server has stopped; the exit code. */
export async function run(
  typed: readonly string[],
  environment: Environment,
  streams: Streams = process,
): Promise<number> {
  const words = typed[0] === 'help' ? [...typed.slice(1), '--help'] : typed;
  const out = new Output(words.includes('--json'), streams);
  const [first = ''] = words;
  const isGroup = COMMANDS.some(({ name }) => name.startsWith(`${first} `));
  if (isGroup && (words.length === 1 || words[1] === '--help')) {
    streams.stdout.write(groupHelp(first));
    return ExitCode.done;
  }
  const found = findCommand(words);
  if (found === undefined) {
    const asked = isGroup ? words.slice(0, 2).join(' ') : first;
    return report(
      out,
      streams,
      usageError(`there is no command "${asked}"`, `See qpc-server ${isGroup ? `${first} ` : ''}--help.`),
    );
  }
  const { command, rest } = found;
  const parser = parserOf(command, packageJson.version, (text) => streams.stdout.write(text));
  try {
    parser.parse([...rest], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    // Help and version are printed already.
    if (error.exitCode === 0) return ExitCode.done;
    const message = error.message.replace(/^error: /, '').replace(/\.$/, '');
    return report(out, streams, usageError(message, `See ${parser.name()} --help.`));
  }
  const stop = stopAsked(command);
  try {
    out.finish(await command.run(contextOf(command, parser, environment, out, stop.signal)));
    return ExitCode.done;
  } catch (error) {
    out.endProgress();
    return report(out, streams, error);
  } finally {
    stop.forget();
  }
}

function contextOf(
  command: Command,
  parser: Parser,
  environment: Environment,
  out: Output,
  signal: AbortSignal,
): CommandContext {
  const options = parser.opts<Record<string, string | true | undefined>>();
  const optionNamed = (name: string) => options[name.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase())];
  const given = new Map(
    (command.args ?? []).map(({ name }, i) => [name, parser.processedArgs[i] as string | string[]]),
  );
  return {
    out,
    signal,
    config: () => configFrom(command, parser, environment),
    word: (name) => {
      const value = given.get(name);
      if (typeof value !== 'string') throw new Error(`argument ${name} is not declared`);
      return value;
    },
    words: (name) => [given.get(name) ?? []].flat(),
    has: (name) => optionNamed(name) !== undefined,
    option: (name) => {
      const value = optionNamed(name);
      return typeof value === 'string' ? value : undefined;
    },
  };
}

function configFrom(command: Command, parser: Parser, environment: Environment): ServerConfig {
  const fileName = parser.opts<{ config?: string }>().config ?? environment['QPC_CONFIG'];
  const file = fileName === undefined ? undefined : { name: fileName, content: readToml(fileName) };
  // What a server may not be started with does not matter to a command about its folder.
  const flags = command.name === 'start' ? flagsOf(parser) : { ...flagsOf(parser), production: false };
  const outcome = resolveConfig({ flags, environment, file });
  if (outcome.kind === 'config') return outcome.config;
  throw new StartupError('config', outcome.problems.join('; '), `See ${parser.name()} --help.`);
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

/** `start` stops in its own way. */
function stopAsked(command: Command): { readonly signal: AbortSignal; forget(): void } {
  const controller = new AbortController();
  if (command.name === 'start') return { signal: controller.signal, forget: () => {} };
  const stop = (): void =>
    controller.abort(new CliError(ExitCode.interrupted, 'interrupted', 'interrupted', 'Run the command again.'));
  const late = PATIENT.has(command.name)
    ? undefined
    : setTimeout(() => {
        controller.abort(
          new CliError(ExitCode.timeout, 'timeout', 'the server does not answer', 'See its log, or start it again.'),
        );
      }, ANSWER_MS_MAX).unref();
  process.once('SIGINT', stop);
  process.once('SIGTERM', stop);
  return {
    signal: controller.signal,
    forget: () => {
      clearTimeout(late);
      process.off('SIGINT', stop);
      process.off('SIGTERM', stop);
    },
  };
}

function report(out: Output, streams: Streams, error: unknown): number {
  const known = toCliError(error);
  if (known !== undefined) {
    out.fail(known);
    return known.exitCode;
  }
  out.fail({
    code: 'bug',
    message: 'an unexpected fault of qpc-server',
    hint: 'Please report it with the lines below.',
  });
  streams.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  return ExitCode.bug;
}
