/** An account as ResolveUser and ResolveIdentity return it. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { AccountSchema, UnknownAccountSchema } from '@quicprochat/proto';
import type { ResolvedAccount } from './key-transparency.ts';

export interface AccountAnswer {
  outcome:
    | { case: 'found'; value: MessageInitShape<typeof AccountSchema> }
    | { case: 'unknown'; value: MessageInitShape<typeof UnknownAccountSchema> };
}

export function accountAnswer(resolved: ResolvedAccount | undefined): AccountAnswer {
  if (resolved === undefined) return { outcome: { case: 'unknown', value: {} } };
  const { username, identityKey, devices } = resolved.account;
  const value: MessageInitShape<typeof AccountSchema> = {
    username,
    identityKey,
    deviceCertificates: devices.map((device) => device.certificate),
    revocations: resolved.revocations.map(({ statement }) => statement),
  };
  if (resolved.proof !== undefined) value.keyTransparency = resolved.proof;
  return { outcome: { case: 'found', value } };
}
