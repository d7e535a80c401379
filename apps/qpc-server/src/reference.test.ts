// The command reference in docs/server.md is what --help prints. After a change: UPDATE_DOCS=1 npm test -- apps/qpc-server
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { COMMANDS } from './command-table.ts';
import { run } from './run.ts';

const GUIDE = new URL('../../../docs/server.md', import.meta.url);
const BEGIN = '<!-- reference: what qpc-server --help prints -->\n';
const END = '<!-- end of reference -->\n';

async function helpOf(name: string): Promise<string> {
  let text = '';
  const stdout = { write: (part: string) => (text += part) };
  const words = name === 'start' ? [] : name.split(' ');
  assert.equal(await run([...words, '--help'], {}, { stdout, stderr: stdout }), 0);
  return text
    .trimEnd()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}

test('docs/server.md has what --help prints', async () => {
  const sections: string[] = [];
  for (const { name } of COMMANDS) {
    const title = name === 'start' ? 'qpc-server' : `qpc-server ${name}`;
    sections.push(`### ${title}\n\n\`\`\`text\n${await helpOf(name)}\n\`\`\`\n`);
  }
  const reference = `\n${sections.join('\n')}\n`;
  const guide = readFileSync(GUIDE, 'utf8');
  const from = guide.indexOf(BEGIN) + BEGIN.length;
  const to = guide.indexOf(END);
  assert.ok(from >= BEGIN.length && to >= from, 'the marks are there');
  if (process.env['UPDATE_DOCS']) writeFileSync(GUIDE, guide.slice(0, from) + reference + guide.slice(to));
  else assert.equal(guide.slice(from, to), reference);
});
