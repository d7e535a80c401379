// A world for command line tests: one real qpc-server in a temporary folder, and people whose every command is a real
// qpc process. One world per test file; everything it started ends with it.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, afterEach } from 'node:test';
import { fileURLToPath } from 'node:url';
import { spawn as spawnPty, type IPty } from '@lydell/node-pty';
import { JsonProgram, type JsonEvent } from '../../apps/qpc/src/demo/processes.ts';

export const QPC_MAIN = fileURLToPath(new URL('../../apps/qpc/src/main.ts', import.meta.url));
const SERVER_MAIN = fileURLToPath(new URL('../../apps/qpc-server/src/main.ts', import.meta.url));

/** What one program's run may take before the test is told what it waited for. */
const PATIENCE_MS = 60_000;

export type Failure = JsonEvent & { readonly exitCode: number };

export class World {
  readonly folder: string;
  readonly env: NodeJS.ProcessEnv;
  port = 0;
  caCert = '';
  readonly #programs: JsonProgram[] = [];
  readonly #screens: TerminalScreen[] = [];
  readonly #serverFlags: readonly string[];
  #server: JsonProgram | undefined;

  constructor(serverFlags: readonly string[] = []) {
    this.#serverFlags = serverFlags;
    this.folder = mkdtempSync(path.join(tmpdir(), 'qpc-cli-'));
    // A home of its own: no test may see or touch what is the user's.
    const inherited = Object.entries(process.env).filter(
      ([name]) => !/^(?:QPC_|XDG_|NODE_OPTIONS|NO_COLOR)/u.test(name),
    );
    this.env = {
      ...Object.fromEntries(inherited),
      HOME: this.folder,
      NODE_COMPILE_CACHE: path.join(tmpdir(), `qpc-test-cache-${process.getuid?.() ?? 0}`),
    };
    afterEach(() => this.#endClients());
    after(() => this.#close());
  }

  get serverFolder(): string {
    return path.join(this.folder, 'server');
  }

  /** Starts the server, again on the same port after a kill. */
  async startServer(): Promise<this> {
    const listen = `127.0.0.1:${this.port}`;
    this.#server = this.run('qpc-server', SERVER_MAIN, [
      '--data-dir',
      this.serverFolder,
      '--listen',
      listen,
      '--json',
      ...this.#serverFlags,
    ]);
    const ready = await this.#server.event('it was ready', (event) => event.type === 'ready');
    this.port = Number(ready['port']);
    this.caCert = String(ready['caCert']);
    return this;
  }

  async killServer(): Promise<void> {
    this.#server?.kill('SIGKILL');
    await this.#server?.exited;
  }

  run(name: string, main: string, words: readonly string[], env: NodeJS.ProcessEnv = this.env): JsonProgram {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    return new JsonProgram(name, [main, ...words], { env, signal, started: (program) => this.#programs.push(program) });
  }

  /** The flags that name this world's server. */
  get connection(): readonly string[] {
    return ['--server', `127.0.0.1:${this.port}`, '--ca-cert', this.caCert];
  }

  person(name: string): Person {
    return new Person(this, name);
  }

  /** `qpc` on a terminal of its own. */
  terminal(person: Person, words: readonly string[], env: NodeJS.ProcessEnv = {}): TerminalScreen {
    const screen = new TerminalScreen([QPC_MAIN, '--state', person.profile, ...words], { ...this.env, ...env });
    this.#screens.push(screen);
    return screen;
  }

  /** People with accounts. */
  async people<const Names extends readonly string[]>(...names: Names): Promise<{ [I in keyof Names]: Person }> {
    const people = names.map((name) => this.person(name));
    await Promise.all(people.map((person) => person.register()));
    return people as { [I in keyof Names]: Person };
  }

  /** A test that failed must not hold the profiles of those after it. */
  async #endClients(): Promise<void> {
    const running = this.#programs.filter((program) => program.running && program !== this.#server);
    for (const program of running) program.kill('SIGKILL');
    for (const screen of this.#screens) screen.kill();
    await Promise.all([...running.map((program) => program.exited), ...this.#screens.map((screen) => screen.ended)]);
  }

  async #close(): Promise<void> {
    await this.#endClients();
    await this.killServer();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export class Person {
  readonly name: string;
  readonly password: string;
  readonly profile: string;
  readonly #world: World;

  constructor(world: World, name: string) {
    this.#world = world;
    this.name = name;
    this.password = `the password of ${name}`;
    this.profile = path.join(world.folder, `profile-${name}`);
  }

  /** Starts a command with --json on this profile. */
  start(words: readonly string[], env: NodeJS.ProcessEnv = {}): JsonProgram {
    const { connection } = this.#world;
    return this.#world.run(this.name, QPC_MAIN, ['--json', '--state', this.profile, ...connection, ...words], {
      ...this.#world.env,
      ...env,
    });
  }

  async register(): Promise<JsonEvent> {
    return this.result(['register-user', this.name, '--password-stdin'], `${this.password}\n`);
  }

  /** Runs to the end and returns the `result` line. */
  async result(words: readonly string[], stdin = ''): Promise<JsonEvent> {
    return (await this.events(words, stdin)).at(-1) as JsonEvent;
  }

  async events(words: readonly string[], stdin = ''): Promise<readonly JsonEvent[]> {
    const program = this.start(words);
    program.write(stdin);
    program.endInput();
    await program.result();
    return program.events;
  }

  /** Runs to the end; it must fail with this exit code and code, in one line that says what to do next. */
  async refused(exitCode: number, code: string, words: readonly string[], stdin = ''): Promise<Failure> {
    const program = this.start(words);
    program.write(stdin);
    program.endInput();
    const failure = await program.failure();
    assert.deepEqual(
      { exitCode: failure.exitCode, code: failure['code'] },
      { exitCode, code },
      String(failure['message']),
    );
    for (const part of [failure['message'], failure['hint']]) {
      assert.ok(typeof part === 'string' && part.length > 0 && !/[\p{Cc}\p{Bidi_Control}]/u.test(part), String(part));
    }
    return failure;
  }

  /** The texts somebody reads who asks for what is new. */
  async reads(words: readonly string[] = []): Promise<string[]> {
    return texts(await this.events(['recv', ...words]));
  }

  async history(conversation: string): Promise<string[]> {
    return texts(await this.events(['history', conversation, '--limit', '1000']));
  }

  /** Opens a chat and waits until it is connected. */
  async chat(conversation: string): Promise<JsonProgram> {
    const program = this.start(['recv', '--follow', conversation]);
    await program.event('the connection', (event) => event.type === 'connection' && event['state'] === 'online');
    return program;
  }
}

export function texts(events: readonly JsonEvent[]): string[] {
  return events.filter((event) => event.type === 'message').map((event) => String(event['text']));
}

export async function hears(chat: JsonProgram, count: number): Promise<string[]> {
  await chat.event(`message ${count}`, () => texts(chat.events).length >= count);
  return texts(chat.events);
}

/** `qpc` on a real pseudo-terminal: what a person sees. */
class TerminalScreen {
  text = '';
  readonly ended: Promise<number>;
  readonly #pty: IPty;
  #over = false;
  #wake = Promise.withResolvers<void>();

  constructor(command: readonly string[], env: NodeJS.ProcessEnv) {
    this.#pty = spawnPty(process.execPath, [...command], {
      cols: 200,
      rows: 50,
      env: { ...env, TERM: 'xterm-256color' },
    });
    const ended = Promise.withResolvers<number>();
    this.ended = ended.promise;
    this.#pty.onData((text) => {
      this.text += text;
      this.#changed();
    });
    this.#pty.onExit(({ exitCode }) => {
      this.#over = true;
      ended.resolve(exitCode);
      this.#changed();
    });
  }

  type(keys: string): void {
    this.#pty.write(keys);
  }

  kill(): void {
    if (!this.#over) this.#pty.kill('SIGKILL');
  }

  async shows(wanted: string): Promise<void> {
    while (!this.text.includes(wanted)) {
      assert.ok(!this.#over, `it ended and had shown: ${this.text}`);
      await this.#wake.promise;
    }
  }

  #changed(): void {
    const wake = this.#wake;
    this.#wake = Promise.withResolvers();
    wake.resolve();
  }
}
