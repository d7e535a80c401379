// What all examples need: a context, people with signature keys, and `accepted`, for outcomes that must not be refusals.
import type { KeyPair } from '@quicprochat/crypto';
import { nodeCrypto } from '@quicprochat/crypto/node';
import * as mls from '@quicprochat/mls';

/** Made anew whenever the clock matters. In a browser: `nobleCrypto` of `@quicprochat/crypto/noble`. */
export function newContext(hooks: mls.MlsHooks = {}): mls.MlsContext {
  return { crypto: nodeCrypto, random: nodeCrypto.random, now: Math.floor(Date.now() / 1000), hooks };
}

export const context = newContext();

export interface Person {
  readonly cipherSuite: number;
  readonly credential: mls.Credential;
  readonly signatureKeyPair: KeyPair;
}

export function person(name: string, cipherSuite: number): Person {
  return {
    cipherSuite,
    credential: { credentialType: mls.CredentialType.Basic, identity: bytes(name) },
    signatureKeyPair: mls.generateSignatureKeyPair(context, cipherSuite),
  };
}

/** The outcome, unless it is a refusal: `{ kind: 'rejected', rule, name, reason }`. */
export function accepted<T extends { readonly kind: string }>(outcome: T): Exclude<T, { kind: 'rejected' }> {
  if (outcome.kind === 'rejected') throw new Error(JSON.stringify(outcome));
  return outcome as Exclude<T, { kind: 'rejected' }>;
}

export function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

export function text(data: Uint8Array): string {
  return new TextDecoder().decode(data);
}
