/**
 * The store's reads on one SQLite connection, each a consistent snapshot. They run in the reader's thread; the writer
 * runs the same ones inside its transactions.
 */
import { damaged, translated, type Database } from './sqlite-database.node.ts';
import type {
  Account,
  AccountSummary,
  Address,
  Ban,
  ChannelInfo,
  ChannelMetadata,
  Device,
  Endpoint,
  HybridKey,
  InboxGap,
  InboxRow,
  PushToken,
  ReadInbox,
  ReadInboxOutcome,
  RecoveryBundle,
  RecoverySlot,
  Report,
  ResolveTargetOutcome,
  Revocation,
  SessionOutcome,
  Standing,
  StatedAccount,
  SuiteCount,
  Target,
  TargetRefusal,
} from './store.ts';
import { timingSafeEqual } from 'node:crypto';
import { createTransparencyReads } from './sqlite-transparency.node.ts';
import { REVOCATIONS_SHOWN } from './store.ts';

const READ_ROWS = 64;
const READ_BYTES = 256 * 1024;
const NEIGHBOURS_MAX = 10_000;
// Rows tried, or positions, before a damaged inbox counts as unreadable.
const PASSED_OVER_MAX = 1_000;

export type ChannelRow = readonly [
  id: number,
  kind: number,
  creator: number | null,
  pairLow: number | null,
  pairHigh: number | null,
  head: number,
  logHash: Uint8Array,
  rosterHash: Uint8Array,
  tokenHash: Uint8Array | null,
  previousTokenHash: Uint8Array | null,
  previousTokenUntil: number | null,
];

/** A device by its row id. */
export interface DeviceRef {
  readonly id: number;
  readonly address: Address;
  /** On a roster still, but without an inbox. */
  readonly revoked?: boolean;
}

/** Totals for `status`, which the facade completes. */
export interface Totals {
  readonly accounts: number;
  readonly devices: number;
  readonly channels: number;
  readonly reports: number;
  readonly blobs: number;
  readonly blobBytes: number;
  readonly queuedEnvelopes: number;
  readonly queuedBytes: number;
}

type DeviceRow = readonly [Uint8Array, Uint8Array, Uint8Array, Uint8Array, string, number, number];
type InboxRowColumns = readonly [
  seq: number,
  data: Uint8Array,
  channel: Uint8Array,
  messageId: Uint8Array,
  acceptedAt: number,
  wrap: Uint8Array | null,
  position: number | null,
  logHash: Uint8Array | null,
  rosterHash: Uint8Array | null,
  renewal: Uint8Array | null,
  renewalWrap: Uint8Array | null,
];

/** One request of the reader's thread each. */
export type ReadCalls = ReturnType<typeof createReads>['calls'];

export function createReads(db: Database) {
  const raw = <P extends unknown[], R>(sql: string) => db.prepare<P, R>(sql).raw();
  const pluck = <P extends unknown[], R>(sql: string) => db.prepare<P, R>(sql).pluck();

  const settingByKey = pluck<[string], Uint8Array>('SELECT value FROM setting WHERE key = ?');

  const ACCOUNT = 'SELECT id, username, identity, registration_signature, created_at FROM account';
  type AccountRow = readonly [number, string, Uint8Array, Uint8Array, number];
  const accountByUsername = raw<[string], AccountRow>(`${ACCOUNT} WHERE username = ? AND ended_at IS NULL`);
  const accountByIdentity = raw<[Uint8Array], AccountRow>(`${ACCOUNT} WHERE identity = ? AND ended_at IS NULL`);
  const accountsAfter = raw<[string, number], readonly [string, Uint8Array, number, number]>(
    `SELECT username, identity, created_at,
       (SELECT count(*) FROM device d WHERE d.account = account.id AND d.revoked_at IS NULL)
     FROM account WHERE username > ? AND ended_at IS NULL ORDER BY username LIMIT ?`,
  );
  const opaqueRecord = raw<[string], readonly [Uint8Array, Uint8Array]>(
    'SELECT opaque_record, identity FROM account WHERE username = ? AND ended_at IS NULL',
  );

  const DEVICE = `SELECT a.identity, d.device_id, d.device_key, d.certificate, d.name, d.registered_at, d.last_seen_day
    FROM account a JOIN device d ON d.account = a.id AND d.revoked_at IS NULL`;
  const devicesByIdentity = raw<[Uint8Array], DeviceRow>(`${DEVICE} WHERE a.identity = ? ORDER BY d.id`);
  const deviceByAddress = raw<[Uint8Array, Uint8Array], DeviceRow>(
    `${DEVICE} WHERE a.identity = ? AND d.device_id = ?`,
  );

  const deviceRef = pluck<[Uint8Array, Uint8Array], number>(
    `SELECT d.id FROM account a JOIN device d ON d.account = a.id
     WHERE a.identity = ? AND d.device_id = ? AND d.revoked_at IS NULL`,
  );
  const deviceRefEver = pluck<[Uint8Array, Uint8Array], number>(
    'SELECT d.id FROM account a JOIN device d ON d.account = a.id WHERE a.identity = ? AND d.device_id = ?',
  );
  const deviceRefsByIdentity = raw<[Uint8Array], readonly [number, Uint8Array]>(
    `SELECT d.id, d.device_id FROM account a JOIN device d ON d.account = a.id
     WHERE a.identity = ? AND d.revoked_at IS NULL ORDER BY d.id`,
  );
  const rosterRefs = raw<[number], readonly [number, Uint8Array, Uint8Array, number]>(
    `SELECT d.id, a.identity, d.device_id, d.revoked_at IS NOT NULL FROM roster r JOIN device d ON d.id = r.device JOIN account a ON a.id = d.account
     WHERE r.channel = ? ORDER BY r.device`,
  );
  const rosterHas = pluck<[number, number], number>('SELECT 1 FROM roster WHERE channel = ? AND device = ?');

  const sessionByToken = raw<[Uint8Array, number], readonly [Uint8Array, Uint8Array, string, Uint8Array, number]>(
    `SELECT a.identity, d.device_id, a.username, d.device_key, s.expires_at
     FROM session s JOIN device d ON d.id = s.device JOIN account a ON a.id = d.account
     WHERE s.token_hash = ? AND s.expires_at > ?`,
  );

  const keyPackageCounts = raw<[number, number], readonly [number, number, number, number]>(
    `SELECT suite, sum(last_resort = 0 AND state = 0), sum(last_resort), sum(last_resort AND state)
     FROM key_package WHERE device = ? AND not_after > ? AND (last_resort = 1 OR state = 0) GROUP BY suite ORDER BY suite`,
  );

  const HYBRID = `SELECT d.id, a.identity, d.device_id, h.statement, d.certificate
    FROM account a JOIN device d ON d.account = a.id JOIN hybrid_key h ON h.device = d.id`;
  type HybridRow = readonly [number, Uint8Array, Uint8Array, Uint8Array, Uint8Array];
  const hybridByIdentity = raw<[Uint8Array], HybridRow>(`${HYBRID} WHERE a.identity = ? ORDER BY d.id`);
  const hybridByAddress = raw<[Uint8Array, Uint8Array], HybridRow>(
    `${HYBRID} WHERE a.identity = ? AND d.device_id = ? ORDER BY d.id`,
  );

  const channelById = raw<[Uint8Array], ChannelRow>(
    `SELECT id, kind, creator, pair_low, pair_high, head, log_hash, roster_hash, token_hash, previous_token_hash,
       previous_token_until FROM channel WHERE channel_id = ?`,
  );
  const channelAdmins = pluck<[number], Uint8Array>(
    'SELECT identity FROM channel_admin WHERE channel = ? ORDER BY identity',
  );
  const rosterSorted = raw<[number], readonly [Uint8Array, Uint8Array]>(
    `SELECT a.identity, d.device_id FROM roster r JOIN device d ON d.id = r.device JOIN account a ON a.id = d.account
     WHERE r.channel = ? ORDER BY a.identity, d.device_id`,
  );

  const metadataOf = raw<[number], readonly [number, Uint8Array]>(
    'SELECT version, data FROM channel_metadata WHERE channel = ?',
  );
  const headByDevice = raw<[number], readonly [number, number | null, number | null, number]>(
    'SELECT next_seq - 1, gap_reason, gap_since, gap_losses FROM head WHERE device = ?',
  );
  const INBOX = `SELECT i.seq, coalesce(m.data, p.data), i.channel, m.message_id, m.accepted_at, w.data, m.position, m.log_hash, m.roster_hash,
      r.data, q.data
    FROM inbox i JOIN message m ON m.id = i.message LEFT JOIN payload p ON p.id = m.large
      LEFT JOIN wrap w ON w.id = i.wrap LEFT JOIN payload r ON r.id = m.renewal LEFT JOIN wrap q ON q.id = i.renewal_wrap
    WHERE i.device = ? AND i.seq > ?`;
  const inboxRows = raw<[number, number, number], InboxRowColumns>(`${INBOX} ORDER BY i.seq LIMIT ?`);
  const inboxSeqAfter = pluck<[number, number], number>(
    'SELECT seq FROM inbox WHERE device = ? AND seq > ? ORDER BY seq LIMIT 1',
  );
  const inboxRowsOfChannel = raw<[number, number, Uint8Array, number], InboxRowColumns>(
    `${INBOX} AND i.channel = ? ORDER BY i.seq LIMIT ?`,
  );

  const revocationOf = pluck<[Uint8Array, Uint8Array], Uint8Array>(
    'SELECT r.statement FROM account a JOIN revocation r ON r.account = a.id WHERE a.identity = ? AND r.device_id = ?',
  );
  const newestRevocations = raw<[number, number], readonly [Uint8Array, Uint8Array]>(
    'SELECT device_id, statement FROM revocation WHERE account = ? ORDER BY at DESC, device_id DESC LIMIT ?',
  );
  const revocationCount = pluck<[number], number>('SELECT count(*) FROM revocation WHERE account = ?');
  const transparency = createTransparencyReads(db);
  const neighbours = raw<[number, number, number], readonly [Uint8Array, Uint8Array]>(
    `SELECT a.identity, d.device_id FROM device d JOIN account a ON a.id = d.account WHERE d.revoked_at IS NULL AND d.id IN (
       SELECT other.device FROM roster own JOIN roster other ON other.channel = own.channel WHERE own.device = ?
       UNION SELECT id FROM device WHERE account = (SELECT account FROM device WHERE id = ?)) LIMIT ?`,
  );
  const BAN = 'SELECT identity, reason, until FROM ban WHERE (until IS NULL OR until > ?)';
  type BanRow = readonly [Uint8Array, string, number | null];
  const banByIdentity = raw<[number, Uint8Array], BanRow>(`${BAN} AND identity = ?`);
  const bansAfter = raw<[number, Uint8Array, number], BanRow>(`${BAN} AND identity > ? ORDER BY identity LIMIT ?`);
  const reportsAfter = raw<[number, number], readonly [number, Uint8Array, Uint8Array, number]>(
    'SELECT id, report, conversation, received_at FROM report WHERE id > ? ORDER BY id LIMIT ?',
  );
  const blobSize = pluck<[Uint8Array], number>('SELECT size FROM blob WHERE hash = ?');
  const unownedBlobs = pluck<[], Uint8Array>(
    'SELECT hash FROM blob b WHERE NOT EXISTS (SELECT 1 FROM blob_owner o WHERE o.blob = b.id) LIMIT 100',
  );
  const recoveryOf = raw<[string], readonly [number, Uint8Array]>(
    `SELECT r.account, r.sealed_data FROM account a JOIN recovery r ON r.account = a.id
     WHERE a.username = ? AND a.ended_at IS NULL`,
  );
  const slotsOf = raw<[number], readonly [RecoverySlot['kind'], Uint8Array, Uint8Array | null]>(
    'SELECT kind, sealed_key, fetch_token_hash FROM recovery_slot WHERE account = ? ORDER BY kind',
  );
  const recoveryTokenOf = pluck<[string], Uint8Array>(
    `SELECT s.fetch_token_hash FROM account a JOIN recovery_slot s ON s.account = a.id
     WHERE a.username = ? AND s.kind = 'phrase' AND a.ended_at IS NULL`,
  );
  const endpointFor = pluck<[number, number, number, number, number], Uint8Array>(
    `SELECT statement FROM endpoint WHERE device = ? AND expires_at > ? AND (
       EXISTS (SELECT 1 FROM roster own JOIN roster other ON other.channel = own.channel
         WHERE own.device = ? AND other.device = endpoint.device AND EXISTS (
           SELECT 1 FROM log_entry l JOIN device s ON s.id = l.submitter WHERE l.channel = own.channel
             AND s.account = (SELECT account FROM device WHERE id = endpoint.device)))
       OR (SELECT account FROM device WHERE id = ?) = (SELECT account FROM device WHERE id = ?))`,
  );
  const pushTokenOf = raw<[number], readonly [string, string]>('SELECT kind, token FROM push_token WHERE device = ?');

  const ping = pluck<[], number>('SELECT 1 FROM sqlite_schema LIMIT 1');
  const totals = raw<[], readonly [number, number, number, number, number, number, number, number]>(
    `SELECT (SELECT count(*) FROM account WHERE ended_at IS NULL), (SELECT count(*) FROM device WHERE revoked_at IS NULL), (SELECT count(*) FROM channel),
       (SELECT count(*) FROM report), (SELECT count(*) FROM blob), (SELECT coalesce(sum(size), 0) FROM blob),
       coalesce(sum(depth), 0), coalesce(sum(bytes), 0) FROM head`,
  );

  function findAccount(row: AccountRow | undefined): Account | undefined {
    if (row === undefined) return undefined;
    const [, username, identityKey, registrationSignature, createdAtMs] = row;
    const devices = devicesByIdentity.all(identityKey).map(toDevice);
    return { username, identityKey, registrationSignature, createdAtMs, devices };
  }

  /** The devices an identity or an address stands for; none when unknown. */
  function refsOf(recipient: { identityKey: Uint8Array; deviceId?: Uint8Array | undefined }): DeviceRef[] {
    const { identityKey, deviceId } = recipient;
    if (deviceId === undefined) {
      return deviceRefsByIdentity
        .all(identityKey)
        .map(([id, each]) => ({ id, address: { identityKey, deviceId: each } }));
    }
    const id = deviceRef.get(identityKey, deviceId);
    return id === undefined ? [] : [{ id, address: { identityKey, deviceId } }];
  }

  function refOf(address: Address): number | undefined {
    return deviceRef.get(address.identityKey, address.deviceId);
  }

  function rosterOf(channel: number): DeviceRef[] {
    return rosterRefs.all(channel).map(([id, identityKey, deviceId, revoked]) => ({
      id,
      address: { identityKey, deviceId },
      revoked: revoked === 1,
    }));
  }

  /** The roster behind a channel target, if the sender or the token may use it. */
  function rosterFor(
    target: Exclude<Target, { kind: 'recipients' }>,
    channelId: Uint8Array | undefined,
  ): readonly DeviceRef[] | TargetRefusal {
    const channel = channelId === undefined ? undefined : channelById.get(channelId);
    if (channel === undefined) return { kind: 'unknown_channel' };
    if (target.kind === 'sealed') {
      if (!tokenInForce(channel, target.sendTokenHash, target.nowMs)) return { kind: 'stale_token' };
    } else {
      const sender = refOf(target.sender);
      if (sender === undefined || rosterHas.get(channel[0], sender) === undefined) return { kind: 'not_member' };
    }
    return rosterOf(channel[0]);
  }

  function channelMetadata(channel: number): ChannelMetadata | undefined {
    const row = metadataOf.get(channel);
    return row === undefined ? undefined : { version: row[0], data: row[1] };
  }

  const findSession = (tokenHash: Uint8Array, nowMs: number): SessionOutcome => {
    const row = sessionByToken.get(tokenHash, nowMs);
    if (row === undefined) return { kind: 'none' };
    const [identityKey, deviceId, username, deviceKey, expiresAtMs] = row;
    return { kind: 'found', address: { identityKey, deviceId }, username, deviceKey, expiresAtMs };
  };

  const findBan = (identityKey: Uint8Array, nowMs: number): Ban | undefined => {
    const row = banByIdentity.get(nowMs, identityKey);
    return row === undefined ? undefined : toBan(row);
  };

  const readInbox = (read: ReadInbox): ReadInboxOutcome => {
    const device = refOf(read.address);
    const head = device === undefined ? undefined : headByDevice.get(device);
    if (device === undefined || head === undefined) return { kind: 'unknown_device' };
    const [headSeq, gapReason, gapSince, losses] = head;
    const gap: InboxGap | undefined =
      gapReason === null
        ? undefined
        : { reason: GAP_REASONS[gapReason] ?? 'restored', sinceSeq: gapSince ?? 1, losses };
    const maxRows = read.maxRows ?? READ_ROWS;
    const maxBytes = read.maxBytes ?? READ_BYTES;
    const rows: InboxRow[] = [];
    let bytes = 0;
    let more = false;
    const found =
      read.channelId === undefined
        ? inboxRows.iterate(device, read.afterSeq, maxRows + 1)
        : inboxRowsOfChannel.iterate(device, read.afterSeq, read.channelId, maxRows + 1);
    try {
      for (const columns of found) {
        const row = toInboxRow(columns);
        bytes += inboxRowBytes(row);
        more = rows.length === maxRows || (bytes > maxBytes && rows.length > 0);
        if (more) break;
        rows.push(row);
      }
    } catch (error) {
      // What could be read comes first; the next read begins at the damage.
      if (!isDamage(error) || rows.length === 0) throw error;
      more = true;
    }
    return { kind: 'read', rows, more, gap, headSeq };
  };

  /**
   * Reads on behind rows that cannot be read. Not inside a transaction: one that has met a damaged page of an encrypted
   * database reads nothing any more.
   */
  const readInboxOverDamage = (read: ReadInbox): ReadInboxOutcome => {
    const device = refOf(read.address);
    const head = device === undefined ? undefined : headByDevice.get(device);
    if (device === undefined || head === undefined) return { kind: 'unknown_device' };
    const outcome = readInbox({ ...read, afterSeq: lastBeforeReadable(device, read.afterSeq, head[0]) });
    if (outcome.kind !== 'read') return outcome;
    const sinceSeq = read.afterSeq + 1;
    return { ...outcome, gap: { reason: 'damaged', sinceSeq, losses: -sinceSeq } };
  };

  /** The position right below the next row that can be read; the head's when there is none. */
  const lastBeforeReadable = (device: number, afterSeq: number, headSeq: number): number => {
    const orDamaged = <T>(read: () => T): T | typeof DAMAGED => {
      try {
        return read();
      } catch (error) {
        if (isDamage(error)) return DAMAGED;
        throw error;
      }
    };
    for (let seq = afterSeq, tries = 0; tries < PASSED_OVER_MAX; tries++) {
      if (seq >= headSeq) return headSeq;
      const next = orDamaged(() => inboxSeqAfter.get(device, seq));
      if (next === undefined) return headSeq;
      // Where not even the positions can be read, the next ones to be read are near: they lie on one page.
      seq = next === DAMAGED ? seq + 1 : next;
      const isReadable =
        next !== DAMAGED && orDamaged(() => inboxRows.all(device, next - 1, 1).map(toInboxRow)) !== DAMAGED;
      if (isReadable) return next - 1;
    }
    throw damaged();
  };

  /** What the writer looks up by row ids. */
  const lookups = {
    channelRow: (channelId: Uint8Array): ChannelRow | undefined => channelById.get(channelId),
    adminsOf: (channel: number): Uint8Array[] => channelAdmins.all(channel),
    refOf,
    /** Revoked devices too. */
    refEver: (address: Address): number | undefined => deviceRefEver.get(address.identityKey, address.deviceId),
    refsOf,
    rosterOf,
    isOnRoster: (channel: number, device: number): boolean => rosterHas.get(channel, device) !== undefined,
    channelMetadata,
    rosterFor,
    transparency,
  };

  const calls = {
    findSession,
    readInbox,
    ...transparency.calls,

    findStatedAccount: (
      of: { readonly username: string } | { readonly identityKey: Uint8Array },
    ): StatedAccount | undefined => {
      const row = 'username' in of ? accountByUsername.get(of.username) : accountByIdentity.get(of.identityKey);
      const account = findAccount(row);
      if (row === undefined || account === undefined) return undefined;
      const [id, , identityKey] = row;
      const revocations = newestRevocations
        .all(id, REVOCATIONS_SHOWN)
        .map(([deviceId, statement]) => ({ address: { identityKey, deviceId }, statement }))
        .reverse();
      const stated = transparency.statedOf(id);
      return { account, revocations, revocationCount: revocationCount.get(id)!, stated };
    },

    getSetting: (key: string): Uint8Array | undefined => settingByKey.get(key),

    findAccountByUsername: (username: string): Account | undefined => findAccount(accountByUsername.get(username)),

    findAccountByIdentity: (identityKey: Uint8Array): Account | undefined =>
      findAccount(accountByIdentity.get(identityKey)),

    findOpaqueRecord: (username: string): { record: Uint8Array; identityKey: Uint8Array } | undefined => {
      const row = opaqueRecord.get(username);
      return row === undefined ? undefined : { record: row[0], identityKey: row[1] };
    },

    listDevices: (identityKey: Uint8Array): readonly Device[] => devicesByIdentity.all(identityKey).map(toDevice),

    findDevice: (address: Address): Device | undefined => {
      const row = deviceByAddress.get(address.identityKey, address.deviceId);
      return row === undefined ? undefined : toDevice(row);
    },

    findRevocations: (addresses: readonly Address[]): readonly Revocation[] =>
      addresses.flatMap((address) => {
        const statement = revocationOf.get(address.identityKey, address.deviceId);
        return statement === undefined ? [] : [{ address, statement }];
      }),

    findNeighbours: (address: Address): readonly Address[] => {
      const device = deviceRefEver.get(address.identityKey, address.deviceId);
      if (device === undefined) return [];
      return neighbours
        .all(device, device, NEIGHBOURS_MAX)
        .map(([identityKey, deviceId]) => ({ identityKey, deviceId }));
    },

    findBan,

    standingOf: (address: Address, nowMs: number): Standing => {
      if (refOf(address) === undefined) return { kind: 'unknown_device' };
      const ban = findBan(address.identityKey, nowMs);
      return ban === undefined ? { kind: 'good' } : { kind: 'banned', ban };
    },

    findEndpoints: (query: {
      of: { identityKey: Uint8Array; deviceId?: Uint8Array | undefined };
      requester: Address;
      nowMs: number;
    }): readonly Endpoint[] => {
      const requester = refOf(query.requester);
      if (requester === undefined) return [];
      return refsOf(query.of).flatMap(({ id, address }) => {
        const statement = endpointFor.get(id, query.nowMs, requester, requester, id);
        return statement === undefined ? [] : [{ address, statement }];
      });
    },

    findRecovery: (username: string): RecoveryBundle | undefined => {
      const row = recoveryOf.get(username);
      if (row === undefined) return undefined;
      const slots = slotsOf
        .all(row[0])
        .map(([kind, sealedKey, hash]) => ({ kind, sealedKey, fetchTokenHash: hash ?? undefined }));
      return { sealedData: row[1], slots };
    },

    findRecoveryTokenHash: (username: string): Uint8Array | undefined => recoveryTokenOf.get(username),

    findBlob: (blobId: Uint8Array): { readonly sizeBytes: number } | undefined => {
      const sizeBytes = blobSize.get(blobId);
      return sizeBytes === undefined ? undefined : { sizeBytes };
    },

    listUnownedBlobs: (): readonly Uint8Array[] => unownedBlobs.all(),

    listAccounts: (page: { afterUsername: string; limit: number }): readonly AccountSummary[] =>
      accountsAfter
        .all(page.afterUsername, page.limit)
        .map(([username, identityKey, createdAtMs, devices]) => ({ username, identityKey, createdAtMs, devices })),

    listBans: (page: { afterIdentityKey: Uint8Array | undefined; limit: number; nowMs: number }): readonly Ban[] =>
      bansAfter.all(page.nowMs, page.afterIdentityKey ?? new Uint8Array(0), page.limit).map(toBan),

    listReports: (page: { afterId: number; limit: number; maxBytes: number }): readonly Report[] => {
      const reports: Report[] = [];
      let bytes = 0;
      for (const [id, report, conversationId, receivedAtMs] of reportsAfter.iterate(page.afterId, page.limit)) {
        bytes += report.length;
        if (bytes > page.maxBytes && reports.length > 0) break;
        reports.push({ id, report, conversationId, receivedAtMs });
      }
      return reports;
    },

    findPushTokens: (addresses: readonly Address[]): readonly (PushToken & { readonly address: Address })[] =>
      addresses.flatMap((address) => {
        const device = refOf(address);
        const found = device === undefined ? undefined : pushTokenOf.get(device);
        return found === undefined ? [] : [{ address, kind: found[0], token: found[1] }];
      }),

    countKeyPackages: (address: Address, nowMs: number): readonly SuiteCount[] => {
      const device = refOf(address);
      if (device === undefined) return [];
      return keyPackageCounts.all(device, nowMs).map(([suite, available, lastResort, used]) => ({
        suite,
        available,
        lastResort: lastResort > 0,
        lastResortUsed: used > 0,
      }));
    },

    getHybridKeys: (
      addresses: readonly { identityKey: Uint8Array; deviceId?: Uint8Array | undefined }[],
    ): readonly HybridKey[] => {
      const keys = new Map<number, HybridKey>();
      for (const { identityKey, deviceId } of addresses) {
        const rows =
          deviceId === undefined ? hybridByIdentity.all(identityKey) : hybridByAddress.all(identityKey, deviceId);
        for (const [id, identity, device, hybridKey, certificate] of rows) {
          keys.set(id, { address: { identityKey: identity, deviceId: device }, hybridKey, certificate });
        }
      }
      return [...keys.values()];
    },

    findChannel: (channelId: Uint8Array): ChannelInfo | undefined => {
      const channel = channelById.get(channelId);
      if (channel === undefined) return undefined;
      const [id, kind, , , , head, logHash, rosterHash, tokenHash] = channel;
      return {
        kind: kind === 0 ? 'group' : 'direct',
        roster: rosterSorted.all(id).map(([identityKey, deviceId]) => ({ identityKey, deviceId })),
        admins: channelAdmins.all(id),
        head,
        logHash,
        rosterHash,
        sendTokenHash: tokenHash ?? undefined,
        metadata: channelMetadata(id),
      };
    },

    resolveTarget: (target: Target, channelId: Uint8Array | undefined): ResolveTargetOutcome => {
      if (target.kind === 'recipients') {
        const found = new Map<number, Address>();
        for (const recipient of target.recipients) for (const ref of refsOf(recipient)) found.set(ref.id, ref.address);
        return { kind: 'resolved', addresses: [...found.values()] };
      }
      const roster = rosterFor(target, channelId);
      if ('kind' in roster) return roster;
      return { kind: 'resolved', addresses: roster.filter((ref) => ref.revoked !== true).map((ref) => ref.address) };
    },

    headSeq: (address: Address): number => {
      const device = refOf(address);
      return (device === undefined ? undefined : headByDevice.get(device))?.[0] ?? 0;
    },

    ping: (): void => {
      ping.get();
    },

    totals: (): Totals => {
      const [accounts, devices, channels, reports, blobs, blobBytes, queuedEnvelopes, queuedBytes] = totals.get()!;
      return { accounts, devices, channels, reports, blobs, blobBytes, queuedEnvelopes, queuedBytes };
    },
  };

  return { lookups, calls, readInboxOverDamage };
}

function toBan([identityKey, reason, until]: readonly [Uint8Array, string, number | null]): Ban {
  return { identityKey, reason, untilMs: until ?? undefined };
}

function toDevice(row: DeviceRow): Device {
  const [identityKey, deviceId, deviceKey, certificate, name, registeredAtMs, lastSeenDayMs] = row;
  return { identityKey, deviceId, deviceKey, certificate, name, registeredAtMs, lastSeenDayMs };
}

/** By `gap_reason` in the table. */
const GAP_REASONS: readonly InboxGap['reason'][] = ['full', 'expired', 'restored'];

const DAMAGED = Symbol('damaged');

function isDamage(error: unknown): boolean {
  return translated(error).kind === 'corrupt';
}

function toInboxRow(columns: InboxRowColumns): InboxRow {
  const [seq, data, channel, messageId, acceptedAtMs, wrap, position, logHash, rosterHash, renewal, renewalWrap] =
    columns;
  // STRICT tables hold this for what was written. A database that is not encrypted has no checksums, so what a damaged
  // page says is believed otherwise.
  const isWhole =
    isBlob(data) && isBlob(channel) && isBlob(messageId) && Number.isSafeInteger(acceptedAtMs) && acceptedAtMs >= 0;
  const isEntry = position === null || (isBlob(logHash) && isBlob(rosterHash) && position >= 0);
  const isOptional = [wrap, renewal, renewalWrap].every((each) => each === null || isBlob(each));
  if (!isWhole || !isEntry || !isOptional) throw damaged();
  return {
    seq,
    data,
    channelId: channel.length === 0 ? undefined : channel,
    messageId,
    acceptedAtMs,
    wrap: wrap ?? undefined,
    entry: position === null ? undefined : { position, logHash: logHash!, rosterHash: rosterHash! },
    pqRenewal: renewal === null ? undefined : { envelope: renewal, wrap: renewalWrap ?? undefined },
  };
}

function isBlob(value: unknown): value is Uint8Array {
  return value instanceof Uint8Array;
}

function inboxRowBytes(row: InboxRow): number {
  const renewal = row.pqRenewal === undefined ? 0 : row.pqRenewal.envelope.length + (row.pqRenewal.wrap?.length ?? 0);
  return row.data.length + (row.wrap?.length ?? 0) + renewal;
}

function tokenInForce(channel: ChannelRow, offered: Uint8Array, nowMs: number): boolean {
  const [, , , , , , , , current, previous, previousUntil] = channel;
  if (current !== null && hashesEqual(current, offered)) return true;
  return previous !== null && previousUntil !== null && nowMs < previousUntil && hashesEqual(previous, offered);
}

function hashesEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b);
}
