/**
 * The server's store: what must survive a restart, in operations of the domain (DESIGN sections 5 and 6, PROTOCOL
 * sections 3, 5 and 8). Handlers know this interface only; SQLite and later PostgreSQL stand behind it, and the suite in
 * `store-contract.ts` runs on each.
 *
 * Data flow: a handler checks its request, calls one operation, and answers from the outcome. Each operation is one
 * transaction. A write's promise resolves only when that transaction is on disk, so whatever a handler answers afterwards
 * survives kill -9. Expected outcomes are unions with a `kind`; a `StoreError` is thrown for everything else.
 *
 * Times come from the caller: `nowMs` is milliseconds since 1970. Positions (`seq`, log positions, serials) are
 * non-negative safe integers; a caller that decodes 64-bit fields refuses larger values itself. Byte arrays handed in are
 * copied before the call returns; those handed out belong to the caller.
 */

/** A device's delivery address: Ed25519 identity key (32 bytes) and device id (16 bytes). */
export interface Address {
  readonly identityKey: Uint8Array;
  readonly deviceId: Uint8Array;
}

/** A payload and its SHA-256 (32 bytes), which the caller computes once for the store and its receipt alike. */
export interface Payload {
  readonly data: Uint8Array;
  readonly hash: Uint8Array;
}

/**
 * The single use of a signed request (PROTOCOL section 3). `hash` (32 bytes) is remembered until `expiresAtMs` in the
 * same transaction as the operation it guards; the second use answers `replayed` and changes nothing, also after a restart.
 */
export interface ReplayGuard {
  readonly hash: Uint8Array;
  readonly expiresAtMs: number;
}

/** What scheduling knows about the origin of a write. */
export interface WriteContext {
  /** Names the connection: at most 16 of its writes enter one transaction, so a flood does not starve the others. */
  readonly fairnessKey?: string | number | undefined;
}

// ---- accounts, devices, sessions ----------------------------------------------------------------------------------

export interface NewDevice {
  readonly deviceId: Uint8Array;
  /** Ed25519 device key, 32 bytes. */
  readonly deviceKey: Uint8Array;
  /** The certificate as received. */
  readonly certificate: Uint8Array;
  /** What the user calls it. */
  readonly name: string;
}

export interface Device extends Address, NewDevice {
  readonly registeredAtMs: number;
  /** Start of the last UTC day with a session. */
  readonly lastSeenDayMs: number;
}

export interface NewAccount {
  /** Canonical. */
  readonly username: string;
  readonly identityKey: Uint8Array;
  /** OPAQUE RegistrationRecord. */
  readonly opaqueRecord: Uint8Array;
  readonly registrationSignature: Uint8Array;
  readonly firstDevice: NewDevice;
  /** Left out: an account without a place in the key-transparency log. */
  readonly stated?: StatedEntry | undefined;
  readonly nowMs: number;
}

/** `username_taken` wins when both are. A name stays taken for ever. */
export type CreateAccountOutcome =
  | { readonly kind: 'created' }
  | { readonly kind: 'username_taken' }
  | { readonly kind: 'identity_taken' };

export interface Account {
  readonly username: string;
  readonly identityKey: Uint8Array;
  readonly registrationSignature: Uint8Array;
  readonly createdAtMs: number;
  /** In order of registration. */
  readonly devices: readonly Device[];
}

/** What a list of accounts shows of one. */
export interface AccountSummary {
  readonly username: string;
  readonly identityKey: Uint8Array;
  readonly createdAtMs: number;
  readonly devices: number;
}

export interface RegisterDevice {
  readonly identityKey: Uint8Array;
  readonly device: NewDevice;
  /** The certificate that the device has now, where this one is to take its place. */
  readonly renews?: Uint8Array | undefined;
  readonly stated?: StatedEntry | undefined;
  readonly nowMs: number;
  readonly replay?: ReplayGuard | undefined;
}

/** `exists`: the same device with the same certificate was there; `device_taken`: the id is another certificate's. */
export type RegisterDeviceOutcome =
  | { readonly kind: 'registered' }
  | { readonly kind: 'exists' }
  /** It has this certificate now, instead of the one named in `renews`. */
  | { readonly kind: 'renewed' }
  | StaleStatement
  | { readonly kind: 'device_taken' }
  | { readonly kind: 'too_many'; readonly max: number }
  | { readonly kind: 'unknown_account' }
  | { readonly kind: 'replayed' };

export interface DeleteAccount {
  readonly identityKey: Uint8Array;
  readonly stated?: StatedEntry | undefined;
  readonly nowMs: number;
  readonly replay?: ReplayGuard | undefined;
}

export type DeleteAccountOutcome =
  /** The devices it had: whoever is connected as one of them is to go. */
  | { readonly kind: 'deleted'; readonly devices: readonly Address[] }
  | StaleStatement
  | { readonly kind: 'unknown_account' }
  | { readonly kind: 'replayed' };

export interface RevokeDevice {
  readonly address: Address;
  /** The signed statement as received. The first one of a device stands. */
  readonly statement: Uint8Array;
  readonly stated?: StatedEntry | undefined;
  readonly nowMs: number;
  readonly replay?: ReplayGuard | undefined;
}

/** `revoked`: the device was registered until now; `recorded`: it was not, or not any more. */
export type RevokeDeviceOutcome =
  | { readonly kind: 'revoked' }
  | { readonly kind: 'recorded' }
  | StaleStatement
  /** Statements about devices that are not registered are bounded. */
  | { readonly kind: 'too_many'; readonly max: number }
  | { readonly kind: 'unknown_account' }
  | { readonly kind: 'replayed' };

export interface Revocation {
  readonly address: Address;
  readonly statement: Uint8Array;
}

/** Where to knock for a device that has no connection. */
export interface PushToken {
  /** Which notifier. */
  readonly kind: string;
  readonly token: string;
}

export interface Ban {
  readonly identityKey: Uint8Array;
  /** For the banned person. */
  readonly reason: string;
  /** Undefined = for good. */
  readonly untilMs: number | undefined;
}

/** A report, sealed to the operator; it names no reporter. */
export interface Report {
  /** Counts up from 1. */
  readonly id: number;
  readonly report: Uint8Array;
  readonly conversationId: Uint8Array;
  readonly receivedAtMs: number;
}

/** Where a device can be reached directly: the signed statement as received. */
export interface Endpoint {
  readonly address: Address;
  readonly statement: Uint8Array;
}

/** Whether a device may have a session. */
export type Standing =
  | { readonly kind: 'good' }
  | { readonly kind: 'unknown_device' }
  | { readonly kind: 'banned'; readonly ban: Ban };

export interface NewSession {
  /** SHA-256 of the token, 32 bytes. */
  readonly tokenHash: Uint8Array;
  readonly address: Address;
  readonly expiresAtMs: number;
  readonly nowMs: number;
}

export type SessionOutcome =
  | {
      readonly kind: 'found';
      readonly address: Address;
      readonly username: string;
      /** What a proof of possession is verified under. */
      readonly deviceKey: Uint8Array;
      readonly expiresAtMs: number;
    }
  | { readonly kind: 'none' };

// ---- key transparency -----------------------------------------------------------------------------------------------

/**
 * An account statement that was accepted, and the log entry that it becomes (PROTOCOL section 7). It is stored with the
 * change of the account that it states, in one transaction, and its entry waits in a queue until the log's next batch.
 */
export interface StatedEntry {
  /** As it will stand in the log. */
  readonly entry: Uint8Array;
  /** One more than the account's newest, 0 for its first. */
  readonly version: number;
  /** 32 bytes each. */
  readonly history: Uint8Array;
  readonly opening: Uint8Array;
  /** As received. */
  readonly statement: Uint8Array;
  /** The proof of the name's index: the same for all entries of an account. */
  readonly vrfProof: Uint8Array;
  /** How many revocations the account had when the statement was checked against it. */
  readonly revocationsBefore: number;
}

/** The account has another newest statement, or another revocation, than when this one was checked: nothing was done. */
interface StaleStatement {
  readonly kind: 'stale_statement';
}

/** An account and what the log says of it, in one snapshot. */
export interface StatedAccount {
  readonly account: Account;
  /** The newest 32, oldest first. */
  readonly revocations: readonly Revocation[];
  readonly revocationCount: number;
  /** Its newest statement; undefined for an account that has none, being older than the log. */
  readonly stated: AcceptedStatement | undefined;
}

export interface AcceptedStatement extends Omit<StatedEntry, 'revocationsBefore'> {
  /** Of its entry in the log; undefined as long as that is in the queue. */
  readonly position: number | undefined;
}

/** The log as it was last signed. */
export interface LogHead {
  /** Number of entries, at least 1. */
  readonly size: number;
  /** A signed note. */
  readonly checkpoint: Uint8Array;
  /** Entry 0. */
  readonly start: Uint8Array;
}

/** One batch: entries, hashes, positions and the head in one transaction. */
export interface AppendToLog {
  /** Size of the log that this continues; 0 makes it. */
  readonly size: number;
  /** Entry 0, which does not come from the queue. */
  readonly start?: Uint8Array | undefined;
  /** The oldest entries of the queue, so many. */
  readonly queued: number;
  /** Where the hashes go: one position after the other from here on. */
  readonly hashesFrom: number;
  readonly hashes: readonly Uint8Array[];
  /** Over the new size. */
  readonly checkpoint: Uint8Array;
}

// ---- key material -------------------------------------------------------------------------------------------------

export interface KeyPackageUpload {
  /** Opaque. */
  readonly keyPackage: Uint8Array;
  /** SHA-256 of it, 32 bytes: what makes a repeated upload harmless, even of a package already handed out. */
  readonly hash: Uint8Array;
  /** MLS cipher suite, u16. */
  readonly suite: number;
  readonly notAfterMs: number;
  readonly lastResort: boolean;
}

/** `full`: nothing was stored; the device already has `max` unused packages of `suite`, or would have more. */
export type UploadKeyPackagesOutcome =
  | { readonly kind: 'stored'; readonly added: number }
  | { readonly kind: 'full'; readonly suite: number; readonly max: number }
  | { readonly kind: 'unknown_device' };

export type TakeKeyPackagesOutcome =
  | {
      readonly kind: 'taken';
      /** One per device that still had one. */
      readonly keyPackages: readonly {
        readonly deviceId: Uint8Array;
        readonly keyPackage: Uint8Array;
        /** Not consumed: nothing else was left. */
        readonly lastResort: boolean;
      }[];
      /** Ids of the devices that had none. */
      readonly devicesWithout: readonly Uint8Array[];
    }
  | { readonly kind: 'unknown_account' };

export interface SuiteCount {
  readonly suite: number;
  /** Unused and unexpired, the last-resort package not counted. */
  readonly available: number;
  readonly lastResort: boolean;
  /** It has been handed out since it was uploaded. */
  readonly lastResortUsed: boolean;
}

export interface NewHybridKey {
  readonly address: Address;
  /** The signed statement as received. */
  readonly hybridKey: Uint8Array;
  /** Must exceed the serial stored, unless the statement is the very same. */
  readonly serial: number;
  readonly notAfterMs: number;
  readonly nowMs: number;
  readonly replay?: ReplayGuard | undefined;
}

export type PutHybridKeyOutcome =
  | { readonly kind: 'stored' }
  | { readonly kind: 'stale'; readonly serial: number }
  | { readonly kind: 'unknown_device' }
  | { readonly kind: 'replayed' };

export interface HybridKey {
  readonly address: Address;
  readonly hybridKey: Uint8Array;
  /** The certificate of the device whose key signed it. */
  readonly certificate: Uint8Array;
}

// ---- channels -----------------------------------------------------------------------------------------------------

export interface NewGroup {
  readonly channelId: Uint8Array;
  /** Becomes the roster; its identity the administrator. */
  readonly creator: Address;
  readonly nowMs: number;
}

/** `created` also for a repeat by the same creating device; `conflict`: the id is somebody else's. */
export type CreateGroupOutcome =
  | { readonly kind: 'created' }
  | { readonly kind: 'conflict' }
  | { readonly kind: 'unknown_device' };

export interface NewDirect {
  /** Used if the pair has none yet: 16 fresh random bytes. */
  readonly channelId: Uint8Array;
  /** Two identity keys, in any order, not equal. */
  readonly pair: readonly [Uint8Array, Uint8Array];
  readonly nowMs: number;
}

export type CreateDirectOutcome =
  | { readonly kind: 'created'; readonly channelId: Uint8Array }
  | { readonly kind: 'exists'; readonly channelId: Uint8Array; readonly head: number }
  | { readonly kind: 'unknown_account' };

/** One version of a group's sealed metadata, counting from 1. */
export interface ChannelMetadata {
  readonly version: number;
  readonly data: Uint8Array;
}

export type PutChannelMetadataOutcome =
  | { readonly kind: 'stored'; readonly version: number }
  /** Another version than the expected one stands; undefined while there is none. */
  | { readonly kind: 'conflict'; readonly metadata: ChannelMetadata | undefined }
  | { readonly kind: 'unknown_channel' }
  | { readonly kind: 'not_member' }
  | { readonly kind: 'admin_required' };

export interface ChannelInfo {
  readonly kind: 'group' | 'direct';
  /** Devices delivered to, sorted by address. */
  readonly roster: readonly Address[];
  /** Identity keys, sorted. Both of the pair in a direct channel. */
  readonly admins: readonly Uint8Array[];
  /** Head of the commit log; 0 while it is empty. */
  readonly head: number;
  readonly logHash: Uint8Array;
  readonly rosterHash: Uint8Array;
  /** SHA-256 of the send token in force; undefined until a commit set one. */
  readonly sendTokenHash: Uint8Array | undefined;
  readonly metadata: ChannelMetadata | undefined;
}

// ---- delivery -----------------------------------------------------------------------------------------------------

/** One recipient: a device, or every device of an identity when `deviceId` is left out. */
export interface Recipient {
  readonly identityKey: Uint8Array;
  readonly deviceId?: Uint8Array | undefined;
  /** Type 02: this device's wrap of the content key. Needs a device id. */
  readonly wrap?: Uint8Array | undefined;
}

/** To whom an envelope goes. */
export type Target =
  | { readonly kind: 'recipients'; readonly recipients: readonly Recipient[] }
  /** The channel's whole roster; refused unless `sender` is on it. */
  | { readonly kind: 'roster'; readonly sender: Address }
  /** The channel's whole roster; refused unless the token is in force. `sendTokenHash` is the SHA-256 of the token. */
  | { readonly kind: 'sealed'; readonly sendTokenHash: Uint8Array; readonly nowMs: number };

export interface Enqueue {
  readonly target: Target;
  /** 16 bytes; undefined for what belongs to no channel. Required unless the target is `recipients`. */
  readonly channelId?: Uint8Array | undefined;
  /** 16 bytes. */
  readonly messageId: Uint8Array;
  /** Stored once for all recipients. */
  readonly payload: Payload;
  /** Undefined or 0 = the store's default; more than the maximum = the maximum. */
  readonly ttlMs?: number | undefined;
  readonly nowMs: number;
}

/** What became of one recipient. `unknown` of a whole identity has an empty device id. All are final but the call is ok. */
export type RecipientResult = { readonly address: Address } & (
  | { readonly kind: 'queued'; readonly seq: number }
  | { readonly kind: 'duplicate'; readonly seq: number }
  | { readonly kind: 'full' }
  | { readonly kind: 'unknown' }
);

/** Why nobody could be addressed at all. */
export type TargetRefusal =
  | { readonly kind: 'unknown_channel' }
  | { readonly kind: 'not_member' }
  /** The send token is not (or no longer) in force. */
  | { readonly kind: 'stale_token' };

export type EnqueueOutcome =
  | {
      readonly kind: 'enqueued';
      /** One per device addressed, each device once. */
      readonly results: readonly RecipientResult[];
      readonly acceptedAtMs: number;
      readonly expiresAtMs: number;
      /** Inboxes with something new (an envelope, or a gap): their pumps are to be woken. */
      readonly wake: readonly Address[];
    }
  /** A recipient has this message id in this channel with other bytes: the first one stands, nothing was written. */
  | { readonly kind: 'already_exists' }
  | TargetRefusal;

/** Who would get it now, for envelopes that touch no disk. Unknown recipients are left out. */
export type ResolveTargetOutcome =
  | { readonly kind: 'resolved'; readonly addresses: readonly Address[] }
  | TargetRefusal;

/** An entry's place in its channel's commit log. Hashes are 32 bytes; the roster hash is of the roster after it. */
export interface LogEntry {
  readonly position: number;
  readonly logHash: Uint8Array;
  readonly rosterHash: Uint8Array;
}

/** One envelope in an inbox. */
export interface InboxRow {
  readonly seq: number;
  readonly data: Uint8Array;
  readonly channelId: Uint8Array | undefined;
  readonly messageId: Uint8Array;
  readonly acceptedAtMs: number;
  readonly wrap: Uint8Array | undefined;
  readonly entry: LogEntry | undefined;
  /** `wrap` is undefined for a device the entry removes. */
  readonly pqRenewal: { readonly envelope: Uint8Array; readonly wrap: Uint8Array | undefined } | undefined;
}

/** Something addressed to the device was lost. Stands until it is cleared. */
export interface InboxGap {
  /**
   * Of the first loss since the gap was last cleared, but `restored` where that came later; `damaged`: this read passed
   * over rows that cannot be read.
   */
  readonly reason: 'full' | 'expired' | 'damaged' | 'restored';
  /** The first position that may be missing. */
  readonly sinceSeq: number;
  /** Counts losses; lets `clearGap` see that nothing was added since it was read. Negative: nothing to be cleared. */
  readonly losses: number;
}

export interface ReadInbox {
  readonly address: Address;
  /** Only rows above this position; 0 = from the beginning. */
  readonly afterSeq: number;
  /** Only this channel. */
  readonly channelId?: Uint8Array | undefined;
  /** Default 64. */
  readonly maxRows?: number | undefined;
  /** Of data, wraps and renewals together; at least one row is returned. Default 256 KiB. */
  readonly maxBytes?: number | undefined;
}

export type ReadInboxOutcome =
  | {
      readonly kind: 'read';
      /** In order of seq. */
      readonly rows: readonly InboxRow[];
      /** Rows beyond these were there. */
      readonly more: boolean;
      readonly gap: InboxGap | undefined;
      /** Newest position ever given out in this inbox; 0 before the first. */
      readonly headSeq: number;
    }
  | { readonly kind: 'unknown_device' };

export interface Ack {
  readonly address: Address;
  /** Cumulative: everything up to and including this position. */
  readonly seqUpTo: number;
  /** Only this channel. */
  readonly channelId?: Uint8Array | undefined;
}

// ---- the commit log -----------------------------------------------------------------------------------------------

/** A device and its wrap of something sealed for several. */
interface WrapFor {
  readonly address: Address;
  readonly wrap?: Uint8Array | undefined;
}

export interface SubmitCommit {
  readonly channelId: Uint8Array;
  readonly submitter: Address;
  /** The head as the submitter knows it. */
  readonly after: number;
  readonly messageId: Uint8Array;
  readonly payload: Payload;
  /** Delivered in the same transaction, to devices that are on the roster after this entry. */
  readonly welcomes: readonly {
    readonly messageId: Uint8Array;
    readonly payload: Payload;
    readonly recipients: readonly WrapFor[];
  }[];
  /** Removed first, then added: an address in both stays. */
  readonly rosterRemove: readonly Address[];
  readonly rosterAdd: readonly Address[];
  /** SHA-256 of the new epoch's send token; undefined keeps the one in force. */
  readonly sendTokenHash?: Uint8Array | undefined;
  readonly pqRenewal?: { readonly envelope: Uint8Array; readonly wraps: readonly WrapFor[] } | undefined;
  /** Identity keys. An administrator without a device on the new roster stops being one. */
  readonly adminsAdd: readonly Uint8Array[];
  readonly adminsRemove: readonly Uint8Array[];
  readonly nowMs: number;
}

export type SubmitCommitOutcome =
  | {
      readonly kind: 'accepted';
      readonly entry: LogEntry;
      /** A retry of an entry that is in the log; the other fields are those of the first answer. */
      readonly repeated: boolean;
      /**
       * One per device of the roster as it was before, then one per welcomed device. Of a retry: as long as the
       * deduplication window remembers them.
       */
      readonly results: readonly RecipientResult[];
      readonly acceptedAtMs: number;
      readonly expiresAtMs: number;
      readonly wake: readonly Address[];
    }
  | { readonly kind: 'conflict'; readonly head: number }
  /** The message id is in the log with other bytes. */
  | { readonly kind: 'already_exists' }
  | { readonly kind: 'unknown_channel' }
  | { readonly kind: 'not_member' }
  /** Only an administrator changes other people's devices, or administrators. */
  | { readonly kind: 'admin_required' }
  | { readonly kind: 'last_admin' }
  /** `rosterAdd` names a device that is not registered. */
  | { readonly kind: 'unknown_device'; readonly address: Address }
  | { readonly kind: 'roster_full'; readonly max: number }
  | {
      readonly kind: 'invalid';
      readonly reason:
        | 'stranger_in_direct_channel'
        | 'admins_of_direct_channel'
        | 'admin_not_on_roster'
        | 'welcome_not_on_roster';
    };

// ---- recovery -----------------------------------------------------------------------------------------------------

export interface RecoverySlot {
  readonly kind: 'password' | 'phrase';
  readonly sealedKey: Uint8Array;
  /** SHA-256 of the token that fetches without a session; phrase slots have one. */
  readonly fetchTokenHash: Uint8Array | undefined;
}

export interface RecoveryBundle {
  readonly sealedData: Uint8Array;
  /** At most one of a kind. */
  readonly slots: readonly RecoverySlot[];
}

export interface PutRecovery {
  readonly bundle: RecoveryBundle;
  /** The account, and the device that asks: its sessions survive a change of password. Without one, none does. */
  readonly of: { readonly identityKey: Uint8Array; readonly deviceId?: Uint8Array | undefined };
  /** A change of password, in the same transaction: the account's new OPAQUE record. */
  readonly opaqueRecord?: Uint8Array | undefined;
  readonly replay?: ReplayGuard | undefined;
}

export type PutRecoveryOutcome =
  | {
      readonly kind: 'stored';
      /** Devices whose sessions have ended with the old password. */
      readonly ended: readonly Address[];
    }
  /** Or account. */
  | { readonly kind: 'unknown_device' }
  | { readonly kind: 'replayed' };

// ---- blobs --------------------------------------------------------------------------------------------------------

/** One account's transfer of one blob. The bytes are not the store's business. */
export interface BlobUpload {
  readonly identityKey: Uint8Array;
  /** SHA-256 of all bytes. */
  readonly blobId: Uint8Array;
  readonly sizeBytes: number;
  readonly nowMs: number;
}

export type BeginUploadOutcome =
  /** Somebody has uploaded it before: it is the caller's now, too. */
  | { readonly kind: 'complete' }
  /** `restarted`: it was begun with another size, and what is there of it is worth nothing. */
  | { readonly kind: 'open'; readonly restarted: boolean }
  | { readonly kind: 'over_quota'; readonly maxBytes: number }
  /** The blob has another size. */
  | { readonly kind: 'wrong_size' }
  | { readonly kind: 'unknown_account' };

// ---- housekeeping -------------------------------------------------------------------------------------------------

export interface PurgeOutcome {
  /** Rows removed, of every kind. */
  readonly removed: number;
  /** Inbox rows among them, which had expired. */
  readonly expiredEnvelopes: number;
  /** Call again: this transaction was full. */
  readonly more: boolean;
  /** Inboxes that have a gap now. */
  readonly wake: readonly Address[];
}

export interface StoreState {
  /** `failing`: the last write hit a full disk or a damaged file; reads may still work. */
  readonly state: 'ok' | 'failing';
  /** What the last failed write died of; undefined when `ok`. */
  readonly failure: StoreErrorKind | undefined;
}

export interface StoreStatus extends StoreState {
  readonly backend: 'sqlite' | 'postgresql';
  readonly encrypted: boolean;
  readonly schemaVersion: number;
  readonly accounts: number;
  readonly devices: number;
  readonly channels: number;
  /** Waiting for the operator. */
  readonly reports: number;
  /** Complete ones. */
  readonly blobs: number;
  readonly blobBytes: number;
  /** Envelopes in all inboxes, and their bytes; commits and Welcomes not counted. */
  readonly queuedEnvelopes: number;
  readonly queuedBytes: number;
  /** Writes waiting for their transaction. */
  readonly pendingWrites: number;
}

export interface BackUpOptions {
  /** Called now and then with how much has been written. */
  readonly onProgress?: ((progress: { readonly bytes: number; readonly totalBytes: number }) => void) | undefined;
  /** Gives up and removes what was written. */
  readonly signal?: AbortSignal | undefined;
}

/** What a copy holds. */
export interface StoreBackUp {
  readonly schemaVersion: number;
  readonly accounts: number;
  /** SHA-256 and size of every complete blob, whose bytes are not in it. */
  readonly blobs: readonly { readonly hash: Uint8Array; readonly sizeBytes: number }[];
}

/** Configurable bounds. */
export interface StoreLimits {
  readonly devicesPerAccount: number;
  readonly sessionsPerDevice: number;
  /** Revocations an account may record of devices that are not registered. */
  readonly revocationsPerAccount: number;
  /** Unused ones per device and suite. */
  readonly keyPackagesPerSuite: number;
  /** Reports waiting for the operator, and how long they wait. */
  readonly reports: number;
  readonly reportTtlMs: number;
  readonly inboxEnvelopes: number;
  readonly inboxBytes: number;
  readonly rosterDevices: number;
  readonly ttlDefaultMs: number;
  readonly ttlMaxMs: number;
  /** Of commits and Welcomes. */
  readonly commitTtlMs: number;
  /** How long a message id is remembered, at least. */
  readonly dedupWindowMs: number;
  /** Bytes of blobs an account may have at once, unfinished ones included. */
  readonly blobQuotaBytes: number;
  /** How long a blob is kept after its last upload by an account. */
  readonly blobTtlMs: number;
  /** How long an unfinished upload is kept after its last chunk. */
  readonly uploadTtlMs: number;
  /** How long the previous send token stays valid. */
  readonly sendTokenGraceMs: number;
  readonly purgeRows: number;
  /** Writes waiting for a transaction, and their bytes, a quarter of each by one fairness key; beyond, `unavailable`. */
  readonly pendingWrites: number;
  readonly pendingBytes: number;
}

const DAY_MS = 86_400_000;

/** Revocations shown with an account, and listed in its statement: the newest. */
export const REVOCATIONS_SHOWN = 32;

export const DEFAULT_STORE_LIMITS: StoreLimits = {
  devicesPerAccount: 5,
  sessionsPerDevice: 4,
  revocationsPerAccount: 100,
  keyPackagesPerSuite: 200,
  reports: 10_000,
  reportTtlMs: 90 * DAY_MS,
  inboxEnvelopes: 10_000,
  inboxBytes: 64 * 1024 * 1024,
  rosterDevices: 10_000,
  ttlDefaultMs: 30 * DAY_MS,
  ttlMaxMs: 90 * DAY_MS,
  commitTtlMs: 90 * DAY_MS,
  dedupWindowMs: DAY_MS,
  blobQuotaBytes: 1024 * 1024 * 1024,
  blobTtlMs: 90 * DAY_MS,
  uploadTtlMs: DAY_MS,
  sendTokenGraceMs: 300_000,
  purgeRows: 500,
  pendingWrites: 16_384,
  pendingBytes: 128 * 1024 * 1024,
};

export type StoreErrorKind =
  /** Overloaded or closed: try again later. */
  | 'unavailable'
  /** No space left. Nothing of the operation was kept; reads go on. */
  | 'disk_full'
  /** The file is damaged. Reads go on where they can. */
  | 'corrupt'
  /** The key does not open the file, or the file is not a database. */
  | 'wrong_key'
  /** Written by a newer version. */
  | 'newer_schema'
  /** Another process has the store open. */
  | 'in_use'
  /** Any other failure of the medium. */
  | 'io'
  /** The caller broke this interface's contract. */
  | 'misuse'
  /** Our fault. */
  | 'internal';

/** A failure that is not an outcome. The message names cause and next step and carries no data of users. */
export class StoreError extends Error {
  readonly kind: StoreErrorKind;

  constructor(kind: StoreErrorKind, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'StoreError';
    this.kind = kind;
  }
}

/** Everything durable. Reads see all writes whose promise has resolved. */
export interface Store {
  // Settings: small values of the server itself, such as its origin.
  getSetting(key: string): Promise<Uint8Array | undefined>;
  putSetting(key: string, value: Uint8Array): Promise<void>;
  /** Writes only if there is none; answers the value that stands. */
  putSettingOnce(key: string, value: Uint8Array): Promise<Uint8Array>;

  // Accounts and devices.
  createAccount(account: NewAccount, context?: WriteContext): Promise<CreateAccountOutcome>;
  findAccountByUsername(username: string): Promise<Account | undefined>;
  findAccountByIdentity(identityKey: Uint8Array): Promise<Account | undefined>;
  /** In order of name, for the operator. */
  listAccounts(page: { afterUsername: string; limit: number }): Promise<readonly AccountSummary[]>;
  /** OPAQUE RegistrationRecord and the identity key it belongs to. */
  findOpaqueRecord(username: string): Promise<{ record: Uint8Array; identityKey: Uint8Array } | undefined>;
  registerDevice(device: RegisterDevice, context?: WriteContext): Promise<RegisterDeviceOutcome>;
  /**
   * Removes everything that belongs to the account. Its name and identity key stay taken, its revocations stay shown,
   * rosters keep its addresses until commits remove them, and what it sent is in other people's inboxes.
   */
  deleteAccount(deletion: DeleteAccount, context?: WriteContext): Promise<DeleteAccountOutcome>;
  /**
   * At once: no session, no key material, no push token, no delivery. Rosters keep the address until a commit removes
   * it; to everyone else the device is unknown from now on. Its inbox is emptied before this resolves.
   */
  revokeDevice(revoke: RevokeDevice, context?: WriteContext): Promise<RevokeDeviceOutcome>;
  /** Devices in good standing, and unknown ones, are left out. */
  findRevocations(addresses: readonly Address[]): Promise<readonly Revocation[]>;
  /** Devices that share a channel with this one, revoked or not, and the other devices of its account; at most 10,000. */
  findNeighbours(address: Address): Promise<readonly Address[]>;
  standingOf(address: Address, nowMs: number): Promise<Standing>;
  /** Undefined removes the token. */
  putPushToken(
    put: { address: Address; token: PushToken | undefined },
    context?: WriteContext,
  ): Promise<{ kind: 'stored' } | { kind: 'unknown_device' }>;
  /** Removes the token if it is still this one. */
  dropPushToken(drop: { address: Address; token: PushToken }): Promise<void>;
  /** Devices without one are left out. */
  findPushTokens(addresses: readonly Address[]): Promise<readonly (PushToken & { readonly address: Address })[]>;
  /** In order of registration; empty for an unknown identity. */
  listDevices(identityKey: Uint8Array): Promise<readonly Device[]>;
  findDevice(address: Address): Promise<Device | undefined>;

  // Moderation.
  /** Replaces an earlier ban. */
  putBan(ban: Ban, context?: WriteContext): Promise<{ kind: 'banned' } | { kind: 'unknown_account' }>;
  /** Answers whether there was one. */
  liftBan(identityKey: Uint8Array, context?: WriteContext): Promise<boolean>;
  /** The ban in force, if any. */
  findBan(identityKey: Uint8Array, nowMs: number): Promise<Ban | undefined>;
  /** Those in force, in order of identity key. */
  listBans(page: { afterIdentityKey: Uint8Array | undefined; limit: number; nowMs: number }): Promise<readonly Ban[]>;
  /** `full`: the operator has more than can be kept waiting. */
  addReport(report: Omit<Report, 'id'>, context?: WriteContext): Promise<{ kind: 'stored' } | { kind: 'full' }>;
  /** Oldest first; fewer than `limit` when they exceed `maxBytes`, but at least one. */
  listReports(page: { afterId: number; limit: number; maxBytes: number }): Promise<readonly Report[]>;
  /** Answers how many of them there were. */
  deleteReports(ids: readonly number[]): Promise<number>;

  // Key transparency.
  findStatedAccount(
    of: { readonly username: string } | { readonly identityKey: Uint8Array },
  ): Promise<StatedAccount | undefined>;
  /** Undefined while there is no log. */
  readLogHead(): Promise<LogHead | undefined>;
  /** Entries that wait for the next batch, oldest first. */
  readLogQueue(limit: number): Promise<readonly Uint8Array[]>;
  /** In the order of the positions; fewer where there is none. */
  readLogHashes(positions: readonly number[]): Promise<Uint8Array[]>;
  readLogEntries(page: { start: number; limit: number }): Promise<Uint8Array[]>;
  /** `conflict`: log or queue are not as the caller believes; nothing was written. */
  appendToLog(batch: AppendToLog): Promise<{ kind: 'appended' } | { kind: 'conflict' }>;

  // Session tokens, by hash.
  /** Also marks the device as seen. The device's oldest tokens go beyond `sessionsPerDevice`. */
  putSession(session: NewSession, context?: WriteContext): Promise<{ kind: 'stored' } | { kind: 'unknown_device' }>;
  /** For the check of the device's proof, before anything is prolonged. */
  findSession(tokenHash: Uint8Array, nowMs: number): Promise<SessionOutcome>;
  /** Prolongs an unexpired session and marks the device as seen. */
  resumeSession(
    resume: { tokenHash: Uint8Array; nowMs: number; expiresAtMs: number },
    context?: WriteContext,
  ): Promise<SessionOutcome>;
  /** Removes every token of the device; answers how many. */
  revokeSessions(address: Address, context?: WriteContext): Promise<number>;

  // Key material.
  uploadKeyPackages(
    upload: { address: Address; keyPackages: readonly KeyPackageUpload[]; nowMs: number },
    context?: WriteContext,
  ): Promise<UploadKeyPackagesOutcome>;
  /** One per device of the identity, consumed for good. */
  takeKeyPackages(
    take: { identityKey: Uint8Array; suite: number; nowMs: number },
    context?: WriteContext,
  ): Promise<TakeKeyPackagesOutcome>;
  /** One entry per suite with packages, in order of suite. */
  countKeyPackages(address: Address, nowMs: number): Promise<readonly SuiteCount[]>;
  putHybridKey(key: NewHybridKey, context?: WriteContext): Promise<PutHybridKeyOutcome>;
  /** Devices without a key are left out, and each device comes once. No device id = every device of the identity. */
  getHybridKeys(
    addresses: readonly { identityKey: Uint8Array; deviceId?: Uint8Array | undefined }[],
  ): Promise<readonly HybridKey[]>;

  // Channels.
  createGroup(group: NewGroup, context?: WriteContext): Promise<CreateGroupOutcome>;
  /** The roster of a new one is every device of both accounts at this moment. */
  createDirect(direct: NewDirect, context?: WriteContext): Promise<CreateDirectOutcome>;
  findChannel(channelId: Uint8Array): Promise<ChannelInfo | undefined>;
  /** Compare and swap, by an administrator's device that is on the roster. `expectedVersion` 0 = there is none yet. */
  putChannelMetadata(
    put: { channelId: Uint8Array; writer: Address; expectedVersion: number; data: Uint8Array },
    context?: WriteContext,
  ): Promise<PutChannelMetadataOutcome>;

  // Delivery.
  enqueue(enqueue: Enqueue, context?: WriteContext): Promise<EnqueueOutcome>;
  resolveTarget(target: Target, channelId?: Uint8Array): Promise<ResolveTargetOutcome>;
  /** Reads without removing; one step of the pump, and Peek. */
  readInbox(read: ReadInbox): Promise<ReadInboxOutcome>;
  /** Reads and removes in one transaction, the gap included. */
  drainInbox(read: ReadInbox, context?: WriteContext): Promise<ReadInboxOutcome>;
  /** Removes; answers how many envelopes. Unknown devices have none. */
  ack(ack: Ack, context?: WriteContext): Promise<number>;
  /** Newest position given out; 0 before the first and for unknown devices. */
  headSeq(address: Address): Promise<number>;
  /** Clears the gap if it is still the one given (the device was told); answers whether it was. */
  clearGap(address: Address, gap: InboxGap, context?: WriteContext): Promise<boolean>;

  // The commit log.
  submitCommit(commit: SubmitCommit, context?: WriteContext): Promise<SubmitCommitOutcome>;

  // Endpoints for direct connections.
  /** Replaces the device's endpoint; undefined withdraws it. */
  putEndpoint(
    put: { address: Address; endpoint: { statement: Uint8Array; expiresAtMs: number } | undefined },
    context?: WriteContext,
  ): Promise<{ kind: 'stored' } | { kind: 'unknown_device' }>;
  /**
   * Unexpired ones of a device, or of every device of an identity, that are of the account of `requester`, or on a roster
   * with it where their account has submitted an entry: an endpoint says where somebody is, and that is no stranger's
   * business; a stranger can put anybody on a roster, but not make them take part.
   */
  findEndpoints(query: {
    of: { identityKey: Uint8Array; deviceId?: Uint8Array | undefined };
    requester: Address;
    nowMs: number;
  }): Promise<readonly Endpoint[]>;

  // Recovery.
  /** Replaces the bundle and all its slots. */
  putRecovery(put: PutRecovery, context?: WriteContext): Promise<PutRecoveryOutcome>;
  findRecovery(username: string): Promise<RecoveryBundle | undefined>;
  /** What a fetch by phrase is compared with; undefined for unknown names as for accounts without a phrase. */
  findRecoveryTokenHash(username: string): Promise<Uint8Array | undefined>;
  deleteRecovery(
    deletion: { identityKey: Uint8Array; replay?: ReplayGuard | undefined },
    context?: WriteContext,
  ): Promise<{ kind: 'deleted' } | { kind: 'replayed' }>;

  // Blobs.
  /** Before every chunk; counts the whole size against the account's quota. */
  beginUpload(upload: BlobUpload, context?: WriteContext): Promise<BeginUploadOutcome>;
  /** Its bytes are on disk under their name. */
  completeUpload(upload: BlobUpload, context?: WriteContext): Promise<void>;
  findBlob(blobId: Uint8Array): Promise<{ readonly sizeBytes: number } | undefined>;
  /** Blobs nobody owns any more, at most 100. */
  listUnownedBlobs(): Promise<readonly Uint8Array[]>;
  /** Forgets a blob if nobody owns it; answers whether that was so, or it was unknown: its file may go. */
  forgetBlob(blobId: Uint8Array): Promise<boolean>;

  // Housekeeping.
  /** One transaction of at most `purgeRows` rows: expired envelopes (each leaves a gap), sessions, memories, packages. */
  purge(nowMs: number): Promise<PurgeOutcome>;
  /** One trivial read: cheap enough for anyone who asks. Rejects when the store does not answer. */
  ping(): Promise<StoreState>;
  /** Counts everything: for the operator and the metrics, not for every caller. */
  status(): Promise<StoreStatus>;
  /**
   * Writes a copy of everything, as of one moment, to a file that does not exist yet, and checks the copy; on disk when
   * it resolves. Encrypted under the store's own key if the store is. Reads and writes go on meanwhile. `bytes` is about
   * how far it is.
   */
  backUp(path: string, options?: BackUpOptions): Promise<StoreBackUp>;
  /** Finishes what was accepted, then closes. Later calls fail with `unavailable`. */
  close(): Promise<void>;
}
