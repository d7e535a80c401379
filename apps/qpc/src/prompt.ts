/**
 * Asking for a password on a terminal: nothing typed is echoed, the terminal is put back as it was on every way out.
 * Reads the controlling terminal, not standard input, so that `echo hi | qpc send bob` can still ask.
 */
import { closeSync, openSync } from 'node:fs';
import { ReadStream, WriteStream } from 'node:tty';
import { StringDecoder } from 'node:string_decoder';
import { interruptedError, usageError } from './errors.ts';

export interface Terminal {
  readonly input: Pick<ReadStream, 'setRawMode' | 'on' | 'off' | 'resume' | 'pause'>;
  readonly output: { write(text: string): unknown };
  close(): void;
}

const PASSWORD_CHARACTERS_MAX = 1024;

/** The terminal the person sits at, or undefined when there is none (cron, CI, a detached process). */
export function openTerminal(): Terminal | undefined {
  if (process.stdin.isTTY) {
    return { input: process.stdin, output: process.stderr.isTTY ? process.stderr : process.stdout, close: () => {} };
  }
  if (process.platform === 'win32') return undefined;
  let fd: number;
  try {
    fd = openSync('/dev/tty', 'r+');
  } catch {
    return undefined;
  }
  try {
    const input = new ReadStream(fd);
    const output = new WriteStream(fd);
    return {
      input,
      output,
      close: () => {
        input.destroy();
        output.destroy();
      },
    };
  } catch {
    closeSync(fd);
    return undefined;
  }
}

/**
 * Asks one question and returns what was typed, without echo.
 * @throws CliError interrupted on Ctrl+C, usage on Ctrl+D or an over-long answer.
 */
export async function askHidden(terminal: Terminal, question: string, signal?: AbortSignal): Promise<string> {
  const { input, output } = terminal;
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const decoder = new StringDecoder('utf8');
  let typed: string[] = [];

  const onData = (chunk: Uint8Array | string): void => {
    for (const character of typeof chunk === 'string' ? chunk : decoder.write(Buffer.from(chunk))) {
      if (character === '\r' || character === '\n') resolve(typed.join(''));
      else if (character === '\u0003') reject(interruptedError());
      else if (character === '\u0004' && typed.length === 0) {
        reject(usageError('no password was typed', 'run the command again', 'no-password'));
      } else if (character === '\u007f' || character === '\b') typed.pop();
      else if (character === '\u0015') typed = [];
      else if (character >= ' ') typed.push(character);
      if (typed.length > PASSWORD_CHARACTERS_MAX) {
        reject(usageError(`a password has at most ${PASSWORD_CHARACTERS_MAX} characters`, 'choose a shorter one'));
      }
    }
  };
  const onEnd = (): void => reject(usageError('no password was typed', 'run the command again', 'no-password'));
  const onAbort = (): void => reject(signal?.reason);

  // Echo goes off before the question appears: whoever answers at once must not see it either.
  input.setRawMode(true);
  input.on('data', onData);
  input.on('end', onEnd);
  signal?.addEventListener('abort', onAbort, { once: true });
  output.write(question);
  input.resume();
  try {
    return await promise;
  } finally {
    signal?.removeEventListener('abort', onAbort);
    input.off('data', onData);
    input.off('end', onEnd);
    input.setRawMode(false);
    input.pause();
    output.write('\n');
    typed = [];
  }
}
