// A self-signed certificate for tests and benchmarks, written out by hand: X.509 v3, ECDSA P-256, CA:TRUE
// with keyCertSign, so that it can be its own trust anchor.
import { type KeyObject, generateKeyPairSync, randomBytes, sign } from 'node:crypto';

/** PEM, as the QUIC binding wants it, and the certificate's DER. */
export interface TestCertificate {
  readonly certificate: Uint8Array;
  readonly privateKey: Uint8Array;
  readonly der: Uint8Array;
}

/** @param options.names DNS names; default `localhost` */
export function makeTestCertificate(
  options: { names?: readonly string[]; notBefore?: Date; notAfter?: Date } = {},
): TestCertificate {
  const { names = ['localhost'] } = options;
  const notBefore = options.notBefore ?? new Date(Date.now() - 3_600_000);
  const notAfter = options.notAfter ?? new Date(Date.now() + 86_400_000);
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  // Its own name: the engine looks for an issuer by name first.
  const subject = `quicprochat test ${randomBytes(4).toString('hex')}`;
  const name = sequence(set(sequence(oid('550403'), tlv(0x0c, Buffer.from(subject)))));
  const algorithm = sequence(oid('2a8648ce3d040302'));
  const toBeSigned = sequence(
    tlv(0xa0, integer(Buffer.from([2]))),
    integer(Buffer.concat([Buffer.from([0x40]), randomBytes(15)])),
    algorithm,
    name,
    sequence(time(notBefore), time(notAfter)),
    name,
    spkiOf(publicKey),
    tlv(0xa3, sequence(...extensions(names))),
  );
  const signature = sign('sha256', toBeSigned, privateKey);
  const der = sequence(toBeSigned, algorithm, bitString(signature));
  const base64 = der.toString('base64').replace(/.{1,64}/g, '$&\n');
  return {
    certificate: Buffer.from(`-----BEGIN CERTIFICATE-----\n${base64}-----END CERTIFICATE-----\n`),
    privateKey: Buffer.from(privateKey.export({ type: 'pkcs8', format: 'pem' })),
    der,
  };
}

function extensions(names: readonly string[]): Buffer[] {
  const critical = tlv(0x01, Buffer.from([0xff]));
  const altNames = sequence(...names.map((name) => tlv(0x82, Buffer.from(name))));
  // digitalSignature and keyCertSign.
  const keyUsage = tlv(0x03, Buffer.from([2, 0x84]));
  return [
    sequence(oid('551d13'), critical, tlv(0x04, sequence(critical))),
    sequence(oid('551d0f'), critical, tlv(0x04, keyUsage)),
    sequence(oid('551d11'), tlv(0x04, altNames)),
  ];
}

function tlv(tag: number, content: Buffer): Buffer {
  const { length } = content;
  const size = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...size]), content]);
}

function sequence(...parts: Buffer[]): Buffer {
  return tlv(0x30, Buffer.concat(parts));
}

function set(...parts: Buffer[]): Buffer {
  return tlv(0x31, Buffer.concat(parts));
}

function oid(hex: string): Buffer {
  return tlv(0x06, Buffer.from(hex, 'hex'));
}

function integer(bytes: Buffer): Buffer {
  return tlv(0x02, bytes);
}

function bitString(bytes: Buffer): Buffer {
  return tlv(0x03, Buffer.concat([Buffer.from([0]), bytes]));
}

function time(date: Date): Buffer {
  const digits = date.toISOString().replace(/[-:T]|\.\d+/g, '');
  return tlv(0x17, Buffer.from(digits.slice(2)));
}

function spkiOf(key: KeyObject): Buffer {
  return key.export({ type: 'spki', format: 'der' });
}
