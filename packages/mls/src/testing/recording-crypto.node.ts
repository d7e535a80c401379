/**
 * A provider that remembers every secret it gave out, with the label it was derived under: which buffers held it, and
 * what was in them. So a test can ask afterwards what of that is left anywhere.
 */
import type { CryptoProvider, Kem } from '@quicprochat/crypto';

export interface RecordedSecret {
  /** The label of an ExpandWithLabel or of HPKE; or what primitive gave it. */
  readonly label: string;
  /** As it was given out; zero once it was wiped. */
  readonly buffer: Uint8Array;
  readonly value: Buffer;
}

export interface RecordingCrypto {
  readonly crypto: CryptoProvider;
  readonly recorded: readonly RecordedSecret[];
}

export function recordingCrypto(provider: CryptoProvider): RecordingCrypto {
  const recorded: RecordedSecret[] = [];
  const record = (label: string, buffer: Uint8Array): Uint8Array => {
    if (buffer.length > 0) recorded.push({ label, buffer, value: Buffer.from(buffer) });
    return buffer;
  };
  const kem = (inner: Kem): Kem => ({
    ...inner,
    deriveKeyPair(ikm) {
      const pair = inner.deriveKeyPair(ikm);
      record('private key', pair.privateKey);
      return pair;
    },
    encapsulate(publicKey, ikmE) {
      const result = inner.encapsulate(publicKey, ikmE);
      record('shared secret', result.sharedSecret);
      return result;
    },
    decapsulate(privateKey, enc) {
      const secret = inner.decapsulate(privateKey, enc);
      return secret && record('shared secret', secret);
    },
  });
  const crypto: CryptoProvider = {
    ...provider,
    random(length) {
      const random = provider.random(length);
      // The nonce of a pre-shared key is drawn like a key, but is public.
      return /\b(proposalOf|createSuccessor)\b/.test(new Error().stack ?? '') ? random : record('random', random);
    },
    hkdfExtract(hash, salt, ikm) {
      const extracted = provider.hkdfExtract(hash, salt, ikm);
      // Hashes of what is public.
      const isPublic = /^HPKE-v1HPKE[\s\S]{6}(psk_id_hash|info_hash)/.test(Buffer.from(ikm).toString('latin1'));
      return isPublic ? extracted : record('extracted', extracted);
    },
    hkdfExpand: (hash, prk, info, length) => record(labelOf(info), provider.hkdfExpand(hash, prk, info, length)),
    aead(id) {
      const inner = provider.aead(id);
      return {
        ...inner,
        open(key, nonce, aad, ciphertext) {
          const plaintext = inner.open(key, nonce, aad, ciphertext);
          // Without associated data: HPKE, and the GroupInfo of a Welcome, which is public to the group.
          return plaintext && aad.length === 0 && plaintext.length < 200 ? record('opened', plaintext) : plaintext;
        },
      };
    },
    kem: (id) => kem(provider.kem(id)),
  };
  return { crypto, recorded };
}

/** The label within a KDFLabel of MLS (RFC 9420 section 8) or a labeled_info of HPKE (RFC 9180 section 4). */
function labelOf(info: Uint8Array): string {
  const text = Buffer.from(info).toString('latin1');
  const mls = text.slice(3, 3 + (info[2] ?? 0));
  if (mls.startsWith('MLS 1.0 ')) return mls.slice('MLS 1.0 '.length);
  return /^..HPKE-v1HPKE[\s\S]{6}(key|base_nonce|exp|sec)/.exec(text)?.[1] ?? 'unknown';
}

/** Every byte array that can be reached from a value through objects, arrays, maps and sets. */
export function reachableBytes(
  value: unknown,
  found = new Set<Uint8Array>(),
  seen = new Set<unknown>(),
): Set<Uint8Array> {
  if (typeof value !== 'object' || value === null || seen.has(value)) return found;
  seen.add(value);
  if (value instanceof Uint8Array) found.add(value);
  else if (value instanceof Map || value instanceof Set) {
    for (const entry of value) reachableBytes(entry, found, seen);
  } else {
    for (const key of Reflect.ownKeys(value)) reachableBytes((value as Record<PropertyKey, unknown>)[key], found, seen);
  }
  return found;
}
