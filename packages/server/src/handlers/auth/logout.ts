import { methods } from '@quicprochat/transport';
import { audit, handler } from '../../handler.ts';
import { endSession } from '../../sessions.ts';

/** Ends the device's session here and on its other connections, and with it every token it has. */
export const logout = handler(methods.auth.logout, async (call) => {
  const { server, connection, writes } = call;
  const { session } = connection.state;
  if (session?.kind === 'device') {
    await server.store.revokeSessions(session.address, writes);
    for (const other of server.live.connections(session.address)) endSession(server, other);
    const { identityKey: account, deviceId: device } = session.address;
    audit(call, { event: 'logout', outcome: 'ok', account, device });
  }
  endSession(server, connection);
  return {};
});
