// Three people in a group, one server, 100 messages; the server is killed halfway and started again. Everyone reads every
// message of the others exactly once and in each author's order.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { hears, World } from './world.ts';

const MESSAGES = 100;

test('100 messages, the server killed halfway: nothing lost, nothing twice, in order', async () => {
  const world = await new World().startServer();
  const people = await world.people('alice', 'bob', 'carol');
  const [alice, bob, carol] = people;
  await alice.result(['group', 'create', 'crew', 'bob', 'carol']);
  await Promise.all([bob.result(['join']), carol.result(['join'])]);
  const chats = await Promise.all(people.map((person) => person.chat('crew')));

  const said = new Map<string, string[]>(people.map(({ name }) => [name, []]));
  const say = (i: number): void => {
    const at = i % people.length;
    const text = `message ${i} of ${people[at]?.name}`;
    said.get(people[at]?.name ?? '')?.push(text);
    chats[at]?.type(text);
  };
  for (let i = 0; i < MESSAGES / 2; i += 1) say(i);
  // Some have arrived, some are on their way.
  await hears(chats[2] as (typeof chats)[number], 10);
  await world.killServer();
  for (let i = MESSAGES / 2; i < (MESSAGES * 3) / 4; i += 1) say(i);
  await world.startServer();
  for (let i = (MESSAGES * 3) / 4; i < MESSAGES; i += 1) say(i);

  for (const [at, chat] of chats.entries()) {
    const own = people[at]?.name ?? '';
    await hears(chat, MESSAGES - (said.get(own)?.length ?? 0));
    chat.endInput();
    await chat.result();
    for (const [name, texts] of said) {
      if (name === own) continue;
      const heard = chat.events.filter((event) => event.type === 'message' && event['sender'] === name);
      assert.deepEqual(
        heard.map((event) => event['text']),
        texts,
        `${own} hears ${name}`,
      );
    }
  }
  for (const person of people) {
    const history = await person.history('crew');
    assert.equal(history.length, MESSAGES);
    assert.equal(new Set(history).size, MESSAGES);
  }

  const files = readdirSync(world.serverFolder, { recursive: true, withFileTypes: true }).filter((entry) =>
    entry.isFile(),
  );
  for (const file of files) {
    const bytes = readFileSync(path.join(file.parentPath, file.name));
    for (const word of ['message 1', 'of alice', 'the password of'])
      assert.ok(!bytes.includes(word), `${file.name}: ${word}`);
  }
});
