// The SDK, portable part: types, errors and what is the same everywhere. To open a profile on Node import
// `@quicprochat/client/node`.
export type { Client, Log } from './client.ts';
export { displayText } from '@quicprochat/core';
export { ClientError, type ClientErrorCode, type ClientErrorKind } from './errors.ts';
export * from './types.ts';
