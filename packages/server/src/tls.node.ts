/**
 * The certificate clients see. Given by the operator, or made once in the data folder: self-signed, and a CA so that a
 * client can take it as its only trust anchor.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import path from 'node:path';
import type { ServerConfig } from './config.ts';
import { reasonOf, writePrivateFile, writePublicFile } from './data-directory.node.ts';
import type { DataDirectory } from './data-directory.node.ts';
import { StartupError } from './startup-error.ts';

const LIFETIME_MS = 10 * 365 * 86_400_000;
const BACKDATE_MS = 86_400_000;
const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

type CertificateSettings = Pick<ServerConfig, 'tlsCert' | 'tlsKey' | 'origin'>;

export interface ServerCertificate {
  /** Certificate chain, PEM. */
  readonly certificate: Uint8Array;
  /** Private key, PEM. */
  readonly privateKey: Uint8Array;
  /** Where clients on this machine find what to trust. */
  readonly path: string;
  readonly keyPath: string;
  readonly generated: boolean;
  /** When the first certificate of the chain to expire does, milliseconds since 1970. */
  readonly expiresAtMs: number;
}

/** Where the certificate is, given or made. */
function pathsOf(config: CertificateSettings, directory: DataDirectory): { certificatePath: string; keyPath: string } {
  return {
    certificatePath: path.resolve(config.tlsCert ?? directory.file('cert.pem')),
    keyPath: path.resolve(config.tlsKey ?? directory.file('key.pem')),
  };
}

/** @throws StartupError when the certificate or its key cannot be used */
export function loadCertificate(
  config: CertificateSettings,
  directory: DataDirectory,
  nowMs: number,
): ServerCertificate {
  const { certificatePath, keyPath } = pathsOf(config, directory);
  const certificate = readPem(certificatePath);
  const privateKey = readPem(keyPath);
  const expiresAtMs = check(certificate, certificatePath, privateKey, keyPath, nowMs);
  const generated = config.tlsCert === undefined;
  return { certificate, privateKey, path: certificatePath, keyPath, generated, expiresAtMs };
}

/**
 * Makes the certificate of a first start unless it is there. Whoever calls this holds the store's lock, so that of two
 * servers that start at once only one gets here.
 */
export async function makeFirstCertificate(config: CertificateSettings, directory: DataDirectory): Promise<void> {
  const { certificatePath, keyPath } = pathsOf(config, directory);
  if (existsSync(certificatePath)) return;
  const made = await makeCertificate(config.origin);
  // The key first: a certificate is announced as trusted once it exists.
  writePrivateFile(keyPath, made.privateKeyPem);
  writePublicFile(directory.file('cert.der'), made.certificateDer);
  writePublicFile(certificatePath, made.certificatePem);
}

function readPem(file: string): Uint8Array {
  try {
    return readFileSync(file);
  } catch (error) {
    throw new StartupError(
      'config',
      `${file} cannot be read: ${reasonOf(error)}`,
      'Put it back from a copy, or give a certificate with --tls-cert and its key with --tls-key.',
      { cause: error },
    );
  }
}

/** @returns when the chain expires */
function check(
  certificate: Uint8Array,
  certificatePath: string,
  privateKey: Uint8Array,
  keyPath: string,
  nowMs: number,
): number {
  let chain: X509Certificate[];
  try {
    const blocks = Buffer.from(certificate).toString('latin1').match(PEM_CERTIFICATE) ?? [''];
    chain = blocks.map((block) => new X509Certificate(block));
  } catch (error) {
    throw new StartupError('config', `${certificatePath} is not a certificate`, 'Give one in PEM form.', {
      cause: error,
    });
  }
  let matches: boolean;
  let key: KeyObject;
  try {
    key = createPrivateKey(Buffer.from(privateKey));
    matches = chain[0]!.checkPrivateKey(key);
  } catch (error) {
    throw new StartupError('config', `${keyPath} is not a private key`, 'Give one in PEM form, without a password.', {
      cause: error,
    });
  }
  if (!matches) {
    throw new StartupError(
      'config',
      `${keyPath} is not the key of ${certificatePath}`,
      'Give a pair that belongs together.',
    );
  }
  refuseBrokenChain(chain, certificatePath);
  if (!isKindForClients(key)) {
    throw new StartupError(
      'config',
      `${keyPath} is a key of a kind that clients do not take`,
      'Give one for ECDSA on P-256 or P-384, or for RSA with 2048 bits or more, and a certificate for it.',
    );
  }
  const expiresAtMs = Math.min(...chain.map((each) => each.validToDate.getTime()));
  if (expiresAtMs <= nowMs) {
    throw new StartupError(
      'config',
      `${certificatePath} has expired on ${new Date(expiresAtMs).toISOString()}`,
      'Renew it, or remove it together with its key.',
    );
  }
  if (chain[0]!.validFromDate.getTime() > nowMs) {
    throw new StartupError(
      'config',
      `${certificatePath} is not valid before ${chain[0]!.validFromDate.toISOString()}`,
      'Check the clock of this machine, or give another certificate.',
    );
  }
  return expiresAtMs;
}

/**
 * Each certificate is signed by the next, as clients need it who trust only what the last one leads to. A browser finds a
 * way around a wrong one; the server would start, and every client refuse it.
 */
function refuseBrokenChain(chain: readonly X509Certificate[], certificatePath: string): void {
  for (const [i, each] of chain.entries()) {
    const issuer = chain[i + 1];
    if (issuer === undefined || (each.checkIssued(issuer) && each.verify(issuer.publicKey))) continue;
    throw new StartupError(
      'config',
      `${certificatePath}: certificate ${i + 1} (${nameOf(each)}) is not signed by certificate ${i + 2} (${nameOf(issuer)})`,
      'Put the certificate of the key first, then the one that has signed it, and so on; leave others out.',
    );
  }
}

/** What to call it on a line of its own. */
function nameOf({ subject, serialNumber }: X509Certificate): string {
  const name = /^CN=(.+)$/m.exec(subject)?.[1] ?? subject.replaceAll('\n', ', ');
  return name === '' ? `serial number ${serialNumber}` : name;
}

/** What the TLS of the QUIC engine offers. The server would listen with Ed25519 or P-521, and every handshake fail. */
function isKindForClients({ asymmetricKeyType, asymmetricKeyDetails }: KeyObject): boolean {
  if (asymmetricKeyType === 'rsa') return (asymmetricKeyDetails?.modulusLength ?? 0) >= 2048;
  return asymmetricKeyType === 'ec' && /^(?:prime256v1|secp384r1)$/.test(asymmetricKeyDetails?.namedCurve ?? '');
}

async function makeCertificate(
  origin: string | undefined,
): Promise<{ privateKeyPem: string; certificatePem: string; certificateDer: Uint8Array }> {
  // Only the first start needs these, and loading them takes longer than the rest of a start.
  await import('reflect-metadata');
  const x509 = await import('@peculiar/x509');
  const { subtle } = globalThis.crypto;
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const keys = await subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const originHost = origin?.replace(/:\d+$/, '');
  const names = [
    ...(originHost === undefined || originHost === 'localhost' || isIP(originHost) !== 0 ? [] : [originHost]),
    'localhost',
  ];
  const now = Date.now();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: Buffer.from(globalThis.crypto.getRandomValues(new Uint8Array(15))).toString('hex'),
    name: `CN=${names[0] ?? 'localhost'}`,
    notBefore: new Date(now - BACKDATE_MS),
    notAfter: new Date(now + LIFETIME_MS),
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension([
        ...names.map((value) => ({ type: 'dns', value }) as const),
        { type: 'ip', value: '127.0.0.1' },
        { type: 'ip', value: '::1' },
      ]),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  const pkcs8 = Buffer.from(await subtle.exportKey('pkcs8', keys.privateKey)).toString('base64');
  const wrapped = (pkcs8.match(/.{1,64}/g) ?? []).join('\n');
  return {
    privateKeyPem: `-----BEGIN PRIVATE KEY-----\n${wrapped}\n-----END PRIVATE KEY-----\n`,
    certificatePem: `${certificate.toString('pem')}\n`,
    certificateDer: new Uint8Array(certificate.rawData),
  };
}
