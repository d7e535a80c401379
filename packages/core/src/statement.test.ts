import assert from 'node:assert/strict';
import { test } from 'node:test';
import { concat } from '@quicprochat/crypto';
import { Misuse } from './errors.ts';
import { exactly, FieldReader, lengthPrefixed, lengthPrefixedText } from './statement.ts';

test('reading past the end is remembered and never throws', () => {
  const reader = new FieldReader(new Uint8Array([0, 0, 1]));
  assert.equal(reader.u64(), 0n);
  assert.deepEqual(reader.take(3), new Uint8Array(3), 'nothing is given out after a failure');
  assert.equal(reader.complete, false);
});

test('THREATS 27: a length byte larger than what follows allocates nothing beyond 255 bytes and fails', () => {
  const reader = new FieldReader(new Uint8Array([255, 1, 2]));
  assert.equal(reader.short().length, 255);
  assert.equal(reader.complete, false);
});

test('only canonical flags, times and text are complete', () => {
  const complete = (bytes: number[], read: (reader: FieldReader) => unknown): boolean => {
    const reader = new FieldReader(new Uint8Array(bytes));
    read(reader);
    return reader.complete;
  };
  assert.ok(complete([1], (r) => r.flag()));
  assert.ok(!complete([2], (r) => r.flag()));
  assert.ok(complete([0, 0x1f, 255, 255, 255, 255, 255, 255], (r) => r.time()));
  assert.ok(!complete([0, 0x20, 0, 0, 0, 0, 0, 0], (r) => r.time()));
  assert.ok(complete([2, 0xc3, 0xa4], (r) => r.text()));
  assert.ok(!complete([2, 0xc3, 0x28], (r) => r.text()), 'not UTF-8');
  assert.ok(!complete([1, 65, 66], (r) => r.text()), 'bytes left over');
});

test('a reader says how far it got, and is complete no more once a value is refused', () => {
  const reader = new FieldReader(new Uint8Array([1, 2, 3]));
  assert.equal(reader.u16(), 0x0102);
  assert.equal(reader.position, 2);
  assert.equal(reader.u8(), 3);
  assert.ok(reader.complete);
  reader.refuse();
  assert.ok(!reader.complete);
});

test('a boundary between two texts is part of what is signed', () => {
  assert.notDeepEqual(
    concat(lengthPrefixedText('ab'), lengthPrefixedText('c')),
    concat(lengthPrefixedText('a'), lengthPrefixedText('bc')),
  );
  assert.throws(() => lengthPrefixed(new Uint8Array(256)), Misuse);
  assert.throws(() => exactly(new Uint8Array(31), 32, 'an identity key'), /32 bytes, not 31/);
});
