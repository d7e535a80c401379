/** MLS cipher suites of our groups (PROTOCOL section 9). */
import { CipherSuiteId } from '@quicprochat/mls';
import type { SuiteName } from '../types.ts';

const BY_NAME: Readonly<Record<SuiteName, number>> = {
  'post-quantum': CipherSuiteId.MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519,
  classical: CipherSuiteId.MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519,
};

export const SUITE_CLASSICAL: number = BY_NAME.classical;
export const SUITE_POST_QUANTUM: number = BY_NAME['post-quantum'];
/** Suites this client can join in; KeyPackages are kept for each. */
export const SUITES: readonly number[] = [SUITE_POST_QUANTUM, SUITE_CLASSICAL];
/** Suite of new groups and direct conversations unless the caller chooses another. */
export const SUITE_DEFAULT: number = BY_NAME['post-quantum'];

/** Whether the suite's own key exchange is post-quantum, so that envelopes need no salt beside it. */
export function isPostQuantum(suite: number): boolean {
  // RFC 9420's suites are all classical; the hybrid ones live in the private range until code points are assigned.
  return suite >= 0xf000;
}

/** Undefined for a name that is none. */
export function suiteNamed(name: SuiteName): number | undefined {
  return Object.hasOwn(BY_NAME, name) ? BY_NAME[name] : undefined;
}

export function nameOfSuite(suite: number): SuiteName {
  return isPostQuantum(suite) ? 'post-quantum' : 'classical';
}
