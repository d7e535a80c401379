/** Parsing and help by the rows of `command-table.ts` and the configuration's own table, so that none differs. */
import { SETTINGS } from '@quicprochat/server';
import type { Setting } from '@quicprochat/server';
import { Command as Parser, Option } from 'commander';
import { COMMANDS } from './command-table.ts';
import type { Command } from './command.ts';

const SWITCHES = new Set(['production', 'pushPrivate', 'allowSealedSender']);
// A file name may have commas.
const REPEATED = new Set(['plugin']);

/** The command that the words name, and the words after its name. Without a name it is `start`. */
export function findCommand(words: readonly string[]): { command: Command; rest: readonly string[] } | undefined {
  const [first, second] = words;
  const named = (name: string): Command | undefined => COMMANDS.find((command) => command.name === name);
  const two = named(`${first ?? ''} ${second ?? ''}`);
  if (two !== undefined) return { command: two, rest: words.slice(2) };
  const one = named(first ?? '');
  if (one !== undefined) return { command: one, rest: words.slice(1) };
  const start = named('start');
  return start !== undefined && (first === undefined || first.startsWith('-'))
    ? { command: start, rest: words }
    : undefined;
}

export function parserOf(command: Command, version: string, writeOut: (text: string) => void): Parser {
  const isStart = command.name === 'start';
  const parser = new Parser(isStart ? 'qpc-server' : `qpc-server ${command.name}`)
    .description(
      isStart ? 'The quicprochat server: carries end-to-end encrypted messages that it cannot read.' : helpOf(command),
    )
    .version(version, '--version', 'print the version')
    .helpOption('--help', 'print this')
    .option('--config <file>', 'TOML file with any of the server’s settings (QPC_CONFIG)')
    .option(
      '--json',
      isStart ? 'print a machine-readable line when ready, and for errors' : 'print machine-readable lines',
    )
    .configureHelp({ helpWidth: 120 })
    .configureOutput({ writeOut, writeErr: () => {}, outputError: () => {} })
    .exitOverride()
    .allowExcessArguments(false);
  for (const { name, summary, rest } of command.args ?? []) {
    parser.argument(`<${name}${rest === true ? '...' : ''}>`, summary);
  }
  for (const { name, value, summary } of command.options ?? []) {
    parser.option(value === undefined ? `--${name}` : `--${name} <${value}>`, summary);
  }
  for (const setting of SETTINGS) if (command.settings(setting)) parser.addOption(optionOf(setting));
  return parser.addHelpText('after', isStart ? START_NOTES : notesOf(command));
}

/** What `qpc-server admin` alone prints. */
export function groupHelp(group: string): string {
  const rows = COMMANDS.filter(({ name }) => name.startsWith(`${group} `));
  return `Usage: qpc-server ${group} COMMAND [options]\n\n${listed(rows)}\nqpc-server ${group} COMMAND --help says more.\n`;
}

function listed(rows: readonly Command[]): string {
  const syntax = ({ name, args = [] }: Command): string => [name, ...args.map((each) => each.name)].join(' ');
  const width = Math.max(...rows.map((row) => syntax(row).length));
  return rows.map((row) => `  ${syntax(row).padEnd(width)}  ${row.summary}\n`).join('');
}

const START_NOTES = `
Each setting is also a variable, --data-dir being QPC_DATA_DIR, and a key of the file, --limits-inbox-bytes being
inbox_bytes under [limits]. A flag counts before a variable, a variable before the file.

Other commands, each with --help:
${listed(COMMANDS)}
Exit codes: 0 done, or stopped when asked; 1 a fault of ours, 2 usage or configuration, 3 cannot listen, or no server
there, 4 refused by the server, 5 verification failed, 6 the data folder, 124 timeout, 130 interrupted.`;

function helpOf({ summary, details }: Command): string {
  const sentence = `${summary.charAt(0).toUpperCase()}${summary.slice(1)}.`;
  return details === undefined ? sentence : `${sentence}\n\n${details}`;
}

function notesOf({ examples = [] }: Command): string {
  return examples.length === 0 ? '' : `\nExamples\n${examples.map((example) => `  ${example}\n`).join('')}`;
}

function optionOf(setting: Setting): Option {
  const { flag, description, path, standard } = setting;
  const text = standard === undefined ? description : `${description} (default: ${standard})`;
  const option = new Option(SWITCHES.has(path) ? flag : `${flag} <value>`, text);
  return REPEATED.has(path) ? option.argParser((value, before: string[] = []) => [...before, value]) : option;
}

/** The settings that were given as flags, by `Setting.path`. */
export function flagsOf(parser: Parser): Record<string, unknown> {
  const given = parser.opts<Record<string, unknown>>();
  return Object.fromEntries(
    SETTINGS.flatMap((setting) => {
      const value = given[optionOf(setting).attributeName()];
      return value === undefined ? [] : [[setting.path, value]];
    }),
  );
}
