// State in a SQL database, as rows that change: what a step changed is written in the transaction that also holds what
// belongs with it, and only then is what it replaced wiped.
import assert from 'node:assert/strict';
import { DatabaseSync } from 'node:sqlite';
import * as mls from '@quicprochat/mls';
import { accepted, bytes, context, person, text } from './shared.ts';

const cipherSuite = mls.CipherSuiteId.MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

// Any synchronous driver with prepare, run, get and all will do. The rows hold secrets: in earnest an encrypted file, and
// durable before a message leaves, since a ratchet that is rolled back uses keys twice.
const database = new DatabaseSync(':memory:');
database.exec('CREATE TABLE outbox (message BLOB NOT NULL); CREATE TABLE pending (commit_bytes BLOB NOT NULL)');
const rows = mls.sqlRows(database);

/** Stores the step from one state to the next, and what belongs with it, in one transaction. */
function store(before: mls.GroupState | undefined, after: mls.GroupState, more: () => void = () => {}): mls.GroupState {
  database.exec('BEGIN IMMEDIATE');
  rows.group(mls.groupContext(after).groupId).apply(mls.diffRows(before, after));
  more();
  database.exec('COMMIT');
  if (before !== undefined) mls.wipeReplaced(context, before, after);
  return after;
}

let alice = store(
  undefined,
  mls.createGroup(context, { ...person('Alice', cipherSuite), groupId: context.random(32) }),
);
const { groupId } = mls.groupContext(alice);

// A commit: the state and the epoch it may lead to, until the others have accepted it.
const bundle = mls.generateKeyPackage(context, person('Bob', cipherSuite));
const { keyPackage } = accepted(mls.verifyKeyPackage(context, bundle.keyPackage));
const made = accepted(mls.createCommit(context, alice, { proposals: [{ kind: 'add', keyPackage }] }));
alice = store(alice, made.state, () => {
  database.prepare('INSERT INTO pending VALUES (?)').run(mls.encodePendingCommit(made.pending));
});

// The process ends here, and starts again: everything is in the rows.
alice = mls.restoreGroup(context, rows.group(groupId));
const row = database.prepare('SELECT commit_bytes FROM pending').get();
assert.ok(row?.['commit_bytes'] instanceof Uint8Array);
const pending = mls.decodePendingCommit(context, row['commit_bytes']);
alice = store(alice, mls.mergePendingCommit(context, alice, pending), () => database.exec('DELETE FROM pending'));

// A message: one small row, and the outbox.
const sent = mls.protectApplication(context, alice, bytes('written down'));
const changes = mls.diffRows(alice, sent.state);
alice = store(alice, sent.state, () => database.prepare('INSERT INTO outbox VALUES (?)').run(sent.message));

const bob = accepted(mls.joinGroup(context, { welcome: made.welcome!, keyPackage: bundle })).state;
const received = accepted(mls.processMessage(context, bob, sent.message));
assert.ok(received.kind === 'application');
console.log(`Bob reads: ${text(received.data)}`);
const written = changes.map((change) => (change.kind === 'set' ? `${change.bytes.length} bytes` : change.kind));
console.log(`The first message of the epoch changed ${changes.length} rows: ${written.join(', ')}`);

// Left for good.
mls.wipeGroup(context, alice);
rows.remove(groupId);
assert.deepEqual(rows.groupIds(), []);
