// Padding (PROTOCOL section 4, THREATS 14): the server sees buckets, and a payload has one padded form only.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Misuse } from '@quicprochat/core';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { DIRECT_OVERHEAD } from './envelope-direct.ts';
import { GROUP_OVERHEAD, openGroup, sealGroup } from './envelope-group.ts';
import { SHARED_OVERHEAD } from './envelope-shared.ts';
import { ENVELOPE_BYTES_MAX, EnvelopeType, PayloadKind } from './envelope.ts';
import { bodyBytesMax, bucketFor, pad, unpad } from './padding.ts';

const KIB = 1024;
const OVERHEADS = [
  [DIRECT_OVERHEAD, EnvelopeType.Direct, PayloadKind.Welcome],
  [SHARED_OVERHEAD, EnvelopeType.Shared, PayloadKind.Welcome],
  [GROUP_OVERHEAD, EnvelopeType.Group, PayloadKind.Application],
] as const;

function isBucket(length: number): boolean {
  if (length > 64 * KIB) return length % (64 * KIB) === 0;
  return length >= 512 && Number.isInteger(Math.log2(length));
}

test('every length has the smallest bucket that holds it', () => {
  for (let length = 0; length <= 300 * KIB; length++) {
    const bucket = bucketFor(length);
    assert.ok(isBucket(bucket) && bucket >= length, `${length} → ${bucket}`);
    const below = bucket > 64 * KIB ? bucket - 64 * KIB : bucket / 2;
    assert.ok(below < length || bucket === 512, `${length} → ${bucket}`);
  }
});

test('whole envelopes fill buckets at every body length around every boundary', () => {
  const boundaries = [0, 512, 1, 2, 4, 8, 16, 32, 64, 128, 192].map((n) => (n < 500 ? n * KIB : n));
  for (const [overhead, type, kind] of OVERHEADS) {
    const lengths = boundaries.flatMap((boundary) => [-2, -1, 0, 1, 2].map((d) => boundary - overhead - 5 + d));
    for (const length of lengths.filter((candidate) => candidate >= 0)) {
      const body = new Uint8Array(length).fill(0xaa);
      const plaintext = pad(kind, body, overhead);
      assert.equal(plaintext.length + overhead, bucketFor(overhead + 5 + length));
      assert.deepEqual(unpad(plaintext, overhead, type), { kind: 'opened', payloadKind: kind, body });
    }
  }
});

test('sealed envelopes of random sizes fill buckets and open to what was sealed', (t) => {
  const seed = Number(process.env['TEST_SEED'] ?? Date.now()) >>> 0;
  t.diagnostic(`TEST_SEED=${seed}`);
  let state = seed;
  const key = crypto.random(32);
  const channelId = crypto.random(16);
  for (let round = 0; round < 300; round++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const body = crypto.random(state % (round < 250 ? 8 * KIB : 400 * KIB));
    const group = { key, position: BigInt(round), channelId };
    const envelope = sealGroup({ crypto, random: crypto.random }, group, PayloadKind.Application, body);
    assert.ok(isBucket(envelope.length));
    assert.deepEqual(openGroup(crypto, group, envelope), {
      kind: 'opened',
      payloadKind: PayloadKind.Application,
      body,
    });
  }
});

test('the longest body fits the largest envelope, one byte more is refused', () => {
  for (const [overhead, , kind] of OVERHEADS) {
    const length = bodyBytesMax(overhead);
    assert.equal(pad(kind, new Uint8Array(length), overhead).length + overhead, ENVELOPE_BYTES_MAX);
    assert.throws(() => pad(kind, new Uint8Array(length + 1), overhead), Misuse);
  }
});

test('padding that is not zero is refused wherever it stands', () => {
  const body = new Uint8Array([1, 2, 3]);
  const plaintext = pad(PayloadKind.Application, body, GROUP_OVERHEAD);
  for (let i = 5 + body.length; i < plaintext.length; i++) {
    const changed = plaintext.slice();
    changed[i] = 0x80;
    assert.deepEqual(unpad(changed, GROUP_OVERHEAD, EnvelopeType.Group), { kind: 'refused', reason: 'padding' });
  }
});

test('a length that lies is refused, and allocates nothing (THREATS 27)', () => {
  const plaintext = pad(PayloadKind.Application, new Uint8Array(3), GROUP_OVERHEAD);
  for (const length of [plaintext.length - 4, 0x7fff_ffff, 0xffff_ffff]) {
    const changed = plaintext.slice();
    new DataView(changed.buffer).setUint32(1, length);
    assert.deepEqual(unpad(changed, GROUP_OVERHEAD, EnvelopeType.Group), { kind: 'refused', reason: 'padding' });
  }
  for (let length = 0; length < 5; length++) {
    const outcome = unpad(plaintext.subarray(0, length), GROUP_OVERHEAD, EnvelopeType.Group);
    assert.deepEqual(outcome, { kind: 'refused', reason: 'padding' });
  }
});

test('more or less padding than the bucket asks for is refused', () => {
  const short = pad(PayloadKind.Application, new Uint8Array(600), GROUP_OVERHEAD);
  const refused = { kind: 'refused', reason: 'padding' };
  const roomy = new Uint8Array(2 * KIB - GROUP_OVERHEAD);
  roomy.set(short);
  assert.deepEqual(unpad(roomy, GROUP_OVERHEAD, EnvelopeType.Group), refused);
  assert.deepEqual(unpad(short.subarray(0, -1), GROUP_OVERHEAD, EnvelopeType.Group), refused);
  assert.deepEqual(unpad(short.subarray(0, 605), GROUP_OVERHEAD, EnvelopeType.Group), refused);
});
