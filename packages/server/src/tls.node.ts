/**
 * The certificate clients see. Given by the operator, or made once in the data folder: self-signed, and a CA so that a
 * client can take it as its only trust anchor.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import path from 'node:path';
import type { ServerConfig } from './config.ts';
import { reasonOf, writePrivateFile, writePublicFile } from './data-directory.node.ts';
import type { DataDirectory } from './data-directory.node.ts';
import { StartupError } from './startup-error.ts';

const LIFETIME_MS = 10 * 365 * 86_400_000;
const BACKDATE_MS = 86_400_000;

export interface ServerCertificate {
  /** Certificate chain, PEM. */
  readonly certificate: Uint8Array;
  /** Private key, PEM. */
  readonly privateKey: Uint8Array;
  /** Where clients on this machine find what to trust. */
  readonly path: string;
  readonly generated: boolean;
}

/** @throws StartupError when the certificate or its key cannot be used */
export async function loadCertificate(config: ServerConfig, directory: DataDirectory): Promise<ServerCertificate> {
  const generated = config.tlsCert === undefined || config.tlsKey === undefined;
  const certificatePath = path.resolve(config.tlsCert ?? directory.file('cert.pem'));
  const keyPath = path.resolve(config.tlsKey ?? directory.file('key.pem'));
  // Without a database nobody has used the key: a first start that was cut short left it.
  const unused = !existsSync(keyPath) || !existsSync(directory.file('qpc.db'));
  if (generated && !existsSync(certificatePath) && unused) {
    const made = await makeCertificate(config.origin);
    // The key first: a certificate is announced as trusted once it exists.
    writePrivateFile(keyPath, made.privateKeyPem);
    writePublicFile(directory.file('cert.der'), made.certificateDer);
    writePublicFile(certificatePath, made.certificatePem);
  }
  const certificate = readPem(certificatePath);
  const privateKey = readPem(keyPath);
  check(certificate, certificatePath, privateKey, keyPath);
  return { certificate, privateKey, path: certificatePath, generated };
}

function readPem(file: string): Uint8Array {
  try {
    return readFileSync(file);
  } catch (error) {
    throw new StartupError(
      'config',
      `${file} cannot be read: ${reasonOf(error)}`,
      'Give the certificate with --tls-cert and its key with --tls-key, or remove both from the data folder.',
      { cause: error },
    );
  }
}

function check(certificate: Uint8Array, certificatePath: string, privateKey: Uint8Array, keyPath: string): void {
  let x509: X509Certificate;
  try {
    x509 = new X509Certificate(certificate);
  } catch (error) {
    throw new StartupError('config', `${certificatePath} is not a certificate`, 'Give one in PEM form.', {
      cause: error,
    });
  }
  let matches: boolean;
  try {
    matches = x509.checkPrivateKey(createPrivateKey(Buffer.from(privateKey)));
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
  if (x509.validToDate.getTime() < Date.now()) {
    throw new StartupError('config', `${certificatePath} has expired`, 'Renew it, or remove it together with its key.');
  }
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
