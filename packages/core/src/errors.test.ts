import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  BadInput,
  Conflict,
  Internal,
  isQpcError,
  LocalState,
  Misuse,
  Refused,
  Unavailable,
  VerificationFailed,
} from './errors.ts';

test('each class keeps its name, cause and next step', () => {
  const cause = new Error('below');
  for (const Class of [BadInput, Conflict, Internal, LocalState, Misuse, Refused, Unavailable, VerificationFailed]) {
    const error = new Class('what happened', 'what to do', { cause });
    assert.ok(error instanceof Error && isQpcError(error));
    assert.equal(error.name, Class.name);
    assert.equal(error.message, 'what happened');
    assert.equal(error.hint, 'what to do');
    assert.equal(error.cause, cause);
  }
  assert.equal(new Misuse('x').hint, '');
  assert.ok(!isQpcError(cause));
});
