/** Help, made from the table. Pure text: the chat shows the same. */
import { argumentSyntax, optionSyntax, type Command, type CommandTopic, type Option } from './command.ts';

const WIDTH = 100;

/** What `qpc` alone prints: where to begin. */
export function firstSteps(): string {
  return `qpc: end-to-end encrypted group chat

Three commands to begin with:
  qpc demo                        watch four people chat through a server of their own
  qpc register-user alice         make an account on the server at 127.0.0.1:5001
  qpc dm bob "Hello, Bob"         write to somebody

No server yet? Start one in another terminal: qpc-server
Everything else: qpc --help, and qpc help COMMAND.
`;
}

export function overview(commands: readonly Command[], globals: readonly Option[]): string {
  const topics = new Map<CommandTopic, Command[]>();
  for (const command of commands) topics.set(command.topic, [...(topics.get(command.topic) ?? []), command]);
  const sections = [...topics].map(
    ([topic, rows]) => `${topic}\n${table(rows.map((row) => [syntax(row), row.summary]))}`,
  );
  return `qpc: end-to-end encrypted group chat

Usage: qpc COMMAND [options]

${sections.join('\n')}
Options for every command
${table(globals.map((option) => [optionSyntax(option), option.summary]))}
A CONVERSATION is a group's name, @USER, or # and the beginning of its id.
Exit codes: 0 done, 1 our fault, 2 usage, 3 cannot connect, 4 refused by the server, 5 verification failed,
6 this profile (locked, damaged, wrong password), 124 timeout, 130 interrupted.
`;
}

export function commandHelp(command: Command): string {
  const args = command.args ?? [];
  const options = command.options ?? [];
  return [
    `Usage: qpc ${syntax(command)}${options.length > 0 ? ' [options]' : ''}`,
    '',
    wrap(command.summary.charAt(0).toUpperCase() + command.summary.slice(1) + '.', 0),
    ...(command.details ? ['', wrap(command.details, 0)] : []),
    ...(args.length > 0 ? ['', table(args.map((row) => [argumentSyntax(row), row.summary])).trimEnd()] : []),
    ...(options.length > 0
      ? ['', 'Options', table(options.map((row) => [optionSyntax(row), row.summary])).trimEnd()]
      : []),
    ...(command.examples?.length ? ['', 'Examples', ...command.examples.map((line) => `  ${line}`)] : []),
    '',
    'Options for every command: qpc --help',
    '',
  ].join('\n');
}

/** The commands of a running chat. */
export function chatHelp(commands: readonly Command[]): readonly string[] {
  return commands
    .filter((command) => command.inChat)
    .map((command) => `/${syntax(command)}  ${command.summary}`)
    .concat('/quit  leave the chat');
}

function syntax(command: Command): string {
  return [command.name, ...(command.args ?? []).map(argumentSyntax)].join(' ');
}

function table(rows: readonly (readonly [string, string])[]): string {
  const left = Math.min(34, Math.max(...rows.map(([name]) => name.length)) + 2);
  return rows
    .map(([name, summary]) => {
      const head = `  ${name}`;
      const text = wrap(summary, left + 2);
      return head.length >= left + 2
        ? `${head}\n${' '.repeat(left + 2)}${text}\n`
        : `${head.padEnd(left + 2)}${text}\n`;
    })
    .join('');
}

function wrap(text: string, indent: number): string {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line && line.length + 1 + word.length > WIDTH - indent) {
      lines.push(line);
      line = word;
    } else {
      line = line ? `${line} ${word}` : word;
    }
  }
  return [...lines, line].join(`\n${' '.repeat(indent)}`);
}
