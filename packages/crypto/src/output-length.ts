/** What both providers ask of a length they are to give. */
import { CryptoError } from './provider.ts';

/** A length that came from a mistake must not give fewer bytes than its caller believes, nor some twice. */
export function checkOutputLength(length: number): void {
  if (!Number.isSafeInteger(length) || length < 0) throw new CryptoError('not a number of bytes');
}
