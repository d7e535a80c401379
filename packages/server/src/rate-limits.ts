/**
 * Token buckets (PROTOCOL 3, 5, 6, 8; THREATS 15, 17, 20, 24). A bucket holds up to `burst` tokens and regains them
 * evenly; a call takes one or is told when to come back. From a bucket that paces (docs/decisions/0023-pacing.md) it
 * takes one that is not there yet, and waits for it, if that is no more than a second away. A full bucket is as good as
 * none, so those are forgotten as new ones come, and beyond a hundred thousand of one kind the one unused for longest:
 * that keeps the tables bounded.
 */
import type { Clock, Pace, ServerConnection } from '@quicprochat/transport';
import { rateLimited } from './refusals.ts';

/** How often. `perHour` 0 = without limit. */
export interface Rate {
  readonly burst: number;
  readonly perHour: number;
}

const KEYS_MAX = 100_000;
const HOUR_MS = 3_600_000;
/** So long a call waits for its turn at most; beyond that it waits as long to be told to come back. */
export const PATIENCE_MS = 1_000;
// Of the ones unused for longest, how many each new one looks at: the table shrinks faster than it grows.
const LOOKED_AT = 2;

/** One bucket: of a connection, say, which takes it along when it ends. */
export class TokenBucket {
  readonly #clock: Clock;
  readonly #burst: number;
  readonly #perMs: number;
  #tokens: number;
  #at: number;

  constructor(clock: Clock, rate: Rate) {
    this.#clock = clock;
    this.#burst = Math.max(1, rate.burst);
    this.#perMs = rate.perHour / HOUR_MS;
    this.#tokens = this.#burst;
    this.#at = clock.now();
  }

  /** Takes `cost` tokens: 0 when there were as many, else the milliseconds until there are. */
  take(cost = 1): number {
    return this.#take(cost, 0);
  }

  /** Takes a token, if need be one of the future: the milliseconds until it is there. Beyond PATIENCE_MS: takes none. */
  reserve(): number {
    return this.#take(1, PATIENCE_MS);
  }

  /** Takes tokens for something done already; who comes next waits for them. */
  charge(cost: number): void {
    if (this.#perMs === 0) return;
    this.#regain();
    this.#tokens -= cost;
  }

  #take(cost: number, patienceMs: number): number {
    if (this.#perMs === 0) return 0;
    this.#regain();
    const wanted = Math.min(cost, this.#burst);
    const waitMs = Math.max(0, (wanted - this.#tokens) / this.#perMs);
    if (waitMs <= patienceMs) this.#tokens -= wanted;
    return waitMs;
  }

  #regain(): void {
    const now = this.#clock.now();
    this.#tokens = Math.min(this.#burst, this.#tokens + (now - this.#at) * this.#perMs);
    this.#at = now;
  }

  /** As good as a new one. */
  get isFull(): boolean {
    return this.#tokens + (this.#clock.now() - this.#at) * this.#perMs >= this.#burst;
  }
}

/** A bucket for each of many. */
export class TokenBuckets {
  readonly #clock: Clock;
  readonly #rate: Rate;
  // In order of last use: the first is the one not used for longest.
  readonly #buckets = new Map<string, TokenBucket>();

  constructor(clock: Clock, rate: Rate) {
    this.#clock = clock;
    this.#rate = rate;
  }

  /** Takes `cost` tokens: 0 when there were as many, else the milliseconds until there are. */
  take(key: string, cost = 1): number {
    return this.#of(key)?.take(cost) ?? 0;
  }

  /** As `TokenBucket.reserve`. */
  reserve(key: string): number {
    return this.#of(key)?.reserve() ?? 0;
  }

  /** As `TokenBucket.charge`. */
  charge(key: string, cost: number): void {
    this.#of(key)?.charge(cost);
  }

  #of(key: string): TokenBucket | undefined {
    if (this.#rate.perHour === 0) return undefined;
    const known = this.#buckets.get(key);
    if (known === undefined) this.#makeRoom();
    else this.#buckets.delete(key);
    const bucket = known ?? new TokenBucket(this.#clock, this.#rate);
    this.#buckets.set(key, bucket);
    return bucket;
  }

  get size(): number {
    return this.#buckets.size;
  }

  #makeRoom(): void {
    let looked = 0;
    for (const [key, bucket] of this.#buckets) {
      if (looked++ === LOOKED_AT) return;
      if (bucket.isFull || this.#buckets.size >= KEYS_MAX) this.#buckets.delete(key);
    }
  }
}

/** What is limited, in events an hour. */
export interface RateSettings {
  /** New connections, per network address: each costs a handshake. */
  readonly connects: Rate;
  /** Calls of any kind, per connection: beyond it they wait. */
  readonly calls: Rate;
  /** Enqueue and BatchEnqueue, per device: beyond it they wait. One to many counts more than once. */
  readonly sends: Rate;
  /** Calls without a session, per network address. */
  readonly anonymous: Rate;
  /** RegisterFinish, per network address. */
  readonly registrations: Rate;
  /** RegisterStart and LoginStart, per network address: each costs an evaluation. */
  readonly passwords: Rate;
  /** The same, per (name, network address), whether or not the name is somebody's. */
  readonly passwordsOfOne: Rate;
  /** ResumeSession, per network address. */
  readonly resumes: Rate;
  /** ResolveUser and ResolveIdentity, per account. */
  readonly resolves: Rate;
  /** AuditKeyTransparency and GetConsistencyProof, per network address: anyone may mirror the log. */
  readonly logReads: Rate;
  /** Account statements after the first, per account: each is an entry for good, which every client mirrors. */
  readonly statements: Rate;
  /** ResolveUser and ResolveIdentity, per network address, however many accounts ask from there. */
  readonly resolvesFromAddress: Rate;
  /** What is read of keys, revocations and rosters, per account. */
  readonly reads: Rate;
  /** Enqueue and BatchEnqueue, per account. */
  readonly enqueues: Rate;
  /** Their payloads in KiB, per account. */
  readonly enqueueKib: Rate;
  /** UploadBlob in KiB, per account. */
  readonly uploadKib: Rate;
  /** DownloadBlob in KiB, per account. */
  readonly downloadKib: Rate;
  /** What changes an account, its devices, keys, recovery and where they are reached, per account. */
  readonly changes: Rate;
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
  connects: { burst: 2_000, perHour: 120_000 },
  calls: { burst: 1_000, perHour: 3_600_000 },
  sends: { burst: 100, perHour: 1_080_000 },
  anonymous: { burst: 10_000, perHour: 600_000 },
  registrations: { burst: 60, perHour: 600 },
  passwords: { burst: 120, perHour: 3_600 },
  passwordsOfOne: { burst: 30, perHour: 240 },
  resumes: { burst: 2_000, perHour: 120_000 },
  resolves: { burst: 1_000, perHour: 3_600 },
  logReads: { burst: 1_000, perHour: 36_000 },
  statements: { burst: 40, perHour: 40 },
  resolvesFromAddress: { burst: 10_000, perHour: 36_000 },
  reads: { burst: 5_000, perHour: 72_000 },
  enqueues: { burst: 20_000, perHour: 720_000 },
  enqueueKib: { burst: 524_288, perHour: 8_388_608 },
  uploadKib: { burst: 2_097_152, perHour: 8_388_608 },
  downloadKib: { burst: 8_388_608, perHour: 33_554_432 },
  changes: { burst: 100, perHour: 600 },
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
  connects: 'too many connections from this network address',
  calls: 'too many calls on this connection',
  sends: 'too many messages of this device at once',
  anonymous: 'too many calls without a session from this network address',
  registrations: 'too many registrations from this network address',
  passwords: 'too many password attempts from this network address',
  passwordsOfOne: 'too many password attempts at this name from this network address',
  resumes: 'too many sessions from this network address',
  resolves: 'too many look-ups from this account',
  logReads: 'the key-transparency log was read too often from this network address',
  statements: 'this account has stated its devices too often',
  resolvesFromAddress: 'too many look-ups from this network address',
  reads: 'too much was read by this account',
  enqueues: 'too many messages from this account',
  enqueueKib: 'the messages of this account were too large together',
  uploadKib: 'this account has uploaded too much',
  downloadKib: 'this account has downloaded too much',
  changes: 'this account was changed too often',
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

/** Told of each call that a limit has refused or made wait, to count it. */
export interface RateObserver {
  limited(name: RateName): void;
  paced(name: RateName): void;
}

const NOBODY: RateObserver = { limited: () => {}, paced: () => {} };
const AT_ONCE: Pace = { kind: 'go', waitMs: 0 };

export class RateLimits {
  readonly #clock: Clock;
  readonly #settings: RateSettings;
  readonly #buckets: Record<RateName, TokenBuckets>;
  readonly #observer: RateObserver;

  constructor(clock: Clock, settings: RateSettings, observer = NOBODY) {
    this.#clock = clock;
    this.#settings = settings;
    this.#observer = observer;
    const entries = (Object.keys(settings) as RateName[]).map((name) => [
      name,
      new TokenBuckets(clock, settings[name]),
    ]);
    this.#buckets = Object.fromEntries(entries) as Record<RateName, TokenBuckets>;
  }

  /** Takes `cost` tokens of `name` for `key`. @throws RpcError `rate limited` */
  take(name: RateName, key: string, cost = 1): void {
    this.#check(name, this.#buckets[name].take(key, cost));
  }

  /** A token of `name` for `key`, now or soon. */
  pace(name: RateName, key: string): Pace {
    return this.#paced(name, this.#buckets[name].reserve(key));
  }

  /** Tokens of `name` for what `key` has done; its next call waits for them. */
  charge(name: RateName, key: string, cost: number): void {
    this.#buckets[name].charge(key, cost);
  }

  /** A token of a bucket from `bucket`, now or soon. */
  paceOf(name: RateName, bucket: TokenBucket): Pace {
    return this.#paced(name, bucket.reserve());
  }

  /** A bucket that lives with what it is for. */
  bucket(name: RateName): TokenBucket {
    return new TokenBucket(this.#clock, this.#settings[name]);
  }

  #check(name: RateName, waitMs: number): void {
    if (waitMs === 0) return;
    this.#observer.limited(name);
    throw rateLimited(WORDS[name], waitMs);
  }

  #paced(name: RateName, waitMs: number): Pace {
    if (waitMs === 0) return AT_ONCE;
    if (waitMs <= PATIENCE_MS) {
      this.#observer.paced(name);
      return { kind: 'go', waitMs };
    }
    this.#observer.limited(name);
    // By then it has waited its second.
    const error = rateLimited(WORDS[name], waitMs - PATIENCE_MS);
    return { kind: 'refuse', waitMs: PATIENCE_MS, error };
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
