// Whoever looks up many people at once is told to be slower. The client waits as long as the server says, and goes on.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { type Client, ClientError } from '@quicprochat/client/node';
import { memoryPair, systemClock } from '@quicprochat/transport';
import { createClient } from '../packages/client/src/open-client.ts';
import { SUITE_CLASSICAL } from '../packages/client/src/profile/suites.ts';
import { openProfile } from '../packages/client/src/store/profile.node.ts';
import { World } from '../packages/server/src/testing/world.node.ts';
import { QUICK_STRETCHING } from './wire.ts';

/** One look-up at once, then four a second; two KeyPackages of one account, then none for half an hour. */
const rates = { resolves: { burst: 1, perHour: 14_400 }, keyPackagesOfOne: { burst: 2, perHour: 2 } };
const NAMES = ['bob', 'carol', 'dave'];

let folder: string;
let server: World;
let alice: Client;
let others: Client[];
const clients: Client[] = [];

async function person(name: string): Promise<Client> {
  const { store } = await openProfile({ folder: path.join(folder, name) });
  const ports = {
    crypto: nodeCrypto,
    random: (length: number) => nodeCrypto.random(length),
    now: () => Date.now(),
    clock: systemClock,
    log: { debug: () => {}, warn: () => {} },
    suite: SUITE_CLASSICAL,
    passwordStretching: QUICK_STRETCHING,
  };
  const dial = async () => {
    const pair = memoryPair();
    server.server.accept(pair.server);
    return pair.client;
  };
  const client = createClient(ports, store, { server: 'memory', dial });
  clients.push(client);
  await client.connect();
  await client.register(name, `password of ${name}`);
  return client;
}

before(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'qpc-invite-waits-'));
  server = await World.start({ rates });
  [alice, ...others] = (await Promise.all(['alice', ...NAMES].map(person))) as [Client, ...Client[]];
});
after(async () => {
  for (const client of clients) await client.close();
  await server.close();
  rmSync(folder, { recursive: true, force: true });
});

const isRateLimited = (error: unknown): boolean => error instanceof ClientError && error.code === 'rate-limited';

test('an invitation that the server slows down waits, says so, and adds everybody', { timeout: 60_000 }, async () => {
  const group = await alice.createGroup('team');
  const waits: { readonly ms: number; readonly reason: string }[] = [];
  const { added, failed } = await alice.invite(group.id, NAMES, { waiting: (waiting) => waits.push(waiting) });
  assert.deepEqual([added.toSorted(), failed], [NAMES, []]);
  assert.ok(waits.length >= 2, `${waits.length} waits`);
  for (const { ms, reason } of waits) {
    assert.ok(ms > 0 && ms <= 2_000, `${ms} ms`);
    assert.match(reason, /too many look-ups/);
  }
});

test('members whom the server would not let us look up at once are checked later', { timeout: 60_000 }, async () => {
  const [bob] = others as [Client];
  await bob.sync();
  const { id } = await bob.findConversation('team');
  const checks = async () => (await bob.members(id)).filter(({ self }) => !self).map(({ check }) => check);
  assert.equal((await checks()).length, 3);
  while ((await checks()).some((check) => check !== 'verified')) await bob.sync();
});

test(
  'waiting ends by signal, and nobody was added; it ends when the profile is closed',
  { timeout: 60_000 },
  async () => {
    const group = await alice.createGroup('other');
    const stop = new AbortController();
    const given = alice.invite(group.id, NAMES, { signal: stop.signal, waiting: () => stop.abort() });
    await assert.rejects(given, (error: unknown) => error instanceof ClientError && error.code === 'timeout');
    assert.equal((await alice.members(group.id)).length, 1);

    const [, carol] = others as [Client, Client];
    const own = await carol.createGroup('of carol');
    let closing: Promise<void> | undefined;
    const closed = carol.invite(own.id, ['alice', 'bob', 'dave'], { waiting: () => (closing ??= carol.close()) });
    await assert.rejects(closed, (error: unknown) => error instanceof ClientError && error.code === 'closed');
    await closing;
  },
);

test('what takes longer than five minutes is not waited for', { timeout: 60_000 }, async () => {
  let waitedMs = 0;
  const invite = async (name: string, who: string): Promise<readonly string[]> => {
    const group = await alice.createGroup(name);
    const waiting = ({ ms }: { readonly ms: number }): void => void (waitedMs += ms);
    return (await alice.invite(group.id, [who], { waiting })).added;
  };
  assert.deepEqual(await invite('second', 'dave'), ['dave']);
  await assert.rejects(invite('third', 'dave'), isRateLimited);
  assert.ok(waitedMs < 5_000, 'the look-up’s own wait at most');
});
