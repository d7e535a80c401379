// The key-transparency log as clients see it: proofs under the newest checkpoint, pages, consistency.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { compareCheckpoints, LogMirror, openCheckpoint, verifyResolve } from '@quicprochat/core';
import type { Checkpoint, PinnedLog, ResolvedAccount } from '@quicprochat/core';
import { encodeHex } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { Status } from '@quicprochat/proto';
import type { Account } from '@quicprochat/proto';
import { methods, RpcError } from '@quicprochat/transport';
import { ORIGIN, World } from '../../testing/world.node.ts';
import type { Person, TestConnection } from '../../testing/world.node.ts';

const { keys, user, p2p } = methods;

let world: World;
let alice: Person;
let a: TestConnection;
/** As a client pins it at first contact. */
let pinned: PinnedLog;

before(async () => {
  world = await World.start();
  alice = await world.register('alice');
  a = await world.login(alice);
  const { logOrigin, logKey, logVrfKey, origin } = await a.call(p2p.health, {});
  pinned = { origin: logOrigin, key: logKey.slice(), vrfKey: logVrfKey.slice(), serverOrigin: origin };
});
after(() => world.close());

async function refusal(promise: Promise<unknown>): Promise<RpcError> {
  const error = await promise.then(
    () => assert.fail('was not refused'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof RpcError, String(error));
  return error;
}

async function resolveUser(username: string): Promise<Account> {
  const { outcome } = await a.call(user.resolveUser, { username });
  assert.ok(outcome.case === 'found');
  return outcome.value;
}

function verified(account: Account, identityKey?: Uint8Array): ResolvedAccount {
  assert.ok(account.keyTransparency !== undefined);
  const outcome = verifyResolve(crypto, pinned, account.username, account.keyTransparency, identityKey);
  assert.ok(outcome.kind === 'verified', outcome.kind === 'refused' ? outcome.detail : '');
  return outcome.account;
}

function opened(bytes: Uint8Array): Checkpoint {
  const outcome = openCheckpoint(crypto, bytes, pinned);
  assert.ok(outcome.kind === 'verified');
  return outcome.checkpoint;
}

const treeHead = async () => opened((await world.connect().call(keys.getTreeHead, {})).checkpoint);

/** Follows the log to its newest head, as anybody can. */
async function mirrorOf(limit = 0): Promise<LogMirror> {
  const mirror = new LogMirror(crypto, pinned);
  const start = mirror.update(await treeHead());
  assert.ok(start.kind === 'behind');
  const anyone = world.connect();
  for (;;) {
    const { entries } = await anyone.call(keys.auditKeyTransparency, { start: BigInt(start.update.next), limit });
    const outcome = start.update.append(entries);
    if (outcome.kind === 'complete') return mirror;
    assert.equal(outcome.kind, 'more');
  }
}

test('the log is that of the origin, with keys that a client pins', () => {
  assert.deepEqual(pinned.origin, `${ORIGIN}/key-transparency`);
  assert.deepEqual([pinned.key.length, pinned.vrfKey.length], [32, 32]);
});

describe('Resolve', () => {
  test('right after registration proves the statement under the newest checkpoint, by name and by key', async () => {
    const bob = await world.register('bob');
    const byName = await resolveUser('bob');
    const account = verified(byName, bob.identity.publicKey);
    assert.equal(account.version, 0);
    assert.deepEqual(
      account.certificates.map((each) => [...each.bytes]),
      byName.deviceCertificates.map((each) => [...each]),
    );
    assert.equal(account.checkpoint.size, (await treeHead()).size);
    const { outcome } = await a.call(user.resolveIdentity, { identityKey: bob.identity.publicKey });
    assert.ok(outcome.case === 'found');
    assert.deepEqual(verified(outcome.value).entry, account.entry);
  });

  test('the newest statement at once, and the mirror finds it current', async () => {
    const carol = await world.register('carol');
    const first = verified(await resolveUser('carol'));
    await world.addDevice(carol);
    const second = verified(await resolveUser('carol'));
    assert.deepEqual([first.version, second.version], [0, 1]);
    assert.equal(second.certificates.length, 2);
    const mirror = await mirrorOf();
    assert.equal(mirror.checkResolved(second, mirror.size).kind, 'current');
    assert.equal(mirror.checkResolved(first, mirror.size).kind, 'finding', 'an answer of before is stale');
  });

  test('many at once: every answer is proven, none under an older checkpoint than the one before', async () => {
    const people = await Promise.all(Array.from({ length: 12 }, (_, i) => world.register(`crowd${i}`)));
    const before = await treeHead();
    const answers = await Promise.all(people.map((person) => resolveUser(person.username)));
    for (const answer of answers) assert.ok(verified(answer).checkpoint.size >= before.size);
    const mirror = await mirrorOf(3);
    assert.deepEqual(mirror.indexFindings, []);
  });
});

describe('reading the log', () => {
  test('pages of any size add up to the signed root; nothing follows the end', async () => {
    const [one, all] = [await mirrorOf(1), await mirrorOf()];
    assert.deepEqual(one.head?.root, all.head?.root);
    assert.ok(all.size > 10);
    const end = await a.call(keys.auditKeyTransparency, { start: BigInt(all.size) });
    assert.equal(end.entries.length, 0);
    assert.equal(opened(end.checkpoint).size, all.size);
    assert.equal((await a.call(keys.auditKeyTransparency, { start: 1n << 40n })).entries.length, 0);
    const far = a.call(keys.auditKeyTransparency, { start: 1n << 60n });
    assert.equal((await refusal(far)).status, Status.INVALID_ARGUMENT);
  });

  test('what is new comes from memory, what is old from the store, and both are the log', async () => {
    const before = await treeHead();
    await world.register('erin');
    await resolveUser('erin');
    const size = (await treeHead()).size;
    assert.equal(size, before.size + 1);
    const [onDisk, inMemory] = await Promise.all([
      world.store.readLogEntries({ start: 0, limit: size }),
      world.keyTransparency.readEntries(0, size),
    ]);
    assert.deepEqual(inMemory.map(encodeHex), onDisk.map(encodeHex));
    for (let start = 0; start < size; start++) {
      const { entries } = await a.call(keys.auditKeyTransparency, { start: BigInt(start), limit: 2 });
      assert.deepEqual(entries.map(encodeHex), onDisk.slice(start, start + 2).map(encodeHex), String(start));
    }
  });

  test('a later checkpoint continues every earlier one, by proof', async () => {
    const older = await treeHead();
    await world.register('dave');
    await resolveUser('dave');
    const newer = await treeHead();
    assert.ok(newer.size > older.size);
    const anyone = world.connect();
    const { proof, second } = await anyone.call(keys.getConsistencyProof, { first: BigInt(older.size) });
    assert.equal(second, BigInt(newer.size));
    assert.equal(compareCheckpoints(crypto, older, newer, proof).kind, 'consistent');
    assert.equal(compareCheckpoints(crypto, older, newer, proof.slice(1)).kind, 'unproven');
  });

  test('sizes that the log does not have are refused', async () => {
    const size = BigInt((await treeHead()).size);
    for (const [first, second] of [
      [0n, size],
      [2n, 1n],
      [1n, size + 1n],
      [1n << 60n, 0n],
      [size + 1n, 0n],
    ] as const) {
      const asked = a.call(keys.getConsistencyProof, { first, second });
      assert.equal((await refusal(asked)).status, Status.INVALID_ARGUMENT, `${first} ${second}`);
    }
  });

  test('readers are bounded by address, and heads are free', async () => {
    const strict = await World.start({ rates: { logReads: { burst: 2, perHour: 3_600 } } });
    try {
      const anyone = strict.connect();
      for (let i = 0; i < 2; i++) await anyone.call(keys.auditKeyTransparency, {});
      assert.equal((await refusal(anyone.call(keys.auditKeyTransparency, {}))).status, Status.RATE_LIMITED);
      assert.equal((await refusal(anyone.call(keys.getConsistencyProof, { first: 1n }))).status, Status.RATE_LIMITED);
      await anyone.call(keys.getTreeHead, {});
    } finally {
      await strict.close();
    }
  });
});
