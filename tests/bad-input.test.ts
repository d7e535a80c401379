// THREATS 24, 27: every method of the contract with everything that is wrong, sent to the real server over QUIC, frame by
// frame. Each answer is the status that docs/wire.md names for it, and afterwards the server holds what it held before.
//
// A method without a row here fails the test.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createSocket } from 'node:dgram';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { create, type DescMessage, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import {
  generateSigningKey,
  opaqueLoginFinish,
  opaqueLoginStart,
  signResumeProof,
  signRevocation,
} from '@quicprochat/core';
import { encodeHex } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import {
  DeleteAccountBodySchema,
  DeleteRecoveryBundleBodySchema,
  GetNonceResponseSchema,
  OpaqueLoginFinishRequestSchema,
  OpaqueLoginStartRequestSchema,
  OpaqueLoginStartResponseSchema,
  RegisterDeviceBodySchema,
  ResumeSessionRequestSchema,
  RevokeDeviceBodySchema,
  RevokeKeyBodySchema,
  Status,
  StoreRecoveryBundleBodySchema,
  UploadHybridKeyBodySchema,
} from '@quicprochat/proto';
import {
  CloseCode,
  type Connection,
  type MethodDescriptor,
  methods,
  methodsById,
  RpcClient,
  statusName,
} from '@quicprochat/transport';
import { connectQuic } from '@quicprochat/transport/quic';
import { openDatabase } from '../packages/server/src/store/sqlite-database.node.ts';
import type { Held } from './process-probe.ts';
import { flagsFor, ServerProcess, UNLIMITED } from './server-process.ts';
import { login, newDevice, newPerson, nextStatement, type Person, QUICK_STRETCHING, register, signed } from './wire.ts';

const ORIGIN = 'bad.test';
const PASSWORD = 'a password';
const { auth, delivery, keys, channel, group, moderation, user, blob, device, recovery, p2p, federation, account } =
  methods;

/** What a request may name. */
interface Cast {
  readonly alice: Person;
  readonly bob: Person;
  /** A group of Bob's, without Alice. */
  readonly bobsChannel: Uint8Array;
  /** Signed by a key that has no business with it. */
  readonly stranger: Person;
}

interface Row {
  readonly method: MethodDescriptor;
  /** An empty request on a session. */
  readonly empty: Status;
  /** Requests that are well-formed and about other people's things, on Alice's session. */
  readonly foreign?: readonly [what: string, request: (cast: Cast) => Record<string, unknown>, Status][];
}

const {
  OK_UNSPECIFIED: OK,
  INVALID_ARGUMENT: INVALID,
  UNAUTHENTICATED,
  FORBIDDEN,
  NOT_FOUND,
  TOO_LARGE,
  UNIMPLEMENTED,
} = Status;

const inboxOf = ({ address }: Person) => ({ recipientKey: address.identityKey, deviceId: address.deviceId });
const envelope = (type: 1 | 3): Uint8Array => {
  const bytes = crypto.random(1_200);
  bytes[0] = type;
  return bytes;
};
const messageId = () => crypto.random(16);
/** As the method wants it, by the key of somebody else. */
const byStranger =
  <D extends DescMessage>(method: MethodDescriptor, schema: D, body: (cast: Cast) => MessageInitShape<D>) =>
  (cast: Cast) => ({ signed: signed(ORIGIN, cast.stranger.identity, method.id, schema, body(cast)) });
/** By the right key, for another method. */
const forAnother =
  <D extends DescMessage>(schema: D, body: (cast: Cast) => MessageInitShape<D>) =>
  (cast: Cast) => ({ signed: signed(ORIGIN, cast.alice.identity, auth.logout.id, schema, body(cast)) });
const revocationOf = (person: Person, by: Person) =>
  signRevocation(crypto, by.identity.privateKey, {
    origin: ORIGIN,
    address: person.address,
    deviceKey: person.device.publicKey,
    signer: 'identity',
    revokedAtSecs: 1,
  });

const ROWS: readonly Row[] = [
  { method: auth.opaqueRegisterStart, empty: INVALID },
  {
    method: auth.opaqueRegisterFinish,
    empty: INVALID,
    foreign: [
      [
        'an identity key that is not the caller’s',
        ({ bob, stranger }) => ({
          username: 'mallory',
          registrationRecord: crypto.random(192),
          identityKey: bob.address.identityKey,
          registrationSignature: crypto.random(64),
          deviceCertificate: stranger.certificate,
        }),
        INVALID,
      ],
    ],
  },
  { method: auth.opaqueLoginStart, empty: INVALID },
  {
    method: auth.opaqueLoginFinish,
    empty: INVALID,
    foreign: [
      [
        'a login of nobody',
        ({ bob }) => ({
          loginId: crypto.random(16),
          ke3: crypto.random(64),
          deviceId: bob.address.deviceId,
          deviceSignature: crypto.random(64),
        }),
        UNAUTHENTICATED,
      ],
    ],
  },
  {
    method: auth.resumeSession,
    empty: INVALID,
    foreign: [
      [
        'a token of nobody',
        ({ bob }) => ({
          token: crypto.random(32),
          deviceId: bob.address.deviceId,
          deviceSignature: crypto.random(64),
        }),
        UNAUTHENTICATED,
      ],
    ],
  },
  { method: auth.getNonce, empty: OK },
  {
    method: delivery.enqueue,
    empty: INVALID,
    foreign: [
      [
        'a channel of others',
        ({ bob, bobsChannel }) => ({
          ...inboxOf(bob),
          channelId: bobsChannel,
          messageId: messageId(),
          payload: envelope(3),
        }),
        NOT_FOUND,
      ],
    ],
  },
  { method: delivery.fetch, empty: INVALID, foreign: [['an inbox of others', ({ bob }) => inboxOf(bob), FORBIDDEN]] },
  {
    method: delivery.fetchWait,
    empty: INVALID,
    foreign: [['an inbox of others', ({ bob }) => inboxOf(bob), FORBIDDEN]],
  },
  { method: delivery.peek, empty: INVALID, foreign: [['an inbox of others', ({ bob }) => inboxOf(bob), FORBIDDEN]] },
  {
    method: delivery.ack,
    empty: INVALID,
    foreign: [['an inbox of others', ({ bob }) => ({ ...inboxOf(bob), seqUpTo: 9n }), FORBIDDEN]],
  },
  {
    method: delivery.batchEnqueue,
    empty: INVALID,
    foreign: [
      [
        'a channel of others',
        ({ bobsChannel }) => ({ channelId: bobsChannel, messageId: messageId(), payload: envelope(3) }),
        NOT_FOUND,
      ],
    ],
  },
  { method: delivery.subscribe, empty: OK },
  {
    method: delivery.submitCommit,
    empty: INVALID,
    foreign: [
      [
        'a channel of others',
        ({ bobsChannel }) => ({ channelId: bobsChannel, messageId: messageId(), payload: envelope(3) }),
        NOT_FOUND,
      ],
    ],
  },
  { method: keys.uploadKeyPackage, empty: OK },
  {
    method: keys.fetchKeyPackage,
    empty: INVALID,
    foreign: [['a key of nobody', () => ({ identityKey: crypto.random(32), suite: 1 }), NOT_FOUND]],
  },
  {
    method: keys.uploadHybridKey,
    empty: INVALID,
    foreign: [
      [
        'signed by another key',
        byStranger(keys.uploadHybridKey, UploadHybridKeyBodySchema, () => ({ hybridKey: crypto.random(1_300) })),
        UNAUTHENTICATED,
      ],
      ['signed for another method', forAnother(UploadHybridKeyBodySchema, () => ({})), UNAUTHENTICATED],
    ],
  },
  { method: keys.fetchHybridKey, empty: INVALID },
  { method: keys.fetchHybridKeys, empty: OK },
  { method: keys.countKeyPackages, empty: OK },
  {
    method: keys.revokeKey,
    empty: INVALID,
    foreign: [
      [
        'signed by another key',
        byStranger(keys.revokeKey, RevokeKeyBodySchema, ({ bob, stranger }) => ({
          revocation: revocationOf(bob, stranger),
        })),
        UNAUTHENTICATED,
      ],
      [
        'a device of others',
        ({ alice, bob }) => ({
          signed: signed(ORIGIN, alice.identity, keys.revokeKey.id, RevokeKeyBodySchema, {
            revocation: revocationOf(bob, alice),
          }),
        }),
        INVALID,
      ],
    ],
  },
  { method: keys.checkRevocation, empty: OK },
  { method: keys.auditKeyTransparency, empty: OK },
  { method: keys.getTreeHead, empty: OK },
  { method: keys.getConsistencyProof, empty: INVALID },
  { method: channel.createChannel, empty: INVALID },
  {
    method: group.removeMember,
    empty: INVALID,
    foreign: [
      ['a channel of others', ({ bob, bobsChannel }) => ({ channelId: bobsChannel, address: bob.address }), NOT_FOUND],
    ],
  },
  {
    method: group.updateGroupMetadata,
    empty: INVALID,
    foreign: [
      [
        'a channel of others',
        ({ bobsChannel }) => ({ channelId: bobsChannel, metadata: crypto.random(50) }),
        NOT_FOUND,
      ],
    ],
  },
  {
    method: group.listGroupMembers,
    empty: INVALID,
    foreign: [['a channel of others', ({ bobsChannel }) => ({ channelId: bobsChannel }), NOT_FOUND]],
  },
  {
    method: group.rotateKeys,
    empty: INVALID,
    foreign: [['a channel of others', ({ bobsChannel }) => ({ channelId: bobsChannel }), NOT_FOUND]],
  },
  { method: moderation.reportMessage, empty: INVALID },
  {
    method: moderation.banUser,
    empty: FORBIDDEN,
    foreign: [['by no administrator', ({ bob }) => ({ identityKey: bob.address.identityKey }), FORBIDDEN]],
  },
  {
    method: moderation.unbanUser,
    empty: FORBIDDEN,
    foreign: [['by no administrator', ({ bob }) => ({ identityKey: bob.address.identityKey }), FORBIDDEN]],
  },
  { method: moderation.listReports, empty: FORBIDDEN },
  { method: moderation.listBanned, empty: FORBIDDEN },
  { method: user.resolveUser, empty: INVALID },
  { method: user.resolveIdentity, empty: INVALID },
  {
    method: blob.uploadBlob,
    empty: INVALID,
  },
  {
    method: blob.downloadBlob,
    empty: INVALID,
    foreign: [['a blob of nobody', () => ({ blobId: crypto.random(32) }), NOT_FOUND]],
  },
  {
    method: device.registerDevice,
    empty: INVALID,
    foreign: [
      [
        'signed by another key',
        byStranger(device.registerDevice, RegisterDeviceBodySchema, ({ alice }) => ({
          deviceCertificate: newDevice(ORIGIN, alice).certificate,
        })),
        UNAUTHENTICATED,
      ],
      [
        'a device of others',
        ({ alice, bob }) => ({
          signed: signed(ORIGIN, alice.identity, device.registerDevice.id, RegisterDeviceBodySchema, {
            deviceCertificate: newDevice(ORIGIN, bob).certificate,
          }),
        }),
        INVALID,
      ],
    ],
  },
  { method: device.listDevices, empty: OK },
  {
    method: device.revokeDevice,
    empty: INVALID,
    foreign: [
      [
        'signed by another key',
        byStranger(device.revokeDevice, RevokeDeviceBodySchema, ({ bob, stranger }) => ({
          deviceId: bob.address.deviceId,
          revocation: revocationOf(bob, stranger),
        })),
        UNAUTHENTICATED,
      ],
      [
        'a device of others',
        ({ alice, bob }) => ({
          signed: signed(ORIGIN, alice.identity, device.revokeDevice.id, RevokeDeviceBodySchema, {
            deviceId: bob.address.deviceId,
            revocation: revocationOf(bob, alice),
          }),
        }),
        INVALID,
      ],
    ],
  },
  { method: device.registerPushToken, empty: OK },
  {
    method: recovery.storeRecoveryBundle,
    empty: INVALID,
    foreign: [
      [
        'signed by another key',
        byStranger(recovery.storeRecoveryBundle, StoreRecoveryBundleBodySchema, () => ({
          sealedData: crypto.random(50),
        })),
        UNAUTHENTICATED,
      ],
    ],
  },
  {
    method: recovery.fetchRecoveryBundle,
    empty: NOT_FOUND,
    foreign: [
      // Guessing at one account is slowed down after three attempts.
      [
        'a phrase of nobody',
        () => ({ username: `x${encodeHex(crypto.random(6))}`, fetchToken: crypto.random(32) }),
        UNAUTHENTICATED,
      ],
    ],
  },
  {
    method: recovery.deleteRecoveryBundle,
    empty: INVALID,
    foreign: [
      [
        'signed by another key',
        byStranger(recovery.deleteRecoveryBundle, DeleteRecoveryBundleBodySchema, () => ({})),
        UNAUTHENTICATED,
      ],
    ],
  },
  { method: p2p.publishEndpoint, empty: OK },
  {
    method: p2p.resolveEndpoint,
    empty: INVALID,
    foreign: [['somebody without a common channel', ({ bob }) => ({ address: bob.address }), OK]],
  },
  { method: p2p.health, empty: OK },
  { method: federation.relayEnqueue, empty: UNIMPLEMENTED },
  { method: federation.relayBatchEnqueue, empty: UNIMPLEMENTED },
  { method: federation.proxyFetchKeyPackage, empty: UNIMPLEMENTED },
  { method: federation.proxyFetchHybridKey, empty: UNIMPLEMENTED },
  { method: federation.proxyResolveUser, empty: UNIMPLEMENTED },
  { method: federation.federationHealth, empty: UNIMPLEMENTED },
  {
    method: account.deleteAccount,
    empty: INVALID,
    foreign: [
      [
        'signed by another key',
        byStranger(account.deleteAccount, DeleteAccountBodySchema, () => ({ username: 'alice' })),
        UNAUTHENTICATED,
      ],
      [
        'an account of others',
        ({ alice }) => ({
          signed: signed(ORIGIN, alice.identity, account.deleteAccount.id, DeleteAccountBodySchema, {
            username: 'bob',
          }),
        }),
        INVALID,
      ],
    ],
  },
  // Last: it ends the session that the others need.
  { method: auth.logout, empty: OK },
];

const FRAME_BYTES_MAX = 4 * 1024 * 1024;
const REQUEST_HEADER_BYTES = 10;
const RESPONSE_HEADER_BYTES = 9;

/** One connection, spoken to in frames: a method id and any bytes. */
class Frames {
  readonly #connection: Connection;
  readonly closed: Promise<void>;

  constructor(connection: Connection) {
    this.#connection = connection;
    this.closed = new Promise((resolve) => {
      connection.start({
        onStream: () => ({ onData() {}, onEnd() {}, onDrain() {}, onClose() {} }),
        onClose: () => resolve(),
      });
    });
  }

  /** The status of the answer; undefined when the stream or the connection ended instead. */
  async send(methodId: number, payload: Uint8Array, announced?: number): Promise<number | undefined> {
    return (await this.exchange(methodId, payload, announced)).status;
  }

  async exchange(
    methodId: number,
    payload: Uint8Array,
    announced = payload.length,
  ): Promise<{ readonly status: number | undefined; readonly answer: Uint8Array }> {
    return new Promise((resolve) => {
      const parts: Uint8Array[] = [];
      const over = (): void => {
        const frame = Buffer.concat(parts);
        resolve({ status: frame[0], answer: frame.subarray(RESPONSE_HEADER_BYTES) });
      };
      const stream = this.#connection.openStream({
        onData: (bytes) => {
          parts.push(bytes);
          // What was announced and never came is given up.
          if (announced > payload.length) stream?.reset(CloseCode.cancelled);
        },
        onEnd() {},
        onDrain() {},
        onClose: over,
      });
      if (stream === undefined) {
        over();
        return;
      }
      const header = new Uint8Array(REQUEST_HEADER_BYTES);
      const view = new DataView(header.buffer);
      view.setUint16(0, methodId);
      view.setUint32(2, 1);
      view.setUint32(6, announced);
      stream.write(header, payload);
      if (announced === payload.length) stream.end();
    });
  }

  close(): void {
    this.#connection.close(0, '');
  }
}

const folder = mkdtempSync(path.join(tmpdir(), 'qpc-bad-'));
let server: ServerProcess;
let port: number;
let trustAnchor: Uint8Array;
let cast: Cast;
let administrator: Person;
let aliceToken: Uint8Array;
const dial = (): Promise<Connection> => connectQuic({ host: '127.0.0.1', port, trustAnchor });

before(async () => {
  const identity = generateSigningKey(crypto);
  const started = await ServerProcess.start({
    nodeArgs: ['--expose-gc', '--import', path.join(import.meta.dirname, 'process-probe.ts')],
    ipc: true,
    args: flagsFor({
      ...UNLIMITED,
      dataDir: folder,
      listen: '127.0.0.1:0',
      origin: ORIGIN,
      metricsListen: 'off',
      logLevel: 'warn',
      shutdownGraceSecs: 1,
      admins: encodeHex(identity.publicKey),
    }),
  });
  ({ server } = started);
  ({ port } = started.ready);
  trustAnchor = new Uint8Array(readFileSync(started.ready.caCert));
  administrator = newPerson(ORIGIN, 'administrator', identity);
  const alice = newPerson(ORIGIN, 'alice');
  const bob = newPerson(ORIGIN, 'bob');
  const rpc = new RpcClient(await dial());
  for (const person of [alice, bob, administrator]) await register(rpc, ORIGIN, person, PASSWORD);
  aliceToken = await login(rpc, ORIGIN, alice, PASSWORD);
  await login(rpc, ORIGIN, bob, PASSWORD);
  const bobsChannel = crypto.random(16);
  const kind = { case: 'group', value: { channelId: bobsChannel } } as const;
  await rpc.call(channel.createChannel, { kind });
  rpc.close();
  cast = { alice, bob, bobsChannel, stranger: newPerson(ORIGIN, 'stranger') };
});
after(async () => {
  await server.end('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

test('every method of the contract has a row', () => {
  assert.deepEqual(
    ROWS.map(({ method }) => method.id).toSorted((a, b) => a - b),
    [...methodsById.keys()].toSorted((a, b) => a - b),
  );
});

/** `undefined`: the stream is closed without an answer. */
type Case = readonly [what: string, status: Status | undefined, payload: Uint8Array, announced?: number];

/** Whatever is wrong, on one connection: what came back where it was not what it has to be. */
async function wrongAnswers(
  frames: Frames,
  rows: readonly Row[],
  expected: (row: Row) => readonly Case[],
): Promise<string[]> {
  const found: string[] = [];
  for (const row of rows) {
    for (const [what, status, payload, announced] of expected(row)) {
      const answer = await frames.send(row.method.id, payload, announced);
      if (answer !== status) {
        found.push(`${row.method.name}, ${what}: ${nameOf(answer)} instead of ${nameOf(status)}`);
      }
    }
  }
  return found;
}

const nameOf = (status: number | undefined): string => (status === undefined ? 'no answer' : statusName(status));

const EMPTY = new Uint8Array(0);
/** The reserved wire type 7. */
const NO_WIRE_TYPE = new Uint8Array([0x0f, 1, 2, 3]);
/** A length of 2^32 - 1 with three bytes behind it. */
const LYING_LENGTH = new Uint8Array([0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2, 3]);
/** A number that does not end. */
const ENDLESS = new Uint8Array(32).fill(0xff);
/** Two bytes make a field: more of them than any honest request has. */
const MANY_FIELDS = new Uint8Array(2 * 70_000).map((_, at) => (at % 2 === 0 ? 15 * 8 : 1));

/** Nothing that is no message gets as far as a handler; what is too long is not even waited for. */
function malformed({ method }: Row): Case[] {
  const isThere = method.auth !== 'server';
  const invalid = isThere ? INVALID : UNIMPLEMENTED;
  const tooLarge = isThere ? TOO_LARGE : UNIMPLEMENTED;
  // Beyond what any frame may have.
  const isBeyond = method.requestMax >= FRAME_BYTES_MAX;
  return [
    ['no such wire type', invalid, NO_WIRE_TYPE],
    ['a lying length', invalid, LYING_LENGTH],
    ['an endless number', invalid, ENDLESS],
    [
      'too many fields',
      MANY_FIELDS.length > method.requestMax ? tooLarge : invalid,
      MANY_FIELDS.subarray(0, Math.min(MANY_FIELDS.length, method.requestMax + 1)),
    ],
    ['one byte more than allowed', isBeyond ? undefined : tooLarge, EMPTY, method.requestMax + 1],
  ];
}

/** Each field of a request with another wire type, and each number as large as it gets. Never a fault of the server. */
function wrongTypes({ method }: Row): [what: string, payload: Uint8Array][] {
  return method.input.fields.flatMap(({ number, localName }): [string, Uint8Array][] => [
    [`${localName} as 2^64 - 1`, new Uint8Array([...tag(number, 0), ...new Uint8Array(9).fill(0xff), 1])],
    [`${localName} as 64 bits`, new Uint8Array([...tag(number, 1), ...new Uint8Array(8).fill(0xff)])],
    [`${localName} as 32 bits`, new Uint8Array([...tag(number, 5), ...new Uint8Array(4).fill(0xff)])],
    [`${localName} as 300 bytes`, new Uint8Array([...tag(number, 2), 0xac, 2, ...new Uint8Array(300).fill(0x20)])],
    [`${localName} as text that is none`, new Uint8Array([...tag(number, 2), 4, 0xff, 0xfe, 0xc0, 0x80])],
    [`${localName} as a group`, new Uint8Array([...tag(number, 3), ...tag(number, 4)])],
  ]);
}

function tag(number: number, wireType: number): number[] {
  const value = number * 8 + wireType;
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, value >> 7];
}

/** What a request with a field of the wrong type may be told. */
const CLEAR: readonly number[] = [OK, INVALID, UNAUTHENTICATED, FORBIDDEN, NOT_FOUND, TOO_LARGE, UNIMPLEMENTED];

async function sessionOf(person: Person, token: Uint8Array): Promise<Frames> {
  const connection = await dial();
  const frames = new Frames(connection);
  await resumeOn(frames, person, token).then((status) => assert.equal(status, OK));
  return frames;
}

/** ResumeSession in frames; its status. */
async function resumeOn(frames: Frames, person: Person, token: Uint8Array): Promise<number | undefined> {
  const { answer } = await frames.exchange(auth.getNonce.id, EMPTY);
  const { nonce } = fromBinary(GetNonceResponseSchema, answer);
  const { deviceId } = person.address;
  const deviceSignature = signResumeProof(crypto, person.device.privateKey, { origin: ORIGIN, nonce, deviceId, token });
  const request = create(ResumeSessionRequestSchema, { token, deviceId, deviceSignature });
  return frames.send(auth.resumeSession.id, toBinary(ResumeSessionRequestSchema, request));
}

const WITHOUT_LOGOUT = ROWS.filter(({ method }) => method !== auth.logout);

async function everythingWrong(): Promise<string[]> {
  const alice = await sessionOf(cast.alice, aliceToken);
  const found = [
    ...(await wrongAnswers(alice, ROWS, malformed)),
    ...(await wrongAnswers(alice, WITHOUT_LOGOUT, ({ empty }) => [['empty', empty, EMPTY]])),
    ...(await wrongAnswers(alice, ROWS, ({ method, foreign = [] }) =>
      foreign.map(([what, request, status]) => [
        what,
        status,
        toBinary(method.input, create(method.input, request(cast))),
      ]),
    )),
  ];
  for (const row of WITHOUT_LOGOUT) {
    for (const [what, payload] of wrongTypes(row)) {
      const answer = await alice.send(row.method.id, payload);
      if (answer === undefined || !CLEAR.includes(answer)) found.push(`${row.method.name}, ${what}: ${nameOf(answer)}`);
    }
  }
  const unknown = await alice.send(0xfff0, EMPTY);
  if (unknown !== UNIMPLEMENTED) found.push(`a method that does not exist: ${nameOf(unknown)}`);
  alice.close();
  return found;
}

test('malformed, oversized, of wrong types, empty, about other people: each has its answer', async () => {
  assert.deepEqual(await everythingWrong(), []);
});

describe('without the standing for it', () => {
  /** As docs/wire.md has it: by the method's rule of who may call it. */
  const notAllowed =
    (status: Status) =>
    ({ method }: Row): Case[] => {
      const { auth: rule } = method;
      if (rule === 'anyone') return [];
      return [['not allowed', rule === 'server' ? UNIMPLEMENTED : status, NO_WIRE_TYPE]];
    };
  /** Decides by what the request holds, so it has to be one. */
  const isSealed = ({ method }: Row): boolean => method.auth === 'device-or-sealed';
  const others = ROWS.filter((row) => !isSealed(row));

  const hasNone = async (frames: Frames): Promise<void> => {
    assert.deepEqual(await wrongAnswers(frames, others, notAllowed(UNAUTHENTICATED)), []);
    for (const { method } of ROWS.filter(isSealed)) {
      assert.equal(await frames.send(method.id, EMPTY), method === delivery.batchEnqueue ? UNAUTHENTICATED : INVALID);
    }
    frames.close();
  };

  test('no session', async () => hasNone(new Frames(await dial())));

  test('a session that has expired, one that ended, one of a revoked device, a banned account', async () => {
    const rpc = new RpcClient(await dial());
    const victim = newPerson(ORIGIN, 'victim');
    await register(rpc, ORIGIN, victim, PASSWORD);
    const token = await login(rpc, ORIGIN, victim, PASSWORD);
    const spare = newDevice(ORIGIN, victim);
    const certificates = [victim.certificate, spare.certificate];
    const enrolled = await nextStatement(rpc, ORIGIN, victim, { certificates, revocations: [] });
    const { registerDevice, revokeDevice } = device;
    await rpc.call(registerDevice, {
      signed: signed(ORIGIN, victim.identity, registerDevice.id, RegisterDeviceBodySchema, {
        deviceCertificate: spare.certificate,
        accountStatement: enrolled,
      }),
    });
    const other = new RpcClient(await dial());
    const spareToken = await login(other, ORIGIN, spare, PASSWORD);
    other.close();

    // A right password on a device that nobody knows: recovery and nothing else.
    const unknown = new Frames(await dial());
    await recoverySession(unknown, victim);
    const allowed: readonly string[] = ['anyone', 'recovery', 'device-or-sealed'];
    const rest = others.filter(({ method }) => !allowed.includes(method.auth));
    assert.deepEqual(await wrongAnswers(unknown, rest, notAllowed(FORBIDDEN)), []);
    unknown.close();

    // Revoked: its connection ends, its token is worth nothing.
    const revoked = await sessionOf(spare, spareToken);
    const revocation = revocationOf(spare, victim);
    const left = { certificates: [victim.certificate], revocations: [revocation] };
    await rpc.call(revokeDevice, {
      signed: signed(ORIGIN, victim.identity, revokeDevice.id, RevokeDeviceBodySchema, {
        deviceId: spare.address.deviceId,
        revocation,
        accountStatement: await nextStatement(rpc, ORIGIN, victim, left),
      }),
    });
    await revoked.closed;
    const again = new Frames(await dial());
    assert.equal(await resumeOn(again, spare, spareToken), UNAUTHENTICATED);
    await hasNone(again);

    // Expired: as if thirty days had passed.
    const db = openDatabase({ path: path.join(folder, 'qpc.db'), key: undefined }, { cacheKiB: 1_000 });
    const tokenHash = crypto.hash('sha256', token);
    assert.equal(db.prepare('UPDATE session SET expires_at = 1 WHERE token_hash = ?').run(tokenHash).changes, 1);
    const expired = new Frames(await dial());
    assert.equal(await resumeOn(expired, victim, token), UNAUTHENTICATED);
    await hasNone(expired);
    const soon = Date.now() + 1_000_000;
    db.prepare('UPDATE session SET expires_at = ? WHERE token_hash = ?').run(soon, tokenHash);
    db.close();

    // Banned: its connections end, and who proves to be it hears why.
    const banned = await sessionOf(victim, token);
    const admin = new RpcClient(await dial());
    await login(admin, ORIGIN, administrator, PASSWORD);
    await admin.call(moderation.banUser, { identityKey: victim.address.identityKey, reason: 'spam' });
    await banned.closed;
    const back = new Frames(await dial());
    assert.equal(await resumeOn(back, victim, token), FORBIDDEN);
    await hasNone(back);
    admin.close();
    rpc.close();
  });

  test('a session that was logged out', async () => {
    const rpc = new RpcClient(await dial());
    const token = await login(rpc, ORIGIN, cast.bob, PASSWORD);
    rpc.close();
    const frames = await sessionOf(cast.bob, token);
    assert.equal(await frames.send(auth.logout.id, EMPTY), OK);
    assert.equal(await resumeOn(frames, cast.bob, token), UNAUTHENTICATED);
    await hasNone(frames);
  });
});

test('afterwards the server holds what it held before', async (t) => {
  // Once for what is loaded and compiled on first use.
  await nuisance();
  const before = await held();
  for (let round = 0; round < 3; round++) {
    await nuisance();
    assert.deepEqual(await everythingWrong(), []);
  }
  const after = await held();
  const grown = {
    heapKiB: Math.round((after.heapBytes - before.heapBytes) / 1024),
    rssKiB: Math.round((after.rssBytes - before.rssBytes) / 1024),
  };
  t.diagnostic(JSON.stringify({ before, after, grown }));
  assert.equal(after.files, before.files);
  // What 10,000 wrong requests of up to 140 kB each would leave, if each left a hundredth of itself.
  assert.ok(grown.heapKiB < 4_096, `the heap grew by ${grown.heapKiB} KiB`);
  assert.ok(grown.rssKiB < 65_536, `the process grew by ${grown.rssKiB} KiB`);
  assert.deepEqual(
    server.log.filter((line) => line.includes('"level":"error"')),
    [],
  );
});

/** What needs no session: datagrams that mean nothing, streams that say nothing, connections that are left lying. */
async function nuisance(): Promise<void> {
  const socket = createSocket('udp4');
  for (let n = 0; n < 500; n++) {
    const datagram = crypto.random(1 + (n % 1_200));
    // Half of them look like the beginning of a handshake.
    if (n % 2 === 0) datagram[0] = 0xc0 | (n & 0x3f);
    await new Promise<void>((resolve) => socket.send(datagram, port, '127.0.0.1', () => resolve()));
  }
  socket.close();
  const slow = new Frames(await dial());
  const waiting = Array.from({ length: 40 }, () => slow.send(delivery.enqueue.id, crypto.random(10), 4_000_000));
  assert.equal(await slow.send(p2p.health.id, EMPTY), OK);
  slow.close();
  await Promise.all(waiting);
  const abandoned = await Promise.all(Array.from({ length: 10 }, () => dial()));
  for (const connection of abandoned) new Frames(connection).close();
}

/** Heap and memory of the server when it has nothing to do, and its open files. */
async function held(): Promise<Held & { readonly files: number }> {
  // Ends of connections are on their way; they need no answer, so only time shows that they have come.
  const rpc = new RpcClient(await dial());
  await rpc.call(p2p.health, {});
  rpc.close();
  let least: Held | undefined;
  for (let n = 0; n < 3; n++) {
    await setTimeout(300);
    const answer = once(server.child, 'message');
    server.child.send('read');
    const [now] = (await answer) as [Held];
    if (least === undefined || now.heapBytes < least.heapBytes) least = now;
  }
  assert.ok(least !== undefined);
  return { ...least, files: readdirSync(`/proc/${server.child.pid}/fd`).length };
}

/** A login with the right password, from a device that the account does not have. */
async function recoverySession(frames: Frames, { username }: Person): Promise<void> {
  const { state, ke1 } = opaqueLoginStart(PASSWORD);
  const start = toBinary(OpaqueLoginStartRequestSchema, create(OpaqueLoginStartRequestSchema, { username, ke1 }));
  const { answer } = await frames.exchange(auth.opaqueLoginStart.id, start);
  const { ke2, loginId } = fromBinary(OpaqueLoginStartResponseSchema, answer);
  const proven = opaqueLoginFinish(state, { username, origin: ORIGIN }, ke2, undefined, QUICK_STRETCHING);
  assert.ok(proven.kind === 'proven');
  const finish = create(OpaqueLoginFinishRequestSchema, {
    loginId,
    ke3: proven.ke3,
    deviceId: crypto.random(16),
    deviceSignature: crypto.random(64),
  });
  assert.equal(await frames.send(auth.opaqueLoginFinish.id, toBinary(OpaqueLoginFinishRequestSchema, finish)), OK);
}
