/**
 * Where passwords come from (DESIGN section 8): `--password-stdin` or `--password-file`, `--password` (warns once: it
 * shows in the process list), the environment, else a prompt without echo. The profile's own password comes the same
 * way under its own names; the two are never taken for each other.
 */
import { open } from 'node:fs/promises';
import { CliError, ExitCode, systemCode, usageError } from './errors.ts';
import type { LineReader } from './line-reader.ts';
import type { Output } from './output.ts';
import { askHidden, openTerminal } from './prompt.ts';

/** The secrets found in the environment; taken out of it before anything else runs. */
export interface EnvironmentSecrets {
  readonly password: string | undefined;
  readonly statePassword: string | undefined;
}

/** Reads and removes the secret variables, so that no process started later inherits them. */
export function takeSecrets(env: Record<string, string | undefined>): EnvironmentSecrets {
  const secrets = { password: env['QPC_PASSWORD'], statePassword: env['QPC_STATE_PASSWORD'] };
  delete env['QPC_PASSWORD'];
  delete env['QPC_STATE_PASSWORD'];
  return secrets;
}

/** The flags of one password, whichever were given. */
export interface PasswordSource {
  /** `--password` or `--state-password`, as named on the command line. */
  readonly flag: string;
  readonly value: string | undefined;
  readonly fromStdin: boolean;
  readonly file: string | undefined;
  readonly environment: string | undefined;
}

const PASSWORD_FILE_BYTES_MAX = 4096;

export class PasswordReader {
  readonly #out: Output;
  readonly #lines: LineReader;
  readonly #signal: AbortSignal;
  readonly #taken = new Map<string, string>();
  #warned = false;

  constructor(out: Output, lines: LineReader, signal: AbortSignal) {
    this.#out = out;
    this.#lines = lines;
    this.#signal = signal;
  }

  /** The password if one was given in any way but typing; undefined otherwise. */
  async given(source: PasswordSource): Promise<string | undefined> {
    const taken = this.#taken.get(source.flag);
    if (taken !== undefined) return taken;
    const password = await this.#read(source);
    if (password === undefined) return undefined;
    if (password === '') throw usageError(`the password given by ${source.flag} is empty`, 'give one', 'no-password');
    this.#taken.set(source.flag, password);
    return password;
  }

  /** The password, asked for if it was not given. `repeat` asks twice, for a password that is being set. */
  async ask(source: PasswordSource, question: string, repeat: boolean): Promise<string> {
    const given = await this.given(source);
    if (given !== undefined) return given;
    const terminal = openTerminal();
    if (!terminal) {
      throw usageError(
        'a password is needed and there is no terminal to ask on',
        `give it with ${source.flag}-stdin or ${source.flag}-file`,
        'no-password',
      );
    }
    try {
      const password = await askHidden(terminal, `${question}: `, this.#signal);
      if (password === '')
        throw usageError('the password is empty', 'run the command again and type one', 'no-password');
      if (repeat && (await askHidden(terminal, 'The same again: ', this.#signal)) !== password) {
        throw usageError('the two passwords differ', 'run the command again', 'passwords-differ');
      }
      this.#taken.set(source.flag, password);
      return password;
    } finally {
      terminal.close();
    }
  }

  async #read(source: PasswordSource): Promise<string | undefined> {
    if (source.fromStdin && source.file !== undefined) {
      throw usageError(`both ${source.flag}-stdin and ${source.flag}-file are given`, 'give one of them');
    }
    if (source.fromStdin) {
      const line = await this.#lines.next(this.#signal);
      if (line === undefined) throw usageError(`standard input has no line for ${source.flag}-stdin`, 'pipe it in');
      return line;
    }
    if (source.file !== undefined) return readPasswordFile(source.flag, source.file);
    if (source.value !== undefined) {
      if (!this.#warned) {
        this.#warned = true;
        this.#out.warn(
          `${source.flag} is visible in the process list and the shell history; ${source.flag}-stdin is not`,
        );
      }
      return source.value;
    }
    return source.environment;
  }
}

async function readPasswordFile(flag: string, file: string): Promise<string> {
  const buffer = new Uint8Array(PASSWORD_FILE_BYTES_MAX + 1);
  let length = 0;
  try {
    const handle = await open(file, 'r');
    try {
      while (length < buffer.length) {
        const { bytesRead } = await handle.read(buffer, length, buffer.length - length);
        if (bytesRead === 0) break;
        length += bytesRead;
      }
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw new CliError(
      ExitCode.usage,
      'password-file',
      `the file of ${flag}-file cannot be read (${systemCode(error) ?? 'error'})`,
      'check its path and permissions',
    );
  }
  if (length > PASSWORD_FILE_BYTES_MAX) {
    throw usageError(`the file of ${flag}-file is longer than ${PASSWORD_FILE_BYTES_MAX} bytes`, 'check its path');
  }
  const text = new TextDecoder().decode(buffer.subarray(0, length));
  buffer.fill(0);
  return text.split(/\r?\n/u, 1)[0] ?? '';
}
