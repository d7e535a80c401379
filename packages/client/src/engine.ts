/**
 * What every part of the client works with, and the one way in which anything changes.
 *
 * `change` is a transaction: its body is synchronous, reads and writes the store, hands over successor states of groups,
 * and says which events to tell. Everything is written together; only when it is on disk are the states in memory
 * replaced, old secrets wiped and events told (DESIGN section 2). When the body throws, nothing happened. So no await
 * lies between reading a ratchet and writing its successor, and two sends never start from one state.
 */
import { type CryptoProvider, encodeHex } from '@quicprochat/crypto';
import type { DeviceAddress, PasswordStretching } from '@quicprochat/core';
import {
  diffRows,
  type GroupState,
  type MlsContext,
  type MlsHooks,
  restoreGroup,
  wipeGroup,
  wipeReplaced,
} from '@quicprochat/mls';
import type { Clock } from '@quicprochat/transport';
import type { Log } from './client.ts';
import { ClientError } from './errors.ts';
import { Conditions, EventHub, KeyedQueue } from './event-hub.ts';
import type { Transparency } from './key-transparency/transparency.ts';
import { mlsHooks } from './profile/group-parameters.ts';
import type { ServerConnection } from './server-connection.ts';
import type { ServerPin, Store, StoredAccount } from './store/index.ts';
import type { ClientEvent } from './types.ts';

/** What the engine needs from the world. */
export interface Ports {
  readonly crypto: CryptoProvider;
  /** Cryptographically random bytes. */
  readonly random: (length: number) => Uint8Array;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** Timers. */
  readonly clock: Clock;
  readonly log: Log;
  /** MLS cipher suite of new groups. */
  readonly suite: number;
  /** Ratchet trees above this travel beside their Welcome, bytes. Default 64 KiB; tests have small groups. */
  readonly treeInlineBytesMax?: number;
  /** Of the account's password. Default 64 MiB, 3 passes; tests make accounts by the hundred. */
  readonly passwordStretching?: PasswordStretching;
}

/** What parts of the engine ask of one another; filled in by open-client.ts, where they are put together. */
export interface Reactions {
  /** Something may be sendable: look at the outbox. */
  outboxChanged(): void;
  /** A group has something that asks for a commit of ours, or may have: look at it. */
  dutiesChanged(channelId: Uint8Array): void;
  /** Members came in: make the local checks. */
  membersChanged(channelId: Uint8Array): void;
  /** We cannot follow the log beyond this epoch, or it looks like it: ask to be added again, unless we are past it by now. */
  trackLost(channelId: Uint8Array, certainty: LostTrack, epochPosition: bigint): void;
  /** The server lost something addressed to us: see whether log entries were among it. */
  inboxGap(): void;
  /** A channel is held up by a tree that is not here yet. */
  treeWanted(): void;
  /** The server was put back to an earlier state, and with it the keys that it has of this device. */
  serverRestored(): void;
  /** KeyPackages were used. */
  keysUsed(): void;
  /** The server lists this device with another certificate than its own. */
  certificateLost(): void;
}

/**
 * How sure it is that a group has moved on without this device. `certain`: entries are missing, or secrets.
 * `suspected`: somebody claims to be in an epoch begun by an entry we skipped; they may be right, or make it up.
 * `unchecked`: somebody claims an entry we were never given; the server is asked whether there is one.
 */
export type LostTrack = 'certain' | 'suspected' | 'unchecked';

export type CommitSettlement =
  | { readonly kind: 'accepted' }
  | { readonly kind: 'lost' }
  | { readonly kind: 'refused'; readonly error: ClientError };

export class Engine {
  readonly ports: Ports;
  readonly store: Store;
  readonly events: EventHub = new EventHub();
  readonly conditions: Conditions;
  readonly queue: KeyedQueue = new KeyedQueue();
  /** By message id in hex: whoever waits for a commit of ours to be decided. */
  readonly settlements: Map<string, (settlement: CommitSettlement) => void> = new Map();
  server!: ServerConnection;
  reactions!: Reactions;
  transparency!: Transparency;
  closed = false;
  /** Trees that were asked for, by blob id in hex, while what waited for them is taken in; undefined: cannot be had. */
  trees: ReadonlyMap<string, Uint8Array | undefined> = new Map();
  /** Whether this connection has a session of ours. */
  hasSession = false;
  /** Why the server last refused the session that the profile still has, in its words; undefined when it did not. */
  sessionRefusal: { readonly message: string; readonly hint: string } | undefined;
  /** Pin of the server as greeted; undefined before the first greeting. */
  pin: ServerPin | undefined;
  /** Newest inbox position the server told us of on this connection; undefined before Subscribe. */
  inboxHead: bigint | undefined;
  /** Inbox rows up to here needed nothing stored; the cursor on disk follows with the next row that does. */
  inboxPassed = 0n;
  readonly #groups: Map<string, GroupState> = new Map();
  readonly #timers: Set<unknown> = new Set();
  #hooks: { readonly origin: string; readonly hooks: MlsHooks } | undefined;
  #account: StoredAccount | undefined;
  #changing = false;

  constructor(ports: Ports, store: Store) {
    this.ports = ports;
    this.store = store;
    this.conditions = new Conditions(ports.clock);
    this.#account = store.account.get();
  }

  get crypto(): CryptoProvider {
    return this.ports.crypto;
  }

  nowMs(): number {
    return Math.floor(this.ports.now());
  }

  nowSecs(): number {
    return Math.floor(this.ports.now() / 1000);
  }

  /** Runs `action` after a while, unless the engine is closed before. Returns how to call it off. */
  later(action: () => void, ms: number): () => void {
    if (this.closed) return () => {};
    const { clock } = this.ports;
    const timer = clock.setTimer(() => {
      this.#timers.delete(timer);
      action();
    }, ms);
    this.#timers.add(timer);
    return () => {
      this.#timers.delete(timer);
      clock.clearTimer(timer);
    };
  }

  /** Uniform in [0, 1). */
  uniform(): number {
    const bytes = this.ports.random(4);
    return (((bytes[0]! << 24) | (bytes[1]! << 16) | (bytes[2]! << 8) | bytes[3]!) >>> 0) / 2 ** 32;
  }

  /** Everything up to here in the inbox has been dealt with. */
  get inboxCursor(): bigint {
    const stored = this.store.inbox.cursor();
    return stored > this.inboxPassed ? stored : this.inboxPassed;
  }

  /** The account, registered or in the middle of it. */
  get account(): StoredAccount | undefined {
    return this.#account;
  }

  /** @throws ClientError `not-registered` */
  get self(): StoredAccount {
    if (this.#account === undefined) {
      throw new ClientError('local-state', 'not-registered', 'this profile has no account', {
        hint: 'Register one: qpc register-user NAME.',
      });
    }
    return this.#account;
  }

  get address(): DeviceAddress {
    const { identityKey, deviceId } = this.self;
    return { identityKey, deviceId };
  }

  /** For every call of mls: a fresh one, because the clock matters. */
  mls(): MlsContext {
    const { origin } = this.self;
    if (this.#hooks?.origin !== origin) this.#hooks = { origin, hooks: mlsHooks(this.ports.crypto, origin) };
    return { crypto: this.ports.crypto, random: this.ports.random, now: this.nowSecs(), hooks: this.#hooks.hooks };
  }

  /** The group's state as stored; undefined when there is none. */
  group(channelId: Uint8Array): GroupState | undefined {
    const key = encodeHex(channelId);
    const cached = this.#groups.get(key);
    if (cached !== undefined) return cached;
    if (this.store.conversations.get(channelId)?.groupId === undefined) return undefined;
    const state = restoreGroup(this.mls(), this.store.mlsRows.reader(channelId));
    this.#groups.set(key, state);
    return state;
  }

  /** The group that a ReInit closed, for late messages; undefined when there is none, or it is over. */
  predecessor(channelId: Uint8Array): GroupState | undefined {
    const key = groupKey(channelId, 'predecessor');
    const cached = this.#groups.get(key);
    if (cached !== undefined) return cached;
    if (this.store.conversations.predecessor(channelId) === undefined) return undefined;
    const state = restoreGroup(this.mls(), this.store.predecessorRows.reader(channelId));
    this.#groups.set(key, state);
    return state;
  }

  /** @throws ClientError `closed`, or what the body threw; then nothing happened */
  change<T>(body: (change: Change) => T): T {
    if (this.closed) throw new ClientError('local-state', 'closed', 'this profile is closed');
    if (this.#changing) throw new ClientError('bug', 'bug', 'a change inside a change');
    this.#changing = true;
    const change = new Change(this);
    let result: T;
    try {
      this.store.transaction(() => {
        result = body(change);
        change.writeGroups();
      });
    } catch (error) {
      this.#account = this.store.account.get();
      throw error;
    } finally {
      this.#changing = false;
    }
    change.settle(this.#groups);
    if (change.accountChanged) this.#account = this.store.account.get();
    for (const event of change.events) this.events.emit(typeof event === 'function' ? event() : event);
    for (const action of change.afterwards) action();
    this.conditions.check();
    return result!;
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    const context = this.#account === undefined ? undefined : this.mls();
    if (context !== undefined) for (const state of this.#groups.values()) wipeGroup(context, state);
    this.#groups.clear();
    for (const timer of this.#timers) this.ports.clock.clearTimer(timer);
    this.#timers.clear();
    const error = new ClientError('local-state', 'closed', 'this profile is closed');
    for (const settle of this.settlements.values()) settle({ kind: 'refused', error });
    this.conditions.end(error);
    this.events.end();
    this.store.close();
  }
}

/** A conversation's group, and the one before it. */
type GroupRole = 'current' | 'predecessor';

function groupKey(channelId: Uint8Array, role: GroupRole): string {
  const key = encodeHex(channelId);
  return role === 'current' ? key : `${key}/${role}`;
}

interface GroupChange {
  readonly channelId: Uint8Array;
  readonly role: GroupRole;
  /** What is on disk. */
  readonly stored: GroupState | undefined;
  /** Whether `next` does not descend from `stored`. */
  replaced: boolean;
  /** Reads rows that have another place after this change: to be read again from there. */
  displaced: boolean;
  /** Every state on the way, the stored one first; undefined at the end: deleted. */
  chain: (GroupState | undefined)[];
}

/** One transaction in the making. */
export class Change {
  readonly engine: Engine;
  readonly store: Store;
  readonly events: (ClientEvent | (() => ClientEvent))[] = [];
  readonly afterwards: (() => void)[] = [];
  accountChanged = false;
  readonly #groups: Map<string, GroupChange> = new Map();

  constructor(engine: Engine) {
    this.engine = engine;
    this.store = engine.store;
  }

  /** Tells an event once everything is on disk; a function is asked for it only then. */
  emit(event: ClientEvent | (() => ClientEvent)): void {
    this.events.push(event);
  }

  /** Runs once everything is on disk. */
  after(action: () => void): void {
    this.afterwards.push(action);
  }

  group(channelId: Uint8Array): GroupState | undefined {
    const changed = this.#groups.get(groupKey(channelId, 'current'));
    return changed === undefined ? this.engine.group(channelId) : changed.chain.at(-1);
  }

  predecessor(channelId: Uint8Array): GroupState | undefined {
    const changed = this.#groups.get(groupKey(channelId, 'predecessor'));
    return changed === undefined ? this.engine.predecessor(channelId) : changed.chain.at(-1);
  }

  /** A successor of what `group` gave. */
  setGroup(channelId: Uint8Array, next: GroupState): void {
    this.#of(channelId, 'current').chain.push(next);
  }

  /** A successor of what `predecessor` gave. */
  setPredecessor(channelId: Uint8Array, next: GroupState): void {
    this.#of(channelId, 'predecessor').chain.push(next);
  }

  /** Another group in its place, or none. */
  replaceGroup(channelId: Uint8Array, next: GroupState | undefined): void {
    const change = this.#of(channelId, 'current');
    change.replaced = true;
    change.chain.push(next);
  }

  /**
   * A ReInit: the group goes on as the successor, and is kept as its predecessor.
   * @param closed what the ReInit made of the group
   * @param position of the log entry that closed it
   */
  succeedGroup(channelId: Uint8Array, closed: GroupState, successor: GroupState, position: bigint): void {
    const current = this.#of(channelId, 'current');
    this.forgetPredecessor(channelId);
    // Looked up before there is a record of it: its rows come with the end of this change.
    const predecessor = this.#of(channelId, 'predecessor');
    this.store.conversations.savePredecessor(channelId, { position, closedAtMs: this.engine.nowMs() });
    predecessor.chain.push(...current.chain, closed);
    predecessor.replaced = true;
    predecessor.displaced = true;
    current.chain = [undefined, successor];
    current.replaced = true;
    current.displaced = true;
  }

  /** Late messages of the group before this one are read no more. */
  forgetPredecessor(channelId: Uint8Array): void {
    if (this.predecessor(channelId) === undefined) return;
    const change = this.#of(channelId, 'predecessor');
    change.replaced = true;
    change.chain.push(undefined);
    this.store.conversations.deletePredecessor(channelId);
  }

  /** Called inside the transaction, last. */
  writeGroups(): void {
    // All rows are made before the first is cleared: a state may read some that it has not needed so far.
    const writes = [...this.#groups.values()].map(({ channelId, role, stored, replaced, chain }) => {
      const next = chain.at(-1);
      const rows = role === 'current' ? this.store.mlsRows : this.store.predecessorRows;
      return { channelId, rows, replaced, changes: next && diffRows(replaced ? undefined : stored, next) };
    });
    for (const { channelId, rows, replaced, changes } of writes) {
      if (replaced) rows.clear(channelId);
      if (changes !== undefined) rows.apply(channelId, changes);
    }
  }

  /** Called when the transaction is on disk. */
  settle(groups: Map<string, GroupState>): void {
    if (this.#groups.size === 0) return;
    const context = this.engine.mls();
    for (const [key, { chain, displaced }] of this.#groups) {
      const next = chain.at(-1);
      if (next === undefined || displaced) groups.delete(key);
      else groups.set(key, next);
      for (let i = 1; i < chain.length; i++) {
        const previous = chain[i - 1];
        const successor = chain[i];
        if (previous === undefined) continue;
        if (successor === undefined) wipeGroup(context, previous);
        else wipeReplaced(context, previous, successor);
      }
      if (displaced && next !== undefined) wipeGroup(context, next);
    }
  }

  #of(channelId: Uint8Array, role: GroupRole): GroupChange {
    const key = groupKey(channelId, role);
    let change = this.#groups.get(key);
    if (change === undefined) {
      const stored = role === 'current' ? this.engine.group(channelId) : this.engine.predecessor(channelId);
      change = { channelId, role, stored, replaced: false, displaced: false, chain: [stored] };
      this.#groups.set(key, change);
    }
    return change;
  }
}
