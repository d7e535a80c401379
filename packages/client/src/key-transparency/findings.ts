/**
 * What the log was caught at, kept and shown (PROTOCOL sections 2 and 7; THREATS 21, 34). A finding never decides about a
 * commit: it is stored once with its evidence, told as a warning, and sending to those concerned pauses until the user
 * has decided. One about the log as a whole also stops first contacts: no key that such a log vouches for is believed.
 */
import { decodeUtf8, EMPTY, encodeHex, encodeUtf8, equal } from '@quicprochat/crypto';
import { describeFinding, type Finding, parseCheckpoint } from '@quicprochat/core';
import { roster } from '@quicprochat/mls';
import type { Change, Engine } from '../engine.ts';
import { ClientError } from '../errors.ts';
import { addressOf } from '../profile/member.ts';
import type { StoredConversation, StoredFinding } from '../store/index.ts';
import { pauseSending } from '../watch-server.ts';

/** What made us look. */
export interface FindingContext {
  /** The account it is about, where we know whose it is. */
  readonly identityKey?: Uint8Array | undefined;
  /** The conversation that brought it to light. */
  readonly channelId?: Uint8Array | undefined;
}

/** Open findings of one kind about one account, or about none we know. A log that lies more often has been told of enough. */
const ALIKE_MAX = 32;

/** Stores a finding and what follows from it, unless it is known. */
export function recordFinding(change: Change, finding: Finding, context: FindingContext): void {
  const { store, engine } = change;
  const summary = describeFinding(finding);
  const evidence = encodeEvidence(finding);
  const identityKey = context.identityKey ?? accountOf(engine, finding);
  if (hasEnough(engine, finding.kind, identityKey)) return;
  const key = findingKey(engine, finding);
  const foundAtMs = engine.nowMs();
  const isNew = store.log.addFinding({
    key,
    kind: finding.kind,
    summary,
    identityKey,
    channelId: context.channelId,
    evidence,
    foundAtMs,
    settledAtMs: undefined,
  });
  // An account's entries stay as they are, and were accepted; a log that does the same to everybody again has lied again.
  if (!isNew && !(isLogWide(finding) && store.log.reopenFinding(key, evidence, foundAtMs))) return;
  const concerned = concernedBy(engine, identityKey, context.channelId);
  const text = asClause(summary);
  for (const conversation of concerned) {
    pauseSending(change, conversation, 'transparency', 'key-transparency', text, encodeUtf8(evidence));
  }
  if (concerned.length > 0) return;
  change.emit({ type: 'warning', code: 'key-transparency', conversationId: undefined, text });
}

function hasEnough({ store }: Engine, kind: string, identityKey: Uint8Array | undefined): boolean {
  const alike = store.log
    .findings()
    .filter(
      (one) =>
        one.kind === kind && one.settledAtMs === undefined && equal(one.identityKey ?? EMPTY, identityKey ?? EMPTY),
    );
  return alike.length >= ALIKE_MAX;
}

/** While the log is known to have lied as a whole, nothing it vouches for is believed. @throws ClientError `log-finding` */
export function refuseWhileDoubted(engine: Engine): void {
  const open = openLogFinding(engine);
  if (open !== undefined) throw doubted(asClause(open.summary));
}

/** What is said of an answer that led to a finding; about a single account the other accounts are not concerned. */
export function findingError(finding: Finding, username: string): ClientError {
  const clause = asClause(describeFinding(finding));
  return isLogWide(finding) ? doubted(clause) : badProof('bad-log-proof', username, clause);
}

/** An answer to Resolve that the log does not vouch for. */
export function badProof(code: 'no-log-proof' | 'bad-log-proof', username: string, reason: string): ClientError {
  return new ClientError('verification-failed', code, `the keys of ${username} are refused: ${reason}`, {
    hint: 'Nothing was sent. The server may be faulty or lying; see qpc audit, and tell its operator.',
  });
}

function doubted(clause: string): ClientError {
  return new ClientError('verification-failed', 'log-finding', clause, {
    hint: 'Nothing was sent. See what was found with qpc audit, and ask the others over another channel.',
  });
}

/** A finding about the log as a whole that the user has not accepted. */
export function openLogFinding(engine: Engine): StoredFinding | undefined {
  return engine.store.log.findings().find((finding) => finding.settledAtMs === undefined && isLogWide(finding));
}

function isLogWide({ kind }: { readonly kind: string }): boolean {
  return LOG_WIDE.has(kind);
}

const LOG_WIDE: ReadonlySet<string> = new Set<Finding['kind']>([
  'split-view',
  'rollback',
  'stale-head',
  'root-mismatch',
  'foreign-log',
  'malformed-entry',
]);

/** The same thing found again, with a newer head beside it, is the same finding. */
function findingKey({ crypto }: Engine, finding: Finding): string {
  const hash = (bytes: Uint8Array): string => encodeHex(crypto.hash('sha256', bytes)).slice(0, 32);
  const { kind } = finding;
  switch (kind) {
    case 'split-view':
      return `${kind}/${hash(finding.other)}`;
    case 'rollback':
      return `${kind}/${hash(finding.known)}`;
    case 'stale-head':
      return `${kind}/${hash(finding.witnessed)}`;
    case 'root-mismatch':
    case 'foreign-log':
      return kind;
    case 'stale-resolve':
      return `${kind}/${hash(finding.index)}/${finding.resolved}`;
    case 'unvouched-history':
      return `${kind}/${hash(finding.index)}/${finding.position}`;
    case 'own-entry-missing':
      return `${kind}/${finding.version}`;
    default:
      return `${kind}/${finding.position}`;
  }
}

/** The account of ours or of somebody we know that a finding names by its index. */
function accountOf(engine: Engine, finding: Finding): Uint8Array | undefined {
  if (finding.kind === 'own-entry-missing' || finding.kind === 'unexpected-own-entry') {
    return engine.account?.identityKey;
  }
  const index = indexOf(finding);
  return index && engine.store.log.accountAt(index)?.identityKey;
}

function indexOf(finding: Finding): Uint8Array | undefined {
  if ('index' in finding) return finding.index;
  return 'entry' in finding && !(finding.entry instanceof Uint8Array) ? finding.entry.index : undefined;
}

/** About oneself: everybody one talks with. About somebody else: where they are a member. Else where it came to light. */
function concernedBy(
  engine: Engine,
  identityKey: Uint8Array | undefined,
  channelId: Uint8Array | undefined,
): readonly StoredConversation[] {
  const isOwn = identityKey !== undefined && equal(identityKey, engine.self.identityKey);
  return engine.store.conversations.all().filter((conversation) => {
    if (conversation.groupId === undefined || conversation.state !== 'active') return false;
    if (isOwn || (channelId !== undefined && equal(channelId, conversation.channelId))) return true;
    return identityKey !== undefined && isMember(engine, conversation.channelId, identityKey);
  });
}

function isMember(engine: Engine, channelId: Uint8Array, identityKey: Uint8Array): boolean {
  const state = engine.group(channelId);
  if (state === undefined) return false;
  return roster(state).some((member) => {
    const address = addressOf(member);
    return address !== undefined && equal(address.identityKey, identityKey);
  });
}

/** The finding as JSON: signed notes as the text they are, all other bytes in hex. */
function encodeEvidence(finding: Finding): string {
  return JSON.stringify(readable(finding));
}

function readable(value: unknown): unknown {
  if (value instanceof Uint8Array) return parseCheckpoint(value) === undefined ? encodeHex(value) : decodeUtf8(value);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, readable(part)]));
}

/** Our errors are parts of one line, descriptions are sentences. */
function asClause(sentence: string): string {
  return (sentence.charAt(0).toLowerCase() + sentence.slice(1)).replace(/\.$/, '');
}
