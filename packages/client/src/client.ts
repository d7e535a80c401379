// The SDK's public face: one profile, one account, one server. Everything is asynchronous, so that a browser's page can
// hold the same interface while the engine runs in a worker (DESIGN section 2).
//
//   const client = await openClient({ profileDir, server: '127.0.0.1:5001', caCert });
//   await client.connect();
//   await client.register('alice', password);
//   const chat = await client.openDirect('bob');
//   await client.send(chat.id, 'hello');
//   for await (const event of client.events()) …
//
// Works without a server: whoami, conversations, history, search, unseen, send (the message is queued).
import type {
  Account,
  AuditOptions,
  AuditReport,
  ClientEvent,
  Contact,
  Conversation,
  ConversationMember,
  ConnectionState,
  HistoryOptions,
  InviteOptions,
  InviteResult,
  KeyCheck,
  Message,
  NewConversationOptions,
  ServerHealth,
  SyncResult,
} from './types.ts';

/** Every method fails with a `ClientError` and nothing else. */
export interface Client {
  // ---- Server and connection ----------------------------------------------------------------------------------------

  /**
   * Connects, pins the server's identity at first contact, resumes the session when the profile has one, subscribes to
   * the inbox and starts sending what is queued. From then on a lost connection is made anew until `close`.
   * @param options.keepTrying with true the first attempt may fail too: resolves at once, see the `connection` events
   * @throws ClientError `cannot-connect`, `verification-failed` (the server is not the one pinned); a session the server
   *   has ended does not fail it: a `session-ended` warning comes, and calls that need one fail with `not-logged-in`.
   *   Nor does one that it refuses for now, as during a ban: a `session-refused` warning comes, such calls fail with
   *   `session-refused`, and the next connection tries it again
   */
  connect(options?: { readonly keepTrying?: boolean; readonly timeoutMs?: number }): Promise<void>;
  readonly connection: ConnectionState;
  /** One request to the server; no account needed. */
  health(): Promise<ServerHealth>;
  /** Round trip in milliseconds. */
  ping(): Promise<number>;
  /** Ends the connection and closes the profile. Queued messages stay queued. Idempotent. */
  close(): Promise<void>;

  // ---- Account ------------------------------------------------------------------------------------------------------

  /**
   * Makes the account and its first device, publishes its keys, and is logged in afterwards. After a crash in the middle
   * a repeat with the same name and password completes it.
   * @throws ClientError `name-taken`, `invalid-username`, `other-account` (this profile has another account)
   */
  register(username: string, password: string, options?: { readonly deviceName?: string }): Promise<Account>;
  /** @throws ClientError `wrong-credentials` (name or password: the server does not say), `device-unknown` */
  login(username: string, password: string): Promise<Account>;
  /** Ends the session at the server if it can be reached, and forgets it here in any case. History stays. */
  logout(): Promise<void>;
  whoami(): Promise<Account | undefined>;
  /**
   * Ends the account for good: everything of it at the server is removed, the log says so, and the name is never given
   * out again. History stays in this profile. @throws ClientError `not-manager`
   */
  deleteAccount(): Promise<void>;

  // ---- Others -------------------------------------------------------------------------------------------------------

  /** Looks an account up and verifies its certificates. @throws ClientError `unknown-user`, `identity-changed`, `bad-certificate` */
  resolve(username: string): Promise<Contact>;
  /** As `resolve`, and verifies the hybrid keys. Consumes nothing. */
  checkKey(username: string): Promise<KeyCheck>;
  /**
   * Fetches the server's whole key-transparency log, recomputes it, compares it with what was seen before, and checks
   * in it this account and everybody this profile knows. What it finds is in the report and stays in the profile.
   * @throws ClientError `no-log` when the server keeps none; `bad-log` when it does not hand out one that verifies
   */
  audit(options?: AuditOptions): Promise<AuditReport>;
  /** Tops up KeyPackages at the server; `all` replaces what is there by fresh ones. Returns how many were uploaded. */
  refreshKeyPackages(options?: { readonly all?: boolean }): Promise<number>;

  // ---- Conversations ------------------------------------------------------------------------------------------------

  /**
   * The direct conversation with an account, made if need be; the options are for a new one. With one's own name: the note
   * to self. @throws ClientError `no-key-package` when the other side has none of the suite
   */
  openDirect(username: string, options?: NewConversationOptions): Promise<Conversation>;
  /** A new group with only this account in it. @throws ClientError `invalid-argument` for a bad name or suite */
  createGroup(name: string, options?: NewConversationOptions): Promise<Conversation>;
  /** Newest activity first. `includeGone`: also those left or removed from. */
  conversations(options?: { readonly includeGone?: boolean }): Promise<readonly Conversation[]>;
  /**
   * By full id, unique id prefix (≥ 4 digits), group name, `@user` or username.
   * @throws ClientError `unknown-conversation`, `ambiguous-conversation`
   */
  findConversation(reference: string): Promise<Conversation>;
  members(conversationId: string): Promise<readonly ConversationMember[]>;
  /**
   * Adds several accounts in one commit. While the server limits how often one may look people up it waits, five minutes
   * in all; whoever could not be looked up by then is among the failed.
   * @throws ClientError when none could be added: the first one's reason
   */
  invite(conversationId: string, usernames: readonly string[], options?: InviteOptions): Promise<InviteResult>;
  /** Removes an account with all its devices. @throws ClientError `not-a-member`, `not-admin` */
  removeMember(conversationId: string, username: string): Promise<void>;
  /**
   * `left` when nobody else is in the group; else `leaving`: an administrator's client commits it.
   * The last administrator promotes another first.
   */
  leave(conversationId: string): Promise<'left' | 'leaving'>;
  /** @throws ClientError `not-admin` */
  renameGroup(conversationId: string, name: string): Promise<void>;
  setAdmin(conversationId: string, username: string, admin: boolean): Promise<void>;
  /**
   * Moves a classical conversation into the post-quantum suite, with everybody in it; `already` when it is. History and
   * what is under way stay. `upgrade-progress` events tell how far it is, `suite-changed` tells everybody when it is done.
   * @throws ClientError `not-admin`, `devices-not-ready` (some have no keys for it; nothing was changed), `too-large`
   */
  upgrade(conversationId: string): Promise<'upgraded' | 'already'>;
  /** Lets sending go on after a failed check the user has looked at. */
  resumeSending(conversationId: string): Promise<void>;
  /** Clears `isNew`. */
  markConversationSeen(conversationId: string): Promise<void>;

  // ---- Messages -----------------------------------------------------------------------------------------------------

  /**
   * Encrypts and queues in one transaction, so it works offline; sends as soon as it can. The result says `queued`; a
   * `message-state` event or `flush` tells when the server has it.
   * @throws ClientError `not-active`, `sending-paused`, `text-too-long` (more than 32,768 bytes)
   */
  send(conversationId: string, text: string): Promise<Message>;
  /** Resolves when nothing is queued any more, or one conversation has nothing queued. @throws ClientError `timeout`, `cannot-connect`, `not-logged-in` */
  flush(options?: { readonly conversationId?: string; readonly timeoutMs?: number }): Promise<void>;
  /**
   * Receives everything the server had for us when this was called, does what follows from it (joins, commits), and
   * sends what is queued. Needs `connect`. @throws ClientError `timeout`, `cannot-connect`, `not-logged-in`
   */
  sync(options?: { readonly timeoutMs?: number }): Promise<SyncResult>;
  message(localId: number): Promise<Message | undefined>;
  /**
   * Shows received messages of one conversation, at most 50, to the operator of the server, in the user's name and with a
   * reason; sealed, so that only the operator reads it. @throws ClientError `no-report-key` when the operator takes none
   */
  report(localIds: readonly number[], reason: string): Promise<void>;
  /** Oldest first. */
  history(conversationId: string, options?: HistoryOptions): Promise<readonly Message[]>;
  /** Messages of others that no one has marked as seen, oldest first, of all conversations or of one. */
  unseen(options?: { readonly conversationId?: string; readonly limit?: number }): Promise<readonly Message[]>;
  /** Marks messages as displayed; on disk when it resolves. */
  markSeen(localIds: readonly number[]): Promise<void>;
  /** Full-text search, newest first. */
  search(
    query: string,
    options?: { readonly conversationId?: string; readonly limit?: number },
  ): Promise<readonly Message[]>;

  // ---- Events -------------------------------------------------------------------------------------------------------

  /** Calls `listener` for every event from now on, in order, after what it tells of is on disk. Returns how to stop. */
  on(listener: (event: ClientEvent) => void): () => void;
  /** The same as an iterator; ends with `close` or when the caller stops. Events wait in memory until they are taken. */
  events(): AsyncIterableIterator<ClientEvent>;
}

/** Where the library writes what an operator may want to read. Never user data, never secrets. */
export interface Log {
  debug(message: string, detail?: Readonly<Record<string, string | number | boolean>>): void;
  warn(message: string, detail?: Readonly<Record<string, string | number | boolean>>): void;
}
