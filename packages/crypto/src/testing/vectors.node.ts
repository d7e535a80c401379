/** Public test vectors of tests/vectors, and the providers every shared suite runs on. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { decodeHex } from '../bytes.ts';
import { derImport, fastestImport } from '../key-import.node.ts';
import { nobleCrypto, noblePrimitives } from '../provider-noble.ts';
import { createNodeCrypto, nodeCrypto, nodePrimitives } from '../provider.node.ts';
import type { CryptoProvider } from '../provider.ts';
import type { XWingPrimitives } from '../x-wing.ts';

/** Reads a JSON file below tests/vectors, gunzipped when its name says so. */
export function readVectors<T>(path: string): T {
  const bytes = readFileSync(new URL(`../../../../tests/vectors/${path}`, import.meta.url));
  return JSON.parse((path.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString('utf8')) as T;
}

/** For literals and vectors, whose hexadecimal is known to be good. */
export function hex(text: string): Uint8Array {
  const bytes = decodeHex(text);
  if (bytes === undefined) throw new Error('malformed hexadecimal in a test');
  return bytes;
}

/** Keying material for deriveKeyPair: enough for every KEM and curve, different for each number. */
export function ikm(number: number): Uint8Array {
  return new Uint8Array(80).fill(number);
}

/** A group of cases in a file of C2SP/wycheproof. */
interface WycheproofFile<Case, Group> {
  readonly testGroups: readonly (Group & { readonly tests: readonly Case[] })[];
}

export interface WycheproofCase {
  readonly tcId: number;
  readonly flags: readonly string[];
  readonly result: 'valid' | 'invalid' | 'acceptable';
}

/** All cases of a file, each with its group. */
export function readWycheproof<Case, Group>(name: string): { test: Case & WycheproofCase; group: Group }[] {
  const file = readVectors<WycheproofFile<Case & WycheproofCase, Group>>(`wycheproof/${name}.json`);
  return file.testGroups.flatMap((group) => group.tests.map((test) => ({ test, group })));
}

export interface Implementation {
  readonly provider: CryptoProvider;
  readonly primitives: XWingPrimitives<unknown>;
  /** Whether the randomness of ML-KEM can be fixed. */
  readonly derandomizes: boolean;
}

const derProvider: CryptoProvider = { ...createNodeCrypto(derImport), name: 'node:crypto, keys as DER' };

/** Every provider; node:crypto with both ways of importing keys, whichever this Node would choose. */
export const implementations: readonly Implementation[] = [
  { provider: nodeCrypto, primitives: erased(nodePrimitives(fastestImport())), derandomizes: false },
  { provider: derProvider, primitives: erased(nodePrimitives(derImport)), derandomizes: false },
  { provider: nobleCrypto, primitives: erased(noblePrimitives), derandomizes: true },
];

/** Forgets the type of imported private keys, which tests only hand back to where they came from. */
function erased<PrivateKey>(primitives: XWingPrimitives<PrivateKey>): XWingPrimitives<unknown> {
  return primitives as XWingPrimitives<unknown>;
}
