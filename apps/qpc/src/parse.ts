/**
 * From words to a command of the table, with commander. The shell's words and a chat line's words go through the same
 * function; only the flags that belong to the process (server, profile, passwords) are left out in a chat.
 */
import {
  Argument as CommanderArgument,
  Command as Commander,
  CommanderError,
  Option as CommanderOption,
} from 'commander';
import { CommandInput, type Command } from './command.ts';
import { usageError } from './errors.ts';
import { GlobalOptions, GLOBAL_OPTIONS } from './global-options.ts';
import { commandHelp, overview } from './help.ts';

export type Parsed =
  | {
      readonly kind: 'command';
      readonly command: Command;
      readonly input: CommandInput;
      readonly globals: GlobalOptions;
    }
  | { readonly kind: 'help'; readonly text: string }
  | { readonly kind: 'version' };

/**
 * @param words what follows `qpc`
 * @throws CliError usage: unknown command or flag, missing or surplus argument
 */
export function parseCommandLine(words: readonly string[], commands: readonly Command[]): Parsed {
  return parse(words, commands, true);
}

/** One `/command` of a running chat, without its slash. */
export function parseChatLine(line: string, commands: readonly Command[]): Parsed {
  const inChat = commands.filter((command) => command.inChat);
  return parse(splitWords(line), inChat, false);
}

/**
 * Splits a line as a shell would: blanks separate, quotes keep together, a backslash takes the next character as it is.
 * @throws CliError usage for a quote without its end
 */
export function splitWords(line: string): string[] {
  const words: string[] = [];
  let word: string | undefined;
  let quote: string | undefined;
  for (let i = 0; i < line.length; i += 1) {
    const character = line.charAt(i);
    if (quote !== undefined) {
      if (character === quote) quote = undefined;
      else if (character === '\\' && quote === '"' && i + 1 < line.length) word = (word ?? '') + line.charAt((i += 1));
      else word = (word ?? '') + character;
    } else if (character === '"' || character === "'") {
      quote = character;
      word ??= '';
    } else if (character === '\\' && i + 1 < line.length) {
      word = (word ?? '') + line.charAt((i += 1));
    } else if (/\s/u.test(character)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else {
      word = (word ?? '') + character;
    }
  }
  if (quote !== undefined)
    throw usageError(`a ${quote} is missing its other half`, 'close the quote, or put a \\ before it');
  if (word !== undefined) words.push(word);
  return words;
}

function parse(words: readonly string[], commands: readonly Command[], withGlobals: boolean): Parsed {
  const found: { parsed?: Parsed } = {};
  const program = configure(new Commander('qpc'));
  if (withGlobals) {
    for (const option of GLOBAL_OPTIONS) {
      if (option.name !== 'help') program.addOption(new CommanderOption(commanderFlags(option)));
    }
  }
  const parents = new Map<string, Commander>();
  for (const command of commands) {
    const [first, second] = command.name.split(' ');
    let parent = program;
    if (second !== undefined && first !== undefined) {
      parent = parents.get(first) ?? configure(program.command(first));
      parents.set(first, parent);
    }
    const leaf = configure(parent.command(second ?? first ?? ''));
    for (const argument of command.args ?? []) {
      const name = argument.rest ? `${argument.name}...` : argument.name;
      leaf.addArgument(new CommanderArgument(argument.optional ? `[${name}]` : `<${name}>`));
    }
    for (const option of command.options ?? []) leaf.addOption(new CommanderOption(commanderFlags(option)));
    leaf.action(() => {
      found.parsed = { kind: 'command', command, ...collect(command, leaf, program) };
    });
  }
  const help = askedForHelp(words, commands);
  if (help !== undefined) return { kind: 'help', text: help };
  if (withGlobals && beforeDashes(words).includes('--version')) return { kind: 'version' };
  try {
    program.parse([...words], { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError) throw explain(error, words, withGlobals);
    throw error;
  }
  if (!found.parsed) {
    // commander lets a bare group (`qpc group`) pass when nothing follows.
    const names = commands.filter((command) => command.name.startsWith(`${words[0]} `)).map((command) => command.name);
    throw usageError(
      words.length === 0 ? 'no command is given' : `"${words.join(' ')}" is not complete`,
      names.length > 0 ? `write one of: ${names.join(', ')}` : 'run "qpc --help" for the list',
    );
  }
  return found.parsed;
}

function configure(command: Commander): Commander {
  return command
    .exitOverride()
    .helpOption(false)
    .helpCommand(false)
    .configureOutput({ writeOut: () => {}, writeErr: () => {} });
}

function commanderFlags(option: (typeof GLOBAL_OPTIONS)[number]): string {
  if (option.value === undefined) return `--${option.name}`;
  return option.valueOptional ? `--${option.name} [${option.value}]` : `--${option.name} <${option.value}>`;
}

function collect(
  command: Command,
  leaf: Commander,
  program: Commander,
): { input: CommandInput; globals: GlobalOptions } {
  const args = new Map<string, string | readonly string[]>();
  for (const [i, argument] of (command.args ?? []).entries()) {
    const value: unknown = leaf.processedArgs[i];
    if (typeof value === 'string') args.set(argument.name, value);
    else if (Array.isArray(value)) args.set(argument.name, value.map(String));
  }
  return {
    input: new CommandInput(args, given(leaf, command.options ?? [])),
    globals: new GlobalOptions(given(program, GLOBAL_OPTIONS)),
  };
}

/** Options that were typed, by their names. commander turns `--no-x` into `x: false` and names into camel case. */
function given(command: Commander, options: readonly { readonly name: string }[]): Map<string, string | true> {
  const values = new Map<string, string | true>();
  for (const { name } of options) {
    const negated = name.startsWith('no-');
    const key = (negated ? name.slice(3) : name).replaceAll(/-([a-z])/gu, (_, letter: string) => letter.toUpperCase());
    const value: unknown = command.getOptionValue(key);
    if (negated ? value === false : value === true) values.set(name, true);
    else if (typeof value === 'string') values.set(name, value);
  }
  return values;
}

/** `--help` anywhere before `--`, or `help [COMMAND]`. */
function askedForHelp(words: readonly string[], commands: readonly Command[]): string | undefined {
  const before = beforeDashes(words);
  const plain = before.filter((word, i) => !word.startsWith('-') && !takesNext(before[i - 1]));
  const wanted =
    plain[0] === 'help'
      ? plain.slice(1)
      : before.some((word) => word === '--help' || word === '-h')
        ? plain
        : undefined;
  if (wanted === undefined) return undefined;
  const name = wanted.slice(0, 2).join(' ');
  const command = commands.find((row) => row.name === name) ?? commands.find((row) => row.name === wanted[0]);
  if (command) return commandHelp(command);
  const group = commands.filter((row) => row.name.startsWith(`${wanted[0]} `));
  if (group.length > 0) return group.map(commandHelp).join('\n');
  if (plain[0] === 'help' && wanted.length > 0) {
    throw usageError(`there is no command "${wanted.join(' ')}"`, 'run "qpc --help" for the list', 'unknown-command');
  }
  return overview(commands, GLOBAL_OPTIONS);
}

/** Whether a word is an option for every command whose value is the word after it. */
function takesNext(word: string | undefined): boolean {
  return GLOBAL_OPTIONS.some(
    ({ name, value, valueOptional }) => word === `--${name}` && value !== undefined && !valueOptional,
  );
}

function beforeDashes(words: readonly string[]): readonly string[] {
  const end = words.indexOf('--');
  return end < 0 ? words : words.slice(0, end);
}

function explain(error: CommanderError, words: readonly string[], withGlobals: boolean): Error {
  // "error: unknown command 'sned'\n(Did you mean send?)"
  const [first = '', second] = error.message.replace(/^error: /u, '').split('\n');
  const suggestion = second
    ?.replace(/^\((.*)\)$/u, '$1')
    .replace('Did you mean one of', 'did you mean one of')
    .replace('Did you mean', 'did you mean');
  const help = withGlobals
    ? `run "qpc help${words[0] && !words[0].startsWith('-') ? ` ${words[0]}` : ''}"`
    : 'type /help';
  switch (error.code) {
    case 'commander.unknownCommand':
      return usageError(
        first,
        suggestion ??
          (withGlobals ? 'run "qpc --help" for the list' : 'type /help for the list, or // to send a slash'),
        'unknown-command',
      );
    case 'commander.help':
      return usageError('a command is missing', help);
    case 'commander.unknownOption':
      return usageError(first, suggestion ?? `put -- before text that begins with a dash, or ${help}`);
    default:
      return usageError(first, help);
  }
}
