import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { formatSafetyNumber, safetyNumber } from './safety-number.ts';

const side = (username: string, fill: number) => ({
  origin: 'localhost:5001',
  username,
  identityKey: new Uint8Array(32).fill(fill),
});
const alice = side('alice', 1);
const bob = side('bob', 2);

test('both people see the same 60 digits', () => {
  const number = safetyNumber(crypto, alice, bob);
  assert.match(number, /^\d{60}$/);
  assert.equal(safetyNumber(crypto, bob, alice), number);
  assert.match(formatSafetyNumber(number), /^(\d{5} ){11}\d{5}$/);
});

// Computed with another implementation (Python's hashlib) from the module's comment.
test('the number never changes between versions of this software', () => {
  assert.equal(safetyNumber(crypto, alice, bob), '826379432470377153591374173755987665688185180771607561616406');
});

test('another key, name or server gives other digits on that side only', () => {
  const number = safetyNumber(crypto, alice, bob);
  for (const other of [
    { ...bob, identityKey: new Uint8Array(32).fill(3) },
    { ...bob, username: 'bobby' },
    { ...bob, origin: 'localhost:5002' },
  ]) {
    assert.notEqual(safetyNumber(crypto, alice, other), number);
  }
  // Moving a character between neighbouring fields must not help: each has its length.
  assert.notEqual(
    safetyNumber(crypto, { ...bob, origin: 'ab', username: 'cd' }, alice),
    safetyNumber(crypto, { ...bob, origin: 'abc', username: 'd' }, alice),
  );
});
