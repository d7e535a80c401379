/**
 * One profile in one process: opens the SDK when a command first needs it and closes it at the end. The SDK is loaded
 * here and nowhere else, so that `qpc --help` does not pay for it.
 *
 *   memory()     a client that keeps nothing: ping and health work without an account and beside a running chat
 *   profile()    the profile on disk, no connection: whoami, history
 *   connected()  the profile and a connection: register-user, login
 *   online()     the profile of an account that is logged in, connected: all the rest
 */
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { Client, OpenOptions } from '@quicprochat/client/node';
import { localStateError, systemCode } from './errors.ts';
import type { GlobalOptions } from './global-options.ts';
import type { Output } from './output.ts';
import type { EnvironmentSecrets, PasswordReader, PasswordSource } from './secrets.ts';
import {
  DEFAULT_SERVER,
  findTrustAnchor,
  formatServer,
  parseServer,
  serverName,
  stateFolder,
  type ServerAddress,
  type TrustAnchor,
} from './settings.ts';

/** How long to try for a first connection. A person waits this long; a script sets `--timeout`. */
const CONNECT_TIMEOUT_MS = 10_000;
/** After this long without a connection a person is told what is going on. */
const SLOW_CONNECT_MS = 1000;

/** Warnings that are shown whatever the command is: the server, or somebody with this account's keys, is up to something. */
const ALARMS: ReadonlySet<string> = new Set(['key-transparency', 'account-changed']);

/** What the profile remembers about its server, beside the database: `server.json`. Nothing in it is secret. */
interface RememberedServer {
  readonly server: string;
  readonly serverName: string;
  readonly caCert: string | undefined;
}

export interface SessionOptions {
  readonly globals: GlobalOptions;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly secrets: EnvironmentSecrets;
  readonly passwords: PasswordReader;
  readonly out: Output;
}

export class Session {
  readonly folder: string;
  /** A message is in the queue: whoever stops this command must not tell the person to send it again. */
  queued = false;
  /** The command shows by itself what happens; else what must not be missed is said here. */
  listens = false;
  readonly #options: SessionOptions;
  #client: Client | undefined;
  #memory: Client | undefined;
  #endpoint: Endpoint | undefined;
  #online = false;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.folder = stateFolder(
      { state: options.globals.value('state'), profile: options.globals.value('profile') },
      options.env,
    );
  }

  /** The account password's flags. */
  get accountPassword(): PasswordSource {
    return this.#source('password', this.#options.secrets.password);
  }

  /** `--username`, for the commands that name an account. */
  get username(): string | undefined {
    return this.#options.globals.value('username');
  }

  /** The server as typed or remembered, for messages. */
  async serverLabel(): Promise<string> {
    return formatServer((await this.#findEndpoint()).server);
  }

  async memory(): Promise<Client> {
    if (this.#client && this.#online) return this.#client;
    if (this.#memory) return this.#memory;
    // Before the SDK is loaded: what was mistyped is said at once.
    const connection = await this.#connectionOptions();
    const { openClient } = await import('@quicprochat/client/node');
    this.#memory = await openClient({ profileDir: ':memory:', ...connection });
    await this.#connect(this.#memory);
    return this.#memory;
  }

  /** @param options.create make the profile when there is none */
  async profile(options: { readonly create?: boolean } = {}): Promise<Client> {
    if (this.#client) return this.#client;
    const connection = await this.#connectionOptions();
    const { openClient, ClientError } = await import('@quicprochat/client/node');
    const open = async (statePassword: string | undefined): Promise<Client> =>
      openClient({
        profileDir: this.folder,
        mustExist: options.create !== true,
        ...(statePassword === undefined ? {} : { statePassword }),
        ...connection,
      });
    const source = this.#source('state-password', this.#options.secrets.statePassword);
    const given = await this.#options.passwords.given(source);
    try {
      this.#client = await open(given);
    } catch (error) {
      // A profile with a password of its own asks for it; one that was given and is wrong is an error.
      if (given !== undefined || !(error instanceof ClientError) || error.code !== 'wrong-state-password') throw error;
      this.#client = await open(await this.#options.passwords.ask(source, "The profile's password", false));
    }
    this.#client.on((event) => {
      if (event.type === 'warning' && ALARMS.has(event.code) && !this.listens) this.#options.out.warn(event.text);
    });
    return this.#client;
  }

  async connected(options: { readonly create?: boolean } = {}): Promise<Client> {
    const client = await this.profile(options);
    if (!this.#online) await this.#connect(client);
    this.#online = true;
    return client;
  }

  /** @throws CliError or ClientError when the profile has no account or is not logged in */
  async account(): Promise<Client> {
    const client = await this.profile();
    const account = await client.whoami();
    if (!account) {
      throw localStateError(
        'not-registered',
        'this profile has no account yet',
        'make one with "qpc register-user NAME"',
      );
    }
    if (!account.loggedIn) {
      throw localStateError(
        'not-logged-in',
        `${account.username} is logged out`,
        `log in with "qpc login ${account.username}"`,
      );
    }
    return client;
  }

  async online(): Promise<Client> {
    await this.account();
    return this.connected();
  }

  /** For a chat: returns at once, and the connection is made as soon as the server is there. */
  async keepConnecting(): Promise<Client> {
    const client = await this.account();
    await client.connect({ keepTrying: true });
    this.#online = true;
    return client;
  }

  /** Keeps server and certificate with the profile, so that later commands need no flags. */
  async rememberServer(): Promise<void> {
    const endpoint = await this.#findEndpoint();
    const remembered: RememberedServer = {
      server: formatServer(endpoint.server),
      serverName: endpoint.serverName,
      caCert: endpoint.anchor && Buffer.from(endpoint.anchor.certificate).toString('base64'),
    };
    const file = path.join(this.folder, 'server.json');
    await mkdir(this.folder, { recursive: true, mode: 0o700 });
    await writeFile(`${file}.new`, `${JSON.stringify(remembered)}\n`, { mode: 0o600 });
    await rename(`${file}.new`, file);
  }

  async close(): Promise<void> {
    const clients = [this.#client, this.#memory].filter((client) => client !== undefined);
    this.#client = undefined;
    this.#memory = undefined;
    await Promise.all(clients.map((client) => client.close()));
  }

  async #connect(client: Client): Promise<void> {
    const label = await this.serverLabel();
    const timer = setTimeout(() => {
      this.#options.out.progress({ text: `(connecting to ${label}, giving up after 10 s)`, style: 'dim' });
    }, SLOW_CONNECT_MS);
    try {
      await client.connect({ timeoutMs: CONNECT_TIMEOUT_MS });
    } finally {
      clearTimeout(timer);
    }
  }

  async #connectionOptions(): Promise<Pick<OpenOptions, 'server' | 'serverName' | 'caCert'>> {
    const endpoint = await this.#findEndpoint();
    return {
      server: formatServer(endpoint.server),
      serverName: endpoint.serverName,
      ...(endpoint.anchor ? { caCert: endpoint.anchor.certificate } : {}),
    };
  }

  async #findEndpoint(): Promise<Endpoint> {
    if (this.#endpoint) return this.#endpoint;
    const { globals, env } = this.#options;
    const remembered = await readRemembered(this.folder);
    const typed = globals.value('server') ?? (env['QPC_SERVER'] || undefined);
    const server = parseServer(typed ?? remembered?.server ?? DEFAULT_SERVER);
    // What was remembered vouches for that server only.
    const same = remembered !== undefined && remembered.server === formatServer(server);
    this.#endpoint = {
      server,
      serverName: serverName(server.host, globals.value('server-name') ?? (same ? remembered.serverName : undefined)),
      anchor: await findTrustAnchor(
        server,
        globals.value('ca-cert'),
        same && remembered.caCert !== undefined ? Buffer.from(remembered.caCert, 'base64') : undefined,
        env,
      ),
    };
    return this.#endpoint;
  }

  #source(name: 'password' | 'state-password', environment: string | undefined): PasswordSource {
    const { globals } = this.#options;
    return {
      flag: `--${name}`,
      value: globals.value(name),
      fromStdin: globals.has(`${name}-stdin`),
      file: globals.value(`${name}-file`),
      environment: environment || undefined,
    };
  }
}

interface Endpoint {
  readonly server: ServerAddress;
  readonly serverName: string;
  readonly anchor: TrustAnchor | undefined;
}

async function readRemembered(folder: string): Promise<RememberedServer | undefined> {
  const file = path.join(folder, 'server.json');
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ENOTDIR') return undefined;
    throw localStateError(
      'profile-unreadable',
      `${file} cannot be read (${systemCode(error) ?? 'error'})`,
      'check the permissions of the profile folder',
    );
  }
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && 'server' in value && 'serverName' in value) {
      const caCert = 'caCert' in value ? value.caCert : undefined;
      if (typeof value.server === 'string' && typeof value.serverName === 'string') {
        parseServer(value.server);
        if (caCert === undefined) return { server: value.server, serverName: value.serverName, caCert: undefined };
        if (typeof caCert === 'string') {
          return { server: value.server, serverName: value.serverName, caCert };
        }
      }
    }
  } catch {
    // Falls through to the one error for every way the file can be wrong.
  }
  throw localStateError(
    'profile-damaged',
    `${file} is damaged`,
    'delete that file and name the server once more with --server and --ca-cert; messages and keys are not in it',
  );
}
