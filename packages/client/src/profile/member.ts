/**
 * A member of one of our groups: MLS leaf → credential → device certificate (PROTOCOL sections 1 and 2). What is checked
 * here is deterministic, the same answer for every member for ever, so it may decide a commit. Expiry, pins and
 * revocation are looked at elsewhere (contacts.ts) and never decide one.
 */
import { type CryptoProvider, equal } from '@quicprochat/crypto';
import {
  decodeCredentialIdentity,
  type DeviceAddress,
  parseDeviceCertificate,
  verifyDeviceCertificate,
  type VerifiedDeviceCertificate,
} from '@quicprochat/core';
import { CredentialType, type Extension, findExtension, type LeafIndex, type Member } from '@quicprochat/mls';
import { QpcExtensionType } from './channel-extension.ts';

export interface DeviceMember {
  readonly leafIndex: LeafIndex;
  readonly address: DeviceAddress;
  readonly username: string;
  readonly certificate: VerifiedDeviceCertificate;
}

export type MemberOutcome =
  | { readonly kind: 'member'; readonly member: DeviceMember }
  | { readonly kind: 'invalid'; readonly reason: string };

/** Who a leaf belongs to, its certificate verified under the identity key its credential names. */
export function verifyMember(crypto: CryptoProvider, origin: string, member: Member): MemberOutcome {
  const address = addressOf(member);
  if (address === undefined) return { kind: 'invalid', reason: 'the credential is not one of ours' };
  const encoded = certificateExtension(member.extensions);
  const certificate = encoded === undefined ? undefined : parseDeviceCertificate(encoded);
  if (certificate === undefined) return { kind: 'invalid', reason: 'the leaf carries no device certificate' };
  const outcome = verifyDeviceCertificate(crypto, certificate, {
    origin,
    identityKey: address.identityKey,
    deviceId: address.deviceId,
    deviceKey: member.signatureKey,
  });
  if (outcome.kind === 'invalid') return outcome;
  return {
    kind: 'member',
    member: {
      leafIndex: member.leafIndex,
      address,
      username: outcome.statement.username,
      certificate: outcome.statement,
    },
  };
}

/** The address a leaf's credential names; whether it may is `verifyMember`'s to say. */
export function addressOf(member: Pick<Member, 'credential'>): DeviceAddress | undefined {
  const { credential } = member;
  return credential.credentialType === CredentialType.Basic ? decodeCredentialIdentity(credential.identity) : undefined;
}

/** The username in a leaf whose certificate was verified when the leaf came into the group. */
export function usernameOf(member: Pick<Member, 'extensions'>): string | undefined {
  const encoded = certificateExtension(member.extensions);
  return encoded === undefined ? undefined : parseDeviceCertificate(encoded)?.claims.username;
}

export function sameIdentity(a: DeviceAddress, b: DeviceAddress): boolean {
  return equal(a.identityKey, b.identityKey);
}

/** The device certificate that a leaf carries, not verified. */
export function certificateExtension(extensions: readonly Extension[]): Uint8Array | undefined {
  return findExtension(extensions, QpcExtensionType.DeviceCertificate);
}
