/**
 * One run of `qpc`, from words to an exit code.
 *
 *   words → parse (command table) → context (output, passwords, profile) → command → last line → exit code
 *
 * One abort signal ends everything: Ctrl+C, a termination signal, `--timeout`, and a reader that has gone (EPIPE). The
 * profile is closed on every way out, so that what was received and queued is on disk.
 */
import { untilAborted } from './abort.ts';
import type { CommandContext } from './command.ts';
import { COMMANDS } from './command-table.ts';
import {
  CliError,
  ExitCode,
  interruptedError,
  KEPT_HINT,
  systemCode,
  terminatedError,
  timeoutError,
} from './errors.ts';
import { firstSteps } from './help.ts';
import { LineReader } from './line-reader.ts';
import { Output, wantsColor } from './output.ts';
import { parseCommandLine, type Parsed } from './parse.ts';
import { toCliError } from './sdk-errors.ts';
import { PasswordReader, takeSecrets } from './secrets.ts';
import { parseDuration } from './settings.ts';
import { VERSION } from './version.ts';

/** How long a command may take to stop once it was told to; after that the process ends all the same. */
const STOP_TIMEOUT_MS = 3000;

export async function runCli(words: readonly string[]): Promise<ExitCode> {
  const secrets = takeSecrets(process.env);
  const end = words.indexOf('--');
  const flags = end < 0 ? words : words.slice(0, end);
  const out = new Output({
    stdout: process.stdout,
    stderr: process.stderr,
    json: flags.includes('--json'),
    color: wantsColor(!flags.includes('--no-color'), process.env),
  });
  const stop = new AbortController();
  const watch = watchSignals(stop);
  try {
    const parsed = parse(words, out);
    if (parsed === undefined) return ExitCode.done;
    return await runCommand(parsed, out, stop, secrets);
  } catch (error) {
    return finishWith(out, error, stop.signal);
  } finally {
    watch();
  }
}

type ParsedCommand = Extract<Parsed, { kind: 'command' }>;

function parse(words: readonly string[], out: Output): ParsedCommand | undefined {
  if (words.length === 0) {
    process.stdout.write(firstSteps());
    return undefined;
  }
  const parsed = parseCommandLine(words, COMMANDS);
  switch (parsed.kind) {
    case 'help':
      process.stdout.write(parsed.text);
      return undefined;
    case 'version':
      out.event('version', { version: VERSION, node: process.version }, `qpc ${VERSION}`);
      return undefined;
    case 'command':
      return parsed;
  }
}

async function runCommand(
  { command, input, globals }: ParsedCommand,
  out: Output,
  stop: AbortController,
  secrets: ReturnType<typeof takeSecrets>,
): Promise<ExitCode> {
  const lines = new LineReader(process.stdin);
  const passwords = new PasswordReader(out, lines, stop.signal);
  const timeout = globals.value('timeout');
  const timeoutMs = timeout === undefined ? undefined : parseDuration(timeout);
  const timer = timeoutMs === undefined ? undefined : setTimeout(() => stop.abort(timeoutError(timeoutMs)), timeoutMs);
  const { Session } = await import('./session.ts');
  const session = new Session({ globals, env: process.env, secrets, passwords, out });
  const context: CommandContext = { out, session, lines, passwords, signal: stop.signal };
  const work = command.run(context, input);
  try {
    const fields = await untilAborted(work, stop.signal);
    out.finish({ command: command.name, ...fields });
    return ExitCode.done;
  } catch (error) {
    return finishWith(out, error, stop.signal, session.queued);
  } finally {
    clearTimeout(timer);
    lines.close();
    // Closing the profile ends what a stopped command was still waiting for; the command may have to clean up after it.
    await inTime(Promise.allSettled([session.close(), work]));
  }
}

/** Says what went wrong. A reader that has gone is no failure: it had what it wanted. */
function finishWith(out: Output, error: unknown, signal: AbortSignal, queued = false): ExitCode {
  const reason: unknown = signal.aborted ? signal.reason : error;
  if (reason instanceof OutputClosed) return ExitCode.done;
  const told = toCliError(reason);
  const stopped = signal.aborted && queued;
  const failure = stopped ? new CliError(told.exitCode, told.code, told.message, KEPT_HINT) : told;
  if (failure.exitCode === ExitCode.bug && process.env['QPC_DEBUG'] && reason instanceof Error) {
    process.stderr.write(`${reason.stack ?? reason.message}\n`);
  }
  out.fail(failure);
  return failure.exitCode;
}

class OutputClosed extends Error {}

function watchSignals(stop: AbortController): () => void {
  const onInterrupt = (): void => {
    // A second Ctrl+C does not wait for anything.
    if (stop.signal.aborted) process.exit(ExitCode.interrupted);
    stop.abort(interruptedError());
  };
  const onTerminate = (): void => stop.abort(terminatedError());
  const onError = (error: Error): void => {
    if (systemCode(error) === 'EPIPE' || systemCode(error) === 'EOF') stop.abort(new OutputClosed());
    else
      stop.abort(
        new CliError(
          ExitCode.bug,
          'output-failed',
          `output cannot be written (${systemCode(error) ?? 'error'})`,
          'check where it goes',
        ),
      );
  };
  process.on('SIGINT', onInterrupt);
  process.on('SIGTERM', onTerminate);
  process.on('SIGHUP', onTerminate);
  process.stdout.on('error', onError);
  process.stderr.on('error', onError);
  return () => {
    process.off('SIGINT', onInterrupt);
    process.off('SIGTERM', onTerminate);
    process.off('SIGHUP', onTerminate);
  };
}

async function inTime(ending: Promise<unknown>): Promise<void> {
  const late = Promise.withResolvers<void>();
  const timer = setTimeout(() => late.resolve(), STOP_TIMEOUT_MS);
  await Promise.race([ending, late.promise]);
  clearTimeout(timer);
}
