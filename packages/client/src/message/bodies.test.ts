// The bodies inside envelopes: what is encoded decodes to itself, everything else is refused without an exception.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Misuse } from '@quicprochat/core';
import { concat, u32 } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { ByteReader } from './byte-reader.ts';
import {
  BUNDLE_PROPOSALS_MAX,
  decodeHandshakeBundle,
  encodeHandshakeBundle,
  type HandshakeBundle,
  privateMessageContentType,
} from './handshake-bundle.ts';
import { createMessageId, isMessageId } from './message-id.ts';
import { decodeRejoinRequest, encodeRejoinRequest, REJOIN_LIFETIME_MS, verifyRejoinRequest } from './rejoin.ts';
import { openTree, sealTree, TREE_BYTES_MAX } from './tree-reference.ts';
import { decodeWelcomeBody, encodeWelcomeBody } from './welcome-body.ts';

const [PROPOSAL, COMMIT] = [2, 3];

function privateMessage(contentType: number, groupIdLength = 32): Uint8Array {
  return concat(
    new Uint8Array([0, 1, 0, 2, groupIdLength]),
    crypto.random(groupIdLength),
    new Uint8Array(8),
    new Uint8Array([contentType]),
    crypto.random(40),
  );
}

/** Every proper prefix, and the bytes with something behind them. */
function* cutAndExtended(bytes: Uint8Array): Generator<Uint8Array> {
  for (let length = 0; length < bytes.length; length++) yield bytes.subarray(0, length);
  yield concat(bytes, new Uint8Array(1));
}

const welcomeBody = {
  position: 3n,
  logHash: crypto.random(32),
  pqSalt: crypto.random(32),
  metadata: crypto.random(20),
  welcome: new Uint8Array([0, 1, 0, 3]),
};

test('a tree beside its Welcome: opens with its reference on its channel, and nothing else does (THREATS 3, 14, 38)', () => {
  const context = { crypto, random: (length: number) => crypto.random(length) };
  const channelId = crypto.random(16);
  const tree = crypto.random(100_000);
  const sealed = sealTree(context, channelId, tree)!;
  const { reference, blob } = sealed;
  assert.equal(blob.length % 65_536, 0, 'the server learns a bucket, not a length');
  assert.deepEqual(openTree(crypto, channelId, reference, blob), tree);
  const other = sealTree(context, channelId, tree)!;
  assert.notDeepEqual(other.reference.blobId, reference.blobId);
  assert.equal(openTree(crypto, crypto.random(16), reference, blob), undefined, 'another channel');
  assert.equal(openTree(crypto, channelId, { ...reference, key: other.reference.key }, blob), undefined, 'another key');
  assert.equal(openTree(crypto, channelId, reference, other.blob), undefined, 'another blob');
  assert.equal(
    openTree(crypto, channelId, { ...reference, blobId: crypto.hash('sha256', other.blob) }, other.blob),
    undefined,
  );
  assert.equal(openTree(crypto, channelId, reference, blob.subarray(0, -1)), undefined, 'cut short');
  assert.equal(openTree(crypto, channelId, { ...reference, length: 200_000 }, blob), undefined, 'another length');
  assert.equal(sealTree(context, channelId, new Uint8Array(0)), undefined);
  assert.equal(sealTree(context, channelId, new Uint8Array(TREE_BYTES_MAX + 1)), undefined);
});

test('Welcome body with its tree elsewhere: comes back as it went in; cut short or with a length that lies: refused', () => {
  const tree = { blobId: crypto.random(32), key: crypto.random(32), length: 70_000 };
  const body = { ...welcomeBody, tree };
  const encoded = encodeWelcomeBody(body);
  assert.deepEqual(decodeWelcomeBody(encoded), body);
  for (let length = 0; length < encoded.length; length++) {
    assert.equal(decodeWelcomeBody(encoded.subarray(0, length)), undefined);
  }
  assert.equal(decodeWelcomeBody(encoded.with(0, 1)), undefined, 'said to be in the Welcome');
  for (const length of [0, TREE_BYTES_MAX + 1]) {
    assert.throws(() => encodeWelcomeBody({ ...body, tree: { ...tree, length } }), Misuse);
  }
  const huge = encoded.slice();
  huge.set(u32(0xffffffff), encoded.length - welcomeBody.welcome.length - 4);
  assert.equal(decodeWelcomeBody(huge), undefined);
});

test('a ReInit and the Welcome beside it: with and without a tree elsewhere; anything else is refused (THREATS 3, 27)', () => {
  const commit = privateMessage(COMMIT);
  const welcome = concat(new Uint8Array([0, 1, 0, 3]), crypto.random(30));
  const reference = { blobId: crypto.random(32), key: crypto.random(32), length: 70_000 };
  for (const tree of [undefined, reference]) {
    const bundle = { proposals: [], commit, successor: { tree, welcome } };
    const encoded = encodeHandshakeBundle(bundle);
    assert.deepEqual(decodeHandshakeBundle(encoded), bundle);
    for (let length = 0; length < encoded.length - 30; length++) {
      assert.equal(decodeHandshakeBundle(encoded.subarray(0, length)), undefined);
    }
  }
  const misuse: HandshakeBundle[] = [
    { proposals: [privateMessage(PROPOSAL)], commit, successor: { tree: undefined, welcome } },
    { proposals: [], commit: undefined, successor: { tree: undefined, welcome } },
    { proposals: [], commit, successor: { tree: undefined, welcome: commit } },
    { proposals: [], commit: privateMessage(PROPOSAL), successor: { tree: undefined, welcome } },
    { proposals: [], commit, successor: { tree: { ...reference, key: crypto.random(31) }, welcome } },
    { proposals: [], commit, successor: { tree: { ...reference, length: TREE_BYTES_MAX + 1 }, welcome } },
    { proposals: [], commit, successor: { tree: { ...reference, length: 0 }, welcome } },
  ];
  for (const bundle of misuse) assert.throws(() => encodeHandshakeBundle(bundle), Misuse);
  // A length that lies: no more is taken than there is.
  const lying = encodeHandshakeBundle({ proposals: [], commit, successor: { tree: undefined, welcome } });
  lying.set(u32(0xffffffff), 1);
  assert.equal(decodeHandshakeBundle(lying), undefined);
});

test('Welcome body: with and without salt and metadata', () => {
  for (const pqSalt of [welcomeBody.pqSalt, new Uint8Array(0)]) {
    for (const metadata of [welcomeBody.metadata, new Uint8Array(0)]) {
      const body = { ...welcomeBody, pqSalt, metadata };
      assert.deepEqual(decodeWelcomeBody(encodeWelcomeBody(body)), body);
    }
  }
});

test('Welcome body: cut short, another version, another MLS message, odd salts (THREATS 3)', () => {
  const bytes = encodeWelcomeBody(welcomeBody);
  for (let length = 0; length < bytes.length; length++) {
    assert.equal(decodeWelcomeBody(bytes.subarray(0, length)), undefined);
  }
  const changed = (at: number, value: number): Uint8Array => bytes.with(at, value);
  for (const version of [0, 2, 3]) assert.equal(decodeWelcomeBody(changed(0, version)), undefined);
  assert.equal(decodeWelcomeBody(changed(bytes.length - 1, 2)), undefined);
  assert.equal(decodeWelcomeBody(changed(41, 31)), undefined);
  assert.throws(() => encodeWelcomeBody({ ...welcomeBody, pqSalt: new Uint8Array(16) }), Misuse);
  assert.throws(() => encodeWelcomeBody({ ...welcomeBody, metadata: new Uint8Array(1025) }), Misuse);
  assert.throws(() => encodeWelcomeBody({ ...welcomeBody, welcome: privateMessage(COMMIT) }), Misuse);
});

test('handshake bundle: proposals alone, a commit alone, both', () => {
  const proposals = [privateMessage(PROPOSAL), privateMessage(PROPOSAL, 16)];
  const commit = privateMessage(COMMIT);
  for (const bundle of [
    { proposals, commit: undefined },
    { proposals: [], commit },
    { proposals, commit },
  ]) {
    assert.deepEqual(decodeHandshakeBundle(encodeHandshakeBundle(bundle)), bundle);
  }
});

test('handshake bundle: cut, extended, empty, misplaced and foreign messages are refused (THREATS 3)', () => {
  const proposal = privateMessage(PROPOSAL);
  const commit = privateMessage(COMMIT);
  const bytes = encodeHandshakeBundle({ proposals: [proposal], commit });
  for (const wrong of cutAndExtended(bytes)) assert.equal(decodeHandshakeBundle(wrong), undefined);
  assert.equal(decodeHandshakeBundle(new Uint8Array([1, 0, 0, 0])), undefined);

  const publicMessage = commit.with(3, 1);
  const application = privateMessage(1);
  const bundles = [
    { proposals: [], commit: undefined },
    { proposals: [commit], commit: undefined },
    { proposals: [], commit: proposal },
    { proposals: [], commit: publicMessage },
    { proposals: [application], commit: undefined },
    { proposals: [new Uint8Array(0)], commit: undefined },
    { proposals: Array<Uint8Array>(BUNDLE_PROPOSALS_MAX + 1).fill(proposal), commit: undefined },
  ];
  for (const bundle of bundles) assert.throws(() => encodeHandshakeBundle(bundle), Misuse);
  const framed = (message: Uint8Array): Uint8Array => concat(u32(message.length), message);
  assert.equal(decodeHandshakeBundle(concat(new Uint8Array([1, 0, 0, 1]), framed(proposal))), undefined);
  assert.equal(decodeHandshakeBundle(concat(new Uint8Array([1, 0, 0, 2]), framed(commit), framed(commit))), undefined);
  assert.equal(decodeHandshakeBundle(concat(new Uint8Array([2, 0, 0, 1]), framed(commit))), undefined);
});

test('handshake bundle: counts and lengths that lie allocate nothing (THREATS 27)', () => {
  assert.equal(decodeHandshakeBundle(new Uint8Array([1, 0xff, 0xff, 1, 0, 0, 0, 0])), undefined);
  assert.equal(decodeHandshakeBundle(new Uint8Array([1, 0x04, 0x00, 1, 0, 0, 0, 0])), undefined);
  assert.equal(decodeHandshakeBundle(new Uint8Array([1, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0])), undefined);
});

test('the content type is read from a PrivateMessage only', () => {
  assert.equal(privateMessageContentType(privateMessage(COMMIT)), COMMIT);
  for (const wrong of [
    new Uint8Array(0),
    privateMessage(COMMIT).with(1, 2),
    privateMessage(COMMIT).with(3, 3),
    privateMessage(COMMIT).with(4, 0xff),
    privateMessage(COMMIT).subarray(0, 46),
    // A length of 32 in two bytes: not its shortest form.
    concat(new Uint8Array([0, 1, 0, 2, 0x40, 32]), new Uint8Array(60)),
  ]) {
    assert.equal(privateMessageContentType(wrong), undefined);
  }
});

const scheme = crypto.signature(0x0807);
const device = scheme.deriveKeyPair(crypto.random(32));
const recipient = { identityKey: crypto.random(32), deviceId: crypto.random(16) };
const request = {
  channelId: crypto.random(16),
  nonce: crypto.random(16),
  timeMs: 1_800_000_000_000,
  certificate: crypto.random(300),
};
const expected = { channelId: request.channelId, recipient, deviceKey: device.publicKey, nowMs: request.timeMs + 1000 };
const rejoin = encodeRejoinRequest(crypto, device.privateKey, recipient, request);

test('rejoin: the device it was made for verifies it, for seven days', () => {
  const unverified = decodeRejoinRequest(rejoin)!;
  const at = (nowMs: number): string => {
    const outcome = verifyRejoinRequest(crypto, unverified, { ...expected, nowMs });
    return outcome.kind === 'refused' ? outcome.reason : outcome.kind;
  };
  assert.deepEqual(verifyRejoinRequest(crypto, unverified, expected), { kind: 'verified', request });
  assert.equal(at(request.timeMs + REJOIN_LIFETIME_MS), 'verified');
  assert.equal(at(request.timeMs + REJOIN_LIFETIME_MS + 1), 'expired');
  assert.equal(at(request.timeMs - 5 * 60_000), 'verified');
  assert.equal(at(request.timeMs - 5 * 60_000 - 1), 'expired');
});

test('rejoin: passed on to another device, channel or signer it is refused (THREATS 3)', () => {
  const unverified = decodeRejoinRequest(rejoin)!;
  const verify = (change: object): unknown => verifyRejoinRequest(crypto, unverified, { ...expected, ...change });
  const signature = { kind: 'refused', reason: 'signature' };
  assert.deepEqual(verify({ recipient: { ...recipient, deviceId: crypto.random(16) } }), signature);
  assert.deepEqual(verify({ deviceKey: scheme.deriveKeyPair(crypto.random(32)).publicKey }), signature);
  assert.deepEqual(verify({ channelId: crypto.random(16) }), { kind: 'refused', reason: 'channel' });
});

test('rejoin: every changed byte is refused', () => {
  for (const wrong of cutAndExtended(rejoin)) assert.equal(decodeRejoinRequest(wrong), undefined);
  for (let i = 0; i < rejoin.length; i++) {
    const unverified = decodeRejoinRequest(rejoin.with(i, rejoin[i]! ^ 1));
    if (unverified !== undefined) assert.equal(verifyRejoinRequest(crypto, unverified, expected).kind, 'refused');
  }
  assert.throws(
    () => encodeRejoinRequest(crypto, device.privateKey, recipient, { ...request, nonce: new Uint8Array(8) }),
    Misuse,
  );
  const bombastic = { ...request, certificate: new Uint8Array(1025) };
  assert.throws(() => encodeRejoinRequest(crypto, device.privateKey, recipient, bombastic), Misuse);
});

test('message ids are UUIDv7 and sort by time', () => {
  const ids = [0, 1, 2 ** 32, 2 ** 48 - 1].map((nowMs) => createMessageId(nowMs, crypto.random));
  for (const id of ids) assert.ok(isMessageId(id));
  const hex = ids.map((id) => Buffer.from(id).toString('hex'));
  assert.deepEqual(hex.toSorted(), hex);
  for (const wrong of [-1, 2 ** 48, 1.5, Number.NaN])
    assert.throws(() => createMessageId(wrong, crypto.random), Misuse);
  assert.ok(!isMessageId(new Uint8Array(16)));
  assert.ok(!isMessageId(ids[0]!.subarray(1)));
});

test('the reader stays failed, and variable-length integers have one form', () => {
  const reader = new ByteReader(new Uint8Array([1]));
  assert.equal(reader.u32(), 0);
  assert.equal(reader.u8(), 0);
  assert.ok(!reader.complete);
  const varint = (...bytes: number[]): number | undefined => {
    const one = new ByteReader(new Uint8Array(bytes));
    const value = one.varint();
    return one.complete ? value : undefined;
  };
  assert.equal(varint(63), 63);
  assert.equal(varint(0x40, 64), 64);
  assert.equal(varint(0x7f, 0xff), 16383);
  assert.equal(varint(0x80, 0, 0x40, 0), 16384);
  for (const wrong of [[0x40, 63], [0x80, 0, 0x3f, 0xff], [0xc0, 0, 0, 0], [0x40]])
    assert.equal(varint(...wrong), undefined);
});
