/** What RevokeDevice and RevokeKey have in common: a device is its key, so losing the one ends the other. */
import { create, toBinary } from '@bufbuild/protobuf';
import { parseRevocation, verifyRevocation } from '@quicprochat/core';
import type { VerifiedRevocation } from '@quicprochat/core';
import { equal } from '@quicprochat/crypto';
import { KeyRevokedEventSchema, PushEvent } from '@quicprochat/proto';
import { checkStatement, outOfDate, statementsOf } from './account-statement.ts';
import type { ServerContext } from './context.ts';
import { audit } from './handler.ts';
import type { DeviceCall } from './handler.ts';
import { conflict, deviceGone, exhausted, forbidden, invalidArgument } from './refusals.ts';
import { expelDevice } from './sessions.ts';
import type { Address, ReplayGuard, StatedAccount, StatedEntry } from './store/store.ts';

/** What the two methods' bodies have in common. */
interface RevocationBody {
  readonly revocation: Uint8Array;
  readonly accountStatement: Uint8Array;
}

/**
 * Checks the statement, stores it, ends the device and tells those who share a channel with it.
 * @param deviceId the device it has to be about, where the request names one
 * @param signer the key that signed the request: only the identity key may revoke another device than the caller's
 */
export async function revoke(
  call: DeviceCall,
  body: RevocationBody,
  signer: Uint8Array,
  replay: ReplayGuard,
  deviceId?: Uint8Array,
): Promise<void> {
  const { server, session, writes } = call;
  const { identityKey } = session.address;
  const before = await server.store.findStatedAccount({ identityKey });
  if (before === undefined) throw deviceGone();
  const { address, bytes } = verified(call, body.revocation, before);
  if (deviceId !== undefined && !equal(address.deviceId, deviceId)) {
    throw invalidArgument('the revocation is for another device');
  }
  const isOwn = equal(address.deviceId, session.address.deviceId);
  const byIdentityKey = equal(signer, identityKey);
  if (!isOwn && !byIdentityKey) {
    throw forbidden('a device key revokes its own device only', 'Sign with the identity key.');
  }
  const stated = byIdentityKey ? await statedWithout(call, before, address, bytes, body) : unstated(body);
  const nowMs = server.clock.wallMs();
  const { identityKey: account, deviceId: device } = address;
  const outcome = await server.store.revokeDevice({ address, statement: bytes, stated, nowMs, replay }, writes);
  if (outcome.kind === 'revoked' || outcome.kind === 'recorded') server.keyTransparency.accepted();
  switch (outcome.kind) {
    case 'revoked':
      await announce(server, address);
      expelDevice(server, address, call.connection);
      audit(call, { event: 'device_revoked', outcome: 'ok', account, device });
      return;
    case 'recorded':
      audit(call, { event: 'key_revoked', outcome: 'ok', account, device });
      return;
    case 'replayed': {
      // A retry of what took effect is answered like the first time; anything else is a replay.
      const [there] = await server.store.findRevocations([address]);
      if (there !== undefined) return;
      throw conflict('this signed request was used before', 'Sign a new one.');
    }
    case 'stale_statement':
      throw outOfDate();
    case 'too_many':
      throw exhausted(`an account revokes at most ${outcome.max} devices that are not registered here`);
    case 'unknown_account':
      throw deviceGone();
  }
}

/** The account without the device, as its next statement has to say. Of two revocations of a device the first stands. */
async function statedWithout(
  { server }: DeviceCall,
  before: StatedAccount,
  address: Address,
  revocation: Uint8Array,
  body: RevocationBody,
): Promise<StatedEntry | undefined> {
  const isRevoked = (await server.store.findRevocations([address])).length > 0;
  const left = before.account.devices.filter((device) => !equal(device.deviceId, address.deviceId));
  return checkStatement(server, body.accountStatement, before, {
    kind: 'keys',
    certificates: left.map((device) => device.certificate),
    revocations: statementsOf(before, isRevoked ? undefined : revocation),
  });
}

/** A device that leaves by itself cannot speak for the account; whoever holds the identity key states it later. */
function unstated(body: RevocationBody): undefined {
  if (body.accountStatement.length > 0) {
    throw invalidArgument('an account statement goes with a request by the identity key');
  }
}

/** A statement about a device of the caller's account, under the key the server knows the device by. */
function verified({ server }: DeviceCall, statement: Uint8Array, before: StatedAccount): VerifiedRevocation {
  const parsed = parseRevocation(statement);
  if (parsed === undefined) throw invalidArgument('the revocation cannot be read');
  const { identityKey, devices } = before.account;
  const { deviceId } = parsed.claims.address;
  const device = devices.find((each) => equal(each.deviceId, deviceId));
  const expected = { origin: server.origin, identityKey, deviceKey: device?.deviceKey };
  const outcome = verifyRevocation(server.crypto, parsed, expected);
  if (outcome.kind === 'invalid') throw invalidArgument(`the revocation is refused: ${outcome.reason}`);
  return outcome.statement;
}

/** A hint to every live device that may hold the revoked key in a roster or a leaf; whoever is away asks later. */
async function announce(server: ServerContext, address: Address): Promise<void> {
  const payload = toBinary(KeyRevokedEventSchema, create(KeyRevokedEventSchema, { address }));
  for (const neighbour of await server.store.findNeighbours(address)) {
    server.live.push(neighbour, PushEvent.KEY_REVOKED, payload);
  }
}
