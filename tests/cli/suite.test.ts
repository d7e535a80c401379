// How the keys of a conversation are exchanged, through the command line: post-quantum unless one says otherwise.
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { type Person, texts, World } from './world.ts';

const world = new World();
let alice: Person;
let bob: Person;

before(async () => {
  await world.startServer();
  [alice, bob] = await world.people('alice', 'bob');
});

async function suiteOf(person: Person, group: string): Promise<unknown> {
  const { conversation } = await person.result(['group', 'members', group]);
  return (conversation as Record<string, unknown>)['suiteName'];
}

test('groups are post-quantum, and classical when asked for; everybody sees which', async () => {
  await alice.result(['group', 'create', 'new', 'bob']);
  await alice.result(['group', 'create', '--suite', 'classical', 'old', 'bob']);
  await alice.result(['group', 'create', '--suite', '0x0001', 'older', 'bob']);
  await alice.result(['group', 'create', '--suite', 'pq', 'newer', 'bob']);
  await bob.result(['join']);
  for (const person of [alice, bob]) {
    assert.equal(await suiteOf(person, 'new'), 'post-quantum');
    assert.equal(await suiteOf(person, 'old'), 'classical');
    assert.equal(await suiteOf(person, 'older'), 'classical');
    assert.equal(await suiteOf(person, 'newer'), 'post-quantum');
  }
  await alice.result(['send', 'old', 'in the old style']);
  await alice.result(['send', 'new', 'in the new style']);
  assert.deepEqual(await bob.reads(['old']), ['in the old style']);
  assert.deepEqual(await bob.reads(['new']), ['in the new style']);
});

test('a direct conversation keeps the suite it was begun with, and one that is none is refused', async () => {
  const { conversation } = await bob.result(['dm', '--suite', 'classical', 'alice']);
  assert.equal((conversation as Record<string, unknown>)['suiteName'], 'classical');
  await alice.result(['join']);
  const again = await alice.result(['dm', '--suite', 'pq', 'bob']);
  assert.equal((again['conversation'] as Record<string, unknown>)['suiteName'], 'classical');
  await alice.refused(2, 'usage', ['dm', '--suite', 'rot13', 'bob']);
  await alice.refused(2, 'usage', ['group', 'create', '--suite', '0xf0a1', 'odd']);
});

test('a classical group moves to post-quantum keys: progress, result, notice to the others, and what is refused', async () => {
  await alice.result(['group', 'create', '--suite', 'classical', 'move', 'bob']);
  await bob.result(['join']);
  await alice.result(['send', 'move', 'before']);
  await bob.refused(4, 'not-admin', ['group', 'upgrade', 'move']);
  const lines = await alice.events(['group', 'upgrade', 'move']);
  assert.equal(lines.at(-1)?.['outcome'], 'upgraded');
  assert.deepEqual(
    lines.filter(({ type }) => type === 'upgrade-progress').map((line) => [line['done'], line['total']]),
    [[1, 1]],
  );
  assert.equal((await alice.result(['group', 'upgrade', 'move']))['outcome'], 'already');
  await alice.result(['send', 'move', 'after']);
  const heard = await bob.events(['recv', 'move']);
  assert.deepEqual(
    heard.filter(({ type }) => type === 'suite-changed').map((line) => [line['by'], line['suiteName']]),
    [['alice', 'post-quantum']],
  );
  assert.deepEqual(texts(heard), ['before', 'after']);
  const { conversation, admins } = await bob.result(['group', 'info', 'move']);
  assert.equal((conversation as Record<string, unknown>)['suiteName'], 'post-quantum');
  assert.deepEqual(admins, ['alice']);
});
