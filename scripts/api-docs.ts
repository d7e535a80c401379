// Writes API.md of the packages people take on their own, from the exports of their index and the comments above them, or
// with --check says whether it is current. Reads sources as the formatter leaves them: a declaration begins at the start
// of a line, its body ends with a closing bracket at the start of one. TypeScript 7 has no API to ask.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.join(import.meta.dirname, '..');
const documented = ['crypto', 'mls'];

/** The text of a package's API.md. */
export function apiDocs(name: string): string {
  const folder = path.join(root, 'packages', name);
  const manifest = JSON.parse(readFileSync(path.join(folder, 'package.json'), 'utf8')) as {
    name: string;
    exports: Record<string, string>;
  };
  const entries = Object.entries(manifest.exports).map(([entry, file]) => {
    const source = path.join(folder, file);
    const sections = exportsOf(source).map(([title, texts]) => `### ${title}\n\n${texts.join('\n\n')}`);
    return `## ${path.posix.join(manifest.name, entry)}\n\n${headerOf(source)}\n\n${sections.join('\n\n')}`;
  });
  const text = `# API of ${manifest.name}\n\nWritten by \`npm run api-docs\` from the sources.\n\n${entries.join('\n\n')}\n`;
  const { stdout, status, error } = spawnSync('oxfmt', [`--stdin-filepath=packages/${name}/API.md`], {
    input: text,
    encoding: 'utf8',
    cwd: root,
  });
  if (error) throw error;
  if (status !== 0) throw new Error('oxfmt failed');
  return stdout;
}

type Section = readonly [title: string, texts: readonly string[]];

/** What a module exports, by section: the module it re-exports from, or the headings within it. */
function exportsOf(file: string): Section[] {
  const source = readFileSync(file, 'utf8');
  const sections: Section[] = declarationSections(file, undefined);
  for (const [, all, list, from] of source.matchAll(/^export (?:(\*)|\{([^}]*)\}) from '(\.[^']*)';/gm)) {
    const target = path.join(path.dirname(file), from!);
    const names =
      all === undefined ? list!.split(',').map((name) => name.replace(/^\s*(type )?\s*|\s*$/g, '')) : undefined;
    sections.push(
      ...declarationSections(
        target,
        names?.filter((name) => name !== ''),
      ),
    );
  }
  return sections;
}

/** The exported declarations of one module, all or those named, under its headings. */
function declarationSections(file: string, names: readonly string[] | undefined): Section[] {
  const lines = readFileSync(file, 'utf8').split('\n');
  const title = path.basename(file, '.ts');
  const sections = new Map<string, string[]>();
  const found = new Set<string>();
  let heading = title;
  lines.forEach((line, at) => {
    const headed = /^\/\/ ---- (.*?) -+$/.exec(line)?.[1];
    if (headed !== undefined) heading = names === undefined ? headed : title;
    const name =
      /^export (?:declare )?(?:function\*?|const|interface|type|class) (\w+)/.exec(line)?.[1] ??
      /^export type \{ (\w+) \} from/.exec(line)?.[1];
    if (name === undefined || (names !== undefined && !names.includes(name))) return;
    found.add(name);
    const code = `\`\`\`ts\n${declaration(lines, at)}\n\`\`\``;
    const comment = commentAbove(lines, at);
    const text = `#### ${name}\n\n${comment === '' ? '' : `${comment}\n\n`}${code}`;
    // One name can be a value and a type; they stand together.
    sections.set(heading, [...(sections.get(heading) ?? []), text]);
  });
  for (const name of names ?? []) if (!found.has(name)) throw new Error(`${file}: no declaration of ${name}`);
  return [...sections];
}

/** The declaration that begins at this line, without a body and without a long value. */
function declaration(lines: readonly string[], start: number): string {
  const first = lines[start]!;
  if (first.startsWith('export type {')) return first.replace(/ from .*/, ';');
  const taken: string[] = [];
  for (let at = start; at < lines.length; at++) {
    const line = lines[at]!;
    taken.push(line);
    if (/^export (declare )?function/.test(first)) {
      // The body opens at the end of the line that closes the parameters and has the whole type.
      const last = at === start || /^[})]/.test(line);
      if (last && line.endsWith(' {') && !line.endsWith('): {')) {
        return `${taken.join('\n').slice(0, -2)};`;
      }
    } else if (/^export (interface|class)/.test(first) ? /^\}|\{\}$/.test(line) : endsStatement(line, at === start)) {
      break;
    }
  }
  const text = taken.join('\n');
  const value = /^(export const \w+: [^=]+) = /.exec(text)?.[1];
  return value !== undefined && taken.length > 1 ? `${value};` : text;
}

function endsStatement(line: string, first: boolean): boolean {
  return line.endsWith(';') && (first || !/^ {4}/.test(line)) && (first || /^[})\]]|^ {2}[|&]|^ {2}\S.*;$/.test(line));
}

/** The text of a doc comment that ends just above this line. */
function commentAbove(lines: readonly string[], at: number): string {
  if (!/\*\/\s*$/.test(lines[at - 1] ?? '')) return '';
  let start = at - 1;
  while (start > 0 && !lines[start]!.startsWith('/**')) start--;
  return plainComment(lines.slice(start, at));
}

/** What the module says of itself on its first lines. */
function headerOf(file: string): string {
  const lines = readFileSync(file, 'utf8').split('\n');
  const end = lines.findIndex((line) => /\*\/\s*$/.test(line));
  return lines[0]?.startsWith('/**') ? plainComment(lines.slice(0, end + 1)) : '';
}

function plainComment(lines: readonly string[]): string {
  const text = lines.map((line) => line.replace(/^\s*\/\*\*\s?|\s*\*\/\s*$/g, '').replace(/^\s*\* ?/, ''));
  return text
    .join('\n')
    .trim()
    .replace(/^@throws /gm, '\nThrows: ')
    .replace(/^@param (\w+)/gm, '\n`$1`:')
    .replace(/ @throws /g, ' Throws: ');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const name of documented) {
    const file = path.join(root, 'packages', name, 'API.md');
    const fresh = apiDocs(name);
    if (!process.argv.includes('--check')) writeFileSync(file, fresh);
    else if (!existsSync(file) || readFileSync(file, 'utf8') !== fresh) {
      console.error(`packages/${name}/API.md is not current. Run: npm run api-docs`);
      process.exitCode = 1;
    }
  }
}
