/**
 * Safety numbers (PROTOCOL 1): 60 digits that two people compare by voice or by eye. Each side contributes 30 digits of
 * an iterated SHA-512 over label ‖ version ‖ origin ‖ username ‖ IK; the two halves are sorted and joined, so both see
 * the same number. The iterations make a search for a look-alike key expensive.
 */
import { concat } from '@quicprochat/crypto';
import type { CryptoProvider } from '@quicprochat/crypto';
import { IDENTITY_KEY_BYTES } from './identity.ts';
import { Label } from './labels.ts';
import { exactly, lengthPrefixedText } from './statement.ts';

const VERSION = 1;
const ITERATIONS = 5_200;
const GROUPS_PER_SIDE = 6;

export interface SafetyNumberSide {
  readonly origin: string;
  readonly username: string;
  readonly identityKey: Uint8Array;
}

/** 60 digits, the same whichever side is given first. */
export function safetyNumber(crypto: CryptoProvider, one: SafetyNumberSide, other: SafetyNumberSide): string {
  return [sideDigits(crypto, one), sideDigits(crypto, other)].sort().join('');
}

/** For display: twelve groups of five digits. */
export function formatSafetyNumber(digits: string): string {
  return (digits.match(/.{5}/g) ?? []).join(' ');
}

function sideDigits(crypto: CryptoProvider, side: SafetyNumberSide): string {
  const key = exactly(side.identityKey, IDENTITY_KEY_BYTES, 'an identity key');
  let digest = crypto.hash(
    'sha512',
    concat(
      Label.safetyNumber,
      new Uint8Array([VERSION]),
      lengthPrefixedText(side.origin),
      lengthPrefixedText(side.username),
      key,
    ),
  );
  for (let i = 1; i < ITERATIONS; i++) digest = crypto.hash('sha512', concat(digest, key));
  let digits = '';
  for (let group = 0; group < GROUPS_PER_SIDE; group++) {
    let value = 0;
    for (let i = 0; i < 5; i++) value = value * 256 + digest[5 * group + i]!;
    digits += String(value % 100_000).padStart(5, '0');
  }
  return digits;
}
