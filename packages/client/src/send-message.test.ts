// How much of an epoch's key a device uses. What happens then is in tests/absurd-numbers.test.ts.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GROUP_ENVELOPES_PER_EPOCH_MAX } from './message/index.ts';
import { epochUse } from './send-message.ts';

test('all devices together never seal more than 2^24 envelopes under one key, and begin a new epoch in time', () => {
  for (const devices of [1, 2, 3, 64, 255, 256, 1_000, 65_536]) {
    let spentAt = Math.floor(GROUP_ENVELOPES_PER_EPOCH_MAX / (devices + 1)) - 2;
    assert.notEqual(epochUse(spentAt, devices), 'spent');
    spentAt += 1;
    assert.equal(epochUse(spentAt, devices), 'spent');
    assert.ok((spentAt + 1) * devices < GROUP_ENVELOPES_PER_EPOCH_MAX);
    assert.equal(epochUse(Math.ceil(spentAt / 2) + 1, devices) === 'fresh', false);
    assert.equal(epochUse(0, devices), 'fresh');
  }
  assert.equal(epochUse(65_535, 2), 'fresh');
  assert.equal(epochUse(65_536, 2), 'update-due');
});
