// The command reference in docs/cli.md is made from the table. After a change: UPDATE_DOCS=1 npm test -- apps/qpc
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { COMMANDS } from './command-table.ts';
import { GLOBAL_OPTIONS } from './global-options.ts';
import { commandHelp, overview } from './help.ts';

const GUIDE = new URL('../../../docs/cli.md', import.meta.url);
const BEGIN = '<!-- reference: made from apps/qpc/src/command-table.ts -->\n';
const END = '<!-- end of reference -->\n';

function reference(): string {
  const sections = COMMANDS.map(
    (command) =>
      `### qpc ${command.name}\n\n\`\`\`text\n${commandHelp(command).replace('\nOptions for every command: qpc --help\n', '').trimEnd()}\n\`\`\`\n`,
  );
  return `\n\`\`\`text\n${overview(COMMANDS, GLOBAL_OPTIONS)}\`\`\`\n\n${sections.join('\n')}\n`;
}

test('docs/cli.md has the reference of the commands there are', () => {
  const guide = readFileSync(GUIDE, 'utf8');
  const from = guide.indexOf(BEGIN) + BEGIN.length;
  const to = guide.indexOf(END);
  assert.ok(from >= BEGIN.length && to >= from, 'the marks are there');
  if (process.env['UPDATE_DOCS']) writeFileSync(GUIDE, guide.slice(0, from) + reference() + guide.slice(to));
  else assert.equal(guide.slice(from, to), reference());
});
