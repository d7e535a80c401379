/**
 * The server's key-transparency log as this client watches it (PROTOCOL section 7; THREATS 21):
 *
 *   connected, every ten minutes, before believing an answer ─▶ follow: copy brought to the newest head, kept on disk
 *   Resolve ─ check ─▶ proven under a signed head ─▶ the newest of its account in our copy ─▶ believed
 *   commit of somebody else ─ witness ─▶ the head they saw is part of the same log as ours
 *   our own account ─▶ every entry is one this device, or another of ours, has signed
 *
 * What does not fit becomes a finding (findings.ts). None of it decides whether a commit is valid.
 */
import { decodeHex, EMPTY, encodeHex, equal } from '@quicprochat/crypto';
import {
  type Checkpoint,
  compareCheckpoints,
  type Finding,
  type KeyTransparencyProofFields,
  LogMirror,
  openCheckpoint,
  type OwnEntry,
  type PinnedLog,
  type ResolvedAccount,
  verifyResolve,
  vrfReady,
} from '@quicprochat/core';
import { methods } from '@quicprochat/transport';
import { resolveIdentity, resolveSelf } from '../contacts.ts';
import type { Change, Engine } from '../engine.ts';
import { ClientError, toClientError } from '../errors.ts';
import { LocalStateError, type StoredConversation } from '../store/index.ts';
import { noteListed } from '../renew-certificate.ts';
import { pauseSending } from '../watch-server.ts';
import { enterLog } from './enter-log.ts';
import {
  badProof,
  type FindingContext,
  findingError,
  openLogFinding,
  recordFinding,
  refuseWhileDoubted,
} from './findings.ts';
import { type Followed, followLog, type FollowOptions, type LogSource, restoreMirror } from './follow-log.ts';

/** How often the server is asked for a newer head while nothing else asks for one. */
const FOLLOW_EVERY_MS = 10 * 60_000;
/** Checkpoints of others that are remembered until the copy reaches them. */
const WITNESSED_MAX = 64;
/** Entries read from disk in one go. */
const RESTORE_PAGE = 1_000;
/** Accounts that have changed and are looked up in one go; the others the next time. */
const LOOK_UPS_MAX = 16;
/** How often one answer is checked against a log that moves meanwhile. */
const CHECK_ATTEMPTS_MAX = 4;

/** Of an entry of ours: it was in the log before this one, which was accepted instead. */
const NOT_IN_THIS_LOG = Number.MAX_SAFE_INTEGER;

/** The newest head that was believed beyond what can be mirrored, in hex. */
const UNMIRRORED_KEY = 'log-head-unmirrored';

export type LoggedAccount =
  | { readonly kind: 'current'; readonly account: ResolvedAccount }
  /** The log has got a newer entry since: resolve again. */
  | { readonly kind: 'superseded' }
  /** This server has kept no log since we know it. */
  | { readonly kind: 'no-log' };

export class Transparency {
  readonly #engine: Engine;
  #mirror: LogMirror | undefined;
  #running = false;
  #again = false;
  #callOff: (() => void) | undefined;
  #told: string | undefined;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** Whether something is being compared that others may wait for. */
  get busy(): boolean {
    return this.#running;
  }

  /** The log of this account's server as pinned; undefined when it keeps none. */
  get log(): PinnedLog | undefined {
    const { account, pin, store } = this.#engine;
    const origin = account?.origin ?? pin?.origin;
    const known = origin === undefined ? undefined : store.account.serverPin(origin);
    if (known === undefined || known.logKey.length === 0) return undefined;
    return { origin: known.logOrigin, key: known.logKey, vrfKey: known.logVrfKey, serverOrigin: known.origin };
  }

  /** The newest checkpoint that anything was believed under, for our commits; empty before the first. */
  get checkpoint(): Uint8Array {
    const { store } = this.#engine;
    const unmirrored = store.settings.get(UNMIRRORED_KEY);
    const bytes = unmirrored === undefined ? undefined : decodeHex(unmirrored);
    return bytes ?? store.log.head()?.checkpoint ?? EMPTY;
  }

  /** Number of entries in our copy. */
  get size(): number {
    return this.#engine.store.log.head()?.size ?? 0;
  }

  /** Follows the log in the background when that is due. */
  look(): void {
    const { closed, server, hasSession } = this.#engine;
    if (closed || server.state !== 'online' || !hasSession || this.log === undefined) return;
    this.#planNext();
    if (!this.#isDue()) return;
    if (this.#running) {
      this.#again = true;
      return;
    }
    this.#running = true;
    this.#again = false;
    void this.#watch()
      .catch((error: unknown) => {
        // The server is away, or will not say: it is asked again, and answers that need the log are refused meanwhile.
        const { log } = this.#engine.ports;
        this.#again = false;
        if (this.#engine.closed) return;
        const failure = toClientError(error);
        log.debug('the log could not be followed', { reason: failure.code });
        this.#tell(failure);
      })
      .finally(() => {
        this.#running = false;
        if (this.#engine.closed) return;
        if (this.#again) this.look();
        this.#engine.conditions.check();
      });
  }

  /**
   * Brings the copy to the newest head, or to `reach` entries if that is all that is asked for. Findings are recorded.
   * @throws ClientError `bad-log` when the server does not hand out a log that verifies; what the call throws
   */
  follow(reach = Number.POSITIVE_INFINITY): Promise<Followed> {
    return this.#engine.queue.run('transparency', async () => {
      const mirror = await this.#load();
      if (mirror.size >= reach) return { kind: 'current', from: mirror.size, findings: [] };
      this.#compareWitnessed(mirror);
      const followed = await followLog(this.#engine.crypto, this.#pinned(), mirror, this.source(), this.pauses());
      this.#settle(mirror, followed);
      if (followed.kind === 'refused') throw badLog(followed.reason);
      return followed;
    });
  }

  /**
   * Replaces the copy by one that was made from the first entry on and found to be the same as far as ours went.
   * @returns false when it does not continue ours: then nothing has changed
   */
  adopt(fresh: LogMirror): Promise<boolean> {
    return this.#engine.queue.run('transparency', async () => {
      const mirror = await this.#load();
      const { head } = fresh;
      if (head === undefined || mirror.size > fresh.size) return false;
      if (mirror.head !== undefined && !equal(fresh.rootAt(mirror.size), mirror.head.root)) return false;
      this.#mirror = fresh;
      this.#save(fresh, head, mirror.size);
      this.#compareWitnessed(fresh);
      return true;
    });
  }

  /** The server as one who hands out the log. */
  source(): LogSource {
    const { server } = this.#engine;
    return {
      head: async () => (await server.call(methods.keys.getTreeHead, {})).checkpoint.slice(),
      entries: async (position) =>
        (await server.call(methods.keys.auditKeyTransparency, { start: BigInt(position) })).entries,
    };
  }

  /** Between the parts of a long piece of work others get their turn. */
  pauses(): Pick<FollowOptions, 'pause'> {
    const { clock } = this.#engine.ports;
    return { pause: () => new Promise((resolve) => void clock.setTimer(resolve, 0)) };
  }

  /**
   * Whether the log vouches for what Resolve answered. Asked with the size of our copy before the question was sent.
   * @throws ClientError `no-log-proof`, `bad-log-proof`, `log-finding`, `bad-log`; what the calls throw
   */
  async check(
    username: string,
    identityKey: Uint8Array,
    proof: KeyTransparencyProofFields | undefined,
    sizeWhenAsked: number,
  ): Promise<LoggedAccount> {
    const engine = this.#engine;
    const { log } = this;
    if (log === undefined) return { kind: 'no-log' };
    refuseWhileDoubted(engine);
    if (proof === undefined) {
      throw badProof('no-log-proof', username, 'the server does not show that they are in its log');
    }
    await vrfReady();
    const outcome = verifyResolve(engine.crypto, log, username, proof, identityKey);
    if (outcome.kind === 'refused') throw badProof('bad-log-proof', username, outcome.detail);
    const { account } = outcome;
    if (account.statement.kind === 'deleted') {
      throw badProof('bad-log-proof', username, 'the log says that the account was deleted');
    }
    for (let attempt = 0; attempt < CHECK_ATTEMPTS_MAX; attempt++) {
      const mirror = await engine.queue.run('transparency', () => this.#load());
      const check = mirror.checkResolved(account, sizeWhenAsked);
      switch (check.kind) {
        case 'current':
          this.#remember(account);
          return { kind: 'current', account };
        case 'superseded':
          return check;
        case 'finding':
          engine.change((change) => recordFinding(change, check.finding, { identityKey }));
          throw findingError(check.finding, username);
        case 'behind': {
          const followed = await this.follow(check.size);
          if (followed.kind === 'finding') throw findingError(followed.finding, username);
          if (followed.kind === 'too-large') {
            await this.#continues(account.checkpoint);
            return { kind: 'current', account };
          }
        }
      }
    }
    throw badLog('the server keeps showing an account under a newer head than it hands out');
  }

  /**
   * A head that the committer of an entry was shown, compared with ours at once if our copy is at hand and goes that far,
   * else as soon as it does. Part of the transaction that applies the commit, whose validity it does not touch.
   */
  witness(change: Change, conversation: StoredConversation, checkpoint: Uint8Array): StoredConversation {
    const { store, engine } = change;
    const { log } = this;
    const { channelId } = conversation;
    if (checkpoint.length === 0 || log === undefined) return conversation;
    const opened = openCheckpoint(engine.crypto, checkpoint, log);
    if (opened.kind === 'invalid') {
      return pauseSending(
        change,
        conversation,
        'transparency',
        'key-transparency',
        'the committer of a change was shown another key-transparency log than this device',
        checkpoint,
      );
    }
    if (equal(checkpoint, this.checkpoint)) return conversation;
    const mirror = this.#mirror;
    if (mirror !== undefined && opened.checkpoint.size <= mirror.size) {
      const outcome = mirror.witness(opened.checkpoint);
      if (outcome.kind === 'finding') recordFinding(change, outcome.finding, { channelId });
      return store.conversations.get(channelId) ?? conversation;
    }
    if (store.log.witnessed().length < WITNESSED_MAX) {
      store.log.addWitnessed({ checkpoint, channelId, seenAtMs: engine.nowMs() });
    }
    change.after(() => this.look());
    return conversation;
  }

  /**
   * The user has seen what was found and goes on; `goOn` is part of the same transaction. Where it was about the log as a
   * whole, the copy begins anew: in its turn, because what is being followed now would be appended to nothing.
   */
  settleFindings(goOn: (change: Change) => void): Promise<void> {
    const engine = this.#engine;
    return engine.queue.run('transparency', async () => {
      engine.change((change) => {
        if (openLogFinding(engine) !== undefined) {
          change.store.log.forgetCopy();
          change.store.settings.set(UNMIRRORED_KEY, undefined);
          // Which of our entries this log has shows anew, and with them what the server has lost of us.
          for (const entry of change.store.log.ownEntries()) {
            if (entry.seen === undefined) continue;
            const seen = { ...entry.seen, dueAtSize: NOT_IN_THIS_LOG };
            change.store.log.saveOwnEntry({ ...entry, seen });
          }
        }
        change.store.log.settleFindings(engine.nowMs());
        goOn(change);
      });
      this.#mirror = undefined;
    });
  }

  /** Our copy, for looking things up. */
  mirror(): Promise<LogMirror> {
    return this.#engine.queue.run('transparency', () => this.#load());
  }

  /** What is no finding, as it proves nothing to anybody else, but no answer of an honest server either. Told once. */
  #tell({ code, message }: ClientError): void {
    if ((code !== 'bad-log' && code !== 'no-log-proof') || this.#told === code) return;
    this.#told = code;
    this.#engine.change((change) => {
      change.emit({ type: 'warning', code: 'key-transparency', conversationId: undefined, text: message });
    });
  }

  async #watch(): Promise<void> {
    const followed = await this.follow();
    if (followed.kind !== 'current') return;
    try {
      await this.checkOwn();
    } catch (error) {
      if (!(error instanceof ClientError) || error.code !== 'no-log-proof' || !(await enterLog(this.#engine)))
        throw error;
      await this.checkOwn();
    }
    this.#told = undefined;
    await this.#checkChanged();
  }

  /** Looks up again whom we know and the log has something new of. What does not fit is found by `check`. */
  async #checkChanged(): Promise<void> {
    const engine = this.#engine;
    const mirror = await this.mirror();
    const changed = engine.store.log.accounts().filter(({ identityKey, index, version }) => {
      const latest = mirror.latest(index);
      return latest !== undefined && latest.entry.version > version && !equal(identityKey, engine.self.identityKey);
    });
    const longestAgo = changed.toSorted((a, b) => a.checkedAtMs - b.checkedAtMs).slice(0, LOOK_UPS_MAX);
    for (const account of longestAgo) {
      const { entry } = mirror.latest(account.index)!;
      const version = entry.kind === 'deleted' ? entry.version : account.version;
      const checkedAtMs = engine.nowMs();
      engine.change((change) => change.store.log.saveAccount({ ...account, version, checkedAtMs }));
      if (entry.kind === 'deleted') continue;
      try {
        await resolveIdentity(engine, account.identityKey);
      } catch (error) {
        if (!(error instanceof ClientError) || error.kind !== 'verification-failed') throw error;
        // Their old keys are as good as before; new ones are not believed until the answer fits.
        engine.ports.log.warn('a change of an account does not verify', { reason: error.code });
      }
    }
  }

  /**
   * Compares the entries of our own account with those we made. One that this device did not make has to be vouched for
   * by our identity key in a later statement: then another of our devices made it, and that is told.
   * @returns what was found
   */
  async checkOwn(): Promise<readonly Finding[]> {
    const engine = this.#engine;
    const own = engine.account;
    if (own === undefined || own.state !== 'registered') return [];
    if (this.#isOwnUnseen()) await this.#seeOwn();
    const index = engine.store.log.account(own.identityKey)?.index;
    if (index === undefined) return [];
    const mirror = await this.mirror();
    let findings = mirror.checkOwn(index, madeEntries(engine));
    if (findings.some(({ kind }) => kind === 'unexpected-own-entry')) {
      try {
        await this.#seeOwn();
        findings = mirror.checkOwn(index, madeEntries(engine));
      } catch (error) {
        // Not to be had now is no answer, and nothing is looked up in a log in doubt; a lie is one.
        if (!(error instanceof ClientError) || error.kind !== 'verification-failed') throw error;
        if (error.code === 'log-finding') throw error;
      }
    }
    if (findings.length > 0) {
      engine.change((change) => {
        for (const finding of findings) recordFinding(change, finding, { identityKey: own.identityKey });
      });
    }
    return findings;
  }

  async #seeOwn(): Promise<void> {
    const engine = this.#engine;
    const { logged, keys } = await resolveSelf(engine);
    if (logged !== undefined) await this.noteOwn(logged);
    if (noteListed(engine, keys.certificates)) engine.reactions.certificateLost();
  }

  /**
   * What the log has of ourselves, verified, is ours from then on. Called before the next statement is signed, too: later
   * it could not be told any more whose the one before was.
   */
  async noteOwn(account: ResolvedAccount): Promise<void> {
    const engine = this.#engine;
    const mirror = await this.mirror();
    const known = new Map(engine.store.log.ownEntries().map((entry) => [entry.version, entry]));
    const statementHash = engine.crypto.hash('sha256', account.statement.bytes);
    let strangers = 0;
    engine.change((change) => {
      for (const { entry, position } of mirror.entriesOf(account.index)) {
        const { version, commitment } = entry;
        // What came after is looked at by the next round.
        if (version > account.version) continue;
        const mine = known.get(version);
        const seen = { commitment, dueAtSize: position + 1 };
        if (mine?.seen !== undefined && equal(mine.seen.commitment, commitment)) {
          if (mine.seen.dueAtSize === NOT_IN_THIS_LOG) change.store.log.saveOwnEntry({ ...mine, seen });
          continue;
        }
        const isMine =
          mine?.statementHash !== undefined && (version < account.version || equal(mine.statementHash, statementHash));
        if (!isMine) strangers += 1;
        change.store.log.saveOwnEntry({
          version,
          statementHash: isMine ? mine.statementHash : undefined,
          seen,
        });
      }
      if (strangers === 0) return;
      change.emit({
        type: 'warning',
        code: 'account-changed',
        conversationId: undefined,
        text: 'another device of this account has changed its keys or devices; if that was not you, end this account',
      });
    });
  }

  /** Whether the log shows an entry of ours that we have not seen there yet, or none at all. */
  #isOwnUnseen(): boolean {
    const entries = this.#engine.store.log.ownEntries();
    return entries.length === 0 || entries.some(({ seen }) => seen === undefined || seen.dueAtSize === NOT_IN_THIS_LOG);
  }

  #isDue(): boolean {
    const engine = this.#engine;
    const { log } = engine.store;
    const head = log.head();
    if (head === undefined || log.witnessed().length > 0 || this.#isOwnUnseen()) return true;
    const age = engine.nowMs() - head.followedAtMs;
    return age < 0 || age >= FOLLOW_EVERY_MS;
  }

  #planNext(): void {
    this.#callOff?.();
    this.#callOff = this.#engine.later(() => this.look(), FOLLOW_EVERY_MS * (1 + this.#engine.uniform() / 4));
  }

  async #load(): Promise<LogMirror> {
    if (this.#mirror !== undefined) return this.#mirror;
    const mirror = (await this.#restore()) ?? new LogMirror(this.#engine.crypto, this.#pinned());
    this.#mirror = mirror;
    return mirror;
  }

  /**
   * The copy as stored, if there is one. A damaged one is fetched anew, as nothing in it is secret or only here; its head
   * stays what the log has to continue, like those that others were shown.
   */
  async #restore(): Promise<LogMirror | undefined> {
    const engine = this.#engine;
    const { crypto, store, ports } = engine;
    const head = store.log.head();
    if (head === undefined) return undefined;
    const stored = {
      checkpoint: head.checkpoint,
      entries: (position: number) => store.log.entries(position, RESTORE_PAGE),
    };
    try {
      const mirror = await restoreMirror(crypto, this.#pinned(), stored, this.pauses());
      if (mirror !== undefined) return mirror;
    } catch (error) {
      if (!(error instanceof LocalStateError) || error.code !== 'profile-damaged') throw error;
    }
    ports.log.warn('the copy of the log in this profile is damaged, and is fetched anew', { entries: head.size });
    engine.change(({ store: { log } }) => {
      const witnessed = log.witnessed();
      log.forgetCopy();
      const own = { checkpoint: head.checkpoint, channelId: EMPTY, seenAtMs: head.followedAtMs };
      for (const one of [...witnessed, own]) log.addWitnessed(one);
    });
    return undefined;
  }

  #pinned(): PinnedLog {
    const { log } = this;
    if (log === undefined) throw new ClientError('bug', 'bug', 'this server keeps no log');
    return log;
  }

  /** What an update led to, on disk. */
  #settle(mirror: LogMirror, followed: Followed): void {
    const engine = this.#engine;
    switch (followed.kind) {
      case 'current':
        this.#save(mirror, mirror.head, followed.from);
        engine.change((change) => {
          for (const finding of followed.findings) recordFinding(change, finding, {});
          const shrunk = this.#shrunk(mirror);
          if (shrunk !== undefined) recordFinding(change, shrunk, {});
        });
        this.#compareWitnessed(mirror);
        return;
      case 'finding': {
        const { finding } = followed;
        const other =
          finding.kind === 'split-view' ? finding.other : finding.kind === 'stale-head' ? finding.witnessed : undefined;
        const source = engine.store.log.witnessed().find(({ checkpoint }) => other && equal(checkpoint, other));
        engine.change((change) => {
          recordFinding(change, finding, source === undefined ? {} : contextOf(source));
          if (finding.kind === 'split-view' && source !== undefined)
            change.store.log.removeWitnessed(source.checkpoint);
        });
        // What was witnessed stays in memory otherwise, and stands in the way for ever.
        this.#mirror = undefined;
        return;
      }
      case 'too-large':
      case 'refused':
    }
  }

  #save(mirror: LogMirror, head: Checkpoint | undefined, from: number): void {
    const engine = this.#engine;
    if (head === undefined) return;
    const followedAtMs = engine.nowMs();
    const { log } = engine.store;
    if (equal(log.head()?.checkpoint ?? EMPTY, head.bytes)) {
      engine.change((change) => change.store.log.followed(followedAtMs));
      return;
    }
    const entries = mirror.entriesSince(from);
    engine.change((change) => {
      change.store.log.advance(from, entries, { checkpoint: head.bytes, size: head.size, followedAtMs });
    });
  }

  /** Compares what others were shown with our copy, as far as it goes. */
  #compareWitnessed(mirror: LogMirror): void {
    const engine = this.#engine;
    const log = this.#pinned();
    for (const witnessed of engine.store.log.witnessed()) {
      const { checkpoint } = witnessed;
      const opened = openCheckpoint(engine.crypto, checkpoint, log);
      const outcome = opened.kind === 'invalid' ? undefined : mirror.witness(opened.checkpoint);
      if (outcome?.kind === 'behind') continue;
      engine.change((change) => {
        change.store.log.removeWitnessed(checkpoint);
        if (outcome?.kind === 'finding') recordFinding(change, outcome.finding, contextOf(witnessed));
      });
    }
  }

  #remember({ index, version, statement }: ResolvedAccount): void {
    const engine = this.#engine;
    const { identityKey } = statement;
    const known = engine.store.log.account(identityKey);
    if (known !== undefined && known.version === version && equal(known.index, index)) return;
    engine.change((change) => {
      change.store.log.saveAccount({ identityKey, index, version, checkedAtMs: engine.nowMs() });
    });
  }

  /** A log that had claimed to be too large for a copy, and is not. */
  #shrunk({ head }: LogMirror): Finding | undefined {
    const opened = openCheckpoint(this.#engine.crypto, this.checkpoint, this.#pinned());
    if (head === undefined || opened.kind === 'invalid' || opened.checkpoint.size <= head.size) return undefined;
    return { kind: 'rollback', known: opened.checkpoint.bytes, offered: head.bytes };
  }

  /**
   * Without a copy, the server has to prove that the head of an answer continues the one we know. From then on it is the
   * one we know: it goes into our commits, so that those who see another log hear of it.
   */
  async #continues(checkpoint: Checkpoint): Promise<void> {
    const engine = this.#engine;
    const opened = openCheckpoint(engine.crypto, this.checkpoint, this.#pinned());
    const known = opened.kind === 'invalid' ? undefined : opened.checkpoint;
    if (known !== undefined) await this.#compareUnmirrored(known, checkpoint);
    if (known !== undefined && known.size >= checkpoint.size) return;
    engine.change((change) => change.store.settings.set(UNMIRRORED_KEY, encodeHex(checkpoint.bytes)));
  }

  async #compareUnmirrored(known: Checkpoint, checkpoint: Checkpoint): Promise<void> {
    const engine = this.#engine;
    const [first, second] = [known.size, checkpoint.size].toSorted((a, b) => a - b) as [number, number];
    const { proof } = await engine.server.call(methods.keys.getConsistencyProof, {
      first: BigInt(first),
      second: BigInt(second),
    });
    const outcome = compareCheckpoints(engine.crypto, known, checkpoint, proof);
    if (outcome.kind !== 'consistent') throw badLog('the server does not show that its log continues the one known');
  }
}

/** Where a head came from; the one of a copy that was damaged came in no conversation. */
function contextOf({ channelId }: { readonly channelId: Uint8Array }): FindingContext {
  return channelId.length === 0 ? {} : { channelId };
}

function madeEntries({ store }: Engine): readonly OwnEntry[] {
  return store.log.ownEntries().flatMap(({ version, seen }) => (seen === undefined ? [] : [{ version, ...seen }]));
}

function badLog(reason: string): ClientError {
  return new ClientError('verification-failed', 'bad-log', `the server’s log does not verify: ${reason}`, {
    hint: 'Try again; if it stays, the server may be faulty or lying: tell its operator.',
  });
}
