import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nobleCrypto } from '@quicprochat/crypto/noble';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { verifyResolve } from './proof.ts';
import type { KeyTransparencyProofFields, ResolveRefusal } from './proof.ts';
import { DAY, MemoryLog, Person } from './testing/memory-log.ts';

const log = new MemoryLog(crypto);
const alice = new Person(crypto, 'alice');
const bob = new Person(crypto, 'bob');
alice.publish(log);
for (let i = 0; i < 5; i++) bob.publish(log);
alice.publish(log);
bob.publish(log);
const honest = log.resolve('alice');

function refusal(fields: Partial<KeyTransparencyProofFields>, username = 'alice', identityKey?: Uint8Array) {
  const outcome = verifyResolve(crypto, log.pinned, username, { ...honest, ...fields }, identityKey);
  return outcome.kind === 'refused' ? outcome.reason : 'verified';
}

test('an honest answer verifies, with either provider, and says what the log has', () => {
  for (const provider of [crypto, nobleCrypto]) {
    const outcome = verifyResolve(provider, log.pinned, 'alice', honest, alice.identity.publicKey);
    assert.ok(outcome.kind === 'verified');
    const { account } = outcome;
    assert.equal(account.username, 'alice');
    assert.equal(account.version, 1);
    assert.equal(account.position, 7);
    assert.equal(account.entry.day, DAY);
    assert.deepEqual(account.index, log.indexOf('alice'));
    assert.deepEqual(account.statement.identityKey, alice.identity.publicKey);
    assert.equal(account.certificates.length, 1);
    assert.equal(account.checkpoint.size, log.size);
  }
});

test('THREATS 21: a lie in any field is refused, and by the check that should', () => {
  const other = log.resolve('bob');
  const elsewhere = new MemoryLog(crypto);
  elsewhere.publish('alice', 'keys', 0, alice.sign('keys', 0));
  const lies: [ResolveRefusal, Partial<KeyTransparencyProofFields>][] = [
    ['malformed', { entryIndex: 2n ** 64n - 1n }],
    ['malformed', { opening: new Uint8Array(31) }],
    ['malformed', { version: -1 }],
    ['malformed', { day: 2 ** 32 }],
    ['vrf', { vrfProof: other.vrfProof }],
    ['vrf', { vrfProof: new Uint8Array(0) }],
    ['statement', { statement: other.statement }],
    ['statement', { statement: new Uint8Array(10) }],
    ['statement', { version: 0 }],
    ['statement', { statement: log.resolve('alice', 0).statement }],
    ['inclusion', { opening: other.opening }],
    ['inclusion', { entryIndex: 8n }],
    ['inclusion', { entryIndex: BigInt(log.size) }],
    ['inclusion', { inclusion: other.inclusion }],
    ['inclusion', { inclusion: [] }],
    ['inclusion', { day: DAY + 1 }],
    ['inclusion', { checkpoint: log.checkpointBytes(log.size - 1) }],
    ['checkpoint', { checkpoint: elsewhere.checkpointBytes() }],
    ['checkpoint', { checkpoint: new Uint8Array(0) }],
    ['checkpoint', { checkpoint: new Uint8Array(1 << 20) }],
  ];
  for (const [reason, fields] of lies) assert.equal(refusal(fields), reason, Object.keys(fields).join());
});

test('another name, another identity than the pinned one: refused', () => {
  assert.equal(refusal({}, 'bob'), 'vrf');
  assert.equal(refusal({}, 'alice', bob.identity.publicKey), 'statement');
  const fields = log.resolve('bob');
  assert.equal(refusal({ ...fields, vrfProof: honest.vrfProof }, 'alice'), 'statement');
});

test('the server can log a statement of its own making, but not as that of a pinned identity', () => {
  const mallory = new Person(crypto, 'alice');
  const lying = log.fork();
  lying.publish('alice', 'keys', 2, mallory.sign('keys', 2, new Uint8Array(32).fill(1)));
  const fields = lying.resolve('alice');
  assert.equal(verifyResolve(crypto, log.pinned, 'alice', fields).kind, 'verified');
  const outcome = verifyResolve(crypto, log.pinned, 'alice', fields, alice.identity.publicKey);
  assert.ok(outcome.kind === 'refused' && outcome.reason === 'statement');
});

test('an old statement cannot be entered again as a newer version, nor keys as a deletion', () => {
  const lying = log.fork();
  lying.publish('alice', 'keys', 2, honest.statement);
  const again = verifyResolve(crypto, log.pinned, 'alice', lying.resolve('alice'));
  assert.ok(again.kind === 'refused' && again.reason === 'statement');
  lying.publish('alice', 'deleted', 3, alice.sign('keys', 3));
  const deleted = verifyResolve(crypto, log.pinned, 'alice', lying.resolve('alice'));
  assert.ok(deleted.kind === 'refused' && deleted.reason === 'inclusion');
});
