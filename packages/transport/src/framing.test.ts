import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { describe, test } from 'node:test';
import {
  FrameDecoder,
  type FrameVerdict,
  PAYLOAD_BYTES_MAX,
  PUSH_HEADER_BYTES,
  REQUEST_HEADER_BYTES,
  RESPONSE_HEADER_BYTES,
  encodePushHeader,
  encodeRequestHeader,
  encodeResponseHeader,
} from './framing.ts';
import { seededRandom } from './testing/random.ts';

type Seen = readonly [tag: number, requestId: number, payload: string];

class Collector {
  readonly headers: number[][] = [];
  readonly frames: Seen[] = [];
  verdict: (tag: number) => FrameVerdict = () => 'take';

  onHeader(tag: number, requestId: number, payloadBytes: number): FrameVerdict {
    this.headers.push([tag, requestId, payloadBytes]);
    return this.verdict(tag);
  }

  onFrame(tag: number, requestId: number, payload: Uint8Array): void {
    this.frames.push([tag, requestId, Buffer.from(payload).toString('latin1')]);
  }
}

function request(methodId: number, requestId: number, payload = ''): Buffer {
  const head = encodeRequestHeader(new Uint8Array(10), methodId, requestId, payload.length);
  return Buffer.concat([head, Buffer.from(payload, 'latin1')]);
}

describe('headers on the wire', () => {
  test('request: method u16, request id u32, length u32, big-endian', () => {
    const head = encodeRequestHeader(new Uint8Array(REQUEST_HEADER_BYTES), 0x0102, 0xa1b2c3d4, 5);
    assert.equal(Buffer.from(head).toString('hex'), '0102a1b2c3d400000005');
  });

  test('response: status u8, request id u32, length u32', () => {
    const head = encodeResponseHeader(new Uint8Array(RESPONSE_HEADER_BYTES), 14, 0xffffffff, 0x400000);
    assert.equal(Buffer.from(head).toString('hex'), '0effffffff00400000');
  });

  test('push: event u16, length u32', () => {
    const head = encodePushHeader(new Uint8Array(PUSH_HEADER_BYTES), 0xfffe, 7);
    assert.equal(Buffer.from(head).toString('hex'), 'fffe00000007');
  });

  test('a number that is not a u32 is refused, not truncated', () => {
    for (const id of [-1, 2 ** 32, Number.NaN]) {
      assert.throws(() => encodeRequestHeader(new Uint8Array(10), 1, id, 0), RangeError);
    }
  });
});

describe('decoder', () => {
  test('decodes each kind of frame', () => {
    const response = new Collector();
    new FrameDecoder('response', response).push(
      Buffer.concat([encodeResponseHeader(new Uint8Array(9), 3, 77, 2), Buffer.from('no')]),
    );
    assert.deepEqual(response.frames, [[3, 77, 'no']]);
    const push = new Collector();
    new FrameDecoder('push', push).push(
      Buffer.concat([encodePushHeader(new Uint8Array(6), 0x1234, 3), Buffer.from('abc')]),
    );
    assert.deepEqual(push.frames, [[0x1234, 0, 'abc']]);
  });

  test('however the bytes are cut, the frames are the same', () => {
    const seed = randomInt(2 ** 31);
    const random = seededRandom(seed);
    const sent: Seen[] = [];
    const wire: Buffer[] = [];
    for (let i = 0; i < 200; i += 1) {
      const length = random() < 0.3 ? 0 : Math.floor(random() ** 4 * 40_000);
      const payload = String.fromCharCode(65 + (i % 26)).repeat(length);
      sent.push([1 + (i % 900), i, payload]);
      wire.push(request(1 + (i % 900), i, payload));
    }
    const bytes = Buffer.concat(wire);
    for (let round = 0; round < 20; round += 1) {
      const seen = new Collector();
      const decoder = new FrameDecoder('request', seen);
      const longest = 1 + Math.floor(random() ** 3 * 60_000);
      for (let at = 0; at < bytes.length;) {
        const n = 1 + Math.floor(random() * longest);
        assert.equal(decoder.push(bytes.subarray(at, at + n)), 'open');
        at += n;
      }
      assert.equal(decoder.midFrame, false);
      assert.deepEqual(seen.frames, sent, `seed ${seed}, round ${round}`);
    }
  });

  test('a whole frame is handed on without a copy', () => {
    const chunk = request(5, 6, 'payload');
    let payload: Uint8Array | undefined;
    const decoder = new FrameDecoder('request', {
      onHeader: () => 'take',
      onFrame: (_tag, _id, bytes) => {
        payload = bytes;
      },
    });
    decoder.push(chunk);
    assert.equal(payload?.buffer, chunk.buffer);
    assert.equal(payload?.byteOffset, chunk.byteOffset + REQUEST_HEADER_BYTES);
  });

  test('4 MiB is accepted, one byte more is not, before anything is kept', () => {
    const seen = new Collector();
    const decoder = new FrameDecoder('request', seen);
    assert.equal(decoder.push(encodeRequestHeader(new Uint8Array(10), 1, 1, PAYLOAD_BYTES_MAX)), 'open');
    assert.deepEqual(seen.headers, [[1, 1, PAYLOAD_BYTES_MAX]]);
    for (const length of [PAYLOAD_BYTES_MAX + 1, 0x80000000, 0xffffffff]) {
      const sink = new Collector();
      const strict = new FrameDecoder('request', sink);
      assert.equal(strict.push(encodeRequestHeader(new Uint8Array(10), 1, 1, length)), 'oversized');
      assert.equal(strict.push(request(1, 2, 'more')), 'oversized');
      assert.deepEqual([sink.headers, sink.frames, strict.bufferedBytes], [[], [], 0]);
    }
  });

  test('a decoder may have a lower limit', () => {
    const decoder = new FrameDecoder('request', new Collector(), 3);
    assert.equal(decoder.push(request(1, 1, 'abc')), 'open');
    assert.equal(decoder.push(request(1, 2, 'abcd')), 'oversized');
  });

  test('THREATS 27: a lying length costs its sender more than us', () => {
    const decoder = new FrameDecoder('request', new Collector());
    decoder.push(encodeRequestHeader(new Uint8Array(10), 1, 1, PAYLOAD_BYTES_MAX));
    assert.equal(decoder.bufferedBytes, 0);
    decoder.push(new Uint8Array(1));
    assert.ok(decoder.bufferedBytes <= 16 * 1024);
    for (let sent = 1; sent < 1024 * 1024; sent += 16 * 1024) {
      decoder.push(new Uint8Array(16 * 1024));
      assert.ok(decoder.bufferedBytes <= 2 * (sent + 16 * 1024) + 16 * 1024, `${sent}`);
    }
  });

  test('a skipped payload is never kept, and the next frame is found', () => {
    const seen = new Collector();
    seen.verdict = (tag) => (tag === 9 ? 'skip' : 'take');
    const decoder = new FrameDecoder('request', seen);
    const bytes = Buffer.concat([request(9, 1, 'x'.repeat(5000)), request(8, 2, 'kept')]);
    for (let at = 0; at < bytes.length; at += 100) {
      decoder.push(bytes.subarray(at, at + 100));
      if (at < 4900) assert.equal(decoder.bufferedBytes, 0);
    }
    assert.deepEqual(seen.frames, [[8, 2, 'kept']]);
  });

  test('a frame in progress can be given up', () => {
    const seen = new Collector();
    const decoder = new FrameDecoder('request', seen);
    const first = request(1, 1, 'abcdefgh');
    decoder.push(first.subarray(0, 14));
    decoder.skipCurrent();
    assert.equal(decoder.bufferedBytes, 0);
    decoder.push(Buffer.concat([first.subarray(14), request(2, 2, 'next')]));
    assert.deepEqual(seen.frames, [[2, 2, 'next']]);
  });

  test('stop ends it in the middle of a chunk', () => {
    const seen = new Collector();
    seen.verdict = (tag) => (tag === 2 ? 'stop' : 'take');
    const decoder = new FrameDecoder('request', seen);
    const chunk = Buffer.concat([request(1, 1, 'a'), request(2, 2, 'b'), request(3, 3, 'c')]);
    assert.equal(decoder.push(chunk), 'stopped');
    assert.equal(decoder.push(request(4, 4, 'd')), 'stopped');
    assert.deepEqual(seen.frames, [[1, 1, 'a']]);
  });

  test('a truncated frame is visible in every position', () => {
    const frame = request(1, 1, 'abc');
    for (let cut = 0; cut <= frame.length; cut += 1) {
      const decoder = new FrameDecoder('request', new Collector());
      decoder.push(frame.subarray(0, cut));
      assert.equal(decoder.midFrame, cut > 0 && cut < frame.length, `cut at ${cut}`);
    }
  });
});
