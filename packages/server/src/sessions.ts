/** Beginning and ending sessions: the session belongs to the connection, tokens are for the next one (PROTOCOL 3). */
import type { ClientConnection, DeviceSession, ServerContext } from './context.ts';

/** Tokens live this long after their last use. */
export const SESSION_LIFETIME_MS = 30 * 86_400_000;

export function beginDeviceSession(server: ServerContext, connection: ClientConnection, session: DeviceSession): void {
  endSession(server, connection);
  // The connection may have gone while the store was asked; its end has been handled already.
  if (connection.closed !== undefined) return;
  connection.state.session = session;
  server.live.add(session.address, connection);
}

export function endSession(server: ServerContext, connection: ClientConnection): void {
  const { state } = connection;
  state.pump?.stop();
  state.pump = undefined;
  state.toldGap = undefined;
  if (state.session?.kind === 'device') server.live.remove(state.session.address, connection);
  state.session = undefined;
}
