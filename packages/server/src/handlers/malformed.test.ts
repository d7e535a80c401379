// THREATS 27: every method, every field with a length: one byte too few, one too many, and random bytes for a request.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { DescField, DescMessage, Message } from '@bufbuild/protobuf';
import { generateSigningKey } from '@quicprochat/core';
import { encodeHex } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import {
  DeleteAccountBodySchema,
  RegisterDeviceBodySchema,
  RevokeDeviceBodySchema,
  RevokeKeyBodySchema,
  Status,
  StoreRecoveryBundleBodySchema,
  UploadHybridKeyBodySchema,
} from '@quicprochat/proto';
import { methods, methodsById, RpcError } from '@quicprochat/transport';
import type { MethodDescriptor } from '@quicprochat/transport';
import { envelope, messageId, World } from '../testing/world.node.ts';
import type { Person, TestConnection } from '../testing/world.node.ts';

let world: World;
let alice: Person;
let session: TestConnection;
let anyone: TestConnection;

before(async () => {
  const identity = generateSigningKey(crypto);
  world = await World.start({ admins: [encodeHex(identity.publicKey)] });
  alice = await world.registerAs('alice', identity);
  session = await world.login(alice);
  anyone = world.connect();
});
after(() => world.close());

interface Case {
  readonly method: MethodDescriptor;
  readonly request: () => Record<string, unknown>;
  /** Fields that may have any length: opaque to the server, or checked by what they mean. */
  readonly free?: readonly string[];
}

const address = () => ({ identityKey: alice.address.identityKey, deviceId: alice.address.deviceId });
const inbox = () => ({ recipientKey: alice.address.identityKey, deviceId: alice.address.deviceId });
const signedKey = () =>
  world.sign(alice.device, methods.keys.uploadHybridKey.id, UploadHybridKeyBodySchema, { hybridKey: crypto.random(9) });
const signedDevice = () =>
  world.sign(alice.identity, methods.device.registerDevice.id, RegisterDeviceBodySchema, {
    deviceCertificate: world.newDevice(alice).certificate,
  });

const signedRevocation = () =>
  world.sign(alice.identity, methods.device.revokeDevice.id, RevokeDeviceBodySchema, {
    deviceId: crypto.random(16),
    revocation: crypto.random(240),
  });
const signedKeyRevocation = () =>
  world.sign(alice.identity, methods.keys.revokeKey.id, RevokeKeyBodySchema, { revocation: crypto.random(240) });

const signedDeletion = () =>
  world.sign(alice.identity, methods.account.deleteAccount.id, DeleteAccountBodySchema, { username: 'nobody' });

const signedBundle = () =>
  world.sign(alice.identity, methods.recovery.storeRecoveryBundle.id, StoreRecoveryBundleBodySchema, {
    sealedData: crypto.random(9),
  });

const bundleOf = () => ({ signed: signedBundle(), identityKey: alice.address.identityKey });

const { auth, delivery, keys } = methods;
const CASES: readonly Case[] = [
  { method: auth.opaqueRegisterStart, request: () => ({ username: 'bob', registrationRequest: crypto.random(32) }) },
  {
    method: auth.opaqueRegisterFinish,
    request: () => ({
      username: 'bob',
      registrationRecord: crypto.random(192),
      identityKey: crypto.random(32),
      registrationSignature: crypto.random(64),
      deviceCertificate: alice.certificate,
      accountStatement: crypto.random(300),
    }),
  },
  { method: auth.opaqueLoginStart, request: () => ({ username: 'bob', ke1: crypto.random(96) }) },
  {
    method: auth.opaqueLoginFinish,
    request: () => ({
      loginId: crypto.random(16),
      ke3: crypto.random(64),
      deviceId: crypto.random(16),
      deviceSignature: crypto.random(64),
    }),
  },
  {
    method: auth.resumeSession,
    request: () => ({ token: crypto.random(32), deviceId: crypto.random(16), deviceSignature: crypto.random(64) }),
  },
  {
    method: delivery.enqueue,
    request: () => ({ ...inbox(), payload: envelope(1), messageId: messageId(), channelId: crypto.random(16) }),
    free: ['payload'],
  },
  { method: delivery.fetch, request: () => ({ ...inbox(), channelId: crypto.random(16) }) },
  { method: delivery.fetchWait, request: () => ({ ...inbox(), channelId: crypto.random(16) }) },
  { method: delivery.peek, request: () => ({ ...inbox(), channelId: crypto.random(16) }) },
  { method: delivery.ack, request: () => ({ ...inbox(), channelId: crypto.random(16) }) },
  {
    method: delivery.batchEnqueue,
    request: () => ({
      payload: envelope(2),
      messageId: messageId(),
      channelId: crypto.random(16),
      recipients: [{ address: address(), wrap: crypto.random(1_168) }],
    }),
    free: ['payload'],
  },
  {
    method: delivery.submitCommit,
    request: () => ({
      channelId: crypto.random(16),
      messageId: messageId(),
      payload: envelope(3),
      welcomes: [
        {
          payload: envelope(2),
          messageId: messageId(),
          recipients: [{ address: address(), wrap: crypto.random(1_168) }],
        },
      ],
      rosterAdd: [address()],
      rosterRemove: [address()],
      sendTokenHash: crypto.random(32),
      pqRenewal: { envelope: envelope(2), recipients: [{ address: address(), wrap: crypto.random(1_168) }] },
      adminsAdd: [crypto.random(32)],
      adminsRemove: [crypto.random(32)],
    }),
    free: ['payload', 'envelope'],
  },
  { method: keys.fetchKeyPackage, request: () => ({ identityKey: crypto.random(32), suite: 1 }) },
  { method: keys.uploadHybridKey, request: () => ({ signed: signedKey() }), free: ['body'] },
  {
    method: keys.fetchHybridKey,
    request: () => ({ identityKey: crypto.random(32), deviceId: crypto.random(16) }),
  },
  { method: keys.fetchHybridKeys, request: () => ({ addresses: [address()] }) },
  {
    method: methods.channel.createChannel,
    request: () => ({ kind: { case: 'group', value: { channelId: crypto.random(16) } } }),
  },
  {
    method: methods.channel.createChannel,
    request: () => ({ kind: { case: 'direct', value: { peerIdentityKey: crypto.random(32) } } }),
  },
  { method: methods.group.listGroupMembers, request: () => ({ channelId: crypto.random(16) }) },
  { method: methods.group.removeMember, request: () => ({ channelId: crypto.random(16), address: address() }) },
  {
    method: methods.group.updateGroupMetadata,
    request: () => ({ channelId: crypto.random(16), metadata: crypto.random(50) }),
    free: ['metadata'],
  },
  { method: methods.group.rotateKeys, request: () => ({ channelId: crypto.random(16) }) },
  { method: methods.user.resolveIdentity, request: () => ({ identityKey: crypto.random(32) }) },
  { method: methods.device.registerDevice, request: () => ({ signed: signedDevice() }), free: ['body'] },
  { method: methods.device.revokeDevice, request: () => ({ signed: signedRevocation() }), free: ['body'] },
  { method: methods.account.deleteAccount, request: () => ({ signed: signedDeletion() }), free: ['body'] },
  {
    method: methods.moderation.reportMessage,
    request: () => ({ encryptedReport: crypto.random(50), conversationId: crypto.random(16) }),
    free: ['encryptedReport'],
  },
  { method: methods.moderation.banUser, request: () => ({ identityKey: crypto.random(32) }) },
  { method: methods.moderation.unbanUser, request: () => ({ identityKey: crypto.random(32) }) },
  { method: methods.moderation.listBanned, request: () => ({ afterIdentityKey: crypto.random(32) }) },
  { method: methods.recovery.storeRecoveryBundle, request: bundleOf, free: ['body'] },
  {
    method: methods.recovery.fetchRecoveryBundle,
    request: () => ({ username: 'nobody', fetchToken: crypto.random(32) }),
  },
  { method: methods.recovery.deleteRecoveryBundle, request: () => ({ signed: signedBundle() }), free: ['body'] },
  { method: methods.p2p.resolveEndpoint, request: () => ({ address: address() }) },
  { method: methods.blob.uploadBlob, request: () => ({ blobId: crypto.random(32), size: 9n }) },
  { method: methods.blob.downloadBlob, request: () => ({ blobId: crypto.random(32) }) },
  { method: keys.revokeKey, request: () => ({ signed: signedKeyRevocation() }), free: ['body'] },
  { method: keys.checkRevocation, request: () => ({ addresses: [address()] }) },
];

/** Every `bytes` value in a message, as a way to replace it. */
function bytesFields(
  message: Message,
  schema: DescMessage,
): { name: string; get: Uint8Array; set(v: Uint8Array): void }[] {
  const values = message as unknown as Record<string, unknown>;
  return schema.fields.flatMap((field: DescField) => {
    const holder = field.oneof === undefined ? values : (values[field.oneof.localName] as Record<string, unknown>);
    const key = field.oneof === undefined ? field.localName : 'value';
    if (field.oneof !== undefined && holder['case'] !== field.localName) return [];
    const value = holder[key];
    if (field.fieldKind === 'message') {
      return value === undefined ? [] : bytesFields(value as Message, field.message);
    }
    if (field.fieldKind === 'list') {
      const list = value as unknown[];
      if (field.listKind === 'message') return list.flatMap((item) => bytesFields(item as Message, field.message));
      return list.flatMap((item, i) =>
        item instanceof Uint8Array
          ? [{ name: field.localName, get: item, set: (v: Uint8Array) => void (list[i] = v) }]
          : [],
      );
    }
    if (!(value instanceof Uint8Array) || value.length === 0) return [];
    return [{ name: field.localName, get: value, set: (v: Uint8Array) => void (holder[key] = v) }];
  });
}

async function statusOf(connection: TestConnection, method: MethodDescriptor, request: Message): Promise<number> {
  try {
    await connection.call(method, request);
    return Status.OK_UNSPECIFIED;
  } catch (error) {
    assert.ok(error instanceof RpcError, String(error));
    return error.status;
  }
}

for (const [index, { method, request, free = [] }] of CASES.entries()) {
  test(`wrong lengths, case ${index}: ${method.name}`, async () => {
    const connection = method.auth === 'anyone' ? anyone : session;
    const fresh = () => create(method.input, request());
    const count = bytesFields(fresh(), method.input).length;
    assert.ok(count > 0);
    for (let i = 0; i < count; i++) {
      for (const change of [-1, 1]) {
        const message = fresh();
        const field = bytesFields(message, method.input)[i]!;
        if (free.includes(field.name)) continue;
        const wrong = new Uint8Array(field.get.length + change);
        wrong.set(field.get.subarray(0, wrong.length));
        field.set(wrong);
        const status = await statusOf(connection, method, message);
        assert.equal(status, Status.INVALID_ARGUMENT, `${field.name} with ${wrong.length} bytes`);
      }
    }
  });
}

/** Methods whose requests have no field of a fixed length. */
const WITHOUT_LENGTHS: readonly MethodDescriptor[] = [
  auth.logout,
  auth.getNonce,
  delivery.subscribe,
  keys.uploadKeyPackage,
  keys.countKeyPackages,
  methods.user.resolveUser,
  methods.device.listDevices,
  methods.moderation.listReports,
  methods.device.registerPushToken,
  methods.p2p.publishEndpoint,
  methods.p2p.health,
  keys.auditKeyTransparency,
  keys.getTreeHead,
  keys.getConsistencyProof,
];

test('every method is in the table, or answers unimplemented, with and without a session', async () => {
  const implemented = new Set([...CASES.map((c) => c.method.id), ...WITHOUT_LENGTHS.map((m) => m.id)]);
  const others = [...methodsById.values()].filter((method) => !implemented.has(method.id));
  assert.deepEqual(
    others.map((method) => method.id).sort((x, y) => x - y),
    [900, 901, 902, 903, 904, 905],
  );
  for (const method of others) {
    for (const connection of [anyone, session]) {
      assert.equal(await statusOf(connection, method, create(method.input)), Status.UNIMPLEMENTED, method.name);
    }
  }
});

test('every method but those for anyone wants a session', async () => {
  const fresh = world.connect();
  for (const { method, request } of CASES) {
    if (method.auth === 'anyone') continue;
    assert.equal(await statusOf(fresh, method, create(method.input, request())), Status.UNAUTHENTICATED, method.name);
  }
});

test('positions beyond what can be counted are refused', async () => {
  const far = 2n ** 63n;
  const cases: [MethodDescriptor, Record<string, unknown>][] = [
    [delivery.ack, { ...inbox(), seqUpTo: far }],
    [delivery.peek, { ...inbox(), afterSeq: far }],
    [delivery.subscribe, { afterSeq: far }],
    [delivery.submitCommit, { channelId: crypto.random(16), messageId: messageId(), payload: envelope(3), after: far }],
    [delivery.fetchWait, { ...inbox(), timeoutMs: 60_001 }],
  ];
  for (const [method, request] of cases) {
    assert.equal(await statusOf(session, method, create(method.input, request)), Status.INVALID_ARGUMENT, method.name);
  }
});

test('random and mutated requests never meet a fault of the server', async () => {
  const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
  console.log(`seed ${seed}`);
  const random = xorshift(seed);
  for (const { method, request } of CASES) {
    for (let round = 0; round < 12; round++) {
      const bytes = toBinary(method.input, create(method.input, request()));
      for (let i = 0; i < 1 + (random() % 4); i++) bytes[random() % bytes.length] = random() & 0xff;
      let message: Message;
      try {
        message = fromBinary(method.input, bytes);
      } catch {
        continue;
      }
      const status = await statusOf(session, method, message);
      assert.notEqual(status, Status.INTERNAL, `${method.name}, seed ${seed}`);
    }
  }
  assert.deepEqual(
    world.log.lines.filter((line) => line.includes('"level":"error"')),
    [],
  );
});

function xorshift(seed: number): () => number {
  let x = seed | 1;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return x >>> 0;
  };
}
