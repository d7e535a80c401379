/** An account as ResolveUser and ResolveIdentity return it. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { AccountSchema, UnknownAccountSchema } from '@quicprochat/proto';
import type { Account } from './store/store.ts';

export interface AccountAnswer {
  outcome:
    | { case: 'found'; value: MessageInitShape<typeof AccountSchema> }
    | { case: 'unknown'; value: MessageInitShape<typeof UnknownAccountSchema> };
}

export function accountAnswer(account: Account | undefined): AccountAnswer {
  if (account === undefined) return { outcome: { case: 'unknown', value: {} } };
  const { username, identityKey, devices } = account;
  const deviceCertificates = devices.map((device) => device.certificate);
  return { outcome: { case: 'found', value: { username, identityKey, deviceCertificates } } };
}
