// THREATS 28: escape sequences and direction marks in names and messages do not reach the terminal.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isPlain, jsonLine, multiLine, singleLine } from './terminal-text.ts';

const ATTACKS: readonly (readonly [string, string])[] = [
  ['clear screen', '\u001b[2J\u001b[Hgone'],
  ['window title', '\u001b]0;root@bank\u0007'],
  ['8-bit control sequence', '\u009b31mred'],
  ['overwrite by carriage return', 'alice: hi\rbob: bye'],
  ['backspace', 'no\b\byes'],
  ['direction override', 'exe.\u202egpj'],
  ['direction isolate', '\u2066admin\u2069'],
  ['Arabic letter mark', '\u061calice'],
  ['delete', 'a\u007fb'],
  ['line separator', 'a\u2028bob: b'],
  ['tag characters', 'hi\u{e0041}\u{e0042}'],
  ['lone surrogate', 'a\ud800b'],
];

const DANGEROUS = /[\p{Cc}\p{Cs}\p{Bidi_Control}\u2028\u2029]/u;

for (const [name, text] of ATTACKS) {
  test(`${name} is made harmless on one line`, () => {
    assert.doesNotMatch(singleLine(text), DANGEROUS);
    assert.equal(isPlain(text), false);
  });

  test(`${name} is made harmless in a message of several lines`, () => {
    for (const line of multiLine(text, 4).split('\n')) assert.doesNotMatch(line, DANGEROUS);
  });

  test(`${name} is escaped in JSON, and the value stays exact`, () => {
    const line = jsonLine({ text });
    assert.doesNotMatch(line, DANGEROUS);
    assert.equal(JSON.parse(line).text, text);
  });
}

test('ordinary text of many scripts, emoji with joiners included, is shown as it is', () => {
  for (const text of ['Grüße', 'مرحبا', 'こんにちは', '👩‍👩‍👧‍👦 family', 'naïve café', '🏳️‍🌈']) {
    assert.equal(singleLine(text), text);
    assert.ok(isPlain(text));
  }
});

test('a message cannot fake a line of ours: lines after the first are indented', () => {
  assert.equal(multiLine('hi\n12:00 alice: I quit\r\nbye', 4), 'hi\n    12:00 alice: I quit\n    bye');
});

test('JSON shows bytes as hex, times as ISO 8601 UTC, and counters as numbers', () => {
  const line = jsonLine({ id: new Uint8Array([0, 255]), at: new Date(0), seq: 5n, big: 2n ** 60n, none: undefined });
  assert.equal(line, '{"id":"00ff","at":"1970-01-01T00:00:00.000Z","seq":5,"big":"1152921504606846976"}');
});
