/** What a command is: a row of data and one function; parsing and help are made from the rows. */
import type { ServerConfig, Setting } from '@quicprochat/server';
import type { JsonFields, Output } from './output.ts';

interface Argument {
  readonly name: string;
  readonly summary: string;
  /** Takes all remaining words; at least one. */
  readonly rest?: boolean;
}

/** Without `value` it is a switch. */
interface Option {
  readonly name: string;
  readonly value?: string;
  readonly summary: string;
}

export interface Command {
  /** One or two words, as typed. */
  readonly name: string;
  readonly summary: string;
  /** What the summary leaves out, in full sentences. */
  readonly details?: string;
  readonly args?: readonly Argument[];
  readonly options?: readonly Option[];
  /** The settings it takes as flags; all of them count from environment and file. */
  readonly settings: (setting: Setting) => boolean;
  readonly examples?: readonly string[];
  /** Does the work; what it returns are the fields of the `result` line. */
  readonly run: (context: CommandContext) => Promise<JsonFields>;
}

export interface CommandContext {
  readonly out: Output;
  /** Made of flags, environment and file. */
  readonly config: () => ServerConfig;
  /** Aborted by Ctrl+C or a termination signal; `start` minds those itself. */
  readonly signal: AbortSignal;
  word(name: string): string;
  words(name: string): readonly string[];
  has(option: string): boolean;
  option(name: string): string | undefined;
}

/** For commands about a data folder, where nothing is served. */
export function folderSettings({ path }: Setting): boolean {
  return path === 'dataDir' || path === 'storeKeyFile';
}
