/** Certificates as an authority would give them, for tests: whatever names, whatever times. */
import 'reflect-metadata';
import * as x509 from '@peculiar/x509';

const HASHES = { 'P-256': 'SHA-256', 'P-384': 'SHA-384', 'P-521': 'SHA-512' } as const;
const DAY_MS = 86_400_000;

export interface TestCertificate {
  readonly certificate: string;
  readonly privateKey: string;
}

/** PEM; an anchor of its own. */
export async function makeTestCertificate(
  names: readonly string[],
  {
    fromDays = -1,
    days = 90,
    namedCurve = 'P-256',
  }: { readonly fromDays?: number; readonly days?: number; readonly namedCurve?: keyof typeof HASHES } = {},
): Promise<TestCertificate> {
  const algorithm = { name: 'ECDSA', namedCurve, hash: HASHES[namedCurve] };
  const { subtle } = globalThis.crypto;
  const keys = await subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: Buffer.from(globalThis.crypto.getRandomValues(new Uint8Array(15))).toString('hex'),
    name: `CN=${names[0] ?? 'nobody'}`,
    notBefore: new Date(Date.now() + fromDays * DAY_MS),
    notAfter: new Date(Date.now() + days * DAY_MS),
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.digitalSignature, true),
      new x509.SubjectAlternativeNameExtension(names.map((value) => ({ type: 'dns', value }) as const)),
    ],
  });
  return { certificate: `${certificate.toString('pem')}\n`, privateKey: await toPem(keys.privateKey) };
}

/** What an authority with one intermediate gives out, PEM. Each call makes another authority of the same names. */
export async function makeTestChain(names: readonly string[]): Promise<{
  readonly leaf: string;
  readonly intermediate: string;
  readonly root: string;
  readonly privateKey: string;
}> {
  const { subtle } = globalThis.crypto;
  const signingAlgorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const makeKeys = () => subtle.generateKey(signingAlgorithm, true, ['sign', 'verify']);
  const [rootKeys, intermediateKeys, leafKeys] = [await makeKeys(), await makeKeys(), await makeKeys()];
  const issue = async (subject: string, keys: KeyPair, issuer: string, by: KeyPair, isCa: boolean) => {
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: Buffer.from(globalThis.crypto.getRandomValues(new Uint8Array(15))).toString('hex'),
      subject: `CN=${subject}`,
      issuer: `CN=${issuer}`,
      notBefore: new Date(Date.now() - DAY_MS),
      notAfter: new Date(Date.now() + 90 * DAY_MS),
      signingAlgorithm,
      publicKey: keys.publicKey,
      signingKey: by.privateKey,
      extensions: [
        new x509.BasicConstraintsExtension(isCa, undefined, true),
        new x509.KeyUsagesExtension(isCa ? x509.KeyUsageFlags.keyCertSign : x509.KeyUsageFlags.digitalSignature, true),
        ...(isCa
          ? []
          : [new x509.SubjectAlternativeNameExtension(names.map((value) => ({ type: 'dns', value }) as const))]),
      ],
    });
    return `${certificate.toString('pem')}\n`;
  };
  return {
    leaf: await issue(names[0] ?? 'nobody', leafKeys, 'Test Intermediate', intermediateKeys, false),
    intermediate: await issue('Test Intermediate', intermediateKeys, 'Test Root', rootKeys, true),
    root: await issue('Test Root', rootKeys, 'Test Root', rootKeys, true),
    privateKey: await toPem(leafKeys.privateKey),
  };
}

interface KeyPair {
  readonly publicKey: CryptoKey;
  readonly privateKey: CryptoKey;
}

async function toPem(privateKey: CryptoKey): Promise<string> {
  const pkcs8 = Buffer.from(await globalThis.crypto.subtle.exportKey('pkcs8', privateKey)).toString('base64');
  const lines = (pkcs8.match(/.{1,64}/g) ?? []).join('\n');
  return `-----BEGIN PRIVATE KEY-----\n${lines}\n-----END PRIVATE KEY-----\n`;
}
