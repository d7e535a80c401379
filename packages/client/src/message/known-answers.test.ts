// Fixed inputs, fixed bytes: the formats of PROTOCOL sections 4 and 5 cannot drift unnoticed. The noble provider can be
// given its KEM randomness, so it seals; node:crypto opens what it sealed.
import assert from 'node:assert/strict';
import { hkdfSync } from 'node:crypto';
import { test } from 'node:test';
import { encodeAddress } from '@quicprochat/core';
import { concat, type CryptoProvider, encodeHex, encodeUtf8, KemId } from '@quicprochat/crypto';
import { nobleCrypto } from '@quicprochat/crypto/noble';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { openDirect, sealDirect } from './envelope-direct.ts';
import { deriveGroupKey, openGroup, sealGroup } from './envelope-group.ts';
import { openShared, sealShared } from './envelope-shared.ts';
import { PayloadKind } from './envelope.ts';
import { encodeHandshakeBundle } from './handshake-bundle.ts';
import { createMessageId } from './message-id.ts';
import { decodeRejoinRequest, encodeRejoinRequest, verifyRejoinRequest } from './rejoin.ts';
import { encodeWelcomeBody } from './welcome-body.ts';

const filled = (length: number, byte: number): Uint8Array => new Uint8Array(length).fill(byte);
const sha256 = (bytes: Uint8Array): string => encodeHex(nodeCrypto.hash('sha256', bytes));

const hkdf = (ikm: Uint8Array, salt: Uint8Array, info: string, length: number): string =>
  Buffer.from(hkdfSync('sha256', ikm, salt, info, length)).toString('hex');

const KEM_RANDOMNESS = filled(64, 0x11);
/** Noble with its encapsulation fixed. */
const fixedNoble: CryptoProvider = {
  ...nobleCrypto,
  kem(id) {
    const kem = nobleCrypto.kem(id);
    return { ...kem, encapsulate: (publicKey) => kem.encapsulate(publicKey, KEM_RANDOMNESS) };
  },
};
const context = { crypto: fixedNoble, random: (length: number) => filled(length, 0x22) };

const { publicKey, privateKey } = nobleCrypto.kem(KemId.XWing).deriveKeyPair(filled(32, 0x33));
const address = { identityKey: filled(32, 0x44), deviceId: filled(16, 0x55) };
const recipient = { address, hybridKey: publicKey };
const channelId = filled(16, 0x66);
const body = encodeUtf8('qpc known answer');
const opened = { kind: 'opened', body };

test('type 01', () => {
  const envelope = sealDirect(context, recipient, channelId, PayloadKind.Welcome, body);
  assert.equal(envelope.length, 2048);
  assert.equal(sha256(envelope), '3ffe05a70fff2f4a58376f2404f31b21267b4b2c0904af79dcfe79ff4e2b6a4d');
  const outcome = openDirect(nodeCrypto, { address, hybridPrivateKey: privateKey, channelId }, envelope);
  assert.deepEqual(outcome, { ...opened, payloadKind: PayloadKind.Welcome });
});

test('type 01, taken apart by the words of PROTOCOL section 4', () => {
  const envelope = sealDirect(context, recipient, channelId, PayloadKind.Welcome, body);
  const [epk, ctM, nonce] = [envelope.slice(1, 33), envelope.slice(33, 1121), envelope.slice(1121, 1133)];
  const secret = nodeCrypto.kem(KemId.XWing).decapsulate(privateKey, concat(ctM, epk))!;
  const info = concat(
    encodeUtf8('qpc/v1/kem-envelope-key'),
    new Uint8Array([1]),
    epk,
    ctM,
    nodeCrypto.hash('sha256', publicKey),
    encodeAddress(address),
    channelId,
  );
  const key = nodeCrypto.hkdfExpand('sha256', nodeCrypto.hkdfExtract('sha256', new Uint8Array(0), secret), info, 32);
  const plaintext = nodeCrypto.aead(2).open(key, nonce, envelope.slice(0, 1133), envelope.slice(1133))!;
  assert.equal(encodeHex(plaintext.subarray(0, 21)), `0100000010${encodeHex(body)}`);
  assert.ok(plaintext.subarray(21).every((byte) => byte === 0));
});

test('type 02', () => {
  const { envelope, commitment, wraps } = sealShared(context, [recipient], channelId, PayloadKind.Welcome, body);
  const { wrap } = wraps[0]!;
  assert.equal(envelope.length, 512);
  assert.equal(sha256(envelope), '04f217c39a0f40c8900d27d0ed290468be22d0d1658919346a12f57fcb8709ef');
  assert.equal(
    encodeHex(commitment),
    hkdf(filled(32, 0x22), new Uint8Array(0), 'qpc/v1/shared-content-key', 64).slice(64),
  );
  assert.equal(encodeHex(commitment), '8c77c0a6a953c433ea87e90830dc0e72713d208356f3d11c7771c732acf83212');
  assert.equal(sha256(wrap), '787a3cd225d6630eae291c7bceb6624daf7d5955aab0a5589b8fdd98d3ce96a6');
  const outcome = openShared(nodeCrypto, { address, hybridPrivateKey: privateKey, channelId, wrap }, envelope);
  assert.deepEqual(outcome, { ...opened, payloadKind: PayloadKind.Welcome });
});

test('type 03', () => {
  const key = deriveGroupKey(nodeCrypto, filled(32, 0x77), filled(32, 0x88));
  assert.equal(encodeHex(key), hkdf(filled(32, 0x77), filled(32, 0x88), 'qpc/v1/group-envelope-key', 32));
  assert.equal(encodeHex(key), '80fcad17bc090db163d0e6e3712240c86ed86b85b76cd513580739d0837cd445');
  assert.equal(
    encodeHex(deriveGroupKey(nodeCrypto, filled(32, 0x77), new Uint8Array(0))),
    '572ff2d5c640492bdfb8aa4b5b0fa9431debcfb63b7255b4af1e315a39e680d7',
  );
  const envelope = sealGroup(context, { key, position: 0x0102n, channelId }, PayloadKind.Application, body);
  assert.equal(envelope.length, 512);
  assert.equal(encodeHex(envelope.subarray(0, 21)), `030000000000000102${'22'.repeat(12)}`);
  assert.equal(sha256(envelope), 'f46fb18ca38da736c747b34f6b05f577863a581fba3d19e510eba75e3ed139cc');
  assert.deepEqual(openGroup(nodeCrypto, { key, channelId }, envelope), {
    ...opened,
    payloadKind: PayloadKind.Application,
  });
});

test('Welcome body', () => {
  const bytes = encodeWelcomeBody({
    position: 5n,
    logHash: filled(32, 0xaa),
    pqSalt: filled(32, 0xbb),
    metadata: new Uint8Array([1, 2, 3]),
    welcome: new Uint8Array([0, 1, 0, 3, 9]),
  });
  const expected = `01${'0000000000000005'}${'aa'.repeat(32)}20${'bb'.repeat(32)}0003010203${'0001000309'}`;
  assert.equal(encodeHex(bytes), expected);
});

test('handshake bundle', () => {
  const message = (contentType: number): Uint8Array =>
    concat(new Uint8Array([0, 1, 0, 2, 1, 0xcc]), new Uint8Array(8), new Uint8Array([contentType, 0]));
  const bytes = encodeHandshakeBundle({ proposals: [message(2)], commit: message(3) });
  const framed = (contentType: string): string => `0000001000010002${'01cc'}${'0000000000000000'}${contentType}00`;
  assert.equal(encodeHex(bytes), `01000101${framed('02')}${framed('03')}`);
});

test('rejoin request', () => {
  const scheme = nodeCrypto.signature(0x0807);
  const deviceKey = scheme.deriveKeyPair(filled(32, 0x99));
  const request = { channelId, nonce: filled(16, 0xdd), timeMs: 0x0102030405, certificate: new Uint8Array([7, 7]) };
  const bytes = encodeRejoinRequest(nodeCrypto, deviceKey.privateKey, address, request);
  const signed = `${'66'.repeat(16)}${'dd'.repeat(16)}${'0000000102030405'}${'0002'}${'0707'}`;
  assert.equal(encodeHex(bytes.subarray(0, -64)), signed);
  const statement = concat(encodeUtf8('qpc/v1/rejoin-request'), bytes.subarray(0, -64), encodeAddress(address));
  assert.ok(scheme.verify(deviceKey.publicKey, statement, bytes.subarray(-64)));
  const outcome = verifyRejoinRequest(nodeCrypto, decodeRejoinRequest(bytes)!, {
    channelId,
    recipient: address,
    deviceKey: deviceKey.publicKey,
    nowMs: request.timeMs,
  });
  assert.deepEqual(outcome, { kind: 'verified', request });
});

test('message id (RFC 9562 appendix A.6)', () => {
  const random = new Uint8Array([0x0c, 0xc3, 0x18, 0xc4, 0xdc, 0x0c, 0x0c, 0x07, 0x39, 0x8f]);
  const id = createMessageId(0x017f22e279b0, () => random);
  assert.equal(encodeHex(id), '017f22e279b07cc398c4dc0c0c07398f');
});
