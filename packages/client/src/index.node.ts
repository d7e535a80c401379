// The SDK on Node: profiles are folders with one encrypted SQLite database, the server is reached over QUIC.
import { readFile } from 'node:fs/promises';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { ConnectError, systemClock } from '@quicprochat/transport';
import { connectQuic } from '@quicprochat/transport/quic';
import type { Client, Log } from './client.ts';
import { ClientError, toClientError } from './errors.ts';
import { createClient } from './open-client.ts';
import { SUITE_DEFAULT } from './profile/suites.ts';
import type { Dialer } from './server-connection.ts';
import { connectionFailure } from './server-errors.ts';
import { openProfile } from './store/profile.node.ts';

export * from './index.ts';

export interface OpenOptions {
  /** The profile's folder, made with mode 0700 if missing; `:memory:` keeps nothing. */
  readonly profileDir: string;
  /** Encrypts the profile; without it a random key beside the database does. Never the account's password. */
  readonly statePassword?: string;
  /** `host:port` or `[ipv6]:port`. */
  readonly server: string;
  /** Certificate to trust, PEM or DER: a file's path or its bytes. Default: the system's roots. */
  readonly caCert?: string | Uint8Array;
  /** Name expected in the server's certificate; default as PROTOCOL section 10. */
  readonly serverName?: string;
  /** Refuse to make a new profile when the folder holds none. Default false. */
  readonly mustExist?: boolean;
  /** MLS cipher suite of new groups. Default: the post-quantum one of `SuiteName`. */
  readonly suite?: number;
  readonly log?: Log;
  /** Milliseconds since 1970. Default: the system clock. */
  readonly now?: () => number;
  /** Cryptographically random bytes. Default: the system's. */
  readonly random?: (length: number) => Uint8Array;
}

const SILENT: Log = { debug: () => {}, warn: () => {} };

/**
 * Opens (or makes) a profile and takes it for this process.
 * @throws ClientError `profile-in-use`, `wrong-state-password`, `profile-damaged`, `profile-newer`, `profile-missing`,
 *   `profile-unwritable`, `bad-address`, `bad-trust-anchor`
 */
export async function openClient(options: OpenOptions): Promise<Client> {
  const dialer = await quicDialer(options);
  try {
    const { store } = await openProfile({
      folder: options.profileDir,
      ...(options.statePassword === undefined ? {} : { statePassword: options.statePassword }),
      ...(options.mustExist === undefined ? {} : { mustExist: options.mustExist }),
    });
    return createClient(
      {
        crypto: nodeCrypto,
        random: options.random ?? ((length) => nodeCrypto.random(length)),
        now: options.now ?? Date.now,
        clock: systemClock,
        log: options.log ?? SILENT,
        suite: options.suite ?? SUITE_DEFAULT,
      },
      store,
      dialer,
    );
  } catch (error) {
    throw toClientError(error);
  }
}

async function quicDialer({ server, caCert, serverName }: OpenOptions): Promise<Dialer> {
  const { host, port } = parseServer(server);
  const trustAnchor = typeof caCert === 'string' ? await readAnchor(caCert) : caCert;
  return {
    server,
    dial: async ({ timeoutMs, signal }) => {
      try {
        return await connectQuic({
          host,
          port,
          connectTimeoutMs: timeoutMs,
          signal,
          ...(serverName === undefined ? {} : { serverName }),
          ...(trustAnchor === undefined ? {} : { trustAnchor }),
        });
      } catch (error) {
        throw error instanceof ConnectError ? connectionFailure(error, server) : error;
      }
    },
  };
}

async function readAnchor(path: string): Promise<Uint8Array> {
  try {
    return new Uint8Array(await readFile(path));
  } catch (error) {
    throw new ClientError('cannot-connect', 'bad-trust-anchor', 'the certificate file cannot be read', {
      hint: 'Check the path given with --ca-cert.',
      cause: error,
    });
  }
}

function parseServer(server: string): { readonly host: string; readonly port: number } {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s]+)):(\d{1,5})$/.exec(server);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host !== undefined && port >= 1 && port <= 65_535) return { host, port };
  throw new ClientError('cannot-connect', 'bad-address', 'the address of the server cannot be understood', {
    hint: 'Give it as host:port, for example 127.0.0.1:5001.',
  });
}
