// qpc audit through the command line: what it says of a log in order, of one somebody has tampered with, and how scripts
// learn of it; going on in spite of a finding; the end of an account.
import assert from 'node:assert/strict';
import type BetterSqlite3 from 'better-sqlite3';
import { createRequire } from 'node:module';
import path from 'node:path';
import { before, test } from 'node:test';
import { type Person, World } from './world.ts';

// As in the store: the package's own types are out of reach of its exports.
const SQLite = createRequire(import.meta.url)('better-sqlite3-multiple-ciphers') as typeof BetterSqlite3;

const world = new World();
let alice: Person;
let bob: Person;

before(async () => {
  await world.startServer();
  [alice, bob] = await world.people('alice', 'bob');
});

/** Changes one byte of an entry's commitment in the database of the running server. */
function tamperWithEntry(position: number): void {
  const db = new SQLite(path.join(world.serverFolder, 'qpc.db'));
  const entry = db.prepare<[number], Buffer>('SELECT entry FROM kt_entry WHERE position = ?').pluck().get(position)!;
  entry[40]! ^= 1;
  db.prepare('UPDATE kt_entry SET entry = ? WHERE position = ?').run(entry, position);
  db.close();
}

test('a log in order: its size, its root, one’s own account and each contact', async () => {
  await alice.result(['resolve', 'bob']);
  const events = await alice.events(['audit']);
  assert.deepEqual(
    events.map(({ type }) => type),
    ['log', 'account', 'account', 'result'],
  );
  const [log, own, contact, result] = events;
  assert.deepEqual([log?.['entries'], log?.['consistent'], log?.['changedAt']], [3, true, undefined]);
  assert.match(String(log?.['root']), /^[0-9a-f]{64}$/u);
  assert.match(String(log?.['checkpoint']), /^localhost:\d+\/key-transparency\n3\n/u);
  assert.deepEqual(
    [own?.['username'], own?.['self'], own?.['outcome'], own?.['version']],
    ['alice', true, 'verified', 0],
  );
  assert.deepEqual([contact?.['username'], contact?.['outcome']], ['bob', 'verified']);
  assert.deepEqual([result?.['command'], result?.['consistent']], ['audit', true]);
});

test('on a terminal it shows how far it has come, and ends in one sentence', async () => {
  const screen = world.terminal(bob, ['--server', `127.0.0.1:${world.port}`, '--ca-cert', world.caCert, 'audit']);
  assert.equal(await screen.ended, 0);
  assert.match(screen.text, /\[#{30}\] 3 of 3 entries/u);
  assert.match(screen.text, /you {6}bob {17}.*verified, version 0/u);
  assert.match(screen.text, /The log is consistent/u);
});

test('THREATS 21: an entry changed in the server’s database: exit code 5, the finding and its evidence', async () => {
  tamperWithEntry(2);
  const program = alice.start(['audit']);
  program.endInput();
  const failure = await program.failure();
  assert.deepEqual([failure.exitCode, failure['code']], [5, 'log-inconsistent']);
  assert.match(String(failure['message']), /^something in the log/u);
  assert.match(String(failure['hint']), /qpc audit --accept/u);
  const [log, finding, ...rest] = program.events;
  assert.deepEqual([log?.type, log?.['consistent'], log?.['changedAt']], ['log', false, 2]);
  assert.deepEqual([finding?.type, finding?.['kind'], finding?.['accepted']], ['finding', 'root-mismatch', false]);
  assert.match(String(finding?.['text']), /do not add up to the checkpoint/u);
  const evidence = finding?.['evidence'] as { head: string; computedRoot: string };
  assert.match(evidence.head, /^localhost:\d+\/key-transparency\n3\n/u);
  assert.match(evidence.computedRoot, /^[0-9a-f]{64}$/u);
  assert.deepEqual(
    rest.map(({ type }) => type),
    ['error'],
  );
  // No key that this log vouches for is believed, until the person says so or the log is in order again.
  await alice.refused(5, 'log-finding', ['resolve', 'bob']);
  tamperWithEntry(2);
  const accepted = await alice.events(['audit', '--accept']);
  assert.equal(accepted.at(-1)?.['consistent'], true);
  assert.equal(accepted.find(({ type }) => type === 'finding')?.['accepted'], true);
});

test('resume says whether there was anything to resume', async () => {
  await alice.result(['group', 'create', 'team']);
  const { was, conversation } = await alice.result(['resume', 'team']);
  assert.deepEqual([was, (conversation as { name: string }).name], [undefined, 'team']);
});

test('an account ends when its name is typed, and not otherwise', async () => {
  await bob.refused(2, 'not-confirmed', ['account', 'delete'], 'alice\n');
  const { username } = await bob.result(['account', 'delete'], 'bob\n');
  assert.equal(username, 'bob');
  await bob.refused(6, 'account-deleted', ['login', 'bob', '--password-stdin'], `${bob.password}\n`);
  await alice.refused(4, 'unknown-user', ['resolve', 'bob']);
});

test('an account whose entries are out of order is one thing, and stays refused after it was accepted', async () => {
  await world.people('carol');
  await alice.result(['resolve', 'carol']);
  const db = new SQLite(path.join(world.serverFolder, 'qpc.db'));
  const entry = Buffer.from(
    db
      .prepare<[], Buffer>(
        `SELECT k.entry FROM kt_account k JOIN account a ON a.id = k.account WHERE a.username = 'carol'`,
      )
      .pluck()
      .get()!,
  );
  entry.writeUInt32BE(5, 33);
  db.prepare('INSERT INTO kt_queue (account, version, entry) VALUES (0, 5, ?)').run(entry);
  db.close();
  // It is appended with whatever comes next.
  await world.people('dave');
  for (const [args, hint] of [
    [['audit'], /qpc audit --accept/u],
    [['audit', '--accept'], /new keys of the accounts above are refused/u],
  ] as const) {
    const program = alice.start([...args]);
    program.endInput();
    const failure = await program.failure();
    assert.deepEqual([failure.exitCode, failure['code']], [5, 'log-inconsistent']);
    assert.match(String(failure['message']), /^something in the log/u);
    assert.match(String(failure['hint']), hint);
  }
});
