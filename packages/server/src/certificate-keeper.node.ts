/**
 * The certificate over the server's life: replaced when its files change or the operator asks, and watched for the day it
 * expires. The engine can't swap one under open connections, so replacing it means to listen anew; what cannot be used
 * never replaces what can.
 *
 *   every 10 s, or asked → files changed? → usable? → `replace` (calls finish, clients come back)
 *                                             └ no: the old one stays, and the log says why
 */
import type { Log, ServerClock } from './context.ts';
import { StartupError } from './startup-error.ts';
import type { ServerCertificate } from './tls.node.ts';

const LOOK_EVERY_MS = 10_000;
const REMIND_EVERY_MS = 86_400_000;
export const EXPIRY_WARNING_MS = 30 * 86_400_000;

export type ReloadOutcome = { readonly kind: 'unchanged' | 'replaced'; readonly expiresAtMs: number };

export interface CertificateKeeperParts {
  /** Reads and checks the files. @throws StartupError when they cannot be used */
  readonly load: () => ServerCertificate;
  /** Listens with the new one. */
  readonly replace: (certificate: ServerCertificate) => Promise<void>;
  readonly clock: ServerClock;
  readonly log: Log;
}

export class CertificateKeeper {
  readonly #parts: CertificateKeeperParts;
  #current: ServerCertificate;
  #turn: Promise<unknown> = Promise.resolve();
  #timer: unknown;
  #remindAtMs: number;
  /** Why the files could not be used at the last look; said once, and not before the second look: they may be half written. */
  #trouble = { reason: '', looks: 0 };
  #stopped = false;

  constructor(current: ServerCertificate, parts: CertificateKeeperParts) {
    this.#current = current;
    this.#parts = parts;
    this.#remindAtMs = parts.clock.wallMs();
    this.#remind();
    this.#schedule();
  }

  get current(): ServerCertificate {
    return this.#current;
  }

  /**
   * Looks at the files now. @throws StartupError when they cannot be used; the old certificate stays
   */
  reload(): Promise<ReloadOutcome> {
    const turn = this.#turn.then(() => this.#reload());
    this.#turn = turn.catch(() => {});
    return turn;
  }

  /** Waits for what is under way. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#parts.clock.clearTimer(this.#timer);
    await this.#turn;
  }

  async #reload(): Promise<ReloadOutcome> {
    const { load, replace, log } = this.#parts;
    const next = load();
    const { expiresAtMs } = next;
    const same = equal(next.certificate, this.#current.certificate) && equal(next.privateKey, this.#current.privateKey);
    if (same || this.#stopped) return { kind: 'unchanged', expiresAtMs };
    await replace(next);
    this.#current = next;
    log.info({ expiresAt: new Date(expiresAtMs).toISOString() }, 'certificate replaced');
    this.#remindAtMs = this.#parts.clock.wallMs();
    this.#remind();
    return { kind: 'replaced', expiresAtMs };
  }

  #schedule(): void {
    if (this.#stopped) return;
    this.#timer = this.#parts.clock.setTimer(() => void this.#look(), LOOK_EVERY_MS);
  }

  async #look(): Promise<void> {
    try {
      await this.reload();
      this.#trouble = { reason: '', looks: 0 };
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.#trouble = { reason, looks: this.#trouble.reason === reason ? this.#trouble.looks + 1 : 1 };
      if (this.#trouble.looks === 2) this.#sayKept(error, reason);
    }
    this.#remind();
    this.#schedule();
  }

  #sayKept(error: unknown, reason: string): void {
    const hint = error instanceof StartupError ? error.hint : '';
    this.#parts.log.error(
      { reason, hint },
      'the certificate’s files cannot be used; the server goes on with the old one',
    );
  }

  #remind(): void {
    const { clock, log } = this.#parts;
    const nowMs = clock.wallMs();
    if (nowMs < this.#remindAtMs) return;
    this.#remindAtMs = nowMs + REMIND_EVERY_MS;
    const leftMs = this.#current.expiresAtMs - nowMs;
    if (leftMs > EXPIRY_WARNING_MS) return;
    const fields = {
      expiresAt: new Date(this.#current.expiresAtMs).toISOString(),
      daysLeft: Math.floor(leftMs / 86_400_000),
    };
    if (leftMs <= 0) log.error(fields, 'the certificate has expired: clients refuse it');
    else log.warn(fields, 'the certificate expires soon: renew it');
  }
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
