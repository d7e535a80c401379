// What a server gets to see: every byte its handlers are given, and every file it keeps. Words, group names and passwords
// must be in neither, in no encoding one would think of. Usernames and sizes are; the search is shown to find those.
import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, test } from 'node:test';
import type { Connection, TransportStream } from '@quicprochat/transport';
import type { Dialer } from '../packages/client/src/server-connection.ts';
import { type Person, World } from './world.ts';

const WORDS = [
  'the harvest is in the red barn',
  'so few potatoes this year',
  'nobody must know of the cellar',
  'Society of the Red Barn',
];

let world: World;
const received: Uint8Array[] = [];
let people: Person[];

before(async () => {
  world = await World.start({ ownProcess: true });
  people = await Promise.all(['alice', 'bob', 'carol'].map((name) => world.person(name, { wrapDialer: recording })));
  const [alice, bob, carol] = people as [Person, Person, Person];
  const direct = await alice.client.openDirect('bob');
  await alice.client.send(direct.id, WORDS[0] ?? '');
  await bob.joined('@alice');
  await bob.say('@alice', WORDS[1] ?? '');
  const group = await alice.client.createGroup(WORDS[3] ?? '', { suite: 'classical' });
  await alice.client.invite(group.id, ['bob', 'carol']);
  await carol.joined(group.id);
  await alice.client.send(group.id, WORDS[2] ?? '');
  await carol.sees(group.id, [WORDS[2] ?? '']);
  await bob.joined(group.id);
  // A commit that removes carries a renewal, and a rename new content.
  await alice.client.renameGroup(group.id, `${WORDS[3]} and Friends`);
  await alice.client.removeMember(group.id, 'carol');
  await bob.restart();
  await bob.client.logout();
  await bob.client.login('bob', bob.password);
  for (const { client } of people) await client.sync();
});

after(async () => {
  await world[Symbol.asyncDispose]();
});

test('nothing the handlers receive holds a word, a group’s name or a password', () => {
  assert.ok(received.length > 50, `${received.length} requests recorded`);
  assert.deepEqual(findings([['requests', Buffer.concat(received)]], secrets()), []);
  assert.notDeepEqual(findings([['requests', Buffer.concat(received)]], ['carol']), [], 'names are looked up in clear');
});

test('nothing the server keeps does, while it runs and after it was killed', async () => {
  const running = await files(world.dataDir);
  await world.killServer();
  const killed = await files(world.dataDir);
  assert.ok(killed.some(([name, bytes]) => name.endsWith('.db') && bytes.length > 0));
  assert.deepEqual(findings([...running, ...killed], secrets()), []);
  assert.notDeepEqual(findings(running, ['alice']), [], 'names of accounts are kept in clear');
});

function secrets(): string[] {
  return [...WORDS, ...people.map(({ password }) => password)];
}

/** Where any of the words stands, as text, hex, base64 at any alignment, or UTF-16. */
function findings(places: readonly (readonly [string, Uint8Array])[], words: readonly string[]): string[] {
  return places.flatMap(([place, bytes]) => {
    const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    return words.flatMap((word) =>
      encodings(word).flatMap((encoded) => (buffer.includes(encoded) ? [`${place}: ${word} as ${encoded}`] : [])),
    );
  });
}

function encodings(word: string): (string | Buffer)[] {
  const text = Buffer.from(word);
  // Of base64 only the middle is the same whatever comes before and after.
  const base64 = [0, 1, 2].map((shift) => {
    const shifted = Buffer.concat([Buffer.alloc(shift), text]).toString('base64');
    return shifted.slice(4, -4);
  });
  const utf16 = Buffer.from(word, 'utf16le');
  return [text, text.toString('hex'), utf16, ...(word.length >= 12 ? base64 : [])];
}

async function files(folder: string): Promise<[string, Uint8Array][]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const names = entries.filter((entry) => entry.isFile()).map((entry) => path.join(entry.parentPath, entry.name));
  return Promise.all(names.map(async (name): Promise<[string, Uint8Array]> => [name, await readFile(name)]));
}

/** Keeps a copy of all a client writes: what is left of it in the server, below TLS, is what the handlers are given. */
function recording(dialer: Dialer): Dialer {
  return {
    server: dialer.server,
    dial: async (options) => {
      const connection = await dialer.dial(options);
      return new Proxy(connection, {
        get: (target, property) => {
          if (property === 'openStream') {
            return (...args: Parameters<Connection['openStream']>) => recordingStream(target.openStream(...args));
          }
          const value: unknown = Reflect.get(target, property, target);
          return typeof value === 'function' ? value.bind(target) : value;
        },
      });
    },
  };
}

function recordingStream(stream: TransportStream | undefined): TransportStream | undefined {
  if (stream === undefined) return undefined;
  return new Proxy(stream, {
    get: (target, property) => {
      if (property === 'write') {
        return (head: Uint8Array, body?: Uint8Array) => {
          received.push(head.slice(), ...(body === undefined ? [] : [body.slice()]));
          return target.write(head, body);
        };
      }
      const value: unknown = Reflect.get(target, property, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}
