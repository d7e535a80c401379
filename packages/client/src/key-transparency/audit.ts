/**
 * An audit of the whole log (PROTOCOL section 7; THREATS 21): every entry is fetched anew and hashed, so that a change of an
 * old one shows, which following only the new ones would pass over.
 *
 *   entries 0 … head ─▶ root = the signed one? ─▶ our copy, and what others were shown, is part of it?
 *      └─▶ every account's versions in order ─▶ ourselves and everybody we know, resolved: the newest, vouched for
 */
import { decodeUtf8, encodeHex, equal } from '@quicprochat/crypto';
import { describeFinding, encodeLogEntry, type Finding, LogMirror, type PinnedLog } from '@quicprochat/core';
import { resolveSelf, resolveUser } from '../contacts.ts';
import type { Engine } from '../engine.ts';
import { conversationOf } from '../epoch.ts';
import { ClientError, toClientError } from '../errors.ts';
import type { StoredFinding } from '../store/index.ts';
import type { AuditedAccount, AuditFinding, AuditOptions, AuditReport } from '../types.ts';
import { nameOf } from '../views.ts';
import { unpauseSending } from '../watch-server.ts';
import { recordFinding } from './findings.ts';
import { followLog, type LogSource } from './follow-log.ts';

/** How often, and after how long, the log is looked at for a deletion that the server says has happened. */
const DENIED_LOOKS = 3;
const DENIED_WAIT_MS = 1_500;

/** @throws ClientError as `Client.audit` */
export async function audit(engine: Engine, { progress, accept }: AuditOptions): Promise<AuditReport> {
  const { transparency } = engine;
  const { log } = transparency;
  if (log === undefined) {
    throw new ClientError('refused', 'no-log', 'this server keeps no key-transparency log', {
      hint: 'Compare safety numbers with the people you talk to.',
    });
  }
  if (accept === true) await acceptFindings(engine);
  const { fresh, changedAt } = await mirrorAnew(engine, log, progress);
  const head = fresh?.head;
  return {
    log: log.origin,
    entries: fresh?.size,
    root: head && encodeHex(head.root),
    checkpoint: head && decodeUtf8(head.bytes),
    changedAt,
    accounts: fresh === undefined ? [] : await checkAccounts(engine),
    findings: engine.store.log.findings().map((finding) => findingView(engine, finding)),
  };
}

interface Mirrored {
  /** The log as the server hands it out now; undefined when it cannot be the one log it was. */
  readonly fresh: LogMirror | undefined;
  readonly changedAt: number | undefined;
}

async function mirrorAnew(engine: Engine, log: PinnedLog, progress: AuditOptions['progress']): Promise<Mirrored> {
  const { transparency } = engine;
  const known = await transparency.mirror();
  // It goes on meanwhile: what was known before the log was asked is what the log has to have.
  const { head: knownHead } = known;
  const fresh = new LogMirror(engine.crypto, log);
  const source = transparency.source();
  let changedAt: number | undefined;
  const compared: LogSource = {
    head: () => source.head(),
    entries: async (position) => {
      const page = await source.entries(position);
      changedAt ??= firstChange(known, position, page);
      return page;
    },
  };
  const followed = await followLog(engine.crypto, log, fresh, compared, {
    ...transparency.pauses(),
    ...(progress === undefined ? {} : { progress }),
  });
  const record = (finding: Finding): Mirrored => {
    engine.change((change) => recordFinding(change, finding, {}));
    return { fresh: undefined, changedAt };
  };
  switch (followed.kind) {
    case 'finding':
      return record(followed.finding);
    case 'refused':
      throw new ClientError('verification-failed', 'bad-log', `the server’s log does not verify: ${followed.reason}`, {
        hint: 'Try again; if it stays, the server may be faulty or lying: tell its operator.',
      });
    case 'too-large':
      throw new ClientError('refused', 'too-large', 'the server’s log has more entries than this program mirrors', {
        hint: 'Compare safety numbers with the people you talk to.',
      });
    case 'current':
      break;
  }
  if (knownHead !== undefined && fresh.head !== undefined) {
    if (fresh.size < knownHead.size) {
      return record({ kind: 'rollback', known: knownHead.bytes, offered: fresh.head.bytes });
    }
    const root = fresh.rootAt(knownHead.size);
    if (!equal(root, knownHead.root)) {
      return record({ kind: 'split-view', mine: fresh.head.bytes, other: knownHead.bytes, myRoot: root });
    }
    if (fresh.size < known.size) {
      const outcome = known.witness(fresh.head);
      if (outcome.kind === 'finding') return record(outcome.finding);
    }
  }
  engine.change((change) => {
    for (const finding of followed.findings) recordFinding(change, finding, {});
  });
  await transparency.adopt(fresh);
  // What others were shown may go further than the head we were given: then this asks for it.
  const { kind } = await transparency.follow();
  return { fresh: kind === 'finding' ? undefined : fresh, changedAt };
}

/** Where a page is not what was mirrored before; undefined when it is, as far as that went. */
function firstChange(known: LogMirror, position: number, page: readonly Uint8Array[]): number | undefined {
  const at = page.findIndex((entry, i) => {
    const before = known.entryAt(position + i);
    return before !== undefined && !equal(encodeLogEntry(before), entry);
  });
  return at < 0 ? undefined : position + at;
}

async function checkAccounts(engine: Engine): Promise<readonly AuditedAccount[]> {
  const { username, identityKey } = engine.self;
  const others = engine.store.contacts.all();
  const all = [{ username, identityKey, self: true }, ...others.map((one) => ({ ...one, self: false }))];
  const checked: AuditedAccount[] = [];
  let over: string | undefined;
  for (const account of all) {
    // Who is asked to be slower is not asked any more: the rest stays unchecked, and is said to be.
    const outcome =
      over === undefined ? await checkAccount(engine, account) : { outcome: 'unchecked' as const, reason: over };
    if (outcome.outcome === 'unchecked') over = outcome.reason;
    const version = engine.store.log.account(account.identityKey)?.version;
    checked.push({
      username: account.username,
      self: account.self,
      outcome: outcome.outcome,
      version: outcome.outcome === 'verified' ? version : undefined,
      reason: outcome.reason,
    });
  }
  return checked;
}

async function checkAccount(
  engine: Engine,
  {
    username,
    identityKey,
    self,
  }: { readonly username: string; readonly identityKey: Uint8Array; readonly self: boolean },
): Promise<Pick<AuditedAccount, 'outcome' | 'reason'>> {
  try {
    if (!self) {
      await resolveUser(engine, username);
      return { outcome: 'verified', reason: undefined };
    }
    await resolveSelf(engine);
    const [finding] = await engine.transparency.checkOwn();
    if (finding === undefined) return { outcome: 'verified', reason: undefined };
    return { outcome: 'failed', reason: describeFinding(finding) };
  } catch (error) {
    const failure = toClientError(error);
    switch (failure.code) {
      case 'unknown-user':
        return denied(engine, identityKey);
      case 'rate-limited':
        return { outcome: 'unchecked', reason: 'the server wants to be asked less often' };
      default:
        if (failure.kind !== 'verification-failed') throw failure;
        return { outcome: 'failed', reason: failure.message };
    }
  }
}

/** The server knows somebody no more. Its log has to say so too. */
async function denied(engine: Engine, identityKey: Uint8Array): Promise<Pick<AuditedAccount, 'outcome' | 'reason'>> {
  const { clock } = engine.ports;
  const index = engine.store.log.account(identityKey)?.index;
  for (let look = 1; ; look++) {
    const latest = index && (await engine.transparency.mirror()).latest(index);
    if (latest === undefined) return { outcome: 'unlisted', reason: 'the server does not know this account' };
    if (latest.entry.kind === 'deleted') return { outcome: 'unlisted', reason: 'the account was deleted' };
    if (look === DENIED_LOOKS) return { outcome: 'failed', reason: 'the server denies an account that its log has' };
    // The log is appended to once a second: what was deleted just now is in it soon.
    await new Promise<void>((resolve) => void clock.setTimer(resolve, DENIED_WAIT_MS));
    await engine.transparency.follow();
  }
}

/** The user has seen what was found so far, and goes on. */
function acceptFindings(engine: Engine): Promise<void> {
  return engine.transparency.settleFindings((change) => {
    const { conversations } = change.store;
    for (const { channelId } of conversations.all()) {
      // Who was refused on account of the log is looked up again, and refused again if there is another reason.
      const failed = conversations.memberChecks(channelId).filter(({ outcome }) => outcome === 'failed');
      for (const { identityKey, deviceId } of failed) conversations.deleteMemberCheck(channelId, identityKey, deviceId);
      if (failed.length > 0) change.after(() => engine.reactions.membersChanged(channelId));
      unpauseSending(change, conversationOf(engine, channelId), 'transparency');
    }
  });
}

function findingView(engine: Engine, finding: StoredFinding): AuditFinding {
  const { kind, summary, identityKey, channelId, foundAtMs, settledAtMs, evidence } = finding;
  return {
    kind,
    text: summary,
    username: identityKey && nameOf(engine, identityKey),
    conversationId: channelId && encodeHex(channelId),
    foundAtMs,
    accepted: settledAtMs !== undefined,
    evidence: JSON.parse(evidence) as unknown,
  };
}
