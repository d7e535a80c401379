/** Writers share their buffers one after the other; what one gives out is never touched by another. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Writer } from './codec.ts';
import { seeded, testSeed } from './testing/world.node.ts';

test('writers at the same time, within one another, growing, given up and failing do not see each other', () => {
  const random = seeded(testSeed('codec'));
  const open: { writer: Writer; wrote: number[] }[] = [];
  const given: { bytes: Uint8Array; wrote: number[] }[] = [];
  const write = ({ writer, wrote }: (typeof open)[number]): void => {
    const length = random.pick([0, 1, 30, 63, 64, 3000, 8191, 8192, 8193, 20_000]);
    const bytes = new Uint8Array(length).fill(1 + random.below(255));
    if (random.below(4) === 0) {
      writer.zeros(length);
      for (let i = 0; i < length; i++) wrote.push(0);
    } else if (random.below(3) === 0) {
      const inner = [...bytes.subarray(0, 40)];
      writer.vector(inner, (w, byte) => w.u8(byte));
      wrote.push(inner.length, ...inner);
    } else {
      writer.bytes(bytes);
      for (const byte of bytes) wrote.push(byte);
    }
  };
  const same = (bytes: Uint8Array, wrote: readonly number[]): void =>
    assert.ok(Buffer.from(wrote).equals(bytes), 'not what was written');

  for (let step = 0; step < 3000; step++) {
    const at = random.below(open.length + 1);
    const entry = open[at];
    if (entry === undefined || (open.length < 12 && random.below(3) === 0)) {
      open.push({ writer: new Writer(random.pick([0, 0, 0, 64, 8192, 8193])), wrote: [] });
    } else if (random.below(2) === 0) {
      write(entry);
    } else {
      open.splice(at, 1);
      const { writer, wrote } = entry;
      const how = random.below(4);
      if (how === 0) {
        const bytes = writer.finish();
        same(bytes, wrote);
        given.push({ bytes, wrote });
        // Begins anew.
        open.push({ writer, wrote: [] });
      } else if (how === 1) {
        writer.finishInto((bytes) => {
          const nested = { writer: new Writer(), wrote: [] };
          write(nested);
          same(nested.writer.finish(), nested.wrote);
          same(bytes, wrote);
        });
      } else if (how === 2) {
        const fail = (): never => {
          throw new RangeError('refused');
        };
        assert.throws(() => writer.finishInto(fail), RangeError);
      }
      // Else it is left as it is.
    }
    if (given.length > 50) {
      const { bytes, wrote } = given.splice(random.below(50), 1)[0]!;
      same(bytes, wrote);
    }
  }
  for (const { bytes, wrote } of given) same(bytes, wrote);
});
