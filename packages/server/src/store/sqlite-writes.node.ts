/**
 * The store's writes on one SQLite connection. Each function is one operation of the writer's transaction:
 * it decides from what it reads, and refuses before it writes. Recipients are handled in order of their device rows.
 */
import type { ChannelHashes } from './channel-hashes.node.ts';
import { createReads, type DeviceRef } from './sqlite-reads.node.ts';
import type { Database } from './sqlite-database.node.ts';
import { createTransparencyWrites } from './sqlite-transparency.node.ts';
import {
  type Ack,
  type Address,
  type Ban,
  type BeginUploadOutcome,
  type BlobUpload,
  type CreateAccountOutcome,
  type CreateDirectOutcome,
  type CreateGroupOutcome,
  type DeleteAccount,
  type DeleteAccountOutcome,
  type Enqueue,
  type EnqueueOutcome,
  type InboxGap,
  type KeyPackageUpload,
  type LogEntry,
  type NewAccount,
  type NewDevice,
  type NewDirect,
  type NewGroup,
  type NewHybridKey,
  type NewSession,
  type PurgeOutcome,
  type PutChannelMetadataOutcome,
  type PushToken,
  type PutHybridKeyOutcome,
  type PutRecovery,
  type PutRecoveryOutcome,
  type ReadInbox,
  type ReadInboxOutcome,
  type Recipient,
  type RecipientResult,
  type RegisterDevice,
  type RegisterDeviceOutcome,
  type ReplayGuard,
  type Report,
  type RevokeDevice,
  type RevokeDeviceOutcome,
  type SessionOutcome,
  StoreError,
  type StoreLimits,
  type SubmitCommit,
  type SubmitCommitOutcome,
  type TakeKeyPackagesOutcome,
  type UploadKeyPackagesOutcome,
} from './store.ts';

const DAY_MS = 86_400_000;
const NO_BYTES = new Uint8Array(0);
const GAP_FULL = 0;
const GAP_EXPIRED = 1;
/** Rows of one acknowledgement, or of a device that left, in one transaction; the facade repeats until none is left. */
const ACK_ROWS = 500;
/** Payloads up to this lie in their message's row: two still fit a page. */
const INLINE_BYTES = 1_800;

/** What pointed at a message from an inbox row that is going away. */
type Removal = readonly [
  seq: number,
  message: number,
  counted: number | null,
  wrap: number | null,
  renewalWrap: number | null,
];
/** A recipient of an enqueue: a device with its wrap, or an address nobody has. */
type Addressee = { readonly ref: DeviceRef; readonly wrap: Uint8Array | undefined } | { readonly unknown: Address };

/** The facade adds `wake` to what comes with results. */
type WithoutWake<T> = T extends { wake: unknown } ? Omit<T, 'wake'> : T;

/** One request of the writer's thread each. */
export type WriteCalls = ReturnType<typeof createWrites>;

export function createWrites(db: Database, limits: StoreLimits, hashes: ChannelHashes) {
  const { lookups, calls: reads } = createReads(db);
  const run = <P extends unknown[]>(sql: string) => db.prepare<P>(sql);
  const raw = <P extends unknown[], R>(sql: string) => db.prepare<P, R>(sql).raw();
  const pluck = <P extends unknown[], R>(sql: string) => db.prepare<P, R>(sql).pluck();
  const transparency = createTransparencyWrites(db, lookups.transparency);

  // ---- settings, accounts, devices, sessions

  const putSetting = run<[string, Uint8Array]>(
    'INSERT INTO setting (key, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value',
  );
  const putSettingOnce = run<[string, Uint8Array]>('INSERT OR IGNORE INTO setting (key, value) VALUES (?, ?)');
  const usernameTaken = pluck<[string], number>('SELECT 1 FROM account WHERE username = ?');
  const identityTaken = pluck<[Uint8Array], number>('SELECT 1 FROM account WHERE identity = ?');
  const accountByIdentity = pluck<[Uint8Array], number>(
    'SELECT id FROM account WHERE identity = ? AND ended_at IS NULL',
  );
  const insertAccount = run<[string, Uint8Array, Uint8Array, Uint8Array, number]>(
    `INSERT INTO account (username, identity, opaque_record, registration_signature, created_at) VALUES (?, ?, ?, ?, ?)`,
  );
  const insertDevice = run<[number, Uint8Array, Uint8Array, Uint8Array, string, number, number]>(
    `INSERT INTO device (account, device_id, device_key, certificate, name, registered_at, last_seen_day)
     VALUES (?, ?, ?, ?, ?, ?, ?)`,
  );
  const insertHead = run<[number]>('INSERT INTO head (device) VALUES (?)');
  const devicesOfAccount = raw<[number], readonly [Uint8Array, Uint8Array, number | null]>(
    'SELECT device_id, certificate, revoked_at FROM device WHERE account = ?',
  );
  const setCertificate = run<[Uint8Array, number, Uint8Array]>(
    'UPDATE device SET certificate = ? WHERE account = ? AND device_id = ?',
  );
  const insertReplay = run<[Uint8Array, number]>('INSERT OR IGNORE INTO replay (hash, expires_at) VALUES (?, ?)');
  const putSession = run<[Uint8Array, number, number, number]>(
    'INSERT INTO session (token_hash, device, created_at, expires_at) VALUES (?, ?, ?, ?)',
  );
  const trimSessions = run<[number, Uint8Array, number]>(
    `DELETE FROM session WHERE token_hash IN (SELECT token_hash FROM session WHERE device = ? AND token_hash <> ?
       ORDER BY created_at DESC LIMIT -1 OFFSET ?)`,
  );
  const extendSession = run<[number, Uint8Array]>('UPDATE session SET expires_at = ? WHERE token_hash = ?');
  const deleteSessions = run<[number]>('DELETE FROM session WHERE device = ?');
  const markSeen = run<[number, number, number]>(
    'UPDATE device SET last_seen_day = ? WHERE id = ? AND last_seen_day < ?',
  );

  function addDevice(account: number, device: NewDevice, nowMs: number): void {
    const { deviceId, deviceKey, certificate, name } = device;
    const id = rowid(insertDevice.run(account, deviceId, deviceKey, certificate, name, nowMs, dayOf(nowMs)));
    insertHead.run(id);
  }

  function isReplay(guard: ReplayGuard | undefined): boolean {
    return guard !== undefined && insertReplay.run(guard.hash, guard.expiresAtMs).changes === 0;
  }

  function seen(device: number, nowMs: number): void {
    markSeen.run(dayOf(nowMs), device, dayOf(nowMs));
  }

  // ---- devices that leave

  const insertRevocation = run<[number, Uint8Array, Uint8Array, number]>(
    'INSERT OR IGNORE INTO revocation (account, device_id, statement, at) VALUES (?, ?, ?, ?)',
  );
  const revocationsUnregistered = pluck<[number], number>(
    `SELECT count(*) FROM revocation r WHERE account = ?
       AND NOT EXISTS (SELECT 1 FROM device d WHERE d.account = r.account AND d.device_id = r.device_id)`,
  );
  const markRevoked = run<[number, number]>('UPDATE device SET revoked_at = ? WHERE id = ?');
  const insertEmptying = run<[number]>('INSERT OR IGNORE INTO emptying (device) VALUES (?)');
  const nextEmptying = pluck<[], number>('SELECT device FROM emptying LIMIT 1');
  const deleteEmptying = run<[number]>('DELETE FROM emptying WHERE device = ?');
  const deleteKeyPackages = run<[number]>('DELETE FROM key_package WHERE device = ?');
  const deleteHybridKey = run<[number]>('DELETE FROM hybrid_key WHERE device = ?');
  const deleteHead = run<[number]>('DELETE FROM head WHERE device = ?');
  const putPushToken = run<[number, string, string]>(
    `INSERT INTO push_token (device, kind, token) VALUES (?, ?, ?)
     ON CONFLICT DO UPDATE SET kind = excluded.kind, token = excluded.token`,
  );
  const deletePushToken = run<[number]>('DELETE FROM push_token WHERE device = ?');
  const deletePushTokenIf = run<[number, string, string]>(
    'DELETE FROM push_token WHERE device = ? AND kind = ? AND token = ?',
  );

  const putEndpoint = run<[number, Uint8Array, number]>(
    `INSERT INTO endpoint (device, statement, expires_at) VALUES (?, ?, ?)
     ON CONFLICT DO UPDATE SET statement = excluded.statement, expires_at = excluded.expires_at`,
  );
  const deleteEndpoint = run<[number]>('DELETE FROM endpoint WHERE device = ?');

  /** Nothing reaches the device from here on; its inbox rows go in steps, see `emptyInboxes`. */
  function endDevice(device: number, nowMs: number): void {
    markRevoked.run(nowMs, device);
    for (const end of [deleteSessions, deleteKeyPackages, deleteHybridKey, deletePushToken, deleteEndpoint, deleteHead])
      end.run(device);
    insertEmptying.run(device);
  }

  /** Removes at most `rows` inbox rows of devices that have left; answers how many. */
  function emptyInboxes(rows: number): number {
    let removed = 0;
    while (removed < rows) {
      const device = nextEmptying.get();
      if (device === undefined) break;
      const removals = removalsUpTo.all(device, Number.MAX_SAFE_INTEGER, rows - removed);
      remove(device, removals);
      if (removals.length < rows - removed) deleteEmptying.run(device);
      removed += removals.length;
    }
    return removed;
  }

  const putBan = run<[Uint8Array, string, number | null]>(
    `INSERT INTO ban (identity, reason, until) VALUES (?, ?, ?)
     ON CONFLICT DO UPDATE SET reason = excluded.reason, until = excluded.until`,
  );
  const deleteBan = run<[Uint8Array]>('DELETE FROM ban WHERE identity = ?');
  const countReports = pluck<[], number>('SELECT count(*) FROM report');
  const insertReport = run<[Uint8Array, Uint8Array, number]>(
    'INSERT INTO report (report, conversation, received_at) VALUES (?, ?, ?)',
  );

  const deleteReport = run<[number]>('DELETE FROM report WHERE id = ?');

  // ---- recovery

  const putRecovery = run<[number, Uint8Array]>('INSERT INTO recovery (account, sealed_data) VALUES (?, ?)');
  const deleteRecovery = run<[number]>('DELETE FROM recovery WHERE account = ?');
  const insertSlot = run<[number, string, Uint8Array, Uint8Array | null]>(
    'INSERT INTO recovery_slot (account, kind, sealed_key, fetch_token_hash) VALUES (?, ?, ?, ?)',
  );
  const setOpaqueRecord = run<[Uint8Array, number]>('UPDATE account SET opaque_record = ? WHERE id = ?');

  // ---- blobs

  const blobByHash = raw<[Uint8Array], readonly [number, number]>('SELECT id, size FROM blob WHERE hash = ?');
  const insertBlob = run<[Uint8Array, number]>('INSERT INTO blob (hash, size) VALUES (?, ?)');
  const deleteUnownedBlob = run<[number]>(
    'DELETE FROM blob WHERE id = ? AND NOT EXISTS (SELECT 1 FROM blob_owner WHERE blob = blob.id)',
  );
  const ownBlob = run<[number, number, number]>(
    `INSERT INTO blob_owner (account, blob, expires_at) VALUES (?, ?, ?)
     ON CONFLICT DO UPDATE SET expires_at = excluded.expires_at`,
  );
  const ownsBlob = pluck<[number, number], number>('SELECT 1 FROM blob_owner WHERE account = ? AND blob = ?');
  const disownBlobs = run<[number]>('DELETE FROM blob_owner WHERE account = ?');
  const uploadSize = pluck<[number, Uint8Array], number>('SELECT size FROM upload WHERE account = ? AND hash = ?');
  const putUpload = run<[number, Uint8Array, number, number]>(
    `INSERT INTO upload (account, hash, size, touched_at) VALUES (?, ?, ?, ?)
     ON CONFLICT DO UPDATE SET size = excluded.size, touched_at = excluded.touched_at`,
  );
  const deleteUpload = run<[number, Uint8Array]>('DELETE FROM upload WHERE account = ? AND hash = ?');
  const deleteUploads = run<[number]>('DELETE FROM upload WHERE account = ?');
  const blobBytesOf = pluck<[number, number, Uint8Array], number>(
    `SELECT (SELECT coalesce(sum(b.size), 0) FROM blob_owner o JOIN blob b ON b.id = o.blob WHERE o.account = ?)
       + (SELECT coalesce(sum(size), 0) FROM upload WHERE account = ? AND hash <> ?)`,
  );

  const endAccount = run<[number, number]>(
    "UPDATE account SET opaque_record = x'', registration_signature = x'', ended_at = ? WHERE id = ?",
  );
  const stripDevices = run<[number]>(
    "UPDATE device SET device_key = zeroblob(32), certificate = x'', name = '', registered_at = 0, last_seen_day = 0 WHERE account = ?",
  );
  const leaveGroupAdmins = run<[Uint8Array]>(
    'DELETE FROM channel_admin WHERE identity = ? AND channel IN (SELECT id FROM channel WHERE kind = 0)',
  );

  // ---- key material

  const keyPackageByHash = raw<[number, Uint8Array], readonly [number, number]>(
    'SELECT id, last_resort FROM key_package WHERE device = ? AND hash = ?',
  );
  const unusedKeyPackages = pluck<[number, number, number], number>(
    'SELECT count(*) FROM key_package WHERE device = ? AND suite = ? AND state = 0 AND last_resort = 0 AND not_after > ?',
  );
  const retireLastResort = run<[number, number]>(
    'UPDATE key_package SET last_resort = 0, state = 1, data = NULL WHERE device = ? AND suite = ? AND last_resort = 1',
  );
  const insertKeyPackage = run<[number, number, number, Uint8Array, number, Uint8Array]>(
    'INSERT INTO key_package (device, suite, last_resort, state, hash, not_after, data) VALUES (?, ?, ?, 0, ?, ?, ?)',
  );
  const nextKeyPackage = raw<[number, number, number], readonly [number, Uint8Array]>(
    `SELECT id, data FROM key_package WHERE device = ? AND suite = ? AND state = 0 AND last_resort = 0 AND not_after > ?
     ORDER BY id LIMIT 1`,
  );
  const lastResortKeyPackage = raw<[number, number, number], readonly [number, Uint8Array]>(
    'SELECT id, data FROM key_package WHERE device = ? AND suite = ? AND last_resort = 1 AND not_after > ?',
  );
  const consumeKeyPackage = run<[number]>('UPDATE key_package SET state = 1, data = NULL WHERE id = ?');
  const markLastResortUsed = run<[number]>('UPDATE key_package SET state = 1 WHERE id = ? AND state = 0');
  const hybridKey = raw<[number], readonly [number, Uint8Array]>(
    'SELECT serial, statement FROM hybrid_key WHERE device = ?',
  );
  const putHybridKey = run<[number, Uint8Array, number, number]>(
    `INSERT INTO hybrid_key (device, statement, serial, not_after) VALUES (?, ?, ?, ?)
     ON CONFLICT DO UPDATE SET statement = excluded.statement, serial = excluded.serial, not_after = excluded.not_after`,
  );

  // ---- channels

  const insertChannel = run<
    [Uint8Array, number, number | null, number | null, number | null, Uint8Array, Uint8Array, number]
  >(
    `INSERT INTO channel (channel_id, kind, creator, pair_low, pair_high, head, log_hash, roster_hash, created_at)
     VALUES (?, ?, ?, ?, ?, 0, ?, ?, ?)`,
  );
  const directByPair = raw<[number, number], readonly [Uint8Array, number]>(
    'SELECT channel_id, head FROM channel WHERE kind = 1 AND pair_low = ? AND pair_high = ?',
  );
  const identityOfAccount = pluck<[number], Uint8Array>('SELECT identity FROM account WHERE id = ?');
  const insertRoster = run<[number, number]>('INSERT OR IGNORE INTO roster (channel, device) VALUES (?, ?)');
  const deleteRoster = run<[number, number]>('DELETE FROM roster WHERE channel = ? AND device = ?');
  const insertAdmin = run<[number, Uint8Array]>(
    'INSERT OR IGNORE INTO channel_admin (channel, identity) VALUES (?, ?)',
  );
  const deleteAdmin = run<[number, Uint8Array]>('DELETE FROM channel_admin WHERE channel = ? AND identity = ?');
  const logEntryByMessage = raw<
    [number, Uint8Array],
    readonly [number, number, Uint8Array, Uint8Array, Uint8Array, number, number]
  >(
    `SELECT position, submitter, payload_hash, log_hash, roster_hash, accepted_at, expires_at FROM log_entry
     WHERE channel = ? AND message_id = ?`,
  );
  const insertLogEntry = run<[number, number, number, Uint8Array, Uint8Array, Uint8Array, Uint8Array, number, number]>(
    `INSERT INTO log_entry (channel, position, submitter, message_id, payload_hash, log_hash, roster_hash, accepted_at,
       expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
  );
  const advanceChannel = run<[number, Uint8Array, Uint8Array, number]>(
    'UPDATE channel SET head = ?, log_hash = ?, roster_hash = ? WHERE id = ?',
  );
  const setSendToken = run<[number, Uint8Array, number]>(
    `UPDATE channel SET previous_token_hash = token_hash, previous_token_until = ?, token_hash = ? WHERE id = ?`,
  );

  const putMetadata = run<[number, number, Uint8Array]>(
    `INSERT INTO channel_metadata (channel, version, data) VALUES (?, ?, ?)
     ON CONFLICT DO UPDATE SET version = excluded.version, data = excluded.data`,
  );

  function addChannel(
    channelId: Uint8Array,
    kind: { creator: number } | { pair: readonly [number, number] },
    roster: readonly DeviceRef[],
    admins: readonly Uint8Array[],
    nowMs: number,
  ): void {
    const isGroup = 'creator' in kind;
    const channel = rowid(
      insertChannel.run(
        channelId,
        isGroup ? 0 : 1,
        isGroup ? kind.creator : null,
        isGroup ? null : kind.pair[0],
        isGroup ? null : kind.pair[1],
        hashes.logHashGenesis(channelId),
        hashes.rosterHash(roster.map((ref) => ref.address)),
        nowMs,
      ),
    );
    for (const ref of roster) insertRoster.run(channel, ref.id);
    for (const identity of admins) insertAdmin.run(channel, identity);
  }

  // ---- delivery

  const takeSeqUnderCap = pluck<[number, number, number, number, number], number>(
    `UPDATE head SET next_seq = next_seq + 1, depth = depth + 1, bytes = bytes + ?
     WHERE device = ? AND depth < ? AND bytes + ? <= ? RETURNING next_seq - 1`,
  );
  const takeSeq = pluck<[number], number>(
    'UPDATE head SET next_seq = next_seq + 1 WHERE device = ? RETURNING next_seq - 1',
  );
  const recordGap = run<[number, number | null, number]>(
    `UPDATE head SET gap_reason = coalesce(gap_reason, ?),
       gap_since = min(coalesce(gap_since, next_seq), coalesce(?, next_seq)), gap_losses = gap_losses + 1 WHERE device = ?`,
  );
  const clearGap = run<[number, number]>(
    'UPDATE head SET gap_reason = NULL, gap_since = NULL WHERE device = ? AND gap_losses = ? AND gap_reason IS NOT NULL',
  );
  const insertPayload = run<[Uint8Array]>('INSERT INTO payload (data) VALUES (?)');
  const insertMessage = run<
    [
      number,
      Uint8Array,
      number,
      number | null,
      Uint8Array | null,
      Uint8Array | null,
      number | null,
      number | null,
      Uint8Array | null,
    ]
  >(
    `INSERT INTO message (refs, message_id, accepted_at, position, log_hash, roster_hash, renewal, large, data)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
  );
  const insertWrap = run<[Uint8Array]>('INSERT INTO wrap (data) VALUES (?)');
  const insertInbox = run<[number, number, number, number, number | null, number | null, number | null, Uint8Array]>(
    `INSERT INTO inbox (device, seq, message, expires_at, counted, wrap, renewal_wrap, channel)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
  );
  const dedupRows = raw<[number, number, Uint8Array, Uint8Array], readonly [number, number, number, Uint8Array]>(
    'SELECT device, seq, at, payload_hash FROM dedup WHERE bucket IN (?, ?) AND message_id = ? AND channel = ?',
  );
  const insertDedup = run<[number, Uint8Array, Uint8Array, number, number, number, Uint8Array]>(
    `INSERT OR REPLACE INTO dedup (bucket, message_id, channel, device, seq, at, payload_hash) VALUES (?, ?, ?, ?, ?, ?, ?)`,
  );

  const REMOVAL = 'SELECT seq, message, counted, wrap, renewal_wrap FROM inbox';
  const removalsUpTo = raw<[number, number, number], Removal>(
    `${REMOVAL} WHERE device = ? AND seq <= ? ORDER BY seq LIMIT ?`,
  );
  const removalsOfChannelUpTo = raw<[number, number, Uint8Array, number], Removal>(
    `${REMOVAL} WHERE device = ? AND seq <= ? AND channel = ? ORDER BY seq LIMIT ?`,
  );
  const removalAt = raw<[number, number], Removal>(`${REMOVAL} WHERE device = ? AND seq = ?`);
  const deleteInboxRow = run<[number, number]>('DELETE FROM inbox WHERE device = ? AND seq = ?');
  const deleteMessageLast = raw<[number], readonly [renewal: number | null, large: number | null]>(
    'DELETE FROM message WHERE id = ? AND refs = 1 RETURNING renewal, large',
  );
  const releaseMessage = run<[number]>('UPDATE message SET refs = refs - 1 WHERE id = ?');
  const deletePayload = run<[number]>('DELETE FROM payload WHERE id = ?');
  const deleteWrap = run<[number]>('DELETE FROM wrap WHERE id = ?');
  const uncharge = run<[number, number, number]>(
    'UPDATE head SET depth = depth - ?, bytes = bytes - ? WHERE device = ?',
  );

  /** Removes inbox rows of one device, and messages nobody refers to any more. */
  function remove(device: number, removals: readonly Removal[]): void {
    let depth = 0;
    let bytes = 0;
    for (const [seq, message, counted, wrap, renewalWrap] of removals) {
      deleteInboxRow.run(device, seq);
      if (counted !== null) {
        depth++;
        bytes += counted;
      }
      if (wrap !== null) deleteWrap.run(wrap);
      if (renewalWrap !== null) deleteWrap.run(renewalWrap);
      const last = deleteMessageLast.get(message);
      if (last === undefined) releaseMessage.run(message);
      else for (const payload of last) if (payload !== null) deletePayload.run(payload);
    }
    if (depth > 0) uncharge.run(depth, bytes, device);
  }

  function bucketOf(nowMs: number): number {
    return nowMs - (nowMs % limits.dedupWindowMs);
  }

  /** Which devices have this message id in this channel, and as what. */
  function earlierDeliveries(
    messageId: Uint8Array,
    channel: Uint8Array,
    nowMs: number,
  ): Map<number, { seq: number; hash: Uint8Array }> {
    const found = new Map<number, { seq: number; hash: Uint8Array }>();
    const bucket = bucketOf(nowMs);
    for (const [device, seq, at, hash] of dedupRows.all(bucket - limits.dedupWindowMs, bucket, messageId, channel)) {
      if (at > nowMs - limits.dedupWindowMs) found.set(device, { seq, hash });
    }
    return found;
  }

  function storeMessage(message: {
    payload: Uint8Array;
    messageId: Uint8Array;
    acceptedAtMs: number;
    refs: number;
    entry?: LogEntry;
    renewal?: Uint8Array | undefined;
  }): number {
    const { position = null, logHash = null, rosterHash = null } = message.entry ?? {};
    const isSmall = message.payload.length <= INLINE_BYTES;
    return rowid(
      insertMessage.run(
        message.refs,
        message.messageId,
        message.acceptedAtMs,
        position,
        logHash,
        rosterHash,
        message.renewal === undefined ? null : rowid(insertPayload.run(message.renewal)),
        isSmall ? null : rowid(insertPayload.run(message.payload)),
        isSmall ? message.payload : null,
      ),
    );
  }

  function storeWrap(wrap: Uint8Array | undefined): number | null {
    return wrap === undefined ? null : rowid(insertWrap.run(wrap));
  }

  /** Each device once, in device order; then the addresses nobody has. */
  function addressees(recipients: readonly Recipient[]): Addressee[] {
    const devices = new Map<number, { ref: DeviceRef; wrap: Uint8Array | undefined }>();
    const unknown: { unknown: Address }[] = [];
    for (const recipient of recipients) {
      const refs = lookups.refsOf(recipient);
      if (refs.length === 0) {
        unknown.push({ unknown: { identityKey: recipient.identityKey, deviceId: recipient.deviceId ?? NO_BYTES } });
      }
      for (const ref of refs) if (!devices.has(ref.id)) devices.set(ref.id, { ref, wrap: recipient.wrap });
    }
    return [...[...devices.values()].sort((a, b) => a.ref.id - b.ref.id), ...unknown];
  }

  function enqueue(input: Enqueue): WithoutWake<EnqueueOutcome> {
    const { messageId, payload, nowMs } = input;
    const channel = input.channelId ?? NO_BYTES;
    let to: Addressee[];
    if (input.target.kind === 'recipients') {
      to = addressees(input.target.recipients);
    } else {
      const roster = lookups.rosterFor(input.target, input.channelId);
      if ('kind' in roster) return roster;
      to = roster.map((ref) => (ref.revoked === true ? { unknown: ref.address } : { ref, wrap: undefined }));
    }

    const earlier = earlierDeliveries(messageId, channel, nowMs);
    if (earlier.size > 0) {
      for (const each of to) {
        const known = 'ref' in each ? earlier.get(each.ref.id) : undefined;
        if (known !== undefined && !bytesEqual(known.hash, payload.hash)) return { kind: 'already_exists' };
      }
    }

    const ttlMs = Math.min(
      input.ttlMs === undefined || input.ttlMs === 0 ? limits.ttlDefaultMs : input.ttlMs,
      limits.ttlMaxMs,
    );
    const expiresAtMs = nowMs + ttlMs;
    const queued: { device: number; seq: number; size: number; wrap: Uint8Array | undefined }[] = [];
    const results = to.map((each): RecipientResult => {
      if ('unknown' in each) return { address: each.unknown, kind: 'unknown' };
      const { id, address } = each.ref;
      const known = earlier.get(id);
      if (known !== undefined) return { address, kind: 'duplicate', seq: known.seq };
      const size = payload.data.length + (each.wrap?.length ?? 0);
      const seq = takeSeqUnderCap.get(size, id, limits.inboxEnvelopes, size, limits.inboxBytes);
      if (seq === undefined) {
        recordGap.run(GAP_FULL, null, id);
        return { address, kind: 'full' };
      }
      queued.push({ device: id, seq, size, wrap: each.wrap });
      return { address, kind: 'queued', seq };
    });

    if (queued.length > 0) {
      const bucket = bucketOf(nowMs);
      const id = storeMessage({ payload: payload.data, messageId, acceptedAtMs: nowMs, refs: queued.length });
      for (const { device, seq, size, wrap } of queued) {
        insertInbox.run(device, seq, id, expiresAtMs, size, storeWrap(wrap), null, channel);
        insertDedup.run(bucket, messageId, channel, device, seq, nowMs, payload.hash);
      }
    }
    return { kind: 'enqueued', results, acceptedAtMs: nowMs, expiresAtMs };
  }

  function ack(input: Ack): { removed: number; more: boolean } {
    const device = lookups.refOf(input.address);
    if (device === undefined) return { removed: 0, more: false };
    const { seqUpTo, channelId } = input;
    const removals =
      channelId === undefined
        ? removalsUpTo.all(device, seqUpTo, ACK_ROWS)
        : removalsOfChannelUpTo.all(device, seqUpTo, channelId, ACK_ROWS);
    remove(device, removals);
    return { removed: removals.length, more: removals.length === ACK_ROWS };
  }

  // ---- the commit log

  function submitCommit(input: SubmitCommit): WithoutWake<SubmitCommitOutcome> {
    const { channelId, payload, messageId, nowMs } = input;
    const row = lookups.channelRow(channelId);
    if (row === undefined) return { kind: 'unknown_channel' };
    const [channel, kind, , pairLow, pairHigh, head, logHash] = row;
    const submitter = lookups.refOf(input.submitter);
    if (submitter === undefined) return { kind: 'not_member' };

    // A retry comes before membership: the entry may have taken the submitter off the roster.
    const logged = logEntryByMessage.get(channel, messageId);
    if (logged !== undefined && logged[1] === submitter) return repeatedAnswer(input, logged);

    const isGroup = kind === 0;
    const pair = isGroup ? [] : [identityOfAccount.get(pairLow!)!, identityOfAccount.get(pairHigh!)!];
    const isMine = (identity: Uint8Array) => bytesEqual(identity, input.submitter.identityKey);
    const before = new Map(lookups.rosterOf(channel).map((ref) => [ref.id, ref]));
    if (!before.has(submitter)) {
      // A device registered after a direct channel was opened may still start its group.
      if (isGroup || head !== 0 || !pair.some(isMine)) return { kind: 'not_member' };
      before.set(submitter, { id: submitter, address: input.submitter });
    }
    if (logged !== undefined) return { kind: 'already_exists' };
    if (input.after !== head) return { kind: 'conflict', head };

    const adminsBefore = lookups.adminsOf(channel);
    // Anyone may take a revoked device off: nothing reaches it any more.
    const touched = [...input.rosterAdd, ...input.rosterRemove.filter((each) => lookups.refOf(each) !== undefined)];
    const touchesOthers = touched.some((each) => !isMine(each.identityKey));
    const touchesAdmins = input.adminsAdd.length > 0 || input.adminsRemove.length > 0;
    if ((touchesOthers || touchesAdmins) && !adminsBefore.some(isMine)) return { kind: 'admin_required' };
    if (!isGroup) {
      if (touchesAdmins) return { kind: 'invalid', reason: 'admins_of_direct_channel' };
      for (const { identityKey } of input.rosterAdd) {
        if (!pair.some((identity) => bytesEqual(identity, identityKey))) {
          return { kind: 'invalid', reason: 'stranger_in_direct_channel' };
        }
      }
    }

    const after = new Map(before);
    for (const address of input.rosterRemove) after.delete(lookups.refEver(address) ?? -1);
    for (const address of input.rosterAdd) {
      const id = lookups.refOf(address);
      if (id === undefined) return { kind: 'unknown_device', address };
      after.set(id, { id, address });
    }
    if (after.size > limits.rosterDevices) return { kind: 'roster_full', max: limits.rosterDevices };

    let adminsAfter = adminsBefore;
    if (isGroup) {
      const onRoster = new Set([...after.values()].map((ref) => hex(ref.address.identityKey)));
      if (input.adminsAdd.some((identity) => !onRoster.has(hex(identity)))) {
        return { kind: 'invalid', reason: 'admin_not_on_roster' };
      }
      const wanted = new Map([...adminsBefore, ...input.adminsAdd].map((identity) => [hex(identity), identity]));
      for (const identity of input.adminsRemove) wanted.delete(hex(identity));
      for (const identity of wanted.keys()) if (!onRoster.has(identity)) wanted.delete(identity);
      adminsAfter = [...wanted.values()];
      // A group whose administrators' devices are all revoked goes on without one.
      const living = new Set([...before.values()].filter((ref) => ref.revoked !== true).map(identityHex));
      const hadAdmin = adminsBefore.some((identity) => living.has(hex(identity)));
      if (adminsAfter.length === 0 && after.size > 0 && hadAdmin) return { kind: 'last_admin' };
    }

    const welcomed = input.welcomes.map((welcome) => ({
      ...welcome,
      to: welcome.recipients.map(({ address, wrap }) => ({ id: lookups.refOf(address) ?? -1, address, wrap })),
    }));
    if (welcomed.some((welcome) => welcome.to.some(({ id }) => !after.has(id)))) {
      return { kind: 'invalid', reason: 'welcome_not_on_roster' };
    }

    // From here on it is accepted.
    const expiresAtMs = nowMs + limits.commitTtlMs;
    const entry: LogEntry = {
      position: head + 1,
      logHash: hashes.logHashNext(logHash, head + 1, payload.hash),
      rosterHash: hashes.rosterHash([...after.values()].map((ref) => ref.address)),
    };
    for (const id of before.keys()) if (!after.has(id)) deleteRoster.run(channel, id);
    for (const id of after.keys()) insertRoster.run(channel, id);
    for (const identity of adminsBefore) deleteAdmin.run(channel, identity);
    for (const identity of adminsAfter) insertAdmin.run(channel, identity);
    insertLogEntry.run(
      channel,
      entry.position,
      submitter,
      messageId,
      payload.hash,
      entry.logHash,
      entry.rosterHash,
      nowMs,
      expiresAtMs,
    );
    advanceChannel.run(entry.position, entry.logHash, entry.rosterHash, channel);
    if (input.sendTokenHash !== undefined)
      setSendToken.run(nowMs + limits.sendTokenGraceMs, input.sendTokenHash, channel);

    const renewalWraps = new Map<number, Uint8Array | undefined>();
    for (const { address, wrap } of input.pqRenewal?.wraps ?? []) renewalWraps.set(lookups.refOf(address) ?? -1, wrap);
    const bucket = bucketOf(nowMs);
    const results: RecipientResult[] = [];
    const put = (
      device: number,
      address: Address,
      message: number,
      wraps: { wrap?: Uint8Array | undefined; renewal?: Uint8Array | undefined },
      id: Uint8Array,
      hash: Uint8Array,
    ) => {
      const seq = takeSeq.get(device)!;
      insertInbox.run(
        device,
        seq,
        message,
        expiresAtMs,
        null,
        storeWrap(wraps.wrap),
        storeWrap(wraps.renewal),
        channelId,
      );
      insertDedup.run(bucket, id, channelId, device, seq, nowMs, hash);
      results.push({ address, kind: 'queued', seq });
    };
    const message = storeMessage({
      payload: payload.data,
      messageId,
      acceptedAtMs: nowMs,
      refs: [...before.values()].filter((ref) => ref.revoked !== true).length,
      entry,
      renewal: input.pqRenewal?.envelope,
    });
    for (const ref of [...before.values()].sort((a, b) => a.id - b.id)) {
      if (ref.revoked === true) results.push({ address: ref.address, kind: 'unknown' });
      else put(ref.id, ref.address, message, { renewal: renewalWraps.get(ref.id) }, messageId, payload.hash);
    }
    for (const welcome of welcomed) {
      const to = new Map(welcome.to.map((each) => [each.id, each]));
      if (to.size === 0) continue;
      const welcomeMessage = storeMessage({
        payload: welcome.payload.data,
        messageId: welcome.messageId,
        acceptedAtMs: nowMs,
        refs: to.size,
      });
      for (const { id, address, wrap } of [...to.values()].sort((a, b) => a.id - b.id)) {
        put(id, address, welcomeMessage, { wrap }, welcome.messageId, welcome.payload.hash);
      }
    }
    return { kind: 'accepted', entry, repeated: false, results, acceptedAtMs: nowMs, expiresAtMs };
  }

  /** The first answer again. Its results are what the deduplication memory still holds. */
  function repeatedAnswer(
    input: SubmitCommit,
    logged: readonly [number, number, Uint8Array, Uint8Array, Uint8Array, number, number],
  ): WithoutWake<SubmitCommitOutcome> {
    const [position, , payloadHash, logHash, rosterHash, acceptedAtMs, expiresAtMs] = logged;
    if (!bytesEqual(payloadHash, input.payload.hash)) return { kind: 'already_exists' };
    const results: RecipientResult[] = [];
    const recall = (messageId: Uint8Array, hash: Uint8Array) => {
      const earlier = [...earlierDeliveries(messageId, input.channelId, input.nowMs)].sort(([a], [b]) => a - b);
      for (const [device, delivery] of earlier) {
        const address = addressOf(device);
        if (address !== undefined && bytesEqual(delivery.hash, hash)) {
          results.push({ address, kind: 'queued', seq: delivery.seq });
        }
      }
    };
    recall(input.messageId, input.payload.hash);
    for (const welcome of input.welcomes) recall(welcome.messageId, welcome.payload.hash);
    const entry = { position, logHash, rosterHash };
    return { kind: 'accepted', entry, repeated: true, results, acceptedAtMs, expiresAtMs };
  }

  const addressByDevice = raw<[number], readonly [Uint8Array, Uint8Array]>(
    'SELECT a.identity, d.device_id FROM device d JOIN account a ON a.id = d.account WHERE d.id = ?',
  );
  function addressOf(device: number): Address | undefined {
    const found = addressByDevice.get(device);
    return found === undefined ? undefined : { identityKey: found[0], deviceId: found[1] };
  }

  // ---- housekeeping

  const expiredInbox = raw<[number, number], readonly [number, ...Removal]>(
    `SELECT device, seq, message, counted, wrap, renewal_wrap FROM inbox WHERE expires_at <= ? ORDER BY expires_at LIMIT ?`,
  );
  const purgeSessions = run<[number, number]>('DELETE FROM session WHERE expires_at <= ? LIMIT ?');
  const purgeReplays = run<[number, number]>('DELETE FROM replay WHERE expires_at <= ? LIMIT ?');
  const purgeKeyPackages = run<[number, number]>('DELETE FROM key_package WHERE not_after <= ? LIMIT ?');
  const purgeDedup = run<[number, number]>('DELETE FROM dedup WHERE bucket < ? LIMIT ?');

  const purgeBans = run<[number, number]>('DELETE FROM ban WHERE until <= ? LIMIT ?');
  const purgeOwners = run<[number, number]>('DELETE FROM blob_owner WHERE expires_at <= ? LIMIT ?');
  const purgeUploads = run<[number, number]>('DELETE FROM upload WHERE touched_at <= ? LIMIT ?');
  const purgeEndpoints = run<[number, number]>('DELETE FROM endpoint WHERE expires_at <= ? LIMIT ?');
  const purgeReports = run<[number, number]>('DELETE FROM report WHERE received_at <= ? LIMIT ?');

  function purge(input: { nowMs: number }): PurgeOutcome {
    const { nowMs } = input;
    let left = limits.purgeRows;
    const expired = Map.groupBy(expiredInbox.all(nowMs, left), ([device]) => device);
    let expiredEnvelopes = 0;
    const wake: Address[] = [];
    for (const [device, rows] of [...expired].sort(([a], [b]) => a - b)) {
      const removals = rows.map(([, ...removal]) => removal);
      remove(device, removals);
      recordGap.run(GAP_EXPIRED, Math.min(...removals.map(([seq]) => seq)), device);
      expiredEnvelopes += removals.length;
      const address = addressOf(device);
      if (address !== undefined) wake.push(address);
    }
    left -= expiredEnvelopes;
    const sweeps: (() => number)[] = [
      () => emptyInboxes(left),
      () => purgeSessions.run(nowMs, left).changes,
      () => purgeBans.run(nowMs, left).changes,
      () => purgeReports.run(nowMs - limits.reportTtlMs, left).changes,
      () => purgeOwners.run(nowMs, left).changes,
      () => purgeUploads.run(nowMs - limits.uploadTtlMs, left).changes,
      () => purgeEndpoints.run(nowMs, left).changes,
      () => purgeReplays.run(nowMs, left).changes,
      () => purgeKeyPackages.run(nowMs, left).changes,
      () => purgeDedup.run(bucketOf(nowMs) - limits.dedupWindowMs, left).changes,
    ];
    for (const sweep of sweeps) if (left > 0) left -= sweep();
    return { removed: limits.purgeRows - left, expiredEnvelopes, more: left === 0, wake };
  }

  return {
    putSetting: (input: { key: string; value: Uint8Array }): void => {
      putSetting.run(input.key, input.value);
    },

    putSettingOnce: (input: { key: string; value: Uint8Array }): Uint8Array => {
      putSettingOnce.run(input.key, input.value);
      return reads.getSetting(input.key)!;
    },

    createAccount: (account: NewAccount): CreateAccountOutcome => {
      if (usernameTaken.get(account.username) !== undefined) return { kind: 'username_taken' };
      if (identityTaken.get(account.identityKey) !== undefined) return { kind: 'identity_taken' };
      const { username, identityKey, opaqueRecord, registrationSignature, firstDevice, nowMs } = account;
      const id = rowid(insertAccount.run(username, identityKey, opaqueRecord, registrationSignature, nowMs));
      addDevice(id, firstDevice, nowMs);
      transparency.state(id, account.stated);
      return { kind: 'created' };
    },

    registerDevice: (input: RegisterDevice): RegisterDeviceOutcome => {
      if (isReplay(input.replay)) return { kind: 'replayed' };
      const account = accountByIdentity.get(input.identityKey);
      if (account === undefined) return { kind: 'unknown_account' };
      if (transparency.isStale(account, input.stated)) return { kind: 'stale_statement' };
      const devices = devicesOfAccount.all(account);
      const { deviceId, certificate } = input.device;
      const same = devices.find(([each]) => bytesEqual(each, deviceId));
      if (same !== undefined) {
        const [, present, revokedAt] = same;
        const isThere = revokedAt === null && bytesEqual(present, certificate);
        const isRenewed = revokedAt === null && input.renews !== undefined && bytesEqual(present, input.renews);
        if (!isThere && !isRenewed) return { kind: 'device_taken' };
        if (!isThere) setCertificate.run(certificate, account, deviceId);
        transparency.state(account, input.stated);
        return { kind: isThere ? 'exists' : 'renewed' };
      }
      if (reads.findRevocations([{ identityKey: input.identityKey, deviceId }]).length > 0)
        return { kind: 'device_taken' };
      if (devices.filter(([, , revokedAt]) => revokedAt === null).length >= limits.devicesPerAccount)
        return { kind: 'too_many', max: limits.devicesPerAccount };
      addDevice(account, input.device, input.nowMs);
      transparency.state(account, input.stated);
      return { kind: 'registered' };
    },

    deleteAccount: (deletion: DeleteAccount): DeleteAccountOutcome => {
      const { identityKey, nowMs } = deletion;
      if (isReplay(deletion.replay)) return { kind: 'replayed' };
      const account = accountByIdentity.get(identityKey);
      if (account === undefined) return { kind: 'unknown_account' };
      if (transparency.isStale(account, deletion.stated)) return { kind: 'stale_statement' };
      const devices = lookups.refsOf({ identityKey });
      for (const { id } of devices) endDevice(id, nowMs);
      stripDevices.run(account);
      leaveGroupAdmins.run(identityKey);
      deleteBan.run(identityKey);
      deleteRecovery.run(account);
      disownBlobs.run(account);
      deleteUploads.run(account);
      endAccount.run(nowMs, account);
      transparency.stateEnd(account, deletion.stated);
      return { kind: 'deleted', devices: devices.map(({ address }) => address) };
    },

    revokeDevice: (revoke: RevokeDevice): RevokeDeviceOutcome => {
      const { address, statement, nowMs } = revoke;
      if (isReplay(revoke.replay)) return { kind: 'replayed' };
      const account = accountByIdentity.get(address.identityKey);
      if (account === undefined) return { kind: 'unknown_account' };
      if (transparency.isStale(account, revoke.stated)) return { kind: 'stale_statement' };
      const max = limits.revocationsPerAccount;
      const isNew = lookups.refEver(address) === undefined && reads.findRevocations([address]).length === 0;
      if (isNew && revocationsUnregistered.get(account)! >= max) return { kind: 'too_many', max };
      insertRevocation.run(account, address.deviceId, statement, nowMs);
      transparency.state(account, revoke.stated);
      const device = lookups.refOf(address);
      if (device === undefined) return { kind: 'recorded' };
      endDevice(device, nowMs);
      return { kind: 'revoked' };
    },

    putBan: (ban: Ban): { kind: 'banned' } | { kind: 'unknown_account' } => {
      if (accountByIdentity.get(ban.identityKey) === undefined) return { kind: 'unknown_account' };
      putBan.run(ban.identityKey, ban.reason, ban.untilMs ?? null);
      return { kind: 'banned' };
    },

    liftBan: (identityKey: Uint8Array): boolean => deleteBan.run(identityKey).changes > 0,

    addReport: (report: Omit<Report, 'id'>): { kind: 'stored' } | { kind: 'full' } => {
      if (countReports.get()! >= limits.reports) return { kind: 'full' };
      insertReport.run(report.report, report.conversationId, report.receivedAtMs);
      return { kind: 'stored' };
    },

    deleteReports: (ids: readonly number[]): number =>
      ids.reduce((deleted, id) => deleted + deleteReport.run(id).changes, 0),

    putEndpoint: (put: {
      address: Address;
      endpoint: { statement: Uint8Array; expiresAtMs: number } | undefined;
    }): { kind: 'stored' } | { kind: 'unknown_device' } => {
      const device = lookups.refOf(put.address);
      if (device === undefined) return { kind: 'unknown_device' };
      if (put.endpoint === undefined) deleteEndpoint.run(device);
      else putEndpoint.run(device, put.endpoint.statement, put.endpoint.expiresAtMs);
      return { kind: 'stored' };
    },

    putRecovery: (put: PutRecovery): PutRecoveryOutcome => {
      if (isReplay(put.replay)) return { kind: 'replayed' };
      const { identityKey, deviceId } = put.of;
      const account = accountByIdentity.get(identityKey);
      const device = deviceId === undefined ? undefined : lookups.refOf({ identityKey, deviceId });
      if (account === undefined || (deviceId !== undefined && device === undefined)) return { kind: 'unknown_device' };
      deleteRecovery.run(account);
      putRecovery.run(account, put.bundle.sealedData);
      for (const { kind, sealedKey, fetchTokenHash } of put.bundle.slots) {
        insertSlot.run(account, kind, sealedKey, fetchTokenHash ?? null);
      }
      if (put.opaqueRecord === undefined) return { kind: 'stored', ended: [] };
      setOpaqueRecord.run(put.opaqueRecord, account);
      const others = lookups.refsOf({ identityKey }).filter(({ id }) => id !== device);
      for (const { id } of others) deleteSessions.run(id);
      return { kind: 'stored', ended: others.map(({ address }) => address) };
    },

    deleteRecovery: (deletion: {
      identityKey: Uint8Array;
      replay?: ReplayGuard | undefined;
    }): { kind: 'deleted' } | { kind: 'replayed' } => {
      if (isReplay(deletion.replay)) return { kind: 'replayed' };
      const account = accountByIdentity.get(deletion.identityKey);
      if (account !== undefined) deleteRecovery.run(account);
      return { kind: 'deleted' };
    },

    beginUpload: (upload: BlobUpload): BeginUploadOutcome => {
      const { blobId, sizeBytes, nowMs } = upload;
      const account = accountByIdentity.get(upload.identityKey);
      if (account === undefined) return { kind: 'unknown_account' };
      const [blob, size] = blobByHash.get(blobId) ?? [];
      if (size !== undefined && size !== sizeBytes) return { kind: 'wrong_size' };
      const isMine = blob !== undefined && ownsBlob.get(account, blob) !== undefined;
      const maxBytes = limits.blobQuotaBytes;
      if (!isMine && blobBytesOf.get(account, account, blobId)! + sizeBytes > maxBytes) {
        return { kind: 'over_quota', maxBytes };
      }
      if (blob !== undefined) {
        ownBlob.run(account, blob, nowMs + limits.blobTtlMs);
        deleteUpload.run(account, blobId);
        return { kind: 'complete' };
      }
      const before = uploadSize.get(account, blobId);
      putUpload.run(account, blobId, sizeBytes, nowMs);
      return { kind: 'open', restarted: before !== undefined && before !== sizeBytes };
    },

    completeUpload: (upload: BlobUpload): void => {
      const { blobId, sizeBytes, nowMs } = upload;
      const account = accountByIdentity.get(upload.identityKey);
      const blob = blobByHash.get(blobId)?.[0] ?? rowid(insertBlob.run(blobId, sizeBytes));
      // Without its account nobody owns it, and it is collected.
      if (account === undefined) return;
      ownBlob.run(account, blob, nowMs + limits.blobTtlMs);
      deleteUpload.run(account, blobId);
    },

    forgetBlob: (blobId: Uint8Array): boolean => {
      const blob = blobByHash.get(blobId)?.[0];
      return blob === undefined || deleteUnownedBlob.run(blob).changes > 0;
    },

    emptyInboxes: (): boolean => emptyInboxes(ACK_ROWS) === ACK_ROWS,

    putPushToken: (put: {
      address: Address;
      token: PushToken | undefined;
    }): { kind: 'stored' } | { kind: 'unknown_device' } => {
      const device = lookups.refOf(put.address);
      if (device === undefined) return { kind: 'unknown_device' };
      if (put.token === undefined) deletePushToken.run(device);
      else putPushToken.run(device, put.token.kind, put.token.token);
      return { kind: 'stored' };
    },

    dropPushToken: (drop: { address: Address; token: PushToken }): void => {
      const device = lookups.refOf(drop.address);
      if (device !== undefined) deletePushTokenIf.run(device, drop.token.kind, drop.token.token);
    },

    putSession: (session: NewSession): { kind: 'stored' } | { kind: 'unknown_device' } => {
      const device = lookups.refOf(session.address);
      if (device === undefined) return { kind: 'unknown_device' };
      putSession.run(session.tokenHash, device, session.nowMs, session.expiresAtMs);
      trimSessions.run(device, session.tokenHash, limits.sessionsPerDevice - 1);
      seen(device, session.nowMs);
      return { kind: 'stored' };
    },

    resumeSession: (resume: { tokenHash: Uint8Array; nowMs: number; expiresAtMs: number }): SessionOutcome => {
      const session = reads.findSession(resume.tokenHash, resume.nowMs);
      if (session.kind === 'none') return session;
      extendSession.run(resume.expiresAtMs, resume.tokenHash);
      seen(lookups.refOf(session.address)!, resume.nowMs);
      return { ...session, expiresAtMs: resume.expiresAtMs };
    },

    revokeSessions: (address: Address): number => {
      const device = lookups.refOf(address);
      return device === undefined ? 0 : deleteSessions.run(device).changes;
    },

    uploadKeyPackages: (upload: {
      address: Address;
      keyPackages: readonly KeyPackageUpload[];
      nowMs: number;
    }): UploadKeyPackagesOutcome => {
      const device = lookups.refOf(upload.address);
      if (device === undefined) return { kind: 'unknown_device' };
      const fresh = new Map(
        upload.keyPackages
          .filter((each) => keyPackageByHash.get(device, each.hash) === undefined && each.notAfterMs > upload.nowMs)
          .map((each) => [hex(each.hash), each]),
      );
      for (const [suite, ordinary] of Map.groupBy(
        [...fresh.values()].filter((each) => !each.lastResort),
        (each) => each.suite,
      )) {
        const max = limits.keyPackagesPerSuite;
        if (unusedKeyPackages.get(device, suite, upload.nowMs)! + ordinary.length > max)
          return { kind: 'full', suite, max };
      }
      for (const { keyPackage, hash, suite, notAfterMs, lastResort } of fresh.values()) {
        if (lastResort) retireLastResort.run(device, suite);
        insertKeyPackage.run(device, suite, lastResort ? 1 : 0, hash, notAfterMs, keyPackage);
      }
      return { kind: 'stored', added: fresh.size };
    },

    takeKeyPackages: (take: { identityKey: Uint8Array; suite: number; nowMs: number }): TakeKeyPackagesOutcome => {
      if (accountByIdentity.get(take.identityKey) === undefined) return { kind: 'unknown_account' };
      const keyPackages: { deviceId: Uint8Array; keyPackage: Uint8Array; lastResort: boolean }[] = [];
      const devicesWithout: Uint8Array[] = [];
      for (const { id: device, address } of lookups.refsOf({ identityKey: take.identityKey })) {
        const { deviceId } = address;
        const next = nextKeyPackage.get(device, take.suite, take.nowMs);
        const found = next ?? lastResortKeyPackage.get(device, take.suite, take.nowMs);
        if (found === undefined) {
          devicesWithout.push(deviceId);
          continue;
        }
        const [id, keyPackage] = found;
        (next === undefined ? markLastResortUsed : consumeKeyPackage).run(id);
        keyPackages.push({ deviceId, keyPackage, lastResort: next === undefined });
      }
      return { kind: 'taken', keyPackages, devicesWithout };
    },

    putHybridKey: (key: NewHybridKey): PutHybridKeyOutcome => {
      if (isReplay(key.replay)) return { kind: 'replayed' };
      const device = lookups.refOf(key.address);
      if (device === undefined) return { kind: 'unknown_device' };
      const present = hybridKey.get(device);
      if (present !== undefined && key.serial <= present[0]) {
        const same = key.serial === present[0] && bytesEqual(key.hybridKey, present[1]);
        return same ? { kind: 'stored' } : { kind: 'stale', serial: present[0] };
      }
      putHybridKey.run(device, key.hybridKey, key.serial, key.notAfterMs);
      return { kind: 'stored' };
    },

    createGroup: (group: NewGroup): CreateGroupOutcome => {
      const creator = lookups.refOf(group.creator);
      if (creator === undefined) return { kind: 'unknown_device' };
      const present = lookups.channelRow(group.channelId);
      if (present !== undefined) return { kind: present[2] === creator ? 'created' : 'conflict' };
      const roster = [{ id: creator, address: group.creator }];
      addChannel(group.channelId, { creator }, roster, [group.creator.identityKey], group.nowMs);
      return { kind: 'created' };
    },

    createDirect: (direct: NewDirect): CreateDirectOutcome => {
      const [a, b] = direct.pair.map((identity) => accountByIdentity.get(identity));
      if (a === undefined || b === undefined) return { kind: 'unknown_account' };
      if (a === b) throw new StoreError('misuse', 'A direct channel needs two accounts.');
      const pair = [Math.min(a, b), Math.max(a, b)] as const;
      const present = directByPair.get(...pair);
      if (present !== undefined) return { kind: 'exists', channelId: present[0], head: present[1] };
      const roster = direct.pair.flatMap((identityKey) => lookups.refsOf({ identityKey }));
      addChannel(direct.channelId, { pair }, roster, direct.pair, direct.nowMs);
      return { kind: 'created', channelId: direct.channelId };
    },

    putChannelMetadata: (put: {
      channelId: Uint8Array;
      writer: Address;
      expectedVersion: number;
      data: Uint8Array;
    }): PutChannelMetadataOutcome => {
      const channel = lookups.channelRow(put.channelId)?.[0];
      if (channel === undefined) return { kind: 'unknown_channel' };
      const writer = lookups.refOf(put.writer);
      if (writer === undefined || !lookups.isOnRoster(channel, writer)) return { kind: 'not_member' };
      const isAdmin = lookups.adminsOf(channel).some((identity) => bytesEqual(identity, put.writer.identityKey));
      if (!isAdmin) return { kind: 'admin_required' };
      const metadata = lookups.channelMetadata(channel);
      if ((metadata?.version ?? 0) !== put.expectedVersion) return { kind: 'conflict', metadata };
      const version = put.expectedVersion + 1;
      putMetadata.run(channel, version, put.data);
      return { kind: 'stored', version };
    },

    enqueue,
    ack,

    drainInbox: (read: ReadInbox): ReadInboxOutcome => {
      const outcome = reads.readInbox(read);
      const device = lookups.refOf(read.address);
      if (outcome.kind !== 'read' || device === undefined) return outcome;
      remove(
        device,
        outcome.rows.map((row) => removalAt.get(device, row.seq)!),
      );
      if (outcome.gap !== undefined) clearGap.run(device, outcome.gap.losses);
      return outcome;
    },

    clearGap: (input: { address: Address; gap: InboxGap }): boolean => {
      const device = lookups.refOf(input.address);
      return device !== undefined && clearGap.run(device, input.gap.losses).changes > 0;
    },

    submitCommit,
    appendToLog: transparency.appendToLog,
    purge,
  };
}

function rowid(result: { lastInsertRowid: number | bigint }): number {
  return Number(result.lastInsertRowid);
}

function dayOf(nowMs: number): number {
  return nowMs - (nowMs % DAY_MS);
}

function bytesEqual(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

function identityHex(ref: DeviceRef): string {
  return hex(ref.address.identityKey);
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex');
}
