/**
 * What `--production` (QPC_PRODUCTION=1) refuses to start with: whatever would make a server on the internet weaker than
 * its operator believes. Each problem says what to set. What the settings alone show is checked with them (`config.ts`);
 * here are the files behind them.
 */
import { createPublicKey, X509Certificate } from 'node:crypto';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { isIP } from 'node:net';
import type { ServerConfig } from './config.ts';
import type { DataDirectory } from './data-directory.node.ts';
import { StartupError } from './startup-error.ts';
import type { ServerCertificate } from './tls.node.ts';

/** Others may do nothing with it, and its group only read. */
const NOT_FOR_OTHERS = 0o027;

/** @throws StartupError naming every problem found */
export function refuseForProduction(
  config: ServerConfig,
  directory: DataDirectory,
  certificate: ServerCertificate,
  storeKey: Uint8Array | undefined,
): void {
  if (!config.production) return;
  const problems = [
    ...accessProblems(directory.path, 'the data folder', 'chmod 700'),
    ...(config.storeKeyFile === undefined ? [] : accessProblems(config.storeKeyFile, 'the store key', 'chmod 600')),
    ...accessProblems(certificate.keyPath, 'the certificate’s key', 'chmod 600'),
    ...certificateProblems(certificate, config, directory),
    ...(storeKey === undefined ? [] : keyProblems(storeKey)),
  ];
  if (problems.length > 0) {
    throw new StartupError('config', `not fit for --production: ${problems.join('; ')}`, 'See docs/server.md.');
  }
}

function accessProblems(file: string, what: string, remedy: string): string[] {
  if (process.platform === 'win32') return [];
  const { mode, uid } = statSync(file);
  const problems: string[] = [];
  if ((mode & NOT_FOR_OTHERS) !== 0) problems.push(`${what} ${file} is open to other users: ${remedy} ${file}`);
  const user = process.geteuid?.();
  if (uid !== user && uid !== 0) problems.push(`${what} ${file} belongs to another user: chown it to the server’s`);
  return problems;
}

function certificateProblems(certificate: ServerCertificate, config: ServerConfig, directory: DataDirectory): string[] {
  const leaf = new X509Certificate(certificate.certificate);
  const problems: string[] = [];
  const own = directory.file('key.pem');
  if (existsSync(own) && leaf.checkIssued(leaf) && isKeyOf(own, leaf)) {
    problems.push(
      'the certificate is the one that qpc-server made: set --tls-cert and --tls-key to one from an authority',
    );
  }
  const host = hostOf(config.origin);
  const named = isIP(host) === 0 ? leaf.checkHost(host) : leaf.checkIP(host);
  if (host !== '' && named === undefined) {
    problems.push(`the certificate is not for ${host}: set --tls-cert to one that names the server’s --origin`);
  }
  return problems;
}

function isKeyOf(file: string, certificate: X509Certificate): boolean {
  try {
    return createPublicKey(readFileSync(file)).equals(certificate.publicKey);
  } catch {
    return false;
  }
}

/** The host name in an origin; empty without one. */
function hostOf(origin: string | undefined): string {
  return origin?.replace(/:\d+$/, '') ?? '';
}

/** Random bytes never look like this: each rule errs in less than one of 10^11 keys. */
function keyProblems(key: Uint8Array): string[] {
  const weak =
    new Set(key).size < 16 ||
    isRepeating(key) ||
    isSequence(key) ||
    key.every((byte) => byte >= 0x20 && byte < 0x7f) ||
    Buffer.from(key).toString('hex').search(/[a-f]/) < 0;
  return weak
    ? [
        'the store key is not random, so it can be guessed: make one with "openssl rand -hex 32" and set --store-key-file',
      ]
    : [];
}

/** A second half like the first, or a shorter piece over and over. */
function isRepeating(key: Uint8Array): boolean {
  for (let period = 1; period <= key.length / 2; period++) {
    if (key.every((byte, i) => i < period || byte === key[i - period])) return true;
  }
  return false;
}

function isSequence(key: Uint8Array): boolean {
  const step = (key[1]! - key[0]!) & 0xff;
  return key.every((byte, i) => i === 0 || ((byte - key[i - 1]!) & 0xff) === step);
}
