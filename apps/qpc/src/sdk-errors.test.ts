import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ClientError, type ClientErrorCode, type ClientErrorKind } from '@quicprochat/client';
import { CliError, ExitCode } from './errors.ts';
import { toCliError } from './sdk-errors.ts';

const KINDS: readonly (readonly [ClientErrorKind, ClientErrorCode, ExitCode])[] = [
  ['usage', 'text-too-long', 2],
  ['cannot-connect', 'server-away', 3],
  ['cannot-connect', 'untrusted-certificate', 3],
  ['refused', 'wrong-credentials', 4],
  ['refused', 'name-taken', 4],
  ['verification-failed', 'identity-changed', 5],
  ['local-state', 'profile-in-use', 6],
  ['local-state', 'wrong-state-password', 6],
  ['timeout', 'timeout', 124],
  ['bug', 'bug', 1],
];

for (const [kind, code, exitCode] of KINDS) {
  test(`${kind} (${code}) ends with ${exitCode}, a cause and a next step`, () => {
    const error = toCliError(new ClientError(kind, code, 'the cause', { hint: 'the next step' }));
    assert.equal(error.exitCode, exitCode);
    assert.equal(error.code, code);
    assert.equal(error.message, 'the cause');
    assert.ok(error.hint.length > 0);
  });
}

test('an error without a hint gets one', () => {
  assert.notEqual(toCliError(new ClientError('usage', 'invalid-argument', 'no')).hint, '');
});

test('our own errors pass as they are; anything else is our bug', () => {
  const own = new CliError(ExitCode.usage, 'usage', 'a', 'b');
  assert.equal(toCliError(own), own);
  for (const thrown of [new TypeError('x is undefined'), 'a string', undefined]) {
    assert.equal(toCliError(thrown).exitCode, ExitCode.bug);
    assert.equal(toCliError(thrown).code, 'bug');
  }
});
