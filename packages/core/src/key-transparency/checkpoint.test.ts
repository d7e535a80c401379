import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeUtf8, encodeHex, encodeUtf8, equal, SignatureSchemeId } from '@quicprochat/crypto';
import { nobleCrypto } from '@quicprochat/crypto/noble';
import { nodeCrypto } from '@quicprochat/crypto/node';
import {
  CHECKPOINT_BYTES_MAX,
  compareCheckpoints,
  logOriginOf,
  noteKeyId,
  openCheckpoint,
  parseCheckpoint,
  parseNote,
  signCheckpoint,
  signNote,
  verifyNote,
} from './checkpoint.ts';
import { MemoryLog } from './testing/memory-log.ts';

const crypto = nodeCrypto;
const base64 = (text: string) => new Uint8Array(Buffer.from(text, 'base64'));
const ed25519 = crypto.signature(SignatureSchemeId.Ed25519);

// Keys are written as 01 ‖ key in the encoding of golang.org/x/mod/sumdb/note.
const unprefixed = (text: string) => base64(text).subarray(1);

// The example of the documentation of golang.org/x/mod/sumdb/note.
const PETER = {
  privateKey: unprefixed('AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz'),
  publicKey: unprefixed('ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW'),
  keyId: 'c74f20a3',
  text: "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n",
  signature:
    '— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n',
};

for (const provider of [nodeCrypto, nobleCrypto]) {
  test(`golang.org/x/mod/sumdb/note's example: same key id, same note, ${provider.name}`, () => {
    assert.equal(encodeHex(noteKeyId(provider, 'PeterNeumann', PETER.publicKey)), PETER.keyId);
    const note = signNote(provider, PETER.text, { name: 'PeterNeumann', privateKey: PETER.privateKey });
    assert.equal(decodeUtf8(note), `${PETER.text}\n${PETER.signature}`);
    const parsed = parseNote(note)!;
    assert.equal(parsed.text, PETER.text);
    assert.ok(verifyNote(provider, parsed, { name: 'PeterNeumann', publicKey: PETER.publicKey }));
  });
}

test("c2sp.org/signed-note's example of a key verifies", () => {
  const note = encodeUtf8(
    'This is an example message.\n\n' +
      '— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n',
  );
  const publicKey = unprefixed('AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k');
  assert.ok(verifyNote(crypto, parseNote(note)!, { name: 'example.com/foo', publicKey }));
});

test("the checkpoint in c2sp.org/tlog-checkpoint reads, and is the Go checksum database's key id", () => {
  const note = encodeUtf8(
    'example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n' +
      '— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n',
  );
  const parsed = parseCheckpoint(note)!;
  assert.equal(parsed.claims.origin, 'example.com/behind-the-sofa');
  assert.equal(parsed.claims.size, 20_852_163);
  assert.deepEqual(parsed.claims.root, base64('CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I='));
  const goKey = unprefixed('Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8');
  assert.deepEqual(parsed.note.signatures[0]!.keyId, noteKeyId(crypto, 'sum.golang.org', goKey));
});

const key = ed25519.deriveKeyPair(new Uint8Array(32).fill(7));
const log = { origin: logOriginOf('localhost:5001'), key: key.publicKey };
const root = new Uint8Array(32).fill(0xab);
const signed = signCheckpoint(crypto, key.privateKey, { origin: log.origin, size: 1_234, root });
const text = decodeUtf8(signed)!;
const signatureLine = text.slice(text.indexOf('—'));
const open = (note: string) => openCheckpoint(crypto, encodeUtf8(note), log);

test('a checkpoint reads back and verifies under the pinned log only', () => {
  const outcome = openCheckpoint(crypto, signed, log);
  assert.ok(outcome.kind === 'verified');
  assert.deepEqual({ ...outcome.checkpoint }, { origin: log.origin, size: 1_234, root, bytes: signed });
  const other = ed25519.deriveKeyPair(new Uint8Array(32).fill(8)).publicKey;
  assert.equal(openCheckpoint(crypto, signed, { ...log, key: other }).kind, 'invalid');
  assert.equal(openCheckpoint(crypto, signed, { ...log, origin: 'elsewhere' }).kind, 'invalid');
});

test('every changed byte and every truncation of a checkpoint is refused', () => {
  for (let i = 0; i < signed.length; i++) {
    for (const bit of [0x01, 0x20]) {
      const tampered = signed.slice();
      tampered[i]! ^= bit;
      assert.equal(openCheckpoint(crypto, tampered, log).kind, 'invalid', `byte ${i}`);
    }
    assert.equal(openCheckpoint(crypto, signed.subarray(0, i), log).kind, 'invalid', `cut at ${i}`);
  }
});

test('what the format does not allow is refused even when the log signed it', () => {
  const sign = (body: string) => signNote(crypto, body, { name: log.origin, privateKey: key.privateKey });
  const b64 = Buffer.from(root).toString('base64');
  const bad: Record<string, string> = {
    'no root': `${log.origin}\n5\n`,
    'a leading zero': `${log.origin}\n05\n${b64}\n`,
    'a sign': `${log.origin}\n+5\n${b64}\n`,
    'a huge size': `${log.origin}\n9007199254740991\n${b64}\n`,
    'a short root': `${log.origin}\n5\n${b64.slice(0, 40)}\n`,
    'a root without padding': `${log.origin}\n5\n${b64.slice(0, -1)}\n`,
    base64url: `${log.origin}\n5\n${'-'.repeat(43)}=\n`,
    'an empty origin': `\n5\n${b64}\n`,
    'an empty line': `${log.origin}\n5\n${b64}\n\nmore\n`,
  };
  for (const [what, body] of Object.entries(bad)) {
    assert.equal(openCheckpoint(crypto, sign(body), log).kind, 'invalid', what);
  }
  assert.equal(openCheckpoint(crypto, sign(`${log.origin}\n5\n${b64}\nextension\n`), log).kind, 'verified');
  assert.throws(() => sign('no newline'), { name: 'Misuse' });
  assert.throws(() => sign('tab\t\n'), { name: 'Misuse' });
  assert.throws(() => sign(`${'x'.repeat(CHECKPOINT_BYTES_MAX)}\n`), { name: 'Misuse' });
  assert.throws(() => signNote(crypto, 'a\n', { name: 'a b', privateKey: key.privateKey }), { name: 'Misuse' });
});

test('lines of other keys are ignored, a bad line of the known key spoils the note, nothing is unbounded', () => {
  const witness = ed25519.deriveKeyPair(new Uint8Array(32).fill(9));
  const body = text.slice(0, text.indexOf('\n\n') + 1);
  const witnessed = decodeUtf8(signNote(crypto, body, { name: 'witness', privateKey: witness.privateKey }))!;
  const witnessLine = witnessed.slice(witnessed.indexOf('—'));
  assert.equal(open(text + witnessLine).kind, 'verified');
  assert.equal(open(`${body}\n${witnessLine}`).kind, 'invalid');
  const keyId = noteKeyId(crypto, log.origin, log.key);
  const forged = `— ${log.origin} ${Buffer.concat([keyId, new Uint8Array(64)]).toString('base64')}\n`;
  assert.equal(open(text + forged).kind, 'invalid');
  assert.equal(open(text + witnessLine.repeat(15)).kind, 'verified');
  assert.equal(open(text + witnessLine.repeat(16)).kind, 'invalid');
  const big = `— witness ${Buffer.alloc(1_200, 1).toString('base64')}\n`;
  assert.equal(open(text + big.repeat(2)).kind, 'verified');
  assert.equal(open(text + big.repeat(3)).kind, 'invalid');
  for (const line of ['no dash\n', '— name\n', '— name AAAA\n', '— name AAAAAAA= more\n', '— a+b AAAAAAA=\n', '\n']) {
    assert.equal(open(text + line).kind, 'invalid', line);
  }
  assert.equal(open(`\uFEFF${text}`).kind, 'invalid');
  assert.equal(open(signatureLine).kind, 'invalid');
});

test('THREATS 21: two checkpoints are compared by proof; one size and two roots are evidence by themselves', () => {
  const honest = new MemoryLog(crypto);
  for (let i = 1; i < 9; i++) honest.appendBytes(crypto.random(73));
  const older = honest.checkpoint();
  const liar = honest.fork();
  for (let i = 0; i < 4; i++) honest.appendBytes(crypto.random(73));
  for (let i = 0; i < 4; i++) liar.appendBytes(crypto.random(73));
  const newer = honest.checkpoint();
  const proof = honest.consistency(older.size, newer.size);
  assert.equal(compareCheckpoints(crypto, older, newer, proof).kind, 'consistent');
  assert.equal(compareCheckpoints(crypto, newer, older, proof).kind, 'consistent');
  assert.equal(compareCheckpoints(crypto, older, older, []).kind, 'consistent');

  const split = compareCheckpoints(crypto, newer, liar.checkpoint(), []);
  assert.ok(split.kind === 'split-view');
  for (const note of [split.one, split.other]) {
    assert.equal(openCheckpoint(crypto, note, honest.pinned).kind, 'verified');
  }
  assert.ok(!equal(split.one, split.other));
  liar.appendBytes(crypto.random(73));
  const later = liar.checkpoint();
  for (const attempt of [[], proof, liar.consistency(newer.size, later.size), honest.consistency(older.size, 13 - 1)]) {
    assert.equal(compareCheckpoints(crypto, newer, later, attempt).kind, 'unproven');
  }
});
