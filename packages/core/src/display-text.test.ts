import assert from 'node:assert/strict';
import { test } from 'node:test';
import { displayText } from './display-text.ts';

test('THREATS 28: escape sequences leave nothing behind', () => {
  const cases: [string, string][] = [
    ['\u001b[31mred\u001b[0m', 'red'],
    ['\u001b]0;new title\u0007after', 'after'],
    ['\u001b]8;;http://evil\u001b\\link\u001b]8;;\u001b\\', 'link'],
    ['\u001bP1$tx\u001b\\dcs', 'dcs'],
    ['\u009b2Jclear', 'clear'],
    ['\u009d0;title\u009cafter', 'after'],
    ['\u001bcreset', 'reset'],
    ['\u001b(0lines', 'lines'],
    ['unfinished\u001b[', 'unfinished'],
    ['bell\u0007 back\u0008space del\u007f nul\u0000', 'bell backspace del nul'],
    ['a\u001b\u001b[31mb', 'ab'],
  ];
  for (const [input, output] of cases) assert.equal(displayText(input), output, JSON.stringify(input));
});

test('no control character survives, whatever comes between', () => {
  for (let code = 0; code < 0xa0; code++) {
    const control = code < 0x20 || code >= 0x7f;
    const shown = displayText(`x${String.fromCharCode(code)}[2Jy`, { multiline: true });
    if (!control) continue;
    // oxlint-disable-next-line no-control-regex -- the test looks for control characters
    assert.doesNotMatch(shown, /[\x00-\x09\x0b-\x1f\x7f-\x9f]/, `code ${code}`);
  }
});

test('bidirectional overrides and invisible characters go, scripts and emoji stay', () => {
  assert.equal(displayText('user\u202Egpj.exe'), 'usergpj.exe');
  assert.equal(displayText('\u2066a\u2069\u200f\u061cb\ufeff\u200b'), 'ab');
  assert.equal(displayText('a\u{e0041}b'), 'ab');
  for (const text of ['שלום', 'مرحبا', 'नमस्ते', 'e\u0301', '👩‍👩‍👧', '👍🏽', '日本語']) assert.equal(displayText(text), text);
});

test('a name cannot start a line of its own; a message may', () => {
  assert.equal(displayText('alice\r\n[server] hello\tthere'), 'alice [server] hello there');
  assert.equal(displayText('one\r\ntwo\rthree\u2028four', { multiline: true }), 'one\ntwo\nthree\nfour');
});

test('broken and overlong text is shown as far as it goes', () => {
  assert.equal(displayText('a\ud800b'), 'a\ufffdb');
  assert.equal(displayText('👍👍👍', { charsMax: 2 }), '👍👍…');
  assert.equal(displayText('👍👍', { charsMax: 2 }), '👍👍');
});

test('hostile input takes linear time', () => {
  const started = performance.now();
  displayText('\u001b]'.repeat(50_000));
  displayText(`\u001b[${'0'.repeat(100_000)}`);
  displayText(`\u001b[${' '.repeat(100_000)}`.repeat(3));
  assert.ok(performance.now() - started < 1_000);
});
