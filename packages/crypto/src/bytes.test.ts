import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import {
  bigIntToBytes,
  bytesToBigInt,
  compare,
  concat,
  decodeHex,
  decodeUtf8,
  EMPTY,
  encodeHex,
  encodeUtf8,
  equal,
  readU16,
  readU32,
  readU64,
  u16,
  u32,
  u64,
} from './bytes.ts';

const bytes = (...values: number[]): Uint8Array => new Uint8Array(values);

suite('bytes', () => {
  test('concat joins in order and copies', () => {
    const part = bytes(1, 2);
    const joined = concat(part, EMPTY, bytes(3));
    assert.deepEqual(joined, bytes(1, 2, 3));
    part[0] = 9;
    assert.deepEqual(joined, bytes(1, 2, 3));
    assert.deepEqual(concat(), EMPTY);
  });

  test('equal and compare look at every byte and at the length', () => {
    assert.ok(equal(bytes(1, 2), bytes(1, 2)));
    assert.ok(!equal(bytes(1, 2), bytes(1, 3)));
    assert.ok(!equal(bytes(1, 2), bytes(1, 2, 0)));
    const sorted = [bytes(2), bytes(1, 0xff), bytes(1), EMPTY, bytes(0x80)].sort(compare);
    assert.deepEqual(sorted, [EMPTY, bytes(1), bytes(1, 0xff), bytes(2), bytes(0x80)]);
  });

  test('hex goes both ways and refuses everything else', () => {
    assert.equal(encodeHex(bytes(0, 0x0f, 0xa0, 0xff)), '000fa0ff');
    assert.equal(encodeHex(bytes(9, 1, 2, 9).subarray(1, 3)), '0102');
    assert.equal(encodeHex(EMPTY), '');
    assert.deepEqual(decodeHex('000fA0Ff'), bytes(0, 0x0f, 0xa0, 0xff));
    assert.deepEqual(decodeHex(''), EMPTY);
    for (const bad of ['0', '0g', 'g0', '0x', ' 00', '00 ', '0/', '0:', '0@', '0G', '0`', '++', '-1', '٣٤']) {
      assert.equal(decodeHex(bad), undefined, bad);
    }
  });

  test('UTF-8 is strict and keeps a byte order mark', () => {
    const text = '\ufeffGrüße, 世界 🙂';
    assert.equal(decodeUtf8(encodeUtf8(text)), text);
    for (const bad of [bytes(0x80), bytes(0xc0, 0x80), bytes(0xed, 0xa0, 0x80), bytes(0xf0, 0x9f)]) {
      assert.equal(decodeUtf8(bad), undefined);
    }
  });

  test('integers are big-endian and read within their view only', () => {
    assert.deepEqual(u16(0x0102), bytes(1, 2));
    assert.deepEqual(u32(0xfffefdfc), bytes(0xff, 0xfe, 0xfd, 0xfc));
    assert.deepEqual(u64(2n ** 64n - 2n), bytes(255, 255, 255, 255, 255, 255, 255, 254));
    const inner = concat(bytes(9), u16(0xffee), u32(0xfffefdfc), u64(2n ** 63n), bytes(9)).subarray(1, 15);
    assert.equal(readU16(inner), 0xffee);
    assert.equal(readU32(inner, 2), 0xfffefdfc);
    assert.equal(readU64(inner, 6), 2n ** 63n);
    assert.throws(() => readU16(inner, 13), RangeError);
    assert.throws(() => readU32(inner, 11), RangeError);
    assert.throws(() => readU64(inner, 7), RangeError);
  });

  test('bigints have a fixed length', () => {
    assert.equal(bytesToBigInt(bytes(0, 1, 0)), 256n);
    assert.equal(bytesToBigInt(EMPTY), 0n);
    assert.deepEqual(bigIntToBytes(256n, 3), bytes(0, 1, 0));
    assert.throws(() => bigIntToBytes(256n, 1), RangeError);
    assert.throws(() => bigIntToBytes(-1n, 1), RangeError);
  });
});
