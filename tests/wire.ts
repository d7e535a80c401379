// People at transport level: real keys, real registration and sessions, no SDK. A `Device` lives through the server's
// deaths: it connects again, resumes its session, and says of every call whether it was answered.
import { setTimeout as delay } from 'node:timers/promises';
import { create, type DescMessage, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import {
  CERTIFICATE_LIFETIME_SECS,
  computeCommitment,
  type DeviceAddress,
  generateSigningKey,
  HISTORY_START,
  nextHistory,
  opaqueLoginFinish,
  opaqueLoginStart,
  opaqueReady,
  opaqueRegisterFinish,
  opaqueRegisterStart,
  parseAccountStatement,
  type PasswordStretching,
  signAccountStatement,
  signDeviceCertificate,
  signLoginProof,
  signRegistration,
  signRequest,
  signResumeProof,
} from '@quicprochat/core';
import type { KeyPair } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import {
  type Envelope,
  EnvelopesEventSchema,
  PushEvent,
  RegisterDeviceBodySchema,
  type SignedRequest,
  Status,
} from '@quicprochat/proto';
import {
  ConnectError,
  ConnectionLost,
  methods,
  RpcClient,
  type RpcClientOptions,
  RpcError,
} from '@quicprochat/transport';
import { connectQuic } from '@quicprochat/transport/quic';

/** Where the server is, and whether it is there. */
export interface Site {
  readonly port: number;
  readonly origin: string;
  readonly trustAnchor: Uint8Array;
  /** Resolves when there is a server to connect to. */
  whenUp(): Promise<void>;
  /** Aborted when the present server is gone; a new one has a new signal. */
  readonly down: AbortSignal;
}

/** An account's keys and those of one device. */
export interface Person {
  readonly username: string;
  readonly identity: KeyPair;
  readonly device: KeyPair;
  readonly address: DeviceAddress;
  readonly certificate: Uint8Array;
}

export function newPerson(origin: string, username: string, identity = generateSigningKey(crypto)): Person {
  return newDevice(origin, { username, identity }, true);
}

export function newDevice(origin: string, of: Pick<Person, 'username' | 'identity'>, manager = false): Person {
  const { username, identity } = of;
  const device = generateSigningKey(crypto);
  const deviceId = crypto.random(16);
  const notBeforeSecs = Math.floor(Date.now() / 1000) - 60;
  const certificate = signDeviceCertificate(crypto, identity.privateKey, {
    origin,
    username,
    identityKey: identity.publicKey,
    deviceId,
    deviceKey: device.publicKey,
    manager,
    serial: 1n,
    notBeforeSecs,
    notAfterSecs: notBeforeSecs + CERTIFICATE_LIFETIME_SECS,
  });
  return { username, identity, device, address: { identityKey: identity.publicKey, deviceId }, certificate };
}

/** What the key-transparency log is told of an account with one device and no past. */
function firstStatement(origin: string, { username, identity, certificate }: Person): Uint8Array {
  return signAccountStatement(crypto, identity.privateKey, {
    kind: 'keys',
    origin,
    username,
    identityKey: identity.publicKey,
    version: 0,
    history: HISTORY_START,
    certificates: [certificate],
    revocations: [],
  });
}

/** The account's next statement, by what the server and its log say of the account now. */
export async function nextStatement(
  rpc: RpcClient,
  origin: string,
  { username, identity }: Pick<Person, 'username' | 'identity'>,
  after: { readonly certificates: readonly Uint8Array[]; readonly revocations: readonly Uint8Array[] },
): Promise<Uint8Array> {
  const { outcome } = await rpc.call(methods.user.resolveUser, { username });
  if (outcome.case !== 'found' || outcome.value.keyTransparency === undefined) {
    throw new Error(`${username} is not in the log`);
  }
  const { opening, version, statement } = outcome.value.keyTransparency;
  const newest = parseAccountStatement(statement);
  if (newest === undefined) throw new Error('the newest statement cannot be read');
  const commitment = computeCommitment(crypto, { opening, username, version, statement });
  return signAccountStatement(crypto, identity.privateKey, {
    kind: 'keys',
    origin,
    username,
    identityKey: identity.publicKey,
    version: version + 1,
    history: nextHistory(crypto, newest.claims.history, commitment),
    ...after,
  });
}

export function signed<D extends DescMessage>(
  origin: string,
  key: KeyPair,
  methodId: number,
  schema: D,
  body: MessageInitShape<D>,
): Omit<SignedRequest, '$typeName' | '$unknown'> {
  const bytes = toBinary(schema, create(schema, body));
  const terms = { methodId, origin, timeMs: BigInt(Date.now()), body: bytes };
  return { body: bytes, timeMs: terms.timeMs, signature: signRequest(crypto, key.privateKey, terms) };
}

/** A request as another device of the account would make it: the account as it is, stated anew after its first statement. */
export function statedAnew(
  account: {
    readonly origin: string;
    readonly username: string;
    readonly identityKey: Uint8Array;
    readonly identityPrivateKey?: Uint8Array | undefined;
    readonly certificate: Uint8Array;
  },
  firstCommitment: Uint8Array,
): { readonly signed: Omit<SignedRequest, '$typeName' | '$unknown'> } {
  const { origin, username, identityKey, identityPrivateKey: privateKey, certificate } = account;
  if (privateKey === undefined) throw new Error('only a manager states the account');
  const accountStatement = signAccountStatement(crypto, privateKey, {
    kind: 'keys',
    origin,
    username,
    identityKey,
    version: 1,
    history: nextHistory(crypto, HISTORY_START, firstCommitment),
    certificates: [certificate],
    revocations: [],
  });
  const body = { deviceCertificate: certificate, accountStatement };
  const key = { privateKey, publicKey: identityKey };
  return { signed: signed(origin, key, methods.device.registerDevice.id, RegisterDeviceBodySchema, body) };
}

export async function connect(
  { port, trustAnchor }: Pick<Site, 'port' | 'trustAnchor'>,
  options?: RpcClientOptions,
): Promise<RpcClient> {
  return new RpcClient(await connectQuic({ host: '127.0.0.1', port, trustAnchor }), options);
}

/** Tests make accounts by the hundred, and nobody guesses at their passwords. */
export const QUICK_STRETCHING: PasswordStretching = { iterations: 1, memory: 1_024, parallelism: 1 };

/** Registers an account and its first device. */
export async function register(rpc: RpcClient, origin: string, person: Person, password: string): Promise<void> {
  await opaqueReady;
  const { username, identity, certificate } = person;
  const { state, request } = opaqueRegisterStart(password);
  const start = await rpc.call(methods.auth.opaqueRegisterStart, { username, registrationRequest: request });
  const finished = opaqueRegisterFinish(
    state,
    { username, origin },
    start.registrationResponse,
    undefined,
    QUICK_STRETCHING,
  );
  if (finished.kind !== 'registered') throw new Error(`registration: ${finished.kind}`);
  const { record } = finished;
  await rpc.call(methods.auth.opaqueRegisterFinish, {
    username,
    registrationRecord: record,
    identityKey: identity.publicKey,
    registrationSignature: signRegistration(crypto, identity.privateKey, { origin, username, record, certificate }),
    deviceCertificate: certificate,
    deviceName: 'wire',
    accountStatement: firstStatement(origin, person),
  });
}

/** Logs a device in; its session token. */
export async function login(rpc: RpcClient, origin: string, person: Person, password: string): Promise<Uint8Array> {
  await opaqueReady;
  const { username, device, address } = person;
  const { deviceId } = address;
  const { state, ke1 } = opaqueLoginStart(password);
  const { ke2, loginId, nonce } = await rpc.call(methods.auth.opaqueLoginStart, { username, ke1 });
  const proven = opaqueLoginFinish(state, { username, origin }, ke2, undefined, QUICK_STRETCHING);
  if (proven.kind !== 'proven') throw new Error(`login: ${proven.kind}`);
  const deviceSignature = signLoginProof(crypto, device.privateKey, { origin, nonce, deviceId });
  const answer = await rpc.call(methods.auth.opaqueLoginFinish, {
    loginId,
    ke3: proven.ke3,
    deviceId,
    deviceSignature,
  });
  if (answer.outcome.case !== 'session') throw new Error(`login: ${answer.outcome.case}`);
  return answer.outcome.value.token;
}

export async function resume(rpc: RpcClient, origin: string, person: Person, token: Uint8Array): Promise<void> {
  const { nonce } = await rpc.call(methods.auth.getNonce, {});
  const { deviceId } = person.address;
  const deviceSignature = signResumeProof(crypto, person.device.privateKey, { origin, nonce, deviceId, token });
  await rpc.call(methods.auth.resumeSession, { token, deviceId, deviceSignature });
}

export type Attempt<T> =
  | { readonly kind: 'answered'; readonly value: T }
  | { readonly kind: 'refused'; readonly error: RpcError }
  /** Nobody knows whether it happened. */
  | { readonly kind: 'lost' };

const RETRY_MS = 20;

/** One device, with a connection whenever there is a server. */
export class Device {
  readonly person: Person;
  readonly inbox: string;
  readonly #site: Site;
  readonly #token: Uint8Array;
  readonly #onEnvelope: ((envelope: Envelope, reading: number) => void) | undefined;
  #rpc: Promise<RpcClient> | undefined;
  #cursor = 0n;
  /** Up to here nothing is wanted again. */
  acknowledged = 0n;
  static #readings = 0;

  /**
   * @param inbox what its inbox is called in a history
   * @param onEnvelope what is pushed, in order; undefined leaves the device unsubscribed
   */
  constructor(
    site: Site,
    person: Person,
    token: Uint8Array,
    inbox: string,
    onEnvelope?: (envelope: Envelope, reading: number) => void,
  ) {
    this.#site = site;
    this.person = person;
    this.inbox = inbox;
    this.#token = token;
    this.#onEnvelope = onEnvelope;
  }

  /** The highest seq that has come. */
  get cursor(): bigint {
    return this.#cursor;
  }

  /** One attempt, on whatever connection there is. */
  async try<T>(body: (rpc: RpcClient) => Promise<T>): Promise<Attempt<T>> {
    let rpc: RpcClient;
    try {
      rpc = await this.#connected();
    } catch (error) {
      if (isLoss(error)) return { kind: 'lost' };
      if (error instanceof RpcError) return { kind: 'refused', error };
      throw error;
    }
    try {
      return { kind: 'answered', value: await body(rpc) };
    } catch (error) {
      if (isLoss(error)) return { kind: 'lost' };
      if (error instanceof RpcError) return { kind: 'refused', error };
      throw error;
    }
  }

  /** The same until it is answered. A refusal is an error. */
  async insist<T>(body: (rpc: RpcClient) => Promise<T>, onLost: () => void = () => {}): Promise<T> {
    for (;;) {
      const attempt = await this.try(body);
      if (attempt.kind === 'answered') return attempt.value;
      if (attempt.kind === 'refused') throw attempt.error;
      onLost();
      // A server that is going away refuses at once, for as long as it is still there.
      await delay(RETRY_MS);
    }
  }

  /** A number that no other reading of an inbox has. */
  static nextReading(): number {
    Device.#readings += 1;
    return Device.#readings;
  }

  async close(): Promise<void> {
    const rpc = await this.#rpc?.catch(() => undefined);
    rpc?.close();
  }

  #connected(): Promise<RpcClient> {
    return (this.#rpc ??= this.#connect());
  }

  async #connect(): Promise<RpcClient> {
    try {
      await this.#site.whenUp();
      const { down, origin } = this.#site;
      const reading = Device.nextReading();
      const rpc = await connect(this.#site, {
        onPush: (event, payload) => this.#onPush(event, payload, reading),
        onClose: () => {
          this.#rpc = undefined;
        },
      });
      // A killed server says no goodbye; whoever is told spares the wait for it.
      if (down.aborted) rpc.close();
      else down.addEventListener('abort', () => rpc.close(), { once: true });
      await resume(rpc, origin, this.person, this.#token);
      if (this.#onEnvelope !== undefined) {
        await rpc.call(methods.delivery.subscribe, { afterSeq: this.acknowledged });
      }
      return rpc;
    } catch (error) {
      this.#rpc = undefined;
      throw error;
    }
  }

  #onPush(event: number, payload: Uint8Array, reading: number): void {
    if (event !== PushEvent.ENVELOPES) return;
    for (const envelope of fromBinary(EnvelopesEventSchema, payload).envelopes) {
      if (envelope.seq > this.#cursor) this.#cursor = envelope.seq;
      this.#onEnvelope?.(envelope, reading);
    }
  }
}

const NOT_ANSWERED: readonly number[] = [Status.UNAVAILABLE, Status.CANCELLED, Status.DEADLINE_EXCEEDED];

function isLoss(error: unknown): boolean {
  if (error instanceof ConnectionLost || error instanceof ConnectError) return true;
  return error instanceof RpcError && NOT_ANSWERED.includes(error.status);
}
