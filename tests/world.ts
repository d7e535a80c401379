// A real world for whole-system tests: a real server over QUIC, in this process or in one of its own, and people whose
// clients keep their state on disk. Everything lives in one temporary folder and ends with the test.
//
//   await using world = await World.start();
//   const alice = await world.person('alice');
//   const chat = await alice.client.openDirect('bob');
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { nodeCrypto } from '@quicprochat/crypto/node';
import type { Client, ClientEvent, Conversation, Message } from '@quicprochat/client/node';
import { findRunning, resolveConfig, restoreServer, type RunningServer, startServer } from '@quicprochat/server';
import { type Connection, systemClock } from '@quicprochat/transport';
import { connectQuic } from '@quicprochat/transport/quic';
import { createClient } from '../packages/client/src/open-client.ts';
import { SUITE_DEFAULT } from '../packages/client/src/profile/suites.ts';
import type { Dialer } from '../packages/client/src/server-connection.ts';
import { openProfile } from '../packages/client/src/store/profile.node.ts';
import type { Store } from '../packages/client/src/store/index.ts';
import { flagsFor, ServerProcess, UNLIMITED } from './server-process.ts';
import { QUICK_STRETCHING } from './wire.ts';

export interface WorldOptions {
  /** Settings of the server by their path, for example `limits.inboxEnvelopes`. */
  readonly settings?: Readonly<Record<string, unknown>>;
  /** Run the server in a process of its own, so that it can be killed. */
  readonly ownProcess?: boolean;
  /** `clockOffsetMs` moves the server's clock too; it runs in this process then. */
  readonly sharesClock?: boolean;
  /** Of the randomness handed to the clients; printed when a test fails. Order of arrival and some key draws are real. */
  readonly seed?: string;
  /** Done when the folder is there and before the server starts for the first time. */
  readonly beforeStart?: (world: World) => Promise<void>;
}

export class World {
  readonly folder: string;
  readonly random: (length: number) => Uint8Array;
  readonly seed: string;
  /** Added to the clients' wall clocks, milliseconds. */
  clockOffsetMs = 0;
  readonly #settings: Readonly<Record<string, unknown>>;
  readonly #ownProcess: boolean;
  readonly #sharesClock: boolean;
  readonly #people: Person[] = [];
  #server: RunningServer | undefined;
  #process: ServerProcess | undefined;
  #port = 0;
  #backups = 0;

  static async start(options: WorldOptions = {}): Promise<World> {
    const world = new World(await mkdtemp(path.join(tmpdir(), 'qpc-world-')), options);
    await options.beforeStart?.(world);
    await world.startServer();
    return world;
  }

  private constructor(folder: string, options: WorldOptions) {
    const { settings = {}, ownProcess = false, sharesClock = false, seed } = options;
    this.folder = folder;
    this.#settings = settings;
    this.#ownProcess = ownProcess;
    this.#sharesClock = sharesClock;
    this.seed = seed ?? Buffer.from(nodeCrypto.random(8)).toString('hex');
    this.random = seededRandom(this.seed);
  }

  get port(): number {
    return this.#port;
  }

  get server(): string {
    return `127.0.0.1:${this.#port}`;
  }

  get dataDir(): string {
    return path.join(this.folder, 'server');
  }

  /** Starts the server, on the port it had before if it had one. */
  async startServer(): Promise<void> {
    const flags = {
      ...UNLIMITED,
      dataDir: this.dataDir,
      listen: `127.0.0.1:${this.#port}`,
      logLevel: 'error',
      shutdownGraceSecs: 1,
      ...this.#settings,
    };
    if (this.#ownProcess) await this.#spawn(flags);
    else {
      const outcome = resolveConfig({ flags, environment: {} });
      if (outcome.kind !== 'config') throw new Error(outcome.problems.join('; '));
      const clock = { ...systemClock, wallMs: () => Date.now() + (this.#sharesClock ? this.clockOffsetMs : 0) };
      this.#server = await startServer(outcome.config, { clock });
      this.#port = this.#server.port;
    }
  }

  async #spawn(flags: Readonly<Record<string, unknown>>): Promise<void> {
    const server = new ServerProcess({ args: flagsFor(flags), onLog: (line) => console.error(line) });
    this.#process = server;
    const outcome = await server.started;
    if (outcome.kind !== 'ready') throw new Error(`qpc-server did not start: ${JSON.stringify(outcome)}`);
    this.#port = outcome.ready.port;
  }

  /** Stops the server in an orderly way. */
  async stopServer(): Promise<void> {
    await this.#server?.close();
    this.#server = undefined;
    await this.killServer('SIGTERM');
  }

  /** The folder of a backup with all secrets, made while the server runs. */
  async backUp(): Promise<string> {
    const target = path.join(this.folder, `backup-${(this.#backups += 1)}`);
    const operator = await findRunning({ dataDir: this.dataDir });
    if (operator === undefined) throw new Error('no server runs');
    await operator.call('backUp', { target, withSecrets: true });
    return target;
  }

  /** The server anew at the same address, with what a backup has and nothing else. */
  async putBack(source: string): Promise<Awaited<ReturnType<typeof restoreServer>>> {
    await this.stopServer();
    await rm(this.dataDir, { recursive: true });
    const request = { source, dataDir: this.dataDir, origin: undefined, storeKey: undefined, nowMs: Date.now() };
    const report = await restoreServer(request, () => {}, new AbortController().signal);
    await this.startServer();
    return report;
  }

  /** Replaces the server by a new one at the same address that knows nothing. */
  async forgetServer(): Promise<void> {
    await this.stopServer();
    await rm(this.dataDir, { recursive: true, force: true });
    await this.startServer();
  }

  /** Ends the server's process at once, as a power failure would. Only with `ownProcess`. */
  async killServer(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const server = this.#process;
    this.#process = undefined;
    await server?.end(signal);
  }

  /** Asks the server's process to stop, and ends it if it still has not after a time. Only with `ownProcess`. */
  async stopServerWithin(ms: number): Promise<void> {
    this.#process?.child.kill('SIGTERM');
    await Promise.race([this.#process?.exited, delay(ms)]);
    await this.killServer();
  }

  /** The server's certificate, PEM. */
  async trustAnchor(): Promise<Uint8Array> {
    return new Uint8Array(await readFile(path.join(this.dataDir, 'cert.pem')));
  }

  dialer(): Dialer {
    return {
      server: this.server,
      dial: async ({ timeoutMs, signal }) =>
        connectQuic({
          host: '127.0.0.1',
          port: this.#port,
          serverName: 'localhost',
          trustAnchor: await this.trustAnchor(),
          connectTimeoutMs: timeoutMs,
          signal,
        }),
    };
  }

  /** Somebody with a registered account, connected. */
  async person(name: string, options: PersonOptions = {}): Promise<Person> {
    const person = await this.stranger(name, options);
    await person.client.connect();
    await person.client.register(name, person.password);
    return person;
  }

  /** Several at once. */
  people<const Names extends readonly string[]>(...names: Names): Promise<{ [Index in keyof Names]: Person }> {
    return this.peopleOf({}, ...names);
  }

  /** Several at once, all with these options. */
  async peopleOf<const Names extends readonly string[]>(
    options: PersonOptions,
    ...names: Names
  ): Promise<{ [Index in keyof Names]: Person }> {
    const people = await Promise.all(names.map((name) => this.person(name, options)));
    return people as { [Index in keyof Names]: Person };
  }

  /** A profile without an account, not connected. */
  async stranger(name: string, options: PersonOptions = {}): Promise<Person> {
    const person = new Person(this, name, options);
    this.#people.push(person);
    await person.open();
    return person;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const person of this.#people) await person.close();
    await this.stopServer();
    await rm(this.folder, { recursive: true, force: true });
  }
}

export interface PersonOptions {
  /** Of the conversations this person begins. Default: the product's. */
  readonly suite?: number;
  /** Ratchet trees above this travel beside their Welcome, bytes. Default: as the product. */
  readonly treeInlineBytesMax?: number;
  /** Stands between the engine and its store, for faults. */
  readonly wrapStore?: (store: Store) => Store;
  /** Stands between the engine and the network. */
  readonly wrapDialer?: (dialer: Dialer) => Dialer;
}

export class Person {
  readonly world: World;
  readonly name: string;
  readonly password: string;
  /** Every event of the current client, in order. */
  events: ClientEvent[] = [];
  wrapStore: ((store: Store) => Store) | undefined;
  wrapDialer: ((dialer: Dialer) => Dialer) | undefined;
  readonly #suite: number;
  readonly #treeInlineBytesMax: number | undefined;
  #client: Client | undefined;
  #store: Store | undefined;
  #connection: Connection | undefined;

  constructor(world: World, name: string, options: PersonOptions) {
    const { suite = SUITE_DEFAULT, treeInlineBytesMax, wrapStore, wrapDialer } = options;
    this.world = world;
    this.name = name;
    this.password = `password of ${name}`;
    this.wrapStore = wrapStore;
    this.wrapDialer = wrapDialer;
    this.#suite = suite;
    this.#treeInlineBytesMax = treeInlineBytesMax;
  }

  get folder(): string {
    return path.join(this.world.folder, this.name);
  }

  get client(): Client {
    if (this.#client === undefined) throw new Error(`${this.name} is not running`);
    return this.#client;
  }

  /** The store below any wrapper, to look at. */
  get store(): Store {
    if (this.#store === undefined) throw new Error(`${this.name} is not running`);
    return this.#store;
  }

  /** Opens the profile. */
  async open(): Promise<Client> {
    const { store } = await openProfile({ folder: this.folder });
    this.#store = store;
    const { world } = this;
    this.events = [];
    const real = world.dialer();
    const dialer: Dialer = {
      server: real.server,
      dial: async (options) => (this.#connection = await real.dial(options)),
    };
    this.#client = createClient(
      {
        crypto: nodeCrypto,
        random: world.random,
        now: () => Date.now() + world.clockOffsetMs,
        clock: systemClock,
        log: { debug: () => {}, warn: (message, detail) => this.#warnings.push({ message, detail }) },
        suite: this.#suite,
        passwordStretching: QUICK_STRETCHING,
        ...(this.#treeInlineBytesMax === undefined ? {} : { treeInlineBytesMax: this.#treeInlineBytesMax }),
      },
      this.wrapStore === undefined ? store : this.wrapStore(store),
      this.wrapDialer === undefined ? dialer : this.wrapDialer(dialer),
    );
    const { events } = this;
    this.#client.on((event) => void events.push(event));
    return this.#client;
  }

  readonly #warnings: { message: string; detail: unknown }[] = [];

  get warnings(): readonly { message: string; detail: unknown }[] {
    return this.#warnings;
  }

  async close(): Promise<void> {
    await this.#client?.close();
    this.#client = undefined;
    this.#store?.close();
    this.#store = undefined;
  }

  /** Ends the client as a crash would: the network is gone first, so nothing more is said to the server. */
  async crash(): Promise<void> {
    this.cut();
    await this.close();
  }

  /** Drops the connection as a failing network would. */
  cut(): void {
    this.#connection?.close(0, 'cut');
    this.#connection = undefined;
  }

  async restart(): Promise<void> {
    await this.close();
    await this.open();
    await this.client.connect();
  }

  /** The conversation with a person or group, by whatever `findConversation` takes. */
  async conversation(reference: string): Promise<Conversation> {
    return this.client.findConversation(reference);
  }

  async say(reference: string, text: string): Promise<Message> {
    const { id } = await this.conversation(reference);
    return this.client.send(id, text);
  }

  /** Texts of a conversation in order of display. */
  async texts(reference: string): Promise<string[]> {
    const { id } = await this.conversation(reference);
    return (await this.client.history(id, { limit: 10_000 })).map(({ text }) => text);
  }

  /** Resolves when the condition holds; it is asked after every event. */
  async until(what: string, condition: () => boolean | Promise<boolean>, timeoutMs = 15_000): Promise<void> {
    const { client } = this;
    let wake = (): void => {};
    const stop = client.on(() => wake());
    const deadline = Date.now() + timeoutMs;
    try {
      while (!(await condition())) {
        const left = deadline - Date.now();
        if (left <= 0) {
          throw new Error(`${this.name} waited in vain for: ${what} (seed ${this.world.seed})\n${this.story()}`);
        }
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, Math.min(left, 250));
          wake = () => {
            clearTimeout(timer);
            resolve();
          };
        });
      }
    } finally {
      stop();
    }
  }

  /** Waits until this person is in a conversation. */
  async joined(reference: string): Promise<Conversation> {
    await this.until(`being in ${reference}`, async () => {
      try {
        return (await this.conversation(reference)).state === 'active';
      } catch {
        return false;
      }
    });
    return this.conversation(reference);
  }

  /** Waits until this person sees exactly these texts in a conversation. */
  async sees(reference: string, texts: readonly string[], timeoutMs?: number): Promise<void> {
    await this.until(
      `${JSON.stringify(texts)} in ${reference}`,
      async () => {
        try {
          return JSON.stringify(await this.texts(reference)) === JSON.stringify(texts);
        } catch {
          return false;
        }
      },
      timeoutMs,
    );
  }

  /** What happened to this person, for failing tests. */
  story(): string {
    const lines = this.events.map((event) => JSON.stringify(event).slice(0, 300));
    return [...lines, ...this.#warnings.map((warning) => JSON.stringify(warning))].join('\n');
  }
}

/** Deterministic bytes from a seed: SHA-256 in counter mode. For tests only. */
function seededRandom(seed: string): (length: number) => Uint8Array {
  let counter = 0;
  return (length) => {
    const out = new Uint8Array(length);
    for (let at = 0; at < length; at += 32) {
      counter += 1;
      const block = createHash('sha256').update(`${seed}/${counter}`).digest();
      out.set(block.subarray(0, Math.min(32, length - at)), at);
    }
    return out;
  };
}
