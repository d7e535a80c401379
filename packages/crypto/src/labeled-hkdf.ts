/**
 * LabeledExtract and LabeledExpand (RFC 9180 section 4): HKDF bound to a protocol version and a suite, used by HPKE's
 * key schedule and inside its DHKEMs, each under a suite_id of its own.
 */
import { concat, encodeUtf8, u16 } from './bytes.ts';
import type { CryptoProvider, HashName } from './provider.ts';

export const HPKE_V1 = encodeUtf8('HPKE-v1');

export type Hkdf = Pick<CryptoProvider, 'hkdfExtract' | 'hkdfExpand'>;

export interface LabeledHkdf {
  extract(salt: Uint8Array, label: string, ikm: Uint8Array): Uint8Array;
  expand(prk: Uint8Array, label: string, info: Uint8Array, length: number): Uint8Array;
}

export function labeledHkdf(hkdf: Hkdf, hash: HashName, suiteId: Uint8Array): LabeledHkdf {
  const prefixes = new Map<string, Uint8Array>();
  const prefix = (label: string): Uint8Array => {
    let bytes = prefixes.get(label);
    if (bytes === undefined) {
      bytes = concat(HPKE_V1, suiteId, encodeUtf8(label));
      prefixes.set(label, bytes);
    }
    return bytes;
  };
  return {
    extract(salt, label, ikm) {
      const labeledIkm = concat(prefix(label), ikm);
      const prk = hkdf.hkdfExtract(hash, salt, labeledIkm);
      labeledIkm.fill(0);
      return prk;
    },
    expand: (prk, label, info, length) => hkdf.hkdfExpand(hash, prk, concat(u16(length), prefix(label), info), length),
  };
}
