// PostgreSQL as Debian ships it, in a temporary folder: the baseline for durable enqueues. The same rows as our store
// writes, in one statement, committed synchronously.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import pg from 'pg';

export const HOW_TO_INSTALL = 'PostgreSQL 15 is not here (Debian: apt-get install postgresql-15)';
const VERSIONS = '/usr/lib/postgresql';
const PORT = 5432;
const READY_MS_MAX = 20_000;

const SCHEMA = `
  CREATE TABLE device (id int PRIMARY KEY, identity bytea NOT NULL, device_id bytea NOT NULL, UNIQUE (identity, device_id));
  CREATE TABLE head (device int PRIMARY KEY, next_seq bigint NOT NULL DEFAULT 1, depth bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0);
  CREATE TABLE message (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, refs int NOT NULL, message_id bytea NOT NULL,
    accepted_at bigint NOT NULL, data bytea NOT NULL);
  CREATE TABLE inbox (device int NOT NULL, seq bigint NOT NULL, message bigint NOT NULL, expires_at bigint NOT NULL,
    counted int, channel bytea NOT NULL, PRIMARY KEY (device, seq));
  CREATE INDEX inbox_expires ON inbox (expires_at);
  CREATE TABLE dedup (bucket bigint NOT NULL, message_id bytea NOT NULL, channel bytea NOT NULL, device int NOT NULL,
    seq bigint NOT NULL, at bigint NOT NULL, payload_hash bytea NOT NULL,
    PRIMARY KEY (bucket, message_id, channel, device));
`;

/** $1 identity, $2 device id, $3 bucket, $4 message id, $5 now, $6 payload, $7 its hash. */
const ENQUEUE = `
  WITH target AS (SELECT id FROM device WHERE identity = $1::bytea AND device_id = $2::bytea),
  h AS (UPDATE head SET next_seq = next_seq + 1, depth = depth + 1, bytes = bytes + length($6::bytea)
    WHERE device = (SELECT id FROM target) AND depth < 1000000000 AND NOT EXISTS (SELECT FROM dedup
      WHERE bucket IN ($3::bigint, $3::bigint - 86400000) AND message_id = $4::bytea AND channel = '' AND device = (SELECT id FROM target))
    RETURNING device, next_seq - 1 AS seq),
  m AS (INSERT INTO message (refs, message_id, accepted_at, data) SELECT 1, $4::bytea, $5::bigint, $6::bytea FROM h RETURNING id),
  i AS (INSERT INTO inbox (device, seq, message, expires_at, counted, channel)
    SELECT h.device, h.seq, m.id, $5::bigint + 2592000000, length($6::bytea), '' FROM h, m),
  d AS (INSERT INTO dedup (bucket, message_id, channel, device, seq, at, payload_hash)
    SELECT $3::bigint, $4::bytea, '', h.device, h.seq, $5::bigint, $7::bytea FROM h)
  SELECT seq FROM h`;

export interface PostgresEnqueue {
  readonly identityKey: Uint8Array;
  readonly deviceId: Uint8Array;
  readonly messageId: Uint8Array;
  readonly nowMs: number;
  readonly data: Uint8Array;
  readonly hash: Uint8Array;
}

export class Postgres {
  readonly folder: string;
  readonly version: string;
  readonly #server: ChildProcess;

  /** Undefined where there is none to start. */
  static async start(): Promise<Postgres | undefined> {
    const versions = existsSync(VERSIONS) ? readdirSync(VERSIONS).toSorted((a, b) => Number(b) - Number(a)) : [];
    const version = versions.includes('15') ? '15' : versions[0];
    if (version === undefined) return undefined;
    const bin = path.join(VERSIONS, version, 'bin');
    const user = unprivileged();
    const folder = mkdtempSync(path.join(tmpdir(), 'qpc-bench-pg-'));
    const remove = (): void => rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
    process.on('exit', remove);
    if (user !== undefined) chownSync(folder, user.uid, user.gid);
    const data = path.join(folder, 'data');
    const options = ['--auth=trust', '--username=bench', '--no-sync', '--encoding=UTF8', '--locale=C'];
    const made = spawnSync(path.join(bin, 'initdb'), [...options, '-D', data], {
      ...user,
      cwd: folder,
      encoding: 'utf8',
    });
    if (made.status !== 0) throw new Error(`initdb failed: ${made.stderr}`);
    const settings = {
      listen_addresses: '',
      unix_socket_directories: folder,
      port: String(PORT),
      max_connections: '100',
      shared_buffers: '256MB',
      fsync: 'on',
      synchronous_commit: 'on',
    };
    const flags = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
    const server = spawn(path.join(bin, 'postgres'), ['-D', data, ...flags], { ...user, cwd: folder, stdio: 'ignore' });
    const postgres = new Postgres(folder, version, server);
    await postgres.#ready();
    return postgres;
  }

  private constructor(folder: string, version: string, server: ChildProcess) {
    this.folder = folder;
    this.version = version;
    this.#server = server;
  }

  async #ready(): Promise<void> {
    const until = performance.now() + READY_MS_MAX;
    for (;;) {
      try {
        const client = await connect(this.folder);
        await client.query(SCHEMA);
        await client.end();
        return;
      } catch (error) {
        // It listens a little later than it starts and says so nowhere.
        if (performance.now() > until || this.#server.exitCode !== null) throw error;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  }

  async stop(): Promise<void> {
    const exited = once(this.#server, 'exit');
    this.#server.kill('SIGINT');
    await exited;
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** One client of a server in that folder. */
export class PostgresClient {
  readonly #client: pg.Client;

  static async connect(folder: string): Promise<PostgresClient> {
    return new PostgresClient(await connect(folder));
  }

  private constructor(client: pg.Client) {
    this.#client = client;
  }

  async register(id: number, identityKey: Uint8Array, deviceId: Uint8Array): Promise<void> {
    await this.#client.query('INSERT INTO device VALUES ($1, $2, $3)', [id, buffer(identityKey), buffer(deviceId)]);
    await this.#client.query('INSERT INTO head (device) VALUES ($1)', [id]);
  }

  /** The position in the inbox; the message is on disk. */
  async enqueue({ identityKey, deviceId, messageId, nowMs, data, hash }: PostgresEnqueue): Promise<number> {
    const bucket = nowMs - (nowMs % 86_400_000);
    const values = [
      buffer(identityKey),
      buffer(deviceId),
      bucket,
      buffer(messageId),
      nowMs,
      buffer(data),
      buffer(hash),
    ];
    const { rows } = await this.#client.query<{ seq: string }>({ name: 'enqueue', text: ENQUEUE, values });
    const [row] = rows;
    if (row === undefined) throw new Error('PostgreSQL did not take the message');
    return Number(row.seq);
  }

  end(): Promise<void> {
    return this.#client.end();
  }
}

async function connect(folder: string): Promise<pg.Client> {
  const client = new pg.Client({ host: folder, port: PORT, user: 'bench', database: 'postgres', pipeline: true });
  await client.connect();
  return client;
}

const buffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);

/** PostgreSQL does not run as root: then it runs as the user its package made, or as nobody. */
function unprivileged(): { uid: number; gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined;
  for (const name of ['postgres', 'nobody']) {
    const [uid, gid] = ['-u', '-g'].map((which) =>
      Number(spawnSync('id', [which, name], { encoding: 'utf8' }).stdout || NaN),
    );
    if (Number.isInteger(uid) && Number.isInteger(gid)) return { uid: uid as number, gid: gid as number };
  }
  throw new Error('PostgreSQL does not run as root, and there is no other user');
}
