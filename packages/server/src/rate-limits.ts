/**
 * Token buckets (PROTOCOL 3, 5, 6, 8; THREATS 15, 17, 20). A bucket holds up to `burst` tokens and regains them evenly;
 * a call takes one or is told when to come back. Buckets of callers that have not called lately are full, so forgetting
 * them changes nothing; that keeps the tables bounded.
 */
import type { Clock, ServerConnection } from '@quicprochat/transport';
import { rateLimited } from './refusals.ts';

/** How often. `perHour` 0 = without limit. */
export interface Rate {
  readonly burst: number;
  readonly perHour: number;
}

const KEYS_MAX = 100_000;
const HOUR_MS = 3_600_000;

export class TokenBuckets {
  readonly #clock: Clock;
  readonly #burst: number;
  readonly #perMs: number;
  // In order of last use: the first is the one not used for longest.
  readonly #buckets = new Map<string, { tokens: number; at: number }>();

  constructor(clock: Clock, rate: Rate) {
    this.#clock = clock;
    this.#burst = Math.max(1, rate.burst);
    this.#perMs = rate.perHour / HOUR_MS;
  }

  /** Takes `cost` tokens: 0 when there were as many, else the milliseconds until there are. */
  take(key: string, cost = 1): number {
    if (this.#perMs === 0) return 0;
    const now = this.#clock.now();
    const known = this.#buckets.get(key);
    const tokens =
      known === undefined ? this.#burst : Math.min(this.#burst, known.tokens + (now - known.at) * this.#perMs);
    this.#buckets.delete(key);
    const wanted = Math.min(cost, this.#burst);
    const granted = tokens >= wanted;
    this.#buckets.set(key, { tokens: granted ? tokens - wanted : tokens, at: now });
    if (this.#buckets.size > KEYS_MAX) this.#forgetOldest();
    return granted ? 0 : (wanted - tokens) / this.#perMs;
  }

  get size(): number {
    return this.#buckets.size;
  }

  #forgetOldest(): void {
    for (const key of this.#buckets.keys()) {
      this.#buckets.delete(key);
      return;
    }
  }
}

/** What is limited, in events an hour. */
export interface RateSettings {
  /** RegisterFinish, per network address. */
  readonly registrations: Rate;
  /** RegisterStart and LoginStart, per network address: each costs an evaluation. */
  readonly passwords: Rate;
  /** ResumeSession, per network address. */
  readonly resumes: Rate;
  /** ResolveUser and ResolveIdentity, per account. */
  readonly resolves: Rate;
  /** AuditKeyTransparency and GetConsistencyProof, per network address: anyone may mirror the log. */
  readonly logReads: Rate;
  /** Account statements after the first, per account: each is an entry for good, which every client mirrors. */
  readonly statements: Rate;
  /** CreateChannel, per account: each leaves rows for good. */
  readonly channels: Rate;
  /** SubmitCommit, per device. */
  readonly commits: Rate;
  /** Bytes of SubmitCommit in KiB, per account: what it writes lies outside every inbox's cap. */
  readonly commitKib: Rate;
  /** FetchKeyPackage, per (requester, target). */
  readonly keyPackagesOfOne: Rate;
  /** FetchKeyPackage, per requester. */
  readonly keyPackages: Rate;
  /** UploadKeyPackage, per device. */
  readonly keyPackageUploads: Rate;
  /** RemoveMember, RotateKeys and UpdateGroupMetadata, per device: each reaches a whole roster. */
  readonly hints: Rate;
  /** ReportMessage, per account. */
  readonly reports: Rate;
  /** Sealed sends, per channel. */
  readonly sealedPerChannel: Rate;
  /** Sealed sends, per network address. */
  readonly sealedPerAddress: Rate;
}

export type RateName = keyof RateSettings;

export const DEFAULT_RATES: RateSettings = {
  registrations: { burst: 60, perHour: 600 },
  passwords: { burst: 120, perHour: 3_600 },
  resumes: { burst: 2_000, perHour: 120_000 },
  resolves: { burst: 200, perHour: 3_600 },
  logReads: { burst: 1_000, perHour: 36_000 },
  statements: { burst: 40, perHour: 40 },
  channels: { burst: 200, perHour: 1_200 },
  commits: { burst: 30, perHour: 1_800 },
  commitKib: { burst: 65_536, perHour: 262_144 },
  keyPackagesOfOne: { burst: 10, perHour: 10 },
  keyPackages: { burst: 1_000, perHour: 42 },
  keyPackageUploads: { burst: 60, perHour: 240 },
  reports: { burst: 20, perHour: 60 },
  hints: { burst: 10, perHour: 120 },
  sealedPerChannel: { burst: 600, perHour: 36_000 },
  sealedPerAddress: { burst: 1_200, perHour: 72_000 },
};

const WORDS: Record<RateName, string> = {
  registrations: 'too many registrations from this network address',
  passwords: 'too many password attempts from this network address',
  resumes: 'too many sessions from this network address',
  resolves: 'too many look-ups from this account',
  logReads: 'the key-transparency log was read too often from this network address',
  statements: 'this account has stated its devices too often',
  channels: 'too many channels were opened by this account',
  commits: 'this device has committed too often',
  commitKib: 'the commits of this account were too large together',
  keyPackagesOfOne: 'too many KeyPackages of this account were fetched',
  keyPackages: 'too many KeyPackages were fetched',
  keyPackageUploads: 'this device has uploaded KeyPackages too often',
  reports: 'this account has reported too often',
  hints: 'this device has asked its groups too often',
  sealedPerChannel: 'too many messages in this channel',
  sealedPerAddress: 'too many messages from this network address',
};

export class RateLimits {
  readonly #buckets: Record<RateName, TokenBuckets>;

  constructor(clock: Clock, settings: RateSettings) {
    const entries = (Object.keys(settings) as RateName[]).map((name) => [
      name,
      new TokenBuckets(clock, settings[name]),
    ]);
    this.#buckets = Object.fromEntries(entries) as Record<RateName, TokenBuckets>;
  }

  /** Takes `cost` tokens of `name` for `key`. @throws RpcError `rate limited` */
  take(name: RateName, key: string, cost = 1): void {
    const waitMs = this.#buckets[name].take(key, cost);
    if (waitMs > 0) throw rateLimited(WORDS[name], waitMs);
  }
}

/** What counts as one network address: an IPv4 address, or the /64 of an IPv6 address, which is one household. */
export function networkOf(connection: Pick<ServerConnection<unknown>, 'peer'>): string {
  const { peer } = connection;
  const bracketed = /^\[(.*)\]:\d+$/.exec(peer)?.[1];
  if (bracketed === undefined) return peer.replace(/:\d+$/, '');
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(bracketed)?.[1];
  if (mapped !== undefined) return mapped;
  const [head = '', tail] = bracketed.split('::');
  const front = head === '' ? [] : head.split(':');
  const back = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - front.length - back.length);
  const groups = [...front, ...Array.from({ length: zeros }, () => '0'), ...back];
  return groups.slice(0, 4).join(':');
}
