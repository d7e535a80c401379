/** The quicprochat server, to be started by `qpc-server` or embedded. */
export { resolveConfig, SETTINGS } from './config.ts';
export type { ConfigOutcome, ConfigSources, ServerConfig, Setting } from './config.ts';
export type { Log, ServerClock } from './context.ts';
export { startServer, systemServerClock } from './server.node.ts';
export type { RunningServer, ServerSurroundings } from './server.node.ts';
export { StartupError } from './startup-error.ts';
export type { StartupErrorKind } from './startup-error.ts';
