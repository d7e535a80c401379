// A server that claims a log of more entries than a client mirrors, so that one answer need not be in the log that
// everybody else sees (PROTOCOL section 7; THREATS 1, 21). The lie is signed with the server's own keys; most of the tree
// is one entry again and again, so that its hashes need not be computed a million times.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, test } from 'node:test';
import {
  computeCommitment,
  decodeLogEntry,
  encodeLogEntry,
  HISTORY_START,
  leafHash,
  logOriginOf,
  nodeHash,
  signAccountStatement,
  signCheckpoint,
  signDeviceCertificate,
} from '@quicprochat/core';
import { encodeHex, SignatureSchemeId } from '@quicprochat/crypto';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { methods } from '@quicprochat/transport';
import { Meddler } from './meddler.ts';
import { type Person, World } from './world.ts';

/** RFC 9162, 2.1: a tree of these leaves, then the filler, then one last leaf. */
class ForgedTree {
  readonly #first: readonly Uint8Array[];
  readonly #last: Uint8Array;
  readonly #filled: Uint8Array[];
  readonly size: number;

  constructor(first: readonly Uint8Array[], filler: Uint8Array, size: number, last: Uint8Array) {
    this.#first = first;
    this.#last = last;
    this.#filled = [filler];
    this.size = size;
  }

  hash(start: number, end: number): Uint8Array {
    if (end - start === 1) return this.#first[start] ?? (end === this.size ? this.#last : this.#filled[0]!);
    const level = Math.log2(end - start);
    if (start >= this.#first.length && end < this.size && Number.isInteger(level)) return this.#filledTo(level);
    const middle = start + split(end - start);
    return nodeHash(nodeCrypto, this.hash(start, middle), this.hash(middle, end));
  }

  inclusion(position: number, start = 0, end = this.size): Uint8Array[] {
    if (end - start === 1) return [];
    const middle = start + split(end - start);
    return position < middle
      ? [...this.inclusion(position, start, middle), this.hash(middle, end)]
      : [...this.inclusion(position, middle, end), this.hash(start, middle)];
  }

  consistency(first: number, start = 0, end = this.size, isWhole = true): Uint8Array[] {
    if (first === end) return isWhole ? [] : [this.hash(start, end)];
    const middle = start + split(end - start);
    return first <= middle
      ? [...this.consistency(first, start, middle, isWhole), this.hash(middle, end)]
      : [...this.consistency(first, middle, end, false), this.hash(start, middle)];
  }

  #filledTo(level: number): Uint8Array {
    while (this.#filled.length <= level) {
      const below = this.#filled.at(-1)!;
      this.#filled.push(nodeHash(nodeCrypto, below, below));
    }
    return this.#filled[level]!;
  }
}

/** The largest power of two below a number of leaves. */
function split(leaves: number): number {
  return 2 ** Math.ceil(Math.log2(leaves) - 1);
}

let world: World;
let alice: Person;
let bob: Person;
const forAlice = new Meddler();

before(async () => {
  world = await World.start();
  alice = await world.person('alice', { wrapDialer: forAlice.wrap });
  bob = await world.person('bob');
});
after(async () => {
  await world[Symbol.asyncDispose]();
});

test('THREATS 21: a log that claims to have become too large to mirror is shown to others in the next commit', async () => {
  const { id } = await alice.client.createGroup('us');
  await alice.client.invite(id, ['bob']);
  await bob.joined('us');
  await world.person('victor');

  const { origin } = alice.store.account.get()!;
  const identity = generate();
  const device = generate();
  const nowSecs = Math.floor(Date.now() / 1000);
  const certificate = signDeviceCertificate(nodeCrypto, identity.privateKey, {
    origin,
    username: 'victor',
    identityKey: identity.publicKey,
    deviceId: nodeCrypto.random(16),
    deviceKey: device.publicKey,
    manager: true,
    serial: 1n,
    notBeforeSecs: nowSecs - 60,
    notAfterSecs: nowSecs + 86_400,
  });
  const statement = signAccountStatement(nodeCrypto, identity.privateKey, {
    kind: 'keys',
    origin,
    username: 'victor',
    identityKey: identity.publicKey,
    version: 0,
    history: HISTORY_START,
    certificates: [certificate],
    revocations: [],
  });
  const logKey = new Uint8Array(Buffer.from(await readFile(path.join(world.dataDir, 'log-key'), 'ascii'), 'base64'));
  const opening = nodeCrypto.random(32);
  const size = 1_500_000;
  let lie: { tree: ForgedTree; checkpoint: Uint8Array; day: number } | undefined;
  const forge = async (index: Uint8Array): Promise<NonNullable<typeof lie>> => {
    const { entries } = await forAlice.call(methods.keys.auditKeyTransparency, { start: 0n });
    const { day } = decodeLogEntry(entries[0]!)!;
    const commitment = computeCommitment(nodeCrypto, { opening, username: 'victor', version: 0, statement });
    const last = encodeLogEntry({ kind: 'keys', index, version: 0, commitment, day });
    const leaves = entries.map((entry) => leafHash(nodeCrypto, entry));
    const tree = new ForgedTree(leaves, leafHash(nodeCrypto, entries[1]!), size, leafHash(nodeCrypto, last));
    const root = tree.hash(0, size);
    return { tree, day, checkpoint: signCheckpoint(nodeCrypto, logKey, { origin: logOriginOf(origin), size, root }) };
  };
  forAlice.answer(methods.user.resolveUser, async (real) => {
    assert.equal(real.outcome.case, 'found');
    const account = real.outcome.value!;
    const { vrfProof, entryIndex } = account.keyTransparency!;
    const { entries } = await forAlice.call(methods.keys.auditKeyTransparency, { start: entryIndex, limit: 1 });
    lie = await forge(decodeLogEntry(entries[0]!)!.index);
    const { tree, checkpoint, day } = lie;
    const proof = { vrfProof, entryIndex: BigInt(size - 1), version: 0, opening, statement, checkpoint, day };
    return {
      outcome: {
        case: 'found' as const,
        value: {
          username: 'victor',
          identityKey: identity.publicKey,
          deviceCertificates: [certificate],
          keyTransparency: { ...proof, inclusion: tree.inclusion(size - 1) },
        },
      },
    };
  });
  forAlice.answer(methods.keys.getTreeHead, () => ({ checkpoint: lie!.checkpoint }));
  let asked = 0;
  forAlice.request(methods.keys.getConsistencyProof, ({ first }) => {
    asked = Number(first);
    return { first, second: first };
  });
  forAlice.answer(methods.keys.getConsistencyProof, () => ({
    proof: lie!.tree.consistency(asked),
    second: BigInt(size),
  }));

  // At first contact there is nothing to tell the lie by.
  assert.equal((await alice.client.resolve('victor')).identityKey, encodeHex(identity.publicKey));
  // But Bob, who sees the real log, hears of it.
  await alice.client.setAdmin(id, 'bob', true);
  await bob.until('noticed', () =>
    bob.events.some((event) => event.type === 'warning' && event.code === 'key-transparency'),
  );
  await assert.rejects(bob.client.send(id, 'psst'), { code: 'sending-paused' });
  assert.deepEqual(
    bob.store.log.findings().map(({ kind }) => kind),
    ['stale-head'],
  );

  // And when the log is small again, Alice sees that it was not what it had claimed.
  forAlice.honest();
  await alice.close();
  await alice.open();
  world.clockOffsetMs = 11 * 60_000;
  await alice.client.connect();
  await alice.until('noticed', () => alice.store.log.findings().some(({ kind }) => kind === 'rollback'));
  await assert.rejects(alice.client.resolve('bob'), { code: 'log-finding', message: /fewer entries/ });
  await alice.client.audit({ accept: true });
  await alice.client.resolve('bob');
});

function generate(): { readonly privateKey: Uint8Array; readonly publicKey: Uint8Array } {
  const privateKey = nodeCrypto.random(32);
  return { privateKey, publicKey: nodeCrypto.signature(SignatureSchemeId.Ed25519).publicKey(privateKey) };
}
