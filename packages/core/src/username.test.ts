import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkUsername, isUsername } from './username.ts';

test('canonical names pass as they are', () => {
  for (const name of ['al', 'alice', 'a.b_c-9', 'x'.repeat(32)]) {
    assert.deepEqual(checkUsername(name), { kind: 'canonical', username: name });
  }
});

test('each kind of mistake has its own reason, and none repeats the name', () => {
  const cases: [string, RegExp][] = [
    ['', /at least 2/],
    ['a', /at least 2/],
    ['x'.repeat(33), /at most 32/],
    ['Alice', /capital/],
    ['alice@home', /"@"/],
    ['alice bob', /spaces/],
    ['alice\n', /spaces/],
    ['al\u001b[31m', /only the characters/],
    ['älice', /only the characters/],
    // Looks like "alice" with a Cyrillic letter.
    ['\u0430lice', /only the characters/],
  ];
  for (const [name, reason] of cases) {
    const check = checkUsername(name);
    assert.ok(check.kind === 'invalid', JSON.stringify(name));
    assert.match(check.reason, reason);
    assert.ok(!isUsername(name));
    assert.ok(name.length < 5 || !check.reason.includes(name));
  }
});
