import assert from 'node:assert/strict';
import { test } from 'node:test';
import { concat, encodeHex } from '@quicprochat/crypto';
import { nobleCrypto } from '@quicprochat/crypto/noble';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { Label } from '../labels.ts';
import { signStatement } from '../statement.ts';
import {
  ACCOUNT_STATEMENT_BYTES_MAX,
  computeCommitment,
  decodeLogEntry,
  encodeLogEntry,
  HISTORY_START,
  isLogStart,
  LOG_ENTRY_BYTES,
  logStart,
  nextHistory,
  parseAccountStatement,
  signAccountStatement,
  verifyAccountStatement,
} from './entry.ts';
import type { AccountStatement, AccountStatementExpectation, LogEntry } from './entry.ts';
import { DAY, MemoryLog, Person, SERVER_ORIGIN } from './testing/memory-log.ts';

const alice = new Person(crypto, 'alice');
const statement: AccountStatement = {
  kind: 'keys',
  origin: SERVER_ORIGIN,
  username: 'alice',
  identityKey: alice.identity.publicKey,
  version: 3,
  history: crypto.random(32),
  certificates: [alice.certificate(), alice.certificate()],
  revocations: [alice.revocation('identity'), alice.revocation('device')],
};
const expected = { origin: SERVER_ORIGIN, username: 'alice', version: 3 };
const sign = (changes: Partial<AccountStatement> = {}) =>
  signAccountStatement(crypto, alice.identity.privateKey, { ...statement, ...changes } as AccountStatement);
const encoded = sign();

function verify(bytes: Uint8Array, expectation: AccountStatementExpectation = expected) {
  const parsed = parseAccountStatement(bytes);
  return parsed === undefined ? ({ kind: 'unreadable' } as const) : verifyAccountStatement(crypto, parsed, expectation);
}

test('entries: 73 bytes that read back, unknown types and other lengths are refused', () => {
  for (const kind of ['start', 'keys', 'deleted'] as const) {
    const entry: LogEntry = {
      kind,
      index: crypto.random(32),
      version: 0xffff_ffff,
      commitment: crypto.random(32),
      day: DAY,
    };
    const bytes = encodeLogEntry(entry);
    assert.equal(bytes.length, LOG_ENTRY_BYTES);
    assert.deepEqual(decodeLogEntry(bytes), entry);
    assert.equal(decodeLogEntry(bytes.subarray(1)), undefined);
    assert.equal(decodeLogEntry(concat(bytes, new Uint8Array(1))), undefined);
    for (const type of [3, 255]) assert.equal(decodeLogEntry(bytes.with(0, type)), undefined);
    for (const version of [-1, 0.5, 2 ** 32, Number.NaN]) {
      assert.throws(() => encodeLogEntry({ ...entry, version }), { name: 'Misuse' });
    }
  }
  assert.equal(decodeLogEntry(new Uint8Array(0)), undefined);
});

test('the start of a log fits that log and VRF key only', () => {
  const { pinned } = new MemoryLog(crypto);
  const start = logStart(crypto, pinned, DAY);
  assert.ok(isLogStart(crypto, pinned, start));
  assert.ok(!isLogStart(crypto, { ...pinned, origin: 'elsewhere' }, start));
  assert.ok(!isLogStart(crypto, { ...pinned, vrfKey: crypto.random(32) }, start));
  assert.ok(!isLogStart(crypto, pinned, { ...start, kind: 'keys' }));
  assert.ok(!isLogStart(crypto, pinned, { ...start, version: 1 }));
});

test('a statement reads back and verifies, with its certificates', () => {
  const outcome = verify(encoded, { ...expected, identityKey: alice.identity.publicKey, history: statement.history });
  assert.ok(outcome.kind === 'verified');
  assert.deepEqual({ ...outcome.statement }, { ...statement, bytes: encoded });
  assert.deepEqual(
    outcome.certificates.map((one) => one.username),
    ['alice', 'alice'],
  );
  assert.deepEqual(
    outcome.revocations.map((one) => one.signer),
    ['identity', 'device'],
  );
  const gone = signAccountStatement(crypto, alice.identity.privateKey, {
    kind: 'deleted',
    origin: SERVER_ORIGIN,
    username: 'alice',
    identityKey: alice.identity.publicKey,
    version: 3,
    history: statement.history,
  });
  const deleted = verify(gone);
  assert.ok(deleted.kind === 'verified' && deleted.statement.kind === 'deleted');
  assert.deepEqual(deleted.certificates, []);
});

test('every changed byte, every truncation and every extension of a statement is refused', () => {
  for (let i = 0; i < encoded.length; i++) {
    assert.notEqual(verify(encoded.with(i, encoded[i]! ^ 0x01)).kind, 'verified', `byte ${i}`);
    assert.notEqual(verify(encoded.subarray(0, i)).kind, 'verified', `cut at ${i}`);
  }
  assert.equal(verify(concat(encoded, new Uint8Array(1))).kind, 'unreadable');
  assert.equal(verify(new Uint8Array(ACCOUNT_STATEMENT_BYTES_MAX + 1)).kind, 'unreadable');
});

test('a statement for anything but what is expected is refused', () => {
  const mallory = new Person(crypto, 'alice');
  const wrong: AccountStatementExpectation[] = [
    { ...expected, origin: 'other.example.org' },
    { ...expected, username: 'bob' },
    { ...expected, version: 4 },
    { ...expected, identityKey: mallory.identity.publicKey },
    { ...expected, history: HISTORY_START },
  ];
  for (const expectation of wrong) assert.equal(verify(encoded, expectation).kind, 'invalid');
  // Version 0 has nothing before it.
  assert.equal(verify(sign({ version: 0 }), { ...expected, version: 0 }).kind, 'invalid');
  assert.equal(verify(sign({ version: 0, history: HISTORY_START }), { ...expected, version: 0 }).kind, 'verified');
  // Certificates of another identity, of another account, twice, or none at all.
  assert.equal(verify(sign({ certificates: [mallory.certificate()] })).kind, 'invalid');
  const twice = alice.certificate();
  assert.equal(verify(sign({ certificates: [twice, twice] })).kind, 'invalid');
  assert.equal(verify(sign({ certificates: [crypto.random(100)] })).kind, 'invalid');
  // Revocations by another identity, of a device that is still there, or none at all.
  assert.equal(verify(sign({ revocations: [mallory.revocation('identity')] })).kind, 'invalid');
  assert.equal(verify(sign({ revocations: [crypto.random(100)] })).kind, 'invalid');
  const deviceId = crypto.random(16);
  const still = { certificates: [alice.certificate(deviceId)], revocations: [alice.revocation('identity', deviceId)] };
  assert.equal(verify(sign(still)).kind, 'invalid');
  // Signed by a key other than the one it names.
  const forged = signAccountStatement(crypto, mallory.identity.privateKey, statement);
  assert.equal(verify(forged).kind, 'invalid');
});

test('lengths in a statement that lie are refused, and what is too long is not signed', () => {
  const headLength = Label.keyTransparencyStatement.length + 1 + SERVER_ORIGIN.length + 1 + 5 + 32 + 4 + 32;
  const head = encoded.subarray(0, headLength);
  for (const tail of [[2], [0], [0, 255], [0, 1, 255, 255, 1], [0, 0, 1, 0, 9], [1, 0], [0, 0, 0, 0]]) {
    const bytes = signStatement(crypto, alice.identity.privateKey, concat(head, new Uint8Array(tail)));
    assert.equal(verify(bytes).kind, 'unreadable', tail.join());
  }
  const most = signStatement(
    crypto,
    alice.identity.privateKey,
    concat(head, new Uint8Array([0, 17, ...Array<number>(34).fill(0), 0])),
  );
  assert.equal(verify(most).kind, 'invalid');
  const one = alice.certificate();
  assert.throws(() => sign({ certificates: Array<Uint8Array>(17).fill(one) }), { name: 'Misuse' });
  assert.throws(() => sign({ revocations: [new Uint8Array(513)] }), { name: 'Misuse' });
  assert.throws(() => sign({ revocations: Array.from({ length: 80 }, () => new Uint8Array(500)) }), {
    name: 'Misuse',
  });
  assert.throws(() => sign({ version: -1 }), { name: 'Misuse' });
});

test('a commitment opens in one way only, the same with both providers', () => {
  const terms = { opening: crypto.random(32), username: 'alice', version: 1, statement: encoded };
  const commitment = computeCommitment(crypto, terms);
  assert.equal(encodeHex(computeCommitment(nobleCrypto, terms)), encodeHex(commitment));
  // Moving a byte from the name into what follows must not give the same input.
  const others = [
    { ...terms, opening: crypto.random(32) },
    { ...terms, username: 'alic' },
    { ...terms, username: 'bob' },
    { ...terms, version: 2 },
    { ...terms, statement: encoded.subarray(1) },
  ];
  for (const other of others) assert.notDeepEqual(computeCommitment(crypto, other), commitment);
  assert.throws(() => computeCommitment(crypto, { ...terms, opening: new Uint8Array(31) }), { name: 'Misuse' });
});

test('histories depend on every entry and their order', () => {
  const [a, b] = [crypto.random(32), crypto.random(32)];
  const ab = nextHistory(crypto, nextHistory(crypto, HISTORY_START, a), b);
  const ba = nextHistory(crypto, nextHistory(crypto, HISTORY_START, b), a);
  assert.notDeepEqual(ab, ba);
  assert.notDeepEqual(ab, nextHistory(crypto, HISTORY_START, b));
  assert.throws(() => nextHistory(crypto, HISTORY_START, a.subarray(1)), { name: 'Misuse' });
});
