// The SDK on Node: profiles are folders with one encrypted SQLite database, the server is reached over QUIC.
import type { Client, Log } from './client.ts';

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
  /** MLS cipher suite of new groups. Default 0x0001. */
  readonly suite?: number;
  readonly log?: Log;
  /** Milliseconds since 1970. Default: the system clock. */
  readonly now?: () => number;
  /** Cryptographically random bytes. Default: the system's. */
  readonly random?: (length: number) => Uint8Array;
}

/**
 * Opens (or makes) a profile and takes it for this process.
 * @throws ClientError `profile-in-use`, `wrong-state-password`, `profile-damaged`, `profile-newer`, `profile-missing`,
 *   `profile-unwritable`, `bad-address`, `bad-trust-anchor`
 */
export declare function openClient(options: OpenOptions): Promise<Client>;
