// Following a log whoever hands it out: honestly, slowly, or not at all (PROTOCOL section 7; THREATS 21).
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LogMirror } from '@quicprochat/core';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { MemoryLog, Person } from '../../../core/src/key-transparency/testing/memory-log.ts';
import { followLog, type LogSource, restoreMirror } from './follow-log.ts';

/** Everything below is tried on this log: its start and six people. */
function logOfSix(): MemoryLog {
  const log = new MemoryLog(nodeCrypto);
  for (const name of ['alice', 'bob', 'carol', 'dave', 'erin', 'frank']) new Person(nodeCrypto, name).publish(log);
  return log;
}

function honest(log: MemoryLog, page = 2): LogSource {
  return {
    head: async () => log.checkpointBytes(),
    entries: async (position) => log.entries.slice(position, position + page),
  };
}

const mirrorOf = (log: MemoryLog): LogMirror => new LogMirror(nodeCrypto, log.pinned);
const follow = (log: MemoryLog, mirror: LogMirror, source: LogSource) =>
  followLog(nodeCrypto, log.pinned, mirror, source);

test('a log is mirrored page by page, then only what is new', async () => {
  const log = logOfSix();
  const mirror = mirrorOf(log);
  const seen: [number, number][] = [];
  let pauses = 0;
  const first = await followLog(nodeCrypto, log.pinned, mirror, honest(log, 3), {
    progress: (entries, of) => seen.push([entries, of]),
    pause: async () => void (pauses += 1),
  });
  assert.deepEqual(first, { kind: 'current', from: 0, findings: [] });
  assert.deepEqual(seen, [
    [3, 7],
    [6, 7],
    [7, 7],
  ]);
  assert.equal(pauses, 2);
  new Person(nodeCrypto, 'grace').publish(log);
  const asked: number[] = [];
  const source = honest(log);
  const next = await follow(log, mirror, {
    ...source,
    entries: (position) => {
      asked.push(position);
      return source.entries(position);
    },
  });
  assert.deepEqual(next, { kind: 'current', from: 7, findings: [] });
  assert.deepEqual(asked, [7]);
  assert.deepEqual(mirror.head?.bytes, log.checkpointBytes());
});

test('the log may grow between the head and the pages', async () => {
  const log = logOfSix();
  const mirror = mirrorOf(log);
  const source = honest(log, 100);
  const outcome = await follow(log, mirror, {
    head: async () => {
      const head = await source.head();
      new Person(nodeCrypto, 'grace').publish(log);
      return head;
    },
    entries: source.entries,
  });
  assert.equal(outcome.kind, 'current');
  assert.equal(mirror.size, 7);
});

test('a changed entry is found; the mirror stays where it was', async () => {
  const log = logOfSix();
  const mirror = mirrorOf(log);
  const entries = log.entries.map((entry) => entry.slice());
  entries[3]![40]! ^= 1;
  const outcome = await follow(log, mirror, {
    head: async () => log.checkpointBytes(),
    entries: async (position) => entries.slice(position, position + 2),
  });
  assert.equal(outcome.kind === 'finding' && outcome.finding.kind, 'root-mismatch');
  assert.equal(mirror.size, 0);
});

test('a head that was on its way is asked for once more; a rollback is not believed twice', async () => {
  const log = logOfSix();
  const mirror = mirrorOf(log);
  await follow(log, mirror, honest(log));
  const late = [log.checkpointBytes(5), log.checkpointBytes()];
  const once = await follow(log, mirror, { head: async () => late.shift()!, entries: async () => [] });
  assert.equal(once.kind, 'current');
  const outcome = await follow(log, mirror, {
    head: async () => log.checkpointBytes(5),
    entries: async () => [],
  });
  assert.equal(outcome.kind === 'finding' && outcome.finding.kind, 'rollback');
  assert.equal(mirror.size, 7);
});

test('a head nobody has signed, and entries that do not come, are refused and prove nothing', async () => {
  const log = logOfSix();
  const other = new MemoryLog(nodeCrypto);
  const mirror = mirrorOf(log);
  const foreign = await follow(log, mirror, { ...honest(log), head: async () => other.checkpointBytes() });
  assert.equal(foreign.kind, 'refused');
  const withheld = await follow(log, mirror, { ...honest(log), entries: async () => [] });
  assert.deepEqual(withheld, {
    kind: 'refused',
    reason: 'the server withholds entries of a log whose head it has signed',
  });
  assert.equal((await follow(log, mirror, honest(log))).kind, 'current');
});

test('what the source throws goes through, and the next try starts where the mirror is', async () => {
  const log = logOfSix();
  const mirror = mirrorOf(log);
  const source = honest(log);
  const away: LogSource = {
    ...source,
    entries: async (position) => {
      if (position >= 4) throw new Error('the server is away');
      return source.entries(position);
    },
  };
  await assert.rejects(follow(log, mirror, away), /away/);
  assert.equal(mirror.size, 0);
  assert.equal((await follow(log, mirror, source)).kind, 'current');
});

test('a stored copy is restored, or not at all', async () => {
  const log = logOfSix();
  const stored = {
    checkpoint: log.checkpointBytes(),
    entries: (position: number) => log.entries.slice(position, position + 2),
  };
  const restored = await restoreMirror(nodeCrypto, log.pinned, stored);
  assert.equal(restored?.size, 7);
  const damaged = log.entries.map((entry) => entry.slice());
  damaged[6]![40]! ^= 1;
  const other = { ...stored, entries: (position: number) => damaged.slice(position, position + 2) };
  assert.equal(await restoreMirror(nodeCrypto, log.pinned, other), undefined);
  assert.equal(await restoreMirror(nodeCrypto, new MemoryLog(nodeCrypto).pinned, stored), undefined);
});
