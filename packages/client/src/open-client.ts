/**
 * Puts the engine together and gives it the face of `Client`. Everything that happens without being asked for is wired
 * here: what a push event leads to, what being online starts, which part wakes which.
 */
import { PushEvent, ServerNoticeEventSchema, StoreState } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import { fromBinary } from '@bufbuild/protobuf';
import { displayText } from '@quicprochat/core';
import { login, logout, register } from './account.ts';
import { administered, invite, leave, removeMember, setAdmin } from './change-members.ts';
import { MemberChecks } from './check-members.ts';
import type { Client } from './client.ts';
import { submitPending } from './commit/submit-commit.ts';
import { canonicalUsername, checkKey, resolve } from './contacts.ts';
import { createGroup, refuseBadName } from './create-group.ts';
import { deleteAccount } from './delete-account.ts';
import { OutboxDelivery } from './deliver-outbox.ts';
import { Duties } from './duties.ts';
import { Engine, type LostTrack, type Ports } from './engine.ts';
import { conversationOf, forgetPredecessors } from './epoch.ts';
import { ClientError, toClientError } from './errors.ts';
import { Inbox } from './inbox.ts';
import { audit } from './key-transparency/audit.ts';
import { Transparency } from './key-transparency/transparency.ts';
import { openDirect } from './open-direct.ts';
import { publishKeys } from './publish-keys.ts';
import { renewCertificate } from './renew-certificate.ts';
import { report } from './report.ts';
import { isLogLonger, requestRejoin, sendUnsentRequests } from './rejoin.ts';
import { sendContent, sendText } from './send-message.ts';
import { type Dialer, ServerConnection } from './server-connection.ts';
import { greetServer, pinServer, resumeSession, subscribe } from './session.ts';
import type { Store } from './store/index.ts';
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
import { accountView, channelIdOf, conversationView, membersView, messageView } from './views.ts';
import { TreeDownloads } from './transfer-trees.ts';
import { upgrade } from './upgrade-suite.ts';
import { unpauseSending } from './watch-server.ts';

const SYNC_TIMEOUT_MS = 30_000;
/** A device that was away for a month may have much to read. */
const CATCH_UP_TIMEOUT_MS = 30 * 60_000;
/** How often a client that stays connected looks whether its keys have to be renewed. */
const PUBLISH_EVERY_MS = 86_400_000;
const PUBLISH_ANEW_EVERY_MS = 3_600_000;
const PUBLISH_ANEW_ATTEMPTS = 3;
const FLUSH_TIMEOUT_MS = 30_000;
const HISTORY_DEFAULT = 50;
const LIST_DEFAULT = 1_000;
const ID_PREFIX_MIN = 4;

const STORE_STATES: Readonly<Record<StoreState, ServerHealth['store']>> = {
  [StoreState.UNSPECIFIED]: 'unknown',
  [StoreState.OK]: 'ok',
  [StoreState.READ_ONLY]: 'read-only',
  [StoreState.FAILED]: 'failed',
};

/** A client over an open profile. The store belongs to it from now on. */
export function createClient(ports: Ports, store: Store, dialer: Dialer): Client {
  return new ClientEngine(ports, store, dialer);
}

class ClientEngine implements Client {
  readonly #engine: Engine;
  readonly #inbox: Inbox;
  readonly #outbox: OutboxDelivery;
  readonly #duties: Duties;
  readonly #checks: MemberChecks;
  #callOffPublish = (): void => {};
  #publishingAnew = false;
  #anewLeft = PUBLISH_ANEW_ATTEMPTS;
  readonly #trees: TreeDownloads;
  /** Since the last `sync`. */
  #received = { messages: 0, joined: 0 };

  constructor(ports: Ports, store: Store, dialer: Dialer) {
    const engine = new Engine(ports, store);
    this.#engine = engine;
    this.#inbox = new Inbox(engine);
    this.#outbox = new OutboxDelivery(engine);
    this.#duties = new Duties(engine);
    this.#checks = new MemberChecks(engine);
    this.#trees = new TreeDownloads(engine);
    engine.transparency = new Transparency(engine);
    engine.server = new ServerConnection(dialer, ports.clock, () => engine.uniform(), {
      greet: () => this.#greet(),
      online: () => this.#online(),
      push: (eventType, payload) => this.#push(eventType, payload),
      state: (state, reason, retryInMs) => {
        if (state !== 'online') {
          engine.hasSession = false;
          engine.inboxHead = undefined;
        }
        engine.events.emit({ type: 'connection', state, reason, ...(retryInMs === undefined ? {} : { retryInMs }) });
        engine.conditions.check();
      },
    });
    engine.events.on((event) => {
      if (event.type === 'message' && !event.message.own) this.#received.messages += 1;
      if (event.type === 'joined') this.#received.joined += 1;
    });
    engine.reactions = {
      outboxChanged: () => this.#outbox.kick(),
      dutiesChanged: (channelId) => this.#duties.look(channelId),
      membersChanged: (channelId) => this.#checks.add(channelId),
      trackLost: (channelId, certainty, epochPosition) =>
        this.#background(() => this.#lostTrack(channelId, certainty, epochPosition)),
      treeWanted: () => this.#trees.kick(),
      inboxGap: () => this.#background(() => this.#lookForLostEntries()),
      // Others know later ones, and those of last resort may be gone here.
      serverRestored: () => this.#background(() => this.#publishAnew()),
      keysUsed: () => this.#background(() => this.#publish()),
      certificateLost: () => this.#background(() => this.#publish()),
    };
  }

  // ---- Server and connection ----------------------------------------------------------------------------------------

  get connection(): ConnectionState {
    return this.#engine.server.state;
  }

  connect(options: { readonly keepTrying?: boolean; readonly timeoutMs?: number } = {}): Promise<void> {
    return this.#guard(() => this.#engine.server.connect(options));
  }

  health(): Promise<ServerHealth> {
    return this.#guard(async () => {
      const { clock } = this.#engine.ports;
      const start = clock.now();
      const health = await this.#engine.server.call(methods.p2p.health, {});
      const roundTripMs = clock.now() - start;
      const pin = pinServer(this.#engine, health);
      return {
        version: displayText(health.version, { charsMax: 64 }),
        uptimeSeconds: Number(health.uptimeSecs),
        store: STORE_STATES[health.store] ?? 'unknown',
        origin: pin.origin,
        timeMs: Number(health.timeMs),
        roundTripMs,
        sealedSender: health.limits?.sealedSender ?? false,
      };
    });
  }

  async ping(): Promise<number> {
    const { roundTripMs } = await this.health();
    return roundTripMs;
  }

  async close(): Promise<void> {
    if (this.#engine.closed) return;
    await this.#inbox.flushAcks().catch(() => {});
    this.#outbox.stop();
    this.#duties.stop();
    this.#engine.server.close();
    this.#engine.close();
  }

  // ---- Account ------------------------------------------------------------------------------------------------------

  register(username: string, password: string, options: { readonly deviceName?: string } = {}): Promise<Account> {
    return this.#guard(async () => {
      await this.#requireConnection();
      await register(this.#engine, username, password, options.deviceName ?? '');
      return this.#loggedIn();
    });
  }

  login(username: string, password: string): Promise<Account> {
    return this.#guard(async () => {
      await this.#requireConnection();
      await login(this.#engine, username, password);
      return this.#loggedIn();
    });
  }

  logout(): Promise<void> {
    return this.#guard(() => logout(this.#engine));
  }

  whoami(): Promise<Account | undefined> {
    return this.#guard(async () => accountView(this.#engine));
  }

  deleteAccount(): Promise<void> {
    return this.#withSession(() => deleteAccount(this.#engine));
  }

  // ---- Others -------------------------------------------------------------------------------------------------------

  resolve(username: string): Promise<Contact> {
    return this.#withSession(() => resolve(this.#engine, username));
  }

  checkKey(username: string): Promise<KeyCheck> {
    return this.#withSession(() => checkKey(this.#engine, username));
  }

  audit(options: AuditOptions = {}): Promise<AuditReport> {
    return this.#withSession(() => audit(this.#engine, options));
  }

  refreshKeyPackages(options: { readonly all?: boolean } = {}): Promise<number> {
    return this.#withSession(() => publishKeys(this.#engine, options));
  }

  // ---- Conversations ------------------------------------------------------------------------------------------------

  openDirect(username: string, options: NewConversationOptions = {}): Promise<Conversation> {
    return this.#guard(async () => {
      const engine = this.#engine;
      const name = canonicalUsername(username);
      const needsServer = name !== engine.self.username;
      const known = engine.store.contacts.byUsername(name);
      const existing = known && engine.store.conversations.direct(known.identityKey);
      if (needsServer && existing?.state !== 'active') this.#requireSession();
      return this.#view(await openDirect(engine, name, options, () => this.#inbox.catchUp(SYNC_TIMEOUT_MS)));
    });
  }

  createGroup(name: string, options: NewConversationOptions = {}): Promise<Conversation> {
    return this.#guard(async () => {
      refuseBadName(name);
      this.#requireSession();
      return this.#view(await createGroup(this.#engine, name, options));
    });
  }

  conversations(options: { readonly includeGone?: boolean } = {}): Promise<readonly Conversation[]> {
    return this.#guard(async () =>
      this.#engine.store.conversations
        .all()
        .filter(({ state }) => options.includeGone === true || (state !== 'left' && state !== 'removed'))
        .map((conversation) => conversationView(this.#engine, conversation)),
    );
  }

  findConversation(reference: string): Promise<Conversation> {
    return this.#guard(async () => find(this.#engine, reference));
  }

  members(conversationId: string): Promise<readonly ConversationMember[]> {
    return this.#guard(async () => {
      const channelId = channelIdOf(conversationId);
      conversationOf(this.#engine, channelId);
      return membersView(this.#engine, channelId);
    });
  }

  invite(conversationId: string, usernames: readonly string[], options: InviteOptions = {}): Promise<InviteResult> {
    return this.#withSession(() => invite(this.#engine, channelIdOf(conversationId), usernames, options));
  }

  removeMember(conversationId: string, username: string): Promise<void> {
    return this.#withSession(() => removeMember(this.#engine, channelIdOf(conversationId), username));
  }

  leave(conversationId: string): Promise<'left' | 'leaving'> {
    return this.#withSession(() => leave(this.#engine, channelIdOf(conversationId)));
  }

  renameGroup(conversationId: string, name: string): Promise<void> {
    return this.#guard(async () => {
      refuseBadName(name);
      const engine = this.#engine;
      const channelId = channelIdOf(conversationId);
      administered(engine, channelId);
      const version = conversationOf(engine, channelId).nameVersion + 1n;
      sendContent(engine, channelId, { kind: 'groupInfo', groupInfo: { version, name } });
      engine.change((change) => {
        change.store.conversations.save({ ...conversationOf(engine, channelId), name, nameVersion: version });
        change.emit({ type: 'name-changed', conversationId, name, by: engine.self.username });
      });
    });
  }

  setAdmin(conversationId: string, username: string, admin: boolean): Promise<void> {
    return this.#withSession(() => setAdmin(this.#engine, channelIdOf(conversationId), username, admin));
  }

  upgrade(conversationId: string): Promise<'upgraded' | 'already'> {
    return this.#withSession(() => upgrade(this.#engine, channelIdOf(conversationId)));
  }

  resumeSending(conversationId: string): Promise<void> {
    return this.#guard(async () => {
      const channelId = channelIdOf(conversationId);
      this.#engine.change((change) => unpauseSending(change, conversationOf(this.#engine, channelId), undefined));
    });
  }

  markConversationSeen(conversationId: string): Promise<void> {
    return this.#guard(async () => {
      const conversation = conversationOf(this.#engine, channelIdOf(conversationId));
      if (!conversation.isNew) return;
      this.#engine.change((change) => change.store.conversations.save({ ...conversation, isNew: false }));
    });
  }

  // ---- Messages -----------------------------------------------------------------------------------------------------

  send(conversationId: string, text: string): Promise<Message> {
    return this.#guard(async () => sendText(this.#engine, channelIdOf(conversationId), text));
  }

  flush(options: { readonly conversationId?: string; readonly timeoutMs?: number } = {}): Promise<void> {
    return this.#guard(async () => {
      const { store, conditions } = this.#engine;
      const channelId = options.conversationId === undefined ? undefined : channelIdOf(options.conversationId);
      this.#outbox.kick();
      await conditions.until(
        () => {
          if (this.#engine.server.state === 'offline') throw notConnected();
          // Our own copy may arrive before the answer, which alone tells who did not get it.
          if (store.outbox.count(channelId) === 0 && !this.#outbox.isSending(channelId)) return true;
          // The server has ended the session: waiting brings nothing.
          if (this.#engine.server.state === 'online') this.#requireSession();
          return false;
        },
        options.timeoutMs ?? FLUSH_TIMEOUT_MS,
        'sending',
      );
    });
  }

  sync(options: { readonly timeoutMs?: number } = {}): Promise<SyncResult> {
    return this.#withSession(async () => {
      const engine = this.#engine;
      const timeoutMs = options.timeoutMs ?? SYNC_TIMEOUT_MS;
      const deadline = engine.ports.clock.now() + timeoutMs;
      const left = (): number => Math.max(1, deadline - engine.ports.clock.now());
      await this.#inbox.catchUp(left());
      this.#duties.lookAtAll();
      this.#checks.addAll();
      this.#outbox.kick();
      await engine.conditions.until(() => this.#settled(), left(), 'settling what was received');
      await this.#inbox.flushAcks();
      const result = { ...this.#received, queued: engine.store.outbox.count() };
      this.#received = { messages: 0, joined: 0 };
      return result;
    });
  }

  report(localIds: readonly number[], reason: string): Promise<void> {
    return this.#withSession(() => report(this.#engine, localIds, reason));
  }

  message(localId: number): Promise<Message | undefined> {
    return this.#guard(async () => {
      const stored = this.#engine.store.messages.get(localId);
      return stored && messageView(this.#engine, stored);
    });
  }

  history(conversationId: string, options: HistoryOptions = {}): Promise<readonly Message[]> {
    return this.#guard(async () => {
      const channelId = channelIdOf(conversationId);
      conversationOf(this.#engine, channelId);
      const { limit = HISTORY_DEFAULT, before } = options;
      return this.#engine.store.messages
        .history(channelId, { limit, ...(before === undefined ? {} : { before }) })
        .map((message) => messageView(this.#engine, message));
    });
  }

  unseen(options: { readonly conversationId?: string; readonly limit?: number } = {}): Promise<readonly Message[]> {
    return this.#guard(async () => {
      const { conversationId, limit = LIST_DEFAULT } = options;
      return this.#engine.store.messages
        .unseen({ limit, ...(conversationId === undefined ? {} : { channelId: channelIdOf(conversationId) }) })
        .map((message) => messageView(this.#engine, message));
    });
  }

  markSeen(localIds: readonly number[]): Promise<void> {
    return this.#guard(async () => {
      if (localIds.length > 0) this.#engine.change((change) => change.store.messages.markSeen(localIds));
    });
  }

  search(
    query: string,
    options: { readonly conversationId?: string; readonly limit?: number } = {},
  ): Promise<readonly Message[]> {
    return this.#guard(async () => {
      const { conversationId, limit = HISTORY_DEFAULT } = options;
      return this.#engine.store.messages
        .search(query, { limit, ...(conversationId === undefined ? {} : { channelId: channelIdOf(conversationId) }) })
        .map((message) => messageView(this.#engine, message));
    });
  }

  // ---- Events -------------------------------------------------------------------------------------------------------

  on(listener: (event: ClientEvent) => void): () => void {
    return this.#engine.events.on(listener);
  }

  events(): AsyncIterableIterator<ClientEvent> {
    return this.#engine.events.iterate();
  }

  // ---- What happens by itself ---------------------------------------------------------------------------------------

  async #greet(): Promise<void> {
    const engine = this.#engine;
    engine.pin = await greetServer(engine);
    await resumeSession(engine);
    if (engine.hasSession) await subscribe(engine);
  }

  /** A new connection, greeted. Order of DESIGN section 3: the session and the subscription first, then the outbox. */
  #online(): void {
    const engine = this.#engine;
    if (!engine.hasSession) return;
    this.#tellWhenCaughtUp();
    this.#inbox.ackSoon();
    for (const channelId of engine.store.conversations.pendingCommits()) {
      this.#background(() => submitPending(engine, channelId));
    }
    this.#outbox.kick();
    this.#background(async () => forgetPredecessors(engine));
    this.#trees.kick();
    this.#duties.lookAtAll();
    this.#checks.addAll();
    engine.transparency.look();
    this.#background(() => this.#publish());
    this.#background(() => sendUnsentRequests(engine));
  }

  /** After a login on a connection that is up already. */
  async #loggedIn(): Promise<Account> {
    const engine = this.#engine;
    await subscribe(engine);
    // The account is of use once others can reach it.
    await publishKeys(engine);
    this.#online();
    const account = accountView(engine);
    if (account === undefined) throw new ClientError('bug', 'bug', 'logged in without an account');
    return account;
  }

  #push(eventType: number, payload: Uint8Array): void {
    if (this.#engine.closed) return;
    switch (eventType) {
      case PushEvent.ENVELOPES:
        this.#inbox.receive(payload);
        return;
      case PushEvent.INBOX_GAP:
        this.#inbox.receiveGap(payload);
        return;
      case PushEvent.SERVER_NOTICE:
        this.#notice(payload);
        return;
      default:
        // Hints about members and keys; what matters comes through the log and the checks.
        this.#engine.ports.log.debug('the server pushed a hint', { eventType });
    }
  }

  #notice(payload: Uint8Array): void {
    try {
      const { text } = fromBinary(ServerNoticeEventSchema, payload);
      if (text !== '') {
        this.#engine.events.emit({ type: 'server-notice', text: displayText(text, { charsMax: 1024 }) });
      }
    } catch {
      this.#engine.ports.log.warn('the server pushed a malformed event');
    }
  }

  #tellWhenCaughtUp(): void {
    const engine = this.#engine;
    const head = engine.inboxHead;
    if (head === undefined) return;
    this.#background(async () => {
      if (engine.inboxCursor < head) await this.#inbox.catchUp(CATCH_UP_TIMEOUT_MS);
      if (engine.inboxHead === head) engine.events.emit({ type: 'caught-up' });
      await this.#askWhereForgotten();
    });
  }

  /** Where this device was not let in, and was closed before it had asked to be added again. */
  async #askWhereForgotten(): Promise<void> {
    const { store } = this.#engine;
    for (const { channelId, kind, state, position, groupId, epochPosition } of store.conversations.all()) {
      // A conversation of two without an entry is being created.
      if (state !== 'awaiting-welcome' || (kind !== 'group' && position === 0n)) continue;
      if (store.trees.rows(channelId).length > 0) continue;
      // Where there is a group, what is said in it asks once more.
      if (groupId !== undefined && store.rejoinRequests.own(channelId) !== undefined) continue;
      await this.#lostTrack(channelId, 'certain', epochPosition);
    }
  }

  async #lostTrack(channelId: Uint8Array, certainty: LostTrack, epochPosition: bigint): Promise<void> {
    const engine = this.#engine;
    if (certainty !== 'unchecked') return requestRejoin(engine, channelId, certainty, epochPosition);
    const longer = await isLogLonger(engine, channelId, () => this.#inbox.catchUp(SYNC_TIMEOUT_MS));
    return longer ? requestRejoin(engine, channelId, 'certain', epochPosition) : undefined;
  }

  /** The server dropped something of ours: where our log ends before the server's does, entries were among it. */
  async #lookForLostEntries(): Promise<void> {
    for (const { channelId, state, epochPosition } of this.#engine.store.conversations.all()) {
      if (state === 'active') await this.#lostTrack(channelId, 'unchecked', epochPosition);
    }
  }

  async #publish(): Promise<void> {
    const engine = this.#engine;
    if (engine.server.state !== 'online' || !engine.hasSession) return;
    this.#callOffPublish();
    this.#callOffPublish = engine.later(() => this.#background(() => this.#publish()), PUBLISH_EVERY_MS);
    // What stands in the way of a new certificate must not keep the other keys from being renewed.
    const renewed = await renewCertificate(engine).catch((error: unknown) => {
      engine.ports.log.debug('the certificate was not renewed', { reason: toClientError(error).code });
      return false;
    });
    // KeyPackages carry the certificate.
    await publishKeys(engine, { all: renewed });
  }

  /**
   * Once an hour, however often the server says that it was put back. Each attempt makes keys, which stay here until they
   * are taken: a server that takes none gets a few attempts and no more.
   */
  async #publishAnew(): Promise<void> {
    if (this.#publishingAnew || this.#anewLeft === 0) return;
    if (this.#anewLeft === PUBLISH_ANEW_ATTEMPTS) {
      this.#engine.later(() => (this.#anewLeft = PUBLISH_ANEW_ATTEMPTS), PUBLISH_ANEW_EVERY_MS);
    }
    this.#anewLeft -= 1;
    this.#publishingAnew = true;
    try {
      await publishKeys(this.#engine, { all: true, hybrid: true });
      await this.#inbox.ackGap();
      this.#anewLeft = 0;
    } finally {
      this.#publishingAnew = false;
    }
  }

  /** Nothing left to do that follows from what was received, apart from what others have to do. */
  #settled(): boolean {
    const engine = this.#engine;
    if (engine.server.state === 'offline') throw notConnected();
    if (this.#duties.busy || this.#checks.busy || this.#trees.busy || engine.transparency.busy) return false;
    if (engine.store.conversations.pendingCommits().length > 0) return false;
    return engine.store.outbox.channels().every((channelId) => {
      const conversation = engine.store.conversations.get(channelId);
      return conversation === undefined || conversation.state !== 'active' || conversation.paused !== undefined;
    });
  }

  /** Work nobody waits for. It fails quietly: what it is about shows again at the next connection. */
  #background(task: () => Promise<void>): void {
    task().catch((error: unknown) => {
      if (!this.#engine.closed) {
        this.#engine.ports.log.debug('work in the background was put off', { reason: toClientError(error).code });
      }
    });
  }

  // ---- Guards -------------------------------------------------------------------------------------------------------

  async #guard<T>(body: () => Promise<T>): Promise<T> {
    if (this.#engine.closed) throw new ClientError('local-state', 'closed', 'this profile is closed');
    try {
      return await body();
    } catch (error) {
      throw toClientError(error);
    }
  }

  #withSession<T>(body: () => Promise<T>): Promise<T> {
    return this.#guard(async () => {
      this.#requireSession();
      return body();
    });
  }

  async #requireConnection(): Promise<void> {
    if (this.#engine.server.state !== 'online') await this.#engine.server.connect();
  }

  #requireSession(): void {
    const engine = this.#engine;
    // Reading it says "not registered" first, which is the better hint.
    const { username } = engine.self;
    if (engine.server.state !== 'online') throw notConnected();
    if (engine.hasSession) return;
    if (engine.sessionRefusal !== undefined) {
      const { message, hint } = engine.sessionRefusal;
      throw new ClientError('refused', 'session-refused', message, {
        hint: hint === '' ? 'Try again later: the session is kept.' : hint,
      });
    }
    throw new ClientError('local-state', 'not-logged-in', `${username} is not logged in`, {
      hint: `Log in: qpc login ${username}.`,
    });
  }

  #view(channelId: Uint8Array): Conversation {
    return conversationView(this.#engine, conversationOf(this.#engine, channelId));
  }
}

function find(engine: Engine, reference: string): Conversation {
  const all = engine.store.conversations.all();
  const views = all.map((conversation) => conversationView(engine, conversation));
  const text = reference.trim();
  const byId = /^[0-9a-f]+$/.test(text) && text.length >= ID_PREFIX_MIN;
  const name = text.startsWith('@') ? text.slice(1) : text;
  const candidates = [
    views.filter(({ id }) => id === text),
    text.startsWith('@') ? [] : views.filter((view) => view.kind === 'group' && view.name === text),
    views.filter((view) => view.kind !== 'group' && view.name === name),
    byId ? views.filter(({ id }) => id.startsWith(text)) : [],
  ];
  for (const found of candidates) {
    // Of several with one name those still alive are meant.
    const alive = found.filter(({ state }) => state !== 'left' && state !== 'removed');
    const meant = alive.length > 0 ? alive : found;
    const [first] = meant;
    if (first === undefined) continue;
    if (meant.length === 1) return first;
    throw new ClientError('usage', 'ambiguous-conversation', 'several conversations go by that name', {
      hint: `Use an id: ${meant.map(({ id }) => id.slice(0, 8)).join(', ')}.`,
    });
  }
  throw new ClientError('usage', 'unknown-conversation', 'there is no conversation with that name or id', {
    hint: 'See qpc group list; for a conversation of two: qpc dm NAME.',
  });
}

function notConnected(): ClientError {
  return new ClientError('cannot-connect', 'server-away', 'not connected to the server', {
    hint: 'Check that the server is running and reachable, then try again.',
  });
}
