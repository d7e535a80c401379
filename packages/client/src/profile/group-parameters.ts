/**
 * What our groups look like to MLS (PROTOCOL section 9): suites, capabilities, extensions, limits, and the hooks by which
 * mls asks for our rules.
 */
import type { CryptoProvider } from '@quicprochat/crypto';
import {
  type Capabilities,
  CredentialType,
  type Extension,
  ExtensionType,
  type GroupConfig,
  type Lifetime,
  type MlsHooks,
  ProtocolVersion,
} from '@quicprochat/mls';
import { QpcExtensionType } from './channel-extension.ts';
import { verifyMember } from './member.ts';
import { SUITES } from './suites.ts';
import { lifetimeAllowed, validateCommit } from './validate-commit.ts';

const OUR_EXTENSIONS: readonly number[] = [QpcExtensionType.DeviceCertificate, QpcExtensionType.Channel];

export const CAPABILITIES: Capabilities = {
  versions: [ProtocolVersion.Mls10],
  cipherSuites: SUITES,
  extensions: [ExtensionType.LastResort, ...OUR_EXTENSIONS],
  proposals: [],
  credentials: [CredentialType.Basic],
};

/** required_capabilities of our groups (RFC 9420 section 11.1): our two extensions and the basic credential. */
export const REQUIRED_CAPABILITIES: Extension = {
  extensionType: ExtensionType.RequiredCapabilities,
  extensionData: requiredCapabilities(),
};

function requiredCapabilities(): Uint8Array {
  const extensionBytes = OUR_EXTENSIONS.flatMap((type) => [type >> 8, type & 0xff]);
  return new Uint8Array([extensionBytes.length, ...extensionBytes, 0, 2, 0, CredentialType.Basic]);
}

const DAY_SECS = 86_400;
/** Of KeyPackages and the leaves made from them: at most 90 days in all (PROTOCOL section 9). */
export const KEY_PACKAGE_LIFETIME_SECS = 84 * DAY_SECS;
const BACKDATE_SECS = 3_600;

export function keyPackageLifetime(nowSecs: number): Lifetime {
  return {
    notBefore: BigInt(nowSecs - BACKDATE_SECS),
    notAfter: BigInt(nowSecs + KEY_PACKAGE_LIFETIME_SECS),
  };
}

/** Limits of PROTOCOL section 9. */
export const GROUP_CONFIG: Partial<GroupConfig> = {
  skipAheadMax: 2_000,
  unusedKeysPerSenderMax: 256,
  unusedKeysPerGroupMax: 10_000,
  pastEpochsMax: 5,
  pastEpochSecondsMax: 7 * DAY_SECS,
};

/** The application's part of MLS: credentials are devices with certificates, commits follow our rules. */
export function mlsHooks(crypto: CryptoProvider, origin: string): MlsHooks {
  return {
    validateMember: (member, reason) => {
      const outcome = verifyMember(crypto, origin, member);
      if (outcome.kind === 'invalid') return { kind: 'reject', reason: outcome.reason };
      if (reason !== 'join' && !lifetimeAllowed(member)) {
        return { kind: 'reject', reason: 'the lifetime of a leaf is longer than 90 days' };
      }
      return { kind: 'accept' };
    },
    validateCommit,
  };
}
