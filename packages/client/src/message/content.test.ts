// Content (`qpc.content.v1`): limits are kept when building and when parsing.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, toBinary } from '@bufbuild/protobuf';
import { concat } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { ContentSchema } from '@quicprochat/proto/content';
import {
  buildContent,
  type Content,
  CONTENT_BYTES_MAX,
  contentHash,
  decodeGroupInfo,
  encodeGroupInfo,
  parseContent,
  TEXT_BYTES_MAX,
} from './content.ts';

const first: Content = {
  contentId: crypto.random(16),
  sentAtMs: 1_800_000_000_000,
  deviceCounter: 1n,
  previousHash: undefined,
  body: { kind: 'text', text: 'Grüße 👋' },
};

function build(content: Content): Uint8Array {
  const outcome = buildContent(content);
  assert.equal(
    outcome.kind,
    'built',
    JSON.stringify(outcome, (_, value: unknown) => String(value)),
  );
  return outcome.kind === 'built' ? outcome.bytes : new Uint8Array(0);
}

/** Bytes as a client without our limits would make them. */
function foreign(change: object): Uint8Array {
  const { contentId, deviceCounter } = first;
  return toBinary(
    ContentSchema,
    create(ContentSchema, {
      contentId,
      deviceCounter,
      sentAtMs: 5n,
      body: { case: 'text', value: { text: 'hi' } },
      ...change,
    }),
  );
}

test('what is built parses to itself', () => {
  const reply = { senderIdentity: crypto.random(32), contentId: crypto.random(16) };
  const contents: Content[] = [
    first,
    { ...first, deviceCounter: 2n, previousHash: contentHash(crypto, build(first)) },
    { ...first, body: { kind: 'text', text: 'yes', replyTo: reply } },
    { ...first, body: { kind: 'groupInfo', groupInfo: { version: 3n, name: 'Climbing' } } },
  ];
  for (const content of contents) assert.deepEqual(parseContent(build(content)), { kind: 'content', content });
});

test('text is limited in bytes, not characters', () => {
  const limit = TEXT_BYTES_MAX;
  build({ ...first, body: { kind: 'text', text: 'a'.repeat(limit) } });
  const refused = (text: string): unknown => buildContent({ ...first, body: { kind: 'text', text } });
  assert.deepEqual(refused('a'.repeat(limit + 1)), { kind: 'refused', reason: 'textTooLong' });
  assert.deepEqual(refused('ü'.repeat(limit / 2 + 1)), { kind: 'refused', reason: 'textTooLong' });
  assert.deepEqual(refused(''), { kind: 'refused', reason: 'emptyText' });
  const malformed = { kind: 'malformed' };
  assert.deepEqual(
    parseContent(foreign({ body: { case: 'text', value: { text: 'ü'.repeat(limit / 2 + 1) } } })),
    malformed,
  );
  assert.deepEqual(parseContent(foreign({ body: { case: 'text', value: { text: '' } } })), malformed);
});

test('a time that no calendar has is malformed', () => {
  const last = 8_640_000_000_000_000n;
  assert.equal(parseContent(foreign({ sentAtMs: last })).kind, 'content');
  assert.equal(parseContent(foreign({ sentAtMs: last + 1n })).kind, 'malformed');
  assert.equal(parseContent(foreign({ sentAtMs: 2n ** 64n - 1n })).kind, 'malformed');
});

test('group names are limited, versions start at 1', () => {
  const info = (version: bigint, name: string): unknown =>
    buildContent({ ...first, body: { kind: 'groupInfo', groupInfo: { version, name } } });
  assert.deepEqual(info(1n, 'n'.repeat(257)), { kind: 'refused', reason: 'nameTooLong' });
  assert.deepEqual(info(1n, '  '), { kind: 'refused', reason: 'emptyName' });
  assert.deepEqual(info(0n, 'name'), { kind: 'refused', reason: 'malformed' });
  assert.deepEqual(info(1n << 63n, 'name'), { kind: 'refused', reason: 'malformed' });
  const named = { version: 2n, name: 'ü'.repeat(128) };
  assert.deepEqual(decodeGroupInfo(encodeGroupInfo(named)!), named);
  assert.equal(encodeGroupInfo({ version: 1n, name: 'ü'.repeat(129) }), undefined);
  assert.equal(decodeGroupInfo(new Uint8Array(513)), undefined);
  assert.equal(decodeGroupInfo(new Uint8Array([0xff])), undefined);
  assert.equal(decodeGroupInfo(new Uint8Array(0)), undefined);
});

test('ids, hashes, counters and references of wrong size are refused', () => {
  const wrong: readonly object[] = [
    { contentId: new Uint8Array(15) },
    { contentId: new Uint8Array(0) },
    { deviceCounter: 0n },
    { deviceCounter: 2n },
    { previousHash: new Uint8Array(32) },
    { deviceCounter: 2n, previousHash: new Uint8Array(31) },
    { sentAtMs: 1n << 60n },
    { deviceCounter: 1n << 63n, previousHash: new Uint8Array(32) },
    {
      body: {
        case: 'text',
        value: { text: 'x', replyTo: { senderIdentity: new Uint8Array(31), contentId: new Uint8Array(16) } },
      },
    },
    { body: { case: 'text', value: { text: 'x', replyTo: { senderIdentity: new Uint8Array(32) } } } },
  ];
  for (const change of wrong) assert.deepEqual(parseContent(foreign(change)), { kind: 'malformed' });
  const noId = { ...first, contentId: new Uint8Array(3) };
  assert.deepEqual(buildContent(noId), { kind: 'refused', reason: 'malformed' });
});

test('a body this version does not know says so and keeps its place in the chain', () => {
  const { body: _, ...header } = first;
  const unknownField = new Uint8Array([0xfa, 0x01, 0x02, 0x08, 0x01]);
  const bytes = concat(foreign({ body: { case: undefined }, sentAtMs: BigInt(first.sentAtMs) }), unknownField);
  assert.deepEqual(parseContent(bytes), { kind: 'newer', content: header });
});

test('bytes that are no content are refused without an exception', () => {
  const malformed = { kind: 'malformed' };
  const bytes = build(first);
  for (let length = 0; length < bytes.length; length++) {
    // A proto3 prefix may parse: then a field is missing, and what is left says less, never something else.
    const outcome = parseContent(bytes.subarray(0, length));
    assert.ok(outcome.kind !== 'content' || outcome.content.body.kind === 'text');
    assert.notDeepEqual(outcome, { kind: 'content', content: first });
  }
  assert.deepEqual(parseContent(new Uint8Array(0)), malformed);
  assert.deepEqual(parseContent(new Uint8Array(CONTENT_BYTES_MAX + 1)), malformed);
  // Ill-formed UTF-8 in the text; a length of 2^31 (THREATS 27).
  const at = bytes.lastIndexOf(0xc3);
  assert.deepEqual(parseContent(bytes.with(at, 0xff)), malformed);
  assert.deepEqual(parseContent(new Uint8Array([0x0a, 0xff, 0xff, 0xff, 0xff, 0x07])), malformed);
});
