// The log against crashes, a tampering operator and restored backups: what a client's mirror says about each.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import { compareCheckpoints, LogMirror, openCheckpoint } from '@quicprochat/core';
import type { AppendOutcome, Checkpoint, Finding, UpdateStart } from '@quicprochat/core';
import { decodeHex, encodeHex } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import type { ServerClock } from './context.ts';
import type { LogSecrets } from './key-transparency.ts';
import { StartupError } from './startup-error.ts';
import { openDatabase } from './store/sqlite-database.node.ts';
import { LogOnDisk, newLogSecrets } from './testing/log-on-disk.node.ts';

let folder: string;
let secrets: LogSecrets;
before(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'qpc-log-'));
  secrets = await newLogSecrets();
});
after(() => rmSync(folder, { recursive: true, force: true }));
let files = 0;
const newPath = () => path.join(folder, `${++files}.db`);

/** Runs with the log in this file, and closes it. */
async function withLog<T>(file: string, use: (log: LogOnDisk) => Promise<T>, keys = secrets): Promise<T> {
  const log = await LogOnDisk.open(file, keys);
  try {
    return await use(log);
  } finally {
    await log.close();
  }
}

function headOf({ keyTransparency }: LogOnDisk, note = keyTransparency.checkpoint): Checkpoint {
  const outcome = openCheckpoint(crypto, note, keyTransparency.pinned);
  assert.ok(outcome.kind === 'verified');
  return outcome.checkpoint;
}

const newMirror = ({ keyTransparency }: LogOnDisk) => new LogMirror(crypto, keyTransparency.pinned);

/** Follows the log to the head it offers. */
async function follow(mirror: LogMirror, log: LogOnDisk): Promise<UpdateStart | AppendOutcome> {
  const start = mirror.update(headOf(log));
  return start.kind === 'behind' ? start.update.append(await log.entries(start.update.next)) : start;
}

function findingOf(outcome: { kind: string; finding?: Finding }): Finding['kind'] | undefined {
  return outcome.finding?.kind;
}

/** Changes one row of the file behind the server's back. */
function alter(file: string, sql: string, ...parameters: unknown[]): void {
  const db = openDatabase({ path: file, key: undefined }, { cacheKiB: 100 });
  assert.equal(db.prepare(sql).run(...parameters).changes, 1);
  db.close();
}

async function refusesToStart(file: string, message: RegExp, keys = secrets): Promise<void> {
  await assert.rejects(LogOnDisk.open(file, keys), (error) => {
    assert.ok(error instanceof StartupError);
    assert.match(error.message, message);
    assert.match(error.hint, /same backup/);
    return true;
  });
}

/** Time goes on by hand. */
class StoppedClock implements ServerClock {
  #nowMs = 0;
  readonly #timers = new Map<object, { readonly callback: () => void; readonly dueMs: number }>();

  advance(ms: number): void {
    this.#nowMs += ms;
    for (const [timer, { callback, dueMs }] of this.#timers) {
      if (dueMs > this.#nowMs) continue;
      this.#timers.delete(timer);
      callback();
    }
  }

  now(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return 1_800_000_000_000 + this.#nowMs;
  }

  setTimer(callback: () => void, ms: number): object {
    const timer = {};
    this.#timers.set(timer, { callback, dueMs: this.#nowMs + ms });
    return timer;
  }

  clearTimer(timer: unknown): void {
    this.#timers.delete(timer as object);
  }
}

const NAMES = ['alice', 'bob', 'carol', 'dave', 'erin'];

test('batches: the first at once, the others within a second, when somebody waits, or at the end', async () => {
  const file = newPath();
  const clock = new StoppedClock();
  const log = await LogOnDisk.open(file, secrets, clock);
  const { keyTransparency } = log;
  const grownTo = async (size: number): Promise<void> => {
    while (keyTransparency.size < size) await new Promise(setImmediate);
    assert.equal(keyTransparency.size, size);
  };
  try {
    assert.equal(keyTransparency.size, 1, 'the start');
    await log.accept('alice');
    keyTransparency.accepted();
    clock.advance(0);
    await grownTo(2);
    await keyTransparency.flush();
    for (const name of ['bob', 'carol']) {
      await log.accept(name);
      keyTransparency.accepted();
    }
    clock.advance(999);
    assert.equal((await log.store.readLogQueue(9)).length, 2);
    const outcome = await log.resolve('bob');
    assert.equal(outcome.kind === 'verified' && outcome.account.checkpoint.size, 4, 'both in one batch');
    await log.accept('dave');
    keyTransparency.accepted();
    clock.advance(1);
    await grownTo(5);

    // What is accepted while a batch is on its way comes in the next.
    const positions = await Promise.all(
      ['erin', 'frank', 'grace', 'heidi'].map(async (name) => {
        await log.accept(name);
        const resolved = await log.resolve(name);
        return resolved.kind === 'verified' ? resolved.account.position : -1;
      }),
    );
    assert.deepEqual(positions.toSorted(), [5, 6, 7, 8]);
    await log.accept('ivan');
  } finally {
    await log.close();
  }
  await withLog(file, async (again) => {
    assert.equal(again.keyTransparency.size, 10, 'closing has appended what waited');
    assert.equal((await follow(newMirror(again), again)).kind, 'complete');
  });
});

test('batches never overlap, however closely they are asked for', async () => {
  await withLog(newPath(), async (log) => {
    const accounts = await Promise.all(Array.from({ length: 40 }, (_, i) => log.prepare(`u${i}`)));
    const asked: Promise<void>[] = [];
    const flush = (): Promise<void> => {
      const flushed = log.keyTransparency.flush();
      asked.push(flushed);
      return flushed;
    };
    const waiting = new Set(accounts);
    const accept = async (): Promise<void> => {
      for (const each of accounts) {
        await each();
        waiting.delete(each);
      }
    };
    // Again at each of the first turns of the microtask queue after the end of a batch, while another one is due.
    const ask = async (): Promise<void> => {
      while (waiting.size > 0) {
        const [first, second] = [flush(), flush()];
        await Promise.all([first.then(flush), first.then().then(flush), second]);
      }
    };
    await Promise.all([accept(), ask()]);
    await flush();
    await Promise.all(asked);
    assert.equal(log.keyTransparency.size, 41);
  });
});

test('a store that takes no batch: said once, tried every second, and nothing is lost or shown meanwhile', async () => {
  const file = newPath();
  const clock = new StoppedClock();
  const log = await LogOnDisk.open(file, secrets, clock);
  const { keyTransparency } = log;
  const until = async (failing: boolean): Promise<void> => {
    while (keyTransparency.isFailing !== failing) await new Promise(setImmediate);
  };
  try {
    await log.register('alice');
    const shown = keyTransparency.checkpoint;
    // Something is in the way of the next batch's hashes.
    alter(file, 'INSERT INTO kt_hash (position, hash) VALUES (3, zeroblob(32))');
    await log.accept('bob');
    keyTransparency.accepted();
    clock.advance(1_000);
    await until(true);
    await assert.rejects(log.resolve('bob'), { name: 'StoreError' });
    clock.advance(1_000);
    await assert.rejects(log.resolve('bob'), { name: 'StoreError' });
    assert.equal(keyTransparency.checkpoint, shown);
    assert.equal((await log.resolve('alice')).kind, 'verified', 'what is in the log is still proven');
    assert.equal(log.log.lines.filter((line) => line.includes('"level":"warn"')).length, 1);

    alter(file, 'DELETE FROM kt_hash WHERE position = 3');
    clock.advance(1_000);
    await until(false);
    assert.equal((await log.resolve('bob')).kind, 'verified');
    assert.equal((await follow(newMirror(log), log)).kind, 'complete');
  } finally {
    await log.close();
  }
});

test('kill -9 between acceptance and append: nothing accepted is lost, no checkpoint shown is taken back', async () => {
  const file = newPath();
  const script = path.join(folder, 'child.mjs');
  writeFileSync(script, CHILD);
  const accepted: string[] = [];
  const shown: Uint8Array[] = [];
  const child = spawn(process.execPath, [script, file], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, SECRETS: JSON.stringify(secretsInHex(secrets)) },
  });
  const exited = once(child, 'exit');
  for await (const line of createInterface({ input: child.stdout })) {
    const [what, value] = line.split(' ') as [string, string];
    if (what === 'accepted') accepted.push(value);
    else shown.push(decodeHex(value)!);
    if (accepted.length === 40) child.kill('SIGKILL');
  }
  assert.equal((await exited)[1], 'SIGKILL');
  const db = openDatabase({ path: file, key: undefined }, { cacheKiB: 100 });
  const waiting = Number(db.prepare('SELECT count(*) FROM kt_queue').pluck().get());
  db.close();
  assert.ok(waiting > 0 && shown.length > 0, `${waiting} ${shown.length}`);
  await withLog(file, async (log) => {
    // The restart appends by itself; asking does not have to wait for it.
    for (const name of accepted) assert.equal((await log.resolve(name)).kind, 'verified', name);
    const mirror = newMirror(log);
    assert.equal((await follow(mirror, log)).kind, 'complete');
    assert.deepEqual(mirror.indexFindings, []);
    for (const note of shown) {
      const older = headOf(log, note);
      assert.equal(mirror.witness(older).kind, 'consistent');
      const proof = await log.keyTransparency.proveConsistency(older.size, mirror.size);
      assert.equal(compareCheckpoints(crypto, older, mirror.head!, proof).kind, 'consistent');
    }
  });
});

test('what opened an entry is erased from the file with the account’s next statement, and with the account', async () => {
  const file = newPath();
  const everything = (): Buffer => readFileSync(file);
  const holds = (bytes: Uint8Array): boolean => everything().includes(bytes);
  const alice = await withLog(file, async (log) => {
    await log.register('alice', 'bob');
    return (await log.store.findStatedAccount({ username: 'alice' }))!;
  });
  const first = alice.stated!;
  assert.ok(holds(first.opening) && holds(first.statement), 'closing has moved everything into the file');
  const next = { version: 1, revocationsBefore: 0, opening: crypto.random(32), statement: crypto.random(20_000) };
  const { identityKey } = alice.account;
  await withLog(file, async ({ store }) => {
    const [device] = alice.account.devices;
    const stated = { ...first, ...next };
    const restated = await store.registerDevice({ identityKey, device: device!, stated, nowMs: Date.now() });
    assert.equal(restated.kind, 'exists');
  });
  assert.ok(holds(next.opening) && !holds(first.opening) && !holds(first.statement.subarray(0, 200)));
  await withLog(file, ({ store }) => store.deleteAccount({ identityKey, nowMs: Date.now() }));
  const parts = [0, 5_000, 19_000].map((at) => next.statement.subarray(at, at + 32));
  for (const gone of [next.opening, ...parts]) assert.ok(!holds(gone));
});

describe('THREATS 21: an operator who changes the database', () => {
  // With the start seven entries: peaks of four, two and one, the last of them at position 10 of the hashes.
  let base: string;
  before(async () => {
    base = newPath();
    await withLog(base, (log) => log.register(...NAMES, 'frank'));
  });
  const copy = (): string => {
    const file = newPath();
    copyFileSync(base, file);
    return file;
  };

  test('in an entry, or takes one out: whoever mirrors the log sees it', async () => {
    const file = copy();
    await withLog(file, async (log) => {
      const entries = await log.entries(0);
      const lastByte = entries[3]!.map((byte, i) => (i === 72 ? byte ^ 1 : byte));
      const write = (position: number, entry: Uint8Array) =>
        alter(file, 'INSERT OR REPLACE INTO kt_entry (position, entry) VALUES (?, ?)', position, entry);
      for (const [position, change] of [
        [2, new Uint8Array(73)],
        [3, lastByte],
        [4, entries[1]],
        [3, undefined],
      ] as const) {
        if (change === undefined) alter(file, 'DELETE FROM kt_entry WHERE position = ?', position);
        else write(position, change);
        const mirror = newMirror(log);
        const start = mirror.update(headOf(log));
        assert.ok(start.kind === 'behind');
        let outcome = start.update.append(await log.entries(0));
        // One too few for the signed head: whatever the server makes up in its place does not fit.
        if (outcome.kind === 'more') outcome = start.update.append([entries[6]!]);
        assert.equal(findingOf(outcome), 'root-mismatch', String(position));
        assert.equal(mirror.size, 0, 'it stays where it was');
        write(position, entries[position]!);
      }
      assert.equal((await follow(newMirror(log), log)).kind, 'complete', 'as it was');
    });
  });

  test('in a hash: its proofs fail, or the server does not start', async () => {
    const file = copy();
    await withLog(file, async (log) => {
      alter(file, 'UPDATE kt_hash SET hash = zeroblob(32) WHERE position = 4');
      const outcomes = await Promise.all(NAMES.map((name) => log.resolve(name)));
      const reasons = outcomes.map((outcome) => (outcome.kind === 'refused' ? outcome.reason : outcome.kind));
      assert.ok(reasons.includes('inclusion'), reasons.join());
      assert.equal((await follow(newMirror(log), log)).kind, 'complete', 'the entries themselves are whole');
      alter(file, 'UPDATE kt_hash SET hash = zeroblob(32) WHERE position = 10');
    });
    await refusesToStart(file, /hashes do not add up/);
  });

  test('in a statement: the name does not resolve', async () => {
    const file = copy();
    await withLog(file, async (log) => {
      alter(
        file,
        `UPDATE kt_account SET (statement, opening) = (SELECT statement, opening FROM kt_account WHERE account = 2)
           WHERE account = 1`,
      );
      const outcome = await log.resolve('alice');
      assert.equal(outcome.kind === 'refused' && outcome.reason, 'statement');
    });
  });

  test('for an older one: a rollback, and two views of one log as soon as it goes on', async () => {
    const [now, old] = [copy(), copy()];
    const mirror = await withLog(now, async (log) => {
      await log.register('grace', 'heidi');
      const followed = newMirror(log);
      assert.equal((await follow(followed, log)).kind, 'complete');
      return followed;
    });
    await withLog(old, async (log) => {
      assert.equal(findingOf(await follow(mirror, log)), 'rollback');
      await log.register('grace');
      assert.equal(findingOf(await follow(mirror, log)), 'rollback');
      // Somebody who sees the other view sends its checkpoint in a commit.
      assert.equal(findingOf(mirror.witness(headOf(log))), 'split-view');
      await log.register('ivan', 'judy');
      assert.ok(log.keyTransparency.size > mirror.size);
      assert.ok(['root-mismatch', 'split-view'].includes(String(findingOf(await follow(mirror, log)))));
      const proof = await log.keyTransparency.proveConsistency(mirror.size, log.keyTransparency.size);
      assert.equal(compareCheckpoints(crypto, mirror.head!, headOf(log), proof).kind, 'unproven');
    });
  });

  test('or the keys: the server does not start', async () => {
    const others = await newLogSecrets();
    await refusesToStart(base, /another VRF key/, { ...secrets, vrf: others.vrf });
    const { checkpointPrivateKey } = others;
    await refusesToStart(base, /not signed by the log/, { ...secrets, checkpointPrivateKey });
  });
});

function secretsInHex({ checkpointPrivateKey, vrf }: LogSecrets): Record<string, string> {
  return {
    checkpoint: encodeHex(checkpointPrivateKey),
    vrfPrivate: encodeHex(vrf.privateKey),
    vrfPublic: encodeHex(vrf.publicKey),
  };
}

/** Accepts as fast as it can and prints each the moment it is on disk, and every checkpoint the moment it may be shown. */
const CHILD = `
import { writeSync } from 'node:fs';
import { LogOnDisk } from ${JSON.stringify(new URL('./testing/log-on-disk.node.ts', import.meta.url).href)};
const [file] = process.argv.slice(2);
const secrets = JSON.parse(process.env.SECRETS);
const bytes = (text) => new Uint8Array(Buffer.from(text, 'hex'));
const log = await LogOnDisk.open(file, {
  checkpointPrivateKey: bytes(secrets.checkpoint),
  vrf: { privateKey: bytes(secrets.vrfPrivate), publicKey: bytes(secrets.vrfPublic) },
});
const say = (line) => writeSync(1, line + '\\n');
const show = () => say('shown ' + Buffer.from(log.keyTransparency.checkpoint).toString('hex'));
const accept = async (n) => {
  for (let i = 0; ; i++) {
    const name = 'u' + n + '.' + i;
    await log.accept(name);
    say('accepted ' + name);
    // The last ones are never appended here.
    if (n === 0 && (i === 1 || i === 4)) await log.keyTransparency.flush().then(show);
  }
};
await Promise.all([accept(0), accept(1), accept(2), accept(3)]);
`;
