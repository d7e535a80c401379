import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { decodeBase64Url, encodeBase64Url } from './base64url.ts';

test('agrees with Node for every length', () => {
  for (let length = 0; length < 100; length++) {
    const bytes = new Uint8Array(randomBytes(length));
    const text = Buffer.from(bytes).toString('base64url');
    assert.equal(encodeBase64Url(bytes), text);
    assert.deepEqual(decodeBase64Url(text), bytes);
  }
});

test('refuses padding, other alphabets, impossible lengths and stray bits', () => {
  for (const text of ['AA==', 'A', 'AB', 'AAB', 'A+AA', 'A/AA', 'AA A', 'AAAA\n', 'é']) {
    assert.equal(decodeBase64Url(text), undefined, text);
  }
});
