/** Beginning and ending sessions: the session belongs to the connection, tokens are for the next one (PROTOCOL 3). */
import { encodeAddress } from '@quicprochat/core';
import { encodeHex, equal } from '@quicprochat/crypto';
import { CloseCode } from '@quicprochat/transport';
import type { ClientConnection, DeviceSession, ServerContext } from './context.ts';
import { banned, deviceGone } from './refusals.ts';
import type { Address, Standing } from './store/store.ts';

const DEVICE_GONE = 'this device has no session here any more';

/** Tokens live this long after their last use. */
export const SESSION_LIFETIME_MS = 30 * 86_400_000;

export function deviceSession(device: Pick<DeviceSession, 'address' | 'username' | 'deviceKey'>): DeviceSession {
  const { address } = device;
  return {
    kind: 'device',
    ...device,
    account: encodeHex(address.identityKey),
    device: encodeHex(encodeAddress(address)),
  };
}

/** Unless its standing is good, the session has ended again. */
export async function beginDeviceSession(
  server: ServerContext,
  connection: ClientConnection,
  session: DeviceSession,
): Promise<Standing> {
  endSession(server, connection);
  // The connection may have gone while the store was asked; its end has been handled already.
  if (connection.closed !== undefined) return { kind: 'good' };
  connection.state.session = session;
  connection.state.named = true;
  server.live.add(session.address, connection);
  server.wakeUps.forget(session.address);
  // Asked after the session is live: whoever revokes it meanwhile finds it here, or is seen by this.
  const standing = await server.store.standingOf(session.address, server.clock.wallMs());
  if (standing.kind !== 'good') endSession(server, connection);
  return standing;
}

/** What a device without standing hears. */
export function refusalOf(standing: Exclude<Standing, { readonly kind: 'good' }>): Error {
  return standing.kind === 'banned' ? banned(standing.ban) : deviceGone();
}

/** Ends the device's sessions and its connections at once; `calling` keeps its connection to hear the answer. */
export function expelDevice(
  server: Pick<ServerContext, 'live'>,
  address: Address,
  calling?: ClientConnection,
  reason = DEVICE_GONE,
): void {
  for (const connection of server.live.connections(address)) {
    endSession(server, connection);
    if (connection !== calling) connection.close(CloseCode.none, reason);
  }
}

export function endSession(server: Pick<ServerContext, 'live'>, connection: ClientConnection): void {
  const { state } = connection;
  state.pump?.stop();
  state.pump = undefined;
  if (state.session?.kind === 'device') server.live.remove(state.session.address, connection);
  state.session = undefined;
}

/** Whether the account still has the OPAQUE record that a login was answered from. */
export async function isStillThePassword(
  server: ServerContext,
  login: { readonly username: string; readonly record: Uint8Array },
): Promise<boolean> {
  const account = await server.store.findOpaqueRecord(login.username);
  return account !== undefined && equal(account.record, login.record);
}
