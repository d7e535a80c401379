/**
 * Where things are: the profile's folder, the server, and the certificate that vouches for it. Flags come before the
 * environment, the environment before what the profile remembers, and that before the defaults.
 *
 *   profile folder   --state > QPC_STATE > <data folder>/quicprochat/<profile>
 *   server           --server > QPC_SERVER > remembered at register-user or login > 127.0.0.1:5001
 *   certificate      --ca-cert > QPC_CA_CERT > remembered > for a server on this machine, the certificate in its data
 *                    folder (QPC_DATA_DIR, else ./qpc-data; PROTOCOL section 10) > the system's roots
 */
import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { userInfo } from 'node:os';
import path from 'node:path';
import { CliError, systemCode, usageError } from './errors.ts';

type Env = Readonly<Record<string, string | undefined>>;

export const DEFAULT_SERVER = '127.0.0.1:5001';
const DEFAULT_PORT = 5001;
/** A certificate is 1–2 KB; a chain with its roots stays far below this. */
const CA_CERT_BYTES_MAX = 1024 * 1024;

export interface ServerAddress {
  readonly host: string;
  readonly port: number;
}

/**
 * Reads `host`, `host:port`, `[v6]` or `[v6]:port`.
 * @throws CliError usage
 */
export function parseServer(text: string): ServerAddress {
  const match = /^(?:\[(?<v6>[0-9a-fA-F:.]{2,45})\]|(?<host>[A-Za-z0-9._-]{1,253}))(?::(?<port>\d{1,5}))?$/u.exec(text);
  const host = match?.groups?.['v6'] ?? match?.groups?.['host'];
  const port = match?.groups?.['port'] === undefined ? DEFAULT_PORT : Number(match.groups['port']);
  if (host === undefined || port < 1 || port > 65535) {
    throw usageError(
      `"${text}" is not a server address`,
      'write host:port, for example 127.0.0.1:5001 or [::1]:5001',
      'bad-server',
    );
  }
  return { host, port };
}

export function formatServer(server: ServerAddress): string {
  return server.host.includes(':') ? `[${server.host}]:${server.port}` : `${server.host}:${server.port}`;
}

export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(?:\.\d{1,3}){3}$/u.test(host);
}

/**
 * The name the certificate must carry: what `--server-name` says, else the host, `localhost` for loopback addresses.
 * @throws CliError usage for another IP address without a name
 */
export function serverName(host: string, given: string | undefined): string {
  if (given !== undefined) return given;
  if (isLoopback(host)) return 'localhost';
  if (host.includes(':') || /^\d+(?:\.\d+){3}$/u.test(host)) {
    throw usageError(
      `the server is given as an IP address (${host}), which says nothing about its name`,
      "add --server-name NAME, the name in the server's certificate",
      'server-name-needed',
    );
  }
  return host;
}

/** The folder that holds one profile: one account on one device. */
export function stateFolder(
  options: { readonly state?: string | undefined; readonly profile?: string | undefined },
  env: Env,
  platform: NodeJS.Platform = process.platform,
): string {
  if (options.state) return path.resolve(options.state);
  const profile = options.profile ?? env['QPC_PROFILE'] ?? 'default';
  if (!/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$/u.test(profile)) {
    throw usageError(
      `"${profile}" is not a profile name`,
      'use letters, digits, dot, dash and underscore, at most 64',
      'bad-profile',
    );
  }
  if (options.profile === undefined && env['QPC_STATE']) return path.resolve(env['QPC_STATE']);
  return path.join(dataFolder(env, platform), 'quicprochat', profile);
}

function dataFolder(env: Env, platform: NodeJS.Platform): string {
  const xdg = env['XDG_DATA_HOME'];
  // The XDG specification says relative paths are to be ignored.
  if (xdg && path.isAbsolute(xdg)) return xdg;
  const home = env['HOME'] || homeOfUser();
  // Never beside whatever folder one happens to be in.
  if (!path.isAbsolute(home)) {
    throw usageError('the home folder is not known', 'set HOME, or choose a folder with --state', 'no-home');
  }
  if (platform === 'darwin') return path.join(home, 'Library', 'Application Support');
  if (platform === 'win32') return env['LOCALAPPDATA'] || path.join(home, 'AppData', 'Local');
  return path.join(home, '.local', 'share');
}

/** As the system knows it; empty for a user it does not know, as in some containers. */
function homeOfUser(): string {
  try {
    return userInfo().homedir;
  } catch {
    return '';
  }
}

/** A trust anchor and where it was found; undefined means the system's roots. */
export interface TrustAnchor {
  readonly certificate: Uint8Array;
  readonly source: string;
}

/**
 * Finds the certificate to trust. A file that was named must be readable; the local server's may be absent.
 * @throws CliError usage when a named file cannot be read
 */
export async function findTrustAnchor(
  server: ServerAddress,
  caCert: string | undefined,
  remembered: Uint8Array | undefined,
  env: Env,
): Promise<TrustAnchor | undefined> {
  const named = caCert ?? (env['QPC_CA_CERT'] || undefined);
  if (named !== undefined) {
    try {
      return { certificate: await readCertificate(named), source: named };
    } catch (error) {
      if (error instanceof CliError) throw error;
      throw usageError(
        `the certificate ${named} cannot be read (${systemCode(error) ?? 'error'})`,
        "give the path of the server's certificate (qpc-server prints it when it starts)",
        'bad-ca-cert',
      );
    }
  }
  if (remembered) return { certificate: remembered, source: 'profile' };
  if (!isLoopback(server.host)) return undefined;
  const local = path.join(env['QPC_DATA_DIR'] || 'qpc-data', 'cert.pem');
  try {
    return { certificate: await readCertificate(local), source: local };
  } catch {
    return undefined;
  }
}

async function readCertificate(file: string): Promise<Uint8Array> {
  const bytes = await readFile(file);
  try {
    if (bytes.length > CA_CERT_BYTES_MAX) throw new RangeError('too long');
    // Parsed to see whether it is one; what is trusted are the bytes as they stand (a PEM file may hold several).
    void new X509Certificate(bytes);
    return bytes;
  } catch {
    throw usageError(
      `${file} is not a certificate`,
      "give the path of the server's certificate (qpc-server prints it when it starts)",
      'bad-ca-cert',
    );
  }
}

/**
 * Reads `30`, `30s`, `500ms`, `2m`, `1h` as milliseconds.
 * @throws CliError usage
 */
export function parseDuration(text: string): number {
  const match = /^(?<amount>\d{1,9}(?:\.\d{1,3})?)(?<unit>ms|s|m|h)?$/u.exec(text);
  const unitMs = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[match?.groups?.['unit'] ?? 's'];
  const ms = Math.round(Number(match?.groups?.['amount']) * (unitMs ?? Number.NaN));
  if (!(ms > 0) || ms > 2_147_483_647) {
    throw usageError(`"${text}" is not a duration`, 'write seconds, or a number with ms, s, m or h', 'bad-duration');
  }
  return ms;
}
