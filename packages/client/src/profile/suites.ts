/** MLS cipher suites of our groups (PROTOCOL section 9). */

/** MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519. */
const SUITE_CLASSICAL = 0x0001;
/** Suites this client can join in; KeyPackages are kept for each. */
export const SUITES: readonly number[] = [SUITE_CLASSICAL];
/** Suite of new groups unless the caller chooses another. */
export const SUITE_DEFAULT: number = SUITE_CLASSICAL;

/** Whether the suite's own key exchange is post-quantum, so that envelopes need no salt beside it. */
export function isPostQuantum(suite: number): boolean {
  // RFC 9420's suites are all classical; the hybrid ones live in the private range until code points are assigned.
  return suite >= 0xf000;
}
