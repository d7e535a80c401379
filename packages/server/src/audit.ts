/**
 * The audit log: what happens to accounts and their keys, for the operator, without personal data. Neither names nor
 * keys nor network addresses stand in it: accounts and devices are short keyed hashes, the same for as long as the data
 * folder keeps its `audit-key`; network addresses are hashed under a key that each start draws anew. docs/server.md has
 * the schema.
 *
 *   handler → call.audit(event) → Auditor: hashes, bounds → AuditSink (audit-file.node.ts)
 */
import { concat, encodeHex, encodeUtf8 } from '@quicprochat/crypto';
import type { CryptoProvider } from '@quicprochat/crypto';
import type { Log, ServerClock } from './context.ts';
import { TokenBuckets } from './rate-limits.ts';

export type AuditEventName =
  | 'login'
  | 'resume'
  | 'logout'
  | 'registration'
  | 'device_registered'
  | 'device_renewed'
  | 'device_revoked'
  | 'key_revoked'
  | 'hybrid_key_published'
  | 'password_changed'
  | 'recovery_stored'
  | 'recovery_fetched'
  | 'recovery_deleted'
  | 'account_deleted'
  | 'ban'
  | 'unban'
  | 'sessions_ended'
  | 'reports_read'
  | 'reports_deleted'
  | 'report_key_set'
  | 'backup_made'
  | 'certificate_replaced'
  | 'bans_read';

/** Why something was refused. */
export type AuditReason =
  | 'attempt_over'
  | 'wrong_credentials'
  | 'password_changed_meanwhile'
  | 'wrong_device_key'
  | 'device_gone'
  | 'banned'
  | 'name_taken'
  | 'key_taken'
  | 'wrong_signature'
  | 'too_many_attempts'
  | 'by_plugin';

export interface AuditEvent {
  readonly event: AuditEventName;
  /** `limited`: the password was right, the device is not registered. */
  readonly outcome: 'ok' | 'limited' | 'refused';
  readonly reason?: AuditReason;
  /** Identity key. */
  readonly account?: Uint8Array | undefined;
  /** Device id. */
  readonly device?: Uint8Array | undefined;
  /** Identity key of the administrator who did it; or the operator, on the machine itself. */
  readonly by?: Uint8Array | 'operator' | undefined;
}

/** Where an event came from. */
export interface AuditOrigin {
  readonly network: string;
  readonly call: string;
}

/** One line, as it is written. */
export interface AuditLine {
  readonly v: 1;
  readonly time: string;
  readonly event: AuditEventName | 'server_started' | 'server_stopped';
  readonly outcome?: AuditEvent['outcome'];
  readonly reason?: AuditReason;
  readonly account?: string;
  readonly device?: string;
  readonly by?: string;
  readonly network?: string;
  readonly call?: string;
  /** Lines like this one that were left out before it because there were too many. */
  readonly suppressed?: number;
}

/** Takes lines; never throws. */
export interface AuditSink {
  write(line: AuditLine): void;
}

/** Of one kind from one source, so that a flood of failures does not push out what happened before it. */
const LINES_OF_A_KIND = { burst: 60, perHour: 600 };
const REFERENCE_BYTES = 8;
const NOBODY = new Uint8Array(32);

export class Auditor {
  readonly #crypto: CryptoProvider;
  readonly #clock: ServerClock;
  readonly #log: Log;
  readonly #key: Uint8Array;
  readonly #networkKey: Uint8Array;
  readonly #sink: AuditSink | undefined;
  readonly #room: TokenBuckets;
  #suppressed = 0;

  /** @param key 32 bytes, kept in the data folder */
  constructor(parts: {
    readonly crypto: CryptoProvider;
    readonly clock: ServerClock;
    readonly log: Log;
    readonly key: Uint8Array;
    readonly sink: AuditSink | undefined;
  }) {
    this.#crypto = parts.crypto;
    this.#clock = parts.clock;
    this.#log = parts.log;
    this.#key = parts.key;
    this.#networkKey = parts.crypto.random(32);
    this.#sink = parts.sink;
    this.#room = new TokenBuckets(parts.clock, LINES_OF_A_KIND);
  }

  /** A short keyed hash of an identity key, a device id or a channel id. */
  reference(kind: 'account' | 'device' | 'channel', bytes: Uint8Array): string {
    return this.#hash(this.#key, kind, bytes);
  }

  /** A short hash of a network address, under a key of this run. */
  networkReference(network: string): string {
    return this.#hash(this.#networkKey, 'network', encodeUtf8(network));
  }

  /** @param origin none: the operator, on the machine itself */
  record(event: AuditEvent, origin?: AuditOrigin): void {
    const { account, device, by, reason, ...rest } = event;
    // Hashed also where nobody is known: that must not take less time (THREATS 20).
    const accountReference = this.reference('account', account ?? NOBODY);
    const line: AuditLine = {
      v: 1,
      time: new Date(this.#clock.wallMs()).toISOString(),
      ...rest,
      ...(reason === undefined ? {} : { reason }),
      ...(account === undefined ? {} : { account: accountReference }),
      ...(device === undefined ? {} : { device: this.reference('device', device) }),
      ...(by === undefined ? {} : { by: by === 'operator' ? by : this.reference('account', by) }),
      ...(origin === undefined ? {} : { network: this.networkReference(origin.network), call: origin.call }),
    };
    // Failures cost their source nothing, so the source is what bounds them.
    const source = event.outcome === 'refused' || line.account === undefined ? origin?.network : line.account;
    if (origin !== undefined && this.#room.take(`${event.event} ${event.outcome} ${String(source)}`) > 0) {
      this.#suppressed++;
      return;
    }
    const suppressed = this.#suppressed;
    this.#suppressed = 0;
    this.#sink?.write(suppressed === 0 ? line : { ...line, suppressed });
    const { v: _, time: _time, ...fields } = line;
    this.#log.info(fields, `${event.event} ${event.outcome}`);
  }

  /** The server starts or stops: a gap between the two is a crash. */
  lifecycle(event: 'server_started' | 'server_stopped'): void {
    this.#sink?.write({ v: 1, time: new Date(this.#clock.wallMs()).toISOString(), event });
  }

  #hash(key: Uint8Array, kind: string, bytes: Uint8Array): string {
    const data = concat(encodeUtf8(`${kind}\0`), bytes);
    return encodeHex(this.#crypto.hmac('sha256', key, data).subarray(0, REFERENCE_BYTES));
  }
}
