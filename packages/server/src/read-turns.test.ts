import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ReadTurns } from './read-turns.ts';

const device = (id: number) => ({ identityKey: new Uint8Array(32), deviceId: new Uint8Array(16).fill(id) });

test('a device’s reads run one by one and in order, another device’s at once; a failed one stops nobody', async () => {
  const turns = new ReadTurns();
  const begun: string[] = [];
  const first = Promise.withResolvers<string>();
  const read = (name: string, result: Promise<string>) => () => {
    begun.push(name);
    return result;
  };
  const one = turns.take(device(1), read('one', first.promise));
  const two = turns.take(device(1), read('two', Promise.reject(new Error('no disk'))));
  const three = turns.take(device(1), read('three', Promise.resolve('3')));
  assert.equal(await turns.take(device(2), read('other', Promise.resolve('4'))), '4');
  assert.deepEqual(begun, ['one', 'other']);
  first.resolve('1');
  assert.equal(await one, '1');
  await assert.rejects(two, /no disk/);
  assert.equal(await three, '3');
  assert.deepEqual(begun, ['one', 'other', 'two', 'three']);
  assert.equal(turns.size, 0);
});
