import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { type BatchEnqueueRequest, BatchEnqueueRequestSchema } from '@quicprochat/proto';
import { FIELDS_MAX, fieldsWithin } from './field-count.ts';

const recipient = () => ({
  address: { identityKey: new Uint8Array(32), deviceId: new Uint8Array(16) },
  wrap: new Uint8Array(100),
});

const request = (recipients: number) =>
  toBinary(
    BatchEnqueueRequestSchema,
    create(BatchEnqueueRequestSchema, {
      payload: new Uint8Array(1_000_000),
      recipients: Array.from({ length: recipients }, recipient),
    }),
  );

test('the largest honest request is within the bound; what is in bytes fields costs nothing', () => {
  assert.ok(fieldsWithin(BatchEnqueueRequestSchema, request(10_000)));
  assert.ok(!fieldsWithin(BatchEnqueueRequestSchema, request(14_000)));
});

test('every field counts, exactly: the message’s own and those of nested messages', () => {
  const bytes = request(3);
  // Payload, and three times recipient, address, its two keys, wrap.
  assert.ok(fieldsWithin(BatchEnqueueRequestSchema, bytes, 16));
  assert.ok(!fieldsWithin(BatchEnqueueRequestSchema, bytes, 15));
});

const hex = (text: string) => Buffer.from(text, 'hex');

test('THREATS 27: two bytes a field: empty recipients, unknown fields, groups, and the same inside a recipient', () => {
  const pieces = ['2200', '7800', '7a00', '7b7c', '7b', '220422002200'];
  for (const piece of pieces) {
    const bytes = hex(piece.repeat((4 * FIELDS_MAX * 2) / piece.length));
    assert.ok(!fieldsWithin(BatchEnqueueRequestSchema, bytes), piece);
  }
});

test('THREATS 27: lying lengths and endless varints are not within it', () => {
  for (const start of [
    '2affffffff0f',
    '2affffffff07',
    '2a80808080808080808080',
    '220400',
    '220a0affff',
    '790000',
    '7d0000',
  ]) {
    assert.ok(!fieldsWithin(BatchEnqueueRequestSchema, hex(start), 1), start);
  }
});

test('the decoder never finds more than the counter allowed', () => {
  const base = toBinary(
    BatchEnqueueRequestSchema,
    create(BatchEnqueueRequestSchema, {
      channelId: new Uint8Array(16).fill(9),
      ttlSecs: 5,
      recipients: Array.from({ length: 20 }, recipient),
    }),
  );
  let decoded = 0;
  for (let i = 0; i < 20_000; i++) {
    const [at, value] = [randomBytes(2).readUInt16BE() % base.length, randomBytes(1)[0]!];
    const mutated = base.with(at, value);
    let request: BatchEnqueueRequest;
    try {
      request = fromBinary(BatchEnqueueRequestSchema, mutated);
    } catch {
      continue;
    }
    decoded++;
    const messages = [request, ...request.recipients, ...request.recipients.flatMap((each) => each.address ?? [])];
    const unknown = messages.reduce((sum, message) => sum + (message.$unknown?.length ?? 0), 0);
    const found = request.recipients.length + unknown;
    assert.ok(!fieldsWithin(BatchEnqueueRequestSchema, mutated, found - 1), `${at} ${value}`);
  }
  assert.ok(decoded > 1_000, String(decoded));
});
