/**
 * The server without its surroundings: a store, secrets and a clock in; a dispatcher that takes connections out. What
 * runs on Node around it is `server.node.ts`; tests run it over the in-memory binding.
 */
import { create, toBinary } from '@bufbuild/protobuf';
import { opaqueServerPublicKey } from '@quicprochat/core';
import { encodeHex } from '@quicprochat/crypto';
import type { CryptoProvider } from '@quicprochat/crypto';
import { PushEvent, ServerNoticeEventSchema } from '@quicprochat/proto';
import { RpcServer } from '@quicprochat/transport';
import type { Connection, ServerLimits } from '@quicprochat/transport';
import { Auditor } from './audit.ts';
import type { AuditSink } from './audit.ts';
import { Blobs } from './blobs.ts';
import type { BlobFiles } from './blobs.ts';
import { limitCall, paceCall } from './call-guard.ts';
import { endIdle } from './connection-guard.ts';
import { newConnectionState } from './context.ts';
import type { ConnectionState, Log, ServerClock, ServerContext } from './context.ts';
import { authorize } from './handler.ts';
import type { KeyTransparency } from './key-transparency.ts';
import { LiveDevices } from './live-devices.ts';
import { NO_OBSERVER } from './observer.ts';
import type { Observer } from './observer.ts';
import { createOperations } from './operator/operations.ts';
import type { Operations } from './operator/operations.ts';
import type { Plugins } from './plugins.ts';
import { PushWakeUps } from './push-notifier.ts';
import type { PushNotifiers } from './push-notifier.ts';
import { networkOf, RateLimits } from './rate-limits.ts';
import type { RateSettings } from './rate-limits.ts';
import { ReadTurns } from './read-turns.ts';
import { ReceiptSigner } from './receipt-signer.ts';
import type { AtEndOfTurn } from './receipt-signer.ts';
import { routes } from './routes.ts';
import { endSession } from './sessions.ts';
import type { Store, StoreLimits } from './store/store.ts';

/** What a server is made of. */
export interface ServerParts {
  readonly crypto: CryptoProvider;
  readonly store: Store;
  readonly clock: ServerClock;
  readonly log: Log;
  readonly version: string;
  readonly origin: string;
  /** From `opaqueCreateSetup`, which `opaqueReady` precedes. */
  readonly opaqueSetup: Uint8Array;
  /** Ed25519. */
  readonly receiptPrivateKey: Uint8Array;
  readonly atEndOfTurn: AtEndOfTurn;
  /** On the same store. */
  readonly keyTransparency: KeyTransparency;
  readonly storeLimits: StoreLimits;
  readonly rates: RateSettings;
  readonly blobFiles: BlobFiles;
  /** Default: nobody looks. */
  readonly observer?: Observer;
  /** Where the audit log goes, and the key of its hashes, 32 bytes; default: nowhere. */
  readonly audit?: { readonly key: Uint8Array; readonly sink: AuditSink | undefined };
  /** Default: none. */
  readonly plugins?: Plugins | undefined;
  /** A connection without a device's session that is not used for this long ends; default: two minutes. */
  readonly loginDeadlineMs?: number;
  /** PROTOCOL 6; default: no. */
  readonly allowSealedSender?: boolean;
  /** Identity keys of administrators, 64 hex digits each; default: none. */
  readonly admins?: readonly string[];
  /** By kind; default: none. */
  readonly notifiers?: PushNotifiers;
  /** What reports are sealed to; default: there is none, and it may get one later. */
  readonly reportKey?: { publicKey: Uint8Array | undefined };
  readonly connectionLimits?: Partial<ServerLimits>;
}

export interface QuicprochatServer {
  readonly origin: string;
  /** Takes a connection over; give this to a listener. */
  readonly accept: (connection: Connection) => void;
  /** Finishes the calls in flight and sends everyone away; what takes longer than `graceMs` is cut. */
  drain(graceMs: number): Promise<void>;
  /** The same, but everything else goes on, and after `resume` everyone may come back. */
  pause(graceMs: number): Promise<void>;
  resume(): void;
  /** For the operator. */
  readonly operations: Operations;
  readonly auditor: Auditor;
  readonly blobs: Blobs;
  readonly startedAtMs: number;
  readonly connections: number;
  /** Calls that arrive, wait for their turn, or are handled. */
  readonly inFlight: number;
  readonly keyTransparency: KeyTransparency;
}

const PURGE_EVERY_MS = 60_000;
const PURGE_ROUNDS_MAX = 200;
const RECONNECT_AFTER_MS = 1_000;
const LOGIN_DEADLINE_MS = 120_000;
const IDLE_LOOKS_PER_DEADLINE = 4;

/** @throws Error when a secret is damaged */
export function createServer(parts: ServerParts): QuicprochatServer {
  const { crypto, clock, log, store, observer = NO_OBSERVER } = parts;
  const opaquePublicKey = opaqueServerPublicKey(parts.opaqueSetup);
  if (opaquePublicKey === undefined) throw new Error('the OPAQUE server setup is damaged');
  const { origin, receiptPrivateKey: privateKey, atEndOfTurn } = parts;
  const receipts = new ReceiptSigner({ crypto, origin, privateKey, atEndOfTurn });
  let leaving = new AbortController();
  const logKey = crypto.random(32);
  const run = encodeHex(crypto.random(4));
  const { key, sink } = parts.audit ?? { key: crypto.random(32), sink: undefined };
  const auditor = new Auditor({ crypto, clock, log, key, sink });
  const live = new LiveDevices();
  const notifiers: PushNotifiers = parts.notifiers ?? new Map();
  const wakeUps = new PushWakeUps({ store, clock, log, notifiers });
  const server: ServerContext = {
    crypto,
    store,
    clock,
    log,
    observer,
    auditor,
    plugins: parts.plugins,
    version: parts.version,
    startedAtMs: clock.wallMs(),
    origin: parts.origin,
    opaqueSetup: parts.opaqueSetup,
    opaquePublicKey,
    receipts,
    keyTransparency: parts.keyTransparency,
    storeLimits: parts.storeLimits,
    rates: new RateLimits(clock, parts.rates, observer),
    readTurns: new ReadTurns(),
    reportKey: parts.reportKey ?? { publicKey: undefined },
    admins: new Set(parts.admins),
    allowSealedSender: parts.allowSealedSender ?? false,
    blobs: new Blobs({ crypto, store, log, files: parts.blobFiles, uploadTtlMs: parts.storeLimits.uploadTtlMs }),
    live,
    notifiers,
    wakeUps,
    arrived: (addresses, rows) => {
      live.wake(addresses, rows);
      if (notifiers.size > 0) for (const address of addresses) if (!live.has(address)) wakeUps.knock(address);
    },
    get leaving() {
      return leaving.signal;
    },
    callId: (sequence) => `${run}-${sequence}`,
    reference: (bytes) => encodeHex(crypto.hmac('sha256', logKey, bytes).subarray(0, 6)),
  };
  const rpc = new RpcServer<ConnectionState>({
    routes: routes(server),
    newState: (connection) => newConnectionState(clock, connection),
    addressOf: networkOf,
    pace: (connection, context) => paceCall(server, connection, context),
    authorize: (context) => {
      limitCall(server, context);
      authorize(context);
    },
    clock,
    ...(parts.connectionLimits === undefined ? {} : { limits: parts.connectionLimits }),
    onDisconnect: (connection, reason) => {
      endSession(server, connection);
      connection.state.logins.clear();
      log.debug({ connection: connection.id, kind: reason.kind, code: reason.code }, 'connection ended');
    },
    onAnswered: (method, status, durationMs, context) => {
      observer.answered(method?.name, status, durationMs);
      if (log.isLevelEnabled?.('debug') !== false) {
        const call = context === undefined ? undefined : server.callId(context.sequence);
        const fields = { call, connection: context?.connection.id, method: method?.name, status };
        log.debug({ ...fields, durationMs: Math.round(durationMs * 1000) / 1000 }, 'answered');
      }
    },
    onFault: (method, error, { sequence }) => {
      log.error({ method: method.name, call: server.callId(sequence), err: error }, 'an answer could not be encoded');
    },
  });
  const stopPurging = purgeRegularly(server);
  const pause = async (graceMs: number): Promise<void> => {
    const notice = create(ServerNoticeEventSchema, { reconnectAfterMs: RECONNECT_AFTER_MS });
    const payload = toBinary(ServerNoticeEventSchema, notice);
    for (const connection of rpc.connections) {
      connection.state.pump?.stop();
      if (connection.state.session?.kind === 'device') connection.push(PushEvent.SERVER_NOTICE, payload);
    }
    leaving.abort();
    await rpc.drain(graceMs);
  };
  const deadlineMs = parts.loginDeadlineMs ?? LOGIN_DEADLINE_MS;
  const stopEnding = regularly(clock, deadlineMs / IDLE_LOOKS_PER_DEADLINE, () =>
    endIdle(rpc.connections, clock.now(), deadlineMs, observer),
  );
  auditor.lifecycle('server_started');

  return {
    origin: parts.origin,
    accept: rpc.accept,
    drain: async (graceMs) => {
      stopPurging();
      stopEnding();
      wakeUps.stop();
      receipts.close();
      await pause(graceMs);
      await parts.keyTransparency.close();
      auditor.lifecycle('server_stopped');
    },
    pause,
    resume: () => {
      leaving = new AbortController();
      rpc.resume();
    },
    operations: createOperations(server),
    auditor,
    blobs: server.blobs,
    startedAtMs: server.startedAtMs,
    keyTransparency: parts.keyTransparency,
    get connections() {
      return [...rpc.connections].length;
    },
    get inFlight() {
      return rpc.inFlight;
    },
  };
}

/** Until the function returned is called. */
function regularly(clock: ServerClock, everyMs: number, run: () => void): () => void {
  const again = (): void => {
    run();
    timer = clock.setTimer(again, everyMs);
  };
  let timer = clock.setTimer(again, everyMs);
  return () => clock.clearTimer(timer);
}

/** Removes what has expired, in small transactions so that nobody waits behind it. */
function purgeRegularly(server: ServerContext): () => void {
  const { clock, log, store } = server;
  let stopped = false;
  let timer: unknown;
  const schedule = (): void => {
    if (!stopped) timer = clock.setTimer(() => void purge(), PURGE_EVERY_MS);
  };
  const purge = async (): Promise<void> => {
    try {
      for (let round = 0; round < PURGE_ROUNDS_MAX; round++) {
        const outcome = await store.purge(clock.wallMs());
        server.live.wake(outcome.wake);
        if (stopped || !outcome.more) break;
      }
      if (!stopped) await server.blobs.collect(clock.wallMs());
    } catch (error) {
      log.warn({ err: error }, 'expired rows could not be removed; trying again later');
    }
    schedule();
  };
  schedule();
  return () => {
    stopped = true;
    clock.clearTimer(timer);
  };
}
