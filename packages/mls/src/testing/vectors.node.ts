/** The public vectors of RFC 9420 (mlswg/mls-implementations), under tests/vectors/mls. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { type CryptoProvider, decodeHex, encodeHex } from '@quicprochat/crypto';
import { nobleCrypto } from '@quicprochat/crypto/noble';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { findSuite, type Suite } from '../cipher-suites.ts';

export function loadVectors<T>(name: string): T[] {
  const file = new URL(`../../../../tests/vectors/mls/${name}.json`, import.meta.url);
  return JSON.parse(readFileSync(file, 'utf8')) as T[];
}

export interface SuiteCase {
  readonly cipher_suite: number;
}

/** Vectors that take seconds on noble are left to node:crypto; that both agree, other tests show. */
export const providers: readonly CryptoProvider[] = [nodeCrypto, nobleCrypto];

/** The cases of the suites we have, each with its suite. */
export function suiteCases<T extends SuiteCase>(
  cases: readonly T[],
  crypto: CryptoProvider = nodeCrypto,
): { suite: Suite; vector: T }[] {
  return cases.flatMap((vector) => {
    const suite = findSuite(crypto, vector.cipher_suite);
    return suite === undefined ? [] : [{ suite, vector }];
  });
}

export function unhex(text: string): Uint8Array {
  return decodeHex(text) ?? assert.fail('not hexadecimal');
}

/** A signature's private key: some of the vectors leave out the leading zeros of a scalar. */
export function unhexPrivateKey({ signature }: Suite, text: string): Uint8Array {
  return leftPadded(unhex(text), signature.privateKeyLength);
}

/** Likewise for a KEM. */
export function unhexKemPrivateKey({ kem }: Suite, text: string): Uint8Array {
  return leftPadded(unhex(text), kem.privateKeyLength);
}

function leftPadded(key: Uint8Array, length: number): Uint8Array {
  const padded = new Uint8Array(length);
  padded.set(key, length - key.length);
  return padded;
}

export function assertHex(actual: Uint8Array | undefined, expected: string, what = 'bytes'): void {
  assert.equal(actual && encodeHex(actual), expected, what);
}
