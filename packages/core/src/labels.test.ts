import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeUtf8, equal } from '@quicprochat/crypto';
import { ExporterLabel, Label } from './labels.ts';

const all = [...Object.entries(Label), ...Object.entries(ExporterLabel).map(([n, t]) => [n, encodeUtf8(t)] as const)];

test('THREATS 22: no two contexts share a label, and none begins with another', () => {
  assert.ok(all.length > 10);
  for (const [oneName, one] of all) {
    for (const [otherName, other] of all) {
      if (one === other) continue;
      assert.ok(
        !equal(one, other.subarray(0, one.length)),
        `${oneName} is the beginning of ${otherName}, or the same label`,
      );
    }
  }
});

test('labels are printable ASCII under one prefix', () => {
  for (const [name, label] of all) {
    const text = new TextDecoder().decode(label);
    assert.match(text, /^qpc\/v1\/[a-z0-9-]+$/, name);
  }
});
