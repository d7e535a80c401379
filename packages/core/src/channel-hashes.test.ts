import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { encodeHex, encodeUtf8 } from '@quicprochat/crypto';
import { createHash } from 'node:crypto';
import { logHashGenesis, logHashNext, rosterHash } from './channel-hashes.ts';

const channelId = Uint8Array.from({ length: 16 }, (_, i) => i);
const payloadHash = crypto.hash('sha256', encodeUtf8('payload'));

test('the hashes are what the protocol says, written out by hand', () => {
  const genesis = createHash('sha256').update('qpc/v1/log-genesis').update(channelId).digest('hex');
  assert.equal(encodeHex(logHashGenesis(crypto, channelId)), genesis);
  const first = createHash('sha256')
    .update(Buffer.from(genesis, 'hex'))
    .update(Buffer.from('0000000000000001', 'hex'))
    .update(payloadHash)
    .digest('hex');
  assert.equal(encodeHex(logHashNext(crypto, logHashGenesis(crypto, channelId), 1n, payloadHash)), first);
});

test('THREATS 33: another channel, order, position or payload gives another log hash', () => {
  const genesis = logHashGenesis(crypto, channelId);
  const one = logHashNext(crypto, genesis, 1n, payloadHash);
  const otherHash = crypto.hash('sha256', encodeUtf8('other'));
  assert.notDeepEqual(logHashGenesis(crypto, crypto.random(16)), genesis);
  assert.notDeepEqual(logHashNext(crypto, genesis, 2n, payloadHash), one);
  assert.notDeepEqual(logHashNext(crypto, genesis, 1n, otherHash), one);
  assert.notDeepEqual(
    logHashNext(crypto, logHashNext(crypto, genesis, 1n, otherHash), 2n, payloadHash),
    logHashNext(crypto, one, 2n, otherHash),
  );
});

test('the roster hash does not depend on order, but on every member', () => {
  const roster = Array.from({ length: 5 }, () => ({ identityKey: crypto.random(32), deviceId: crypto.random(16) }));
  const hash = rosterHash(crypto, roster);
  assert.deepEqual(rosterHash(crypto, roster.toReversed()), hash);
  assert.notDeepEqual(rosterHash(crypto, roster.slice(1)), hash);
  assert.notDeepEqual(rosterHash(crypto, []), hash);
});
