/**
 * The store on embedded SQLite (DESIGN section 6): a facade in the server's thread, and three threads that own the
 * connections. A call is packed, posted and answered; the event loop never touches the disk.
 *
 *   writes → writer thread: group commit with fsync → answer
 *   reads  → reader thread: a snapshot that includes every answered write
 *            checkpointer thread: WAL → database file
 */
import { Worker } from 'node:worker_threads';
import { pack } from './arena.ts';
import {
  type Answer,
  type Failure,
  type FromThread,
  fromFailure,
  type ReadRequest,
  Signal,
  SIGNALS,
  type ToReader,
  type ToWriter,
  type WriteRequest,
  type WriterData,
} from './sqlite-messages.node.ts';
import { backUp } from './sqlite-back-up.node.ts';
import type { DatabaseFile } from './sqlite-database.node.ts';
import type { ReadCalls } from './sqlite-reads.node.ts';
import type { WriteCalls } from './sqlite-writes.node.ts';
import {
  type Ack,
  type Account,
  type AccountSummary,
  type Address,
  type AppendToLog,
  type BackUpOptions,
  type Ban,
  type BeginUploadOutcome,
  type BlobUpload,
  type ChannelInfo,
  type CreateAccountOutcome,
  type CreateDirectOutcome,
  type CreateGroupOutcome,
  type DeleteAccount,
  type DeleteAccountOutcome,
  DEFAULT_STORE_LIMITS,
  type Device,
  type Endpoint,
  type Enqueue,
  type EnqueueOutcome,
  type HybridKey,
  type InboxGap,
  type KeyPackageUpload,
  type LogHead,
  type NewAccount,
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
  type RecipientResult,
  type RegisterDevice,
  type RegisterDeviceOutcome,
  type RecoveryBundle,
  type ReplayGuard,
  type Report,
  type ResolveTargetOutcome,
  type Revocation,
  type RevokeDevice,
  type RevokeDeviceOutcome,
  type SessionOutcome,
  type Standing,
  type StatedAccount,
  type Store,
  StoreError,
  type StoreBackUp,
  type StoreErrorKind,
  type StoreLimits,
  type StoreState,
  type StoreStatus,
  type SubmitCommit,
  type SubmitCommitOutcome,
  type SuiteCount,
  type TakeKeyPackagesOutcome,
  type Target,
  type UploadKeyPackagesOutcome,
  type WriteContext,
} from './store.ts';

export interface SqliteStoreOptions {
  /** The database file; its folder must exist. `-wal`, `-shm` and `.lock` stand beside it. */
  readonly path: string;
  /** SQLCipher key, 32 random bytes; undefined leaves the file unencrypted. Copied; wipe yours afterwards. */
  readonly key?: Uint8Array | undefined;
  readonly limits?: Partial<StoreLimits> | undefined;
}

/** Creates or opens the store. @throws StoreError `wrong_key`, `newer_schema`, `in_use`, `corrupt`, `disk_full`, `io`. */
export async function openSqliteStore(options: SqliteStoreOptions): Promise<Store> {
  if (options.key !== undefined && options.key.length !== 32) {
    throw new StoreError('misuse', 'The store key must have 32 bytes.');
  }
  const limits = { ...DEFAULT_STORE_LIMITS, ...options.limits };
  const signals = new Int32Array(new SharedArrayBuffer(SIGNALS * Int32Array.BYTES_PER_ELEMENT));
  const key = options.key?.slice();
  const data: WriterData = { file: { path: options.path, key }, limits, signals };
  const writer = new Thread('writer', data, limits);
  const reader = new Thread('reader', data, limits);
  const threads: Threads = { writer, reader, checkpointer: undefined, signals };
  try {
    const schemaVersion = await writer.ready();
    threads.checkpointer = startCheckpointer(data);
    reader.post({ kind: 'open' });
    await reader.ready();
    return new SqliteStore(threads, data.file, schemaVersion);
  } catch (error) {
    key?.fill(0);
    await endThreads(threads);
    throw error;
  }
}

interface Threads {
  readonly writer: Thread;
  readonly reader: Thread;
  /** Settles when that thread is gone. */
  checkpointer: Promise<void> | undefined;
  readonly signals: Int32Array<SharedArrayBuffer>;
}

async function endThreads({ writer, reader, checkpointer, signals }: Threads): Promise<void> {
  writer.refuseFurther();
  reader.refuseFurther();
  Atomics.store(signals, Signal.stop, 1);
  Atomics.add(signals, Signal.commits, 1);
  Atomics.notify(signals, Signal.stop);
  Atomics.notify(signals, Signal.commits);
  reader.post({ kind: 'close' });
  await Promise.all([checkpointer, reader.ended]);
  // The last connection to close empties the WAL into the file.
  writer.post({ kind: 'close' });
  await writer.ended;
}

class SqliteStore implements Store {
  readonly #threads: Threads;
  readonly #about: { readonly schemaVersion: number; readonly encrypted: boolean };
  // With the key, which a copy is written under.
  readonly #file: DatabaseFile;
  #closing: Promise<void> | undefined;

  constructor(threads: Threads, file: DatabaseFile, schemaVersion: number) {
    this.#threads = threads;
    this.#file = file;
    this.#about = { schemaVersion, encrypted: file.key !== undefined };
  }

  #write<K extends keyof WriteCalls>(
    op: K,
    input: Parameters<WriteCalls[K]>[0],
    context?: WriteContext,
  ): Promise<ReturnType<WriteCalls[K]>> {
    return this.#threads.writer.write(op, input, context?.fairnessKey) as Promise<ReturnType<WriteCalls[K]>>;
  }

  #read<K extends keyof ReadCalls>(op: K, ...args: Parameters<ReadCalls[K]>): Promise<ReturnType<ReadCalls[K]>> {
    return this.#threads.reader.read(op, args) as Promise<ReturnType<ReadCalls[K]>>;
  }

  getSetting(key: string): Promise<Uint8Array | undefined> {
    return this.#read('getSetting', key);
  }

  putSetting(key: string, value: Uint8Array): Promise<void> {
    return this.#write('putSetting', { key, value });
  }

  putSettingOnce(key: string, value: Uint8Array): Promise<Uint8Array> {
    return this.#write('putSettingOnce', { key, value });
  }

  createAccount(account: NewAccount, context?: WriteContext): Promise<CreateAccountOutcome> {
    return this.#write('createAccount', account, context);
  }

  findAccountByUsername(username: string): Promise<Account | undefined> {
    return this.#read('findAccountByUsername', username);
  }

  findAccountByIdentity(identityKey: Uint8Array): Promise<Account | undefined> {
    return this.#read('findAccountByIdentity', identityKey);
  }

  listAccounts(page: { afterUsername: string; limit: number }): Promise<readonly AccountSummary[]> {
    return this.#read('listAccounts', page);
  }

  findOpaqueRecord(username: string): Promise<{ record: Uint8Array; identityKey: Uint8Array } | undefined> {
    return this.#read('findOpaqueRecord', username);
  }

  registerDevice(device: RegisterDevice, context?: WriteContext): Promise<RegisterDeviceOutcome> {
    return this.#write('registerDevice', device, context);
  }

  async deleteAccount(deletion: DeleteAccount, context?: WriteContext): Promise<DeleteAccountOutcome> {
    const outcome = await this.#write('deleteAccount', deletion, context);
    if (outcome.kind === 'deleted') await this.#emptyInboxes();
    return outcome;
  }

  async revokeDevice(revoke: RevokeDevice, context?: WriteContext): Promise<RevokeDeviceOutcome> {
    const outcome = await this.#write('revokeDevice', revoke, context);
    if (outcome.kind === 'revoked') await this.#emptyInboxes();
    return outcome;
  }

  async #emptyInboxes(): Promise<void> {
    while (await this.#write('emptyInboxes', undefined));
  }

  findRevocations(addresses: readonly Address[]): Promise<readonly Revocation[]> {
    return this.#read('findRevocations', addresses);
  }

  findNeighbours(address: Address): Promise<readonly Address[]> {
    return this.#read('findNeighbours', address);
  }

  standingOf(address: Address, nowMs: number): Promise<Standing> {
    return this.#read('standingOf', address, nowMs);
  }

  putBan(ban: Ban, context?: WriteContext): Promise<{ kind: 'banned' } | { kind: 'unknown_account' }> {
    return this.#write('putBan', ban, context);
  }

  liftBan(identityKey: Uint8Array, context?: WriteContext): Promise<boolean> {
    return this.#write('liftBan', identityKey, context);
  }

  findBan(identityKey: Uint8Array, nowMs: number): Promise<Ban | undefined> {
    return this.#read('findBan', identityKey, nowMs);
  }

  listBans(page: { afterIdentityKey: Uint8Array | undefined; limit: number; nowMs: number }): Promise<readonly Ban[]> {
    return this.#read('listBans', page);
  }

  addReport(report: Omit<Report, 'id'>, context?: WriteContext): Promise<{ kind: 'stored' } | { kind: 'full' }> {
    return this.#write('addReport', report, context);
  }

  listReports(page: { afterId: number; limit: number; maxBytes: number }): Promise<readonly Report[]> {
    return this.#read('listReports', page);
  }

  deleteReports(ids: readonly number[]): Promise<number> {
    return this.#write('deleteReports', ids);
  }

  putPushToken(
    put: { address: Address; token: PushToken | undefined },
    context?: WriteContext,
  ): Promise<{ kind: 'stored' } | { kind: 'unknown_device' }> {
    return this.#write('putPushToken', put, context);
  }

  dropPushToken(drop: { address: Address; token: PushToken }): Promise<void> {
    return this.#write('dropPushToken', drop);
  }

  findPushTokens(addresses: readonly Address[]): Promise<readonly (PushToken & { readonly address: Address })[]> {
    return this.#read('findPushTokens', addresses);
  }

  findStatedAccount(
    of: { readonly username: string } | { readonly identityKey: Uint8Array },
  ): Promise<StatedAccount | undefined> {
    return this.#read('findStatedAccount', of);
  }

  readLogHead(): Promise<LogHead | undefined> {
    return this.#read('readLogHead');
  }

  readLogQueue(limit: number): Promise<readonly Uint8Array[]> {
    return this.#read('readLogQueue', limit);
  }

  readLogHashes(positions: readonly number[]): Promise<Uint8Array[]> {
    return this.#read('readLogHashes', positions);
  }

  readLogEntries(page: { start: number; limit: number }): Promise<Uint8Array[]> {
    return this.#read('readLogEntries', page);
  }

  appendToLog(batch: AppendToLog): Promise<{ kind: 'appended' } | { kind: 'conflict' }> {
    return this.#write('appendToLog', batch);
  }

  listDevices(identityKey: Uint8Array): Promise<readonly Device[]> {
    return this.#read('listDevices', identityKey);
  }

  findDevice(address: Address): Promise<Device | undefined> {
    return this.#read('findDevice', address);
  }

  putSession(session: NewSession, context?: WriteContext): Promise<{ kind: 'stored' } | { kind: 'unknown_device' }> {
    return this.#write('putSession', session, context);
  }

  findSession(tokenHash: Uint8Array, nowMs: number): Promise<SessionOutcome> {
    return this.#read('findSession', tokenHash, nowMs);
  }

  async resumeSession(
    resume: { tokenHash: Uint8Array; nowMs: number; expiresAtMs: number },
    context?: WriteContext,
  ): Promise<SessionOutcome> {
    const outcome = await this.#write('resumeSession', resume, context);
    // It is kept as long as the connection; a buffer of its own does not keep the turn's other answers.
    return pack(outcome).value;
  }

  revokeSessions(address: Address, context?: WriteContext): Promise<number> {
    return this.#write('revokeSessions', address, context);
  }

  uploadKeyPackages(
    upload: { address: Address; keyPackages: readonly KeyPackageUpload[]; nowMs: number },
    context?: WriteContext,
  ): Promise<UploadKeyPackagesOutcome> {
    return this.#write('uploadKeyPackages', upload, context);
  }

  takeKeyPackages(
    take: { identityKey: Uint8Array; suite: number; nowMs: number },
    context?: WriteContext,
  ): Promise<TakeKeyPackagesOutcome> {
    return this.#write('takeKeyPackages', take, context);
  }

  countKeyPackages(address: Address, nowMs: number): Promise<readonly SuiteCount[]> {
    return this.#read('countKeyPackages', address, nowMs);
  }

  putHybridKey(key: NewHybridKey, context?: WriteContext): Promise<PutHybridKeyOutcome> {
    return this.#write('putHybridKey', key, context);
  }

  getHybridKeys(
    addresses: readonly { identityKey: Uint8Array; deviceId?: Uint8Array | undefined }[],
  ): Promise<readonly HybridKey[]> {
    return this.#read('getHybridKeys', addresses);
  }

  createGroup(group: NewGroup, context?: WriteContext): Promise<CreateGroupOutcome> {
    return this.#write('createGroup', group, context);
  }

  createDirect(direct: NewDirect, context?: WriteContext): Promise<CreateDirectOutcome> {
    return this.#write('createDirect', direct, context);
  }

  findChannel(channelId: Uint8Array): Promise<ChannelInfo | undefined> {
    return this.#read('findChannel', channelId);
  }

  putChannelMetadata(
    put: { channelId: Uint8Array; writer: Address; expectedVersion: number; data: Uint8Array },
    context?: WriteContext,
  ): Promise<PutChannelMetadataOutcome> {
    return this.#write('putChannelMetadata', put, context);
  }

  async enqueue(enqueue: Enqueue, context?: WriteContext): Promise<EnqueueOutcome> {
    const outcome = await this.#write('enqueue', enqueue, context);
    return outcome.kind === 'enqueued' ? { ...outcome, wake: woken(outcome.results) } : outcome;
  }

  resolveTarget(target: Target, channelId?: Uint8Array): Promise<ResolveTargetOutcome> {
    return this.#read('resolveTarget', target, channelId);
  }

  readInbox(read: ReadInbox): Promise<ReadInboxOutcome> {
    return this.#read('readInbox', read);
  }

  drainInbox(read: ReadInbox, context?: WriteContext): Promise<ReadInboxOutcome> {
    return this.#write('drainInbox', read, context);
  }

  async ack(ack: Ack, context?: WriteContext): Promise<number> {
    let removed = 0;
    for (;;) {
      const part = await this.#write('ack', ack, context);
      removed += part.removed;
      if (!part.more) return removed;
    }
  }

  headSeq(address: Address): Promise<number> {
    return this.#read('headSeq', address);
  }

  clearGap(address: Address, gap: InboxGap, context?: WriteContext): Promise<boolean> {
    return this.#write('clearGap', { address, gap }, context);
  }

  async submitCommit(commit: SubmitCommit, context?: WriteContext): Promise<SubmitCommitOutcome> {
    const outcome = await this.#write('submitCommit', commit, context);
    if (outcome.kind !== 'accepted') return outcome;
    return { ...outcome, wake: outcome.repeated ? [] : woken(outcome.results) };
  }

  putEndpoint(
    put: { address: Address; endpoint: { statement: Uint8Array; expiresAtMs: number } | undefined },
    context?: WriteContext,
  ): Promise<{ kind: 'stored' } | { kind: 'unknown_device' }> {
    return this.#write('putEndpoint', put, context);
  }

  findEndpoints(query: {
    of: { identityKey: Uint8Array; deviceId?: Uint8Array | undefined };
    requester: Address;
    nowMs: number;
  }): Promise<readonly Endpoint[]> {
    return this.#read('findEndpoints', query);
  }

  putRecovery(put: PutRecovery, context?: WriteContext): Promise<PutRecoveryOutcome> {
    return this.#write('putRecovery', put, context);
  }

  findRecovery(username: string): Promise<RecoveryBundle | undefined> {
    return this.#read('findRecovery', username);
  }

  findRecoveryTokenHash(username: string): Promise<Uint8Array | undefined> {
    return this.#read('findRecoveryTokenHash', username);
  }

  deleteRecovery(
    deletion: { identityKey: Uint8Array; replay?: ReplayGuard | undefined },
    context?: WriteContext,
  ): Promise<{ kind: 'deleted' } | { kind: 'replayed' }> {
    return this.#write('deleteRecovery', deletion, context);
  }

  beginUpload(upload: BlobUpload, context?: WriteContext): Promise<BeginUploadOutcome> {
    return this.#write('beginUpload', upload, context);
  }

  completeUpload(upload: BlobUpload, context?: WriteContext): Promise<void> {
    return this.#write('completeUpload', upload, context);
  }

  findBlob(blobId: Uint8Array): Promise<{ readonly sizeBytes: number } | undefined> {
    return this.#read('findBlob', blobId);
  }

  listUnownedBlobs(): Promise<readonly Uint8Array[]> {
    return this.#read('listUnownedBlobs');
  }

  forgetBlob(blobId: Uint8Array): Promise<boolean> {
    return this.#write('forgetBlob', blobId);
  }

  purge(nowMs: number): Promise<PurgeOutcome> {
    return this.#write('purge', { nowMs });
  }

  async ping(): Promise<StoreState> {
    await this.#read('ping');
    return this.#state();
  }

  async status(): Promise<StoreStatus> {
    const totals = await this.#read('totals');
    const pendingWrites = this.#threads.writer.pendingCount;
    return { ...this.#state(), backend: 'sqlite', ...this.#about, ...totals, pendingWrites };
  }

  #state(): StoreState {
    const { failure } = this.#threads.writer;
    return { state: failure === undefined ? 'ok' : 'failing', failure };
  }

  backUp(path: string, options: BackUpOptions = {}): Promise<StoreBackUp> {
    if (this.#closing !== undefined) return Promise.reject(closedError());
    return backUp(this.#file, path, options);
  }

  close(): Promise<void> {
    this.#closing ??= endThreads(this.#threads).finally(() => this.#file.key?.fill(0));
    return this.#closing;
  }
}

/** Inboxes with something new: an envelope or a gap. */
function woken(results: readonly RecipientResult[]): Address[] {
  return results.filter(({ kind }) => kind === 'queued' || kind === 'full').map(({ address }) => address);
}

interface Pending {
  readonly bytes: number;
  readonly lane: string | number | undefined;
  resolve(value: unknown): void;
  reject(error: StoreError): void;
}

/**
 * What follows from an answer (an event pushed, a receipt, the answer encoded and sent) costs its caller's loop some 20 µs,
 * and a group commit has up to 128 of them.
 */
const ANSWERS_PER_TURN = 16;

/** Of what may wait, the part that one fairness key may fill: turns alone do not help who finds the queue full. */
const LANE_SHARE = 4;

/** The facade's end of the writer's or the reader's thread: numbered calls, posted together once per microtask. */
class Thread {
  /** Settles when the thread is gone, however that came about. */
  readonly ended: Promise<void>;
  /** What the last write died of, as long as none has succeeded since. */
  failure: StoreErrorKind | undefined;

  readonly #worker: Worker;
  readonly #limits: StoreLimits;
  readonly #started = Promise.withResolvers<number>();
  readonly #pending = new Map<number, Pending>();
  #pendingBytes = 0;
  readonly #lanes = new Map<string | number, { count: number; bytes: number }>();
  #nextId = 1;
  #refusing = false;
  /** Come and not handed on yet, in order. */
  #answers: Answer[] = [];
  #outbox: { writes: WriteRequest[]; reads: ReadRequest[]; arenas: ArrayBuffer[] } | undefined;

  constructor(name: keyof typeof THREADS, data: WriterData, limits: StoreLimits) {
    this.#limits = limits;
    this.#worker = startThread(name, data);
    this.#worker.on('message', (message: FromThread) => {
      if (message.kind === 'ready') this.#started.resolve(message.schemaVersion);
      else if (message.kind === 'unusable') this.#started.reject(fromFailure(message.failure));
      else this.#take(message.answers);
    });
    this.ended = new Promise((resolve) => {
      this.#worker.once('exit', () => {
        this.#settle(Infinity);
        this.#fail(closedError());
        resolve();
      });
    });
    this.#worker.once('error', (cause) => {
      this.failure = 'internal';
      this.#settle(Infinity);
      this.#fail(new StoreError('internal', 'A thread of the store failed: restart the server.', { cause }));
    });
    // Whoever opens the store awaits it; a second failure is not unhandled.
    this.#started.promise.catch(() => {});
  }

  get pendingCount(): number {
    return this.#pending.size;
  }

  /** The schema version, once the thread has its connection. */
  ready(): Promise<number> {
    return this.#started.promise;
  }

  post(message: ToWriter | ToReader, transfer: ArrayBuffer[] = []): void {
    this.#worker.postMessage(message, transfer);
  }

  refuseFurther(): void {
    this.#refusing = true;
    this.#flush();
  }

  write(op: keyof WriteCalls, input: unknown, fairnessKey: string | number | undefined): Promise<unknown> {
    return this.#call(input, fairnessKey, (id, packed, bytes) => {
      this.#outbox!.writes.push({ id, op, input: packed, fairnessKey, bytes });
    });
  }

  read(op: keyof ReadCalls, args: readonly unknown[]): Promise<unknown> {
    return this.#call(args, undefined, (id, packed) => {
      this.#outbox!.reads.push({ id, op, args: packed });
    });
  }

  #call<T>(
    input: T,
    lane: string | number | undefined,
    add: (id: number, packed: T, bytes: number) => void,
  ): Promise<unknown> {
    if (this.#refusing) return Promise.reject(closedError());
    const { value, arena } = pack(input);
    const bytes = arena?.byteLength ?? 0;
    const ofLane = lane === undefined ? undefined : this.#lanes.get(lane);
    const { pendingWrites, pendingBytes } = this.#limits;
    if (
      this.#pending.size >= pendingWrites ||
      (this.#pending.size > 0 && this.#pendingBytes + bytes > pendingBytes) ||
      (ofLane !== undefined &&
        (ofLane.count >= pendingWrites / LANE_SHARE || ofLane.bytes + bytes > pendingBytes / LANE_SHARE))
    ) {
      return Promise.reject(new StoreError('unavailable', 'The store has too much to do: try again.'));
    }
    const id = this.#nextId++;
    if (this.#outbox === undefined) {
      this.#outbox = { writes: [], reads: [], arenas: [] };
      queueMicrotask(() => this.#flush());
    }
    if (arena !== undefined) this.#outbox.arenas.push(arena);
    add(id, value, bytes);
    this.#pendingBytes += bytes;
    if (ofLane !== undefined) {
      ofLane.count++;
      ofLane.bytes += bytes;
    } else if (lane !== undefined) this.#lanes.set(lane, { count: 1, bytes });
    return new Promise((resolve, reject) => this.#pending.set(id, { bytes, lane, resolve, reject }));
  }

  #flush(): void {
    if (this.#outbox === undefined) return;
    const { writes, reads, arenas } = this.#outbox;
    this.#outbox = undefined;
    this.post(writes.length > 0 ? { kind: 'writes', requests: writes } : { kind: 'reads', requests: reads }, arenas);
  }

  #take(answers: readonly Answer[]): void {
    this.#answers.push(...answers);
    if (this.#answers.length === answers.length) this.#settle(ANSWERS_PER_TURN);
  }

  /** So many answers, and the rest in turns of their own. */
  #settle(most: number): void {
    for (const answer of this.#answers.splice(0, most)) this.#settleOne(answer);
    if (this.#answers.length > 0) setImmediate(() => this.#settle(ANSWERS_PER_TURN));
  }

  #settleOne(answer: Answer): void {
    const pending = this.#pending.get(answer.id);
    if (pending === undefined) return;
    this.#pending.delete(answer.id);
    this.#pendingBytes -= pending.bytes;
    this.#leave(pending);
    if ('failure' in answer) {
      if (isOfMedium(answer.failure)) this.failure = answer.failure.kind;
      pending.reject(fromFailure(answer.failure));
    } else {
      this.failure = undefined;
      pending.resolve(answer.value);
    }
  }

  #leave({ lane, bytes }: Pending): void {
    const ofLane = lane === undefined ? undefined : this.#lanes.get(lane);
    if (ofLane === undefined) return;
    ofLane.count--;
    ofLane.bytes -= bytes;
    if (ofLane.count === 0) this.#lanes.delete(lane!);
  }

  #fail(error: StoreError): void {
    this.#refusing = true;
    this.#started.reject(error);
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
    this.#pendingBytes = 0;
    this.#lanes.clear();
  }
}

const THREADS = {
  writer: new URL('./sqlite-writer.node.ts', import.meta.url),
  reader: new URL('./sqlite-reader.node.ts', import.meta.url),
  checkpointer: new URL('./sqlite-checkpointer.node.ts', import.meta.url),
};

function startCheckpointer(data: WriterData): Promise<void> {
  const worker = startThread('checkpointer', data);
  // Without it the writer empties the WAL alone, whenever that is too large. What ails the file shows there.
  worker.on('error', () => {});
  return new Promise((resolve) => worker.once('exit', () => resolve()));
}

function startThread(name: keyof typeof THREADS, data: WriterData): Worker {
  // Built files lie beside each other like the sources; only the ending differs.
  const ending = import.meta.url.slice(import.meta.url.lastIndexOf('.'));
  const url = new URL(THREADS[name].href.replace(/\.ts$/, ending));
  return new Worker(url, { workerData: data, name: `store ${name}`, execArgv: [] });
}

function closedError(): StoreError {
  return new StoreError('unavailable', 'The store is closed.');
}

function isOfMedium(failure: Failure): boolean {
  return failure.kind === 'disk_full' || failure.kind === 'corrupt' || failure.kind === 'io';
}
