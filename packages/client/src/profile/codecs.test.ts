// qpc.channel and authenticated_data: one value, one encoding; everything else is refused (THREATS 2, 27).
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { randomBytes } from 'node:crypto';
import {
  decodeCommitAuthenticatedData,
  encodeCommitAuthenticatedData,
  encodeMessageAuthenticatedData,
  isMessageAuthenticatedData,
} from './authenticated-data.ts';
import { type ChannelExtension, decodeChannelExtension, encodeChannelExtension } from './channel-extension.ts';

const bytes = (length: number): Uint8Array => new Uint8Array(randomBytes(length));

function channel(changes: Partial<ChannelExtension> = {}): ChannelExtension {
  const admins = [bytes(32), bytes(32)].sort(Buffer.compare);
  return { channelId: bytes(16), kind: 'group', hub: '', admins, predecessor: new Uint8Array(0), ...changes };
}

test('qpc.channel comes back as it went in', () => {
  for (const value of [
    channel(),
    channel({ kind: 'direct' }),
    channel({ hub: 'chat.example.org' }),
    channel({ predecessor: bytes(32) }),
    channel({ admins: [] }),
  ]) {
    assert.deepEqual(decodeChannelExtension(encodeChannelExtension(value)), value);
  }
  // Whatever order the administrators come in, there is one encoding.
  const value = channel();
  assert.deepEqual(
    encodeChannelExtension({ ...value, admins: [...value.admins].reverse() }),
    encodeChannelExtension(value),
  );
});

test('qpc.channel: truncated, extended, unsorted, repeated, unknown: refused', () => {
  const encoded = encodeChannelExtension(channel({ hub: 'a' }));
  for (let length = 0; length < encoded.length; length++) {
    assert.equal(decodeChannelExtension(encoded.slice(0, length)), undefined, `${length} bytes`);
  }
  assert.equal(decodeChannelExtension(new Uint8Array([...encoded, 0])), undefined);
  const swap = (at: number, value: number): Uint8Array => {
    const copy = encoded.slice();
    copy[at] = value;
    return copy;
  };
  assert.equal(decodeChannelExtension(swap(0, 2)), undefined, 'version');
  assert.equal(decodeChannelExtension(swap(17, 2)), undefined, 'kind');
  assert.equal(decodeChannelExtension(swap(20, 0xff)), undefined, 'more administrators than there are');
  const [first] = channel().admins;
  assert.equal(decodeChannelExtension(encodeChannelExtension(channel({ admins: [first!, first!] }))), undefined);
  assert.equal(decodeChannelExtension(new Uint8Array(1_000_000)), undefined);
});

test('authenticated_data of a commit comes back as it went in; any other length is refused', () => {
  for (const pqCommitment of [undefined, bytes(32)]) {
    for (const checkpoint of [new Uint8Array(0), bytes(200)]) {
      const data = { channelId: bytes(16), logHash: bytes(32), pqCommitment, checkpoint };
      const encoded = encodeCommitAuthenticatedData(data);
      assert.deepEqual(decodeCommitAuthenticatedData(encoded), data);
      for (let length = 0; length < encoded.length; length++) {
        assert.equal(decodeCommitAuthenticatedData(encoded.slice(0, length)), undefined);
      }
      assert.equal(decodeCommitAuthenticatedData(new Uint8Array([...encoded, 0])), undefined);
    }
  }
});

test('authenticated_data of a message names its channel and nothing else', () => {
  const channelId = bytes(16);
  assert.ok(isMessageAuthenticatedData(encodeMessageAuthenticatedData(channelId), channelId));
  assert.ok(!isMessageAuthenticatedData(encodeMessageAuthenticatedData(bytes(16)), channelId));
  assert.ok(!isMessageAuthenticatedData(new Uint8Array(0), channelId));
  // No commit passes for a message, no message for a commit.
  const commit = encodeCommitAuthenticatedData({
    channelId,
    logHash: bytes(32),
    pqCommitment: undefined,
    checkpoint: new Uint8Array(0),
  });
  assert.ok(!isMessageAuthenticatedData(commit, channelId));
  assert.equal(decodeCommitAuthenticatedData(encodeMessageAuthenticatedData(channelId)), undefined);
});
