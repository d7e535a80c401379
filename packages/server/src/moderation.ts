/**
 * Shutting an account out and letting it in again, for administrators over the wire and for the operator at the machine
 * alike. The store refuses new sessions first, then the live ones end: a ban is in force when this answers.
 */
import { displayText } from '@quicprochat/core';
import { encodeHex, encodeUtf8 } from '@quicprochat/crypto';
import type { ServerContext } from './context.ts';
import { forbidden, invalidArgument, notFound } from './refusals.ts';
import { expelDevice } from './sessions.ts';
import type { WriteContext } from './store/store.ts';

const REASON_BYTES_MAX = 512;
// A hundred years: beyond, a date can't be written any more.
const DURATION_SECS_MAX = 100 * 365 * 86_400;

/** What moderation needs of a server; without live devices it works on a store that nobody serves. */
export type ModerationContext = Pick<ServerContext, 'store' | 'clock' | 'admins' | 'live'>;

/**
 * @param durationSecs 0 = for good
 * @returns how many live connections have ended, and when the ban will
 * @throws RpcError for a reason or duration out of bounds, an administrator, an unknown account
 */
export async function banAccount(
  server: ModerationContext,
  ban: { readonly identityKey: Uint8Array; readonly reason: string; readonly durationSecs: number },
  writes?: WriteContext,
): Promise<{ readonly untilMs: number | undefined; readonly connectionsEnded: number }> {
  const { identityKey, reason, durationSecs } = ban;
  if (encodeUtf8(reason).length > REASON_BYTES_MAX) {
    throw invalidArgument(`a reason has at most ${REASON_BYTES_MAX} bytes`);
  }
  if (displayText(reason) !== reason) throw invalidArgument('a reason has no control characters');
  if (durationSecs > DURATION_SECS_MAX) throw invalidArgument('a ban ends within a hundred years', 'Give 0: for good.');
  if (server.admins.has(encodeHex(identityKey))) {
    throw forbidden('an administrator can’t be banned', 'Take them out of the configuration first.');
  }
  const untilMs = durationSecs === 0 ? undefined : server.clock.wallMs() + durationSecs * 1000;
  const outcome = await server.store.putBan({ identityKey, reason, untilMs }, writes);
  if (outcome.kind === 'unknown_account') throw notFound('there is no account with this identity key');
  const connectionsEnded = await expelAccount(server, identityKey, 'this account is banned');
  return { untilMs, connectionsEnded };
}

/** Ends the live connections of all devices of an account; answers how many there were. */
async function expelAccount(server: ModerationContext, identityKey: Uint8Array, reason: string): Promise<number> {
  let ended = 0;
  for (const address of await server.store.listDevices(identityKey)) {
    ended += server.live.connections(address).length;
    expelDevice(server, address, undefined, reason);
  }
  return ended;
}
