import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { fileBreaches, importBreaches, importTable } from '../scripts/check-imports.ts';

test('every import of every package is in the table', () => {
  assert.deepEqual(importBreaches(path.join(import.meta.dirname, '..')), []);
});

test('the server is not able to read messages: it may not depend on mls or client', () => {
  assert.deepEqual(importTable['packages/server']?.ours, ['proto', 'crypto', 'core', 'transport']);
});

const breaching: [why: string, name: string, source: string, expected: RegExp][] = [
  ['a forbidden package', 'packages/server/src/a.ts', "import { x } from '@quicprochat/mls';", /must not import/],
  ['an undeclared package', 'packages/server/src/a.ts', "import x from 'left-pad';", /does not declare/],
  [
    'a value from a package whose types alone are declared',
    'packages/server/src/a.ts',
    "import x from 'typed';",
    /does not declare/,
  ],
  ['Node in a portable file', 'packages/mls/src/a.ts', "import { readFile } from 'node:fs';", /\.node\.ts/],
  ['a Node file from a portable one', 'packages/crypto/src/a.ts', "export * from './b.node.ts';", /runs anywhere/],
  ['another package by path', 'packages/client/src/a.ts', "import '../../server/src/index.ts';", /reaches out/],
  ['a dynamic import', 'packages/server/src/a.ts', "await import('@quicprochat/client')", /must not import/],
  ['a clock in mls', 'packages/mls/src/a.ts', 'const now = Date.now();', /takes as a parameter/],
  ['randomness in mls', 'packages/mls/src/a.ts', 'const r = Math.random();', /takes as a parameter/],
];

for (const [why, name, source, expected] of breaching) {
  test(`the check refuses ${why}`, () => {
    const rule = importTable[name.split('/').slice(0, 2).join('/')];
    assert.ok(rule);
    const declared = new Set(['@quicprochat/mls', '@quicprochat/client', '@types/typed']);
    assert.match(fileBreaches(name, source, rule, declared).join('\n'), expected);
  });
}
