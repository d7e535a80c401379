// Reports reach the operator and nobody else, whole or not at all, and say which device made them.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AeadId, concat, createHpke, KdfId, KemId } from '@quicprochat/crypto';
import { nobleCrypto } from '@quicprochat/crypto/noble';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { BadInput } from './errors.ts';
import { generateSigningKey } from './identity.ts';
import { Label } from './labels.ts';
import {
  generateReportKey,
  isReportKey,
  openReport,
  REPORT_KEY_BYTES,
  reportKeyId,
  reportPublicKey,
  sealReport,
} from './report.ts';
import type { OpenReport } from './report.ts';
import { lengthPrefixedText } from './statement.ts';

const operator = generateReportKey(crypto);
const device = generateSigningKey(crypto);
const channelId = crypto.random(16);
const origin = 'chat.example.org';
const content = {
  reporterUsername: 'alice',
  reporter: { identityKey: crypto.random(32), deviceId: crypto.random(16) },
  reportedAtMs: 1_700_000_000_000,
  reason: 'sells umbrellas',
  messages: [message('umbrella?')],
};

function message(text: string) {
  return {
    senderUsername: 'mallory',
    senderIdentity: crypto.random(32),
    contentId: crypto.random(16),
    sentAtMs: 1_699_999_999_000,
    text,
  };
}

const seal = (change: Partial<Parameters<typeof sealReport>[1]> = {}) =>
  sealReport(crypto, {
    reportKey: operator.publicKey,
    origin,
    channelId,
    content,
    devicePrivateKey: device.privateKey,
    ...change,
  });
const opening = (report: Uint8Array): OpenReport => ({
  reportPrivateKey: operator.privateKey,
  origin,
  channelId,
  report,
});

test('the operator reads it, and sees whose device made it', () => {
  for (const reader of [crypto, nobleCrypto]) {
    const opened = openReport(reader, opening(seal()));
    assert.ok(opened.kind === 'opened');
    assert.deepEqual(opened.content, content);
    assert.equal(opened.isSignedBy(device.publicKey), true);
    assert.equal(opened.isSignedBy(generateSigningKey(crypto).publicKey), false);
  }
});

test('another key, another server, another conversation and every changed byte are refused', () => {
  const report = seal();
  const other = generateReportKey(crypto);
  const elsewhere = openReport(crypto, { ...opening(report), reportPrivateKey: other.privateKey });
  assert.ok(elsewhere.kind === 'other_key');
  assert.deepEqual(elsewhere.keyId, reportKeyId(crypto, operator.publicKey));
  assert.equal(openReport(crypto, { ...opening(report), origin: 'evil.example.org' }).kind, 'malformed');
  assert.equal(openReport(crypto, { ...opening(report), channelId: crypto.random(16) }).kind, 'malformed');
  for (const at of [0, 1, 9, 1_100, 1_129, report.length - 1]) {
    const changed = report.slice();
    changed[at]! ^= 1;
    assert.notEqual(openReport(crypto, opening(changed)).kind, 'opened', `byte ${at}`);
  }
  for (const length of [0, 1, 9, 1_128, 1_129, report.length - 1]) {
    assert.equal(openReport(crypto, opening(report.subarray(0, length))).kind, 'malformed', `${length} bytes`);
  }
});

test('its size tells only a bucket, and what does not fit is refused', () => {
  const sized = (...textBytes: number[]) =>
    seal({ content: { ...content, messages: textBytes.map((bytes) => message('x'.repeat(bytes))) } }).length;
  assert.equal(sized(1), sized(500));
  assert.equal(sized(3_000), sized(3_500));
  assert.ok(sized(60_000, 60_000) <= 128_000, 'within what the server takes');
  assert.throws(() => sized(65_000, 65_000), BadInput);
  assert.throws(() => sized(65_536), BadInput);
  assert.throws(() => sized(...Array.from({ length: 51 }, () => 1)), BadInput);
  assert.throws(() => seal({ content: { ...content, reason: 'é'.repeat(1_001) } }), BadInput);
});

test('a key of the wrong form is refused', () => {
  assert.equal(operator.publicKey.length, REPORT_KEY_BYTES);
  assert.deepEqual(reportPublicKey(crypto, operator.privateKey), operator.publicKey);
  assert.equal(isReportKey(crypto, operator.publicKey), true);
  assert.equal(isReportKey(crypto, operator.publicKey.subarray(1)), false);
  assert.equal(isReportKey(crypto, new Uint8Array(REPORT_KEY_BYTES).fill(0xff)), false);
  assert.throws(() => seal({ reportKey: new Uint8Array(0) }), BadInput);
});

test('a plaintext that is not laid out so is refused, whoever signed it', () => {
  const hpke = createHpke(crypto, { kem: KemId.XWing, kdf: KdfId.HkdfSha256, aead: AeadId.Aes256Gcm });
  const info = concat(Label.reportSeal, lengthPrefixedText(origin));
  const sealed = (plaintext: Uint8Array): Uint8Array => {
    const { enc, ciphertext } = hpke.sealBase(operator.publicKey, info, channelId, plaintext);
    return concat(new Uint8Array([1]), reportKeyId(crypto, operator.publicKey), enc, ciphertext);
  };
  const report = seal();
  const at = 9 + hpke.kem.encLength;
  const plaintext = hpke.openBase(operator.privateKey, report.subarray(9, at), info, channelId, report.subarray(at))!;
  assert.equal(openReport(crypto, opening(sealed(plaintext))).kind, 'opened');
  const changed = (change: (bytes: Uint8Array) => void): string => {
    const copy = plaintext.slice();
    change(copy);
    return openReport(crypto, opening(sealed(copy))).kind;
  };
  assert.equal(
    changed((bytes) => bytes.fill(0xff, 0, 4)),
    'malformed',
    'a length of 2^32',
  );
  assert.equal(
    changed((bytes) => (bytes[3]! -= 1)),
    'malformed',
    'a body cut short',
  );
  assert.equal(
    changed((bytes) => (bytes[bytes.length - 1] = 1)),
    'malformed',
    'padding that says something',
  );
  assert.equal(
    changed((bytes) => (bytes[4] = 0xff)),
    'malformed',
    'a name longer than the rest of it',
  );
  const short = plaintext.subarray(0, plaintext.length / 2);
  assert.equal(openReport(crypto, opening(sealed(short))).kind, 'malformed', 'another bucket');
  assert.equal(openReport(crypto, opening(sealed(new Uint8Array(0)))).kind, 'malformed');
});
