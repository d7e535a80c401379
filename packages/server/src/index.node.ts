/** The quicprochat server, to be started by `qpc-server` or embedded. */
export { resolveConfig, SETTINGS } from './config.ts';
export type { ConfigOutcome, ConfigSources, ServerConfig, Setting } from './config.ts';
export type { Log, ServerClock } from './context.ts';
export { displayText } from '@quicprochat/core';
export { ControlError, OperatorRefusal } from './operator/control-socket.node.ts';
export { findRunning, openOperator } from './operator/operator.node.ts';
export type { Operator } from './operator/operator.node.ts';
export { readReport, readReportPrivateKey, writeReportKeyFiles } from './operator/report-files.node.ts';
export { RestoreError, restoreServer } from './operator/restore.node.ts';
export type { ServerStatus } from './operator/status.node.ts';
export { readStoreKey } from './open-store.node.ts';
export { startServer, systemServerClock } from './server.node.ts';
export type { RunningServer, ServerSurroundings } from './server.node.ts';
export { StartupError } from './startup-error.ts';
export type { StartupErrorKind } from './startup-error.ts';
