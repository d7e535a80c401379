/**
 * Conversations and what belongs to one beside its MLS rows and messages: place in the commit log, envelope keys,
 * post-quantum salts, the pending commit, the chains by which gaps are seen, and the local checks of members.
 */
import type { Driver, SqlRow } from './driver.ts';
import { bigintOf, booleanOf, bytesOf, columns, numberOf, optional, textOf, wordOf } from './sql.ts';

const KINDS = ['direct', 'group', 'note'] as const;
const STATES = ['active', 'awaiting-welcome', 'leaving', 'left', 'removed'] as const;
const CHECKS = ['verified', 'failed'] as const;

export interface StoredConversation {
  /** 16 bytes. */
  readonly channelId: Uint8Array;
  readonly kind: (typeof KINDS)[number];
  readonly state: (typeof STATES)[number];
  /** Why nothing is sent until the user or an administrator acts. */
  readonly paused: string | undefined;
  /** A group's name; empty in direct conversations. */
  readonly name: string;
  readonly nameVersion: bigint;
  /** The other account, in direct conversations. */
  readonly peerIdentity: Uint8Array | undefined;
  /** The last log entry handled; 0 before the first. */
  readonly position: bigint;
  /** log_hash after it. */
  readonly logHash: Uint8Array;
  /** roster_hash the server gave with it. */
  readonly rosterHash: Uint8Array | undefined;
  /** The log entry whose commit began our current epoch. */
  readonly epochPosition: bigint;
  /** MLS group id, suite and epoch; undefined without a group state. */
  readonly groupId: Uint8Array | undefined;
  readonly suite: number | undefined;
  readonly epoch: bigint | undefined;
  /** Accounts, this one included; 0 without a group state. */
  readonly memberCount: number;
  /** Counter and hash of this device's last content here; 0 and undefined before the first. */
  readonly deviceCounter: bigint;
  readonly previousHash: Uint8Array | undefined;
  /** Identity that invited us. */
  readonly invitedBy: Uint8Array | undefined;
  /** Joined by invitation and not yet marked as seen. */
  readonly isNew: boolean;
  readonly createdAtMs: number;
  readonly lastMessageAtMs: number | undefined;
}

/** Key of type-03 envelopes of one epoch. */
interface StoredEnvelopeKey {
  /** The log entry that began the epoch. */
  readonly position: bigint;
  readonly epoch: bigint;
  readonly key: Uint8Array;
  /** When the next epoch began; undefined for the current one. */
  readonly endedAtMs: number | undefined;
}

export interface StoredPendingCommit {
  readonly messageId: Uint8Array;
  /** Head of the log it was made after. */
  readonly after: bigint;
  /** The encoded SubmitCommitRequest: resubmitted byte for byte. */
  readonly request: Uint8Array;
  /** `encodePendingCommit` of mls. */
  readonly pending: Uint8Array;
  /** What it is for, in the engine's own words (JSON), to do again when somebody else's commit won. */
  readonly intent: string;
  readonly attempts: number;
  readonly createdAtMs: number;
}

/** The group that a ReInit closed. */
interface StoredPredecessor {
  /** The log entry that closed it: envelopes of earlier positions are its own. */
  readonly position: bigint;
  readonly closedAtMs: number;
}

interface SenderChain {
  readonly counter: bigint;
  /** `contentHash` of that content. */
  readonly hash: Uint8Array;
}

export interface MemberCheck {
  readonly identityKey: Uint8Array;
  readonly deviceId: Uint8Array;
  readonly outcome: (typeof CHECKS)[number];
  /** For the user; empty when verified. */
  readonly reason: string;
  readonly checkedAtMs: number;
}

export interface ConversationStore {
  get(channelId: Uint8Array): StoredConversation | undefined;
  /** Newest activity first. */
  all(): readonly StoredConversation[];
  direct(peerIdentity: Uint8Array): StoredConversation | undefined;
  byGroupId(groupId: Uint8Array): StoredConversation | undefined;
  /** Inserts, or replaces the whole record. */
  save(conversation: StoredConversation): void;
  /** Deletes the conversation with all that belongs to it. */
  delete(channelId: Uint8Array): void;

  envelopeKey(channelId: Uint8Array, position: bigint): StoredEnvelopeKey | undefined;
  /** Stores the key of a new epoch and marks all others as ended now (unless they were). */
  beginEpoch(channelId: Uint8Array, key: Omit<StoredEnvelopeKey, 'endedAtMs'>, nowMs: number): void;
  /** Deletes keys of epochs that ended before `beforeMs`, and all but the `keep` newest ended ones. */
  deleteEnvelopeKeys(channelId: Uint8Array, keep: number, beforeMs: number): void;
  /** Position of the oldest epoch whose key is kept. */
  oldestEnvelopeKey(channelId: Uint8Array): bigint | undefined;
  /** Before a rejoin: all of them. */
  clearEnvelopeKeys(channelId: Uint8Array): void;

  /** pq_n of an epoch that began at `position`; undefined when none was ever set. */
  pqSalt(channelId: Uint8Array, position: bigint): Uint8Array | undefined;
  /** Salts this entry's epoch onward. */
  setPqSalt(channelId: Uint8Array, position: bigint, salt: Uint8Array): void;
  /** Deletes the salts that only epochs before the one begun at `position` used. */
  deletePqSaltsBefore(channelId: Uint8Array, position: bigint): void;

  predecessor(channelId: Uint8Array): StoredPredecessor | undefined;
  savePredecessor(channelId: Uint8Array, predecessor: StoredPredecessor): void;
  /** With its rows. */
  deletePredecessor(channelId: Uint8Array): void;
  /** Channels with a predecessor closed before a moment. */
  predecessorsClosedBefore(beforeMs: number): readonly Uint8Array[];

  pendingCommit(channelId: Uint8Array): StoredPendingCommit | undefined;
  /** Channels with a commit to submit. */
  pendingCommits(): readonly Uint8Array[];
  savePendingCommit(channelId: Uint8Array, commit: StoredPendingCommit): void;
  clearPendingCommit(channelId: Uint8Array): void;

  senderChain(channelId: Uint8Array, identityKey: Uint8Array, deviceId: Uint8Array): SenderChain | undefined;
  saveSenderChain(channelId: Uint8Array, identityKey: Uint8Array, deviceId: Uint8Array, chain: SenderChain): void;

  /** Members without an entry have not been checked yet. */
  memberChecks(channelId: Uint8Array): readonly MemberCheck[];
  saveMemberCheck(channelId: Uint8Array, check: MemberCheck): void;
  deleteMemberCheck(channelId: Uint8Array, identityKey: Uint8Array, deviceId: Uint8Array): void;
}

const CONVERSATION = columns<StoredConversation>({
  channel_id: (conversation) => conversation.channelId,
  kind: (conversation) => conversation.kind,
  state: (conversation) => conversation.state,
  paused: (conversation) => conversation.paused,
  name: (conversation) => conversation.name,
  name_version: (conversation) => conversation.nameVersion,
  peer_identity: (conversation) => conversation.peerIdentity,
  position: (conversation) => conversation.position,
  log_hash: (conversation) => conversation.logHash,
  roster_hash: (conversation) => conversation.rosterHash,
  epoch_position: (conversation) => conversation.epochPosition,
  group_id: (conversation) => conversation.groupId,
  suite: (conversation) => conversation.suite,
  epoch: (conversation) => conversation.epoch,
  member_count: (conversation) => conversation.memberCount,
  device_counter: (conversation) => conversation.deviceCounter,
  previous_hash: (conversation) => conversation.previousHash,
  invited_by: (conversation) => conversation.invitedBy,
  is_new: (conversation) => conversation.isNew,
  created_at: (conversation) => conversation.createdAtMs,
  last_message_at: (conversation) => conversation.lastMessageAtMs,
});

interface PendingCommitRow extends StoredPendingCommit {
  readonly channelId: Uint8Array;
}

const PENDING_COMMIT = columns<PendingCommitRow>({
  channel_id: (commit) => commit.channelId,
  message_id: (commit) => commit.messageId,
  after: (commit) => commit.after,
  request: (commit) => commit.request,
  pending: (commit) => commit.pending,
  intent: (commit) => commit.intent,
  attempts: (commit) => commit.attempts,
  created_at: (commit) => commit.createdAtMs,
});

export function conversationStore(driver: Driver): ConversationStore {
  const get = driver.prepare('SELECT * FROM conversations WHERE channel_id = ?');
  const all = driver.prepare(
    'SELECT * FROM conversations ORDER BY coalesce(last_message_at, created_at) DESC, channel_id',
  );
  const direct = driver.prepare(`SELECT * FROM conversations WHERE peer_identity = ? AND kind = 'direct'`);
  const byGroupId = driver.prepare('SELECT * FROM conversations WHERE group_id = ?');
  const save = driver.prepare(CONVERSATION.upsert('conversations', ['channel_id']));
  const remove = driver.prepare('DELETE FROM conversations WHERE channel_id = ?');

  const envelopeKey = driver.prepare('SELECT * FROM envelope_keys WHERE channel_id = ? AND position = ?');
  const endEpochs = driver.prepare(
    'UPDATE envelope_keys SET ended_at = ? WHERE channel_id = ? AND position <> ? AND ended_at IS NULL',
  );
  const insertKey = driver.prepare(
    `INSERT INTO envelope_keys (channel_id, position, epoch, key, ended_at) VALUES (?, ?, ?, ?, NULL)
     ON CONFLICT (channel_id, position) DO UPDATE SET epoch = excluded.epoch, key = excluded.key, ended_at = NULL`,
  );
  const deleteKeys = driver.prepare(
    `DELETE FROM envelope_keys WHERE channel_id = ? AND ended_at IS NOT NULL AND (ended_at < ? OR position NOT IN (
       SELECT position FROM envelope_keys AS newest WHERE newest.channel_id = envelope_keys.channel_id
       AND newest.ended_at IS NOT NULL ORDER BY newest.position DESC LIMIT ?))`,
  );
  const oldestKey = driver.prepare('SELECT min(position) AS position FROM envelope_keys WHERE channel_id = ?');
  const clearKeys = driver.prepare('DELETE FROM envelope_keys WHERE channel_id = ?');

  const pqSalt = driver.prepare(
    'SELECT salt FROM pq_salts WHERE channel_id = ? AND position <= ? ORDER BY position DESC LIMIT 1',
  );
  const setPqSalt = driver.prepare(
    `INSERT INTO pq_salts (channel_id, position, salt) VALUES (?, ?, ?)
     ON CONFLICT (channel_id, position) DO UPDATE SET salt = excluded.salt`,
  );
  const deletePqSalts = driver.prepare(
    `DELETE FROM pq_salts WHERE channel_id = ? AND position < (
       SELECT max(position) FROM pq_salts AS salts WHERE salts.channel_id = pq_salts.channel_id AND salts.position <= ?)`,
  );

  const predecessor = driver.prepare('SELECT position, closed_at FROM predecessors WHERE channel_id = ?');
  const savePredecessor = driver.prepare(
    `INSERT INTO predecessors (channel_id, position, closed_at) VALUES (?, ?, ?)
     ON CONFLICT (channel_id) DO UPDATE SET position = excluded.position, closed_at = excluded.closed_at`,
  );
  const deletePredecessor = driver.prepare('DELETE FROM predecessors WHERE channel_id = ?');
  const predecessorsBefore = driver.prepare('SELECT channel_id FROM predecessors WHERE closed_at < ?');

  const pendingCommit = driver.prepare('SELECT * FROM pending_commits WHERE channel_id = ?');
  const pendingCommits = driver.prepare('SELECT channel_id FROM pending_commits ORDER BY created_at');
  const savePendingCommit = driver.prepare(PENDING_COMMIT.upsert('pending_commits', ['channel_id']));
  const clearPendingCommit = driver.prepare('DELETE FROM pending_commits WHERE channel_id = ?');

  const senderChain = driver.prepare(
    'SELECT counter, hash FROM sender_chains WHERE channel_id = ? AND identity_key = ? AND device_id = ?',
  );
  const saveSenderChain = driver.prepare(
    `INSERT INTO sender_chains (channel_id, identity_key, device_id, counter, hash) VALUES (?, ?, ?, ?, ?)
     ON CONFLICT (channel_id, identity_key, device_id) DO UPDATE SET counter = excluded.counter, hash = excluded.hash`,
  );

  const memberChecks = driver.prepare('SELECT * FROM member_checks WHERE channel_id = ?');
  const saveMemberCheck = driver.prepare(
    `INSERT INTO member_checks (channel_id, identity_key, device_id, outcome, reason, checked_at)
     VALUES (?, ?, ?, ?, ?, ?)
     ON CONFLICT (channel_id, identity_key, device_id)
     DO UPDATE SET outcome = excluded.outcome, reason = excluded.reason, checked_at = excluded.checked_at`,
  );
  const deleteMemberCheck = driver.prepare(
    'DELETE FROM member_checks WHERE channel_id = ? AND identity_key = ? AND device_id = ?',
  );

  return {
    get(channelId) {
      const row = get.get(channelId);
      return row && conversationOf(row);
    },
    all: () => all.all().map(conversationOf),
    direct(peerIdentity) {
      const row = direct.get(peerIdentity);
      return row && conversationOf(row);
    },
    byGroupId(groupId) {
      const row = byGroupId.get(groupId);
      return row && conversationOf(row);
    },
    save(conversation) {
      save.run(...CONVERSATION.values(conversation));
    },
    delete(channelId) {
      remove.run(channelId);
    },

    envelopeKey(channelId, position) {
      const row = envelopeKey.get(channelId, position);
      return (
        row && {
          position: bigintOf(row, 'position'),
          epoch: bigintOf(row, 'epoch'),
          key: bytesOf(row, 'key'),
          endedAtMs: optional(numberOf, row, 'ended_at'),
        }
      );
    },
    beginEpoch(channelId, { position, epoch, key }, nowMs) {
      driver.transaction(() => {
        endEpochs.run(nowMs, channelId, position);
        insertKey.run(channelId, position, epoch, key);
      });
    },
    deleteEnvelopeKeys(channelId, keep, beforeMs) {
      deleteKeys.run(channelId, beforeMs, keep);
    },
    oldestEnvelopeKey(channelId) {
      const row = oldestKey.get(channelId);
      return row && optional(bigintOf, row, 'position');
    },
    clearEnvelopeKeys(channelId) {
      clearKeys.run(channelId);
    },

    pqSalt(channelId, position) {
      const row = pqSalt.get(channelId, position);
      return row && bytesOf(row, 'salt');
    },
    setPqSalt(channelId, position, salt) {
      setPqSalt.run(channelId, position, salt);
    },
    deletePqSaltsBefore(channelId, position) {
      deletePqSalts.run(channelId, position);
    },

    predecessor(channelId) {
      const row = predecessor.get(channelId);
      return row && { position: bigintOf(row, 'position'), closedAtMs: numberOf(row, 'closed_at') };
    },
    savePredecessor(channelId, { position, closedAtMs }) {
      savePredecessor.run(channelId, position, closedAtMs);
    },
    deletePredecessor(channelId) {
      deletePredecessor.run(channelId);
    },
    predecessorsClosedBefore: (beforeMs) => predecessorsBefore.all(beforeMs).map((row) => bytesOf(row, 'channel_id')),

    pendingCommit(channelId) {
      const row = pendingCommit.get(channelId);
      return (
        row && {
          messageId: bytesOf(row, 'message_id'),
          after: bigintOf(row, 'after'),
          request: bytesOf(row, 'request'),
          pending: bytesOf(row, 'pending'),
          intent: textOf(row, 'intent'),
          attempts: numberOf(row, 'attempts'),
          createdAtMs: numberOf(row, 'created_at'),
        }
      );
    },
    pendingCommits: () => pendingCommits.all().map((row) => bytesOf(row, 'channel_id')),
    savePendingCommit(channelId, commit) {
      savePendingCommit.run(...PENDING_COMMIT.values({ ...commit, channelId }));
    },
    clearPendingCommit(channelId) {
      clearPendingCommit.run(channelId);
    },

    senderChain(channelId, identityKey, deviceId) {
      const row = senderChain.get(channelId, identityKey, deviceId);
      return row && { counter: bigintOf(row, 'counter'), hash: bytesOf(row, 'hash') };
    },
    saveSenderChain(channelId, identityKey, deviceId, { counter, hash }) {
      saveSenderChain.run(channelId, identityKey, deviceId, counter, hash);
    },

    memberChecks: (channelId) =>
      memberChecks.all(channelId).map((row) => ({
        identityKey: bytesOf(row, 'identity_key'),
        deviceId: bytesOf(row, 'device_id'),
        outcome: wordOf(row, 'outcome', CHECKS),
        reason: textOf(row, 'reason'),
        checkedAtMs: numberOf(row, 'checked_at'),
      })),
    saveMemberCheck(channelId, { identityKey, deviceId, outcome, reason, checkedAtMs }) {
      saveMemberCheck.run(channelId, identityKey, deviceId, outcome, reason, checkedAtMs);
    },
    deleteMemberCheck(channelId, identityKey, deviceId) {
      deleteMemberCheck.run(channelId, identityKey, deviceId);
    },
  };
}

function conversationOf(row: SqlRow): StoredConversation {
  return {
    channelId: bytesOf(row, 'channel_id'),
    kind: wordOf(row, 'kind', KINDS),
    state: wordOf(row, 'state', STATES),
    paused: optional(textOf, row, 'paused'),
    name: textOf(row, 'name'),
    nameVersion: bigintOf(row, 'name_version'),
    peerIdentity: optional(bytesOf, row, 'peer_identity'),
    position: bigintOf(row, 'position'),
    logHash: bytesOf(row, 'log_hash'),
    rosterHash: optional(bytesOf, row, 'roster_hash'),
    epochPosition: bigintOf(row, 'epoch_position'),
    groupId: optional(bytesOf, row, 'group_id'),
    suite: optional(numberOf, row, 'suite'),
    epoch: optional(bigintOf, row, 'epoch'),
    memberCount: numberOf(row, 'member_count'),
    deviceCounter: bigintOf(row, 'device_counter'),
    previousHash: optional(bytesOf, row, 'previous_hash'),
    invitedBy: optional(bytesOf, row, 'invited_by'),
    isNew: booleanOf(row, 'is_new'),
    createdAtMs: numberOf(row, 'created_at'),
    lastMessageAtMs: optional(numberOf, row, 'last_message_at'),
  };
}
