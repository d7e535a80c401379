/** The examples run, and what the README shows of code stands in one of them. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';

const folder = path.join(import.meta.dirname, '../examples');
const files = readdirSync(folder);

for (const file of files) {
  test(`example ${file}`, async () => {
    await import(path.join(folder, file));
  });
}

test('every piece of code in the README is a piece of an example', () => {
  const lines = (text: string): string => text.replace(/^\s+|\s+$/gm, '');
  const examples = files.map((file) => lines(readFileSync(path.join(folder, file), 'utf8')));
  const readme = readFileSync(path.join(import.meta.dirname, '../README.md'), 'utf8');
  const pieces = [...readme.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(([, code]) => lines(code!));
  assert.ok(pieces.length > 4);
  for (const piece of pieces) {
    assert.ok(
      examples.some((example) => example.includes(piece)),
      `no example has this:\n${piece}`,
    );
  }
  for (const file of files) {
    if (!/^(shared|certificates)/.test(file))
      assert.ok(readme.includes(`examples/${file}`), `${file} is not mentioned`);
  }
});
