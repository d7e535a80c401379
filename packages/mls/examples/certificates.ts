// The least certificate authority that can be: Ed25519 certificates of version 1 (RFC 5280, RFC 8410), for x509.ts only.
import { createPublicKey, generateKeyPairSync, randomBytes, sign, X509Certificate } from 'node:crypto';

function der(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(parts);
  const length = body.length < 128 ? [body.length] : [0x82, body.length >> 8, body.length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...length]), body]);
}

const sequence = (...parts: readonly Uint8Array[]): Buffer => der(0x30, ...parts);
const text = (tag: number, value: string): Buffer => der(tag, Buffer.from(value));
const bits = (value: Uint8Array): Buffer => der(0x03, Buffer.from([0]), value);
const ed25519 = sequence(der(0x06, Buffer.from('2b6570', 'hex')));
const commonName = der(0x06, Buffer.from('550403', 'hex'));
const name = (value: string): Buffer => sequence(der(0x31, sequence(commonName, text(0x0c, value))));
const validity = sequence(text(0x17, '250101000000Z'), text(0x18, '99991231235959Z'));

const ISSUER = 'Example authority';
const keys = generateKeyPairSync('ed25519');

/** A certificate for this name and raw Ed25519 public key, in DER. */
export function issue(subject: string, publicKey: Uint8Array): Uint8Array {
  const serial = der(0x02, Buffer.from([1]), randomBytes(8));
  const unsigned = sequence(serial, ed25519, name(ISSUER), validity, name(subject), sequence(ed25519, bits(publicKey)));
  return new Uint8Array(sequence(unsigned, ed25519, bits(sign(null, unsigned, keys.privateKey))));
}

const raw = Buffer.from(createPublicKey(keys.privateKey).export({ format: 'jwk' }).x!, 'base64url');

export const authority = { publicKey: keys.publicKey, certificate: new X509Certificate(issue(ISSUER, raw)) };
