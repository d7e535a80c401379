/**
 * The verifiable random function that hides names in the log (PROTOCOL 7): ECVRF-RISTRETTO255-SHA512, as
 * c2sp.org/vrf-r255 defines it over RFC 9381. Only the server can compute the output for a name; with a proof, anyone
 * can check it, and there is exactly one output per key and input.
 *
 *   proof = Gamma 32 ‖ c 16 ‖ s 32        output = SHA-512(suite ‖ 03 ‖ Gamma ‖ 00), 64 bytes
 *
 * Scalars are little-endian. Names follow RFC 9381 section 5: x secret key, Y public key, H the input as a group
 * element, Gamma = x·H, and U, V the commitments of the proof. Arithmetic is that of @noble/curves, whose big integers
 * are not strictly constant-time; the key is a server's, and what an attacker could time is a call over the network.
 *
 * The library takes 25 ms to load, and most runs of a program compute no VRF: `vrfReady` loads it, once, before the others.
 */
import { bigIntToBytes, bytesToBigInt, concat, encodeUtf8, equal } from '@quicprochat/crypto';
import type { CryptoProvider, KeyPair } from '@quicprochat/crypto';
import { Misuse } from '../errors.ts';

export const VRF_PUBLIC_KEY_BYTES = 32;
export const VRF_PRIVATE_KEY_BYTES = 32;
export const VRF_PROOF_BYTES = 80;
export const VRF_OUTPUT_BYTES = 64;

type Ristretto = (typeof import('@noble/curves/ed25519.js'))['ristretto255']['Point'];
type Point = InstanceType<Ristretto>;
type HashToPoint = NonNullable<(typeof import('@noble/curves/ed25519.js'))['ristretto255_hasher']['deriveToCurve']>;

interface Group {
  readonly Point: Ristretto;
  readonly ORDER: bigint;
  readonly hashToPoint: HashToPoint;
}

let loaded: Group | undefined;

/** Resolves when everything here, and what calls it, can be used. */
export async function vrfReady(): Promise<void> {
  if (loaded !== undefined) return;
  const { ristretto255, ristretto255_hasher } = await import('@noble/curves/ed25519.js');
  const { Point } = ristretto255;
  loaded = { Point, ORDER: Point.Fn.ORDER, hashToPoint: ristretto255_hasher.deriveToCurve! };
}

function group(): Group {
  if (loaded === undefined) throw new Misuse('the VRF is not loaded yet: await vrfReady() first');
  return loaded;
}

const SUITE = concat(new Uint8Array([0xff]), encodeUtf8('c2sp.org/vrf-r255'));
const CHALLENGE_BYTES = 16;
const PURPOSE = { challenge: 0x02, output: 0x03, nonce: 0x81, encode: 0x82 } as const;
/** RFC 9381 ends the input of these two hashes with a zero byte. */
const BACK = new Uint8Array([0x00]);

/** A fresh key pair; the private key is a scalar of 32 bytes. @throws Misuse before `vrfReady`, as all others here */
export function generateVrfKeyPair(crypto: CryptoProvider): KeyPair {
  const { Point, ORDER } = group();
  const wide = crypto.random(64);
  try {
    const x = scalar(wide) % ORDER;
    // Of a copy of the base point: the table of multiples that the library makes for the original is not worth its 30 ms
    // at a server's first start.
    const publicKey = Point.fromBytes(Point.BASE.toBytes()).multiply(x).toBytes();
    return { privateKey: encodeScalar(x, VRF_PRIVATE_KEY_BYTES), publicKey };
  } finally {
    crypto.wipe(wide);
  }
}

/** @throws Misuse when this is no private key; likewise `vrfProve`. */
export function vrfPublicKey(privateKey: Uint8Array): Uint8Array {
  return group().Point.BASE.multiply(secretScalar(privateKey)).toBytes();
}

/** Whether these bytes are a key that `vrfVerify` could ever accept. */
export function isVrfPublicKey(publicKey: Uint8Array): boolean {
  const point = decodePoint(publicKey);
  return point !== undefined && !point.is0();
}

export interface VrfResult {
  /** 80 bytes. */
  readonly proof: Uint8Array;
  /** 64 bytes. */
  readonly output: Uint8Array;
}

/** RFC 9381 section 5.1. The same key and input always give the same proof. */
export function vrfProve(crypto: CryptoProvider, privateKey: Uint8Array, input: Uint8Array): VrfResult {
  const { Point, ORDER } = group();
  const x = secretScalar(privateKey);
  const publicKey = vrfPublicKey(privateKey);
  const h = encodeToCurve(crypto, publicKey, input);
  const hBytes = h.toBytes();
  const gamma = h.multiply(x);
  const kBytes = hash(crypto, PURPOSE.nonce, privateKey, hBytes);
  const k = scalar(kBytes) % ORDER;
  crypto.wipe(kBytes);
  const c = challenge(crypto, publicKey, hBytes, gamma, Point.BASE.multiply(k), h.multiply(k));
  const s = (k + c * x) % ORDER;
  return {
    proof: concat(gamma.toBytes(), encodeScalar(c, CHALLENGE_BYTES), encodeScalar(s, 32)),
    output: outputOf(crypto, gamma),
  };
}

/** RFC 9381 section 5.3, with validation of the key. The output, or undefined when the proof does not hold. */
export function vrfVerify(
  crypto: CryptoProvider,
  publicKey: Uint8Array,
  input: Uint8Array,
  proof: Uint8Array,
): Uint8Array | undefined {
  const { Point, ORDER } = group();
  if (proof.length !== VRF_PROOF_BYTES) return undefined;
  const y = decodePoint(publicKey);
  const gamma = decodePoint(proof.subarray(0, 32));
  if (y === undefined || y.is0() || gamma === undefined) return undefined;
  const cBytes = proof.subarray(32, 32 + CHALLENGE_BYTES);
  const c = scalar(cBytes);
  const s = scalar(proof.subarray(32 + CHALLENGE_BYTES));
  if (s >= ORDER) return undefined;
  const h = encodeToCurve(crypto, publicKey, input);
  const u = Point.BASE.multiplyUnsafe(s).subtract(y.multiplyUnsafe(c));
  const v = h.multiplyUnsafe(s).subtract(gamma.multiplyUnsafe(c));
  const expected = encodeScalar(challenge(crypto, publicKey, h.toBytes(), gamma, u, v), CHALLENGE_BYTES);
  return equal(expected, cBytes) ? outputOf(crypto, gamma) : undefined;
}

function encodeToCurve(crypto: CryptoProvider, salt: Uint8Array, input: Uint8Array): Point {
  return group().hashToPoint(hash(crypto, PURPOSE.encode, salt, input));
}

function challenge(
  crypto: CryptoProvider,
  publicKey: Uint8Array,
  h: Uint8Array,
  gamma: Point,
  u: Point,
  v: Point,
): bigint {
  const digest = hash(crypto, PURPOSE.challenge, publicKey, h, gamma.toBytes(), u.toBytes(), v.toBytes(), BACK);
  return scalar(digest.subarray(0, CHALLENGE_BYTES));
}

function outputOf(crypto: CryptoProvider, gamma: Point): Uint8Array {
  return hash(crypto, PURPOSE.output, gamma.toBytes(), BACK);
}

function hash(crypto: CryptoProvider, purpose: number, ...parts: readonly Uint8Array[]): Uint8Array {
  return crypto.hash('sha512', concat(SUITE, new Uint8Array([purpose]), ...parts));
}

function secretScalar(privateKey: Uint8Array): bigint {
  const x = privateKey.length === VRF_PRIVATE_KEY_BYTES ? scalar(privateKey) : 0n;
  if (x === 0n || x >= group().ORDER) throw new Misuse('a VRF private key is a scalar of 32 bytes, not zero');
  return x;
}

/** The element, or undefined when this is not its one encoding (RFC 9496 section 4.3.1). */
function decodePoint(bytes: Uint8Array): Point | undefined {
  const { Point } = group();
  if (bytes.length !== 32) return undefined;
  try {
    return Point.fromBytes(bytes);
  } catch {
    return undefined;
  }
}

function scalar(littleEndian: Uint8Array): bigint {
  return bytesToBigInt(littleEndian.toReversed());
}

function encodeScalar(value: bigint, length: number): Uint8Array {
  return bigIntToBytes(value, length).toReversed();
}
