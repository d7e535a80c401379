/**
 * `qpc demo`: a server and four people, each a process of its own with its own profile, doing what people do. Every step
 * checks what really arrived (texts, exactly once, in order) and fails the demo when it is not so.
 */
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { CommandContext } from '../command.ts';
import { CliError, ExitCode } from '../errors.ts';
import type { JsonFields, Output, Segment } from '../output.ts';
import {
  END_WITH_PARENT,
  JsonProgram,
  qpcCommand,
  serverProgram,
  type JsonEvent,
  type Surroundings,
} from './processes.ts';

/** The whole demo, in case something hangs. It takes a few seconds. */
const DEMO_TIMEOUT_MS = 120_000;
/** How long a process may take to end once asked, before it is killed. */
const END_TIMEOUT_MS = 3000;

const GROUP = 'Harbour';

export async function runDemo(context: CommandContext, options: { readonly keep: boolean }): Promise<JsonFields> {
  const stage = await Stage.open(context);
  const beganAt = performance.now();
  try {
    await play(stage);
  } catch (error) {
    context.signal.throwIfAborted();
    if (error instanceof CliError) throw error;
    const message = error instanceof Error ? error.message : String(error);
    throw new CliError(
      ExitCode.bug,
      'demo-failed',
      `the demo failed at "${stage.currentStep}": ${message}`,
      options.keep ? `look into ${stage.folder}` : 'run "qpc demo --keep" to keep its folder and report what you see',
    );
  } finally {
    await stage.close(options.keep);
  }
  const ms = Math.round(performance.now() - beganAt);
  context.out.say('');
  context.out.say({ text: `All ${stage.steps} steps done and checked in ${(ms / 1000).toFixed(1)} s.`, style: 'bold' });
  if (options.keep) context.out.say('Everything is in ', stage.folder);
  else context.out.say('Yours next: qpc-server in one terminal, qpc register-user NAME in another.');
  return { steps: stage.steps, ms, ...(options.keep ? { folder: stage.folder } : {}) };
}

/** The script. */
async function play(stage: Stage): Promise<void> {
  const names = ['alice', 'bob', 'carol', 'dave'] as const;
  const [alice, bob, carol, dave] = names.map((name) => stage.person(name)) as [Person, Person, Person, Person];
  const everyone = [alice, bob, carol, dave];

  await stage.step('server', 'A server starts on a free port, with a certificate of its own', async (tell) => {
    await stage.startServer();
    tell(
      `qpc-server listens on 127.0.0.1:${stage.port}; each qpc below is a process of its own and trusts only its certificate`,
    );
  });

  await stage.step('register', 'Alice, Bob, Carol and Dave make accounts', async (tell) => {
    const accounts = await Promise.all(everyone.map((person) => person.register()));
    const keys = accounts.map((account) => String(account['identityKey']));
    check(new Set(keys).size === 4 && keys.every((key) => /^[0-9a-f]{64}$/u.test(key)), 'each has an identity key');
    for (const [i, person] of everyone.entries())
      tell(`${person.name.padEnd(6)} identity key ${keys[i]?.slice(0, 16)}…`);
  });

  await stage.step('restart', "Dave's qpc is killed before anyone has invited him", async (tell) => {
    const waiting = dave.start(['recv', '--follow']);
    await waiting.event('the connection', (event) => event.type === 'connection' && event['state'] === 'online');
    waiting.kill('SIGKILL');
    const { signal } = await waiting.exited;
    check(signal === 'SIGKILL', 'it was killed');
    tell('the keys he published with his registration must survive that');
  });

  await stage.step('direct', 'Alice and Bob write to each other, both ways', async (tell) => {
    await alice.run(['dm', 'bob', 'Bob, are you there?']);
    const first = await bob.run(['recv', '--wait', '--count', '1']);
    tell.heard(bob, ofType(first, 'message'));
    check(texts(first).join() === 'Bob, are you there?', 'Bob reads what Alice wrote');
    const [atAlice, atBob] = await Promise.all([alice.chat('@bob'), bob.chat('@alice')]);
    const fromAlice = ['Shall we make a group?', 'Carol and Dave too.'];
    const fromBob = ['Here I am.', 'Yes, do.'];
    for (const text of fromAlice) atAlice.type(text);
    for (const text of fromBob) atBob.type(text);
    await Promise.all([atAlice.hears(fromBob.length), atBob.hears(fromAlice.length)]);
    await Promise.all([atAlice.leave(), atBob.leave()]);
    check(same(texts(atBob.events), fromAlice), 'Bob reads all of it, once and in order');
    check(same(texts(atAlice.events), fromBob), 'Alice reads all of it, once and in order');
    tell.heard(alice, ofType(atAlice.events, 'message'));
    tell.heard(bob, ofType(atBob.events, 'message'));
  });

  await stage.step('group', `Alice makes the group "${GROUP}" and invites the other three at once`, async (tell) => {
    const created = await alice.run(['group', 'create', GROUP, 'bob', 'carol', 'dave']);
    const added = created.at(-1)?.['added'];
    check(Array.isArray(added) && same([...added].sort(), ['bob', 'carol', 'dave']), 'three were added in one commit');
    const joins = await Promise.all([bob, carol, dave].map((person) => person.run(['join'])));
    for (const [i, person] of [bob, carol, dave].entries()) {
      const joined = ofType(joins[i] ?? [], 'joined').find((event) => event['name'] === GROUP);
      check(joined?.['memberCount'] === 4, `${person.name} is in a group of four`);
      tell(
        `${person.name} joined, invited by ${String(joined?.['invitedBy'])}${person === dave ? ' (after the restart)' : ''}`,
      );
    }
    await alice.run(['group', 'admin', GROUP, 'bob']);
  });

  let chats = await stage.step('chat', 'All four talk in the group at once', async (tell) => {
    const open = await Promise.all(everyone.map((person) => person.chat(GROUP)));
    await talk(open, (chat, i) => LINES[chat.person.name]?.[i] ?? `line ${i}`, 2);
    for (const chat of open.slice(0, 1)) tell.heard(chat.person, ofType(chat.events, 'message'));
    tell('each of the four has read the six lines of the others, once and in order');
    return open;
  });

  await stage.step('race', 'Alice and Bob both change the group at the same moment', async (tell) => {
    const [atAlice, atBob] = [chatOf(chats, alice), chatOf(chats, bob)];
    const outcomes = Promise.all([
      atAlice.command(`group admin ${GROUP} carol`),
      atBob.command(`group admin ${GROUP} dave`),
    ]);
    await outcomes;
    await talk(chats, (chat) => `${chat.person.name} after the race`, 1);
    const rosters = await Promise.all(chats.map((chat) => chat.command(`group members ${GROUP}`)));
    const epochs = rosters.map((done) => field(done['conversation'], 'epoch'));
    check(new Set(epochs).size === 1, 'all four are in the same epoch');
    for (const chat of chats) {
      const admins = ofType(chat.events, 'member').filter((event) => event['admin'] === true);
      check(
        new Set(admins.map((event) => event['username'])).size === 4,
        `${chat.person.name} sees four administrators`,
      );
    }
    tell(
      `Alice made Carol an administrator, Bob made Dave one: the server took one commit first, the other was made anew`,
    );
    tell(`all four agree on both, in epoch ${String(epochs[0])}`);
  });

  await stage.step('crash', 'The server is killed while everyone is talking, and started again', async (tell) => {
    const heardBefore = chats.map((chat) => texts(chat.events).length);
    for (const chat of chats) chat.type(`${chat.person.name} just before`);
    await stage.killServer();
    for (const chat of chats) chat.type(`${chat.person.name} while it is away`);
    await Promise.all(
      chats.map((chat) => chat.event('the line was kept', (event) => event.type === 'queued', chat.events.length - 1)),
    );
    await stage.startServer();
    for (const chat of chats) chat.type(`${chat.person.name} afterwards`);
    await Promise.all(chats.map((chat, i) => chat.hears((heardBefore[i] ?? 0) + 9)));
    for (const [i, chat] of chats.entries()) {
      for (const other of chats) {
        if (other === chat) continue;
        const heard = texts(chat.events.filter((event) => event['sender'] === other.person.name)).slice(-3);
        const said = ['just before', 'while it is away', 'afterwards'].map((when) => `${other.person.name} ${when}`);
        check(same(heard, said), `${chat.person.name} reads all of ${other.person.name}, once and in order`);
      }
      check(texts(chat.events).length === (heardBefore[i] ?? 0) + 9, `${chat.person.name} reads nothing twice`);
    }
    tell('what was written while it was away was kept, and arrived: nothing lost, nothing twice');
  });

  await stage.step('remove', 'Alice removes Dave, who cannot read what is said afterwards', async (tell) => {
    const atDave = chatOf(chats, dave);
    const remaining = chats.filter((chat) => chat !== atDave);
    await chatOf(chats, alice).command(`group remove ${GROUP} dave`);
    const removed = await atDave.event('the removal', (event) => event.type === 'removed');
    check(removed['by'] === 'alice', 'Dave is told who removed him');
    const secret = 'Now that Dave is gone: the key is under the mat.';
    const heardBefore = remaining.map((chat) => texts(chat.events).length);
    chatOf(chats, alice).type(secret);
    await Promise.all(
      remaining.map((chat, i) => (chat.person === alice ? Promise.resolve() : chat.hears((heardBefore[i] ?? 0) + 1))),
    );
    await Promise.all(chats.map((chat) => chat.leave()));
    chats = remaining;
    const late = await dave.run(['recv']);
    const past = await dave.run(['history', GROUP, '--limit', '500']);
    check(!texts([...late, ...past, ...atDave.events]).includes(secret), 'Dave has not read it');
    check(texts(past).length > 0, 'Dave can still read what was said while he was in');
    const refused = await dave.fail(['send', GROUP, 'Hello?']);
    check(refused.exitCode === ExitCode.localState, 'Dave cannot write to the group');
    tell(`Bob and Carol read: ${secret}`);
    tell('Dave reads nothing new, and cannot write to the group');
  });

  await stage.step('blind', 'What the server has on disk holds no word of it and no password', async (tell) => {
    await stage.stopServer();
    const { files, bytes } = await stage.searchServer([
      ...Object.values(LINES).flat(),
      'under the mat',
      'Bob, are you there?',
      'just before',
      ...everyone.map((person) => person.password),
    ]);
    tell(`${files} files, ${bytes} bytes searched`);
  });
}

const LINES: Readonly<Record<string, readonly string[]>> = {
  alice: ['The boat leaves at nine.', 'Bring something warm.'],
  bob: ['I bring the bread.', 'And a blanket.'],
  carol: ['Then I bring the cheese.', 'See you at the pier.'],
  dave: ['Tea from me.', 'I may be late.'],
};

/** Everyone types `count` lines; everyone must hear all lines of the others, in each one's order. */
async function talk(chats: readonly Chat[], line: (chat: Chat, i: number) => string, count: number): Promise<void> {
  const before = chats.map((chat) => texts(chat.events).length);
  for (let i = 0; i < count; i += 1) for (const chat of chats) chat.type(line(chat, i));
  await Promise.all(chats.map((chat, i) => chat.hears((before[i] ?? 0) + count * (chats.length - 1))));
  for (const chat of chats) {
    for (const other of chats) {
      if (other === chat) continue;
      const heard = texts(chat.events.filter((event) => event['sender'] === other.person.name)).slice(-count);
      const said = Array.from({ length: count }, (_, i) => line(other, i));
      check(same(heard, said), `${chat.person.name} reads ${other.person.name}'s lines, once and in order`);
    }
  }
}

function chatOf(chats: readonly Chat[], person: Person): Chat {
  const chat = chats.find((candidate) => candidate.person === person);
  if (!chat) throw new Error(`${person.name} is not in the chat`);
  return chat;
}

/** A step says what it did through this. */
interface Tell {
  (line: string): void;
  heard(person: Person, messages: readonly JsonEvent[]): void;
}

/** Folder, server and people of one demo; ends all of them whatever happens. */
class Stage {
  readonly folder: string;
  port = 0;
  steps = 0;
  currentStep = '';
  readonly #out: Output;
  readonly #surroundings: Surroundings;
  readonly #programs: JsonProgram[] = [];
  readonly #stop: () => void;
  #caCert = '';
  #server: JsonProgram | undefined;

  static async open(context: CommandContext): Promise<Stage> {
    return new Stage(context, await mkdtemp(path.join(tmpdir(), 'qpc-demo-')));
  }

  constructor({ out, signal }: CommandContext, folder: string) {
    this.folder = folder;
    this.#out = out;
    const env: NodeJS.ProcessEnv = { ...process.env, NODE_COMPILE_CACHE: path.join(folder, 'cache') };
    for (const name of Object.keys(env)) if (name.startsWith('QPC_')) delete env[name];
    this.#surroundings = {
      env,
      signal: AbortSignal.any([signal, AbortSignal.timeout(DEMO_TIMEOUT_MS)]),
      started: (program) => this.#programs.push(program),
    };
    const killAll = (): void => {
      for (const program of this.#programs) program.kill('SIGKILL');
    };
    process.on('exit', killAll);
    this.#stop = () => process.off('exit', killAll);
  }

  person(name: string): Person {
    return new Person(name, this);
  }

  start(name: string, words: readonly string[]): JsonProgram {
    const connection = ['--server', `127.0.0.1:${this.port}`, '--ca-cert', this.#caCert];
    return new JsonProgram(name, qpcCommand([...connection, ...words]), this.#surroundings);
  }

  /** Runs one step and says how long it took. */
  async step<T>(name: string, title: string, body: (tell: Tell) => Promise<T>): Promise<T> {
    this.currentStep = title;
    const details: Segment[][] = [];
    const tell: Tell = Object.assign((line: string) => void details.push([line]), {
      heard: (person: Person, messages: readonly JsonEvent[]) => {
        for (const message of messages) {
          details.push([
            { text: `${person.name} reads `, style: 'dim' },
            { text: String(message['sender']), style: 'bold' },
            `: ${String(message['text'])}`,
          ]);
        }
      },
    });
    const beganAt = performance.now();
    try {
      const value = await body(tell);
      const ms = Math.round(performance.now() - beganAt);
      this.steps += 1;
      this.#out.event(
        'step',
        { name, title, ok: true, ms },
        { text: '✓ ', style: 'green' },
        { text: title, style: 'bold' },
        { text: `  ${ms} ms`, style: 'dim' },
      );
      for (const detail of details) this.#out.say('    ', ...detail);
      return value;
    } catch (error) {
      const ms = Math.round(performance.now() - beganAt);
      this.#out.event(
        'step',
        { name, title, ok: false, ms },
        { text: '✗ ', style: 'red' },
        { text: title, style: 'bold' },
        { text: `  ${ms} ms`, style: 'dim' },
      );
      throw error;
    }
  }

  async startServer(): Promise<void> {
    const program = serverProgram();
    if (program === undefined) {
      throw new CliError(
        ExitCode.usage,
        'no-server',
        'qpc-server is not installed here',
        'install @quicprochat/qpc-server beside qpc',
      );
    }
    const words = ['--data-dir', this.#serverFolder, '--listen', `127.0.0.1:${this.port}`, '--json'];
    this.#server = new JsonProgram('qpc-server', ['--import', END_WITH_PARENT, program, ...words], this.#surroundings);
    const ready = await this.#server.event('it was ready', (event) => event.type === 'ready');
    const { port, caCert } = ready;
    if (typeof port !== 'number' || typeof caCert !== 'string')
      throw new Error('qpc-server did not say where it listens');
    this.port = port;
    this.#caCert = caCert;
  }

  async killServer(): Promise<void> {
    this.#server?.kill('SIGKILL');
    await this.#server?.exited;
  }

  async stopServer(): Promise<void> {
    this.#server?.kill('SIGTERM');
    const exit = await this.#server?.exited;
    check(exit?.code === 0, `qpc-server ends cleanly (${this.#server?.outcome()})`);
  }

  /** @throws when one of the words stands in a file of the server */
  async searchServer(words: readonly string[]): Promise<{ files: number; bytes: number }> {
    const entries = await readdir(this.#serverFolder, { recursive: true, withFileTypes: true });
    const files = entries.filter((entry) => entry.isFile());
    let bytes = 0;
    for (const file of files) {
      const content = await readFile(path.join(file.parentPath, file.name));
      bytes += content.length;
      for (const word of words) check(!content.includes(word), `${file.name} does not hold "${word}"`);
    }
    check(bytes > 0, 'the server has stored something');
    return { files: files.length, bytes };
  }

  async close(keep: boolean): Promise<void> {
    const running = this.#programs.filter((program) => program.running);
    for (const program of running) program.kill('SIGTERM');
    const timer = setTimeout(() => {
      for (const program of running) program.kill('SIGKILL');
    }, END_TIMEOUT_MS);
    await Promise.all(running.map((program) => program.exited));
    clearTimeout(timer);
    this.#stop();
    if (!keep) await rm(this.folder, { recursive: true, force: true });
  }

  get #serverFolder(): string {
    return path.join(this.folder, 'server');
  }
}

/** Somebody with a profile; every command is a new process on it. */
class Person {
  readonly name: string;
  readonly password: string;
  readonly #stage: Stage;

  constructor(name: string, stage: Stage) {
    this.name = name;
    this.password = `${name}'s password in the demo`;
    this.#stage = stage;
  }

  start(words: readonly string[]): JsonProgram {
    return this.#stage.start(this.name, ['--state', path.join(this.#stage.folder, this.name), ...words]);
  }

  async register(): Promise<JsonEvent> {
    const program = this.start(['register-user', this.name, '--password-stdin']);
    program.type(this.password);
    program.endInput();
    return program.result();
  }

  /** Runs a command to its end. @throws when it fails */
  async run(words: readonly string[]): Promise<readonly JsonEvent[]> {
    const program = this.start(words);
    program.endInput();
    await program.result();
    return program.events;
  }

  async fail(words: readonly string[]): Promise<JsonEvent & { readonly exitCode: number }> {
    const program = this.start(words);
    program.endInput();
    return program.failure();
  }

  /** Opens a chat and waits until it is connected. */
  async chat(conversation: string): Promise<Chat> {
    const program = this.start(['recv', '--follow', conversation]);
    await program.event('the connection', (event) => event.type === 'connection' && event['state'] === 'online');
    return new Chat(this, program);
  }
}

/** A running `qpc recv --follow`. */
class Chat {
  readonly person: Person;
  readonly #program: JsonProgram;

  constructor(person: Person, program: JsonProgram) {
    this.person = person;
    this.#program = program;
  }

  get events(): readonly JsonEvent[] {
    return this.#program.events;
  }

  type(line: string): void {
    this.#program.type(line);
  }

  event(what: string, matches: (event: JsonEvent) => boolean, from = 0): Promise<JsonEvent> {
    return this.#program.event(what, matches, from);
  }

  /** Waits until `count` messages have come in all. */
  async hears(count: number): Promise<void> {
    await this.event(`message ${count}`, () => texts(this.events).length >= count);
  }

  /** Runs a /command. @throws when it failed */
  async command(line: string): Promise<JsonEvent> {
    const from = this.events.length;
    this.type(`/${line}`);
    const event = await this.event(`the end of /${line}`, ({ type }) => type === 'done' || type === 'failed', from);
    if (event.type === 'failed') throw new Error(`${this.person.name}: /${line}: ${String(event['message'])}`);
    return event;
  }

  /** Ends the input; the chat must send what it has and end well. */
  async leave(): Promise<void> {
    this.#program.endInput();
    await this.#program.result();
  }
}

function ofType(events: readonly JsonEvent[], type: string): JsonEvent[] {
  return events.filter((event) => event.type === type);
}

function texts(events: readonly JsonEvent[]): string[] {
  return ofType(events, 'message').map((event) => String(event['text']));
}

function field(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined;
}

function same(left: readonly unknown[], right: readonly unknown[]): boolean {
  return left.length === right.length && left.every((value, i) => value === right[i]);
}

function check(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Error(`not so: ${what}`);
}
