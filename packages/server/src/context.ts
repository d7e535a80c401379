/**
 * What every handler works with. `ServerContext` is the one server, `ConnectionState` belongs to one connection and ends
 * with it. Nothing here knows Node: files, sockets and certificates are the business of `server.node.ts`.
 */
import type { CryptoProvider } from '@quicprochat/crypto';
import type { Clock, ServerConnection } from '@quicprochat/transport';
import type { Auditor } from './audit.ts';
import type { Blobs } from './blobs.ts';
import type { KeyTransparency } from './key-transparency.ts';
import type { LiveDevices } from './live-devices.ts';
import type { InboxPump } from './inbox-pump.ts';
import type { Observer } from './observer.ts';
import type { Plugins } from './plugins.ts';
import type { PushNotifiers, PushWakeUps } from './push-notifier.ts';
import { networkOf } from './rate-limits.ts';
import type { RateLimits, TokenBucket } from './rate-limits.ts';
import type { ReadTurns } from './read-turns.ts';
import type { ReceiptSigner } from './receipt-signer.ts';
import type { Address, InboxGap, InboxRow, Store, StoreLimits } from './store/store.ts';

/** Monotonic time and timers of the transport, and the time of day. */
export interface ServerClock extends Clock {
  /** Milliseconds since 1970. */
  wallMs(): number;
}

/** Structured logging; pino fits. Fields carry no user data: identities only as `ServerContext.reference`. */
export interface Log {
  /** Default: every level is. */
  isLevelEnabled?(level: 'debug'): boolean;
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface ServerContext {
  readonly crypto: CryptoProvider;
  readonly store: Store;
  readonly clock: ServerClock;
  readonly log: Log;
  readonly observer: Observer;
  readonly auditor: Auditor;
  /** Undefined without any. */
  readonly plugins: Plugins | undefined;
  readonly version: string;
  readonly startedAtMs: number;
  /** The name in every signed statement (PROTOCOL 10). */
  readonly origin: string;
  /** OPAQUE server setup: secret, never in the store. */
  readonly opaqueSetup: Uint8Array;
  readonly opaquePublicKey: Uint8Array;
  readonly receipts: ReceiptSigner;
  readonly keyTransparency: KeyTransparency;
  readonly storeLimits: StoreLimits;
  readonly rates: RateLimits;
  /** What reports are sealed to; undefined while the operator takes none. It may change while the server runs. */
  readonly reportKey: { publicKey: Uint8Array | undefined };
  /** Identity keys in hex. */
  readonly admins: ReadonlySet<string>;
  readonly readTurns: ReadTurns;
  /** Whether it takes messages without a session (PROTOCOL 6). */
  readonly allowSealedSender: boolean;
  readonly blobs: Blobs;
  readonly live: LiveDevices;
  /** By the name a device gives with its token. */
  readonly notifiers: PushNotifiers;
  readonly wakeUps: PushWakeUps;
  /**
   * Something new is in these inboxes, on disk: wakes who waits and knocks at who is away. `rows` has what was added to
   * some of them, by the same objects.
   */
  arrived(addresses: readonly Address[], rows?: ReadonlyMap<Address, InboxRow>): void;
  /** Aborted when the server begins to go away: whoever waits for something stops waiting. */
  readonly leaving: AbortSignal;
  /** The name of a call in logs, in the audit log and in answers that say `internal`. */
  callId(sequence: number): string;
  /** A short keyed hash of an identity or address, for logs: the same within one run, meaningless outside it. */
  reference(bytes: Uint8Array): string;
}

/** A registered device has proven its key on this connection. */
export interface DeviceSession {
  readonly kind: 'device';
  readonly address: Address;
  /** Its identity key in hex. */
  readonly account: string;
  /** Its address in hex. */
  readonly device: string;
  readonly username: string;
  /** Ed25519, 32 bytes. */
  readonly deviceKey: Uint8Array;
  /** The gap the device was last told about here; its next Ack clears it. */
  toldGap?: InboxGap | undefined;
}

/** The password was right, the device is not registered: may fetch recovery and nothing else. */
interface RecoverySession {
  readonly kind: 'recovery';
  readonly username: string;
  /** The OPAQUE record that the password was right for: after a change of password this session counts no more. */
  readonly record: Uint8Array;
}

/** An OPAQUE login between its two calls. */
interface PendingLogin {
  readonly username: string;
  /** Undefined for an unknown name, which is played through all the same. */
  readonly identityKey: Uint8Array | undefined;
  /** The record it was answered from: after a change of password it counts no more. */
  readonly record: Uint8Array | undefined;
  readonly opaqueState: string;
  readonly nonce: Uint8Array;
  /** On the monotonic clock. */
  readonly expiresAt: number;
}

export interface ConnectionState {
  /** Where it comes from, as limits count it. */
  readonly network: string;
  /** On the monotonic clock: when it was made, or last called. */
  usedAt: number;
  /** What it may still call; made by the first call. */
  calls: TokenBucket | undefined;
  session: DeviceSession | RecoverySession | undefined;
  /** Somebody has proven on it who they are: nothing sealed may follow, or the two together name the sender. */
  named: boolean;
  /** From GetNonce; the newest counts, once. */
  nonce: { readonly bytes: Uint8Array; readonly expiresAt: number } | undefined;
  /** By login id in hex, oldest first. */
  readonly logins: Map<string, PendingLogin>;
  pump: InboxPump | undefined;
}

export type ClientConnection = ServerConnection<ConnectionState>;

export function newConnectionState(clock: Clock, connection: { readonly peer: string }): ConnectionState {
  return {
    network: networkOf(connection),
    usedAt: clock.now(),
    calls: undefined,
    session: undefined,
    named: false,
    nonce: undefined,
    logins: new Map(),
    pump: undefined,
  };
}
