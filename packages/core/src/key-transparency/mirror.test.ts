import assert from 'node:assert/strict';
import { test } from 'node:test';
import { concat, encodeHex } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { openCheckpoint } from './checkpoint.ts';
import type { Checkpoint } from './checkpoint.ts';
import { encodeLogEntry, HISTORY_START, LOG_ENTRY_BYTES, logStart } from './entry.ts';
import type { LogEntry } from './entry.ts';
import { describeFinding, LogMirror, MIRROR_ENTRIES_MAX } from './mirror.ts';
import type { AppendOutcome, Finding } from './mirror.ts';
import { verifyResolve } from './proof.ts';
import type { KeyTransparencyProofFields, ResolvedAccount } from './proof.ts';
import { DAY, MemoryLog, Person } from './testing/memory-log.ts';
import { randomFrom } from './testing/random.ts';

/** Brings a mirror to a head, from what a server hands out. */
function follow(mirror: LogMirror, head: Checkpoint, entries: readonly Uint8Array[], pageSize = 1_000): AppendOutcome {
  const start = mirror.update(head);
  if (start.kind === 'current') return { kind: 'complete', findings: [] };
  if (start.kind !== 'behind') {
    assert.ok(start.kind === 'finding');
    return start;
  }
  for (;;) {
    const next: number = start.update.next;
    const outcome = start.update.append(entries.slice(next, next + pageSize));
    if (outcome.kind !== 'more') return outcome;
    assert.ok(outcome.next > next, 'the server handed out enough');
  }
}

const sync = (mirror: LogMirror, log: MemoryLog) => follow(mirror, log.checkpoint(), log.entries);

function findingOf(outcome: { readonly kind: string; readonly finding?: Finding }): Finding {
  assert.equal(outcome.kind, 'finding');
  assert.match(describeFinding(outcome.finding!), /^[A-Z].*\.$/);
  return outcome.finding!;
}

function resolve(
  log: MemoryLog,
  username: string,
  fields: KeyTransparencyProofFields = log.resolve(username),
): ResolvedAccount {
  const outcome = verifyResolve(crypto, log.pinned, username, fields);
  assert.ok(outcome.kind === 'verified', outcome.kind === 'refused' ? outcome.detail : '');
  return outcome.account;
}

function world() {
  const log = new MemoryLog(crypto);
  const alice = new Person(crypto, 'alice');
  const bob = new Person(crypto, 'bob');
  alice.publish(log);
  bob.publish(log);
  alice.publish(log);
  const mirror = new LogMirror(crypto, log.pinned);
  assert.deepEqual(sync(mirror, log), { kind: 'complete', findings: [] });
  return { log, alice, bob, mirror };
}

/** Evidence is worth keeping only if others can check it. */
function assertSigned(log: MemoryLog, ...notes: readonly Uint8Array[]) {
  for (const note of notes) assert.equal(openCheckpoint(crypto, note, log.pinned).kind, 'verified');
}

test('a mirror follows an honest log and knows the newest version of everyone', () => {
  const { log, alice, bob, mirror } = world();
  bob.publish(log);
  alice.publish(log);
  const asked = mirror.size;
  const resolved = resolve(log, 'alice');
  assert.deepEqual(mirror.checkResolved(resolved, asked), { kind: 'behind', size: log.size });
  assert.deepEqual(sync(mirror, log), { kind: 'complete', findings: [] });
  assert.deepEqual(mirror.checkResolved(resolved, asked), { kind: 'current' });
  assert.equal(mirror.latest(log.indexOf('alice'))?.entry.version, 2);
  assert.equal(mirror.latest(log.indexOf('carol')), undefined);
  assert.deepEqual(mirror.checkOwn(log.indexOf('alice'), alice.made), []);
  for (let size = 0; size <= log.size; size++) {
    if (size > 0) assert.deepEqual(mirror.rootAt(size), log.checkpoint(size).root);
  }
  assert.equal(mirror.update(log.checkpoint()).kind, 'current');
  alice.publish(log);
  sync(mirror, log);
  assert.deepEqual(mirror.checkResolved(resolved, asked), { kind: 'superseded' });
});

test('an account that is deleted stays so', () => {
  const { log, alice, mirror } = world();
  alice.publish(log, 'deleted');
  sync(mirror, log);
  assert.equal(mirror.latest(log.indexOf('alice'))?.entry.kind, 'deleted');
  const resolved = resolve(log, 'alice');
  assert.equal(resolved.statement.kind, 'deleted');
  assert.deepEqual(mirror.checkResolved(resolved, mirror.size), { kind: 'current' });
  alice.publish(log);
  const outcome = sync(mirror, log);
  assert.ok(outcome.kind === 'complete');
  assert.equal(outcome.findings[0]?.kind, 'after-deletion');
});

test('THREATS 21, split view: what a contact has seen does not fit, in the past, the present and the future', () => {
  // Bob is shown a log in which Alice has another key.
  const { log, mirror } = world();
  const lying = log.fork();
  const mallory = new Person(crypto, 'alice');
  lying.publish('alice', 'keys', 2, mallory.sign('keys', 2, crypto.random(32)));
  log.publish('carol', 'keys', 0, new Person(crypto, 'carol').sign());
  sync(mirror, log);

  const present = findingOf(mirror.witness(lying.checkpoint()));
  assert.ok(present.kind === 'split-view');
  assertSigned(log, present.mine, present.other);

  new Person(crypto, 'dave').publish(log);
  sync(mirror, log);
  const past = findingOf(mirror.witness(lying.checkpoint()));
  assert.equal(past.kind, 'split-view');

  for (let i = 0; i < 3; i++) lying.publish('alice', 'keys', 3 + i, mallory.sign('keys', 3 + i, crypto.random(32)));
  assert.deepEqual(mirror.witness(lying.checkpoint()), { kind: 'behind', size: lying.size });
  for (let i = 0; i < 3; i++) new Person(crypto, `person-${i}`).publish(log);
  const before = mirror.size;
  const future = findingOf(sync(mirror, log));
  assert.ok(future.kind === 'split-view');
  assertSigned(log, future.mine, future.other);
  assert.equal(mirror.size, before, 'the mirror stays where it was');
  assert.equal(mirror.latest(log.indexOf('person-0')), undefined);
  assert.deepEqual(mirror.rootAt(before), log.checkpoint(before).root);
});

test('THREATS 21, split view: two checkpoints of one size beyond the mirror', () => {
  const { log, mirror } = world();
  const lying = log.fork();
  new Person(crypto, 'carol').publish(log);
  new Person(crypto, 'carol').publish(lying);
  assert.equal(mirror.witness(log.checkpoint()).kind, 'behind');
  const finding = findingOf(mirror.witness(lying.checkpoint()));
  assert.ok(finding.kind === 'split-view');
  assertSigned(log, finding.mine, finding.other);
  assert.equal(mirror.witness(log.checkpoint()).kind, 'behind');
});

test('THREATS 21, split view: a larger honest checkpoint does not make a lying one forgotten', () => {
  const { log, mirror } = world();
  const lying = log.fork();
  new Person(crypto, 'mallory').publish(lying);
  for (let i = 0; i < 40; i++) new Person(crypto, `person-${i}`).publish(log);
  assert.equal(mirror.witness(lying.checkpoint()).kind, 'behind');
  for (let size = lying.size + 1; size <= log.size; size++) {
    assert.equal(mirror.witness(log.checkpoint(size)).kind, 'behind');
  }
  assert.equal(mirror.state().witnessed.length, 32);
  assert.equal(findingOf(mirror.update(log.checkpoint(log.size - 1))).kind, 'stale-head');
  const restored = LogMirror.restore(crypto, log.pinned, mirror.state())!;
  for (const one of [mirror, restored]) {
    const finding = findingOf(sync(one, log));
    assert.ok(finding.kind === 'split-view');
    assert.deepEqual(finding.other, lying.checkpointBytes());
  }
});

test('a log of nothing has one root, and a checkpoint that says otherwise is evidence by itself', () => {
  const { log } = world();
  const mirror = new LogMirror(crypto, log.pinned);
  const nothing = { ...log.checkpoint(), size: 0, root: crypto.hash('sha256', new Uint8Array(0)) } as Checkpoint;
  assert.deepEqual(mirror.witness(nothing), { kind: 'consistent' });
  assert.deepEqual(mirror.update(nothing), { kind: 'current' });
  const wrong = { ...nothing, root: crypto.random(32) } as Checkpoint;
  assert.equal(findingOf(new LogMirror(crypto, log.pinned).witness(wrong)).kind, 'root-mismatch');
  assert.equal(findingOf(mirror.update(wrong)).kind, 'split-view');
  assert.equal(sync(mirror, log).kind, 'complete');
});

test('checkpoints of another log are a mistake of the caller, not evidence', () => {
  const { log, mirror } = world();
  const other = { ...log.checkpoint(), origin: 'elsewhere' } as Checkpoint;
  assert.throws(() => mirror.witness(other), { name: 'Misuse' });
  assert.throws(() => mirror.update(other), { name: 'Misuse' });
});

test('THREATS 27: a flood of entries for one index costs no more than any others, and every account stays marked', () => {
  const log = new MemoryLog(crypto);
  const index = crypto.random(32);
  const entry: LogEntry = { kind: 'keys', index, version: 0, commitment: crypto.random(32), day: DAY };
  for (let i = 0; i < 5_000; i++) log.appendEntry(entry);
  const carol = new Person(crypto, 'carol');
  carol.publish(log);
  log.publish('carol', 'keys', 0, carol.sign('keys', 0, HISTORY_START));
  const mirror = new LogMirror(crypto, log.pinned);
  const outcome = sync(mirror, log);
  assert.ok(outcome.kind === 'complete');
  assert.equal(outcome.findings.length, 1_000);
  assert.equal(mirror.indexFindings.length, 1_000);
  assert.equal(mirror.checkOwn(index, []).length, 1_000);
  assert.equal(findingOf(mirror.checkResolved(resolve(log, 'carol'), mirror.size)).kind, 'version-twice');
});

test('THREATS 21, split view: a resolve under another view, and a head that rewrites the past', () => {
  const { log, mirror } = world();
  const lying = log.fork();
  const mallory = new Person(crypto, 'alice');
  lying.publish('alice', 'keys', 2, mallory.sign('keys', 2, crypto.random(32)));
  new Person(crypto, 'carol').publish(log);
  sync(mirror, log);
  assert.equal(findingOf(mirror.checkResolved(resolve(lying, 'alice'), mirror.size)).kind, 'split-view');
  assert.equal(findingOf(mirror.update(lying.checkpoint())).kind, 'split-view');
  new Person(crypto, 'dave').publish(lying);
  const finding = findingOf(sync(mirror, lying));
  assert.ok(finding.kind === 'root-mismatch');
  assertSigned(log, finding.head);
});

test('THREATS 21, rollback: a head smaller than one known', () => {
  const { log, bob, mirror } = world();
  const old = log.checkpoint();
  bob.publish(log);
  sync(mirror, log);
  const finding = findingOf(mirror.update(old));
  assert.ok(finding.kind === 'rollback');
  assertSigned(log, finding.known, finding.offered);
  assert.equal(mirror.size, log.size);
});

test('THREATS 21, rollback: an old version of an account that the same log has replaced', () => {
  const { log, mirror } = world();
  const old = resolve(log, 'alice', log.resolve('alice', 0));
  const finding = findingOf(mirror.checkResolved(old, mirror.size));
  assert.ok(finding.kind === 'stale-resolve');
  assert.equal(finding.newest, 3);
  assertSigned(log, finding.head);
});

test('THREATS 21, stale head: a client kept in the past learns it from a contact', () => {
  const { log, bob, mirror } = world();
  const frozen = log.checkpoint();
  bob.publish(log);
  assert.equal(mirror.witness(log.checkpoint()).kind, 'behind');
  const finding = findingOf(mirror.update(frozen));
  assert.ok(finding.kind === 'stale-head');
  assertSigned(log, finding.witnessed, finding.offered);
  assert.equal(mirror.state().witnessed.length, 1);
  assert.equal(sync(mirror, log).kind, 'complete');
  assert.equal(mirror.state().witnessed.length, 0);
});

test('THREATS 21, stale head: a resolve under a checkpoint older than what was known when asking', () => {
  const { log, bob, mirror } = world();
  const size = log.size;
  bob.publish(log);
  sync(mirror, log);
  const stale = resolve(log, 'bob', log.resolve('bob', 0, size));
  const finding = findingOf(mirror.checkResolved(stale, mirror.size));
  assert.ok(finding.kind === 'stale-head');
  assertSigned(log, finding.witnessed, finding.offered);
});

test('THREATS 21, omitted entry: pages that leave one out, put one in or change one', () => {
  const { log, bob } = world();
  bob.publish(log);
  const omitted = log.entries.toSpliced(2, 1);
  const added = log.entries.toSpliced(2, 0, log.entries[1]!);
  const changed = log.entries.with(2, log.entries[2]!.with(40, log.entries[2]![40]! ^ 1));
  const swapped = log.entries.with(1, log.entries[2]!).with(2, log.entries[1]!);
  for (const entries of [[...omitted, omitted.at(-1)!], added, changed, swapped]) {
    const mirror = new LogMirror(crypto, log.pinned);
    const finding = findingOf(follow(mirror, log.checkpoint(), entries, 2));
    assert.ok(finding.kind === 'root-mismatch');
    assert.equal(mirror.size, 0);
    assertSigned(log, finding.head);
    assert.notDeepEqual(finding.computedRoot, log.checkpoint().root);
  }
});

test('THREATS 21, omitted entry: one whole log without it, shown to its owner or to others', () => {
  const { log, alice } = world();
  const lying = log.without(3);
  const mirror = new LogMirror(crypto, log.pinned);
  assert.equal(sync(mirror, lying).kind, 'complete');
  // It is not due yet in so small a log, but it is when the log has grown to where Alice was told it stands.
  assert.deepEqual(mirror.checkOwn(log.indexOf('alice'), alice.made), []);
  new Person(crypto, 'carol').publish(lying);
  sync(mirror, lying);
  const [finding] = mirror.checkOwn(log.indexOf('alice'), alice.made);
  assert.ok(finding?.kind === 'own-entry-missing');
  assert.equal(finding.version, 1);
  assertSigned(log, finding.head);
  // Others see it by the checkpoint that she puts into her commits.
  assert.equal(findingOf(mirror.witness(log.checkpoint())).kind, 'split-view');
});

test('an entry of my own that I did not make', () => {
  const { log, alice, mirror } = world();
  const mallory = new Person(crypto, 'alice');
  const position = log.publish('alice', 'keys', 2, mallory.sign('keys', 2, crypto.random(32)));
  assert.deepEqual(sync(mirror, log), { kind: 'complete', findings: [] });
  const [finding] = mirror.checkOwn(log.indexOf('alice'), alice.made);
  assert.ok(finding?.kind === 'unexpected-own-entry');
  assert.equal(finding.position, position);
});

test("an entry that the account's own key does not vouch for is seen by every contact", () => {
  const { log, alice, mirror } = world();
  const mallory = new Person(crypto, 'alice');
  log.publish('alice', 'keys', 2, mallory.sign('keys', 2, crypto.random(32)));
  // Alice, kept in the dark about it, or a server that counts on nobody looking back.
  log.publish('alice', 'keys', 3, alice.sign('keys', 3));
  sync(mirror, log);
  const finding = findingOf(mirror.checkResolved(resolve(log, 'alice'), mirror.size));
  assert.ok(finding.kind === 'unvouched-history');
  assert.equal(finding.position, 5);
});

test('a version twice, a version skipped, a second start: found, recorded, and such an account never passes', () => {
  const carol = new Person(crypto, 'carol');
  const cases: [string, (log: MemoryLog) => void][] = [
    ['version-twice', (log) => log.publish('carol', 'keys', 0, carol.sign('keys', 0))],
    ['version-skipped', (log) => log.publish('carol', 'keys', 2, carol.sign('keys', 2, crypto.random(32)))],
    ['second-start', (log) => log.appendEntry(logStart(crypto, log.pinned, DAY))],
  ];
  for (const [kind, attack] of cases) {
    const { log, mirror } = world();
    log.publish('carol', 'keys', 0, carol.sign('keys', 0));
    attack(log);
    const outcome = sync(mirror, log);
    assert.ok(outcome.kind === 'complete');
    assert.equal(outcome.findings.length, 1);
    assert.equal(outcome.findings[0]!.kind, kind);
    assert.equal(outcome.findings[0]!.position, log.size - 1);
    assert.deepEqual(mirror.indexFindings, outcome.findings);
    if (kind !== 'second-start') {
      assert.equal(findingOf(mirror.checkResolved(resolve(log, 'carol'), mirror.size)).kind, kind);
    }
    assert.deepEqual(mirror.checkResolved(resolve(log, 'alice'), mirror.size), { kind: 'current' });
    // It stays marked when the account goes on in good order.
    const next = mirror.latest(log.indexOf('carol'))!.entry.version + 1;
    log.publish('carol', 'keys', next, carol.sign('keys', next, crypto.random(32)));
    assert.deepEqual(sync(mirror, log), { kind: 'complete', findings: [] });
    if (kind !== 'second-start') {
      assert.equal(findingOf(mirror.checkResolved(resolve(log, 'carol'), mirror.size)).kind, kind);
    }
    const restored = LogMirror.restore(crypto, log.pinned, mirror.state());
    assert.deepEqual(restored?.indexFindings, mirror.indexFindings);
  }
});

test('a log of another VRF key, of another origin, without a start, or with bytes that are no entry', () => {
  const { log } = world();
  const wrongKey = new LogMirror(crypto, { ...log.pinned, vrfKey: new MemoryLog(crypto).pinned.vrfKey });
  assert.equal(findingOf(sync(wrongKey, log)).kind, 'foreign-log');
  const headless = log.without(0);
  assert.equal(findingOf(sync(new LogMirror(crypto, log.pinned), headless)).kind, 'foreign-log');
  for (const bytes of [new Uint8Array(0), new Uint8Array(72), new Uint8Array(LOG_ENTRY_BYTES).fill(9)]) {
    const odd = log.fork();
    odd.appendBytes(bytes);
    const mirror = new LogMirror(crypto, log.pinned);
    const finding = findingOf(sync(mirror, odd));
    assert.ok(finding.kind === 'malformed-entry');
    assert.equal(finding.position, 4);
    assert.equal(mirror.size, 0);
  }
});

test('an update is all or nothing, ignores what lies beyond its head, and never runs twice', () => {
  const { log, bob, mirror } = world();
  const asked = log.checkpoint();
  bob.publish(log);
  bob.publish(log);
  const fresh = new LogMirror(crypto, log.pinned);
  const dropped = fresh.update(asked);
  assert.ok(dropped.kind === 'behind');
  assert.deepEqual(dropped.update.append(log.entries.slice(0, 2)), { kind: 'more', next: 2 });
  assert.equal(fresh.size, 0);
  assert.deepEqual(follow(fresh, asked, log.entries), { kind: 'complete', findings: [] });
  assert.equal(fresh.size, asked.size);
  assert.throws(() => dropped.update.append(log.entries.slice(2)), { name: 'Misuse' });

  const start = mirror.update(log.checkpoint());
  assert.ok(start.kind === 'behind');
  assert.deepEqual(start.update.append([]), { kind: 'more', next: start.update.next });
  assert.equal(start.update.append(log.entries.slice(start.update.next)).kind, 'complete');
  assert.throws(() => start.update.append([]), { name: 'Misuse' });
  assert.throws(() => mirror.rootAt(mirror.size + 1), { name: 'Misuse' });
});

test('a head that claims more entries than a client keeps is not followed', () => {
  const { log, mirror } = world();
  const huge = { ...log.checkpoint(), size: MIRROR_ENTRIES_MAX + 1 } as Checkpoint;
  assert.deepEqual(mirror.update(huge), { kind: 'too-large', size: MIRROR_ENTRIES_MAX + 1 });
});

test('what is stored is restored, and damage of it is noticed', () => {
  const { log, bob, mirror } = world();
  const first = mirror.state();
  assert.equal(first.entries.length, 4 * LOG_ENTRY_BYTES);
  bob.publish(log);
  mirror.witness(log.checkpoint());
  const restored = LogMirror.restore(crypto, log.pinned, mirror.state());
  assert.deepEqual(restored?.state(), mirror.state());
  // Rows of entries, as they were added, are the same as one piece.
  sync(mirror, log);
  assert.deepEqual(concat(first.entries, mirror.entriesSince(4)), mirror.state().entries);
  assert.equal(findingOf(restored!.update(log.checkpoint(4))).kind, 'stale-head');

  const { pinned } = log;
  const state = mirror.state();
  const empty = new Uint8Array(0);
  assert.equal(LogMirror.restore(crypto, pinned, { head: empty, witnessed: [], entries: empty })?.size, 0);
  const damaged = [
    { ...state, head: empty },
    { ...state, head: state.head.with(5, 0x41) },
    { ...state, entries: state.entries.with(100, state.entries[100]! ^ 1) },
    { ...state, entries: state.entries.subarray(LOG_ENTRY_BYTES) },
    { ...state, entries: empty },
    { ...state, witnessed: [new Uint8Array(3)] },
  ];
  for (const one of damaged) assert.equal(LogMirror.restore(crypto, pinned, one), undefined);
  assert.equal(LogMirror.restore(crypto, { ...pinned, origin: 'elsewhere' }, state), undefined);
});

test('random logs in random pages: the mirror knows what a walk over all entries knows', () => {
  const { next, seed } = randomFrom();
  for (let round = 0; round < 20; round++) {
    const at = `seed ${seed}, round ${round}`;
    const log = new MemoryLog(crypto);
    const indexes = Array.from({ length: 1 + next(8) }, () => crypto.random(32));
    let mirror = new LogMirror(crypto, log.pinned);
    const all: LogEntry[] = [];
    const add = () => {
      const kind = next(12) === 0 ? ('deleted' as const) : ('keys' as const);
      const index = indexes[next(indexes.length)]!;
      const honest = all.filter((one) => encodeHex(one.index) === encodeHex(index)).length;
      const version = next(10) === 0 ? next(5) : honest;
      const entry: LogEntry = { kind, index, version, commitment: crypto.random(32), day: DAY };
      log.appendEntry(entry);
      all.push(entry);
    };
    for (let step = 0; step < 12; step++) {
      for (let i = next(9); i > 0; i--) add();
      if (next(3) === 0) mirror.witness(log.checkpoint(1 + next(log.size)));
      assert.equal(follow(mirror, log.checkpoint(), log.entries, 1 + next(7)).kind, 'complete', at);
      if (next(3) === 0) mirror = LogMirror.restore(crypto, log.pinned, mirror.state())!;
    }
    assert.deepEqual(mirror.rootAt(mirror.size), log.checkpoint().root, at);

    // Position 0 is the start.
    let violations = 0;
    for (const index of indexes) {
      let versionMax = -1;
      let deleted = false;
      let newest: LogEntry | undefined;
      for (const entry of all.filter((one) => encodeHex(one.index) === encodeHex(index))) {
        if (deleted || entry.version !== versionMax + 1) violations++;
        versionMax = Math.max(versionMax, entry.version);
        deleted ||= entry.kind === 'deleted';
        newest = entry;
      }
      assert.deepEqual(mirror.latest(index)?.entry, newest, at);
    }
    assert.equal(mirror.indexFindings.length, violations, at);

    const size = 1 + next(log.size);
    const position = next(log.size);
    const entry = log.entries[position]!;
    const bent = log.entries.with(position, entry.with(37 + next(32), entry[37]! ^ (1 + next(255))));
    const victim = new LogMirror(crypto, log.pinned);
    const outcome = follow(victim, log.checkpoint(), bent, size);
    const same = encodeHex(bent[position]!) === encodeHex(entry);
    assert.equal(outcome.kind, same ? 'complete' : 'finding', at);
    assert.deepEqual(mirror.entryAt(mirror.size), undefined, at);
    assert.deepEqual(encodeLogEntry(mirror.entryAt(position)!), entry, at);
  }
});
