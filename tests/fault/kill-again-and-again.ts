// One fault run: a world, the load, the kills, and the reckoning at the end.
//
//   accounts → load ─────────────────────────────────────────→ stop → drain → orderly end → books of the database
//                ↑ kill, start again, kill, kill while starting, …
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { logHashGenesis, logHashNext } from '@quicprochat/core';
import { decodeHex, encodeHex } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { methods, type RpcClient } from '@quicprochat/transport';
import { openDatabase } from '../../packages/server/src/store/sqlite-database.node.ts';
import { type Person as WorldPerson, World } from '../world.ts';
import { type HashChain, violations } from './history.ts';
import * as load from './load.ts';
import { Random } from '../random.ts';
import { connect, Device, login, newPerson, type Person, register, type Site } from '../wire.ts';

export interface FaultOptions {
  readonly kills: number;
  readonly seed: string;
  /** Whether people with the real client take part; they take time. */
  readonly people: boolean;
  /** Progress, a line at a time. */
  readonly say: (line: string) => void;
}

export interface FaultOutcome {
  readonly seed: string;
  readonly database: 'SQLite' | 'SQLCipher';
  readonly elapsedMs: number;
  readonly counts: Readonly<Record<string, number>>;
  readonly violations: readonly string[];
}

const ORIGIN = 'fault.test';
const PASSWORD = 'a password for nobody';
/** The server has so long, of the time of the whole run, for each death and what follows. */
const MS_PER_KILL = 30_000;
const MS_BESIDES = 120_000;

class LiveSite implements Site {
  readonly origin = ORIGIN;
  readonly trustAnchor: Uint8Array;
  readonly #world: World;
  #up = Promise.withResolvers<void>();
  #down = new AbortController();

  constructor(world: World, trustAnchor: Uint8Array) {
    this.#world = world;
    this.trustAnchor = trustAnchor;
    this.#up.resolve();
  }

  get port(): number {
    return this.#world.port;
  }

  get down(): AbortSignal {
    return this.#down.signal;
  }

  whenUp(): Promise<void> {
    return this.#up.promise;
  }

  goDown(): void {
    this.#up = Promise.withResolvers();
    this.#down.abort();
  }

  comeUp(): void {
    this.#down = new AbortController();
    this.#up.resolve();
  }
}

const CHAIN: HashChain = {
  genesis: (channel) => encodeHex(logHashGenesis(crypto, bytesOf(channel))),
  next: (previous, position, payloadHash) =>
    encodeHex(logHashNext(crypto, bytesOf(previous), BigInt(position), bytesOf(payloadHash))),
};

export async function killAgainAndAgain({ kills, seed, people: withPeople, say }: FaultOptions): Promise<FaultOutcome> {
  const started = performance.now();
  const random = new Random(`${seed}/load`);
  const moments = new Random(`${seed}/kills`);
  const administrator = newPerson(ORIGIN, 'administrator');
  const isEncrypted = moments.below(2) === 0;
  const settings: Record<string, unknown> = {
    origin: ORIGIN,
    metricsListen: 'off',
    logLevel: 'warn',
    admins: encodeHex(administrator.identity.publicKey),
    'limits.inboxEnvelopes': 1_000_000,
    'limits.inboxBytes': 2 ** 40,
  };
  await using world = await World.start({
    ownProcess: true,
    seed,
    settings,
    beforeStart: async ({ folder }) => {
      if (!isEncrypted) return;
      settings['storeKeyFile'] = path.join(folder, 'store-key');
      await writeFile(path.join(folder, 'store-key'), encodeHex(random.bytes(32)));
    },
  });
  const site = new LiveSite(world, await world.trustAnchor());
  const recorder = new load.Recorder();
  say(`seed ${seed}, ${kills} kills, ${isEncrypted ? 'SQLCipher' : 'SQLite'}`);

  // People.
  const names = new Map<string, string>();
  const newcomer = async (rpc: RpcClient, person: Person): Promise<{ person: Person; token: Uint8Array }> => {
    names.set(encodeHex(person.identity.publicKey), person.username);
    await register(rpc, ORIGIN, person, PASSWORD);
    return { person, token: await login(rpc, ORIGIN, person, PASSWORD) };
  };
  const rpc = await connect(site);
  const health = await rpc.call(methods.p2p.health, {});
  const members = [];
  for (const name of ['one', 'two', 'three']) members.push(await newcomer(rpc, newPerson(ORIGIN, name)));
  const admin = await newcomer(rpc, administrator);
  const victim = await newcomer(rpc, newPerson(ORIGIN, 'victim'));
  rpc.close();
  const sdk = withPeople ? await peopleWhoChat(world) : [];

  const stop = new AbortController();
  const work: load.Work = {
    site,
    receiptKey: health.receiptKey,
    log: { origin: health.logOrigin, key: health.logKey, vrfKey: health.logVrfKey, serverOrigin: ORIGIN },
    recorder,
    random,
    channelId: random.bytes(16),
    stop: stop.signal,
    inboxName: (identityKey) => names.get(encodeHex(identityKey)) ?? encodeHex(identityKey),
  };
  const everyone = [...members, admin];
  const devices = everyone.map(({ person, token }) => {
    const inbox = person.username;
    return new Device(site, person, token, inbox, (envelope, reading) => recorder.take(inbox, reading, envelope));
  });
  // More connections of the same devices, so that what races does not wait in line.
  const others = members.map(({ person, token }) => new Device(site, person, token, person.username));
  const [one, two, three, boss] = devices;
  const [one2, two2, three2] = others;
  if (!one || !two || !three || !boss || !one2 || !two2 || !three2) throw new Error('somebody is missing');
  await one.insist((rpc) =>
    rpc.call(methods.channel.createChannel, { kind: { case: 'group', value: { channelId: work.channelId } } }),
  );
  const people = everyone.map(({ person }) => person);
  const first = { messageId: random.bytes(16), payload: load.envelope(random, 200), after: 0n };
  await load.submit(work, one, first, people.slice(1));

  // The load, and the kills meanwhile.
  const said = new Map(sdk.map((person) => [person.name, [] as string[]]));
  const speak = async (): Promise<void> => {
    await Promise.all(
      sdk.map(async (person) => {
        const texts = said.get(person.name) ?? [];
        texts.push(`${person.name} ${texts.length}`);
        await person.say('chat', texts.at(-1) ?? '');
      }),
    );
  };
  const blobs = load.uploadBlobs(work, three2);
  const accounts = load.registerAccounts(work, two2, Math.ceil(kills / 3));
  const stopWatching = new AbortController();
  const watching = load.watchLog({ ...work, stop: stopWatching.signal }, three);
  watching.catch(() => {});
  const working = Promise.all([
    ...devices.map((device) => load.acknowledge(work, device)),
    load.send(work, one, people),
    load.send(work, two, people),
    load.send(work, three2, people),
    load.commit(work, one2),
    load.commit(work, two2),
    load.commit(work, three),
    load.uploadKeyPackages(work, one),
    load.fetchKeyPackages(work, two, one.person),
    load.fetchKeyPackages(work, three, one.person),
    load.fetchKeyPackages(work, boss, one.person),
    load.revokeDevices(work, one2),
    load.ban(work, boss, victim.person, victim.token),
    load.putPushTokens(work, two2),
    blobs,
    accounts,
  ]);
  let early = 0;
  let stopping = 0;
  const killing = (async (): Promise<void> => {
    for (let kill = 1; kill <= kills; kill++) {
      // Most of what can go wrong goes wrong early after a start, or under full load: a slow machine gets the time for it.
      if (moments.below(5) === 0) await later(moments.below(150));
      else await someWork(recorder, 10 + moments.below(100), moments.below(30));
      await speak();
      if (moments.below(6) === 0) {
        // In the middle of an orderly end, whose answers count like all others.
        stopping += 1;
        await world.stopServerWithin(moments.below(400));
        site.goDown();
        for (const person of sdk) person.cut();
      } else {
        site.goDown();
        for (const person of sdk) person.cut();
        await world.killServer();
      }
      if (moments.below(5) === 0) {
        early += 1;
        const starting = world.startServer().catch(() => {});
        await later(moments.below(1_200));
        await world.killServer();
        await starting;
      }
      await world.startServer();
      site.comeUp();
      if (kill % 5 === 0 || kill === kills) {
        const { promised, lost, accepted, keyPackages } = recorder;
        const counts = `${promised.length} promises, ${accepted.length} commits, ${keyPackages.handedOut.length} KeyPackages`;
        say(`kill ${kill} of ${kills}: ${counts}, ${lost} answers lost`);
      }
    }
    await later(300);
  })();
  const late = deadline(kills * MS_PER_KILL + MS_BESIDES);
  await Promise.race([killing, late.passed, working.then(() => killing)]);
  stop.abort();
  await Promise.race([working, late.passed]);

  // Reckoning, at first from outside.
  const settle = async (): Promise<void> => {
    await load.emptyShelf(work, two, one.person);
    await load.checkBlobs(work, one2, await blobs);
    await load.checkBan(work, boss, victim.person, victim.token);
    await load.checkDevices(work, one);
    for (const person of [...people, ...(await accounts)]) await load.checkAccount(work, two, person);
    stopWatching.abort();
    await watching;
    for (const device of devices) await load.readToTheEnd(work, device);
    recorder.observations.push(...(await whatPeopleMiss(sdk, said)));
  };
  await Promise.race([settle(), late.passed]);
  for (const device of [...devices, ...others]) await device.close();
  await world.stopServer();
  recorder.observations.push(...(await whatTheBooksSay(world, settings['storeKeyFile'], recorder)));
  late.cancel();
  const total = [...said.values()].reduce((sum, texts) => sum + texts.length, 0);
  return {
    seed,
    database: isEncrypted ? 'SQLCipher' : 'SQLite',
    elapsedMs: Math.round(performance.now() - started),
    counts: {
      kills: kills + early,
      'kills while starting': early,
      'kills while stopping': stopping,
      'answers lost': recorder.lost,
      'envelopes sent': recorder.sent.size,
      'envelopes promised': recorder.promised.length,
      'envelopes delivered': recorder.delivered.length,
      'commits accepted': new Set(recorder.accepted.map(({ position }) => position)).size,
      'KeyPackages handed out': recorder.keyPackages.handedOut.length,
      'KeyPackage fetches lost': recorder.keyPackages.lostFetches,
      'blob bytes': recorder.blobBytes,
      'accounts registered': recorder.accounts,
      'entries of the log': recorder.logEntries,
      'things with one state': recorder.registers.length,
      'messages through the SDK': total,
    },
    violations: violations(recorder, CHAIN),
  };
}

async function peopleWhoChat(world: World): Promise<readonly WorldPerson[]> {
  const people = await world.people('alice', 'bob', 'carol');
  const [alice] = people;
  const { id } = await alice.client.createGroup('chat');
  await alice.client.invite(id, ['bob', 'carol']);
  for (const person of people) await person.joined('chat');
  for (const person of people) await person.client.connect({ keepTrying: true });
  return people;
}

/** Exactly-once on the screens of people with the real client. */
async function whatPeopleMiss(people: readonly WorldPerson[], said: ReadonlyMap<string, string[]>): Promise<string[]> {
  const found: string[] = [];
  const total = [...said.values()].flat().length;
  for (const person of people) {
    const texts = async (): Promise<string[]> => (await person.texts('chat')).filter((text) => / \d+$/.test(text));
    await person.until('everything that was said', async () => (await texts()).length >= total, 60_000).catch(() => {});
    const seen = await texts();
    for (const [author, words] of said) {
      const heard = seen.filter((text) => text.startsWith(`${author} `));
      if (heard.join() === words.join()) continue;
      const missing = words.filter((text) => !heard.includes(text));
      const twice = heard.filter((text, at) => heard.indexOf(text) !== at);
      found.push(
        `${person.name} heard of ${author}: missing ${missing.join(', ') || 'nothing'}, twice ${twice.join(', ') || 'nothing'}, in order ${heard.join(', ')}`,
      );
    }
  }
  return found;
}

/** The database after an orderly end: whole, and counting right. */
async function whatTheBooksSay(world: World, keyFile: unknown, recorder: load.Recorder): Promise<string[]> {
  const key = typeof keyFile === 'string' ? bytesOf((await readFile(keyFile, 'utf8')).trim()) : undefined;
  const db = openDatabase({ path: path.join(world.dataDir, 'qpc.db'), key }, { cacheKiB: 2_000 });
  try {
    const rows = (sql: string): unknown[] => db.prepare(sql).all();
    const token = db.prepare('SELECT token FROM push_token').pluck().get();
    recorder.read('push token', typeof token === 'string' ? token : 'none');
    const integrity = rows('PRAGMA integrity_check').map((row) => JSON.stringify(row));
    return [
      ...integrity.filter((line) => line !== '{"integrity_check":"ok"}'),
      ...rows('PRAGMA foreign_key_check').map((row) => `a dangling reference: ${JSON.stringify(row)}`),
      ...rows(
        `SELECT id, refs, (SELECT count(*) FROM inbox WHERE message = message.id) AS rows
         FROM message WHERE refs <> rows OR refs < 1`,
      ).map((row) => `a message counted wrong: ${JSON.stringify(row)}`),
      ...rows(
        `SELECT device, depth, bytes, count(counted) AS rows, coalesce(sum(counted), 0) AS sum
         FROM head LEFT JOIN inbox USING (device) GROUP BY device HAVING depth <> rows OR bytes <> sum`,
      ).map((row) => `an inbox counted wrong: ${JSON.stringify(row)}`),
      ...rows(
        `SELECT id FROM payload WHERE id NOT IN (SELECT large FROM message WHERE large IS NOT NULL)
         AND id NOT IN (SELECT renewal FROM message WHERE renewal IS NOT NULL)`,
      ).map((row) => `a payload of nobody: ${JSON.stringify(row)}`),
    ];
  } finally {
    db.close();
  }
}

/** Waits for so many answers, and a moment more. */
async function someWork({ promised }: load.Recorder, answers: number, moreMs: number): Promise<void> {
  const enough = promised.length + answers;
  for (let waitedMs = 0; promised.length < enough && waitedMs < WORK_MS_MAX; waitedMs += 10) await later(10);
  await later(moreMs);
}

const WORK_MS_MAX = 20_000;

function later(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function deadline(ms: number): { passed: Promise<never>; cancel: () => void } {
  let cancel = (): void => {};
  const passed = new Promise<never>((_, reject) => {
    const timer = setTimeout(() => reject(new Error(`the run took longer than ${ms / 1000} s`)), ms);
    cancel = () => clearTimeout(timer);
  });
  passed.catch(() => {});
  return { passed, cancel };
}

function bytesOf(hex: string): Uint8Array {
  const bytes = decodeHex(hex);
  if (bytes === undefined) throw new Error('not hex digits');
  return bytes;
}
