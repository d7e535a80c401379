/**
 * What a command is: a row of data and one function. The command line, the chat's slash commands and help are made from
 * the same rows (command-table.ts), so none of them can know a command that the others don't.
 */
import type { LineReader } from './line-reader.ts';
import type { JsonFields, Output } from './output.ts';
import type { PasswordReader } from './secrets.ts';
import type { Session } from './session.ts';

/** A positional argument. `rest` takes all remaining words. */
export interface Argument {
  readonly name: string;
  readonly summary: string;
  readonly optional?: boolean;
  readonly rest?: boolean;
}

/** A flag. Without `value` it is a switch; `valueOptional` may be given bare as well. */
export interface Option {
  readonly name: string;
  readonly summary: string;
  readonly value?: string;
  readonly valueOptional?: boolean;
}

export type CommandTopic = 'Start here' | 'Account' | 'People' | 'Chat' | 'Groups' | 'Server';

export interface Command {
  /** One or two words, as typed: `send`, `group create`. */
  readonly name: string;
  readonly topic: CommandTopic;
  readonly summary: string;
  /** What the summary leaves out, in full sentences. */
  readonly details?: string;
  readonly args?: readonly Argument[];
  readonly options?: readonly Option[];
  readonly examples?: readonly string[];
  /** Usable as `/command` inside a running chat: needs no prompt and does not hold the screen. */
  readonly inChat?: boolean;
  /** Does the work and returns the fields of the `result` line. */
  readonly run: (context: CommandContext, input: CommandInput) => Promise<JsonFields>;
}

/** What a command works with. */
export interface CommandContext {
  readonly out: Output;
  readonly session: Session;
  readonly lines: LineReader;
  readonly passwords: PasswordReader;
  /** Aborted by Ctrl+C, a termination signal, `--timeout`, or a reader of our output that went away. */
  readonly signal: AbortSignal;
}

/** The words and flags of one call, by the names the row declares. */
export class CommandInput {
  readonly #args: ReadonlyMap<string, string | readonly string[]>;
  readonly #options: ReadonlyMap<string, string | true>;

  constructor(
    args: ReadonlyMap<string, string | readonly string[]>,
    options: ReadonlyMap<string, string | true> = new Map(),
  ) {
    this.#args = args;
    this.#options = options;
  }

  /** A required argument. */
  word(name: string): string {
    const value = this.#args.get(name);
    if (typeof value !== 'string') throw new Error(`argument ${name} is not declared as required`);
    return value;
  }

  optionalWord(name: string): string | undefined {
    const value = this.#args.get(name);
    return typeof value === 'string' ? value : undefined;
  }

  /** All words of a `rest` argument. */
  words(name: string): readonly string[] {
    const value = this.#args.get(name);
    return typeof value === 'object' ? value : [];
  }

  has(option: string): boolean {
    return this.#options.has(option);
  }

  /** The value of an option; undefined when it is absent or bare. */
  value(option: string): string | undefined {
    const value = this.#options.get(option);
    return value === true ? undefined : value;
  }
}

/** A required argument as `NAME`, an optional one as `[NAME]`, the rest as `NAME...`. */
export function argumentSyntax(argument: Argument): string {
  const name = argument.rest ? `${argument.name}...` : argument.name;
  return argument.optional ? `[${name}]` : name;
}

export function optionSyntax(option: Option): string {
  if (option.value === undefined) return `--${option.name}`;
  return option.valueOptional ? `--${option.name} [${option.value}]` : `--${option.name} ${option.value}`;
}
