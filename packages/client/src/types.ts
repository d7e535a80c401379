// What the SDK shows of accounts, conversations and messages. Identifiers are lower-case hex, times milliseconds since
// 1970 (the server's clock where it says so). Everything here is a plain value: it can be printed, compared and sent to
// another thread. Text written by others is as they wrote it: strip control characters before showing it (`displayText`).

/** The account of this profile. */
export interface Account {
  readonly username: string;
  /** Identity key, 64 hex digits. */
  readonly identityKey: string;
  /** This device, 32 hex digits. */
  readonly deviceId: string;
  readonly serverOrigin: string;
  /** Whether the profile holds a session token; the server may have ended it, or refuse it for now. */
  readonly loggedIn: boolean;
}

export interface ServerHealth {
  readonly version: string;
  readonly uptimeSeconds: number;
  readonly store: 'ok' | 'read-only' | 'failed' | 'unknown';
  readonly origin: string;
  readonly timeMs: number;
  /** From request to answer, milliseconds. */
  readonly roundTripMs: number;
  readonly sealedSender: boolean;
}

/** Another account, verified as far as `resolve` goes: IK → device certificates, IK pinned at first contact. */
export interface Contact {
  readonly username: string;
  readonly identityKey: string;
  /** `new`: seen for the first time now; `same`: the key pinned earlier. */
  readonly pin: 'new' | 'same';
  readonly devices: readonly ContactDevice[];
}

export interface ContactDevice {
  readonly deviceId: string;
  /** Device key, 64 hex digits. */
  readonly deviceKey: string;
  readonly manager: boolean;
  readonly certificateSerial: number;
  readonly certificateNotAfterMs: number;
}

/** Outcome of `checkKey`: certificates and hybrid keys of an account, verified; nothing is consumed. */
export interface KeyCheck {
  readonly contact: Contact;
  readonly devices: readonly {
    readonly deviceId: string;
    /** Serial and end of the device's hybrid key; undefined when it has published none. */
    readonly hybridKey: { readonly serial: number; readonly notAfterMs: number } | undefined;
  }[];
}

/**
 * `direct`: the one conversation of two accounts; `group`: any number; `note`: the note to self, which never leaves this
 * profile.
 */
/**
 * How a group agrees on its keys. `post-quantum`: MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519, ML-KEM-768 and X25519
 * together in every step. `classical`: MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519 (0x0001), with a post-quantum salt
 * around it.
 */
export type SuiteName = 'post-quantum' | 'classical';

export interface NewConversationOptions {
  /** Default: the profile's, which is `post-quantum` unless `openClient` was told otherwise. */
  readonly suite?: SuiteName;
}

export type ConversationKind = 'direct' | 'group' | 'note';

/**
 * `active`: one can read and send. `awaiting-welcome`: the other side started it (or we ask to be re-added), messages sent
 * now wait. `leaving`: asked to be removed, an administrator has to commit it. `left`, `removed`: history only.
 */
export type ConversationState = 'active' | 'awaiting-welcome' | 'leaving' | 'left' | 'removed';

export interface Conversation {
  /** Channel id, 32 hex digits. */
  readonly id: string;
  readonly kind: ConversationKind;
  /** Group name as its administrators set it, or the other side's username. */
  readonly name: string;
  readonly state: ConversationState;
  /** Accounts, this one included; 0 before a group state exists. */
  readonly memberCount: number;
  /** MLS epoch, undefined without a group state. */
  readonly epoch: number | undefined;
  /** MLS cipher suite. */
  readonly suite: number | undefined;
  readonly suiteName: SuiteName | undefined;
  /** Why nothing is sent until the user or an administrator acts; undefined when sending is not paused. */
  readonly paused: string | undefined;
  readonly createdAtMs: number;
  /** How it came here: made by this device, or by invitation. */
  readonly invitedBy: string | undefined;
  /** Joined by invitation and not yet marked as seen. */
  readonly isNew: boolean;
  readonly unseenCount: number;
  readonly lastMessageAtMs: number | undefined;
}

export interface ConversationMember {
  readonly username: string;
  readonly identityKey: string;
  readonly admin: boolean;
  readonly self: boolean;
  readonly deviceIds: readonly string[];
  /** `verified`: key pinned and certificates checked against the server's answer; `unchecked`: not looked up yet. */
  readonly check: 'verified' | 'unchecked' | 'failed';
}

/**
 * Our own messages: `queued` until the server has them on disk, then `sent`; `failed` when that can no longer happen.
 * Others': `received`.
 */
export type MessageState = 'queued' | 'sent' | 'failed' | 'received';

export interface Message {
  /** Unique in this profile and in order of display within a conversation. */
  readonly localId: number;
  readonly conversationId: string;
  /** 32 hex digits, chosen by the author; unique together with `senderIdentity`. */
  readonly contentId: string;
  readonly sender: string;
  readonly senderIdentity: string;
  readonly senderDevice: string;
  readonly own: boolean;
  readonly state: MessageState;
  /** Words of a person; or, with `unsupported`, content this version cannot show. */
  readonly kind: 'text' | 'unsupported';
  readonly text: string;
  /** The author's clock. */
  readonly sentAtMs: number;
  /** The server's clock; undefined while queued. */
  readonly acceptedAtMs: number | undefined;
  readonly seen: boolean;
  /** Recipients the server could not deliver to, when there are any. */
  readonly undelivered: readonly { readonly username: string; readonly reason: 'full' | 'unknown' | 'blocked' }[];
}

export interface HistoryOptions {
  /** At most this many, the newest ones. Default 50. */
  readonly limit?: number;
  /** Only messages before this `localId`. */
  readonly before?: number;
}

/** The server limits how often something is asked for; it is asked again after this time. */
export interface Waiting {
  readonly ms: number;
  /** The server's words. */
  readonly reason: string;
}

export interface InviteOptions {
  /** Called before each wait. */
  readonly waiting?: (waiting: Waiting) => void;
  /** Ends the waiting; nobody is added then. */
  readonly signal?: AbortSignal;
}

export interface InviteResult {
  readonly added: readonly string[];
  /** Those that could not be added, each with its reason; the others were added all the same. */
  readonly failed: readonly { readonly username: string; readonly code: string; readonly reason: string }[];
}

/** Counts since the last `sync`, or since the profile was opened. */
export interface SyncResult {
  /** New messages of others that were stored. */
  readonly messages: number;
  /** Conversations joined. */
  readonly joined: number;
  /** Messages of ours that are still queued. */
  readonly queued: number;
}

/** What `audit` found out about the server's key-transparency log. */
export interface AuditReport {
  /** The log's name. */
  readonly log: string;
  /** Entries of the log, each one fetched and hashed; undefined when the log did not verify. */
  readonly entries: number | undefined;
  /** Root of the tree over them, 64 hex digits; undefined when the log did not verify. */
  readonly root: string | undefined;
  /** The signed head, as text; undefined when the log did not verify. */
  readonly checkpoint: string | undefined;
  /** Position of the first entry that is not what it was when this profile saw it before. */
  readonly changedAt: number | undefined;
  /** Our own account first, then everybody this profile knows, by name. */
  readonly accounts: readonly AuditedAccount[];
  /** What was found now and earlier, oldest first. */
  readonly findings: readonly AuditFinding[];
}

export interface AuditedAccount {
  readonly username: string;
  readonly self: boolean;
  /**
   * `verified`: what the server answers is the newest entry of an unbroken history. `unlisted`: the server knows the
   * account no more, and its log says it was deleted or never had it. `failed`: the answer does not verify.
   * `unchecked`: there was no answer.
   */
  readonly outcome: 'verified' | 'unlisted' | 'failed' | 'unchecked';
  /** Newest version in the log, from 0; undefined unless verified. */
  readonly version: number | undefined;
  /** Why, unless verified. */
  readonly reason: string | undefined;
}

export interface AuditFinding {
  /** As in docs/key-transparency.md. */
  readonly kind: string;
  /** One sentence. */
  readonly text: string;
  /** Whom it is about; undefined: the log as a whole, or somebody unknown. */
  readonly username: string | undefined;
  readonly conversationId: string | undefined;
  readonly foundAtMs: number;
  /** The user has said to go on in spite of it. */
  readonly accepted: boolean;
  /** The signed notes as text, other bytes in hex: what shows it to anyone. */
  readonly evidence: unknown;
}

export interface AuditOptions {
  /** Called after each page. */
  readonly progress?: (entries: number, of: number) => void;
  /** Goes on in spite of what was found so far. */
  readonly accept?: boolean;
}

export type ConnectionState = 'offline' | 'connecting' | 'online';

export type ClientEvent =
  | {
      readonly type: 'connection';
      readonly state: ConnectionState;
      readonly reason: string;
      readonly retryInMs?: number;
    }
  /** The inbox has been read up to where it stood when the subscription began. */
  | { readonly type: 'caught-up' }
  /** A new message is stored: somebody else's, or one of ours when it was queued. */
  | { readonly type: 'message'; readonly message: Message }
  /** A message of ours is on the server's disk, or has failed. */
  | { readonly type: 'message-state'; readonly message: Message }
  | { readonly type: 'joined'; readonly conversation: Conversation; readonly invitedBy: string }
  | { readonly type: 'member-added'; readonly conversationId: string; readonly username: string; readonly by: string }
  | { readonly type: 'member-removed'; readonly conversationId: string; readonly username: string; readonly by: string }
  | { readonly type: 'member-left'; readonly conversationId: string; readonly username: string }
  /** We are out: removed by somebody, or our leaving was committed. */
  | { readonly type: 'removed'; readonly conversation: Conversation; readonly by: string }
  | { readonly type: 'name-changed'; readonly conversationId: string; readonly name: string; readonly by: string }
  | {
      readonly type: 'admin-changed';
      readonly conversationId: string;
      readonly username: string;
      readonly admin: boolean;
    }
  /** The conversation goes on under other keys: who said so, and how keys are exchanged from now on. */
  | {
      readonly type: 'suite-changed';
      readonly conversationId: string;
      readonly suiteName: SuiteName;
      readonly by: string;
    }
  /** An `upgrade` of ours is asking for the keys of the members. Counts accounts. */
  | {
      readonly type: 'upgrade-progress';
      readonly conversationId: string;
      readonly done: number;
      readonly total: number;
    }
  /** Messages of a sender are missing, or the server lost something addressed to us. */
  | {
      readonly type: 'gap';
      readonly conversationId: string | undefined;
      readonly username: string | undefined;
      readonly missing: number | undefined;
      readonly reason: string;
    }
  /** Something is not as it should be; nothing was lost by it. */
  | {
      readonly type: 'warning';
      readonly code: WarningCode;
      readonly conversationId: string | undefined;
      readonly text: string;
    }
  | { readonly type: 'server-notice'; readonly text: string };

export type WarningCode =
  | 'skipped-envelope'
  | 'skipped-entry'
  | 'welcome-refused'
  | 'log-mismatch'
  | 'roster-mismatch'
  | 'identity-changed'
  | 'member-check-failed'
  | 'bad-receipt'
  | 'key-transparency'
  | 'account-changed'
  | 'undelivered'
  | 'sending-paused'
  | 'rejoin-requested'
  | 'session-ended'
  | 'session-refused'
  | 'inbox-restarted'
  | 'key-packages-low';
