/**
 * A whole server in a test: the real store in a temporary folder, the real dispatcher over the in-memory binding, and
 * people with real keys. Only the OPAQUE record of a person made here is random: those who never log in with a password
 * need no 180 ms of stretching.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { DescMessage, MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import { fromBinary, toBinary, create } from '@bufbuild/protobuf';
import {
  CERTIFICATE_LIFETIME_SECS,
  decodeLogEntry,
  generateSigningKey,
  generateVrfKeyPair,
  HISTORY_START,
  nextHistory,
  opaqueCreateSetup,
  opaqueReady,
  parseAccountStatement,
  signAccountStatement,
  signDeviceCertificate,
  signRequest,
  signResumeProof,
  verifyAccountStatement,
  vrfReady,
} from '@quicprochat/core';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { equal } from '@quicprochat/crypto';
import type { KeyPair } from '@quicprochat/crypto';
import { EnvelopesEventSchema, InboxGapEventSchema, PushEvent } from '@quicprochat/proto';
import type { Envelope, InboxGap, SignedRequest } from '@quicprochat/proto';
import { memoryPair, methods, RpcClient, systemClock } from '@quicprochat/transport';
import type { CallOptions, MemoryConnection, MethodDescriptor } from '@quicprochat/transport';
import type { AuditLine } from '../audit.ts';
import { openBlobFiles } from '../blob-files.node.ts';
import type { Log, ServerClock } from '../context.ts';
import { KeyTransparency } from '../key-transparency.ts';
import type { Observer } from '../observer.ts';
import type { LoadedPlugins } from '../plugin-host.node.ts';
import type { PushNotifiers } from '../push-notifier.ts';
import { DEFAULT_RATES } from '../rate-limits.ts';
import type { RateName, RateSettings } from '../rate-limits.ts';
import type { AtEndOfTurn } from '../receipt-signer.ts';
import { createServer } from '../server.ts';
import type { QuicprochatServer } from '../server.ts';
import { openSqliteStore } from '../store/sqlite.node.ts';
import { DEFAULT_STORE_LIMITS } from '../store/store.ts';
import type { Address, StatedEntry, Store, StoreLimits } from '../store/store.ts';

export const ORIGIN = 'chat.test';

/** Real time, moved on by hand where a test needs it to be later. */
export class TestClock implements ServerClock {
  #offsetMs = 0;
  #stopped: { readonly now: number; readonly wallMs: number } | undefined;

  advance(ms: number): void {
    this.#offsetMs += ms;
  }

  /** From here on time passes by `advance` only. */
  stop(): void {
    this.#stopped = { now: systemClock.now(), wallMs: Date.now() };
  }

  now(): number {
    return (this.#stopped?.now ?? systemClock.now()) + this.#offsetMs;
  }

  wallMs(): number {
    return (this.#stopped?.wallMs ?? Date.now()) + this.#offsetMs;
  }

  setTimer(callback: () => void, ms: number): unknown {
    return systemClock.setTimer(callback, ms);
  }

  clearTimer(timer: unknown): void {
    systemClock.clearTimer(timer);
  }
}

/** No limit on anything: for tests that are about something else. */
const NO_RATES: RateSettings = Object.fromEntries(
  (Object.keys(DEFAULT_RATES) as RateName[]).map((name) => [name, { burst: 1, perHour: 0 }]),
) as Record<RateName, { burst: number; perHour: number }>;

/** Keeps what was logged, so that a test can look for what must not be there. */
export class TestLog implements Log {
  readonly lines: string[] = [];

  debug(fields: object, message: string): void {
    this.#keep('debug', fields, message);
  }
  info(fields: object, message: string): void {
    this.#keep('info', fields, message);
  }
  warn(fields: object, message: string): void {
    this.#keep('warn', fields, message);
  }
  error(fields: object, message: string): void {
    this.#keep('error', fields, message);
  }

  #keep(level: string, fields: object, message: string): void {
    const plain = Object.entries(fields).map(([name, value]) => [
      name,
      value instanceof Error ? (value.stack ?? value.message) : (value as unknown),
    ]);
    this.lines.push(JSON.stringify({ level, message, ...Object.fromEntries(plain) }));
  }
}

/** A device of somebody, with its keys. */
export interface Person {
  readonly username: string;
  readonly identity: KeyPair;
  readonly device: KeyPair;
  readonly address: Address;
  readonly certificate: Uint8Array;
}

/** One connection to the server. */
export class TestConnection {
  readonly rpc: RpcClient;
  readonly wire: MemoryConnection;
  readonly envelopes: Envelope[] = [];
  readonly ephemeral: Envelope[] = [];
  readonly gaps: InboxGap[] = [];
  readonly notices: number[] = [];
  readonly events: { readonly eventType: number; readonly payload: Uint8Array }[] = [];
  /** Settles when the server has ended the push stream or the connection. */
  readonly closed: Promise<void>;
  #changed: (() => void)[] = [];

  constructor(wire: MemoryConnection) {
    this.wire = wire;
    let setClosed: () => void = () => {};
    this.closed = new Promise((resolve) => {
      setClosed = resolve;
    });
    this.rpc = new RpcClient(wire, {
      onPush: (eventType, payload) => this.#onPush(eventType, payload),
      onClose: () => setClosed(),
    });
  }

  call<I extends DescMessage, O extends DescMessage>(
    method: MethodDescriptor<I, O>,
    request: MessageInitShape<I>,
    options?: CallOptions,
  ): Promise<MessageShape<O>> {
    return this.rpc.call(method, request, options);
  }

  /** Resolves once `condition` holds; it is looked at after every event. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      await new Promise<void>((resolve) => this.#changed.push(resolve));
    }
  }

  #onPush(eventType: number, payload: Uint8Array): void {
    if (eventType === PushEvent.ENVELOPES) {
      const event = fromBinary(EnvelopesEventSchema, payload);
      this.envelopes.push(...event.envelopes);
      this.ephemeral.push(...event.ephemeral);
    } else if (eventType === PushEvent.INBOX_GAP) {
      const { gap } = fromBinary(InboxGapEventSchema, payload);
      if (gap !== undefined) this.gaps.push(gap);
    } else {
      this.notices.push(eventType);
      this.events.push({ eventType, payload: payload.slice() });
    }
    for (const resolve of this.#changed.splice(0)) resolve();
  }
}

export interface WorldOptions {
  readonly limits?: Partial<StoreLimits>;
  readonly rates?: Partial<RateSettings>;
  readonly notifiers?: PushNotifiers;
  readonly admins?: readonly string[];
  readonly observer?: (store: Store) => Observer;
  readonly plugins?: (parts: { clock: ServerClock; log: Log }) => Promise<LoadedPlugins>;
  readonly loginDeadlineMs?: number;
  /** Default: Node's own. */
  readonly atEndOfTurn?: AtEndOfTurn;
  /** Default: yes. */
  readonly allowSealedSender?: boolean;
}

/** What a statement says that the store does not know yet. */
export interface StatementChange {
  /** A certificate. */
  readonly add?: Uint8Array;
  /** A device id. */
  readonly remove?: Uint8Array;
  readonly revocation?: Uint8Array;
  readonly deleted?: boolean;
}

export class World {
  readonly store: Store;
  readonly server: QuicprochatServer;
  readonly keyTransparency: KeyTransparency;
  readonly clock: TestClock;
  readonly log: TestLog;
  /** What went into the audit log. */
  readonly audited: readonly AuditLine[];
  readonly #plugins: LoadedPlugins | undefined;
  readonly #folder: string;

  private constructor(
    parts: Pick<World, 'store' | 'server' | 'keyTransparency' | 'clock' | 'log' | 'audited'>,
    plugins: LoadedPlugins | undefined,
    folder: string,
  ) {
    this.store = parts.store;
    this.server = parts.server;
    this.keyTransparency = parts.keyTransparency;
    this.clock = parts.clock;
    this.log = parts.log;
    this.audited = parts.audited;
    this.#plugins = plugins;
    this.#folder = folder;
  }

  /** Somebody whose keys exist before the server does: an administrator has to be named in its configuration. */
  async registerAs(username: string, identity: KeyPair): Promise<Person> {
    const person = this.newDevice({ username, identity }, true);
    await this.#create(person);
    return person;
  }

  static async start(options: WorldOptions = {}): Promise<World> {
    await Promise.all([opaqueReady, vrfReady()]);
    const folder = mkdtempSync(path.join(tmpdir(), 'qpc-server-test-'));
    const store = await openSqliteStore({ path: path.join(folder, 'qpc.db'), limits: options.limits });
    const clock = new TestClock();
    const log = new TestLog();
    const keyTransparency = await KeyTransparency.open({
      crypto: nodeCrypto,
      store,
      clock,
      log,
      origin: ORIGIN,
      secrets: {
        checkpointPrivateKey: generateSigningKey(nodeCrypto).privateKey,
        vrf: generateVrfKeyPair(nodeCrypto),
      },
    });
    const plugins = await options.plugins?.({ clock, log });
    const audited: AuditLine[] = [];
    const server = createServer({
      keyTransparency,
      crypto: nodeCrypto,
      store,
      clock,
      log,
      version: '0.0.0-test',
      origin: ORIGIN,
      opaqueSetup: opaqueCreateSetup(),
      receiptPrivateKey: generateSigningKey(nodeCrypto).privateKey,
      atEndOfTurn: options.atEndOfTurn ?? setImmediate,
      storeLimits: { ...DEFAULT_STORE_LIMITS, ...options.limits },
      blobFiles: await openBlobFiles(path.join(folder, 'blobs')),
      rates: { ...NO_RATES, ...options.rates },
      ...(options.observer === undefined ? {} : { observer: options.observer(store) }),
      audit: { key: nodeCrypto.random(32), sink: { write: (line) => void audited.push(line) } },
      plugins,
      ...(options.loginDeadlineMs === undefined ? {} : { loginDeadlineMs: options.loginDeadlineMs }),
      allowSealedSender: options.allowSealedSender ?? true,
      ...(options.admins === undefined ? {} : { admins: options.admins }),
      ...(options.notifiers === undefined ? {} : { notifiers: options.notifiers }),
    });
    return new World({ store, server, keyTransparency, clock, log, audited }, plugins, folder);
  }

  get blobFolder(): string {
    return path.join(this.#folder, 'blobs');
  }

  /** @param from the client's network address; all without one share one */
  connect(from?: string): TestConnection {
    const { client, server } = memoryPair(from === undefined ? {} : { clientPeer: `${from}:4433` });
    this.server.accept(server);
    return new TestConnection(client);
  }

  /** Keys and a certificate that are nobody's yet. */
  newPerson(username: string): Person {
    const identity = generateSigningKey(nodeCrypto);
    return this.newDevice({ username, identity }, true);
  }

  newDevice(account: Pick<Person, 'username' | 'identity'>, manager = false, deviceId = nodeCrypto.random(16)): Person {
    const { username, identity } = account;
    const device = generateSigningKey(nodeCrypto);
    const nowSecs = Math.floor(this.clock.wallMs() / 1000);
    const certificate = signDeviceCertificate(nodeCrypto, identity.privateKey, {
      origin: ORIGIN,
      username,
      identityKey: identity.publicKey,
      deviceId,
      deviceKey: device.publicKey,
      manager,
      serial: 1n,
      notBeforeSecs: nowSecs - 60,
      notAfterSecs: nowSecs - 60 + CERTIFICATE_LIFETIME_SECS,
    });
    return { username, identity, device, address: { identityKey: identity.publicKey, deviceId }, certificate };
  }

  /** An account with one device, straight in the store. */
  async register(username: string): Promise<Person> {
    const person = this.newPerson(username);
    await this.#create(person);
    return person;
  }

  /** The account's next statement, signed by its identity key: as it is in the store, with this change. */
  async statement(account: Pick<Person, 'username' | 'identity'>, change: StatementChange = {}): Promise<Uint8Array> {
    const { username, identity } = account;
    const identityKey = identity.publicKey;
    const found = await this.store.findStatedAccount({ identityKey });
    const { stated } = found ?? {};
    const head = {
      origin: ORIGIN,
      username,
      identityKey,
      version: stated === undefined ? 0 : stated.version + 1,
      history:
        stated === undefined
          ? HISTORY_START
          : nextHistory(nodeCrypto, stated.history, decodeLogEntry(stated.entry)!.commitment),
    };
    if (change.deleted === true) {
      return signAccountStatement(nodeCrypto, identity.privateKey, { ...head, kind: 'deleted' });
    }
    const { remove, add, revocation } = change;
    const devices = found?.account.devices ?? [];
    const kept = devices.filter(({ deviceId }) => remove === undefined || !equal(deviceId, remove));
    const certificates = kept.map(({ certificate }) => certificate);
    if (add !== undefined) certificates.push(add);
    const revocations = (found?.revocations ?? []).map(({ statement }) => statement);
    if (revocation !== undefined) revocations.push(revocation);
    return signAccountStatement(nodeCrypto, identity.privateKey, { ...head, kind: 'keys', certificates, revocations });
  }

  /** As a handler takes a statement that it has checked. */
  async #enter(account: Pick<Person, 'username' | 'identity'>, add: Uint8Array): Promise<StatedEntry> {
    const identityKey = account.identity.publicKey;
    const parsed = parseAccountStatement(await this.statement(account, { add }))!;
    const { username, version } = parsed.claims;
    const outcome = verifyAccountStatement(nodeCrypto, parsed, { origin: ORIGIN, username, identityKey, version });
    if (outcome.kind === 'invalid') throw new Error(outcome.reason);
    const found = await this.store.findStatedAccount({ identityKey });
    return this.keyTransparency.enter(outcome.statement, found?.stated, found?.revocationCount ?? 0);
  }

  /** An account as one from before the log, straight in the store. */
  async registerUnstated(person: Person): Promise<void> {
    await this.#put(person, undefined);
  }

  async #create(person: Person): Promise<void> {
    await this.#put(person, await this.#enter(person, person.certificate));
    this.keyTransparency.accepted();
  }

  async #put(person: Person, stated: StatedEntry | undefined): Promise<void> {
    const outcome = await this.store.createAccount({
      username: person.username,
      identityKey: person.identity.publicKey,
      opaqueRecord: nodeCrypto.random(192),
      registrationSignature: nodeCrypto.random(64),
      firstDevice: storeDevice(person),
      stated,
      nowMs: this.clock.wallMs(),
    });
    if (outcome.kind !== 'created') throw new Error(outcome.kind);
  }

  /** Another device of an account, straight in the store. */
  async addDevice(account: Person): Promise<Person> {
    const person = this.newDevice(account);
    const outcome = await this.store.registerDevice({
      identityKey: account.identity.publicKey,
      device: storeDevice(person),
      stated: await this.#enter(account, person.certificate),
      nowMs: this.clock.wallMs(),
    });
    if (outcome.kind !== 'registered') throw new Error(outcome.kind);
    this.keyTransparency.accepted();
    return person;
  }

  /** A connection with a session of this device, by token and proof. */
  async login(person: Person, connection = this.connect()): Promise<TestConnection> {
    const token = nodeCrypto.random(32);
    const nowMs = this.clock.wallMs();
    await this.store.putSession({
      tokenHash: nodeCrypto.hash('sha256', token),
      address: person.address,
      expiresAtMs: nowMs + 86_400_000,
      nowMs,
    });
    await resume(connection, person, token);
    return connection;
  }

  /** A connection whose inbox is pushed from the beginning. */
  async subscribe(person: Person, afterSeq = 0n): Promise<TestConnection> {
    const connection = await this.login(person);
    await connection.call(methods.delivery.subscribe, { afterSeq });
    return connection;
  }

  /** A request signed for a method. */
  sign<D extends DescMessage>(
    key: KeyPair,
    methodId: number,
    schema: D,
    body: MessageInitShape<D>,
    timeMs = this.clock.wallMs(),
  ): Omit<SignedRequest, '$typeName' | '$unknown'> {
    const bytes = toBinary(schema, create(schema, body));
    const terms = { methodId, origin: ORIGIN, timeMs: BigInt(timeMs), body: bytes };
    return { body: bytes, timeMs: terms.timeMs, signature: signRequest(nodeCrypto, key.privateKey, terms) };
  }

  async close(): Promise<void> {
    await this.server.drain(1_000);
    await this.#plugins?.close();
    await this.store.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

export async function resume(connection: TestConnection, person: Person, token: Uint8Array) {
  const { nonce } = await connection.call(methods.auth.getNonce, {});
  const { deviceId } = person.address;
  const proof = { origin: ORIGIN, nonce, deviceId, token };
  const deviceSignature = signResumeProof(nodeCrypto, person.device.privateKey, proof);
  return connection.call(methods.auth.resumeSession, { token, deviceId, deviceSignature });
}

/** An envelope as the server sees one: a type byte and noise. */
export function envelope(type: 1 | 2 | 3, bytes = 512): Uint8Array {
  const out = nodeCrypto.random(Math.max(bytes, type === 1 ? 1_149 : 61));
  out[0] = type;
  return out;
}

export function messageId(): Uint8Array {
  return nodeCrypto.random(16);
}

function storeDevice(person: Person) {
  return {
    deviceId: person.address.deviceId,
    deviceKey: person.device.publicKey,
    certificate: person.certificate,
    name: 'test',
  };
}
