// Ratchet trees too large for their Welcome go by way of a blob: uploaded before the commit, fetched before joining. Here
// every tree is too large, so that three people are enough.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { Status } from '@quicprochat/proto';
import { methods, RpcError } from '@quicprochat/transport';
import { killEverywhere } from './kill-everywhere.ts';
import { Meddler } from './meddler.ts';
import { type Person, World } from './world.ts';

let world: World;
let alice: Person;
let bob: Person;
let carol: Person;
const forAlice = new Meddler();
const forBob = new Meddler();
const small = { treeInlineBytesMax: 1 };

before(async () => {
  world = await World.start();
  [alice, bob, carol] = await Promise.all([
    world.person('alice', { ...small, wrapDialer: forAlice.wrap }),
    world.person('bob', { ...small, wrapDialer: forBob.wrap }),
    world.person('carol', small),
  ]);
});
after(async () => {
  await world[Symbol.asyncDispose]();
});
afterEach(() => {
  forAlice.honest();
  forBob.honest();
});

const count = ({ calls }: Meddler, method: string): number => calls.filter((name) => name.endsWith(method)).length;
const warned = (person: Person, since: number, code: string, words: RegExp): boolean =>
  person.events.slice(since).some((event) => event.type === 'warning' && event.code === code && words.test(event.text));

test('joiners fetch the tree, and hear in order what was said meanwhile; also after a ReInit', async () => {
  const [ups, downs] = [count(forAlice, '/UploadBlob'), count(forBob, '/DownloadBlob')];
  const { id } = await alice.client.createGroup('big', { suite: 'classical' });
  await alice.client.invite(id, ['bob']);
  for (const text of ['one', 'two']) await alice.client.send(id, text);
  await alice.client.invite(id, ['carol']);
  await alice.client.send(id, 'three');
  await bob.sees('big', ['one', 'two', 'three']);
  await carol.sees('big', ['three']);
  assert.ok(count(forAlice, '/UploadBlob') >= ups + 4, 'asked and sent, twice');
  assert.equal(count(forBob, '/DownloadBlob'), downs + 1);
  await alice.client.upgrade(id);
  await alice.client.send(id, 'four');
  for (const one of [bob, carol]) {
    await one.until('moved', async () => (await one.conversation('big')).suiteName === 'post-quantum');
    await one.until('heard', async () => (await one.texts('big')).at(-1) === 'four');
  }
  assert.equal(count(forBob, '/DownloadBlob'), downs + 2);
  await bob.say('big', 'five');
  for (const one of [alice, carol]) await one.until('heard', async () => (await one.texts('big')).at(-1) === 'five');
});

test('while the tree cannot be fetched its channel waits, also over a restart; everything else goes on', async () => {
  const direct = await carol.client.openDirect('bob');
  await bob.joined('@carol');
  let refusals = 0;
  forBob.request(methods.blob.downloadBlob, () => {
    refusals += 1;
    throw new RpcError(Status.UNAVAILABLE, 'not now');
  });
  const { id } = await alice.client.createGroup('waiting');
  await alice.client.invite(id, ['bob', 'carol']);
  await carol.joined('waiting');
  await alice.client.send(id, 'hello');
  await bob.until('asked', () => refusals > 0);
  await carol.client.send(direct.id, 'do you hear me?');
  await bob.sees('carol', ['do you hear me?']);
  await bob.restart();
  await bob.until('asked again', () => refusals > 1);
  await alice.client.send(id, 'still?');
  await carol.sees('waiting', ['hello', 'still?']);
  await assert.rejects(bob.conversation('waiting'), { code: 'unknown-conversation' });
  forBob.honest();
  await bob.restart();
  await bob.sees('waiting', ['hello', 'still?']);
  assert.equal(bob.events.filter(({ type }) => type === 'gap').length, 0);
});

test('a tree that is gone, or is another, lets nobody in: the device asks to be added again', async () => {
  const lies: readonly [string, () => void][] = [
    [
      'gone',
      () =>
        forBob.request(methods.blob.downloadBlob, () => {
          throw new RpcError(Status.NOT_FOUND, 'gone');
        }),
    ],
    [
      'forged',
      () =>
        forBob.answer(methods.blob.downloadBlob, (real) => ({
          ...real,
          chunk: real.chunk.with(9, real.chunk[9]! ^ 1),
        })),
    ],
    ['endless', () => forBob.answer(methods.blob.downloadBlob, (real) => ({ ...real, size: real.size * 1_000n }))],
  ];
  for (const [name, lie] of lies) {
    lie();
    const { id } = await alice.client.createGroup(name);
    const before = bob.events.length;
    await alice.client.invite(id, ['bob']);
    await bob.until('refused', () => warned(bob, before, 'welcome-refused', /tree of its group is gone/));
    forBob.honest();
    await bob.until('asked', () => warned(bob, before, 'rejoin-requested', /./));
    await bob.joined(name);
    await bob.say(name, 'now I am in');
    await alice.sees(name, ['now I am in']);
  }
  // While a ReInit opens a group with a tree that is gone.
  const { id } = await alice.client.createGroup('moved away', { suite: 'classical' });
  await alice.client.invite(id, ['bob']);
  await bob.joined('moved away');
  forBob.request(methods.blob.downloadBlob, () => {
    throw new RpcError(Status.NOT_FOUND, 'gone');
  });
  await alice.client.upgrade(id);
  await bob.until('waits', async () => (await bob.conversation('moved away')).state === 'awaiting-welcome');
  forBob.honest();
  await bob.until('moved', async () => {
    const { state, suiteName } = await bob.conversation('moved away');
    return state === 'active' && suiteName === 'post-quantum';
  });
  await bob.say('moved away', 'after all');
  await alice.sees('moved away', ['after all']);
});

test('a tree that the server cannot hand over now holds up its own channel only', async () => {
  let failed = 0;
  let broken: Uint8Array | undefined;
  forBob.request(methods.blob.downloadBlob, (sent) => {
    broken ??= sent.blobId.slice();
    if (Buffer.compare(sent.blobId, broken) !== 0) return sent;
    failed += 1;
    throw new RpcError(Status.INTERNAL, 'this one is damaged');
  });
  const { id: first } = await alice.client.createGroup('damaged');
  await alice.client.invite(first, ['bob']);
  await bob.until('asked', () => failed > 0);
  const { id: second } = await alice.client.createGroup('sound');
  await alice.client.invite(second, ['bob']);
  await alice.client.send(second, 'can you hear me?');
  await bob.sees('sound', ['can you hear me?']);
  forBob.honest();
  await bob.restart();
  await bob.joined('damaged');
});

test('a server that hands a tree over in crumbs is not listened to', async () => {
  let crumbs = 0;
  forBob.answer(methods.blob.downloadBlob, (real) => {
    crumbs += 1;
    return { ...real, chunk: real.chunk.subarray(0, 1) };
  });
  const { id } = await alice.client.createGroup('crumbs');
  const since = bob.events.length;
  await alice.client.invite(id, ['bob']);
  await bob.until('refused', () => warned(bob, since, 'welcome-refused', /tree of its group is gone/));
  assert.ok(crumbs < 10, `${crumbs} crumbs`);
  forBob.honest();
  await bob.joined('crumbs');
});

test('killed before it could ask to be added again, a device asks when it is back, though nobody speaks', async () => {
  const name = 'killed outside';
  const { id } = await alice.client.createGroup(name, { suite: 'classical' });
  await alice.client.invite(id, ['bob']);
  await bob.joined(name);
  await bob.close();
  const channelId = new Uint8Array(Buffer.from(id, 'hex'));
  let killed = (): void => {};
  const death = new Promise<void>((resolve) => {
    killed = resolve;
  });
  let dead = false;
  bob.wrapStore = (store) => ({
    ...store,
    transaction: (body) => {
      if (dead) throw new Error('killed');
      const result = store.transaction(body);
      dead = store.conversations.get(channelId)?.state === 'awaiting-welcome';
      if (!dead) return result;
      killed();
      throw new Error('killed');
    },
  });
  await bob.open();
  forBob.request(methods.blob.downloadBlob, () => {
    throw new RpcError(Status.NOT_FOUND, 'gone');
  });
  await bob.client.connect();
  await alice.client.upgrade(id);
  await death;
  await bob.crash();
  bob.wrapStore = undefined;
  forBob.honest();
  await bob.open();
  assert.equal((await bob.conversation(name)).state, 'awaiting-welcome');
  await bob.client.connect();
  await bob.until('moved', async () => {
    const { state, suiteName } = await bob.conversation(name);
    return state === 'active' && suiteName === 'post-quantum';
  });
});

test('killed while uploading the tree of a commit, and while fetching it', async () => {
  let current = '';
  let kills = await killEverywhere(
    alice,
    async () => {
      await alice.client.invite(current, ['carol']);
    },
    async (run) => {
      await alice.client.sync();
      await alice.client.invite(current, ['carol']).catch((error: { code: string }) => {
        if (error.code !== 'already-a-member') throw error;
      });
      await alice.client.send(current, 'welcome');
      await carol.sees(`up ${run}`, ['welcome']);
    },
    {
      prepare: async (run) => {
        current = (await alice.client.createGroup(`up ${run}`)).id;
      },
      moments: ['after'],
      whileConnecting: false,
    },
  );
  assert.ok(kills >= 4, `${kills} kills`);
  kills = await killEverywhere(
    bob,
    async (run) => bob.sees(`down ${run}`, ['one', 'two']),
    async (run) => bob.sees(`down ${run}`, ['one', 'two']),
    {
      prepare: async (run) => {
        await bob.close();
        const { id } = await carol.client.createGroup(`down ${run}`);
        await carol.client.invite(id, ['bob']);
        for (const text of ['one', 'two']) await carol.client.send(id, text);
        await carol.client.flush();
      },
      moments: ['before'],
    },
  );
  assert.ok(kills >= 4, `${kills} kills`);
});
