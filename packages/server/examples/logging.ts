/**
 * A plugin that looks at everything and decides nothing: a line in the server's log for each event. What it sees are
 * keyed hashes; the one name, that of a registration, it leaves out.
 *
 *   qpc-server --plugin packages/server/examples/logging.ts
 */
import { definePlugin } from '@quicprochat/server/plugin';

export default definePlugin(({ log }) => ({
  name: 'logging',
  hooks: {
    enqueue: (event) => log('enqueue', { ...event }),
    fetch: (event) => log('fetch', { ...event }),
    auth: (event) => log('auth', { ...event }),
    channel: (event) => log('channel', { ...event }),
    registration: ({ call, network }) => log('registration', { call, network }),
    shutdown: () => log('shutdown'),
  },
  // Looking on is no reason to turn anybody away.
  onFailure: { auth: 'allow', channel: 'allow', registration: 'allow' },
}));
