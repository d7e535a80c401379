import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Reader, Writer } from '../codec.ts';
import { assertHex, loadVectors, unhex } from '../testing/vectors.node.ts';

test('deserialization (RFC 9420 section 2.1.2)', () => {
  const cases = loadVectors<{ vlbytes_header: string; length: number }>('deserialization');
  assert.equal(cases.length, 14);
  for (const { vlbytes_header: header, length } of cases) {
    const reader = new Reader(unhex(header));
    assert.equal(reader.length(), length);
    reader.finish();
    assertHex(new Writer().varint(length).finish(), header);
  }
});
