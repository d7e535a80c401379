// Envelopes 01, 02 and 03 (PROTOCOL section 4): who seals opens, and nothing else does (THREATS 2, 3, 14, 38).
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { Misuse } from '@quicprochat/core';
import { AeadId, concat, type CryptoProvider, KemId, u32 } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { type DirectRecipient, openDirect, sealDirect } from './envelope-direct.ts';
import { deriveGroupKey, groupPosition, openGroup, sealGroup } from './envelope-group.ts';
import { openShared, sealShared, sharedCommitment, WRAP_LENGTH } from './envelope-shared.ts';
import { EnvelopeType, envelopeType, kindAgrees, type OpenOutcome, PayloadKind } from './envelope.ts';
import { encapsulateKey } from './key-encapsulation.ts';

const context = { crypto, random: crypto.random };
const body = new TextEncoder().encode('what Alice says to Bob');
const channelId = crypto.random(16);
const otherChannelId = crypto.random(16);

interface Device extends DirectRecipient {
  readonly hybridPrivateKey: Uint8Array;
}

function device(): Device {
  const { publicKey, privateKey } = crypto.kem(KemId.XWing).deriveKeyPair(crypto.random(32));
  const address = { identityKey: crypto.random(32), deviceId: crypto.random(16) };
  return { address, hybridKey: publicKey, hybridPrivateKey: privateKey };
}

const bob = device();
const carol = device();

function assertOpened(outcome: OpenOutcome, payloadKind: PayloadKind, expected = body): void {
  assert.deepEqual(outcome, { kind: 'opened', payloadKind, body: expected });
}

function assertRefused(outcome: OpenOutcome, ...reasons: string[]): void {
  assert.equal(outcome.kind, 'refused');
  assert.ok(outcome.kind === 'refused' && reasons.includes(outcome.reason), JSON.stringify(outcome));
}

/** Numbers below a limit, the same for the same seed (mulberry32). */
function seededRandom(t: TestContext): (limit: number) => number {
  let state = Number(process.env['TEST_SEED'] ?? Date.now()) >>> 0;
  t.diagnostic(`TEST_SEED=${state}`);
  return (limit) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) % limit;
  };
}

/** Every byte changed in one seeded bit, one after the other. */
function* flips(bytes: Uint8Array, random: (limit: number) => number): Generator<Uint8Array> {
  for (let i = 0; i < bytes.length; i++) {
    const changed = bytes.slice();
    changed[i]! ^= 1 << random(8);
    yield changed;
  }
}

test('direct: the device it was sealed for opens it', () => {
  const envelope = sealDirect(context, bob, channelId, PayloadKind.Welcome, body);
  assert.equal(envelopeType(envelope), EnvelopeType.Direct);
  assertOpened(openDirect(crypto, { ...bob, channelId }, envelope), PayloadKind.Welcome);
});

test('direct: without a channel', () => {
  const channelless = { ...bob, channelId: new Uint8Array(0) };
  const envelope = sealDirect(context, bob, channelless.channelId, PayloadKind.Link, body);
  assertOpened(openDirect(crypto, channelless, envelope), PayloadKind.Link);
  assertRefused(openDirect(crypto, { ...bob, channelId }, envelope), 'notAuthentic');
});

test('direct: other recipients, addresses and channels are refused (THREATS 2, 3)', () => {
  const envelope = sealDirect(context, bob, channelId, PayloadKind.Welcome, body);
  const open = (change: Partial<Device & { channelId: Uint8Array }>): OpenOutcome =>
    openDirect(crypto, { ...bob, channelId, ...change }, envelope);
  assertRefused(open(carol), 'notAuthentic');
  assertRefused(open({ address: carol.address }), 'notAuthentic');
  assertRefused(open({ hybridPrivateKey: carol.hybridPrivateKey }), 'notAuthentic');
  assertRefused(open({ address: { ...bob.address, deviceId: carol.address.deviceId } }), 'notAuthentic');
  assertRefused(open({ channelId: otherChannelId }), 'notAuthentic');
  assertRefused(open({ channelId: new Uint8Array(0) }), 'notAuthentic');
});

test('direct: a device id cannot slide into the identity key or the channel (THREATS 2)', () => {
  const shifted = {
    identityKey: concat(bob.address.identityKey.subarray(1), bob.address.deviceId.subarray(0, 1)),
    deviceId: concat(bob.address.deviceId.subarray(1), channelId.subarray(0, 1)),
  };
  const envelope = sealDirect(context, bob, channelId, PayloadKind.Welcome, body);
  assertRefused(openDirect(crypto, { ...bob, address: shifted, channelId }, envelope), 'notAuthentic');
  assert.throws(
    () =>
      sealDirect(context, { ...bob, address: { ...bob.address, deviceId: new Uint8Array(15) } }, channelId, 1, body),
    Misuse,
  );
  assert.throws(() => sealDirect(context, bob, channelId.subarray(1), PayloadKind.Welcome, body), Misuse);
});

test('direct: a bit flipped anywhere is refused', (t) => {
  const random = seededRandom(t);
  const envelope = sealDirect(context, bob, channelId, PayloadKind.Welcome, body);
  for (const changed of flips(envelope, random)) {
    assertRefused(openDirect(crypto, { ...bob, channelId }, changed), 'malformed', 'notAuthentic');
  }
});

test('shared: every device opens with its own wrap', () => {
  const { envelope, wraps, commitment } = sealShared(context, [bob, carol], channelId, PayloadKind.Welcome, body);
  assert.equal(envelopeType(envelope), EnvelopeType.Shared);
  assert.deepEqual(sharedCommitment(envelope), commitment);
  [bob, carol].forEach((recipient, i) => {
    const { address, wrap } = wraps[i]!;
    assert.equal(wrap.length, WRAP_LENGTH);
    assert.equal(address, recipient.address);
    const opening = { ...recipient, channelId, wrap, expectedCommitment: commitment };
    assertOpened(openShared(crypto, opening, envelope), PayloadKind.Welcome);
  });
});

test('shared: wraps of others, other channels and other envelopes are refused (THREATS 3)', () => {
  const { envelope, wraps } = sealShared(context, [bob, carol], channelId, PayloadKind.Welcome, body);
  const second = sealShared(context, [bob], channelId, PayloadKind.Welcome, body);
  const [bobsWrap, carolsWrap] = [wraps[0]!.wrap, wraps[1]!.wrap];
  const open = (change: object): OpenOutcome =>
    openShared(crypto, { ...bob, channelId, wrap: bobsWrap, ...change }, envelope);
  assertRefused(open({ wrap: carolsWrap }), 'notAuthentic');
  assertRefused(open({ address: carol.address }), 'notAuthentic');
  assertRefused(open({ channelId: otherChannelId }), 'notAuthentic');
  assertRefused(open({ wrap: bobsWrap.subarray(1) }), 'malformed');
  assertRefused(open({ wrap: second.wraps[0]!.wrap }), 'commitment');
  assertRefused(open({ expectedCommitment: second.commitment }), 'commitment');
});

test('shared: one payload with a second content key is refused by the commitment (THREATS 38)', () => {
  // Mallory gives Carol a wrap of another content key, for the envelope Bob opens.
  const { envelope, wraps } = sealShared(context, [bob], channelId, PayloadKind.Welcome, body);
  const binding = { type: EnvelopeType.Shared, address: carol.address, channelId };
  const { ciphertext, key } = encapsulateKey(crypto, carol.hybridKey, binding);
  const sealed = crypto.aead(AeadId.Aes256Gcm).seal(key, new Uint8Array(12), ciphertext, crypto.random(32));
  const wrap = concat(ciphertext, sealed);
  assertOpened(openShared(crypto, { ...bob, channelId, wrap: wraps[0]!.wrap }, envelope), PayloadKind.Welcome);
  assertRefused(openShared(crypto, { ...carol, channelId, wrap }, envelope), 'commitment');
});

test('shared: a bit flipped anywhere in envelope or wrap is refused', (t) => {
  const random = seededRandom(t);
  const { envelope, wraps } = sealShared(context, [bob], channelId, PayloadKind.PqRenewal, body);
  const { wrap } = wraps[0]!;
  for (const changed of flips(envelope, random)) {
    const outcome = openShared(crypto, { ...bob, channelId, wrap }, changed);
    assertRefused(outcome, 'malformed', 'notAuthentic', 'commitment');
  }
  for (const changed of flips(wrap, random)) {
    assertRefused(openShared(crypto, { ...bob, channelId, wrap: changed }, envelope), 'notAuthentic');
  }
});

const exporterSecret = crypto.random(32);
const groupKey = deriveGroupKey(crypto, exporterSecret, crypto.random(32));
const group = { key: groupKey, position: 7n, channelId };

test('group: whoever has the epoch key opens it', () => {
  const envelope = sealGroup(context, group, PayloadKind.Application, body);
  assert.equal(envelopeType(envelope), EnvelopeType.Group);
  assert.equal(groupPosition(envelope), 7n);
  assertOpened(openGroup(crypto, group, envelope), PayloadKind.Application);
});

test('group: other channels, epochs, salts and positions are refused (THREATS 3)', () => {
  const envelope = sealGroup(context, group, PayloadKind.Handshake, body);
  assertRefused(openGroup(crypto, { ...group, channelId: otherChannelId }, envelope), 'notAuthentic');
  const otherEpoch = deriveGroupKey(crypto, crypto.random(32), new Uint8Array(0));
  assertRefused(openGroup(crypto, { ...group, key: otherEpoch }, envelope), 'notAuthentic');
  const otherSalt = deriveGroupKey(crypto, exporterSecret, crypto.random(32));
  assertRefused(openGroup(crypto, { ...group, key: otherSalt }, envelope), 'notAuthentic');
  const moved = envelope.slice();
  moved[8] = 8;
  assert.equal(groupPosition(moved), 8n);
  assertRefused(openGroup(crypto, group, moved), 'notAuthentic');
});

test('group: a bit flipped anywhere is refused', (t) => {
  const random = seededRandom(t);
  const envelope = sealGroup(context, group, PayloadKind.Application, body);
  for (const changed of flips(envelope, random)) {
    assertRefused(openGroup(crypto, group, changed), 'malformed', 'notAuthentic');
  }
});

test('an envelope opened as another type is refused (THREATS 3)', () => {
  const direct = sealDirect(context, bob, channelId, PayloadKind.Welcome, body);
  const { envelope: shared, wraps } = sealShared(context, [bob], channelId, PayloadKind.Welcome, body);
  const inGroup = sealGroup(context, group, PayloadKind.Application, body);
  const { wrap } = wraps[0]!;
  const openers: readonly [EnvelopeType, (envelope: Uint8Array) => OpenOutcome][] = [
    [EnvelopeType.Direct, (envelope) => openDirect(crypto, { ...bob, channelId }, envelope)],
    [EnvelopeType.Shared, (envelope) => openShared(crypto, { ...bob, channelId, wrap }, envelope)],
    [EnvelopeType.Group, (envelope) => openGroup(crypto, group, envelope)],
  ];
  for (const [type, open] of openers) {
    for (const envelope of [direct, shared, inGroup]) {
      if (envelopeType(envelope) === type) continue;
      assertRefused(open(envelope), 'malformed');
      // Relabelled, it fails its authentication: the type byte is in AAD and key derivation.
      const relabelled = envelope.slice();
      relabelled[0] = type;
      assertRefused(open(relabelled), 'malformed', 'notAuthentic', 'commitment');
    }
  }
});

test('a wrap is no direct envelope and a direct envelope no wrap: their keys differ by the type', () => {
  const direct = sealDirect(context, bob, channelId, PayloadKind.Welcome, body);
  const { envelope } = sealShared(context, [bob], channelId, PayloadKind.Welcome, body);
  const wrap = direct.slice(1, 1 + WRAP_LENGTH);
  assertRefused(openShared(crypto, { ...bob, channelId, wrap }, envelope), 'notAuthentic');
});

test('truncated, extended and empty envelopes are refused', (t) => {
  const random = seededRandom(t);
  const direct = sealDirect(context, bob, channelId, PayloadKind.Welcome, body);
  const inGroup = sealGroup(context, group, PayloadKind.Application, body);
  for (let i = 0; i < 64; i++) {
    assertRefused(
      openDirect(crypto, { ...bob, channelId }, direct.subarray(0, random(direct.length))),
      'malformed',
      'notAuthentic',
    );
    assertRefused(openGroup(crypto, group, inGroup.subarray(0, random(inGroup.length))), 'malformed', 'notAuthentic');
  }
  assertRefused(openGroup(crypto, group, concat(inGroup, new Uint8Array(1))), 'notAuthentic');
  const tooLong = new Uint8Array(4 * 1024 * 1024).fill(EnvelopeType.Group);
  assertRefused(openGroup(crypto, group, tooLong), 'malformed');
  assert.equal(envelopeType(new Uint8Array(0)), undefined);
  assert.equal(envelopeType(new Uint8Array([4])), undefined);
});

test('a kind that does not travel in an envelope is neither sealed nor opened (THREATS 3)', () => {
  assert.throws(() => sealDirect(context, bob, channelId, PayloadKind.Application, body), Misuse);
  assert.throws(() => sealShared(context, [bob], channelId, PayloadKind.Rejoin, body), Misuse);
  assert.throws(() => sealGroup(context, group, PayloadKind.Welcome, body), Misuse);

  // A member seals a Welcome as a group envelope with code of its own.
  for (const kind of [PayloadKind.Welcome, PayloadKind.Rejoin, PayloadKind.Link, PayloadKind.PqRenewal, 0, 7, 255]) {
    const header = concat(new Uint8Array([EnvelopeType.Group]), new Uint8Array(8), crypto.random(12));
    const plaintext = concat(new Uint8Array([kind]), u32(0), new Uint8Array(512 - 37 - 5));
    const nonce = header.subarray(9);
    const sealed = crypto.aead(AeadId.Aes256Gcm).seal(groupKey, nonce, concat(header, channelId), plaintext);
    assertRefused(openGroup(crypto, group, concat(header, sealed)), 'kind');
  }
});

test('kind, envelope type, delivery and MLS wire format must agree', () => {
  const mls = (wireFormat: number): Uint8Array => new Uint8Array([0, 1, 0, wireFormat, 0]);
  const [PUBLIC_MESSAGE, PRIVATE_MESSAGE, WELCOME] = [1, 2, 3];
  const right = [
    [PayloadKind.Welcome, EnvelopeType.Direct, 'message', mls(WELCOME)],
    [PayloadKind.Welcome, EnvelopeType.Shared, 'message', mls(WELCOME)],
    [PayloadKind.Handshake, EnvelopeType.Group, 'logEntry', mls(PRIVATE_MESSAGE)],
    [PayloadKind.Application, EnvelopeType.Group, 'message', mls(PRIVATE_MESSAGE)],
    [PayloadKind.Rejoin, EnvelopeType.Direct, 'message', undefined],
    [PayloadKind.Link, EnvelopeType.Direct, 'message', undefined],
    [PayloadKind.PqRenewal, EnvelopeType.Shared, 'pqRenewal', undefined],
  ] as const;
  for (const [kind, type, delivery, message] of right) assert.ok(kindAgrees(kind, type, delivery, message));

  let refused = 0;
  for (const kind of Object.values(PayloadKind)) {
    for (const type of Object.values(EnvelopeType)) {
      for (const delivery of ['logEntry', 'pqRenewal', 'message'] as const) {
        for (const wireFormat of [undefined, PUBLIC_MESSAGE, PRIVATE_MESSAGE, WELCOME]) {
          const message = wireFormat === undefined ? undefined : mls(wireFormat);
          const known = right.some(
            ([k, ty, d, m]) => k === kind && ty === type && d === delivery && (!message || (m && m[3] === message[3])),
          );
          assert.equal(kindAgrees(kind, type, delivery, message), known);
          if (!known) refused++;
        }
      }
    }
  }
  assert.ok(refused > 180);
  assert.ok(!kindAgrees(PayloadKind.Application, EnvelopeType.Group, 'message', new Uint8Array([0, 2, 0, 2])));
  assert.ok(!kindAgrees(PayloadKind.Application, EnvelopeType.Group, 'message', new Uint8Array([0, 1])));
});

test('sealing twice gives unrelated envelopes', () => {
  const first = sealGroup(context, group, PayloadKind.Application, body);
  const second = sealGroup(context, group, PayloadKind.Application, body);
  assert.notDeepEqual(first, second);
});

test('keys and plaintexts of an envelope are wiped once it is sealed or opened', () => {
  const used: Uint8Array[] = [];
  const watched: CryptoProvider = {
    ...crypto,
    aead(id) {
      const aead = crypto.aead(id);
      return {
        ...aead,
        seal(key, nonce, aad, plaintext) {
          used.push(key, plaintext);
          return aead.seal(key, nonce, aad, plaintext);
        },
        open(key, nonce, aad, ciphertext) {
          const plaintext = aead.open(key, nonce, aad, ciphertext);
          used.push(key, ...(plaintext === undefined ? [] : [plaintext]));
          return plaintext;
        },
      };
    },
  };
  const watching = { crypto: watched, random: crypto.random };
  const direct = sealDirect(watching, bob, channelId, PayloadKind.Welcome, body);
  assertOpened(openDirect(watched, { ...bob, channelId }, direct), PayloadKind.Welcome);
  const { envelope, wraps } = sealShared(watching, [bob, carol], channelId, PayloadKind.Welcome, body);
  assertOpened(openShared(watched, { ...bob, channelId, wrap: wraps[0]!.wrap }, envelope), PayloadKind.Welcome);
  assert.equal(used.length, 14);
  for (const secret of used) assert.ok(secret.every((byte) => byte === 0));
});
