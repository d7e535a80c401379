import { isOpaqueRecord, OPAQUE_RECORD_BYTES } from '@quicprochat/core';
import { equal } from '@quicprochat/crypto';
import { StoreRecoveryBundleBodySchema } from '@quicprochat/proto';
import type { RecoverySlot as RecoverySlotMessage } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import { atMost, exactBytes, identityKey as identityKeyOf, optionalBytes } from '../../checks.ts';
import { audit, handler } from '../../handler.ts';
import type { Call } from '../../handler.ts';
import { networkOf } from '../../rate-limits.ts';
import { conflict, deviceGone, invalidArgument, unauthenticated } from '../../refusals.ts';
import { expelDevice } from '../../sessions.ts';
import { verifySignedRequest } from '../../signed-request.ts';
import type { RecoverySlot } from '../../store/store.ts';

const method = methods.recovery.storeRecoveryBundle;
const HASH_BYTES = 32;
const SEALED_DATA_BYTES_MAX = 200_000;
const SEALED_KEY_BYTES_MAX = 1_024;
const SLOTS_MAX = 2;

/**
 * Replaces the bundle; with a new OPAQUE record it is a change of password, and all other sessions end. The identity key's
 * signature is enough: whoever has come back by the phrase has that key, and no password to log in with.
 */
export const storeRecoveryBundle = handler(method, async (call, request) => {
  const { server, connection, writes } = call;
  const of = whose(call, request.identityKey);
  const { identityKey } = of;
  const schema = StoreRecoveryBundleBodySchema;
  const { body, replay } = verifySignedRequest(server, method.id, schema, request.signed, identityKey);
  const account = await server.store.findAccountByIdentity(identityKey);
  if (account === undefined) throw unauthenticated('this identity key has no account here');
  const { username } = account;
  const { sealedData } = body;
  if (sealedData.length === 0 || sealedData.length > SEALED_DATA_BYTES_MAX) {
    throw invalidArgument(`a recovery bundle has between 1 and ${SEALED_DATA_BYTES_MAX} bytes`);
  }
  const slots = atMost(body.slots, SLOTS_MAX, 'slots').map(slotOf);
  if (slots.length === 0) throw invalidArgument('a bundle without a slot opens for nobody');
  if (new Set(slots.map(({ kind }) => kind)).size < slots.length) throw invalidArgument('each kind of slot comes once');
  const opaqueRecord = optionalBytes(body.registrationRecord, OPAQUE_RECORD_BYTES, 'an OPAQUE registration record');
  // THREATS 20: as at registration, a record that no login could be answered from would set this name apart.
  if (opaqueRecord !== undefined && !isOpaqueRecord(server.opaqueSetup, username, opaqueRecord)) {
    throw invalidArgument('the OPAQUE registration record is malformed');
  }
  const put = { bundle: { sealedData, slots }, of, opaqueRecord, replay };
  const outcome = await server.store.putRecovery(put, writes);
  switch (outcome.kind) {
    case 'stored':
      for (const each of outcome.ended)
        expelDevice(server, each, connection, 'the password of this account has changed');
      audit(call, {
        event: opaqueRecord === undefined ? 'recovery_stored' : 'password_changed',
        outcome: 'ok',
        account: identityKey,
      });
      return {};
    case 'replayed': {
      // A retry of what took effect is answered like the first time; anything else is a replay.
      const there = await server.store.findRecovery(username);
      if (there !== undefined && equal(there.sealedData, sealedData)) return {};
      throw conflict('this signed request was used before', 'Sign a new one.');
    }
    case 'unknown_device':
      throw deviceGone();
  }
});

/** The caller's account and device; without a device's session the account named. */
function whose(
  { server, connection }: Call,
  named: Uint8Array,
): { readonly identityKey: Uint8Array; readonly deviceId?: Uint8Array } {
  const { session } = connection.state;
  if (session?.kind === 'device') {
    if (named.length > 0) throw invalidArgument('an identity key is named without a session only');
    return session.address;
  }
  server.rates.take('passwords', networkOf(connection));
  return { identityKey: identityKeyOf(named) };
}

function slotOf({ kind, sealedKey, fetchTokenHash }: RecoverySlotMessage): RecoverySlot {
  if (sealedKey.length === 0 || sealedKey.length > SEALED_KEY_BYTES_MAX) {
    throw invalidArgument(`a sealed key has between 1 and ${SEALED_KEY_BYTES_MAX} bytes`);
  }
  if (kind === 'phrase') {
    const hash = exactBytes(fetchTokenHash, HASH_BYTES, 'the hash of a fetch token');
    return { kind, sealedKey, fetchTokenHash: hash };
  }
  if (kind !== 'password') throw invalidArgument('a slot is of the kind "password" or "phrase"');
  if (fetchTokenHash.length > 0) throw invalidArgument('only a phrase fetches without a session');
  return { kind, sealedKey, fetchTokenHash: undefined };
}
