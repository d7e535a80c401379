import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pack } from './arena.ts';

test('every byte array becomes a view of one buffer, the rest stays as it is', () => {
  const frame = new Uint8Array(65_536).fill(9);
  const value = {
    id: 5,
    name: 'x',
    none: undefined,
    nil: null,
    address: { key: frame.subarray(10, 42) },
    list: [new Uint8Array([1, 2]), 'y', [new Uint8Array(0)]],
  };
  const { value: packed, arena } = pack(value);
  assert.deepEqual(packed, { ...value, address: { key: new Uint8Array(32).fill(9) } });
  assert.equal(arena?.byteLength, 34);
  assert.equal(packed.address.key.buffer, arena);
  frame.fill(0);
  assert.equal(packed.address.key[0], 9, 'a copy');
});

test('a value without bytes passes unchanged', () => {
  const value = { kind: 'created' };
  assert.deepEqual(pack(value), { value, arena: undefined });
});
